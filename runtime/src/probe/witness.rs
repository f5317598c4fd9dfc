//! An independent look at a device: steps of any shape, timed apart from every table, to hold predictions against.

use super::disturbance::Look;
use super::profile::{nanoseconds, sound, start, warmed};
use super::samples::Samples;
use super::{ProbeError, Request, on_own_thread};
use crate::cpu::neighbours::Reading;
use crate::engine::CpuDevice;
use crate::engine::pass::Pass;
use crate::engine::shaped::{blocks_of, longest, once};
use isotherm_core::cost::StepShape;
use isotherm_core::ids::Layers;
use isotherm_core::units::Seconds;
use std::time::{Duration, Instant};

/// Fewest rounds through all shapes: two halves of a few each.
const ROUNDS: u32 = 6;
/// Most rounds.
const ROUNDS_MAX: u32 = 60;

/// Most samples of a shape in a round, and the time after which it gets no more.
const BURST: usize = 12;
const BURST_TIME: Duration = Duration::from_millis(10);

/// What one step took.
#[derive(Debug, Clone, PartialEq)]
pub struct Witnessed {
    /// Its shape.
    pub shape: StepShape,
    /// Seconds from handing it in to having it back, over every second round.
    pub seconds: Seconds,
    /// The same over the other rounds: what the two differ by is the machine's, and no model's.
    pub again: Seconds,
    /// Times it was taken, each right after others like it.
    pub samples: u32,
    /// How many of them other programs disturbed; those count only where there are too few others.
    pub disturbed: u32,
    /// How many of them had neighbours on the same physical cores, or cores moved apart, by whoever runs this machine;
    /// the same holds for those.
    pub beside: u32,
}

impl Witnessed {
    /// Between what all rounds of both halves say.
    #[must_use]
    pub fn middle(&self) -> Seconds {
        (self.seconds + self.again) * 0.5
    }
}

/// Times steps through the first `layers` of the model on a device by itself, all shapes in turn, round after round, until
/// the time is over.
///
/// # Errors
/// When the device does not take the layers or fails.
pub fn witness(
    request: &Request<'_>,
    device: &CpuDevice,
    layers: Layers,
    shapes: &[StepShape],
    time: Seconds,
) -> Result<Vec<Witnessed>, ProbeError> {
    if device.is_empty() {
        return Err(ProbeError::NoCores(device.name.clone()));
    }
    on_own_thread(|| timed(request, device, layers, shapes, Duration::from_secs_f64(time.value().max(0.0))))?
}

fn timed(
    request: &Request<'_>,
    device: &CpuDevice,
    layers: Layers,
    shapes: &[StepShape],
    time: Duration,
) -> Result<Vec<Witnessed>, ProbeError> {
    let most = |of: fn(&StepShape) -> usize| shapes.iter().map(of).max().unwrap_or(1).max(1);
    let (rows, positions, blocks) = (most(|shape| shape.tokens() as usize), most(longest), most(blocks_of));
    let places = [(device, layers.start as usize..layers.end as usize)];
    let mut pipeline = start(request, &places, request.kernels, rows, positions, blocks)?;
    let mut pass = Pass::default();
    let mut halves: Vec<[Samples; 2]> = shapes.iter().map(|_| <[Samples; 2]>::default()).collect();
    let begin = Instant::now();
    let mut round = 0;
    while round < ROUNDS || (round < ROUNDS_MAX && begin.elapsed() < time) {
        for (shape, halves) in shapes.iter().zip(&mut halves) {
            warmed(|| once(&mut pipeline, &mut pass, shape, true));
            let (burst, before) = (Instant::now(), Look::now());
            let mut taken: Vec<(Reading, u64)> = Vec::new();
            // One right after the other, as in service.
            while taken.len() < BURST && (taken.is_empty() || burst.elapsed() < BURST_TIME) {
                let before_it = pass.worst_beside();
                let wall = Instant::now();
                once(&mut pipeline, &mut pass, shape, true);
                let time = nanoseconds(wall.elapsed()).saturating_sub(pass.looking_ns);
                taken.push((before_it.or_worse(pass.worst_beside()), time));
            }
            let clean = before.undisturbed_until(Look::now(), nanoseconds(burst.elapsed()), device.card.is_some());
            for &(beside, time) in &taken {
                halves[round as usize % 2].add_if(clean, beside, time);
            }
        }
        round += 1;
    }
    sound(device, &mut pass)?;
    let seconds = |samples: &Samples| Seconds::of(samples.typical());
    let found = shapes.iter().zip(&halves).map(|(shape, [even, odd])| Witnessed {
        shape: shape.clone(),
        seconds: seconds(even),
        again: seconds(odd),
        samples: even.count() + odd.count(),
        disturbed: even.disturbed() + odd.disturbed(),
        beside: even.beside() + odd.beside(),
    });
    Ok(found.collect())
}
