//! Step times of one device, and the cost tables made of them.

use super::disturbance::Look;
use super::kept::{self, Kept};
use super::samples::{Samples, median};
use super::shapes::{Between, Knots, Shape};
use super::turns::Turn;
use super::{ProbeError, Request, tables};
use crate::cpu::Isa;
use crate::cpu::neighbours::Reading;
use crate::engine::CpuDevice;
use crate::engine::Kernels;
use crate::engine::pass::Pass;
use crate::engine::pipeline::{Pipeline, StagePlace};
use crate::engine::stage::StageSpec;
use isotherm_core::cost::{Conditions, OperatorProfile};
use isotherm_core::units::Seconds;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Fewest samples of a shape, and most: the spread of so many is known well enough.
const SAMPLES: Range<u32> = 3..400;
/// Rounds in which a shape between two knots is timed in turn with both, before the tables are judged by it.
const ROUNDS_BETWEEN: usize = 6;
/// The part of the layers that long passes are timed with: one in so many, and so many at least.
const PART: usize = 4;
const PART_MIN: usize = 2;
/// Share by which tables may miss a shape between two knots; beyond it the shape becomes a knot itself.
const MISS_MAX: f64 = 0.02;
/// Share of the time after which no further shape is looked at: what is left makes the times of all of them sure.
const LOOKING: f64 = 0.65;
/// Share of that time in which the first knots are timed before anything is judged by them.
const FIRST: f64 = 0.35;
/// The step of one decoding sequence decides how fast a plan answers; it gets so many times the time of another shape.
const FAVOUR: f64 = 3.0;
/// A long shape among those that warm up.
const WARM_LONG: Shape = Shape::Prefill { tokens: 64, cached: 0 };
/// Passes, and time, after which caches and clock are as they are in service, where steps much like one another follow
/// one another.
const WARM: u32 = 2;
const WARM_TIME: Duration = Duration::from_millis(10);
/// Time after which one pass is as warm as several.
const WARM_ALONE: Duration = Duration::from_millis(15);
/// Time for which a shape is timed before the next has its turn.
const BURST: Duration = Duration::from_millis(15);
/// Share of the time that shapes which seldom were without disturbance may get beyond it.
const OVERTIME: f64 = 0.2;
/// The pass that brings the layers of a long one into the caches.
const WARM_SHORT: Shape = Shape::Decode { sequences: 1, context: 16 };
/// Passes before and in the measurement of what a card's pass costs beside its layers.
const FIXED_WARM: u32 = 5;
const FIXED_SAMPLES: u32 = 25;
/// Largest difference of a logit that rounding explains, as a share of the largest logit: two orders of summation of
/// some hundred terms in each of some hundred products.
const SELF_TEST_SHARE: f64 = 2e-3;
/// The same where activations are rounded to eight bits.
const SELF_TEST_SHARE_INT8: f64 = 0.15;

/// A shape and its samples: the work through all layers, the output head after it, and what the pass took beyond both.
pub(super) struct Timed {
    pub(super) shape: Shape,
    pub(super) layers: Samples,
    pub(super) head: Samples,
    pub(super) around: Samples,
    /// Seconds of a pass through all layers that are there however few layers there are.
    pub(super) fixed: f64,
    /// All layers over those that it was timed with.
    of_all: f64,
    /// Time spent on it.
    spent: Duration,
}

impl Timed {
    fn new(shape: Shape, fixed: f64, of_all: f64) -> Self {
        let none = Samples::default;
        Self { shape, layers: none(), head: none(), around: none(), fixed, of_all, spent: Duration::ZERO }
    }

    /// Seconds that all layers take.
    pub(super) fn work(&self) -> f64 {
        (self.layers.typical() - self.fixed).max(0.0) * self.of_all
    }

    /// Whether it should be sampled until it has so many samples; where they hardly count and there is overtime,
    /// longer.
    fn wants(&self, enough: u32, overtime: bool) -> bool {
        let count = self.layers.count();
        count < enough || (overtime && self.layers.calm() < SAMPLES.start && count < SAMPLES.end)
    }

    /// How much of its share of the time it has had.
    fn served(&self) -> f64 {
        let favour = if matches!(self.shape, Shape::Decode { sequences: 1, .. }) { FAVOUR } else { 1.0 };
        self.spent.as_secs_f64() / favour
    }
}

