//! `isotherm plan --trials`: the plan that is fastest in simulation.

use crate::failure::{Code, Failure};
use crate::ui::{Ui, table};
use crate::{interrupt, models};
use isotherm_core::check::FeasiblePlan;
use isotherm_core::plan::{Plan, Simulated};
use isotherm_core::problem::PlacementProblem;
use isotherm_core::units::Seconds;
use isotherm_planner::refine::RefineError;
use isotherm_planner::trial::{Trial, Tried, fastest};
use isotherm_planner::{Budget, Outcome};
use isotherm_sim::{Options, SimulateError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Runs of the plan that is taken, on other seeds than the one on which it was chosen.
const SEEDS: u32 = 4;
/// The first of these seeds; the choice was made on the default one.
const AGAIN: u64 = 0x7121a1;
/// Most plans that are shown.
const SHOWN: usize = 12;

/// Raised when there is no time for simulations any more: they know no clock themselves.
static STOP: AtomicBool = AtomicBool::new(false);
/// Share of the time for choosing; what is left is for running the plan that is taken again.
const CHOOSING: f64 = 0.85;

/// The plan of most output tokens per second in simulation, of so many that are tried. When time or Ctrl-C ends it, the
/// fastest so far.
pub fn take(
    ui: &Ui,
    problem: &PlacementProblem,
    trials: usize,
    limit: Seconds,
    gap: f64,
) -> Result<(Outcome, Plan), Failure> {
    let begin = Instant::now();
    let left = |share: f64| Seconds::of(share * limit.value() - begin.elapsed().as_secs_f64());
    let done = AtomicBool::new(false);
    STOP.store(false, Ordering::Relaxed);
    let watch = || {
        while !done.load(Ordering::Relaxed) {
            let ended = left(1.0).value() <= 0.0 || interrupt::flag().load(Ordering::Relaxed);
            STOP.fetch_or(ended, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(watch);
        let (outcome, mut plan) = {
            let _raised = Raised(&done);
            chosen(ui, problem, trials, &|| left(CHOOSING), gap)?
        };
        plan.provenance.solve_seconds = Some(begin.elapsed().as_secs_f64());
        plan.provenance.machine = Some(crate::trust::host_id());
        Ok((outcome, plan))
    })
}

/// Raises a flag when it goes, however that comes about.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn chosen(
    ui: &Ui,
    problem: &PlacementProblem,
    trials: usize,
    remaining: &(dyn Fn() -> Seconds + Sync),
    gap: f64,
) -> Result<(Outcome, Plan), Failure> {
    let (interrupt, gap_target) = (Some(interrupt::flag()), gap);
    let budget = Budget { remaining: Some(remaining), interrupt, gap_target, ..Budget::default() };
    let options = Options { interrupt: Some(&STOP), ..Options::default() };
    let judge = |plan: &FeasiblePlan| match isotherm_sim::simulate(plan, problem, &problem.workload, &options) {
        Ok(report) => Ok(report.metrics.get("tokens_per_second").map(|rate| rate.mean)),
        Err(e @ SimulateError::TooManyEvents { .. }) => Err(e),
        // A plan that cannot be run, or not in time, is none to take.
        Err(_) => Ok(None),
    };
    let Tried { outcome, trials } = fastest(problem, trials, &budget, judge).map_err(|e| match e {
        RefineError::Plan(e) => Failure::new(Code::Limit, format!("failed to plan {}: {e}", problem.name)),
        RefineError::Judge(e) => Failure::io(format!("failed to simulate {}: {}", problem.name, models::causes(&e))),
    })?;
    ui.note(described(&trials));
    let mut plan = outcome.artefact(problem);
    if let Some(taken) = outcome.plan().filter(|_| !trials.is_empty()) {
        let again = Options { seeds: SEEDS, seed: AGAIN, ..options };
        match isotherm_sim::simulate(taken, problem, &problem.workload, &again) {
            Ok(report) => {
                plan.provenance.simulated = report.metrics.get("tokens_per_second").map(|rate| Simulated {
                    tokens_per_second: rate.mean,
                    seeds: SEEDS,
                    plans: u32::try_from(trials.len()).unwrap_or(u32::MAX),
                });
            }
            Err(SimulateError::Interrupted { .. }) => {
                ui.note("  there was no time to simulate the plan on other seeds; the plan states no simulated rate");
            }
            Err(e) => {
                return Err(Failure::io(format!("failed to simulate {}: {}", problem.name, models::causes(&e))));
            }
        }
    }
    Ok((outcome, plan))
}

/// The fastest of the plans that were tried.
fn described(trials: &[Trial]) -> String {
    let mut rows = vec![["plan by", "batch", "worth", "simulated"].map(str::to_owned).to_vec()];
    let mut by_speed: Vec<&Trial> = trials.iter().collect();
    by_speed.sort_by(|a, b| b.found.total_cmp(&a.found));
    for trial in by_speed.into_iter().take(SHOWN) {
        let batch = trial.batch.map_or_else(|| "-".to_owned(), |batch| batch.to_string());
        rows.push(vec![trial.by.clone(), batch, format!("{:.3}", trial.worth), format!("{:.3}", trial.found)]);
    }
    let number = trials.len();
    format!("\n  the fastest of {number} plans that were simulated, in tok/s:\n{}", table(&rows, &[1, 2, 3]))
}
