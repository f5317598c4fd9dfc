//! What devices cost each other: hand-over between two of them, and the slowdown when both are busy.

use super::profile::{sound, start, start_beside};
use super::samples::Samples;
use super::{COORDINATOR, ProbeError, Request, on_own_thread};
use crate::backend::peers::{Proof, prove};
use crate::engine::cache::blocks_for;
use crate::engine::pass::Pass;
use crate::engine::pipeline::Pipeline;
use crate::engine::{Card, CpuDevice};
use isotherm_core::device::Device;
use isotherm_core::figure::Figure;
use isotherm_core::graph::{CoRun, Link, LinkKind};
use isotherm_core::units::{BytesPerSecond, Seconds};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Context at which a pass is timed.
const CONTEXT: usize = 128;
/// Fewest passes of one measurement, and most.
const PASSES: std::ops::Range<u32> = 8..40;

/// Measures every pair of devices. One device alone has a way to the coordinator, which costs nothing, and nothing else.
///
/// A chain of three stages waits three times, and its two links say four: they are measured in pairs.
pub(super) fn pairs(
    request: &Request<'_>,
    known: &[Device],
    share: Seconds,
) -> Result<(Vec<Link>, Vec<CoRun>), ProbeError> {
    let devices = request.devices;
    let count = devices.len();
    let each = Duration::from_secs_f64(share.value().max(0.0) / (count * count).max(1) as f64);
    let (mut links, mut co_run) = (Vec::new(), Vec::new());
    for a in 0..count {
        for b in a + 1..count {
            let wait = on_own_thread(|| hand_over(request, &devices[a], &devices[b], each))??;
            // There and back. The driver runs the first stage itself, so that one stage alone has no way at all, and no
            // way leads to the driver for nothing: what a pass waits on its way back stands with its way there.
            let latency = wait.dense();
            let proofs = peers(&devices[a], &devices[b])?;
            for (from, to, proof) in [(a, b, proofs.map(|both| both.0)), (b, a, proofs.map(|both| both.1))] {
                let names = (devices[from].name.as_str(), devices[to].name.as_str());
                let plain = link(request, known, names, latency, &wait);
                links.push(proof.map_or(plain.clone(), |proof| proven(request, plain, &proof)));
            }
            co_run.push(together(request, &devices[a], &devices[b], each)?);
        }
    }
    for device in devices {
        let none = Samples::default();
        links.push(link(request, known, (COORDINATOR, &device.name), 0.0, &none));
        links.push(link(request, known, (&device.name, COORDINATOR), 0.0, &none));
    }
    Ok((links, co_run))
}

/// What copies between two cards prove of the ways between them; none where one of them is no card.
fn peers(one: &CpuDevice, other: &CpuDevice) -> Result<Option<(Proof, Proof)>, ProbeError> {
    let (Some(first), Some(second)) = (&one.card, &other.card) else { return Ok(None) };
    let open = |device: &CpuDevice, card: &Card| {
        card.open().map_err(|source| ProbeError::Failed { device: device.name.clone(), source: Box::new(source) })
    };
    let (mut first, mut second) = (open(one, first)?, open(other, second)?);
    Ok(Some(prove(&mut first, &mut second, 0x15_07)?))
}

/// The same link as the way between two cards that checked copies have proven it to be.
fn proven(request: &Request<'_>, link: Link, proof: &Proof) -> Link {
    let how = if proof.direct { "straight" } else { "through the host" };
    let source = format!("{} copies {how}, each read back and compared", proof.copies);
    let when = Some(request.when.to_owned());
    let rate = BytesPerSecond::of(proof.bytes_per_second.max(1.0));
    Link {
        kind: if proof.direct { LinkKind::PeerToPeer } else { LinkKind::HostStaged },
        bandwidth_bytes_per_second: Some(Figure::measured(rate, source, proof.copies, 0.0, when)),
        ..link
    }
}

/// A way between threads of this process. Buffers change hands without being copied, so a long message costs what
/// fetching it from memory costs.
fn link(request: &Request<'_>, known: &[Device], names: (&str, &str), latency: f64, samples: &Samples) -> Link {
    let when = Some(request.when.to_owned());
    let rate = known
        .iter()
        .find(|device| device.name == names.1 || device.name == names.0)
        .and_then(|device| device.memory_bandwidth_bytes_per_second.as_ref());
    let bandwidth = rate.map(|figure| Figure { value: figure.value, ..figure.clone() });
    let fallback = || Figure::estimated(BytesPerSecond::of(1e9), "memory bandwidth unknown");
    Link {
        from: names.0.to_owned(),
        to: names.1.to_owned(),
        kind: LinkKind::InProcess,
        latency_seconds: Some(Figure::measured(
            Seconds::of(latency.max(0.0)),
            "passes through two stages, less the work of both",
            samples.count(),
            samples.spread(),
            when,
        )),
        bandwidth_bytes_per_second: Some(bandwidth.unwrap_or_else(fallback)),
        tokens_per_second: None,
        groups: Vec::new(),
    }
}

