//! What serving costs: the least is what enumeration finds, over every placement, batch and all routes.

use crate::oracle;
use crate::world::{Random, Recipe, problem};
use isotherm_core::figure::Figure;
use isotherm_core::graph::DeviceGraph;
use isotherm_core::plan::BoundKind;
use isotherm_core::problem::{Goal, Limits, Objective, PlacementProblem, ProblemParts};
use isotherm_core::spending::figure;
use isotherm_core::units::Watts;
use isotherm_planner::goals::in_turn;
use isotherm_planner::pareto::frontier;
use isotherm_planner::{Budget, Outcome, plan};

/// A random problem whose devices have powers and prices.
pub fn priced(seed: u64, objective: Objective) -> PlacementProblem {
    let recipe =
        Recipe { objective: Objective::Throughput, devices_max: 3, layers_max: 4, shared: false, partial: false };
    let plain = problem(seed, recipe);
    let random = &mut Random(seed.wrapping_mul(67) + 5);
    let mut file = plain.graph.file().clone();
    for device in &mut file.devices {
        device.idle_watts = Some(Figure::declared(Watts::of(random.real(1.0, 40.0)), "test"));
        device.busy_watts = Some(Figure::declared(Watts::of(random.real(60.0, 300.0)), "test"));
    }
    let limits = Limits { stages_max: None, stages_exact: None, pinned: Vec::new(), ..plain.limits.clone() };
    let mut made = PlacementProblem::new(ProblemParts {
        name: plain.name.clone(),
        model: plain.model.clone(),
        graph: DeviceGraph::new(file).expect("a well-formed graph"),
        workload: plain.workload.clone(),
        serving: plain.serving,
        objective,
        limits,
        ambient: plain.ambient,
        inputs: plain.inputs.clone(),
    })
    .expect("a well-formed problem");
    made.prices.electricity_per_kwh = Some(random.real(0.05, 0.5));
    for device in made.graph.devices().iter().map(|device| device.name.clone()).collect::<Vec<_>>() {
        made.prices.hours.insert(device, random.real(0.05, 2.0));
    }
    made
}

fn fastest(problem: &PlacementProblem) -> Option<f64> {
    let mut serving = problem.clone();
    serving.objective = Objective::Throughput;
    plan(&serving, &Budget::default()).expect("planned").plan()?.plan().objective_value
}

