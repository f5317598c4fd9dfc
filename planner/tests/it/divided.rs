//! Prompts and answers on devices of their own: the best division is what enumeration finds.

use crate::oracle;
use crate::world::{Random, Recipe, link, model, problem, profile};
use isotherm_core::check::ProblemRecord;
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::figure::Figure;
use isotherm_core::graph::{DeviceGraph, DevicesFile};
use isotherm_core::ids::{DeviceId, Layers};
use isotherm_core::objective::evaluate;
use isotherm_core::plan::{BoundKind, Evidence, Plan};
use isotherm_core::problem::{Choices, Division, Limits, Objective, PlacementProblem, ProblemParts, Role};
use isotherm_core::units::{Bytes, Seconds, TokensPerSecond};
use isotherm_core::workload::{Length, Serving};
use isotherm_planner::baselines::{Baseline, baseline};
use isotherm_planner::{Budget, Limit, Outcome, plan};
use serde_json::json;
use std::fmt::Write as _;
use std::sync::atomic::AtomicBool;

/// A random problem of throughput whose answers have several tokens.
fn apart(seed: u64, division: Division) -> PlacementProblem {
    let recipe =
        Recipe { objective: Objective::Throughput, devices_max: 3, layers_max: 3, shared: true, partial: false };
    let plain = problem(seed, recipe);
    let mut workload = plain.workload.clone();
    workload.output_tokens = Length { min: 2, max: workload.output_tokens.max.max(2) };
    rebuilt(&plain, plain.graph.file().clone(), |parts| {
        parts.workload = workload;
        parts.limits = Limits { division, pinned: Vec::new(), stages_exact: None, ..plain.limits.clone() };
    })
}

/// The problem with other devices, and changed.
pub fn rebuilt(
    plain: &PlacementProblem,
    file: DevicesFile,
    change: impl FnOnce(&mut ProblemParts),
) -> PlacementProblem {
    let mut parts = ProblemParts {
        name: plain.name.clone(),
        model: plain.model.clone(),
        graph: DeviceGraph::new(file).expect("a well-formed graph"),
        workload: plain.workload.clone(),
        serving: plain.serving,
        objective: plain.objective,
        limits: plain.limits.clone(),
        ambient: plain.ambient,
        inputs: plain.inputs.clone(),
    };
    change(&mut parts);
    PlacementProblem::new(parts).expect("a well-formed problem")
}

/// The same with ways on which nothing takes time and with room for many requests at once, so that the sides share
/// nothing.
fn with_nothing_shared(plain: &PlacementProblem) -> PlacementProblem {
    let mut file = plain.graph.file().clone();
    for device in &mut file.devices {
        device.memory_pool = None;
    }
    (file.coordinator, file.junctions, file.groups) = (None, Vec::new(), Vec::new());
    let names: Vec<String> = file.devices.iter().map(|device| device.name.clone()).collect();
    let pairs = names.iter().flat_map(|a| names.iter().filter(move |&b| a != b).map(move |b| (a, b)));
    file.links = pairs.map(|(a, b)| link(a, b, 0.0, 1e18, &[])).collect();
    rebuilt(plain, file, |parts| {
        parts.serving = Serving { requests_max: 4_000, kv_blocks: Some(8), ..plain.serving };
        parts.limits.choices = Choices { batches: vec![1, 3], ..Choices::default() };
    })
}

/// Every set of devices that may prefill.
fn divisions(problem: &PlacementProblem) -> impl Iterator<Item = Vec<bool>> + use<> {
    let count = problem.graph.devices().len();
    (0..1_usize << count).map(move |set| (0..count).map(|device| set >> device & 1 == 1).collect())
}

