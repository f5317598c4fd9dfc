//! Single-stream latency: proved, at any size, in any unit, and honest where a limit ends the search.

use crate::mesh::{self, Ways};
use crate::world::{Recipe, problem};
use isotherm_core::cost::{Curve, Grid};
use isotherm_core::figure::Figure;
use isotherm_core::graph::DeviceGraph;
use isotherm_core::plan::{BoundKind, Certificate, Evidence, Plan};
use isotherm_core::problem::{Objective, PlacementProblem, ProblemParts};
use isotherm_core::units::{BytesPerSecond, Seconds};
use isotherm_planner::{Budget, Limit, Outcome, Progress, plan};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

fn recipe(objective: Objective) -> Recipe {
    Recipe { objective, devices_max: 5, layers_max: 7, shared: false, partial: false }
}

fn value(problem: &PlacementProblem) -> Option<f64> {
    let outcome = plan(problem, &Budget::default()).expect("plans");
    outcome.plan().map(|plan| plan.plan().objective_value.expect("a plan has a value"))
}

fn certificate(outcome: &Outcome) -> Certificate {
    outcome.plan().expect("a plan").plan().certificate.clone().expect("a certificate")
}

#[test]
fn every_optimum_of_a_small_problem_is_certified_by_prices() {
    for objective in [Objective::Tpot, Objective::Ttft] {
        for seed in 0..150 {
            let outcome = plan(&problem(seed, recipe(objective)), &Budget::default()).expect("plans");
            if outcome.plan().is_some() {
                let certificate = certificate(&outcome);
                assert_eq!(certificate.bound_kind, BoundKind::Certified, "seed {seed}: {certificate:?}");
                assert!(matches!(certificate.evidence, Some(Evidence::WalkPrices { .. })), "seed {seed}");
            }
        }
    }
}

#[test]
fn a_device_more_never_makes_a_chain_slower() {
    let mut compared = 0;
    for (objective, seed) in
        [Objective::Tpot, Objective::Ttft].into_iter().flat_map(|o| (500..600).map(move |s| (o, s)))
    {
        let whole = problem(seed, recipe(objective));
        let mut less = whole.clone();
        let device = less.graph.devices()[0].name.clone();
        if less.limits.pinned.contains(&device) {
            continue;
        }
        less.limits.banned.push(device);
        if let Some(without) = value(&less) {
            let with = value(&whole).expect("what fits on fewer devices fits on more");
            assert!(with <= without * (1.0 + 1e-9), "seed {seed}: {with} with it, {without} without");
            compared += 1;
        }
    }
    assert!(compared > 60, "{compared}");
}

/// The same problem with every time multiplied.
fn slower(problem: &PlacementProblem, factor: f64) -> PlacementProblem {
    let mut file = problem.graph.file().clone();
    let curve = |curve: &Curve| {
        Curve::new(curve.knots().iter().map(|&(k, t)| (k, t * factor)).collect()).expect("still rising")
    };
    let grid = |grid: &Grid| {
        let at = |&row: &u32| grid.columns().iter().map(move |&c| grid.at(row.into(), c.into()) * factor);
        let times = grid.rows().iter().flat_map(at).collect();
        Grid::new(grid.rows().to_vec(), grid.columns().to_vec(), times).expect("as many values")
    };
    for profile in file.devices.iter_mut().flat_map(|d| &mut d.profiles) {
        profile.dense_seconds = curve(&profile.dense_seconds);
        profile.head_seconds = curve(&profile.head_seconds);
        profile.embedding_seconds = curve(&profile.embedding_seconds);
        profile.attention_prefill_seconds = grid(&profile.attention_prefill_seconds);
        profile.attention_decode_seconds = grid(&profile.attention_decode_seconds);
        profile.step_seconds = profile.step_seconds * factor;
    }
    for link in &mut file.links {
        if let (Some(latency), Some(rate)) = (&link.latency_seconds, &link.bandwidth_bytes_per_second) {
            let (latency, rate) = (latency.value * factor, rate.value.value() / factor);
            link.latency_seconds = Some(Figure::declared(latency, "test"));
            link.bandwidth_bytes_per_second = Some(Figure::declared(BytesPerSecond::of(rate), "test"));
        }
    }
    PlacementProblem::new(ProblemParts {
        name: problem.name.clone(),
        model: problem.model.clone(),
        graph: DeviceGraph::new(file).expect("as well formed as before"),
        workload: problem.workload.clone(),
        serving: problem.serving,
        objective: problem.objective,
        limits: problem.limits.clone(),
        ambient: problem.ambient,
        inputs: Vec::new(),
    })
    .expect("as well formed as before")
}

