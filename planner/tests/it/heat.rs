//! Heat and power limits: the best plan is what enumeration finds, over every placement and all its routes, each limit a
//! row of a linear program.

use crate::oracle;
use crate::world::{Random, Recipe, problem};
use isotherm_core::figure::Figure;
use isotherm_core::graph::DeviceGraph;
use isotherm_core::problem::{Limits, Objective, PlacementProblem, PowerLimit, PowerScope, ProblemParts};
use isotherm_core::sustained::{Envelope, exceeded, reserve};
use isotherm_core::thermal::ThermalRecord;
use isotherm_core::thermal::governor::Chassis;
use isotherm_core::units::{Celsius, JoulesPerKelvin, KelvinPerWatt, Watts};
use isotherm_planner::{Budget, Outcome, plan};

/// A random problem whose devices warm one another, under a power limit or not.
pub fn warm(seed: u64, objective: Objective) -> PlacementProblem {
    let recipe = Recipe { objective, devices_max: 3, layers_max: 4, shared: false, partial: false };
    let plain = problem(seed, recipe);
    let random = &mut Random(seed.wrapping_mul(91) + 17);
    let mut file = plain.graph.file().clone();
    for device in &mut file.devices {
        let busy = random.real(40.0, 200.0);
        device.idle_watts = Some(Figure::declared(Watts::of(random.real(0.0, 20.0)), "test"));
        device.busy_watts = Some(Figure::declared(Watts::of(busy), "test"));
        if random.chance(75) {
            device.thermal = Some(ThermalRecord {
                resistance_kelvin_per_watt: Figure::declared(KelvinPerWatt::of(random.real(0.2, 0.6)), "test"),
                capacity_joules_per_kelvin: Figure::declared(JoulesPerKelvin::of(100.0), "test"),
                throttle_celsius: Some(Figure::declared(Celsius::of(80.0), "test")),
                resume_celsius: Some(Figure::declared(Celsius::of(75.0), "test")),
                throttled_speed: Some(Figure::declared(0.5, "test")),
                die: None,
                case: None,
                fan: None,
            });
        }
    }
    let mut limits = Limits { stages_exact: None, ..plain.limits.clone() };
    if random.chance(40) {
        let most_watts = Watts::of(random.real(80.0, 400.0));
        limits.power.push(PowerLimit { scope: PowerScope::Host("host".into()), most_watts });
    }
    let names: Vec<String> = file.devices.iter().filter(|d| d.thermal.is_some()).map(|d| d.name.clone()).collect();
    let mut made = PlacementProblem::new(ProblemParts {
        name: plain.name.clone(),
        model: plain.model.clone(),
        graph: DeviceGraph::new(file).expect("a well-formed graph"),
        workload: plain.workload.clone(),
        serving: plain.serving,
        objective,
        limits,
        ambient: Celsius::of(random.real(15.0, 45.0)),
        inputs: plain.inputs.clone(),
    })
    .expect("a well-formed problem");
    if names.len() > 1 {
        made.conditions.chassis.push(Chassis {
            name: "case".into(),
            devices: names,
            resistance_kelvin_per_watt: KelvinPerWatt::of(random.real(0.0, 0.3) + 1e-6),
            capacity_joules_per_kelvin: JoulesPerKelvin::of(1_000.0),
        });
    }
    made
}