/// The best of one side on some of the devices, in output tokens per second of the whole plan.
fn best_side(problem: &PlacementProblem, role: Role, division: &[bool]) -> f64 {
    let mut side = problem.side(role);
    let other = |id: &DeviceId| division[id.index()] != (role == Role::Prefill);
    let others = problem.graph.device_ids().filter(other);
    side.limits.banned.extend(others.map(|id| problem.graph.device(id).name.clone()));
    oracle::best(&side).unwrap_or(0.0) * problem.outputs_per(role)
}

fn best_division(problem: &PlacementProblem) -> f64 {
    let of = |division: Vec<bool>| {
        Role::ALL.into_iter().map(|role| best_side(problem, role, &division)).fold(f64::INFINITY, f64::min)
    };
    divisions(problem).map(of).fold(0.0, f64::max)
}

fn planned(problem: &PlacementProblem, seed: u64) -> Option<Plan> {
    match plan(problem, &Budget::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}")) {
        Outcome::Optimal(found) | Outcome::Feasible { plan: found, .. } => Some(found.into_plan()),
        Outcome::Infeasible(_) => None,
        // Of plans of the sides that do not go together, others might; only where nothing is shared all do.
        Outcome::Unknown { stopped_by } => {
            assert!(!problem.graph.file().groups.is_empty(), "seed {seed}: {stopped_by}");
            None
        }
    }
}

#[test]
fn the_best_plan_of_a_side_is_what_enumeration_finds() {
    let mut plans = 0;
    for seed in 0..40 {
        let problem = with_nothing_shared(&apart(seed, Division::Always));
        for (role, division) in Role::ALL.into_iter().flat_map(|role| divisions(&problem).map(move |d| (role, d))) {
            let expected = best_side(&problem, role, &division) / problem.outputs_per(role);
            let mut side = problem.side(role);
            let others = problem.graph.device_ids().filter(|id| division[id.index()] != (role == Role::Prefill));
            side.limits.banned.extend(others.map(|id| problem.graph.device(id).name.clone()));
            let value = planned(&side, seed).and_then(|plan| plan.objective_value).unwrap_or(0.0);
            assert!(
                (value - expected).abs() <= 2e-6 * expected,
                "seed {seed}, {role:?} {division:?}: {value} instead of {expected}"
            );
            plans += usize::from(value > 0.0);
        }
    }
    assert!(plans > 60, "{plans} plans");
}

#[test]
fn the_best_division_is_what_enumeration_finds() {
    let (mut plans, mut none, mut certified) = (0, 0, 0);
    for seed in 0..120 {
        let problem = with_nothing_shared(&apart(seed, Division::Always));
        let expected = best_division(&problem);
        let Some(found) = planned(&problem, seed) else {
            assert!(expected <= 0.0, "seed {seed}: no plan instead of {expected}");
            none += 1;
            continue;
        };
        let value = found.objective_value.expect("a plan has a value");
        assert!((value - expected).abs() <= 2e-6 * expected, "seed {seed}: {value} instead of {expected}");
        let certificate = found.certificate.as_ref().expect("a plan has one");
        let bound = certificate.bound.expect("all divisions were looked at");
        assert!(bound >= expected * (1.0 - 1e-9), "seed {seed}: a bound of {bound} under {expected}");
        certified += usize::from(certificate.bound_kind == BoundKind::Certified);
        plans += 1;
    }
    assert!(plans > 30 && none > 5 && certified > 5, "{plans} plans, {certified} of them certified, {none} without");
}

#[test]
fn where_sides_share_ways_and_requests_a_plan_is_worth_no_more_than_either_side() {
    let mut plans = 0;
    for seed in 0..80 {
        let problem = apart(seed, Division::Always);
        let Some(found) = planned(&problem, seed) else { continue };
        let value = found.objective_value.expect("a plan has a value");
        let bound = found.certificate.as_ref().and_then(|c| c.bound).expect("a bound");
        let expected = best_division(&problem);
        assert!(value <= expected * (1.0 + 1e-9), "seed {seed}: {value} is more than {expected}");
        assert!(bound >= value * (1.0 - 1e-9), "seed {seed}: a bound of {bound} under {value}");
        plans += 1;
    }
    assert!(plans > 20, "{plans} plans");
}

