//! Operating points: a plan is as good as the best that enumeration finds over all points of all devices, each choice
//! being a problem of slower devices that draw less and have no points.

use crate::heat::warm;
use crate::oracle;
use crate::spending::priced;
use crate::world::Random;
use isotherm_core::figure::Figure;
use isotherm_core::graph::DeviceGraph;
use isotherm_core::plan::{BoundKind, Plan};
use isotherm_core::power::PowerPoint;
use isotherm_core::problem::{Goal, Objective, PlacementProblem, PowerLimit, PowerScope};
use isotherm_core::spending::figure;
use isotherm_core::sustained::{exceeded, reserve};
use isotherm_core::units::Watts;
use isotherm_planner::goals::in_turn;
use isotherm_planner::{Budget, plan};

/// The problem with up to two operating points below full speed on each device, convex or not.
fn with_points(mut problem: PlacementProblem, seed: u64) -> PlacementProblem {
    let random = &mut Random(seed.wrapping_mul(37) + 11);
    let mut file = problem.graph.file().clone();
    for device in &mut file.devices {
        let (Some(idle), Some(busy)) = (&device.idle_watts, &device.busy_watts) else { continue };
        let (idle, mut at) = (idle.value.value(), (1.0, busy.value.value()));
        for _ in 0..random.whole(1, 2) {
            at.0 *= random.real(0.7, 0.95);
            at.1 = idle + (at.1 - idle) * random.real(0.4, 0.9);
            let watts = Figure::declared(Watts::of(at.1), "test");
            device.power_points.push(PowerPoint { speed: at.0, watts });
        }
    }
    problem.graph = DeviceGraph::new(file).expect("a well-formed graph");
    problem
}

/// The problem with each device at one of its points, for every choice of them: slower, drawing less, without points.
fn at_each_choice(problem: &PlacementProblem) -> Vec<PlacementProblem> {
    let devices = problem.graph.devices();
    let options: Vec<usize> = devices.iter().map(|device| 1 + device.power_points.len()).collect();
    let ways: usize = options.iter().product();
    let choice = |mut way: usize| {
        let mut file = problem.graph.file().clone();
        let mut speeds = vec![1.0; devices.len()];
        for (i, device) in file.devices.iter_mut().enumerate() {
            let option = way % options[i];
            way /= options[i];
            if let Some(point) = option.checked_sub(1).map(|at| device.power_points[at].clone()) {
                speeds[i] = point.speed;
                device.busy_watts = Some(point.watts);
            }
            device.power_points.clear();
        }
        let mut chosen = problem.clone();
        chosen.graph = DeviceGraph::new(file).expect("a well-formed graph");
        chosen.at_speeds(|id| Some(speeds[id.index()]))
    };
    (0..ways).map(choice).collect()
}

