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
use std::time::Instant;

/// Runs of the plan that is taken, on other seeds than the one on which it was chosen.
const SEEDS: u32 = 4;
/// The first of these seeds; the choice was made on the default one.
const AGAIN: u64 = 0x7121a1;
/// Most plans that are shown.
const SHOWN: usize = 12;

/// The plan of most output tokens per second in simulation, of so many that are tried.
pub fn take(ui: &Ui, problem: &PlacementProblem, trials: usize, limit: Seconds) -> Result<(Outcome, Plan), Failure> {
    let begin = Instant::now();
    let remaining = || Seconds::of(limit.value() - begin.elapsed().as_secs_f64());
    let budget = Budget { remaining: Some(&remaining), interrupt: Some(interrupt::flag()), ..Budget::default() };
    let options = Options { interrupt: Some(interrupt::flag()), ..Options::default() };
    let judge = |plan: &FeasiblePlan| match isotherm_sim::simulate(plan, problem, &problem.workload, &options) {
        Ok(report) => Ok(report.metrics.get("tokens_per_second").map(|rate| rate.mean)),
        Err(e @ (SimulateError::Interrupted { .. } | SimulateError::TooManyEvents { .. })) => Err(e),
        // A plan that cannot be run is none to take.
        Err(_) => Ok(None),
    };
    let Tried { outcome, trials } = fastest(problem, trials, &budget, judge).map_err(|e| match e {
        RefineError::Plan(e) => Failure::new(Code::Limit, format!("failed to plan {}: {e}", problem.name)),
        RefineError::Judge(e) => Failure::io(format!("failed to simulate {}: {}", problem.name, models::causes(&e))),
    })?;
    ui.note(described(&trials));
    let mut plan = outcome.artefact(problem);
    plan.provenance.solve_seconds = Some(begin.elapsed().as_secs_f64());
    plan.provenance.machine = Some(crate::trust::host_id());
    if let Some(taken) = outcome.plan().filter(|_| !trials.is_empty()) {
        let again = Options { seeds: SEEDS, seed: AGAIN, ..options };
        let report = isotherm_sim::simulate(taken, problem, &problem.workload, &again)
            .map_err(|e| Failure::io(format!("failed to simulate {}: {}", problem.name, models::causes(&e))))?;
        plan.provenance.simulated = report.metrics.get("tokens_per_second").map(|rate| Simulated {
            tokens_per_second: rate.mean,
            seeds: SEEDS,
            plans: u32::try_from(trials.len()).unwrap_or(u32::MAX),
        });
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