/// The stages that a device is measured with: all layers on it.
pub(super) fn start(
    request: &Request<'_>,
    places: &[(&CpuDevice, Range<usize>)],
    kernels: Kernels,
    rows: usize,
    positions: usize,
    blocks: usize,
) -> Result<Pipeline, ProbeError> {
    start_beside(request, places, &[], kernels, (rows, positions, blocks))
}

/// The same, whose threads wait as beside other stages on these cores; `most` are rows, positions and cache blocks.
pub(super) fn start_beside(
    request: &Request<'_>,
    places: &[(&CpuDevice, Range<usize>)],
    others: &[usize],
    kernels: Kernels,
    most: (usize, usize, usize),
) -> Result<Pipeline, ProbeError> {
    let places: Vec<StagePlace> = places
        .iter()
        .map(|(device, layers)| StagePlace {
            device: (*device).clone(),
            spec: StageSpec {
                layers: layers.clone(),
                isa: kernels.isa,
                arithmetic: kernels.arithmetic,
                rows_max: most.0,
                positions_max: most.1,
                cache_blocks: most.2,
                away: 0,
                folder: None,
            },
        })
        .collect();
    Ok(Pipeline::start_beside(request.gguf, request.geometry, &places, others)?)
}

/// Which of the layers a pass goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Through {
    /// All of them.
    All,
    /// The first part of them, where there is one apart.
    Part,
    /// The first half, while that is there.
    Half,
}

/// A device under measurement.
pub(super) struct Bench<'a, 'b> {
    /// Its turn.
    turn: &'a mut Turn<'b>,
    pipeline: Pipeline,
    /// The first of the layers alone, for long passes, and how many these are; none of a model of few layers.
    part: Option<(Pipeline, usize)>,
    /// The first half of the layers, while it is timed.
    pub(super) half: Option<Pipeline>,
    /// Layers of the model.
    layers: usize,
    pub(super) pass: Pass,
    /// What was timed last.
    before: Option<(Shape, Through)>,
    /// Time of its turns before the measurement began.
    begin: Duration,
    /// Seconds there are.
    time: f64,
    /// Shapes that are knots.
    timed: Vec<Timed>,
    /// Shapes between knots at which the tables hold.
    between: Vec<Timed>,
    /// Whether the device is a card, which tells what its head takes only where it is asked apart.
    pub(super) is_card: bool,
    /// Seconds of a pass that are there however few layers there are.
    pub(super) fixed: f64,
}

impl Bench<'_, '_> {
    /// How many layers the part has that long passes go through; none where there is no part.
    pub(super) fn part_layers(&self) -> Option<usize> {
        self.part.as_ref().map(|(_, layers)| *layers)
    }

    /// The layers that a shape is timed with.
    fn through(&self, shape: Shape) -> Through {
        if shape.is_long() && self.part.is_some() { Through::Part } else { Through::All }
    }

    /// Runs a shape through some of the layers.
    pub(super) fn run(&mut self, shape: Shape, through: Through, apart: bool) {
        let mut next = std::mem::take(&mut self.pass);
        shape.fill(&mut next);
        next.apart = apart;
        next.looks_beside = true;
        let pipeline = match (through, &mut self.part, &mut self.half) {
            (Through::Part, Some((part, _)), _) => part,
            (Through::Half, _, Some(half)) => half,
            _ => &mut self.pipeline,
        };
        pipeline.send(next);
        self.pass = pipeline.receive();
    }

    /// Brings caches and clock into the state in which a step finds them in service, after steps much like it: whatever
    /// of the weights fits is there, and a clock that heavier work held down has risen again. A long pass gets there by
    /// short ones through the same layers.
    pub(super) fn warm(&mut self, shape: Shape, through: Through) {
        if self.before != Some((shape, through)) {
            warmed(|| self.run(if shape.is_long() { WARM_SHORT } else { shape }, through, false));
            self.before = Some((shape, through));
        }
    }

    /// Does something again and again for as long as a burst lasts.
    pub(super) fn for_a_burst(&mut self, mut once: impl FnMut(&mut Self)) {
        let begin = Instant::now();
        while {
            once(self);
            begin.elapsed() < BURST
        } {}
    }

