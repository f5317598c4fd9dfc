//! Feed-forward by experts: each token goes to a few of them, and a step reads those that any of its tokens goes to.

use super::{Curve, TableError, rising};
use crate::units::Seconds;
use serde::{Deserialize, Serialize};

/// Feed-forward by experts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Experts {
    /// Experts of a layer.
    pub count: u32,
    /// Experts that each token goes to.
    pub per_token: u32,
    /// Layers that have them; the others have the plain feed-forward.
    pub layers: u32,
    /// Devices that divide the experts among them.
    pub devices: u32,
    /// Devices that divide each expert's width among them.
    pub width: u32,
    /// Experts that each token went to where it was measured.
    pub measured_per_token: u32,
    /// How often each expert is chosen, in any unit, in the order in which devices divide them; even where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub popularity: Vec<f64>,
    /// Seconds over tokens, for each number of activated experts that was measured, rising.
    pub by_activated: Vec<(u32, Curve)>,
}

#[derive(Deserialize)]
struct Unchecked {
    count: u32,
    per_token: u32,
    layers: u32,
    #[serde(default = "one")]
    devices: u32,
    #[serde(default = "one")]
    width: u32,
    measured_per_token: u32,
    #[serde(default)]
    popularity: Vec<f64>,
    by_activated: Vec<(u32, Curve)>,
}

const fn one() -> u32 {
    1
}

impl TryFrom<Unchecked> for Experts {
    type Error = TableError;
    fn try_from(of: Unchecked) -> Result<Self, TableError> {
        let Unchecked { count, per_token, layers, devices, width, measured_per_token, popularity, by_activated } = of;
        Self { count, per_token, layers, devices, width, measured_per_token, popularity, by_activated }.checked()
    }
}

impl Experts {
    /// Most experts of a layer.
    pub const COUNT_MAX: u32 = 1 << 16;

    /// The same, if it makes sense. Errors: a count is zero or above [`COUNT_MAX`](Self::COUNT_MAX), a token goes to more
    /// experts than there are, rows of measured numbers that do not rise, or popularities that are not one for each expert.
    pub fn checked(self) -> Result<Self, TableError> {
        let whole = |count: u32| (1..=Self::COUNT_MAX).contains(&count);
        let counts = [self.count, self.per_token, self.devices, self.width, self.measured_per_token];
        if !counts.into_iter().all(whole) || self.per_token > self.count {
            return Err(TableError::Experts { count: self.count, per_token: self.per_token });
        }
        rising(self.by_activated.iter().map(|row| row.0))?;
        let sum: f64 = self.popularity.iter().sum();
        let sound = self.popularity.iter().all(|share| *share >= 0.0) && sum.is_finite() && sum > 0.0;
        if !self.popularity.is_empty() && (self.popularity.len() != self.count as usize || !sound) {
            return Err(TableError::Popularity { experts: self.count, given: self.popularity.len() });
        }
        Ok(self)
    }

    /// How many experts of a layer at least one of `tokens` tokens goes to, in the mean, where each token chooses
    /// `per_token` distinct ones evenly: `count * (1 - (1 - per_token / count)^tokens)`; where they are not chosen
    /// evenly, the sum of the same over the experts, each with its own share.
    #[must_use]
    pub fn activated(&self, tokens: f64) -> f64 {
        if !self.popularity.is_empty() {
            return self.activated_among(0..self.popularity.len(), tokens);
        }
        let count = f64::from(self.count.max(1));
        let missed = 1.0 - f64::from(self.per_token.min(self.count)) / count;
        count * (1.0 - libm::pow(missed.max(0.0), tokens))
    }

    /// Share of the tokens that go to an expert. One that would be chosen more than once by a token takes every token,
    /// and nothing is made of the rest.
    fn share(&self, expert: usize) -> f64 {
        let sum: f64 = self.popularity.iter().sum();
        (self.popularity[expert] / sum * f64::from(self.per_token)).min(1.0)
    }

    fn activated_among(&self, experts: std::ops::Range<usize>, tokens: f64) -> f64 {
        experts.map(|expert| 1.0 - libm::pow(1.0 - self.share(expert), tokens)).sum()
    }

