//! Evidence `walk_prices`: it proves a bound exactly where trying every placement does, whatever the prices and parts.

use crate::build::*;
use crate::peer::{agreement, draw_plan, draw_problem};
use isotherm_core::plan::{Evidence, Plan, Status, WalkPart};
use isotherm_core::problem::{Objective, PlacementProblem};

/// Prices without sense, in parts without sense.
fn draw_parts(draw: &mut Draw, problem: &PlacementProblem) -> Vec<WalkPart> {
    let mut edges: Vec<f64> = (0..draw.below(3)).map(|_| draw.between(0.0, 30.0)).collect();
    edges.sort_by(f64::total_cmp);
    edges.dedup();
    let mut parts = Vec::new();
    for edge in edges.into_iter().map(Some).chain([None]) {
        let mut part = WalkPart { stage_seconds_max: edge, ..WalkPart::default() };
        for device in problem.graph.devices() {
            let pinned = problem.limits.pinned.contains(&device.name);
            let usable = problem.usable(problem.graph.find(&device.name).expect("there"));
            if usable && draw.one_in(2) {
                let least = if pinned { -3.0 } else { 0.0 };
                part.devices.insert(device.name.clone(), draw.between(least, 3.0));
            }
        }
        let shares = |d: &&isotherm_core::device::Device| {
            d.memory_pool.is_some() && problem.usable(problem.graph.find(&d.name).expect("there"))
        };
        if problem.graph.devices().iter().filter(shares).count() > 1 && draw.one_in(2) {
            part.pools.insert("ram".into(), draw.between(0.0, 1e-3));
        }
        parts.push(part);
    }
    parts
}

/// A latency problem with any rule, and a plan for it.
fn draw_case(draw: &mut Draw) -> (PlacementProblem, Plan) {
    loop {
        let mut problem = draw_problem(draw);
        if problem.objective == Objective::Throughput {
            continue;
        }
        problem.limits.stages_exact = draw.one_in(5).then(|| 1 + draw.below(3) as u32);
        let mut plan = draw_plan(draw, &problem);
        state_objective(&mut plan, &problem);
        plan.status = Status::Feasible;
        // Few that are wrong for other reasons.
        if plan.objective_value.is_some() && (draw.one_in(20) || plan.violations(&problem).is_empty()) {
            return (problem, plan);
        }
    }
}

/// The plan with this bound, by this evidence.
fn bounded(plan: &Plan, bound: f64, evidence: Evidence) -> Plan {
    let mut plan = plan.clone();
    certify(&mut plan, bound, evidence);
    plan
}

#[test]
fn prices_prove_exactly_what_trying_every_placement_proves() {
    let mut draw = Draw(0x5eed_cafe_0137_9bdf);
    let (mut proved, mut refused) = (0, 0);
    for _ in 0..800 {
        let (problem, plan) = draw_case(&mut draw);
        let value = plan.objective_value.expect("stated");
        let bound = value / (1.0 + [0.0, 1e-12, 0.01, 0.1, 0.3, 1.0][draw.below(6)]);
        let parts = draw_parts(&mut draw, &problem);
        let tried = bounded(&plan, bound, Evidence::Enumeration).violations(&problem);
        let priced = bounded(&plan, bound, Evidence::WalkPrices { parts: parts.clone() }).violations(&problem);
        assert_eq!(tried.len(), priced.len(), "{parts:?}\n{tried:?}\n{priced:?}");
        *if priced.is_empty() { &mut proved } else { &mut refused } += 1;
    }
    assert!(proved > 100 && refused > 100, "{proved} proved, {refused} refused: too one-sided to mean much");
}

#[test]
fn both_checkers_judge_prices_alike() {
    let mut draw = Draw(0x0f1e_2d3c_4b5a_6978);
    let mut cases = Vec::new();
    for _ in 0..150 {
        let (problem, plan) = draw_case(&mut draw);
        let value = plan.objective_value.expect("stated");
        let bound = value / (1.0 + [0.0, 0.01, 0.1, 0.3, 1.0][draw.below(5)]);
        let mut parts = draw_parts(&mut draw, &problem);
        if draw.one_in(6) {
            let spoiled = draw.below(parts.len());
            let part = &mut parts[spoiled];
            match draw.below(4) {
                0 => part.stage_seconds_max = Some(1.0),
                1 => part.devices.extend([("nobody".to_owned(), 0.5)]),
                2 => part.devices.extend([(problem.graph.devices()[0].name.clone(), -0.5)]),
                _ => parts.truncate(parts.len() - 1),
            }
        }
        let plan = bounded(&plan, bound, Evidence::WalkPrices { parts });
        cases.push((problem, serde_json::to_value(plan).expect("serialises")));
    }
    if let Some(accepted) = agreement("both_checkers_judge_prices_alike", &cases) {
        assert!((15..140).contains(&accepted), "{accepted} of {} accepted: the cases are one-sided", cases.len());
    }
}