    /// Samples of a shape, one right after the other as in service, for a while or until there are enough; the seconds
    /// that its layers took, all of them, in the median. Nothing is looked at between them but what each pass sees
    /// itself.
    fn sample(&mut self, entry: &mut Timed, enough: u32) -> f64 {
        let (begin, through) = (Instant::now(), self.through(entry.shape));
        self.warm(entry.shape, through);
        let (from, before) = (Instant::now(), Look::now());
        // Who was beside, nanoseconds of the layers, of the head and beyond both.
        let mut taken: Vec<(Reading, u64, u64, u64)> = Vec::new();
        loop {
            let before_it = self.pass.worst_beside();
            let wall = Instant::now();
            self.run(entry.shape, through, false);
            let elapsed_ns = nanoseconds(wall.elapsed()).saturating_sub(self.pass.looking_ns);
            // A neighbour that came or went meanwhile was there at one end.
            let beside = before_it.or_worse(self.pass.worst_beside());
            let work = self.pass.busy_ns.iter().sum::<u64>();
            if self.is_card {
                self.run(entry.shape, through, true);
            }
            let head = self.pass.head_ns;
            taken.push((beside, work.saturating_sub(head), head, elapsed_ns.saturating_sub(work)));
            let count = entry.layers.count() as usize + taken.len();
            if count >= enough as usize || from.elapsed() >= BURST {
                break;
            }
        }
        // What computes behind a card's interface on the processor has more threads than cores, which wait for each
        // other.
        let clean = before.undisturbed_until(Look::now(), nanoseconds(from.elapsed()), self.is_card);
        for &(beside, layers, head, around) in &taken {
            entry.layers.add_if(clean, beside, layers);
            entry.head.add_if(clean, beside, head);
            entry.around.add_if(clean, beside, around);
        }
        entry.spent += begin.elapsed();
        let middle = median(taken.iter().map(|(_, layers, ..)| *layers as f64).collect());
        (middle * 1e-9 - entry.fixed).max(0.0) * entry.of_all
    }

    /// Seconds of its turns since the measurement began.
    fn spent(&self) -> f64 {
        self.turn.spent().saturating_sub(self.begin).as_secs_f64()
    }

    pub(super) fn left(&self, share: f64) -> bool {
        !self.turn.is_over() && self.spent() < self.time * share
    }

    /// Lets other devices have their turns where it is time for that. They may leave nothing of the caches.
    pub(super) fn may_pass_on(&mut self) {
        let done = if self.time > 0.0 { (self.spent() / self.time).min(1.0) } else { 1.0 };
        if self.turn.may_pass_on(done) {
            self.before = None;
        }
    }

    /// Samples knots, and what lies between them, each with an equal share of the time, in turn: whichever has had
    /// least comes next. Until so much of the time has gone and every shape has its fewest samples.
    fn sample_all(&mut self, share: f64) {
        let (mut timed, mut between) = (std::mem::take(&mut self.timed), std::mem::take(&mut self.between));
        loop {
            let enough = if self.left(share) { SAMPLES.end } else { SAMPLES.start };
            let overtime = self.left(share + OVERTIME);
            let open = timed.iter_mut().chain(&mut between).filter(|entry| entry.wants(enough, overtime));
            let Some(entry) = open.min_by(|a, b| a.served().total_cmp(&b.served())) else { break };
            self.sample(entry, enough);
            self.may_pass_on();
        }
        (self.timed, self.between) = (timed, between);
    }

    /// Looks between the knots while there is time. Where the tables miss a shape there, it becomes a knot, and its own
    /// neighbourhood is looked at next; where they hold, it stays as a witness.
    fn look_between(&mut self, knots: &mut Knots) {
        let mut seen: Vec<Between> = Vec::new();
        while self.left(LOOKING) {
            // What is quick to time comes first, so that the time goes far.
            let open = knots.between().into_iter().filter(|(place, _)| !seen.contains(place));
            let Some((place, shape)) = open.min_by_key(|(_, shape)| shape.tokens()) else { break };
            seen.push(place);
            let Some((around, share)) = knots.around(place) else { continue };
            self.may_pass_on();
            let (entry, misses) = self.in_turn(shape, around, share);
            if !is_missed(&misses) {
                self.between.push(entry);
                continue;
            }
            knots.insert(place);
            self.timed.push(entry);
            let missing: Vec<Shape> = knots.shapes().into_iter().filter(|shape| !self.has(*shape)).collect();
            let new: Vec<Timed> = missing.into_iter().map(|shape| self.entry(shape)).collect();
            self.timed.extend(new);
        }
    }