/// What a decoded token waits beyond the work of two stages: the way there and the way back.
fn hand_over(
    request: &Request<'_>,
    first: &CpuDevice,
    second: &CpuDevice,
    time: Duration,
) -> Result<Samples, ProbeError> {
    let layers = request.geometry.layers;
    let cut = (layers / 2).max(1).min(layers.saturating_sub(1));
    let mut samples = Samples::default();
    if cut == 0 {
        return Ok(samples);
    }
    let places = [(first, 0..cut), (second, cut..layers)];
    let mut pipeline = start(request, &places, request.kernels, 1, CONTEXT, blocks_for(CONTEXT))?;
    let mut pass = Pass::default();
    decode(&mut pipeline, &mut pass);
    let begin = Instant::now();
    while samples.count() < PASSES.start || (samples.count() < PASSES.end && begin.elapsed() < time / 2) {
        let wall = Instant::now();
        let busy = decode(&mut pipeline, &mut pass);
        samples
            .add(u64::try_from(wall.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_sub(busy + pass.looking_ns));
    }
    sound(if first.card.is_some() { first } else { second }, &mut pass)?;
    Ok(samples)
}

/// Slowdown of two devices that decode at the same time: of each, time together over time alone. Their threads wait as
/// they do as stages of one pipeline. Together the mean counts and no median: two threads that share a core take turns of some
/// milliseconds, so that most short passes are hardly slowed and a few take several times as long.
fn together(request: &Request<'_>, first: &CpuDevice, second: &CpuDevice, time: Duration) -> Result<CoRun, ProbeError> {
    let layers = request.geometry.layers;
    let (gate, stop) = (Barrier::new(2), AtomicBool::new(false));
    let side = |device: &CpuDevice, leads: bool| -> Result<f64, ProbeError> {
        let others = if leads { &second.cores } else { &first.cores };
        let places = [(device, 0..layers)];
        let pipeline = start_beside(request, &places, others, request.kernels, (1, CONTEXT, blocks_for(CONTEXT)));
        // Both must pass every gate, or the other would wait for ever.
        let (mut alone, mut both, mut pass) = (Samples::default(), Samples::default(), Pass::default());
        let mut pipeline = pipeline.inspect_err(|_| stop.store(true, Ordering::SeqCst));
        for turn in 0..2 {
            gate.wait();
            if let (Ok(pipeline), true) = (&mut pipeline, (turn == 0) == leads) {
                decode(pipeline, &mut pass);
                let begin = Instant::now();
                while !enough(&alone, begin.elapsed() > time / 4) {
                    add(pipeline, &mut pass, &mut alone);
                }
            }
        }
        gate.wait();
        let begin = Instant::now();
        if let Ok(pipeline) = &mut pipeline {
            while !stop.load(Ordering::SeqCst) {
                add(pipeline, &mut pass, &mut both);
                if leads && both.count() >= PASSES.start && begin.elapsed() > time / 2 {
                    stop.store(true, Ordering::SeqCst);
                }
            }
        }
        sound(device, &mut pass)?;
        pipeline.map(|_| if alone.dense() > 0.0 && both.count() > 0 { both.mean() / alone.dense() } else { 1.0 })
    };
    let (one, two) = std::thread::scope(|scope| {
        let other = scope.spawn(|| side(second, false));
        let one = scope.spawn(|| side(first, true)).join();
        (one, other.join())
    });
    let ratio = |side: std::thread::Result<Result<f64, ProbeError>>| {
        side.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    };
    let (one, two) = (ratio(one)?, ratio(two)?);
    let spread = (one - two).abs() / f64::midpoint(one, two).max(1.0);
    let factors = |slowdown: f64, spread| {
        let when = Some(request.when.to_owned());
        let together = Figure::measured(slowdown.max(1.0), "decoding at the same time", PASSES.start, spread, when);
        vec![Figure::declared(1.0, "alone"), together]
    };
    let own = [(first, one), (second, two)].map(|(device, factor)| (device.name.clone(), factors(factor, 0.0)));
    Ok(CoRun {
        name: format!("{} and {}", first.name, second.name),
        devices: vec![first.name.clone(), second.name.clone()],
        slowdown: factors(f64::midpoint(one, two), spread),
        slowdown_of: own.into(),
    })
}

/// Whether there are samples enough: of those without neighbours too, while there is time.
fn enough(samples: &Samples, late: bool) -> bool {
    let counting = if late { samples.count() } else { samples.count() - samples.beside() };
    counting >= PASSES.start || samples.count() >= PASSES.end
}

/// One decode step, and whether there was a neighbour at either end of it.
fn add(pipeline: &mut Pipeline, pass: &mut Pass, samples: &mut Samples) {
    let before = pass.worst_beside();
    let nanoseconds = decode(pipeline, pass);
    samples.add_if(true, before.or_worse(pass.worst_beside()), nanoseconds);
}

/// One decode step through all stages; nanoseconds of work.
fn decode(pipeline: &mut Pipeline, pass: &mut Pass) -> u64 {
    let mut next = std::mem::take(pass);
    next.clear();
    next.looks_beside = true;
    next.push(CONTEXT - 1, &[3], 0.., [0]);
    next.ask(crate::engine::Sampling::GREEDY, 1, std::iter::empty());
    pipeline.send(next);
    *pass = pipeline.receive();
    pass.busy_ns.iter().sum()
}