    /// The time of one layer on one device, of a group whose steps have `tokens` tokens together; where experts are not
    /// chosen evenly, on the device that takes longest, as the others wait for it.
    ///
    /// What a kernel works on are pairs of token and expert. Where they were measured with fewer experts for each
    /// token, as many more tokens make the same number of pairs.
    #[must_use]
    pub fn at(&self, tokens: f64) -> Seconds {
        let devices = self.devices.max(1) as usize;
        if self.popularity.is_empty() {
            let pairs = tokens * f64::from(self.per_token) / devices as f64;
            return self.of_device(self.activated(tokens) / devices as f64, pairs);
        }
        let count = self.popularity.len();
        let times = (0..devices).map(|device| {
            let held = count * device / devices..count * (device + 1) / devices;
            let pairs: f64 = held.clone().map(|expert| self.share(expert) * tokens).sum();
            self.of_device(self.activated_among(held, tokens), pairs)
        });
        times.fold(Seconds::ZERO, Seconds::max)
    }

    /// The time of one layer on a device with so many activated experts and pairs of token and expert.
    fn of_device(&self, activated: f64, pairs: f64) -> Seconds {
        let tokens = pairs / f64::from(self.measured_per_token.max(1));
        let (rows, tokens) = (&self.by_activated, tokens.max(1.0));
        let high = rows.partition_point(|(k, _)| f64::from(*k) < activated);
        let time = match (high.checked_sub(1).and_then(|low| rows.get(low)), rows.get(high)) {
            (Some((a, below)), Some((b, above))) => {
                let share = (activated - f64::from(*a)) / f64::from(b - a);
                below.at(tokens) * (1.0 - share) + above.at(tokens) * share
            }
            (Some((_, only)), None) | (None, Some((_, only))) => only.at(tokens),
            (None, None) => Seconds::ZERO,
        };
        time.max(Seconds::ZERO) / f64::from(self.width.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that reads each activated expert in a millisecond and takes a microsecond for each pair.
    fn experts(popularity: Vec<f64>, devices: u32) -> Experts {
        let curve = |activated: u32| {
            let ms = |tokens: u32| Seconds::of(f64::from(activated) * 1e-3 + f64::from(tokens) * 2e-6);
            Curve::new(vec![(1, ms(1)), (1024, ms(1024))]).expect("rising")
        };
        Experts {
            count: 8,
            per_token: 2,
            layers: 1,
            devices,
            width: 1,
            measured_per_token: 2,
            popularity,
            by_activated: [1, 2, 4, 8].map(|n| (n, curve(n))).to_vec(),
        }
        .checked()
        .expect("sound")
    }

    #[test]
    fn even_popularity_is_the_same_as_none() {
        for devices in [1, 2, 4] {
            for tokens in [1.0, 3.0, 40.0, 500.0] {
                let (none, even) = (experts(Vec::new(), devices), experts(vec![3.0; 8], devices));
                assert!((none.activated(tokens) - even.activated(tokens)).abs() < 1e-12);
                assert!((none.at(tokens).value() - even.at(tokens).value()).abs() < 1e-15, "{devices} {tokens}");
            }
        }
    }

    #[test]
    fn one_token_activates_its_own_experts_and_many_all_of_them() {
        let experts = experts(Vec::new(), 1);
        assert!((experts.activated(1.0) - 2.0).abs() < 1e-12 && (experts.activated(400.0) - 8.0).abs() < 1e-9);
        // Two experts of a millisecond, two pairs of a microsecond.
        assert!((experts.at(1.0).value() - 2.002e-3).abs() < 1e-12);
    }

    #[test]
    fn the_device_with_the_popular_experts_is_waited_for() {
        let skewed = vec![8.0, 8.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        let (even, uneven) = (experts(Vec::new(), 4), experts(skewed.clone(), 4));
        assert!(uneven.at(64.0) > even.at(64.0), "its device gets most of the pairs");
        // Few tokens share experts that are popular, so fewer are read.
        assert!(experts(skewed, 1).activated(3.0) < experts(Vec::new(), 1).activated(3.0));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let sound = experts(Vec::new(), 1);
        for wrong in [
            Experts { count: 0, ..sound.clone() },
            Experts { per_token: 9, ..sound.clone() },
            Experts { by_activated: Vec::new(), ..sound.clone() },
            Experts {
                by_activated: vec![sound.by_activated[1].clone(), sound.by_activated[0].clone()],
                ..sound.clone()
            },
            Experts { popularity: vec![1.0; 7], ..sound.clone() },
            Experts { popularity: vec![0.0; 8], ..sound.clone() },
        ] {
            let text = serde_json::to_string(&wrong).expect("serialises");
            assert!(wrong.checked().is_err() && serde_json::from_str::<Experts>(&text).is_err(), "{text}");
        }
        let text = serde_json::to_string(&sound).expect("serialises");
        assert_eq!(serde_json::from_str::<Experts>(&text).expect("reads"), sound);
    }
}
