//! Steady state: what a device does while requests keep coming, and for how long a request stays.
//!
//! A route keeps several batches going round, each of `b` requests (`batch`). In every step a request has one item in a
//! batch: a chunk of its prompt or the token it decodes. With prompts of `C` chunks and answers of `o` tokens it lives
//! through `C + o - 1` steps of its batch (the last chunk yields the first token). In that time the batch takes in `b`
//! prompts, chunk by chunk, each beside the decodes of the others:
//!
//! ```text
//! L_b(device, layers) = b * sum over chunks of step(chunk + k decodes) + max(0, C + o - 1 - b * C) * step(b decodes)
//! k   = ceil(min(b - 1, (o - 1) / C))        decodes beside a chunk
//! T_b = b * o / L_b                          output tokens per second of the device
//! ```
//!
//! `L_b` is the work of one life. Where `b * C` exceeds the steps of a life, prompts alone set
//! the pace and a life lasts as long as `b` prompts take. With `b = 1` a life is the prefill and `o - 1` decode steps.
//! The batch passes the ways between devices in the same steps, so a way has a residence too: latency by the step,
//! bytes by the token.

//!
//! With `m = ceil(requests_max / b)` batches going round, one that follows another waits for it: while any of them
//! has a chunk, all move at its pace. Of the `R = max(C + o - 1, b * C)` steps of a life, `R * (1 - (1 - b * C /
//! R)^m)` are therefore as long as one with a chunk. The time of a life with these waits is the *residence* of a
//! request on the device; with one batch it is `L_b`.

use super::{PlacementProblem, Role, Timing};
use crate::cost::StepShape;
use crate::graph::Path;
use crate::ids::{DeviceId, Layers};
use crate::units::{Bytes, Seconds, TokensPerSecond};

/// Most equal parts of the requests at once that are tried as a batch, besides the powers of two.
const PARTS_MAX: u32 = 8;

/// What a batch goes through during the life of one of its requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Life {
    /// Requests in the batch.
    pub batch: u32,
    /// How many steps of which shape, in the mean.
    pub steps: Vec<(f64, StepShape)>,
    /// The same, a step being as long as that of whichever batch holds up the others.
    pub waits: Vec<(f64, StepShape)>,
}

impl Life {
    fn total(&self, of: impl Fn(&StepShape) -> u32) -> f64 {
        self.steps.iter().map(|(count, shape)| count * f64::from(of(shape))).sum()
    }

    /// Number of steps.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.total(|_| 1)
    }

    /// Tokens that pass through the layers.
    #[must_use]
    pub fn tokens(&self) -> f64 {
        self.total(StepShape::tokens)
    }

    /// Tokens that are sampled.
    #[must_use]
    pub fn sampled(&self) -> f64 {
        self.total(|shape| shape.sequences)
    }
}

impl PlacementProblem {
    /// The numbers of requests that are tried as a batch, from the greatest down: those of the choices; unless stated,
    /// all that are admitted, equal parts of them, and the powers of two below. Only the first where no device has step
    /// times, since nothing depends on it.
    #[must_use]
    pub fn batches(&self) -> Vec<u32> {
        let most = self.serving.requests_max.max(1);
        if !self.knows_times() {
            return vec![most];
        }
        // Prompts follow one another whatever their batch, and one by itself is there for the least time.
        if self.role() == Some(Role::Prefill) {
            return vec![1];
        }
        let given = self.limits.choices.batches.iter().copied();
        let given: Vec<u32> = given.filter(|batch| (1..=most).contains(batch)).collect();
        let parts = (1..=PARTS_MAX).map(|parts| most.div_ceil(parts));
        let powers = (0..u32::BITS).map(|power| 1 << power).take_while(|&batch| batch < most);
        let mut batches: Vec<u32> = if given.is_empty() { parts.chain(powers).collect() } else { given };
        batches.sort_unstable_by(|a, b| b.cmp(a));
        batches.dedup();
        batches
    }

    /// Whether the step times of any device are known; else there are rates at most.
    #[must_use]
    pub fn knows_times(&self) -> bool {
        self.timing.iter().any(|timing| matches!(timing, Timing::Profile(_)))
    }

    /// The steps of a batch of `b` requests during the life of one of them, with prompts of `C` chunks and answers of
    /// `o` tokens. Its steps on a device take
    ///
    /// ```text
    /// L_b = b * sum over chunks of step(chunk + k decodes) + max(0, C + o - 1 - b * C) * step(b decodes)
    /// k   = ceil(min(b - 1, (o - 1) / C))        decodes beside a chunk
    /// T_b = b * o / L_b                          output tokens per second of the device
    /// ```
    ///
    /// On a side that decodes there are no chunks: `L_b = (o - 1) * step(b decodes)`.
    #[must_use]
    pub fn life(&self, batch: u32) -> Life {
        let batch = batch.max(1);
        if self.role() == Some(Role::Decode) {
            let steps = vec![(self.crossing_tokens(), StepShape::decode(batch, self.mean_context()))];
            return Life { batch, waits: steps.clone(), steps };
        }
        let (together, decoded) = (f64::from(batch), self.workload.output_tokens.mean() - 1.0);
        let chunks: Vec<StepShape> = self.prefill_chunks().collect();
        let count = chunks.len() as f64;
        let beside = libm::ceil((together - 1.0).min(decoded / count)) as u32;
        let context = self.mean_context();
        let rounds = (count + decoded).max(together * count);
        let others = self.serving.requests_max.max(1).div_ceil(batch);
        let without = (0..others).fold(1.0, |share, _| share * (1.0 - together * count / rounds));
        let held_up = rounds * (1.0 - without);
        let mut steps: Vec<(f64, StepShape)> = Vec::with_capacity(chunks.len() + 1);
        let mut waits = Vec::with_capacity(chunks.len() + 1);
        for mut shape in chunks {
            if beside > 0 {
                (shape.decodes, shape.decode_context) = (beside, context);
                shape.sequences += beside;
            }
            waits.push((held_up / count, shape.clone()));
            steps.push((together, shape));
        }
        let alone = count + decoded - together * count;
        if alone > 0.0 {
            steps.push((alone, StepShape::decode(batch, context)));
        }
        if rounds > held_up {
            waits.push((rounds - held_up, StepShape::decode(batch, context)));
        }
        Life { batch, steps, waits }
    }