#[test]
fn the_better_of_divided_and_undivided_is_taken_under_a_bound_on_both() {
    let (mut divided, mut whole) = (0, 0);
    for seed in 0..24 {
        let auto = apart(seed, Division::Auto);
        let values = [Division::Never, Division::Always]
            .map(|division| planned(&apart(seed, division), seed).and_then(|plan| plan.objective_value).unwrap_or(0.0));
        let Some(found) = planned(&auto, seed) else {
            assert!(values.iter().all(|&value| value <= 0.0), "seed {seed}: {values:?} and no plan");
            continue;
        };
        let (value, most) = (found.objective_value.expect("a value"), values[0].max(values[1]));
        assert!((value - most).abs() <= 2e-6 * most, "seed {seed}: {value} of {values:?}");
        if let Some(bound) = found.certificate.as_ref().and_then(|c| c.bound) {
            assert!(bound >= most * (1.0 - 1e-9), "seed {seed}: {bound} under {values:?}");
        }
        if found.is_divided() { divided += 1 } else { whole += 1 }
    }
    assert!(divided > 1 && whole > 1, "{divided} divided, {whole} not");
}

#[test]
fn devices_that_are_named_prefill_and_no_others() {
    let mut plans = 0;
    for seed in 0..80 {
        let mut problem = with_nothing_shared(&apart(seed, Division::Always));
        let random = &mut Random(seed + 17);
        let division: Vec<bool> = problem.graph.devices().iter().map(|_| random.chance(50)).collect();
        let named = problem.graph.device_ids().filter(|id| division[id.index()]);
        problem.limits.prefill = named.map(|id| problem.graph.device(id).name.clone()).collect();
        if problem.limits.prefill.is_empty() {
            continue;
        }
        let sides = Role::ALL.map(|role| best_side(&problem, role, &division));
        let expected = sides[0].min(sides[1]);
        let Some(found) = planned(&problem, seed) else {
            assert!(expected <= 0.0, "seed {seed}: no plan instead of {expected}");
            continue;
        };
        let value = found.objective_value.expect("a value");
        assert!((value - expected).abs() <= 2e-6 * expected, "seed {seed}: {value} instead of {expected}");
        plans += 1;
    }
    assert!(plans > 15, "{plans} plans");
}

#[test]
fn where_plans_cannot_be_divided_devices_that_are_named_change_none() {
    let (mut plans, mut others, mut stored) = (0, 0, 0);
    for seed in 0..24 {
        for objective in [Objective::Throughput, Objective::Tpot, Objective::Ttft] {
            let named = |division: Division, prefill: &[&str]| {
                let plain = apart(seed, division);
                let prefill = prefill.iter().map(|&name| name.to_owned()).collect();
                rebuilt(&plain, plain.graph.file().clone(), |parts| {
                    parts.objective = objective;
                    parts.limits.prefill = prefill;
                })
            };
            let plain = named(Division::Never, &[]);
            let first = plain.graph.devices()[0].name.clone();
            let asked = named(Division::Always, &[&first]);
            let before = planned(&plain, seed);
            if objective != Objective::Throughput {
                assert_eq!(planned(&asked, seed), before, "seed {seed}");
                plans += usize::from(before.is_some());
            }
            // A plan that was made before devices were named.
            if let Some(before) = before {
                assert_eq!(before.violations(&asked), Vec::new(), "seed {seed}");
                stored += 1;
            }
            let by = |problem: &PlacementProblem| {
                let found = baseline(problem, Baseline::Greedy, &Budget::default()).expect("no solver");
                found.map(isotherm_core::check::FeasiblePlan::into_plan)
            };
            let expected = by(&plain);
            assert_eq!(by(&asked), expected, "seed {seed}");
            others += usize::from(expected.is_some());
        }
    }
    assert!(plans > 10 && others > 10 && stored > 15, "{plans}, {others} by another rule, {stored} stored");
}

