//! Where there is no plan, the reasons are true: enumeration finds one exactly where they say so.

use crate::oracle;
use crate::world::{Recipe, problem};
use isotherm_core::format::bits_per_weight;
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::units::Bytes;
use isotherm_planner::{BreakEven, Budget, Nearest, Outcome, Reason, explain, plan};

fn reasons(problem: &PlacementProblem) -> Option<Vec<Reason>> {
    match plan(problem, &Budget::default()).expect("answered") {
        Outcome::Infeasible(reasons) => Some(reasons.all().to_vec()),
        _ => None,
    }
}

fn recipe(objective: Objective) -> Recipe {
    Recipe { objective, devices_max: 3, layers_max: 4, shared: false, partial: false }
}

#[test]
fn demands_in_conflict_are_named_and_none_of_them_too_many() {
    let mut problem = (0..)
        .map(|seed| problem(seed, recipe(Objective::Tpot)))
        .find(|p| {
            let whole = p
                .graph
                .device_ids()
                .filter(|&id| p.memory(id).is_some_and(|m| p.stage_bytes(id, p.model.all_layers()).total.0 <= m.0));
            whole.count() >= 2 && p.limits.banned.is_empty() && oracle::best(p).is_some()
        })
        .expect("some problem is so");
    problem.limits.pinned = vec!["d0".into(), "d1".into()];
    problem.limits.stages_exact = None;
    problem.limits.stages_max = Some(1);
    let reasons = reasons(&problem).expect("two pinned devices need two stages");
    let together = reasons.iter().find_map(|reason| match reason {
        Reason::Together { demands, any: true } => Some(demands.clone()),
        _ => None,
    });
    let demands = together.expect("nothing else is in the way");
    assert!(
        demands.contains(&"pinning d0".to_owned()) && demands.contains(&"at most 1 stages".to_owned()),
        "{demands:?}"
    );
    assert!(!demands.iter().any(|demand| demand.contains("cache") || demand.contains("left free")), "{demands:?}");
}

#[test]
fn the_nearest_demand_has_a_plan_and_the_next_has_none() {
    let (mut requests, mut tokens) = (0, 0);
    for seed in 0..400 {
        let problem = problem(seed, recipe(if seed % 2 == 0 { Objective::Tpot } else { Objective::Ttft }));
        let Some(reasons) = reasons(&problem) else { continue };
        for reason in reasons {
            let with = |change: &dyn Fn(&mut PlacementProblem)| {
                let mut changed = problem.clone();
                change(&mut changed);
                oracle::best(&changed).is_some()
            };
            match reason {
                Reason::Nearest(Nearest::Requests { most, .. }) => {
                    assert!(with(&|p| p.serving.requests_max = most), "seed {seed}: {most} requests");
                    assert!(!with(&|p| p.serving.requests_max = most + 1), "seed {seed}: {most} requests and one");
                    requests += 1;
                }
                Reason::Nearest(Nearest::Without { rule }) => {
                    tokens += usize::from(with(&|p| {
                        p.limits.pinned.retain(|pin| rule != format!("pinning {pin}"));
                        p.limits.banned.retain(|ban| rule != format!("banning {ban}"));
                        if rule.contains("exact") {
                            p.limits.stages_exact = None;
                        }
                        if rule.contains("limit") {
                            p.limits.stages_max = None;
                        }
                    }));
                }
                _ => {}
            }
        }
    }
    assert!(requests > 2 && tokens > 2, "{requests} with fewer requests, {tokens} without a rule");
}

#[test]
fn a_split_pays_below_the_latency_that_is_named_and_not_above() {
    let (mut turned, mut never) = (0, 0);
    for seed in 0..80 {
        let mut problem = problem(seed, recipe(Objective::Tpot));
        problem.limits.pinned.clear();
        problem.limits.stages_exact = None;
        problem.limits.stages_max = None;
        let outcome = plan(&problem, &Budget::default()).expect("planned");
        let Some(found) = outcome.plan() else { continue };
        let explained = explain(&problem, found.plan(), &Budget::default()).expect("explained");
        let Some(split) = explained.split else { continue };
        assert_eq!(split.pays, found.plan().stages.len() > 1, "seed {seed}");
        let pays = |latency: f64| {
            let mut file = problem.graph.file().clone();
            for link in &mut file.links {
                if let Some(known) = &mut link.latency_seconds {
                    known.value = isotherm_core::units::Seconds::of(latency);
                }
            }
            let mut changed = problem.clone();
            changed.graph = isotherm_core::graph::DeviceGraph::new(file).expect("valid");
            let mut whole = changed.clone();
            whole.limits.stages_max = Some(1);
            match (oracle::best(&changed), oracle::best(&whole)) {
                (Some(all), Some(whole)) => all < whole * (1.0 - 1e-6),
                (all, _) => all.is_some(),
            }
        };
        match split.latency {
            BreakEven::At(at) => {
                assert!(pays(at.value() * 0.99) && !pays(at.value() * 1.01), "seed {seed}: {at}");
                turned += 1;
            }
            BreakEven::Never => {
                assert!(!pays(1e-9), "seed {seed}");
                never += 1;
            }
            BreakEven::Always => assert!(pays(100.0), "seed {seed}"),
        }
    }
    assert!(turned > 2 && never > 2, "{turned} verdicts turn, {never} never pay");
}

#[test]
fn a_backend_without_an_operation_holds_nothing_and_the_answer_names_it() {
    let whole = (0..)
        .map(|seed| problem(seed, recipe(Objective::Tpot)))
        .find(|p| p.limits.pinned.is_empty() && oracle::best(p).is_some())
        .expect("some problem has a plan");
    let lacking = |lacking: &[&str]| {
        let mut changed = whole.clone();
        let mut file = changed.graph.file().clone();
        for device in &mut file.devices {
            let has = isotherm_core::device::OPERATIONS.iter().filter(|operation| !lacking.contains(operation));
            device.operations = has.map(|&operation| operation.to_owned()).collect();
        }
        changed.graph = isotherm_core::graph::DeviceGraph::new(file).expect("a valid graph");
        changed
    };
    assert_eq!(reasons(&lacking(&[])), None, "backends that have all operations forbid nothing");
    let reasons = reasons(&lacking(&["attend"])).expect("no layer without attention");
    let said = reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(said.contains("no operation \"attend\""), "{said}");
}

#[test]
fn a_format_that_is_named_for_experts_is_as_small_as_is_said() {
    let mut named = 0;
    for seed in 0..200 {
        let mut problem = problem(seed, recipe(Objective::Tpot));
        // About as much as eight experts take in the format of the model, which its shape does not say.
        problem.model.layer_bytes.iter_mut().for_each(|bytes| *bytes = Bytes(bytes.0 * 400));
        let mut file = problem.graph.file().clone();
        for memory in file.devices.iter_mut().filter_map(|device| device.memory_bytes.as_mut()) {
            memory.value = Bytes(memory.value.0 * 20);
        }
        problem.graph = isotherm_core::graph::DeviceGraph::new(file).expect("valid");
        for reason in reasons(&problem).unwrap_or_default() {
            let Reason::Nearest(Nearest::Quantisation { percent, format: Some(format), present }) = reason else {
                continue;
            };
            let bits = |format: &str| bits_per_weight(format).expect("a known format");
            assert!(
                bits(format) <= bits(&present) * f64::from(percent) / 100.0,
                "seed {seed}: {format} at {percent} %"
            );
            named += 1;
        }
    }
    assert!(named > 2, "{named} formats named");
}