#[test]
fn other_units_of_time_change_nothing_but_the_figure() {
    for (objective, seed) in
        [Objective::Tpot, Objective::Ttft].into_iter().flat_map(|o| (700..740).map(move |s| (o, s)))
    {
        let problem = problem(seed, recipe(objective));
        for factor in [1024.0, 1.0 / 1024.0] {
            let (before, after) = (value(&problem), value(&slower(&problem, factor)));
            match (before, after) {
                (Some(before), Some(after)) => {
                    assert!((after / factor - before).abs() <= 2e-6 * before, "seed {seed}: {before}, {after}");
                }
                other => assert_eq!(before, after, "seed {seed}: {other:?}"),
            }
        }
    }
}

/// Certificates that claim more than there is.
fn overstated(plan: &Plan) -> Vec<Plan> {
    let raised = |factor: f64| {
        let mut plan = plan.clone();
        let certificate = plan.certificate.as_mut().expect("given");
        let bound = certificate.objective * factor;
        (certificate.bound, certificate.gap) =
            (Some(bound), Some((bound - certificate.objective) / certificate.objective));
        plan
    };
    let mut without = plan.clone();
    if let Some(Evidence::WalkPrices { parts }) = &mut without.certificate.as_mut().expect("given").evidence {
        parts.pop();
    }
    vec![raised(1.0 + 1e-7), raised(1.01), without]
}

#[test]
fn chains_over_two_hundred_different_devices_and_ways_are_proved_and_nothing_beyond_them() {
    for (ways, objective) in [(Ways::Sites, Objective::Tpot), (Ways::Any, Objective::Tpot)] {
        let problem = mesh::problem(0, 200, ways, objective);
        let outcome = plan(&problem, &Budget::default()).expect("plans");
        let found = outcome.plan().expect("a plan").plan().clone();
        assert!(matches!(outcome, Outcome::Optimal(_)), "{ways:?}: {:?}", found.certificate);
        assert_eq!(certificate(&outcome).bound_kind, BoundKind::Certified, "{ways:?}");
        for (i, wrong) in overstated(&found).into_iter().enumerate() {
            assert!(wrong.check(&problem).is_err(), "{ways:?}: overstatement {i} passes");
        }
    }
}

#[test]
fn prompts_over_a_hundred_different_devices_are_proved_within_a_percent_and_nothing_beyond() {
    let problem = mesh::problem(0, 100, Ways::Any, Objective::Ttft);
    let outcome = plan(&problem, &Budget::default()).expect("plans");
    let certificate = certificate(&outcome);
    assert_eq!(certificate.bound_kind, BoundKind::Certified);
    assert!(certificate.gap.expect("both are known") < 0.01, "{certificate:?}");
    let found = outcome.plan().expect("a plan").plan().clone();
    for (i, wrong) in overstated(&found).into_iter().enumerate() {
        assert!(wrong.check(&problem).is_err(), "overstatement {i} passes");
    }
    // Without its shares, or with those of no paths, the evidence proves less or nothing.
    for change in 0..3 {
        let mut wrong = found.clone();
        let evidence = wrong.certificate.as_mut().expect("given").evidence.as_mut();
        let Some(Evidence::WalkPrices { parts }) = evidence else { panic!("other evidence") };
        let shares = parts[0].shares.as_mut().expect("a mean over paths");
        match change {
            0 => shares.followed.reverse(),
            1 => shares.last.clear(),
            _ => shares.last.iter_mut().for_each(|share| *share = 65_536),
        }
        assert!(wrong.check(&problem).is_err(), "change {change} passes");
    }
}