    /// Time that a device which holds these layers works during a life; none where no step times are known.
    #[must_use]
    pub fn work(&self, device: DeviceId, layers: Layers, life: &Life) -> Option<Seconds> {
        self.spent_on(device, layers, &life.steps)
    }

    /// Time that a request spends on a device which holds these layers, waits included; none as for
    /// [`work`](Self::work).
    #[must_use]
    pub fn residence(&self, device: DeviceId, layers: Layers, life: &Life) -> Option<Seconds> {
        self.spent_on(device, layers, &life.waits)
    }

    fn spent_on(&self, device: DeviceId, layers: Layers, steps: &[(f64, StepShape)]) -> Option<Seconds> {
        steps.iter().map(|(count, shape)| self.step(device, layers, shape).map(|step| step * *count)).sum()
    }

    /// Output tokens per second that a device sustains while holding these layers, in batches of this life: `T_b` of
    /// [`PlacementProblem::life`], or as its table of rates says, which knows no batches.
    #[must_use]
    pub fn rate(&self, device: DeviceId, layers: Layers, life: &Life) -> Option<TokensPerSecond> {
        match &self.timing[device.index()] {
            Timing::Unknown => None,
            Timing::Rates => {
                let rates = &self.graph.device(device).rates;
                let full = rates.iter().find(|(held, _)| *held == layers.len()).map(|&(_, rate)| rate)?;
                let share = self.speed(device).min(self.duty(device));
                TokensPerSecond::new(full.value() * share).ok().filter(|_| share > 0.0)
            }
            Timing::Profile(_) => {
                let work = self.work(device, layers, life)?.value();
                let output = f64::from(life.batch) * self.workload.output_tokens.mean();
                // A request of no time, or next to none, has no finite rate.
                let at_work = (self.duty(device) / self.speed(device)).min(1.0);
                TokensPerSecond::new(output / work * at_work).ok().filter(|_| work > 0.0)
            }
        }
    }

    /// Time that a request spends on the way between two devices: latency by the step, activations by the token. Zero
    /// where only a rate is stated; none where there is no way.
    #[must_use]
    pub fn hop_residence(&self, from: DeviceId, to: DeviceId, life: &Life) -> Option<Seconds> {
        let row = self.model.boundary_bytes_per_token();
        self.residence_on(self.graph.device_path(from, to, row).as_ref(), (from, to), life)
    }

    /// The same by a way that is known, as [`crate::graph::DeviceGraph::paths_from`] gives it for one token's
    /// activations.
    pub(crate) fn residence_on(
        &self,
        path: Option<&Path>,
        (from, to): (DeviceId, DeviceId),
        life: &Life,
    ) -> Option<Seconds> {
        match path {
            Some(path) => {
                let row = self.model.boundary_bytes_per_token();
                spent(path, life.count(), row.0 as f64 * life.tokens())
            }
            None => {
                let (a, b) = (&self.graph.device(from).name, &self.graph.device(to).name);
                self.stated_rate(a, b).map(|_| Seconds::ZERO)
            }
        }
    }

    /// Time that a request spends on the way to the first device of its route: token identifiers, 4 bytes each. Zero
    /// where the graph has no coordinator; none where it has one and there is no way.
    #[must_use]
    pub fn entry_residence(&self, device: DeviceId, life: &Life) -> Option<Seconds> {
        self.end_residence(device, true, life.count(), life.tokens())
    }

    /// Time that a request spends on the way from the last device of its route: sampled tokens, 4 bytes each. None as
    /// for [`entry_residence`](Self::entry_residence).
    #[must_use]
    pub fn exit_residence(&self, device: DeviceId, life: &Life) -> Option<Seconds> {
        self.end_residence(device, false, life.count(), life.sampled())
    }

    fn end_residence(&self, device: DeviceId, inward: bool, steps: f64, tokens: f64) -> Option<Seconds> {
        let Some(coordinator) = self.graph.file().coordinator.as_deref() else { return Some(Seconds::ZERO) };
        let name = self.graph.device(device).name.as_str();
        let (from, to) = if inward { (coordinator, name) } else { (name, coordinator) };
        self.graph.path(from, to, Bytes(4)).and_then(|path| spent(&path, steps, 4.0 * tokens))
    }

    /// Requests in flight, in output tokens: how many requests are admitted at once, times the tokens of each answer.
    /// By Little's law, rate times residence of a request cannot exceed it.
    #[must_use]
    pub fn tokens_in_flight(&self) -> f64 {
        f64::from(self.serving.requests_max) * self.workload.output_tokens.mean()
    }
}

/// Time of so many messages with so many bytes in all; none where it is not finite.
fn spent(path: &Path, messages: f64, bytes: f64) -> Option<Seconds> {
    let moving = path.bandwidth.map_or(0.0, |rate| bytes / rate.value());
    Seconds::new(path.latency.value() * messages + moving).ok()
}