#[test]
fn a_plan_within_heat_and_power_is_mostly_the_best_that_enumeration_finds_and_never_far_below() {
    let (mut plans, mut bound, mut open, mut apart) = (0, 0, 0, 0);
    for seed in 0..10 {
        let problem = warm(seed, Objective::Throughput);
        let expected = oracle::best(&problem).filter(|&rate| rate > 1e-9);
        let outcome = plan(&problem, &Budget::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let Some(found) = outcome.plan() else {
            assert!(expected.is_none(), "seed {seed}: nothing instead of {expected:?}");
            continue;
        };
        let (value, expected) = (found.plan().objective_value.expect("a value"), expected.expect("there is a plan"));
        plans += 1;
        assert!(value <= expected * (1.0 + 2e-6), "seed {seed}: {value} beats all, {expected}");
        let stated = found.plan().certificate.as_ref().and_then(|c| c.bound);
        let stated = stated.unwrap_or_else(|| panic!("seed {seed}: no bound"));
        assert!(stated >= expected * (1.0 - 2e-6), "seed {seed}: {expected} beats the bound {stated}");
        // A plan leaves room for a faster run: it may fall short of the best by that, and seldom by more.
        let spare = reserve(found.plan(), &problem).expect("its times are known");
        let least = oracle::best_with_reserve(&problem, spare).expect("there is a plan");
        if value < least * (1.0 - 2e-6) {
            assert!(value >= least * 0.97, "seed {seed}: {value} is far from {least}");
            open += 1;
        }
        let envelope = Envelope::of(&problem);
        bound += usize::from(!envelope.is_slack());
        let mut cold = problem.clone();
        cold.limits.cold = true;
        let careless = plan(&cold, &Budget::default()).expect("planned");
        if let Some(careless) = careless.plan() {
            let careless = careless.plan();
            apart +=
                usize::from(careless.stages.iter().map(|s| s.layers).ne(found.plan().stages.iter().map(|s| s.layers)));
            assert!(careless.objective_value.expect("a value") >= value * (1.0 - 2e-6), "seed {seed}: heat helps");
            assert_eq!(careless.sustained, None);
        }
        assert_eq!(exceeded(found.plan(), &problem), Some(Vec::new()), "seed {seed}");
        found.plan().clone().check(&problem).expect("it holds");
    }
    assert!(plans > 2 && bound > 0, "{plans} plans, heat binds {bound}, other layers in {apart}");
    assert!(open * 5 <= plans, "{open} of {plans} plans were not the best");
}

#[test]
fn a_time_per_token_within_heat_is_under_its_bound_and_at_its_limits_at_most() {
    let (mut plans, mut slowed) = (0, 0);
    for seed in 0..30 {
        let problem = warm(seed, Objective::Tpot);
        let outcome = plan(&problem, &Budget::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let Some(found) = outcome.plan() else { continue };
        let plan = found.plan();
        let bound = plan.certificate.as_ref().and_then(|c| c.bound).expect("a bound");
        assert!(plan.objective_value.expect("a value") >= bound * (1.0 - 1e-9), "seed {seed}");
        assert_eq!(exceeded(plan, &problem), Some(Vec::new()), "seed {seed}");
        plans += 1;
        slowed += usize::from(plan.stages.iter().any(|stage| stage.power_cap_watts.is_some()));
    }
    assert!(plans > 8 && slowed > 1, "{plans} plans, {slowed} of them slowed");
}

#[test]
fn a_plan_that_says_it_is_cooler_than_it_is_does_not_pass() {
    let tried = (0..40).filter_map(|seed| {
        let problem = warm(seed, Objective::Throughput);
        match plan(&problem, &Budget::default()).expect("planned") {
            Outcome::Optimal(found) | Outcome::Feasible { plan: found, .. } => Some((problem, found.into_plan())),
            _ => None,
        }
    });
    let mut capped = 0;
    for (problem, plan) in tried.take(6) {
        let mut cooler = plan.clone();
        let state = cooler.sustained.as_mut().expect("devices of known heat");
        if let Some(celsius) = state.devices.iter_mut().find_map(|device| device.celsius.as_mut()) {
            *celsius = Celsius::of(celsius.value() - 1.0);
            assert!(cooler.check(&problem).is_err());
        }
        // Without its caps a plan is faster than it says, or hotter than it may be.
        if plan.stages.iter().any(|stage| stage.power_cap_watts.is_some()) {
            let mut free = plan.clone();
            free.stages.iter_mut().for_each(|stage| stage.power_cap_watts = None);
            assert!(free.check(&problem).is_err());
            capped += 1;
        }
    }
    assert!(capped > 0, "no plan had a cap");
}