fn planned(problem: &PlacementProblem, seed: u64) -> Option<Plan> {
    let outcome = plan(problem, &Budget::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    outcome.plan().map(|found| found.plan().clone())
}

fn fastest(problem: &PlacementProblem) -> Option<f64> {
    let mut serving = problem.clone();
    serving.objective = Objective::Throughput;
    planned(&serving, 0)?.objective_value
}

fn bound_of(plan: &Plan, seed: u64) -> (f64, BoundKind) {
    let certificate = plan.certificate.as_ref().expect("a certificate");
    (certificate.bound.unwrap_or_else(|| panic!("seed {seed}: no bound")), certificate.bound_kind)
}

#[test]
fn the_least_energy_of_a_token_is_no_more_than_at_any_points_and_no_less_than_its_bound() {
    let (mut plans, mut certified, mut slower, mut saved) = (0, 0, 0, 0);
    for seed in 0..24 {
        let mut problem = with_points(priced(seed, Objective::Energy), seed);
        let Some(most) = fastest(&problem) else { continue };
        let floor = [0.0, 0.5, 0.9][seed as usize % 3] * most;
        if floor > 0.0 {
            problem.limits.goals.push(Goal { figure: Objective::Throughput, limit: floor });
        }
        let each = at_each_choice(&problem);
        let least = |all: &[PlacementProblem]| {
            all.iter().filter_map(|one| oracle::least_cost(one, Objective::Energy, floor)).reduce(f64::min)
        };
        let (expected, full) = (least(&each).expect("there is a plan"), least(&each[..1]).expect("there is a plan"));
        let found = planned(&problem, seed).unwrap_or_else(|| panic!("seed {seed}: no plan"));
        let value = found.objective_value.expect("a value");
        assert!(value <= expected * (1.0 + 1e-5), "seed {seed}: {value}, enumeration finds {expected}");
        let (bound, kind) = bound_of(&found, seed);
        assert!(bound <= value * (1.0 + 1e-9), "seed {seed}: {value} beats the bound {bound}");
        assert!(bound <= expected * (1.0 + 1e-9), "seed {seed}: {expected} beats the bound {bound}");
        found.clone().check(&problem).expect("it holds");
        plans += 1;
        certified += usize::from(kind == BoundKind::Certified);
        slower += usize::from(found.stages.iter().any(|stage| stage.power_cap_watts.is_some()));
        saved += usize::from(expected < full * 0.99);
        // A plan at full speed, or with another cap, is not worth that.
        for (i, _) in found.stages.iter().enumerate().filter(|(_, stage)| stage.power_cap_watts.is_some()) {
            let mut lied = found.clone();
            lied.stages[i].power_cap_watts = None;
            lied.clone().check(&problem).expect_err("no cap");
            lied.stages[i].power_cap_watts = found.stages[i].power_cap_watts.map(|cap| cap * 0.97);
            lied.check(&problem).expect_err("another cap");
        }
        if kind == BoundKind::Certified {
            let mut lied = found.clone();
            let certificate = lied.certificate.as_mut().expect("a certificate");
            certificate.bound = Some(bound * 1.001);
            certificate.gap = Some((bound * 1.001 - value).abs() / value);
            lied.check(&problem).expect_err("a bound that is not proved");
        }
    }
    assert!(plans > 12 && slower > 8 && saved > 4 && certified > 4, "{plans} {slower} {saved} {certified}");
}

#[test]
fn throughput_within_an_energy_limit_is_no_less_than_at_any_points() {
    let (mut plans, mut gained) = (0, 0);
    for seed in 0..18 {
        let energy = with_points(priced(seed, Objective::Energy), seed);
        let Some(cheapest) = planned(&energy, seed).and_then(|plan| plan.objective_value) else { continue };
        let mut problem = energy.clone();
        problem.objective = Objective::Throughput;
        let limit = cheapest * 1.05;
        problem.limits.goals.push(Goal { figure: Objective::Energy, limit });
        let best = |all: &[PlacementProblem]| {
            all.iter().filter_map(|one| oracle::best_within_cost(one, Objective::Energy, limit)).reduce(f64::max)
        };
        let each = at_each_choice(&problem);
        let found = planned(&problem, seed).unwrap_or_else(|| panic!("seed {seed}: no plan"));
        let value = found.objective_value.expect("a value");
        let spent = figure(&found, &problem, Objective::Energy).expect("known");
        assert!(spent <= limit * (1.0 + 1e-9), "seed {seed}: {spent} of {limit}");
        let bound = bound_of(&found, seed).0;
        assert!(bound >= value * (1.0 - 1e-9), "seed {seed}: {value} beats the bound {bound}");
        found.clone().check(&problem).expect("it holds");
        plans += 1;
        let Some(expected) = best(&each) else { continue };
        assert!(bound >= expected * (1.0 - 1e-6), "seed {seed}: {expected} beats the bound {bound}");
        assert!(value >= expected * 0.99, "seed {seed}: {value}, enumeration finds {expected}");
        gained += usize::from(best(&each[..1]).is_none_or(|full| full < expected * 0.99));
    }
    assert!(plans > 8 && gained > 2, "{plans} plans, {gained} of which points make faster");
}

#[test]
fn within_heat_and_power_points_leave_as_much_throughput_as_enumeration_finds() {
    let (mut plans, mut gained, mut slow) = (0, 0, 0);
    for seed in 0..14 {
        let plain = warm(seed, Objective::Throughput);
        let mut problem = with_points(plain, seed);
        let hosts = problem.graph.devices().iter().map(|device| device.host.clone());
        if let Some(host) = hosts.clone().next().filter(|_| seed % 2 == 0) {
            let most_watts = Watts::of(120.0 + 20.0 * seed as f64);
            problem.limits.power = vec![PowerLimit { scope: PowerScope::Host(host), most_watts }];
        }
        let each = at_each_choice(&problem);
        let best = |all: &[PlacementProblem], of: &dyn Fn(&PlacementProblem) -> Option<f64>| {
            all.iter().filter_map(of).filter(|&rate| rate > 1e-9).reduce(f64::max)
        };
        let expected = best(&each, &oracle::best);
        let Some(found) = planned(&problem, seed) else {
            assert!(expected.is_none(), "seed {seed}: nothing instead of {expected:?}");
            continue;
        };
        let value = found.objective_value.expect("a value");
        let (expected, bound) = (expected.expect("there is a plan"), bound_of(&found, seed).0);
        assert!(bound >= expected * (1.0 - 2e-6), "seed {seed}: {expected} beats the bound {bound}");
        assert!(bound >= value * (1.0 - 1e-9), "seed {seed}: {value} beats the bound {bound}");
        assert_eq!(exceeded(&found, &problem), Some(Vec::new()), "seed {seed}");
        found.clone().check(&problem).expect("it holds");
        let spare = reserve(&found, &problem).expect("its times are known");
        let least = best(&each, &|one| oracle::best_with_reserve(one, spare)).expect("there is a plan");
        plans += 1;
        slow += usize::from(value < least * (1.0 - 2e-6));
        assert!(value >= least * 0.95, "seed {seed}: {value} is far from {least}");
        gained += usize::from(best(&each[..1], &oracle::best).is_none_or(|full| full < expected * 0.99));
        // Hotter than it says, or without its caps, it does not pass.
        if found.stages.iter().any(|stage| stage.power_cap_watts.is_some()) {
            let mut lied = found.clone();
            lied.stages.iter_mut().for_each(|stage| stage.power_cap_watts = None);
            lied.check(&problem).expect_err("no caps");
        }
    }
    assert!(plans > 4 && gained > 1, "{plans} plans, points help in {gained}");
    assert!(slow * 3 <= plans, "{slow} of {plans} plans were not the best");
}

#[test]
fn giving_a_tenth_of_the_rate_saves_more_energy_where_devices_have_points() {
    let (mut plans, mut more) = (0, 0);
    for seed in 0..12 {
        let plain = priced(seed, Objective::Throughput);
        let pointed = with_points(plain.clone(), seed);
        let spent = |problem: &PlacementProblem| {
            let turns = [Objective::Throughput, Objective::Energy];
            let outcome =
                in_turn(problem, &turns, 0.1, &Budget::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            let found = outcome.plan()?.plan().clone();
            let mut asked = problem.clone();
            asked.objective = Objective::Energy;
            asked.limits.goals.clone_from(&found.goals);
            found.clone().check(&asked).expect("it holds");
            found.objective_value
        };
        let (Some(with), Some(without)) = (spent(&pointed), spent(&plain)) else { continue };
        assert!(with <= without * (1.0 + 1e-6), "seed {seed}: {with} with points, {without} without");
        plans += 1;
        more += usize::from(with < without * 0.98);
    }
    assert!(plans > 6 && more > 3, "{more} of {plans}");
}
