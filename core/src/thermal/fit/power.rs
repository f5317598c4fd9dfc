//! Power from clock, utilisation and cap, for devices without a power sensor and for times that have not happened yet.

use crate::thermal::log::ThermalLog;
use crate::thermal::matrix::{cholesky, solve};

/// Number of terms.
const TERMS: usize = 6;
/// Powers that are predicted, over the greatest that was seen: beyond it the rule is a guess.
const MARGIN: f64 = 1.25;

/// A linear rule for power, held between nothing and a little more than the greatest power that it was fitted to.
#[derive(Debug, Clone, PartialEq)]
pub struct PowerModel {
    weights: [f64; TERMS],
    /// W.
    most: f64,
    /// Whether the cap is one of its terms.
    capped: bool,
}

/// Idle power; what goes with utilisation; switching power, which goes with clock times the square of a voltage that
/// rises with the clock, hence clock and its cube; what the memory draws; and the cap, where it holds the device down.
fn terms(log: &ThermalLog, k: usize, capped: bool) -> Option<[f64; TERMS]> {
    let busy = log.utilisation.as_ref()?[k];
    let clock = log.clock.as_ref()?[k] / 1_000.0;
    let memory = log.memory.as_ref().map_or(0.0, |memory| memory[k]);
    let cap = log.cap.as_ref().filter(|_| capped).map_or(0.0, |cap| cap[k]);
    Some([1.0, busy, busy * clock, busy * clock * clock * clock, memory * clock, busy * cap / 100.0])
}

impl PowerModel {
    /// The rule that fits the logs best, by least squares with a little ridge; none unless all have clock and
    /// utilisation.
    #[must_use]
    pub fn fit(logs: &[&ThermalLog]) -> Option<Self> {
        let capped = logs.iter().all(|log| log.cap.is_some());
        let mut normal = vec![0.0; TERMS * TERMS];
        let mut gradient = vec![0.0; TERMS];
        let mut most = 0.0_f64;
        for log in logs {
            for (k, &watts) in log.watts.iter().enumerate() {
                let row = terms(log, k, capped)?;
                for i in 0..TERMS {
                    gradient[i] += row[i] * watts;
                    for j in 0..TERMS {
                        normal[i * TERMS + j] += row[i] * row[j];
                    }
                }
                most = most.max(watts);
            }
        }
        let samples: usize = logs.iter().map(|log| log.len()).sum();
        for i in 0..TERMS {
            normal[i * TERMS + i] += 1e-6 * samples as f64;
        }
        let factor = cholesky(&normal, TERMS)?;
        let weights = solve(&factor, &gradient).try_into().ok()?;
        Some(Self { weights, most: most * MARGIN, capped })
    }

    /// The power at each sample of a log; none where the log lacks a column that the rule needs.
    #[must_use]
    pub fn predict(&self, log: &ThermalLog) -> Option<Vec<f64>> {
        if self.capped && log.cap.is_none() {
            return None;
        }
        let power = |k| {
            let row = terms(log, k, self.capped)?;
            let sum: f64 = row.iter().zip(&self.weights).map(|(term, weight)| term * weight).sum();
            Some(sum.clamp(0.0, self.most))
        };
        (0..log.len()).map(power).collect()
    }
}
