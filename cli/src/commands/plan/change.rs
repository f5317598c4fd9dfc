//! `isotherm plan --from`: the plan that follows a running one.

use crate::args::planning::Running;
use crate::failure::{Code, Failure};
use crate::ui::Ui;
use crate::{files, interrupt};
use isotherm_core::plan::{PLAN_SCHEMA, Plan};
use isotherm_core::problem::PlacementProblem;
use isotherm_core::units::Seconds;
use isotherm_planner::change::{Afresh, Change, Way, Weighing, change};
use isotherm_planner::{Budget, Outcome};
use std::path::Path;
use std::time::Instant;

/// The plan that replaces the one at `path`, and what it moves in words.
pub fn replace(
    ui: &Ui,
    problem: &PlacementProblem,
    path: &Path,
    running: &Running,
    limit: Seconds,
) -> Result<(Outcome, Plan), Failure> {
    if !(running.moved_max.is_finite() && running.moved_max >= 1.0) {
        let what = format!("--moved-max is {}; give a factor of 1 or more, like 1.2", running.moved_max);
        return Err(Failure::new(Code::Usage, what));
    }
    let (old, _) = files::read_artefact::<Plan>(path, PLAN_SCHEMA)?;
    if old.model != problem.model.name {
        let what = format!("{} places {:?}, the scenario {:?}", path.display(), old.model, problem.model.name);
        return Err(Failure::new(Code::Verification, what).remedy("give the plan that runs this model"));
    }
    if old.is_divided() {
        let what = format!("{} divides prompts from answers, and such a plan is not repaired", path.display());
        return Err(Failure::new(Code::Usage, what).remedy("plan without --from, the lost devices banned"));
    }
    let begin = Instant::now();
    let remaining = || Seconds::of(limit.value() - begin.elapsed().as_secs_f64());
    let budget = Budget { remaining: Some(&remaining), interrupt: Some(interrupt::flag()), ..Budget::default() };
    let afresh = Afresh { hysteresis: running.hysteresis, horizon: running.horizon, rate: running.move_rate };
    let (moved_max, restore) = (running.moved_max, running.restore);
    let weighing = Weighing { moved_max, restore, afresh: running.reconsider.then_some(afresh) };
    let found = change(problem, &old, &weighing, &budget)
        .map_err(|e| Failure::new(Code::Limit, format!("failed to plan {} anew: {e}", problem.name)))?;
    let Some(found) = found else {
        return Err(Failure::new(Code::Infeasible, format!("nothing that is left can serve {}", problem.name))
            .remedy("see why with `isotherm plan` without --from"));
    };
    ui.note(described(&found));
    let mut plan = found.outcome.artefact(problem);
    plan.provenance.solve_seconds = Some(begin.elapsed().as_secs_f64());
    plan.provenance.machine = Some(crate::trust::host_id());
    Ok((found.outcome, plan))
}

fn described(found: &Change) -> String {
    let way = match found.way {
        Way::Kept => "the running plan stays",
        Way::Repaired => "the running plan is repaired",
        Way::Afresh => "planned from scratch",
    };
    let mut text = format!("  {way}: {} move, at least {} have to", found.moved, found.least);
    for one in &found.moves {
        text.push_str(&format!("\n    {} takes in {} for layers {}", one.device, one.bytes, one.layers));
    }
    text
}
