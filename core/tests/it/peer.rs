//! Two checkers that share no code, this one and `benches/peers/check_plan.py`, judge the same plans.

use crate::bridges::{by_a_bridge_of_most, by_a_bridge_to_nowhere, by_bridges};
use crate::build::*;
use crate::cases::{by_holding, by_layers_alone};
use crate::mutation::{mutants, two_sites};
use crate::trunks::by_rates_within;
use isotherm_core::check::ProblemRecord;
use isotherm_core::cost::Resident;
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::figure::Figure;
use isotherm_core::graph::{DeviceGraph, SharedCapacity};
use isotherm_core::objective::evaluate;
use isotherm_core::offload::{Offload, Store};
use isotherm_core::plan::{BatchEvidence, BoundKind, Case, EndWeights, Evidence, PathShares, Plan, Status, WalkPart};
use isotherm_core::power::PowerPoint;
use isotherm_core::problem::{Objective, PlacementProblem, ProblemParts};
use isotherm_core::units::{Bytes, BytesPerSecond, FlopsPerSecond, Seconds, TokensPerSecond, Watts};
use isotherm_core::workload::Length;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// The peer's judgement of each case, in order; none, with the reason printed, where it cannot be run.
fn peer(test: &str, cases: &[(PlacementProblem, Value)]) -> Option<Vec<Value>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/peers/check_plan.py");
    let mut lines = String::new();
    for (problem, plan) in cases {
        let case = json!({"plan": plan, "problem": ProblemRecord::of(problem)});
        writeln!(lines, "{case}").expect("a string grows");
    }
    let file = std::env::temp_dir().join(format!("isotherm-{test}-{}.jsonl", std::process::id()));
    std::fs::write(&file, lines).expect("a temporary file");
    let output = Command::new("python3").arg("-B").arg(script).arg("--batch").arg(&file).output();
    std::fs::remove_file(&file).expect("written above");
    let Ok(output) = output else {
        eprintln!("skipped: {test}: there is no python3 to run the peer checker with");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    Some(text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
}

/// Whether this checker accepts a plan as it is stored, and why not.
fn accepts(problem: &PlacementProblem, plan: &Value) -> Result<(), String> {
    let plan: Plan = serde_json::from_value(plan.clone()).map_err(|e| e.to_string())?;
    plan.check(problem).map(|_| ()).map_err(|found| found.iter().map(|v| format!("{v}; ")).collect())
}

/// Both checkers agree on every case; how many were accepted, or none without the peer.
pub fn agreement(test: &str, cases: &[(PlacementProblem, Value)]) -> Option<usize> {
    let judged = peer(test, cases)?;
    assert_eq!(judged.len(), cases.len());
    let mut accepted = 0;
    for ((problem, plan), theirs) in cases.iter().zip(judged) {
        let ours = accepts(problem, plan);
        let record = || json!({"plan": plan, "problem": ProblemRecord::of(problem)});
        assert_eq!(ours.is_ok(), theirs["ok"] == json!(true), "{ours:?}\n{theirs}\n{}", record());
        accepted += usize::from(ours.is_ok());
    }
    Some(accepted)
}

/// A problem of some devices of every kind, with ways that may be missing.
pub fn draw_problem(draw: &mut Draw) -> PlacementProblem {
    // Two buffers have to pay: that takes many layers.
    let elsewhere = draw.one_in(4);
    let mut model = model(if elsewhere { 4 + draw.below(3) } else { 2 + draw.below(4) });
    let twins = draw.one_in(6);
    if twins && !draw.one_in(5) {
        model.kv_heads = 2;
    }
    let mut formats: Vec<String> = Vec::new();
    if draw.one_in(5) {
        formats.extend(["F32", "Q8_0", "Q4_0"][draw.below(2)..2 + draw.below(2)].iter().map(|f| (*f).to_owned()));
    }
    let objective = [Objective::Throughput, Objective::Tpot, Objective::Ttft][draw.below(3)];
    let rates_only = objective == Objective::Throughput && draw.one_in(4);
    let names = ["a", "b", "c", "d"];
    let count = 2 + draw.below(3);
    let mut devices: Vec<Device> = Vec::new();
    for name in &names[..count] {
        let memory = 2_000 + draw.below(12_000) as u64;
        let mut device = device(name, &model, draw.between(0.01, 3.0), memory);
        if rates_only {
            device.profiles.clear();
            for k in (1..=model.layers()).filter(|k| k % 4 != 3) {
                device.rates.push((k, TokensPerSecond::of(draw.between(0.0, 100.0) / f64::from(k))));
            }
        } else if draw.one_in(3) {
            device.profiles.clear();
            let bandwidth = BytesPerSecond::of(draw.between(1e3, 1e6));
            device.memory_bandwidth_bytes_per_second = Some(Figure::declared(bandwidth, "test"));
            let compute = FlopsPerSecond::of(draw.between(1e3, 1e7));
            device.compute_flops_per_second = (!draw.one_in(3)).then(|| Figure::declared(compute, "test"));
        } else {
            device.profiles =
                vec![profile(&model, draw.between(0.01, 3.0), draw.between(0.0, 0.2), 0.01, draw.between(0.0, 0.1))];
            if draw.one_in(2) {
                let few = draw.between(0.2, 1.0);
                let shares = vec![few, 1.0, draw.between(few, 1.0), 1.0, 1.0, 1.0];
                let knots = vec![draw.between(0.1, 2.0), draw.between(2.1, 4.0), draw.between(4.1, 8.0)];
                let table = Resident::new(draw.between(0.0, 2.0), knots, vec![1, 5], shares);
                device.profiles[0].resident = Some(table.expect("shares that rise"));
            }
            if draw.one_in(3) {
                device.kind = DeviceKind::Cpu;
            }
        }
        for format in formats.iter().filter(|format| **format != model.quantisation) {
            if let Some(mut other) = device.profiles.first().filter(|_| !draw.one_in(8)).cloned() {
                other.geometry.quantisation.clone_from(format);
                other.step_seconds = Seconds::of(draw.between(0.0, 0.2));
                device.profiles.push(other);
            }
        }
        if let (Some(first), true) = (devices.first(), twins && *name == "b") {
            device = Device { name: (*name).into(), ..first.clone() };
        }
        if draw.one_in(12) {
            device.memory_bytes = None;
        }
        if draw.one_in(4) {
            device.memory_pool = Some("ram".into());
        }
        if draw.one_in(10) {
            device.formats = vec!["Q4_0".into()];
        }
        device.offload = (elsewhere && !draw.one_in(4)).then(|| Offload {
            store: if draw.one_in(2) { Store::Disk } else { Store::HostMemory },
            beside: !draw.one_in(4),
            bandwidth_bytes_per_second: Figure::declared(BytesPerSecond::of(draw.between(300.0, 1e5)), "test"),
            room_bytes: draw.one_in(3).then(|| Figure::declared(Bytes(1_000 + draw.below(9_000) as u64), "test")),
        });
        devices.push(device);
    }
    let mut links = Vec::new();
    for from in &names[..count] {
        for to in names[..count].iter().filter(|to| *to != from) {
            if !draw.one_in(8) {
                links.push(if rates_only || draw.one_in(10) {
                    flow_link(from, to, draw.between(1.0, 60.0))
                } else {
                    link(from, to, draw.between(0.0, 0.5), draw.between(20.0, 5e3))
                });
            }
        }
        for (from, to) in [(from, &"hub"), (&"hub", from)] {
            let mut leg = link(from, to, draw.between(0.0, 0.2), draw.between(20.0, 5e3));
            leg.groups = if draw.one_in(2) { vec!["air".into()] } else { Vec::new() };
            links.push(leg);
        }
        if rates_only {
            links.push(flow_link("source", from, draw.between(10.0, 90.0)));
            links.push(flow_link(from, "sink", draw.between(10.0, 90.0)));
        }
    }
    let mut file = devices_file(devices, links);
    file.junctions = vec!["hub".into(), "source".into(), "sink".into()];
    file.coordinator = draw.one_in(2).then(|| "hub".into());
    file.groups = vec![SharedCapacity {
        name: "air".into(),
        bandwidth_bytes_per_second: Figure::declared(BytesPerSecond::of(draw.between(10.0, 900.0)), "test"),
    }];
    let mut parts: ProblemParts = parts(model, file.clone(), objective);
    parts.graph = DeviceGraph::new(file).expect("valid");
    parts.workload.prompt_tokens = Length { min: 1, max: 1 + draw.below(12) as u32 };
    parts.workload.output_tokens = Length { min: 1, max: 1 + draw.below(9) as u32 };
    parts.serving.step_tokens_max = 1 + draw.below(7) as u32;
    parts.serving.requests_max = 1 + draw.below(4) as u32;
    parts.limits.partial = !elsewhere && draw.one_in(3);
    parts.limits.choices.offload = elsewhere;
    if twins {
        parts.limits.choices.tensor_parallel = vec![1, 2];
    }
    parts.limits.choices.quantisations = formats;
    if draw.one_in(8) {
        parts.limits.choices.batches = vec![1 + draw.below(parts.serving.requests_max as usize) as u32];
    }
    parts.limits.stages_max = draw.one_in(5).then(|| 1 + draw.below(3) as u32);
    if draw.one_in(8) {
        parts.limits.pinned = vec![names[draw.below(count)].into()];
    }
    if draw.one_in(8) {
        parts.limits.banned = vec![names[draw.below(count)].into()];
    }
    problem(parts)
}

/// Cuts all layers into at most `devices` intervals, at random.
fn cuts(draw: &mut Draw, layers: u32, devices: usize) -> Vec<(u32, u32)> {
    let mut at: Vec<u32> = (0..draw.below(devices)).map(|_| 1 + draw.below(layers as usize - 1) as u32).collect();
    at.extend([0, layers]);
    at.sort_unstable();
    at.dedup();
    at.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

/// A division or two, and worths that prove each case, or nearly.
fn draw_cases(draw: &mut Draw, problem: &PlacementProblem, layers: f64) -> Evidence {
    let names: Vec<String> = problem.graph.devices().iter().map(|device| device.name.clone()).collect();
    let (some, count) = (names[..1 + draw.below(names.len())].to_vec(), draw.below(2) as u32);
    let proof = |draw: &mut Draw, signs: &[f64]| {
        let worths = names.iter().map(|name| (name.clone(), draw.between(0.4, 1.2) * layers)).collect();
        let value = |draw: &mut Draw, sign: &f64| sign * [0.0, 0.1, 0.4][draw.below(3)];
        Case::Proof { worths, counted: signs.iter().map(|sign| value(draw, sign)).collect() }
    };
    let holding = Case::Holding { devices: some.clone(), layers_max: 1 + draw.below(2) as u32, count };
    let alone = Case::Alone { devices: some, count };
    let cases = match draw.below(3) {
        0 => vec![holding, proof(draw, &[1.0]), proof(draw, &[-1.0])],
        1 => vec![alone, proof(draw, &[1.0]), proof(draw, &[-1.0])],
        _ => vec![alone, holding, proof(draw, &[1.0, 1.0]), proof(draw, &[1.0, -1.0]), proof(draw, &[-1.0])],
    };
    Evidence::Cases { ends: EndWeights::default(), cases, crossing: None }
}

/// A plan that may or may not hold: a chain, or two routes that part and meet, with a certificate of some kind.
pub fn draw_plan(draw: &mut Draw, problem: &PlacementProblem) -> Plan {
    let mut names: Vec<String> = problem.graph.devices().iter().map(|d| d.name.clone()).collect();
    for i in (1..names.len()).rev() {
        names.swap(i, draw.below(i + 1));
    }
    let intervals = cuts(draw, problem.layers(), names.len());
    let mut stages: Vec<(&str, u32, u32)> =
        intervals.iter().zip(&names).map(|(&(start, end), name)| (name.as_str(), start, end)).collect();
    let straight: Vec<u32> = (0..stages.len() as u32).collect();
    let mut routes = vec![(straight.clone(), 1.0)];
    if problem.objective == Objective::Throughput && stages.len() < names.len() && draw.one_in(2) {
        let twin = draw.below(stages.len());
        let spare = names[stages.len()].as_str();
        stages.push((spare, stages[twin].1, stages[twin].2));
        let mut other = straight;
        other[twin] = stages.len() as u32 - 1;
        let share = draw.between(0.05, 0.95);
        routes = vec![(routes[0].0.clone(), share), (other, 1.0 - share)];
    }
    // Twins may hold a stage together.
    let first = |stages: &[(&str, u32, u32)], name: &str| stages.iter().position(|stage| stage.0 == name);
    let together = problem.may_group() && draw.one_in(2);
    let held = if together { first(&stages, "a").filter(|_| first(&stages, "b").is_none()) } else { None };
    let routes: Vec<(&[u32], f64)> = routes.iter().map(|(route, share)| (route.as_slice(), *share)).collect();
    let mut plan = plan(problem, &stages, &routes);
    if let Some(held) = held {
        plan.stages[held].devices.push("b".into());
        plan.unused.retain(|unused| unused.device != "b");
    }
    if !problem.limits.choices.is_none() {
        for stage in &mut plan.stages {
            let formats = problem.formats();
            let format = if draw.one_in(12) { "Q2_K" } else { &formats[draw.below(formats.len())] };
            stage.quantisation = format.to_owned();
            if formats.contains(&stage.quantisation) {
                let all = problem.in_formats(|_| Some(format));
                let members: Vec<_> = stage.devices.iter().filter_map(|name| problem.graph.find(name)).collect();
                let grouped = all.grouped(std::slice::from_ref(&members)).filter(|_| members.len() > 1);
                stage.bytes = match &grouped {
                    None => all.stage_bytes(members[0], stage.layers),
                    Some(grouped) => grouped.stage_bytes(grouped.graph.find("a + b").expect("named so"), stage.layers),
                };
            }
        }
        state_objective(&mut plan, problem);
    }
    if draw.one_in(2) && (problem.objective == Objective::Throughput || draw.one_in(6)) {
        let known = problem.batches();
        plan.batch = Some(if draw.one_in(8) { 5 } else { known[draw.below(known.len())] });
        state_objective(&mut plan, problem);
    }
    if plan.objective_value.is_none() {
        plan.objective_value = Some(1.0);
        plan.certificate.as_mut().expect("given").objective = 1.0;
    }
    let value = plan.objective_value.expect("given");
    let worths = || problem.graph.devices().iter().map(|d| d.name.clone());
    let slack = [0.0, 1e-12, 0.01, 0.3, 1.0, 4.0][draw.below(6)];
    let throughput = problem.objective == Objective::Throughput;
    let bound = if throughput { value * (1.0 + slack) } else { value / (1.0 + slack) };
    match draw.below(4) {
        0 => {}
        1 if throughput => certify(&mut plan, bound, Evidence::ClipBound),
        2 if throughput => {
            let layers = f64::from(problem.layers()) / problem.graph.devices().len() as f64;
            let worths = worths().map(|name| (name, draw.between(0.3, 1.1) * layers)).collect();
            let evidence = if draw.one_in(2) {
                Evidence::DeviceWorths { worths }
            } else {
                let ends = EndWeights { first: draw.below(3) as f64 / 2.0, last: draw.below(3) as f64 / 2.0 };
                let mut sites = vec![Vec::new(); 1 + draw.below(3)];
                for device in problem.graph.devices() {
                    let site = draw.below(sites.len());
                    sites[site].push(device.name.clone());
                }
                if draw.one_in(2) {
                    sites.clear();
                }
                Evidence::WeighedWorths { worths, ends, sites }
            };
            let evidence = match evidence {
                Evidence::DeviceWorths { worths } if draw.one_in(2) => Evidence::LayerByLayer { worths },
                evidence => evidence,
            };
            let evidence = if draw.one_in(8) { draw_cases(draw, problem, layers) } else { evidence };
            let evidence = if draw.one_in(3) {
                // At the whole of this price, requests in flight pay for all layers by themselves.
                let whole = f64::from(problem.layers()) * bound / problem.tokens_in_flight();
                let ends = EndWeights { first: draw.below(2) as f64, last: draw.below(2) as f64 };
                Evidence::InFlight { price: draw.between(-0.05, 1.0) * whole, ends }
            } else {
                evidence
            };
            let evidence = if draw.one_in(4) {
                // At a price of 1, what requests in flight pay.
                let each = problem.tokens_in_flight() / problem.graph.devices().len() as f64;
                let names = problem.graph.devices().iter().map(|device| device.name.clone());
                let worths = names.map(|name| (name, draw.between(-0.01, 1.0) * each)).collect();
                Evidence::Routes { price: draw.between(-0.05, 1.0), worths }
            } else {
                evidence
            };
            let of_batch = |batch| BatchEvidence { batch, evidence: evidence.clone() };
            let batches: Vec<BatchEvidence> = problem.batches().into_iter().map(of_batch).collect();
            let evidence = if draw.one_in(3) { Evidence::Batches { batches } } else { evidence };
            certify(&mut plan, bound, evidence);
        }
        1 | 2 => certify(&mut plan, bound, Evidence::Enumeration),
        _ => {
            certify(&mut plan, bound, Evidence::ClipBound);
            let certificate = plan.certificate.as_mut().expect("given");
            (certificate.bound_kind, certificate.evidence) = (BoundKind::Solver, None);
            plan.status = Status::Feasible;
        }
    }
    plan
}

#[test]
fn both_checkers_judge_random_plans_alike() {
    let mut draw = Draw(0xda3e_39cb_94b9_5bdb);
    let mut cases = Vec::new();
    for _ in 0..400 {
        let problem = draw_problem(&mut draw);
        for _ in 0..2 {
            let plan = draw_plan(&mut draw, &problem);
            cases.push((problem.clone(), serde_json::to_value(plan).expect("serialises")));
        }
    }
    if let Some(accepted) = agreement("both_checkers_judge_random_plans_alike", &cases) {
        assert!((60..700).contains(&accepted), "{accepted} of {} accepted: the cases are one-sided", cases.len());
    }
}

#[test]
fn both_checkers_compute_the_same_figures() {
    let mut draw = Draw(0x0123_4567_89ab_cdef);
    let mut cases = Vec::new();
    for _ in 0..300 {
        let problem = draw_problem(&mut draw);
        let plan = draw_plan(&mut draw, &problem);
        cases.push((problem, serde_json::to_value(plan).expect("serialises")));
    }
    let Some(judged) = peer("both_checkers_compute_the_same_figures", &cases) else { return };
    let mut compared = 0;
    for ((problem, plan), theirs) in cases.iter().zip(judged) {
        let plan: Plan = serde_json::from_value(plan.clone()).expect("built here");
        let ours = evaluate(&plan, problem).value(problem.objective);
        if let (Some(ours), Some(theirs)) = (ours, theirs["objective"].as_f64()) {
            assert!((ours - theirs).abs() <= 1e-12 * ours.abs(), "{ours} and {theirs}");
            compared += 1;
        }
    }
    assert!(compared > 40, "{compared} of {}", cases.len());
}

#[test]
fn both_checkers_find_stages_as_slow_under_power_caps() {
    let mut draw = Draw(0x90_1357);
    let mut cases = Vec::new();
    for _ in 0..600 {
        let mut problem = draw_problem(&mut draw);
        let mut file = problem.graph.file().clone();
        for device in &mut file.devices {
            if draw.one_in(8) {
                continue;
            }
            let (idle, busy) = (draw.between(0.0, 40.0), draw.between(80.0, 300.0));
            device.idle_watts = Some(Figure::declared(Watts::of(idle), "test"));
            device.busy_watts = Some(Figure::declared(Watts::of(busy), "test"));
            let mut at = (1.0, 1.0);
            for _ in 0..draw.below(4) {
                at = (at.0 * draw.between(0.5, 0.95), at.1 * draw.between(0.5, 0.95));
                let watts = Figure::declared(Watts::of(idle + at.1 * (busy - idle)), "test");
                device.power_points.push(PowerPoint { speed: at.0, watts });
            }
        }
        problem.graph = DeviceGraph::new(file).expect("valid");
        let mut plan = draw_plan(&mut draw, &problem);
        for stage in &mut plan.stages {
            if stage.devices.len() == 1 && !draw.one_in(5) {
                stage.power_cap_watts = Some(Watts::of(draw.between(1.0, 320.0)));
            }
        }
        cases.push((problem, serde_json::to_value(plan).expect("serialises")));
    }
    let Some(judged) = peer("both_checkers_find_stages_as_slow_under_power_caps", &cases) else { return };
    let (mut compared, mut slower) = (0, 0);
    for ((problem, plan), theirs) in cases.iter().zip(judged) {
        let mut plan: Plan = serde_json::from_value(plan.clone()).expect("built here");
        let ours = evaluate(&plan, problem).value(problem.objective);
        if let (Some(ours), Some(theirs)) = (ours, theirs["objective"].as_f64()) {
            assert!((ours - theirs).abs() <= 1e-9 * ours.abs(), "{ours} {theirs}");
            compared += 1;
            plan.stages.iter_mut().for_each(|stage| stage.power_cap_watts = None);
            slower += usize::from(evaluate(&plan, problem).value(problem.objective) != Some(ours));
        }
    }
    assert!(compared > 40 && slower > 25, "{compared} {slower}");
}

#[test]
fn both_checkers_refuse_the_same_mutants() {
    let mut cases = Vec::new();
    let mut mutate = |problem: &PlacementProblem, plan: &Plan, step: usize| {
        let mut changed = Vec::new();
        mutants(&serde_json::to_value(plan).expect("serialises"), "", &|v| v, &mut changed);
        cases.extend(changed.into_iter().step_by(step).map(|(_, value)| (problem.clone(), value)));
    };
    let latency = problem(two_devices(Objective::Tpot));
    let mut best = chain(&latency, &[("fast", 0, 3), ("slow", 3, 4)]);
    let value = best.objective_value.expect("evaluated");
    certify(&mut best, value, Evidence::Enumeration);
    mutate(&latency, &best, 1);
    // Three chunks, the last of them shorter, in two parts.
    let mut prompt = two_devices(Objective::Ttft);
    prompt.workload.prompt_tokens = Length::fixed(5);
    let prompt = problem(prompt);
    let mut first = chain(&prompt, &[("fast", 0, 3), ("slow", 3, 4)]);
    let value = first.objective_value.expect("evaluated");
    let part = |most: Option<f64>, price: f64| WalkPart {
        stage_seconds_max: most,
        devices: [("fast".to_owned(), price)].into(),
        ..WalkPart::default()
    };
    certify(&mut first, value, Evidence::WalkPrices { parts: vec![part(Some(12.0), 0.25), part(None, 0.5)] });
    assert!(first.violations(&prompt).is_empty(), "{:?}", first.violations(&prompt));
    mutate(&prompt, &first, 1);
    let mut mean = part(None, 0.5);
    let (followed, last, once) = (vec![9_000, 30_000, 60_000], vec![0, 20_000, 50_000], vec!["slow".to_owned()]);
    mean.shares = Some(PathShares { followed, last, once });
    certify(&mut first, value, Evidence::WalkPrices { parts: vec![mean] });
    assert!(first.violations(&prompt).is_empty(), "{:?}", first.violations(&prompt));
    mutate(&prompt, &first, 1);
    let flow = problem(fork(Objective::Throughput));
    let mut forked = plan(&flow, &[("a", 0, 2), ("b", 2, 4), ("c", 2, 4)], &[(&[0, 1], 0.25), (&[0, 2], 0.75)]);
    certify(&mut forked, 0.75, Evidence::ClipBound);
    mutate(&flow, &forked, 2);
    let (apart, crossed) = two_sites();
    mutate(&apart, &crossed, 2);
    let bridged = [by_bridges(), by_a_bridge_to_nowhere(), by_a_bridge_of_most()];
    for (problem, plan) in [by_holding(), by_layers_alone(), by_rates_within()].into_iter().chain(bridged) {
        mutate(&problem, &plan, 2);
    }
    if let Some(accepted) = agreement("both_checkers_refuse_the_same_mutants", &cases) {
        assert!(accepted * 8 < cases.len(), "{accepted} of {} mutants accepted", cases.len());
        assert!(cases.len() > 300, "{}", cases.len());
    }
}

#[test]
fn a_pool_and_a_reserve_are_counted_by_both() {
    let mut parts = two_devices(Objective::Tpot);
    let mut file = parts.graph.file().clone();
    for device in &mut file.devices {
        device.memory_pool = Some("ram".into());
        device.memory_bytes = Some(Figure::declared(Bytes(8_060), "test"));
    }
    parts.graph = DeviceGraph::new(file).expect("valid");
    let mut cases = Vec::new();
    for reserve in [10, 11] {
        parts.limits.reserve_bytes = Bytes(reserve);
        let problem = problem(parts.clone());
        let plan = chain(&problem, &[("fast", 0, 3), ("slow", 3, 4)]);
        cases.push((problem, serde_json::to_value(plan).expect("serialises")));
    }
    // 5414 + 2646 bytes with a reserve of 10 on each.
    if let Some(accepted) = agreement("a_pool_and_a_reserve_are_counted_by_both", &cases) {
        assert_eq!(accepted, 1);
    }
}

#[test]
fn the_certified_optimum_of_the_shipped_flow_scenario_is_accepted_by_both() {
    let file = crate::scenario::folder().join("reference/helix-single24.toml");
    let scenario = crate::scenario::parse(&std::fs::read_to_string(file).expect("readable")).expect("shipped");
    let problem = scenario.problem(None, None).expect("a problem");
    let mut stages: Vec<(&str, u32, u32)> = Vec::new();
    for device in problem.graph.devices() {
        let start = stages.last().map_or(0, |s| s.2);
        let layers = match device.class.as_str() {
            "A100" => 8,
            "L4" => 3,
            _ => 2,
        };
        stages.push((&device.name, start, start + layers));
    }
    let mut best = chain(&problem, &stages);
    let value = best.objective_value.expect("evaluated");
    certify(&mut best, value, Evidence::ClipBound);
    let mut worse = best.clone();
    certify(&mut worse, value * (1.0 - 1e-8), Evidence::ClipBound);
    let cases = [best, worse].map(|plan| (problem.clone(), serde_json::to_value(plan).expect("serialises")));
    if let Some(accepted) = agreement("the_certified_optimum_of_the_shipped_flow_scenario", &cases) {
        assert_eq!(accepted, 1);
    }
}