#[test]
fn a_wrong_weight_a_bound_too_low_and_mixed_roles_are_refused() {
    let (mut low, mut weights, mut roles) = (0, 0, 0);
    for seed in 0..60 {
        let problem = with_nothing_shared(&apart(seed, Division::Always));
        let Some(found) = planned(&problem, seed) else { continue };
        let value = found.objective_value.expect("a value");
        let with = |bound: f64, weight: Option<f64>| {
            let mut changed = found.clone();
            let certificate = changed.certificate.as_mut().expect("there is one");
            certificate.evidence = Some(Evidence::Divided { weight, whole: None });
            (certificate.bound_kind, certificate.bound) = (BoundKind::Certified, Some(bound));
            certificate.gap = Some((bound - value).abs() / value);
            changed.status = isotherm_core::plan::Status::Feasible;
            changed.violations(&problem)
        };
        low += usize::from(!with(value * 0.999, None).is_empty());
        weights += usize::from(!with(value * 1e3, Some(1.5)).is_empty());
        assert!(with(value * 1e3, Some(0.5)).is_empty(), "seed {seed}: a bound that is far above holds");
        let mut mixed = found.clone();
        mixed.routes[0].role = None;
        roles += usize::from(!mixed.violations(&problem).is_empty());
        let mut unasked = found.clone();
        unasked.division = Division::Never;
        let mut free = problem.clone();
        free.limits.division = Division::Never;
        assert!(!unasked.violations(&free).is_empty(), "seed {seed}: a divided plan that was asked for no division");
        assert_eq!(evaluate(&found, &problem).value(Objective::Throughput), Some(value));
    }
    assert!(low > 15 && low == weights && low == roles, "{low}, {weights}, {roles}");
}

#[test]
fn a_second_checker_accepts_divided_plans_and_refuses_what_is_wrong_with_them() {
    let mut lines = String::new();
    let mut expected = Vec::new();
    for seed in 0..40 {
        for problem in [
            with_nothing_shared(&apart(seed, Division::Always)),
            apart(seed, Division::Always),
            apart(seed, Division::Auto),
        ] {
            let Some(found) = planned(&problem, seed) else { continue };
            let mut other = found.clone();
            if let Some(route) = other.routes.last_mut().filter(|route| route.role.is_some()) {
                route.role = Some(Role::Prefill);
            } else {
                other.stages[0].bytes.kv.0 += 1;
            }
            for (plan, holds) in [(found, true), (other, false)] {
                assert_eq!(plan.violations(&problem).is_empty(), holds, "seed {seed}");
                let case = json!({"plan": plan, "problem": ProblemRecord::of(&problem)});
                writeln!(lines, "{case}").expect("a string grows");
                expected.push(holds);
            }
        }
    }
    if let Some(judged) = crate::world::second_opinion("divided", &lines) {
        assert_eq!(judged, expected);
    }
    assert!(expected.iter().filter(|&&holds| holds).count() > 30);
}

/// Devices `d0`, `d1` and so on that differ in what is changed alone, with ways on which nothing takes time.
fn cards(count: usize, change: impl Fn(usize, &PlacementProblem, &mut Device)) -> PlacementProblem {
    let plain = apart(0, Division::Always);
    let model = model(3, |_| 20_000);
    let mut file = plain.graph.file().clone();
    let card = |i: usize| {
        let mut device = Device::named(format!("d{i}"), "host", DeviceKind::Gpu);
        device.profiles = vec![profile(&model, 1e-3, 1e-4, 1e-4, 1e-4)];
        device.memory_bytes = Some(Figure::declared(Bytes(1_000_000), "test"));
        device
    };
    file.devices = (0..count).map(card).collect();
    (file.coordinator, file.junctions) = (None, Vec::new());
    file.links = Vec::new();
    let ample = with_nothing_shared(&rebuilt(&plain, file, |parts| {
        parts.model = model.clone();
        parts.limits = Limits { division: Division::Always, reserve_bytes: Bytes(100), ..Limits::default() };
    }));
    let mut file = ample.graph.file().clone();
    file.devices.iter_mut().enumerate().for_each(|(i, device)| change(i, &ample, device));
    rebuilt(&ample, file, |_| {})
}

