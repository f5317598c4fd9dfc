//! `isotherm plan --survive`: plans that are ready for a loss.

use crate::args::planning::{Losses, Survive};
use crate::failure::{Code, Done, Failure};
use crate::ui::{Ui, table};
use crate::{files, interrupt};
use isotherm_core::plan::Plan;
use isotherm_core::problem::PlacementProblem;
use isotherm_core::units::Seconds;
use isotherm_planner::Budget;
use isotherm_planner::change::Way;
use isotherm_planner::survive::{Loss, survive};
use std::time::Instant;

/// Prepares and writes the fallbacks of a plan. Fails where one of them keeps less than was asked for.
pub fn prepare(ui: &Ui, problem: &PlacementProblem, plan: &Plan, losses: &Losses, limit: Seconds) -> Done {
    let Some(scope) = losses.survive else { return Ok(()) };
    if !(0.0..=1.0).contains(&losses.survive_share) {
        let what = format!("--survive-share is {}; give a share from 0 to 1", losses.survive_share);
        return Err(Failure::new(Code::Usage, what));
    }
    let begin = Instant::now();
    let remaining = || Seconds::of(limit.value() - begin.elapsed().as_secs_f64());
    let budget = Budget { remaining: Some(&remaining), interrupt: Some(interrupt::flag()), ..Budget::default() };
    let all = survive(problem, plan, scope.into(), losses.survive_share, &budget)
        .map_err(|e| Failure::new(Code::Limit, format!("failed to prepare {} for a loss: {e}", problem.name)))?;
    if let Some(folder) = &losses.fallbacks {
        for loss in &all {
            let Some(found) = &loss.fallback else { continue };
            files::write_json(
                &folder.join(format!("{}.json", name(problem, loss, scope))),
                &found.outcome.artefact(problem),
            )?;
        }
    }
    ui.note(described(problem, &all, scope));
    let worst = all.iter().min_by(|a, b| a.share.total_cmp(&b.share));
    match worst.filter(|worst| worst.share < losses.survive_share) {
        None => Ok(()),
        Some(worst) => {
            let (asked, left) = (percent(losses.survive_share), percent(worst.share));
            let what = format!("the loss of {} leaves {left} of the rate, not {asked}", worst.lost.join(" and "));
            Err(Failure::new(Code::Infeasible, what).remedy("ask for a smaller --survive-share, or add a device"))
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// What a loss is called: its device, or its host.
fn name(problem: &PlacementProblem, loss: &Loss, scope: Survive) -> String {
    let first = loss.lost.first().map_or("nothing", String::as_str);
    match scope {
        Survive::Device => first.to_owned(),
        Survive::Host => {
            problem.graph.find(first).map_or_else(|| first.to_owned(), |id| problem.graph.device(id).host.clone())
        }
    }
}

fn described(problem: &PlacementProblem, all: &[Loss], scope: Survive) -> String {
    let heading = ["loss of", "left", "by", "moved", "at least"].map(str::to_owned).to_vec();
    let mut rows = vec![heading];
    for loss in all {
        let (way, moved, least) = match &loss.fallback {
            None => ("nothing".to_owned(), "-".to_owned(), "-".to_owned()),
            Some(found) => {
                let way = match found.way {
                    Way::Kept => "what stays",
                    Way::Repaired => "a repair",
                    Way::Afresh => "a plan from scratch",
                };
                (way.to_owned(), found.moved.to_string(), found.least.to_string())
            }
        };
        rows.push(vec![name(problem, loss, scope), percent(loss.share), way, moved, least]);
    }
    format!("\n  after a loss (planned):\n{}", table(&rows, &[1, 3, 4]))
}
