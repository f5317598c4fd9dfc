//! Layers of which a device's caches keep some of the weights.
//!
//! A stage reads all its weights once in every step. Where they are more than a cache holds, nothing is found there
//! that was read a step ago; where a stage has so few layers that they are not, a step takes less than its layers'
//! share of a step through the whole model. By how much depends on how many weights lie between two visits to a layer,
//! the output head's included, and on how many tokens share a step: with many, computing takes longer than reading, and
//! nothing is gained.
//!
//! Stages of devices that share a cache read all that they hold together, so nothing of this holds for them.

use super::{TableError, rising};
use crate::ids::Layers;
use serde::{Deserialize, Serialize};

/// How much of its dense time a layer takes in stages of few layers, over what it takes in the stage of all of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ResidentText")]
pub struct Resident {
    /// Weights of the output head, as a multiple of a layer's.
    head_layers: f64,
    /// Weights that a stage reads in a step, as multiples of a layer's, rising. The last is the whole model that the
    /// profile is of, where all shares are 1; so are they beyond it.
    layers: Vec<f64>,
    /// Tokens of a step, rising. Below the first its share holds, beyond the last that one's.
    tokens: Vec<u32>,
    /// Shares, above 0 and at most 1, row by row of `layers`; none falls as layers rise.
    shares: Vec<f64>,
}

#[derive(Deserialize)]
struct ResidentText {
    head_layers: f64,
    layers: Vec<f64>,
    tokens: Vec<u32>,
    shares: Vec<f64>,
}

impl TryFrom<ResidentText> for Resident {
    type Error = TableError;
    fn try_from(text: ResidentText) -> Result<Self, TableError> {
        Self::new(text.head_layers, text.layers, text.tokens, text.shares)
    }
}

impl Resident {
    /// A table of shares, row by row of `layers`, in units of a layer's weights.
    ///
    /// Errors: no knots, knots that do not rise or are below zero, another number of shares than of pairs of knots, a
    /// share that is not above 0 and at most 1, one of the last row that is not 1, or one that is below that of fewer
    /// layers.
    pub fn new(head_layers: f64, layers: Vec<f64>, tokens: Vec<u32>, shares: Vec<f64>) -> Result<Self, TableError> {
        rising(tokens.iter().copied())?;
        if layers.is_empty() {
            return Err(TableError::Empty);
        }
        let knots = [head_layers].into_iter().chain(layers.iter().copied());
        if let Some(wrong) = knots.into_iter().find(|knot| !(knot.is_finite() && *knot >= 0.0)) {
            return Err(TableError::Weights(wrong));
        }
        if let Some(pair) = layers.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(TableError::Weights(pair[1]));
        }
        if Some(shares.len()) != layers.len().checked_mul(tokens.len()) {
            return Err(TableError::Shape { rows: layers.len(), columns: tokens.len(), values: shares.len() });
        }
        if let Some(wrong) = shares.iter().find(|share| !(**share > 0.0 && **share <= 1.0)) {
            return Err(TableError::Share(*wrong));
        }
        // Without a step there, it does not matter on which side of the last knot rounding puts the whole model.
        if let Some(wrong) = shares[shares.len() - tokens.len()..].iter().find(|share| **share < 1.0) {
            return Err(TableError::Share(*wrong));
        }
        let falling = (tokens.len()..shares.len()).find(|&at| shares[at] < shares[at - tokens.len()]);
        if let Some(at) = falling {
            return Err(TableError::Share(shares[at]));
        }
        Ok(Self { head_layers, layers, tokens, shares })
    }

    /// Weights that a stage reads in each step, in units of a layer's.
    fn weights(&self, layers: Layers, layers_total: u32) -> f64 {
        let head = if layers.end == layers_total { self.head_layers } else { 0.0 };
        f64::from(layers.len()) + head
    }

    /// The share of its dense time that a layer takes in a stage of these layers, in a step of so many tokens; bilinear
    /// between knots.
    #[must_use]
    pub fn share(&self, layers: Layers, layers_total: u32, tokens: f64) -> f64 {
        let weights = self.weights(layers, layers_total);
        if weights >= self.layers[self.layers.len() - 1] {
            return 1.0;
        }
        let row = self.layers.partition_point(|knot| *knot < weights);
        let above = self.row(row, tokens);
        if row == 0 {
            return above;
        }
        let (from, to) = (self.layers[row - 1], self.layers[row]);
        let along = (weights - from) / (to - from);
        self.row(row - 1, tokens) * (1.0 - along) + above * along
    }

    /// The share in a row at so many tokens.
    fn row(&self, row: usize, tokens: f64) -> f64 {
        let count = self.tokens.len();
        let shares = &self.shares[row * count..(row + 1) * count];
        let right = self.tokens.partition_point(|knot| f64::from(*knot) < tokens);
        if right == 0 || right == count {
            return shares[right.min(count - 1)];
        }
        let (from, to) = (f64::from(self.tokens[right - 1]), f64::from(self.tokens[right]));
        let along = (tokens - from) / (to - from);
        shares[right - 1] * (1.0 - along) + shares[right] * along
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Resident {
        // A head of two layers' weights beside eight layers; nothing is gained with 16 tokens.
        let shares = vec![0.6, 1.0, 0.8, 1.0, 1.0, 1.0];
        Resident::new(2.0, vec![2.0, 4.0, 10.0], vec![1, 16], shares).expect("well formed")
    }

    #[test]
    fn few_layers_take_less_and_all_of_them_what_they_take() {
        let share = |start, end, tokens| table().share(Layers::new(start, end), 8, tokens);
        for (found, expected) in [
            (share(0, 2, 1.0), 0.6),
            (share(0, 1, 1.0), 0.6),
            (share(0, 3, 1.0), 0.7),
            // The head counts for two layers more.
            (share(6, 8, 1.0), 0.8),
            (share(0, 8, 1.0), 1.0),
            (share(0, 7, 1.0), 0.9),
            (share(0, 2, 8.5), 0.8),
            (share(0, 2, 300.0), 1.0),
        ] {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        // A model of more layers than the one that was measured.
        assert!((table().share(Layers::new(0, 12), 20, 1.0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn tables_that_make_no_sense_are_refused() {
        let of = |layers: &[f64], tokens: &[u32], shares: &[f64]| {
            Resident::new(0.5, layers.to_vec(), tokens.to_vec(), shares.to_vec())
        };
        assert_eq!(of(&[], &[1], &[]), Err(TableError::Empty));
        assert_eq!(of(&[1.0], &[], &[]), Err(TableError::Empty));
        assert_eq!(of(&[2.0, 2.0], &[1], &[0.5, 1.0]), Err(TableError::Weights(2.0)));
        assert_eq!(of(&[1.0, 2.0], &[1], &[0.0, 1.0]), Err(TableError::Share(0.0)));
        assert_eq!(of(&[1.0, 2.0], &[1], &[0.9, 0.8]), Err(TableError::Share(0.8)));
        assert_eq!(of(&[1.0, 2.0], &[1], &[0.9]), Err(TableError::Shape { rows: 2, columns: 1, values: 1 }));
        assert!(of(&[1.0, f64::NAN], &[1], &[0.9, 1.0]).is_err());
        assert!(Resident::new(-1.0, vec![1.0], vec![1], vec![1.0]).is_err());
    }
}
