//! Times of whole steps, where somebody measured a serving engine from outside and not operator by operator.
//!
//! Such a table holds the time of a step that only prefills, over its tokens, and of one that only decodes, over its
//! sequences; a step that does both takes a multiple of a prefill of as many tokens. Nothing is known of contexts or of
//! single layers: a part of the layers takes that part of the time.

use super::{Curve, StepShape, TableError};
use crate::units::Seconds;
use serde::{Deserialize, Serialize};

/// Seconds of a step through all layers of a model on one device, at full clock with nothing else running on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "IterationText")]
pub struct IterationTable {
    /// A step that only prefills, over its tokens.
    prefill_seconds: Curve,
    /// A step that only decodes, over its sequences.
    decode_seconds: Curve,
    /// Time of a step that does both over that of a prefill of as many tokens.
    mixed_factor: f64,
}

/// Greatest factor of a mixed step: beyond it there is a slip of the pen.
pub const MIXED_FACTOR_MAX: f64 = 1e3;

#[derive(Deserialize)]
struct IterationText {
    prefill_seconds: Curve,
    decode_seconds: Curve,
    mixed_factor: f64,
}

impl TryFrom<IterationText> for IterationTable {
    type Error = TableError;
    fn try_from(text: IterationText) -> Result<Self, TableError> {
        Self::new(text.prefill_seconds, text.decode_seconds, text.mixed_factor)
    }
}

impl IterationTable {
    /// A table. Errors: the factor is not in `0..=MIXED_FACTOR_MAX`.
    pub fn new(prefill_seconds: Curve, decode_seconds: Curve, mixed_factor: f64) -> Result<Self, TableError> {
        if !(0.0..=MIXED_FACTOR_MAX).contains(&mixed_factor) {
            return Err(TableError::Factor(mixed_factor));
        }
        Ok(Self { prefill_seconds, decode_seconds, mixed_factor })
    }

    /// Time of one step through all layers.
    #[must_use]
    pub fn step(&self, shape: &StepShape) -> Seconds {
        let tokens = f64::from(shape.tokens());
        if shape.prefills.is_empty() {
            return self.decode_seconds.at(tokens);
        }
        let prefill = self.prefill_seconds.at(tokens);
        if shape.decodes == 0 { prefill } else { prefill * self.mixed_factor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_step_has_its_own_time() {
        let curve = |knots: &[(u32, f64)]| {
            Curve::new(knots.iter().map(|&(k, t)| (k, Seconds::of(t))).collect()).expect("rising knots")
        };
        let (prefill, decode) = (curve(&[(128, 2.0), (256, 3.0)]), curve(&[(128, 0.5), (256, 0.25)]));
        assert!(IterationTable::new(prefill.clone(), decode.clone(), f64::NAN).is_err());
        let table = IterationTable::new(prefill, decode, 2.0).expect("a table");
        let time = |shape: &StepShape| table.step(shape).value();
        assert_eq!(time(&StepShape::prefill(192, 0, true)), 2.5);
        // Both curves go on beyond their knots with the slope of the last segment, and before them with the first.
        assert_eq!(time(&StepShape::prefill(384, 0, true)), 4.0);
        assert_eq!(time(&StepShape::decode(64, 1.0)), 0.625);
        assert_eq!(time(&StepShape { decodes: 64, ..StepShape::prefill(64, 0, true) }), 4.0);
    }
}
