//! Steps done and timed while a run has nothing to do: how fast the devices are meanwhile.

use crate::engine::pass::Pass;
use crate::engine::pipeline::{Pipeline, StagePlace};
use crate::engine::shaped::{blocks_of, longest, once};
use isotherm_core::cost::StepShape;
use isotherm_core::units::Seconds;
use std::time::{Duration, Instant};

/// Time between one such step and the next: the rest of a pause is left as it is.
const PAUSE: Duration = Duration::from_millis(100);

/// What a step of a shape took, each time.
#[derive(Debug, Clone, PartialEq)]
pub struct Idle {
    /// The shape.
    pub shape: StepShape,
    /// Seconds from handing each in to having it back, in order.
    pub seconds: Vec<Seconds>,
}

impl Idle {
    /// The mean, a tenth at either end left out; absent without any.
    #[must_use]
    pub fn typical(&self) -> Option<Seconds> {
        let mut rising: Vec<f64> = self.seconds.iter().map(|seconds| seconds.value()).collect();
        rising.sort_unstable_by(f64::total_cmp);
        let cut = rising.len() / 10;
        let inner = &rising[cut..rising.len() - cut];
        (!inner.is_empty()).then(|| Seconds::of(inner.iter().sum::<f64>() / inner.len() as f64))
    }
}

/// Steps to do in turn whenever there is time, and what came of them.
pub(super) struct Idling {
    idle: Vec<Idle>,
    /// Which comes next.
    next: usize,
    /// The longest that any took, the step before it to warm up included.
    longest: Duration,
    last: Option<Instant>,
    pass: Pass,
}

impl Idling {
    /// Of those shapes that the stages have room for.
    pub(super) fn new(shapes: &[StepShape], places: &[StagePlace]) -> Self {
        let fits = |shape: &&StepShape| {
            places.iter().all(|StagePlace { spec, .. }| {
                shape.tokens() as usize <= spec.rows_max
                    && longest(shape) <= spec.positions_max
                    && blocks_of(shape) <= spec.cache_blocks
            })
        };
        let idle = shapes.iter().filter(fits).map(|shape| Idle { shape: shape.clone(), seconds: Vec::new() });
        Self { idle: idle.collect(), next: 0, longest: Duration::ZERO, last: None, pass: Pass::default() }
    }

    /// Does a step now and then for as long as each will surely be over when `until` comes. No sequence may hold a block
    /// of the cache: the steps write there. What failed in one shows in the next pass of the run.
    pub(super) fn fill(&mut self, pipeline: &mut Pipeline, until: Instant) {
        while let Some(idle) = self.idle.get_mut(self.next) {
            let begin = Instant::now();
            let due = self.last.map_or(begin, |last| last + PAUSE).max(begin);
            // How long a step takes that was never done is not known.
            let room = if idle.seconds.is_empty() { PAUSE } else { 2 * self.longest };
            if until.saturating_duration_since(due) < room {
                return;
            }
            std::thread::sleep(due - begin);
            // The first wakes threads and brings the weights; in service a step finds both as the one before left them.
            let begin = Instant::now();
            once(pipeline, &mut self.pass, &idle.shape, false);
            let second = Instant::now();
            once(pipeline, &mut self.pass, &idle.shape, false);
            if self.pass.failed.is_some() {
                return;
            }
            idle.seconds.push(Seconds::of(second.elapsed().as_secs_f64()));
            self.longest = self.longest.max(begin.elapsed());
            self.next = (self.next + 1) % self.idle.len();
            self.last = Some(Instant::now());
        }
    }

    pub(super) fn taken(self) -> Vec<Idle> {
        self.idle
    }
}
