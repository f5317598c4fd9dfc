//! How well repeated probes agree with one another, and with steps timed apart from them.

use crate::commands::bench_load;
use isotherm_core::cost::{OperatorProfile, StepShape};
use isotherm_core::graph::DevicesFile;
use isotherm_core::ids::Layers;
use isotherm_runtime::probe::Witnessed;
use serde::Serialize;

/// Longest that one probe may take, in seconds.
const SECONDS_MAX: f64 = 60.0;
/// Share by which a time may differ: from probe to probe, and from what was measured apart.
const SHARE_MAX: f64 = 0.03;

/// Share of the passes, or of the steps timed apart, beyond which what they say is of cores that neighbours share or
/// that were moved apart, and not of the device by itself.
const BESIDE_MAX: f64 = 0.5;

/// One probe, and what was timed right after it.
pub(super) struct Probed {
    pub(super) seconds: f64,
    /// Share of all cores that other programs took meanwhile.
    pub(super) others: Option<f64>,
    pub(super) devices: DevicesFile,
    /// Device, layers, and its steps.
    pub(super) witnessed: Vec<(String, Layers, Vec<Witnessed>)>,
}

/// One step on one device: medians over the probes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) device: String,
    pub(super) layers: u32,
    pub(super) step: String,
    pub(super) predicted: f64,
    pub(super) measured: f64,
    /// Median over the probes of `predicted / measured - 1`.
    pub(super) error: f64,
    /// Median over the probes of how far two measurements of the same step lay apart, as a share.
    pub(super) noise: f64,
    /// Share of the measured steps that other programs disturbed.
    pub(super) disturbed: f64,
    /// Of how many probes it tells: those during which the device was mostly by itself, and while the steps were timed
    /// apart, or all where there is none.
    pub(super) probes: usize,
    /// Whether there is one.
    pub(super) by_itself: bool,
}

/// What the rows and the probes say together.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Verdicts {
    probes: usize,
    /// Of each probe.
    seconds: Vec<f64>,
    seconds_max: f64,
    /// Of each probe, and of what was timed after it.
    others_share: Vec<Option<f64>>,
    /// Share of the probes' own passes that were disturbed; absent where the system does not tell.
    disturbed: Option<f64>,
    /// Whether all graphs name the same devices, junctions, ways and sets.
    same_structure: bool,
    /// Operator times that all probes state.
    operators: usize,
    /// Median and worst over operators of how far a probe's time lies from the median of all probes.
    operators_apart_median: f64,
    operators_apart_worst: f64,
    operators_within: f64,
    /// The same of the steps timed apart, whole ones by the clock on the wall: what the machine's own speed changed between
    /// the probes, and no probe can help.
    machine_apart_median: f64,
    machine_apart_worst: f64,
    share_max: f64,
    /// Steps timed apart while the device was by itself, and all.
    steps: usize,
    steps_all: usize,
    /// Measurements of a device in a probe, and those during which it was by itself: operator times are of these.
    probed: usize,
    probed_by_itself: usize,
    error_median: f64,
    error_worst: f64,
    /// Share of the steps within the limit.
    steps_within: f64,
    noise_median: f64,
    noise_worst: f64,
}

pub(super) fn rows(runs: &[Probed], layers_total: u32) -> Vec<Row> {
    let Some(first) = runs.first() else { return Vec::new() };
    let mut rows = Vec::new();
    for (place, (device, layers, steps)) in first.witnessed.iter().enumerate() {
        for (position, step) in steps.iter().enumerate() {
            let mut found: Vec<(bool, (f64, f64, f64))> = Vec::new();
            let (mut samples, mut disturbed) = (0, 0);
            for run in runs {
                let Some(seen) = run.witnessed.get(place).and_then(|one| one.2.get(position)) else { continue };
                let profile = run.devices.devices.iter().find(|one| one.name == *device);
                let Some(profile) = profile.and_then(|one| one.profiles.first()) else { continue };
                let (one, other) = (seen.seconds.value(), seen.again.value());
                let measured = seen.middle().value();
                if measured > 0.0 {
                    let predicted = profile.step(*layers, layers_total, &seen.shape).value();
                    let by_itself = was_by_itself(seen) && is_by_itself(profile);
                    found.push((by_itself, (predicted, measured, (one - other).abs() / measured)));
                    samples += seen.samples;
                    disturbed += seen.disturbed;
                }
            }
            if found.is_empty() {
                continue;
            }
            let by_itself = found.iter().any(|(by_itself, _)| *by_itself);
            let found: Vec<(f64, f64, f64)> =
                found.into_iter().filter(|one| one.0 || !by_itself).map(|(_, figures)| figures).collect();
            let of = |of: fn(&(f64, f64, f64)) -> f64| median(&found.iter().map(of).collect::<Vec<_>>());
            rows.push(Row {
                device: device.clone(),
                layers: layers.len(),
                step: named(&step.shape),
                predicted: of(|one| one.0),
                measured: of(|one| one.1),
                error: of(|one| one.0 / one.1 - 1.0),
                noise: of(|one| one.2),
                disturbed: f64::from(disturbed) / f64::from(samples.max(1)),
                probes: found.len(),
                by_itself,
            });
        }
    }
    rows
}

