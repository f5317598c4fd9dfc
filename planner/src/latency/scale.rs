//! A table of what planning and checking cost at scale; run by hand, because a test measures no time:
//! `cargo test -p isotherm-planner --lib -- --ignored --nocapture latencies_at_scale`.

#[path = "../../tests/it/mesh.rs"]
pub(super) mod mesh;

use super::chains::{Band, Chains, StageCount};
use super::costs::Costs;
use super::{ChainProgram, Verdict, solve};
use crate::budget::Budget;
use crate::tables::Tables;
use crate::{Outcome, plan};
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::units::Seconds;
use mesh::{Ways, problem};

/// Seconds that this thread has computed.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN) * 1e-9
}

/// What HiGHS finds on all intervals within a percent of the optimum, in a minute.
fn on_highs(problem: &PlacementProblem, known: f64) -> String {
    let tables = Tables::new(problem, true);
    let costs = Costs::decode(&tables);
    let chains = Chains::new(&tables, &costs, StageCount::Any);
    let kept = chains.survivors(&Band::all(&costs), &chains.no_prices(), known * 1.01);
    let program = ChainProgram::new(&chains, &kept, known);
    let columns = program.program.columns.len();
    if columns > 150_000 {
        return format!("{columns} columns, not run");
    }
    let begin = std::time::Instant::now();
    let left = || Seconds::of(60.0 - begin.elapsed().as_secs_f64());
    let before = cpu();
    let budget = Budget { remaining: Some(&left), nodes_max: u64::MAX, ..Budget::default() };
    let answer = solve(&program.program, None, 1e-7, &budget).expect("a well-formed program");
    let value = answer.assignment.as_deref().map_or(f64::NAN, |at| program.program.value(at) * known * 1e3);
    let done = if answer.verdict == Verdict::Optimal { "optimal" } else { "stopped" };
    format!(
        "{columns} columns: {value:.6} ms, bound {:.6}, {done}, {:.2} s",
        answer.bound * known * 1e3,
        cpu() - before
    )
}

#[test]
#[ignore = "a table for people; it measures time"]
fn latencies_at_scale() {
    let asked = |name: &str, default: u64| std::env::var(name).ok().and_then(|t| t.parse().ok()).unwrap_or(default);
    let (seeds, count) = (asked("ISOTHERM_SEEDS", 2), asked("ISOTHERM_DEVICES", 0) as usize);
    let sizes = if count > 0 { vec![count] } else { vec![24, 42, 100, 200] };
    println!("devices, ways, seed, objective: value, bound, gap, status, kind, labels, parts, plan s, check s");
    for devices in sizes {
        let wanted = std::env::var("ISOTHERM_WAYS").unwrap_or_default();
        let drawn = [Ways::Classes, Ways::Sites, Ways::Any].into_iter();
        for ways in drawn.filter(|ways| wanted.is_empty() || format!("{ways:?}") == wanted) {
            for (seed, objective) in (0..seeds).flat_map(|s| [(s, Objective::Tpot), (s, Objective::Ttft)]) {
                let problem = problem(seed, devices, ways, objective);
                let begin = cpu();
                let outcome = plan(&problem, &Budget::default()).expect("plans");
                let planned = cpu();
                let Some(plan) = outcome.plan().map(|plan| plan.plan().clone()) else {
                    println!("{devices} {ways:?} {seed} {}: {outcome:?}", objective.name());
                    continue;
                };
                let certificate = plan.certificate.clone().expect("a certificate");
                let parts = match &certificate.evidence {
                    Some(isotherm_core::plan::Evidence::WalkPrices { parts }) => parts.len(),
                    _ => 0,
                };
                let value = certificate.objective;
                plan.check(&problem).expect("holds");
                let checked = cpu();
                println!(
                    "{devices} {ways:?} {seed} {}: {:.6} ms, {:.6} ms, {:.2e}, {}, {:?}, {}, {parts}, {:.2}, {:.2}",
                    objective.name(),
                    value * 1e3,
                    certificate.bound.unwrap_or(f64::NAN) * 1e3,
                    certificate.gap.unwrap_or(f64::NAN),
                    if matches!(outcome, Outcome::Optimal(_)) { "optimal" } else { "feasible" },
                    certificate.bound_kind,
                    certificate.nodes.unwrap_or(0),
                    planned - begin,
                    checked - planned,
                );
                if objective == Objective::Tpot && asked("ISOTHERM_HIGHS", 0) > 0 {
                    println!("    HiGHS: {}", on_highs(&problem, value));
                }
            }
        }
    }
}
