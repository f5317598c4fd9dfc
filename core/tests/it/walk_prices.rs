//! Evidence `walk_prices`: it proves a bound exactly where trying every placement does, whatever the prices and parts.

use crate::build::*;
use crate::peer::{agreement, draw_plan, draw_problem};
use isotherm_core::cost::StepShape;
use isotherm_core::ids::Layers;
use isotherm_core::plan::{Evidence, PathShares, Plan, Status, WalkPart};
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::workload::Length;

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
        if draw.one_in(2) {
            part.shares = draw_shares(draw, problem);
        }
        parts.push(part);
    }
    parts
}

/// Shares of paths without sense, for a prompt of several chunks.
fn draw_shares(draw: &mut Draw, problem: &PlacementProblem) -> Option<PathShares> {
    let chunks: Vec<u32> = problem.prefill_chunks().map(|chunk| chunk.tokens()).collect();
    if problem.objective != Objective::Ttft || chunks.len() < 2 {
        return None;
    }
    let shorter_last = chunks.first() != chunks.last();
    let inner = problem.layers() as usize - 1;
    let mut rising = |wanted: bool| {
        let mut shares: Vec<u32> = (0..if wanted { inner } else { 0 }).map(|_| draw.below(65_537) as u32).collect();
        shares.sort_unstable();
        shares
    };
    let followed = rising(chunks.len() > 2 || !shorter_last);
    let mut last = rising(shorter_last);
    last.iter_mut().zip(&followed).for_each(|(last, followed)| *last = (*last).min(*followed));
    let usable = |name: &String| problem.usable(problem.graph.find(name).expect("there"));
    let names = problem.graph.devices().iter().map(|device| device.name.clone());
    let profiled = |name: &String| problem.profile(problem.graph.find(name).expect("there")).is_some();
    let once = names.filter(|name| usable(name) && profiled(name) && draw.one_in(3)).collect();
    Some(PathShares { followed, last, once })
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
            match draw.below(5) {
                4 => match &mut part.shares {
                    Some(shares) if draw.one_in(3) => shares.last.push(65_536),
                    Some(shares) if draw.one_in(2) => shares.followed.reverse(),
                    Some(shares) => shares.once.push("nobody".to_owned()),
                    none => *none = Some(PathShares::default()),
                },
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
fn shares_that_no_paths_can_have_are_refused_and_any_others_prove_the_bound() {
    let prompt = |tokens: u32| {
        let mut parts = two_devices(Objective::Ttft);
        parts.workload.prompt_tokens = Length::fixed(tokens);
        problem(parts)
    };
    // Three chunks, the last of them shorter; two, the last shorter; two of one length; one.
    let kinds = [(5, 3, true, true), (3, 2, false, true), (4, 2, true, false), (2, 1, false, false)];
    for (tokens, chunks, turns, ends) in kinds {
        let problem = prompt(tokens);
        assert_eq!(problem.prefill_chunks().count(), chunks);
        let (stages, value) = all_chains(&problem).swap_remove(0);
        let stages: Vec<(&str, u32, u32)> = stages.iter().map(|(name, s, e)| (name.as_str(), *s, *e)).collect();
        let best = chain(&problem, &stages);
        let faults = |followed: &[u32], last: &[u32], once: &[&str]| {
            let once = once.iter().map(|&name| name.to_owned()).collect();
            let shares = Some(PathShares { followed: followed.to_vec(), last: last.to_vec(), once });
            let evidence = Evidence::WalkPrices { parts: vec![WalkPart { shares, ..WalkPart::default() }] };
            bounded(&best, value, evidence).violations(&problem).len()
        };
        let whole = |wanted: bool, shares: [u32; 3]| if wanted { shares.to_vec() } else { Vec::new() };
        for shares in [[0, 0, 0], [100, 20_000, 65_536], [65_536; 3]] {
            let stated = (whole(turns, shares), whole(ends, shares));
            assert_eq!(faults(&stated.0, &stated.1, &["slow"]), usize::from(chunks < 2), "{tokens} tokens: {stated:?}");
        }
        let (followed, last) = (whole(turns, [0, 9, 9]), whole(ends, [0, 0, 9]));
        assert_eq!(faults(&followed, &last, &["nobody"]), 1, "{tokens} tokens");
        assert_eq!(faults(&followed, &last, &["fast"; 65]), 1, "{tokens} tokens");
        assert_eq!(faults(&[0, 9, 9, 9], &last, &[]), 1, "{tokens} tokens");
        assert_eq!(faults(&followed, &[0; 4], &[]), 1, "{tokens} tokens");
        assert_eq!(faults(&whole(turns, [9, 0, 9]), &last, &[]), usize::from(turns || chunks < 2), "{tokens} tokens");
        assert_eq!(faults(&followed, &whole(ends, [0, 0, 65_537]), &[]), usize::from(ends || chunks < 2));
        if turns && ends {
            assert_eq!(faults(&[0, 9, 9], &[0, 9, 10], &[]), 1, "more have gone on than have left the first");
        }
    }
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

/// A prompt in three chunks, the last of them shorter, so that walks have three phases.
fn draw_three_phases(draw: &mut Draw) -> PlacementProblem {
    let model = model(4 + draw.below(2));
    let names = ["a", "b", "c", "d"];
    // Speeds close to one another make several stages long, speeds far apart one.
    let spread = [0.2, 1.0, 3.0][draw.below(3)];
    let of = |draw: &mut Draw, name: &&str| {
        let memory = 2_000 + draw.below(6_000) as u64;
        device(name, &model, 1.0 + draw.between(0.0, spread), memory)
    };
    let devices: Vec<_> = names.iter().map(|name| of(draw, name)).collect();
    let mut links = Vec::new();
    for from in names {
        for to in names.into_iter().filter(|to| *to != from) {
            links.push(link(from, to, draw.between(0.01, 0.5), draw.between(1e2, 1e4)));
        }
    }
    let mut parts = parts(model, devices_file(devices, links), Objective::Ttft);
    parts.workload.prompt_tokens = Length::fixed(5);
    problem(parts)
}

/// Device, first layer and end of each stage.
type Stages = Vec<(String, u32, u32)>;

/// Every chain that holds, with its value, the quickest first.
fn all_chains(problem: &PlacementProblem) -> Vec<(Stages, f64)> {
    let names: Vec<String> = problem.graph.devices().iter().map(|device| device.name.clone()).collect();
    let mut begun: Vec<Stages> = vec![Vec::new()];
    let mut whole = Vec::new();
    while let Some(stages) = begun.pop() {
        let start = stages.last().map_or(0, |last| last.2);
        if start == problem.layers() {
            let borrowed: Vec<(&str, u32, u32)> = stages.iter().map(|(n, s, e)| (n.as_str(), *s, *e)).collect();
            let plan = chain(problem, &borrowed);
            if let Some(value) = plan.objective_value.filter(|_| plan.violations(problem).is_empty()) {
                whole.push((stages, value));
            }
            continue;
        }
        for name in names.iter().filter(|name| stages.iter().all(|stage| stage.0 != **name)) {
            for end in start + 1..=problem.layers() {
                let mut longer = stages.clone();
                longer.push((name.clone(), start, end));
                begun.push(longer);
            }
        }
    }
    whole.sort_by(|a, b| a.1.total_cmp(&b.1));
    whole
}

#[test]
fn no_bound_above_the_quickest_chain_is_proved_wherever_its_long_stages_stand() {
    let (mut draw, mut apart) = (Draw(0x7a11_3fa5_e501_90cd), Draw(0x51a2_e5b3_0c4d_97f6));
    let (mut cases, mut wanted) = (Vec::new(), Vec::new());
    // By how many stages are long (three or more alike), and whether the first and the last stage are.
    let mut seen = std::collections::BTreeMap::<(usize, bool, bool), usize>::new();
    while cases.len() < 300 {
        let problem = draw_three_phases(&mut draw);
        let chunks: Vec<StepShape> = problem.prefill_chunks().collect();
        assert_eq!(chunks.iter().map(StepShape::tokens).collect::<Vec<_>>(), [2, 2, 1]);
        let chains = all_chains(&problem);
        let Some(((best, least), (worst, most))) = chains.first().zip(chains.last()).filter(|(a, b)| b.1 > a.1 * 1.2)
        else {
            continue;
        };
        let followed = |(name, start, end): &(String, u32, u32)| {
            let id = problem.graph.find(name).expect("there");
            let time = |chunk| problem.step(id, Layers::new(*start, *end), chunk).expect("profiled").value();
            chunks[..2].iter().map(time).sum::<f64>()
        };
        let times: Vec<f64> = best.iter().map(followed).collect();
        let longest = times.iter().copied().fold(0.0, f64::max);
        // Just below the longest stage, so that the chain's own part begins there; and now and then a part above.
        let over = longest * [0.7, 0.9, 0.97, 0.999][draw.below(4)];
        let long: Vec<bool> = times.iter().map(|time| *time > over * 0.9).collect();
        *seen.entry((long.iter().filter(|l| **l).count().min(3), long[0], long[long.len() - 1])).or_default() += 1;
        let mut edges = vec![Some(over), None];
        if draw.one_in(3) {
            edges.insert(1, Some(longest * 1.5));
        }
        let prices = |draw: &mut Draw| {
            let priced: Vec<&String> = best.iter().map(|stage| &stage.0).filter(|_| draw.one_in(3)).collect();
            priced.into_iter().map(|name| (name.clone(), draw.between(0.0, 1.0))).collect()
        };
        let part = |edge: Option<f64>| WalkPart {
            stage_seconds_max: edge,
            devices: prices(&mut draw),
            shares: if apart.one_in(2) { draw_shares(&mut apart, &problem) } else { None },
            ..WalkPart::default()
        };
        let evidence = Evidence::WalkPrices { parts: edges.into_iter().map(part).collect() };
        let of = |stages: &[(String, u32, u32)], bound: f64| {
            let stages: Vec<(&str, u32, u32)> = stages.iter().map(|(n, s, e)| (n.as_str(), *s, *e)).collect();
            let plan = bounded(&chain(&problem, &stages), bound, evidence.clone());
            (problem.clone(), serde_json::to_value(plan).expect("serialises"))
        };
        let false_by = [1e-6, 0.01, 0.1][draw.below(3)];
        assert!(least * (1.0 + false_by) < *most);
        cases.extend([of(best, *least), of(worst, least * (1.0 + false_by))]);
        wanted.extend([true, false]);
    }
    for ((problem, plan), right) in cases.iter().zip(wanted) {
        let plan: Plan = serde_json::from_value(plan.clone()).expect("built here");
        assert_eq!(plan.violations(problem).is_empty(), right, "{plan:?}");
    }
    let with = |kind: &dyn Fn(usize, bool, bool) -> bool| {
        seen.iter()
            .filter(|((count, first, last), _)| kind(*count, *first, *last))
            .map(|(_, count)| count)
            .sum::<usize>()
    };
    assert!((1..=3).all(|n| with(&|count, _, _| count == n) > 20), "{seen:?}");
    assert!((1..=3).all(|n| with(&|count, _, last| count == n && !last) > 1), "{seen:?}");
    assert!((1..=2).all(|n| with(&|count, first, _| count == n && !first) > 2), "{seen:?}");
    assert!(with(&|_, first, last| !first && !last) > 10, "{seen:?}");
    if let Some(accepted) = agreement("no_bound_above_the_quickest_chain_is_proved", &cases) {
        assert_eq!(accepted * 2, cases.len());
    }
}