/// Whether a device was mostly by itself while it was probed.
fn is_by_itself(profile: &OperatorProfile) -> bool {
    let beside = profile.conditions.as_ref().and_then(|conditions| conditions.neighbours);
    beside.is_none_or(|share| share <= BESIDE_MAX)
}

/// Whether a device was mostly by itself while a step was timed apart.
fn was_by_itself(step: &Witnessed) -> bool {
    f64::from(step.beside) <= f64::from(step.samples) * BESIDE_MAX
}

/// The middle of some figures; zero of none.
fn median(figures: &[f64]) -> f64 {
    bench_load::median(figures).unwrap_or(0.0)
}

/// A step in words: `3 at 71`, `chunk 53 after 70`, or both.
fn named(shape: &StepShape) -> String {
    let mut parts = Vec::new();
    if shape.decodes > 0 {
        parts.push(format!("{} at {:.0}", shape.decodes, shape.decode_context));
    }
    parts.extend(shape.prefills.iter().map(|(tokens, cached)| match cached {
        0 => format!("chunk {tokens}"),
        _ => format!("chunk {tokens} after {cached}"),
    }));
    parts.join(" + ")
}

/// Times that every profile states, at places that are knots of all of them: one layer and the head. None of a device
/// that was not by itself.
fn operators(devices: &DevicesFile, layers_total: u32) -> Vec<Option<f64>> {
    // A layer that is neither first nor last has no embedding and no head.
    let inner = Layers::new(1, 2);
    let shapes = [
        StepShape::decode(1, 16.0),
        StepShape::decode(1, 256.0),
        StepShape::decode(2, 16.0),
        StepShape::decode(4, 16.0),
        StepShape::decode(8, 16.0),
        StepShape::prefill(16, 0, false),
        StepShape::prefill(64, 0, false),
        StepShape::prefill(256, 0, false),
    ];
    let mut times = Vec::new();
    for profile in devices.devices.iter().filter_map(|device| device.profiles.first()) {
        let layer = |shape: &StepShape| profile.step(inner, layers_total.max(3), shape) - profile.step_seconds;
        let by_itself = is_by_itself(profile);
        times.extend(shapes.iter().map(|shape| by_itself.then(|| layer(shape).value())));
        times.extend([1.0, 4.0].map(|sequences| by_itself.then(|| profile.head_seconds.at(sequences).value())));
    }
    times
}

/// What must be the same in every probe of one machine: names and ways, not times.
fn structure(file: &DevicesFile) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    lines.extend(file.devices.iter().map(|device| {
        format!(
            "{} {:?} {} {} {:?} {:?}",
            device.name, device.kind, device.backend, device.class, device.cores, device.uuid
        )
    }));
    lines.extend(file.junctions.iter().map(|name| format!("junction {name}")));
    lines.extend(
        file.links.iter().map(|link| format!("{} to {} {:?} {:?}", link.from, link.to, link.kind, link.groups)),
    );
    lines.extend(file.groups.iter().map(|group| format!("group {}", group.name)));
    lines.extend(file.co_run.iter().map(|set| format!("together {:?} {}", set.devices, set.slowdown.len())));
    lines.push(format!("coordinator {:?}", file.coordinator));
    lines.sort();
    lines
}

/// Seconds of every step that was timed apart from a probe's tables; none of a device that was not by itself.
fn witnessed(run: &Probed) -> Vec<Option<f64>> {
    let steps = run.witnessed.iter().flat_map(|(_, _, steps)| steps);
    steps.map(|step| was_by_itself(step).then(|| step.middle().value())).collect()
}