#[test]
fn prices_that_prove_nothing_are_refused_by_name() {
    let problem = problem(two_devices(Objective::Tpot));
    let best = chain(&problem, &[("fast", 0, 3), ("slow", 3, 4)]);
    let value = best.objective_value.expect("evaluated");
    let part = |most: Option<f64>, name: &str, price: f64| WalkPart {
        stage_seconds_max: most,
        devices: [(name.to_owned(), price)].into(),
        ..WalkPart::default()
    };
    let prices = |parts: Vec<WalkPart>| Evidence::WalkPrices { parts };
    bounded(&best, value, prices(vec![part(None, "fast", 0.5)])).check(&problem).expect("any price proves it");
    bounded(&best, value, prices(vec![part(Some(2.0), "fast", 0.5), part(None, "slow", 0.0)]))
        .check(&problem)
        .expect("in two parts as well");
    let refused = |parts: Vec<WalkPart>| refusal(&bounded(&best, value, prices(parts)), &problem);
    for (parts, said) in [
        (vec![part(None, "fast", -0.5)], "\"fast\" is -0.5"),
        (vec![part(None, "nobody", 0.5)], "\"nobody\""),
        (vec![part(None, "fast", 1e300)], "\"fast\""),
        (vec![], "rise"),
        (vec![part(Some(2.0), "fast", 0.5)], "rise"),
        (vec![part(None, "fast", 0.5), part(None, "fast", 0.5)], "rise"),
        (vec![part(Some(3.0), "fast", 0.5), part(Some(3.0), "fast", 0.5), part(None, "fast", 0.5)], "rise"),
        (vec![part(Some(-1.0), "fast", 0.5), part(None, "fast", 0.5)], "rise"),
    ] {
        let text = refused(parts);
        assert!(text.contains(said), "{text:?} does not say {said:?}");
    }
    let better = bounded(&best, value * 1.001, prices(vec![part(None, "fast", 0.5)]));
    let text = refusal(&better, &problem);
    assert!(text.contains(" on fast") && text.contains("takes 6.5 s, less than the bound"), "{text}");
    let mut throughput = problem.clone();
    throughput.objective = Objective::Throughput;
    let plan = chain(&throughput, &[("fast", 0, 3), ("slow", 3, 4)]);
    let text = refusal(&bounded(&plan, 1e9, prices(vec![WalkPart::default()])), &throughput);
    assert!(text.contains("walk_prices proves no bound on throughput"), "{text}");
}

#[test]
fn a_problem_too_large_to_search_is_refused_and_not_searched_for_ever() {
    // Forty alike-but-different devices that must each take one of forty layers: no prices rule orders out.
    let model = model(40);
    let names: Vec<String> = (0..40).map(|i| format!("d{i:02}")).collect();
    let devices =
        names.iter().enumerate().map(|(i, name)| device(name, &model, 1.0 + i as f64 * 1e-3, 2_700)).collect();
    let mut links = Vec::new();
    for (i, from) in names.iter().enumerate() {
        for (j, to) in names.iter().enumerate().filter(|(j, _)| *j != i) {
            links.push(link(from, to, 0.5 + ((i * 31 + j * 17) % 23) as f64 * 0.01, 1e6));
        }
    }
    let problem = problem(parts(model, devices_file(devices, links), Objective::Tpot));
    let stages: Vec<(&str, u32, u32)> = names.iter().zip(0..).map(|(name, i)| (name.as_str(), i, i + 1)).collect();
    let plan = chain(&problem, &stages);
    let value = plan.objective_value.expect("evaluated");
    let text = refusal(&bounded(&plan, value, Evidence::WalkPrices { parts: vec![WalkPart::default()] }), &problem);
    assert!(text.contains("too many") || text.contains("less than the bound"), "{text}");
}