    /// Times a shape in turn with the knots on both sides of it, so that a disturbance meets all three. Gives it, and
    /// by how much the line between the two misses it in each round, as a share of what it takes.
    fn in_turn(&mut self, shape: Shape, around: [Shape; 2], share: f64) -> (Timed, Vec<f64>) {
        let mut entry = self.entry(shape);
        let mut misses = Vec::new();
        let mut timed = std::mem::take(&mut self.timed);
        for _ in 0..ROUNDS_BETWEEN {
            let mut side = |wanted: Shape| {
                timed.iter_mut().find(|known| known.shape == wanted).map(|e| self.sample(e, SAMPLES.end))
            };
            let (Some(low), Some(high)) = (side(around[0]), side(around[1])) else { break };
            let own = self.sample(&mut entry, SAMPLES.end);
            if own > 0.0 {
                misses.push((low * (1.0 - share) + high * share) / own - 1.0);
            }
        }
        self.timed = timed;
        (entry, misses)
    }

    fn entry(&self, shape: Shape) -> Timed {
        let part = self.part_layers().filter(|_| shape.is_long());
        Timed::new(shape, self.fixed, part.map_or(1.0, |part| self.layers as f64 / part as f64))
    }

    fn has(&self, shape: Shape) -> bool {
        self.timed.iter().any(|entry| entry.shape == shape)
    }
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Repeats a pass until everything is as warm as in service.
pub(super) fn warmed(mut pass: impl FnMut()) {
    let begin = Instant::now();
    for turn in 1_u32.. {
        pass();
        let elapsed = begin.elapsed();
        // One that is long by itself leaves everything as the next of its kind finds it.
        if elapsed >= WARM_ALONE || (turn >= WARM && elapsed >= WARM_TIME) {
            break;
        }
    }
}

/// Whether misses of several rounds tell a miss of the tables, and no chance: their median is too large, and all rounds
/// but one lie on its side.
fn is_missed(misses: &[f64]) -> bool {
    let middle = median(misses.to_vec());
    let agree = misses.iter().filter(|miss| miss.signum() == middle.signum()).count();
    middle.abs() > MISS_MAX && agree + 1 >= misses.len()
}

/// Measures one device alone, within a time.
pub(super) fn measure(
    request: &Request<'_>,
    device: &CpuDevice,
    share: Seconds,
    conditions: &dyn Fn() -> Conditions,
    turn: &mut Turn<'_>,
) -> Result<OperatorProfile, ProbeError> {
    let layers = request.geometry.layers;
    let room = Knots::positions_max(request.geometry.context);
    let mut knots = Knots::within(room);
    self_test(request, device)?;
    let (rows, blocks) = (Knots::rows_max(), Knots::blocks_max(room));
    let fixed = if device.card.is_some() { fixed(request, device) } else { 0.0 };
    let pipeline = start(request, &[(device, 0..layers)], request.kernels, rows, room, blocks)?;
    let some = layers.div_ceil(PART).max(PART_MIN);
    let part = if some < layers {
        // Where there is no room for them a second time, long passes go through all layers too.
        let part = start(request, &[(device, 0..some)], request.kernels, rows, room, blocks).ok();
        part.map(|part| (part, some))
    } else {
        None
    };
    let mut bench = Bench {
        turn,
        pipeline,
        part,
        half: None,
        layers,
        pass: Pass::default(),
        before: None,
        begin: Duration::ZERO,
        time: share.value(),
        timed: Vec::new(),
        between: Vec::new(),
        is_card: device.card.is_some(),
        fixed,
    };
    bench.timed = knots.shapes().into_iter().map(|shape| bench.entry(shape)).collect();
    // The first passes warm caches, pages and clock, and do not count.
    for shape in knots.shapes().into_iter().filter(|shape| shape.tokens() <= 16 || *shape == WARM_LONG) {
        bench.run(shape, bench.through(shape), false);
    }
    bench.begin = bench.turn.spent();
    bench.sample_all(FIRST);
    bench.look_between(&mut knots);
    let kept = Kept::measure(request, device, &mut bench);
    bench.sample_all(1.0);
    sound(device, &mut bench.pass)?;
    let profile = tables::tables(request, &knots, &bench.timed)?;
    let profile = OperatorProfile { resident: kept.table(&profile, kept::weights(request))?, ..profile };
    let all: u32 = bench.timed.iter().map(|entry| entry.layers.count()).sum();
    let disturbed: u32 = bench.timed.iter().map(|entry| entry.layers.disturbed()).sum();
    let disturbed = Some(f64::from(disturbed) / f64::from(all.max(1)));
    let beside: u32 = bench.timed.iter().map(|entry| entry.layers.beside()).sum();
    let neighbours = Some(f64::from(beside) / f64::from(all.max(1))).filter(|share| *share > 0.0);
    let slowed: Vec<f64> = bench.timed.iter().filter_map(|entry| entry.layers.slowed_beside()).collect();
    let neighbours_slow = neighbours.and((!slowed.is_empty()).then(|| median(slowed)));
    let (took, counted) =
        bench.timed.iter().map(|entry| entry.layers.of_all()).fold((0.0, 0.0), |(a, b), (c, d)| (a + c, b + d));
    let average_slow = Some(took / counted).filter(|times| times.is_finite() && *times > 0.0);
    let of_passes = Conditions { disturbed, neighbours, neighbours_slow, average_slow, ..conditions() };
    let conditions = Conditions { slowed: device.slowdown(), ..of_passes };
    Ok(OperatorProfile { conditions: Some(tables::judged(&profile, &bench.between, layers, conditions)), ..profile })
}

/// Seconds of a card's pass that are there however few layers it does: what a pass through two halves of the model, one
/// after the other on the same card, is busy longer than one through the whole. Telling the card what to do and hearing
/// of its end cost it that; a processor's stages have nothing of the kind. Zero where that cannot be seen: a model of
/// one layer, a card that fails, which the measurement itself then tells.
fn fixed(request: &Request<'_>, device: &CpuDevice) -> f64 {
    let layers = request.geometry.layers;
    let half = layers / 2;
    if half == 0 {
        return 0.0;
    }
    // One after the other, so that the card holds the model once.
    let busy = |places: &[(&CpuDevice, Range<usize>)]| -> Result<f64, ProbeError> {
        let mut pipeline = start(request, places, request.kernels, 1, 16, 1)?;
        let (mut samples, mut pass) = (Samples::default(), Pass::default());
        // The first ones warm up.
        for turn in 0..FIXED_WARM + FIXED_SAMPLES {
            let mut next = std::mem::take(&mut pass);
            Shape::Decode { sequences: 1, context: 16 }.fill(&mut next);
            pipeline.send(next);
            pass = pipeline.receive();
            sound(device, &mut pass)?;
            if turn >= FIXED_WARM {
                samples.add(pass.busy_ns.iter().sum());
            }
        }
        Ok(samples.median())
    };
    let halves = busy(&[(device, 0..half), (device, half..layers)]);
    match (busy(&[(device, 0..layers)]), halves) {
        (Ok(whole), Ok(halves)) => (halves - whole).max(0.0),
        _ => 0.0,
    }
}

/// Errors: a device failed while it was timed. One that is lost fails every later pass too, so that looking at the last
/// one is enough.
pub(super) fn sound(device: &CpuDevice, pass: &mut Pass) -> Result<(), ProbeError> {
    let failed = |source| Err(ProbeError::Failed { device: device.name.clone(), source });
    pass.failed.take().map_or(Ok(()), failed)
}

/// The same pass by this device's kernels and by the portable ones must give the same logits.
fn self_test(request: &Request<'_>, device: &CpuDevice) -> Result<(), ProbeError> {
    let layers = request.geometry.layers;
    let logits = |device: &CpuDevice, kernels: Kernels| -> Result<Vec<f32>, ProbeError> {
        let mut pipeline = start(request, &[(device, 0..layers)], kernels, 4, 16, 1)?;
        let mut pass = Pass::default();
        pass.push(0, &[3, 4, 5], 0.., [2]);
        pipeline.send(pass);
        let pass = pipeline.receive();
        match pass.failed {
            Some(source) => Err(ProbeError::Failed { device: device.name.clone(), source }),
            None => Ok(pass.logits),
        }
    };
    let found = logits(device, request.kernels)?;
    // A card is judged by the processor's plainest kernels.
    let core = CpuDevice::host_cores().first().copied().unwrap_or(0);
    let processor = CpuDevice::new("reference", vec![core]);
    let judge = if device.card.is_some() { &processor } else { device };
    let expected = logits(judge, Kernels { isa: Isa::Portable, ..request.kernels })?;
    let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let worst = found.iter().zip(&expected).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
    let share =
        if request.kernels.arithmetic == crate::cpu::Arithmetic::F32 { SELF_TEST_SHARE } else { SELF_TEST_SHARE_INT8 };
    let limit = f64::from(largest) * share;
    // A device that gives no numbers at all fails too: NaN is not at most anything.
    if found.len() == expected.len() && f64::from(worst) <= limit && found.iter().all(|x| x.is_finite()) {
        return Ok(());
    }
    Err(ProbeError::SelfTest { device: device.name.clone(), found: worst.into(), limit })
}