/// How far each time lies from the median of all probes' times of the same thing, as a share of it.
fn off_their_median(times: &[Vec<Option<f64>>], count: usize) -> Vec<f64> {
    let mut apart = Vec::new();
    for position in 0..count {
        let same: Vec<f64> = times.iter().filter_map(|times| times[position]).collect();
        let middle = median(&same);
        // One alone agrees with nothing.
        if middle > 0.0 && same.len() > 1 {
            apart.extend(same.iter().map(|time| (time / middle - 1.0).abs()));
        }
    }
    apart
}

pub(super) fn verdicts(runs: &[Probed], rows: &[Row], layers_total: u32) -> Verdicts {
    let all: Vec<Vec<Option<f64>>> = runs.iter().map(|run| operators(&run.devices, layers_total)).collect();
    let count = all.iter().map(Vec::len).min().unwrap_or(0);
    let apart = off_their_median(&all, count);
    let steps: Vec<Vec<Option<f64>>> = runs.iter().map(witnessed).collect();
    let machine = off_their_median(&steps, steps.iter().map(Vec::len).min().unwrap_or(0));
    let worst = |figures: &[f64]| figures.iter().copied().fold(0.0, f64::max);
    let within = |figures: &[f64]| {
        figures.iter().filter(|figure| **figure <= SHARE_MAX).count() as f64 / figures.len().max(1) as f64
    };
    let judged: Vec<&Row> = rows.iter().filter(|row| row.by_itself).collect();
    let errors: Vec<f64> = judged.iter().map(|row| row.error.abs()).collect();
    let noise: Vec<f64> = judged.iter().map(|row| row.noise).collect();
    let profiles = || runs.iter().flat_map(|run| &run.devices.devices).flat_map(|device| &device.profiles);
    let seconds: Vec<f64> = runs.iter().map(|run| run.seconds).collect();
    let told = profiles().filter_map(|profile| profile.conditions.as_ref()?.disturbed);
    let disturbed: Vec<f64> = told.collect();
    Verdicts {
        probes: runs.len(),
        seconds_max: worst(&seconds),
        seconds,
        others_share: runs.iter().map(|run| run.others).collect(),
        disturbed: (!disturbed.is_empty()).then(|| median(&disturbed)),
        same_structure: runs.windows(2).all(|pair| structure(&pair[0].devices) == structure(&pair[1].devices)),
        operators: count,
        operators_apart_median: median(&apart),
        operators_apart_worst: worst(&apart),
        operators_within: within(&apart),
        machine_apart_median: median(&machine),
        machine_apart_worst: worst(&machine),
        share_max: SHARE_MAX,
        steps: judged.len(),
        steps_all: rows.len(),
        probed: profiles().count(),
        probed_by_itself: profiles().filter(|profile| is_by_itself(profile)).count(),
        error_median: median(&errors),
        error_worst: worst(&errors),
        steps_within: within(&errors),
        noise_median: median(&noise),
        noise_worst: worst(&noise),
    }
}

impl Verdicts {
    pub(super) fn words(&self) -> String {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let others: Vec<String> = self.others_share.iter().map(|share| share.map_or("?".to_owned(), percent)).collect();
        let disturbed = self.disturbed.map_or_else(|| "an unknown share".to_owned(), percent);
        let beside = if self.probed_by_itself == self.probed && self.steps == self.steps_all {
            String::new()
        } else {
            format!(
                "  somebody else was on the same physical cores, or cores were moved apart, during most of {} of {} \
                 measurements of a device and of {} of {} steps timed apart: these are left out\n",
                self.probed - self.probed_by_itself,
                self.probed,
                self.steps_all - self.steps,
                self.steps_all,
            )
        };
        format!(
            "  {} probes, the longest {:.1} s (at most {SECONDS_MAX:.0} s are allowed); graphs {} in structure\n  \
             {} operator times from probe to probe: median {}, worst {} off their median; {} within {}; \
             the steps timed apart: median {}, worst {}\n  \
             {} steps not sampled: median error {}, worst {}; {} within {}; the same step timed again: median {}, worst {}\n  \
             other programs took {} of the cores meanwhile, and disturbed {} of the probes' passes\n{beside}",
            self.probes,
            self.seconds_max,
            if self.same_structure { "identical" } else { "DIFFERENT" },
            self.operators,
            percent(self.operators_apart_median),
            percent(self.operators_apart_worst),
            percent(self.operators_within),
            percent(SHARE_MAX),
            percent(self.machine_apart_median),
            percent(self.machine_apart_worst),
            self.steps,
            percent(self.error_median),
            percent(self.error_worst),
            percent(self.steps_within),
            percent(SHARE_MAX),
            percent(self.noise_median),
            percent(self.noise_worst),
            others.join(", "),
            disturbed,
        )
    }
}