fn bytes_of(problem: &PlacementProblem, layers: Layers) -> u64 {
    let first = problem.graph.device_ids().next().expect("a device");
    let of = |role| problem.side(role).stage_bytes(first, layers).total.0;
    Role::ALL.into_iter().map(of).fold(0, u64::max)
}

#[test]
fn where_no_two_devices_hold_all_layers_alone_pairs_that_hold_stages_together_are_divided() {
    // Room for nearly two layers each: of two cards alone none is left for the third.
    let mut problem = cards(4, |_, ample, device| {
        let memory = bytes_of(ample, Layers::new(0, 2)).min(bytes_of(ample, Layers::new(1, 3))) - 2_000;
        device.memory_bytes = Some(Figure::declared(Bytes(memory), "test"));
    });
    assert!(planned(&problem, 0).is_none(), "no division without pairs");
    problem.limits.choices.tensor_parallel = vec![2];
    let of = |role: Role| {
        let mut side = problem.side(role);
        side.limits.banned = vec!["d2".into(), "d3".into()];
        let pair: Vec<DeviceId> = side.graph.device_ids().take(2).collect();
        let grouped = side.grouped(&[pair]).expect("alike, on one host");
        oracle::best(&grouped).expect("fits together") * problem.outputs_per(role)
    };
    let expected = of(Role::Prefill).min(of(Role::Decode));
    let found = planned(&problem, 0).expect("two pairs");
    assert!(found.is_divided() && found.stages.iter().all(|stage| stage.devices.len() == 2), "{:?}", found.stages);
    let value = found.objective_value.expect("a value");
    assert!((value - expected).abs() <= 2e-6 * expected, "{value} instead of {expected}");
    let bound = found.certificate.as_ref().and_then(|c| c.bound);
    assert!(bound.is_none_or(|bound| bound >= expected * (1.0 - 1e-9)), "{bound:?} under {expected}");
}

#[test]
fn a_group_is_on_one_side_of_a_division_that_names_who_prefills() {
    let mut problem = cards(4, |_, ample, device| {
        let memory = bytes_of(ample, Layers::new(0, 2)).min(bytes_of(ample, Layers::new(1, 3))) - 2_000;
        device.memory_bytes = Some(Figure::declared(Bytes(memory), "test"));
    });
    problem.limits.choices.tensor_parallel = vec![2];
    let mut plans = Vec::new();
    for named in [["d0", "d1"], ["d0", "d2"]] {
        problem.limits.prefill = named.iter().map(|&name| name.to_owned()).collect();
        let found = planned(&problem, 0).expect("two pairs");
        for (stage, role) in found.stages.iter().zip(found.stage_roles()) {
            let prefills = stage.devices.iter().filter(|device| problem.limits.prefill.contains(device)).count();
            let all = if role == Some(Role::Prefill) { stage.devices.len() } else { 0 };
            assert_eq!(prefills, all, "{:?} with {named:?} named", stage.devices);
        }
        plans.push(found);
    }
    // A plan for other names has groups across the division.
    let across = plans[0].violations(&problem);
    assert!(across.iter().any(|fault| fault.to_string().contains("disaggregation.prefill")), "{across:?}");
}