#[test]
fn the_least_cost_of_a_token_is_what_enumeration_finds_with_and_without_a_floor_under_the_rate() {
    let (mut plans, mut certified, mut slower) = (0, 0, 0);
    for seed in 0..40 {
        let objective = [Objective::Energy, Objective::Money][seed as usize % 2];
        let mut problem = priced(seed, objective);
        let Some(most) = fastest(&problem) else { continue };
        let floor = [0.0, 0.5, 0.9][seed as usize % 3] * most;
        if floor > 0.0 {
            problem.limits.goals.push(Goal { figure: Objective::Throughput, limit: floor });
        }
        let expected = oracle::least_cost(&problem, objective, floor).expect("there is a plan");
        let outcome = plan(&problem, &Budget::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let found = outcome.plan().unwrap_or_else(|| panic!("seed {seed}: {outcome:?}")).plan();
        let value = found.objective_value.expect("a value");
        assert!(value <= expected * (1.0 + 1e-5), "seed {seed}: {value}, enumeration finds {expected}");
        assert!(value >= expected * (1.0 - 1e-5), "seed {seed}: {value} beats enumeration, {expected}");
        let certificate = found.certificate.as_ref().expect("a certificate");
        let bound = certificate.bound.unwrap_or_else(|| panic!("seed {seed}: no bound"));
        assert!(bound <= expected * (1.0 + 1e-6), "seed {seed}: {expected} beats the bound {bound}");
        certified += usize::from(certificate.bound_kind == BoundKind::Certified);
        slower += usize::from(figure(found, &problem, Objective::Throughput).expect("a rate") < most * 0.999);
        found.clone().check(&problem).expect("it holds");
        // What a bound claims beyond what its prices prove is refused.
        let mut lied = found.clone();
        if let Some(certificate) = lied.certificate.as_mut().filter(|c| c.bound_kind == BoundKind::Certified) {
            certificate.bound = Some(bound * 1.001);
            certificate.gap = Some((bound * 1.001 - value).abs() / value);
            lied.check(&problem).expect_err("a bound that is not proved");
        }
        plans += 1;
    }
    assert!(plans > 15 && certified > 0 && slower > 3, "{plans} plans, {certified} certified, {slower} slower");
}

#[test]
fn a_limit_on_what_a_token_costs_slows_the_fastest_plan_and_one_below_all_plans_is_refused_with_the_bound() {
    let mut binding = 0;
    for seed in 0..16 {
        let problem = priced(seed, Objective::Throughput);
        let Some(most) = fastest(&problem) else { continue };
        let free = plan(&problem, &Budget::default()).expect("planned");
        let spent = figure(free.plan().expect("a plan").plan(), &problem, Objective::Energy).expect("known");
        let least = oracle::least_cost(&problem, Objective::Energy, 0.0).expect("there is a plan");
        let limit = 0.5 * (least + spent);
        let mut limited = problem.clone();
        limited.limits.goals.push(Goal { figure: Objective::Energy, limit });
        let outcome = plan(&limited, &Budget::default()).expect("planned");
        let found = outcome.plan().unwrap_or_else(|| panic!("seed {seed}: {outcome:?}")).plan();
        let value = found.objective_value.expect("a value");
        assert!(figure(found, &limited, Objective::Energy).expect("known") <= limit * (1.0 + 1e-9), "seed {seed}");
        // No slower than the plan of least energy, no faster than any.
        assert!(value <= most * (1.0 + 1e-6), "seed {seed}");
        let faster = oracle::least_cost(&limited, Objective::Energy, value * 1.01);
        assert!(faster.is_none_or(|cost| cost > limit * 0.99), "seed {seed}: a faster plan keeps the limit");
        binding += usize::from(value < most * 0.999);
        let mut impossible = problem.clone();
        impossible.limits.goals.push(Goal { figure: Objective::Energy, limit: 0.3 * least });
        let outcome = plan(&impossible, &Budget::default()).expect("planned");
        let refused = matches!(&outcome, Outcome::Infeasible(reasons) if reasons.to_string().contains("certified"));
        assert!(refused || matches!(outcome, Outcome::Unknown { .. }), "seed {seed}: {outcome:?}");
    }
    assert!(binding > 1, "the limit bound {binding} times");
}

#[test]
fn figures_in_turn_give_up_no_more_of_the_first_than_was_allowed() {
    let mut changed = 0;
    for seed in 0..16 {
        let problem = priced(seed, Objective::Throughput);
        let Some(most) = fastest(&problem) else { continue };
        let outcome = in_turn(&problem, &[Objective::Throughput, Objective::Energy], 0.1, &Budget::default());
        let outcome = outcome.expect("planned");
        let found = outcome.plan().expect("a plan").plan();
        let rate = figure(found, &problem, Objective::Throughput).expect("a rate");
        assert!(rate >= 0.9 * most * (1.0 - 1e-6), "seed {seed}: {rate} of {most}");
        let expected = oracle::least_cost(&problem, Objective::Energy, 0.9 * most * (1.0 - 1e-7)).expect("a plan");
        let value = found.objective_value.expect("a value");
        assert!(value <= expected * (1.0 + 1e-5), "seed {seed}: {value} instead of {expected}");
        // The plan says what was asked of it, and is checked for that without the question.
        assert_eq!(found.goals.len(), 1);
        let mut asked = problem.clone();
        asked.objective = Objective::Energy;
        found.clone().check(&asked).expect("it holds");
        let mut broken = found.clone();
        broken.goals[0].limit = most * 1.5;
        assert!(broken.check(&asked).is_err(), "seed {seed}: a goal that is missed is noticed");
        changed += usize::from(rate < most * 0.999);
    }
    assert!(changed > 0);
}

#[test]
fn a_frontier_of_rate_and_energy_falls_and_each_point_costs_least_at_its_rate() {
    for seed in [1, 2, 5, 8] {
        let problem = priced(seed, Objective::Throughput);
        let axes = [Objective::Throughput, Objective::Energy];
        let points = frontier(&problem, &axes, &Budget::default()).expect("planned");
        for pair in points.windows(2) {
            assert!(pair[0].figures[0] > pair[1].figures[0] && pair[0].figures[1] > pair[1].figures[1], "seed {seed}");
        }
        for point in &points {
            let least = oracle::least_cost(&problem, Objective::Energy, point.figures[0] * (1.0 - 1e-6));
            let least = least.expect("the point itself");
            assert!(point.figures[1] <= least * (1.0 + 1e-4), "seed {seed}: {:?}, least {least}", point.figures);
        }
    }
}

#[test]
fn a_floor_that_the_fastest_plan_reaches_has_a_plan_by_any_objective() {
    let mut slower = 0;
    for seed in 0..30 {
        let mut asked = priced(seed, Objective::Tpot);
        let mut serving = asked.clone();
        serving.objective = Objective::Throughput;
        let outcome = plan(&serving, &Budget::default()).expect("planned");
        let Some(mut fastest) = outcome.plan().map(|found| found.plan().clone()) else { continue };
        // A plan by latency has one route.
        if fastest.routes.len() > 1 {
            continue;
        }
        // What is planned for one request has no batch.
        fastest.batch = None;
        let rate = figure(&fastest, &asked, Objective::Throughput).expect("a rate");
        let free = plan(&asked, &Budget::default()).expect("planned");
        let chain = free.plan().and_then(|found| figure(found.plan(), &asked, Objective::Throughput));
        slower += usize::from(chain.is_some_and(|chain| chain < 0.999 * rate));
        asked.limits.goals = vec![Goal { figure: Objective::Throughput, limit: 0.999 * rate }];
        let outcome = plan(&asked, &Budget::default()).expect("planned");
        let found = outcome.plan().unwrap_or_else(|| panic!("seed {seed}: {outcome:?}"));
        let reached = figure(found.plan(), &asked, Objective::Throughput).expect("a rate");
        assert!(reached >= 0.999 * rate * (1.0 - 1e-9), "seed {seed}: {reached} of {rate}");
    }
    assert!(slower > 0, "{slower} where the quickest chain is not fast enough");
}

#[test]
fn devices_of_unknown_power_are_named_where_none_is_left_that_could_be_valued() {
    let mut asked = (0..)
        .map(|seed| priced(seed, Objective::Energy))
        .find(|problem| problem.limits.banned.is_empty() && fastest(problem).is_some())
        .expect("some problem has a plan");
    let mut file = asked.graph.file().clone();
    for device in &mut file.devices {
        (device.idle_watts, device.busy_watts) = (None, None);
    }
    asked.graph = DeviceGraph::new(file).expect("a well-formed graph");
    let outcome = plan(&asked, &Budget::default()).expect("planned");
    let Outcome::Infeasible(reasons) = &outcome else { panic!("{outcome:?}") };
    assert!(reasons.to_string().contains("d0 holds nothing: its power is not known"), "{reasons}");
}