#[test]
fn few_nodes_give_the_same_plan_again_and_a_gap_that_is_true() {
    for (ways, objective) in [(Ways::Sites, Objective::Tpot), (Ways::Sites, Objective::Ttft)] {
        let problem = mesh::problem(1, 30, ways, objective);
        let few = Budget { nodes_max: 1, ..Budget::default() };
        let [first, second] = [(), ()].map(|()| plan(&problem, &few).expect("plans").artefact(&problem));
        assert_eq!(first, second);
        let certificate = first.certificate.expect("a certificate");
        let (bound, value) = (certificate.bound.expect("a bound"), certificate.objective);
        let all = plan(&problem, &Budget { nodes_max: 50, ..Budget::default() }).expect("plans");
        let best = all.plan().expect("a plan").plan().objective_value.expect("a value");
        assert!(bound <= best * (1.0 + 1e-9) && best <= value * (1.0 + 1e-9), "{bound}, {best}, {value}");
    }
}

#[test]
fn an_interrupt_leaves_the_best_plan_so_far_with_its_true_gap() {
    let problem = mesh::problem(2, 60, Ways::Sites, Objective::Ttft);
    let (flag, told) = (AtomicBool::new(false), Mutex::new(Vec::<Progress>::new()));
    let listen = |progress: Progress| {
        let mut told = told.lock().expect("no listener panics");
        told.push(progress);
        flag.store(told.len() >= 2 && progress.incumbent.is_some(), Ordering::Relaxed);
    };
    let budget = Budget { interrupt: Some(&flag), progress: Some(&listen), ..Budget::default() };
    let outcome = plan(&problem, &budget).expect("plans");
    let Outcome::Feasible { plan: found, gap, stopped_by } = &outcome else { panic!("{outcome:?}") };
    assert_eq!(*stopped_by, Limit::Interrupt);
    let certificate = found.plan().certificate.as_ref().expect("a certificate");
    let bound = certificate.bound.expect("a bound");
    assert!((gap - (certificate.objective - bound) / certificate.objective).abs() < 1e-12 && *gap < 1.0, "{gap}");
    assert_eq!(certificate.bound_kind, BoundKind::Certified);
    let told = told.lock().expect("no listener panics");
    let bounds: Vec<f64> = told.iter().filter_map(|p| p.bound).collect();
    assert!(bounds.windows(2).all(|pair| pair[0] <= pair[1]), "{bounds:?}");
    let values: Vec<f64> = told.iter().filter_map(|p| p.incumbent).collect();
    assert!(values.windows(2).all(|pair| pair[0] >= pair[1]), "{values:?}");
}

#[test]
fn no_time_at_all_is_a_limit_and_no_error() {
    let problem = mesh::problem(2, 24, Ways::Any, Objective::Tpot);
    let spent = || Seconds::ZERO;
    let outcome = plan(&problem, &Budget { remaining: Some(&spent), ..Budget::default() }).expect("plans");
    match outcome {
        Outcome::Unknown { stopped_by } | Outcome::Feasible { stopped_by, .. } => assert_eq!(stopped_by, Limit::Time),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_gap_that_suffices_ends_the_search_and_is_kept() {
    let problem = mesh::problem(1, 60, Ways::Sites, Objective::Tpot);
    let outcome = plan(&problem, &Budget { gap_target: 0.05, ..Budget::default() }).expect("plans");
    let gap = certificate(&outcome).gap.expect("a gap");
    assert!(gap <= 0.05, "{gap}");
}
