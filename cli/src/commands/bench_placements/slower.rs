//! A device becomes half as fast: it is probed again, the plan moves layers, and the prediction follows.

use super::{BenchPlacements, Load, SLOWED_TOO, Subject, scenario};
use crate::commands::{bench_load, plan};
use crate::failure::Failure;
use crate::ui::{Ui, percent};
use isotherm_audit::keys::Identity;
use isotherm_core::record::metrics;
use isotherm_core::units::Seconds;
use isotherm_planner::Outcome;
use serde::Serialize;

/// Two devices of one thread, and what becomes of them.
const DEVICES: [&str; 2] = ["cpu0", "cpu1"];
const FACTOR: f64 = 2.0;
const LOAD: Load = Load { clients: 4, prompt_tokens: 37, output_tokens: 24 };
/// Asks for the greatest rate that both devices give together.
const LIMITS: &str = "[objective]\nmaximise = \"throughput\"\n\n[limits]\nstages_exact = 2\n\
                      pinned = [\"cpu0\", \"cpu1\"]\nbanned = [\"cpu\"]\n";

/// Before and after.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Slower {
    device: &'static str,
    factor: f64,
    before: Half,
    after: Half,
}

/// The plan of one probe, predicted and run.
#[derive(Clone, Debug, Serialize)]
struct Half {
    /// Layers on each device.
    layers: Vec<(String, u32)>,
    predicted: f64,
    /// Without what neighbours took, as far as that is known.
    measured: f64,
    /// With it.
    as_run: f64,
    error: f64,
}

/// Plans, runs, slows, probes again, plans and runs.
pub(super) fn run(ui: &Ui, args: &BenchPlacements, identity: &Identity, first: &Subject) -> Result<Slower, Failure> {
    let before = half(ui, args, first)?;
    // Beyond what slows it already.
    let slow = [(DEVICES[1].to_owned(), FACTOR * SLOWED_TOO.1)];
    let devices = Subject::probed(ui, args, identity, &first.model, &slow, "devices-slower.json")?;
    let model = crate::models::open_file(ui, &first.model.path)?;
    let after = half(ui, args, &Subject { model, devices })?;
    Ok(Slower { device: DEVICES[1], factor: FACTOR, before, after })
}

fn half(ui: &Ui, args: &BenchPlacements, subject: &Subject) -> Result<Half, Failure> {
    let problem = subject.problem(&scenario(LOAD, LIMITS))?;
    let quiet = Ui { quiet: true, ..*ui };
    let (outcome, _) = plan::solve(&quiet, &problem, Seconds::of(20.0), 1e-4)?;
    let (Outcome::Optimal(found) | Outcome::Feasible { plan: found, .. }) = outcome else {
        return Err(Failure::io("there is no plan of two stages on the devices of one thread"));
    };
    let report = isotherm_sim::simulate(&found, &problem, &super::workload(LOAD), &isotherm_sim::Options::default())
        .map_err(|e| Failure::io(format!("failed to simulate: {}", crate::models::causes(&e))))?;
    let predicted = report.metrics.get("tokens_per_second").map_or(0.0, |statistic| statistic.mean);
    let placed = subject.placed(LOAD, &problem, found, true)?;
    let (mut rates, mut as_run) = (Vec::new(), Vec::new());
    for run in 0..args.runs {
        let executed = placed.executed(u64::from(run) ^ args.seed)?;
        let seen = executed.neighbours.unwrap_or_default();
        // Stages that are always busy look for this share of the time.
        let stage = seen.looking_total_seconds() / executed.trace.stages.len().max(1) as f64;
        let working = 1.0 - (stage / (executed.trace.end_ns.0 as f64 * 1e-9).max(f64::MIN_POSITIVE)).min(0.5);
        let rate = metrics(&executed.trace).get("tokens_per_second").map(|statistic| statistic.mean / working);
        as_run.extend(rate);
        rates.extend(rate.map(|rate| rate * seen.slowdown().unwrap_or(1.0)));
    }
    let middle = |rates: &[f64]| bench_load::median(rates).unwrap_or(0.0);
    let (measured, as_run) = (middle(&rates), middle(&as_run));
    let mut layers: Vec<(String, u32)> =
        placed.stages.iter().map(|(name, layers)| (name.clone(), layers.len())).collect();
    layers.sort();
    Ok(Half { layers, predicted, measured, as_run, error: predicted / measured - 1.0 })
}

impl Slower {
    pub(super) fn words(&self) -> String {
        let half = |half: &Half| {
            let layers: Vec<String> = half.layers.iter().map(|(name, layers)| format!("{name} {layers}")).collect();
            format!(
                "{} layers; {:.1} tok/s predicted, {:.1} measured ({})",
                layers.join(", "),
                half.predicted,
                half.measured,
                percent(half.error)
            )
        };
        format!(
            "  as they are: {}\n  {} slowed by {}, probed again: {}\n",
            half(&self.before),
            self.device,
            self.factor,
            half(&self.after)
        )
    }
}