#[test]
fn prompts_come_from_the_source_to_who_prefills_and_answers_leave_from_who_decodes() {
    let rated = |links: &[(&str, &str, f64)]| {
        let plain = cards(2, |_, _, _| {});
        let mut file = plain.graph.file().clone();
        file.junctions = vec!["source".to_owned(), "sink".to_owned()];
        for &(from, to, rate) in links {
            let mut end = link(from, to, 0.0, 1.0, &[]);
            (end.latency_seconds, end.bandwidth_bytes_per_second) = (None, None);
            end.tokens_per_second = Some(TokensPerSecond::of(rate));
            file.links.push(end);
        }
        let mut problem = rebuilt(&plain, file, |_| {});
        problem.limits.prefill = vec!["d0".to_owned()];
        problem
    };
    let value = |problem: &PlacementProblem| planned(problem, 0).map(|plan| plan.objective_value.expect("a value"));
    let free = value(&rated(&[])).expect("a plan");
    let near = |found: Option<f64>, expected: f64| {
        let found = found.expect("a plan");
        assert!((found - expected).abs() <= 2e-6 * expected, "{found} instead of {expected}");
    };
    near(value(&rated(&[("source", "d0", 1e9), ("d1", "sink", 1e9)])), free);
    near(value(&rated(&[("source", "d0", 0.3 * free), ("d1", "sink", 1e9)])), 0.3 * free);
    near(value(&rated(&[("source", "d0", 1e9), ("d1", "sink", 0.4 * free)])), 0.4 * free);
    // Where only the other device is reached, or answers leave from nowhere else, there is no plan.
    assert_eq!(value(&rated(&[("source", "d1", 1e9), ("d1", "sink", 1e9)])), None);
    assert_eq!(value(&rated(&[("source", "d0", 1e9), ("d0", "sink", 1e9)])), None);
}

#[test]
fn where_no_plans_of_the_sides_go_together_that_is_said_instead_of_a_limit() {
    let mut apart_found = 0;
    for seed in 0..200 {
        let mut problem = apart(seed, Division::Always);
        problem.limits.division = Division::Always;
        if let Outcome::Unknown { stopped_by } = plan(&problem, &Budget::default()).expect("planned") {
            assert_eq!(stopped_by, Limit::Sides, "seed {seed}");
            apart_found += 1;
        }
    }
    assert!(apart_found > 0, "none of the problems has sides that do not go together");
}

#[test]
fn a_search_that_ended_early_calls_nothing_impossible_that_is_not() {
    let ended = || Seconds::ZERO;
    let flag = AtomicBool::new(true);
    let budgets = [
        Budget { remaining: Some(&ended), ..Budget::default() },
        Budget { interrupt: Some(&flag), ..Budget::default() },
    ];
    let mut possible = 0;
    for seed in 0..60 {
        let problem = with_nothing_shared(&apart(seed, Division::Always));
        if best_division(&problem) <= 0.0 {
            continue;
        }
        possible += 1;
        for budget in &budgets {
            let outcome = plan(&problem, budget).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert!(!matches!(outcome, Outcome::Infeasible(_)), "seed {seed}: {outcome:?}");
        }
    }
    assert!(possible > 15, "{possible} problems have a plan");
}

#[test]
fn sides_that_overdraw_a_memory_together_make_do_with_what_is_left() {
    // The quick card that decodes draws from the memory of the one that prefills; a slow one has its own.
    let mut problem = cards(3, |i, ample, device| {
        let whole = bytes_of(ample, Layers::new(0, 3));
        device.memory_bytes = Some(Figure::declared(Bytes(whole + whole / 5), "test"));
        device.memory_pool = (i < 2).then(|| "pool".into());
        if i == 2 {
            device.profiles = vec![profile(&ample.model, 1e-1, 1e-4, 1e-4, 1e-4)];
        }
    });
    problem.limits.prefill = vec!["d0".into()];
    let found = planned(&problem, 0).expect("the slow card decodes");
    assert!(found.stages.iter().any(|stage| stage.devices == ["d2"]), "{:?}", found.stages);
}
