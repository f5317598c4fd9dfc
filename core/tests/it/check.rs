//! Claims about the checker, with figures worked out by hand.

use crate::build::*;
use isotherm_core::cost::StepShape;
use isotherm_core::figure::Figure;
use isotherm_core::graph::SharedCapacity;
use isotherm_core::ids::Layers;
use isotherm_core::objective::{Bottleneck, evaluate};
use isotherm_core::plan::{BoundKind, Evidence, Plan, Status, Stop};
use isotherm_core::problem::Objective;
use isotherm_core::units::{Bytes, BytesPerSecond};
use std::collections::BTreeMap;

fn close(found: Option<f64>, expected: f64) {
    let found = found.expect("a figure");
    assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{found} is not {expected}");
}

#[test]
fn time_per_output_token_is_steps_and_hops() {
    let problem = problem(two_devices(Objective::Tpot));
    let plan = chain(&problem, &[("fast", 0, 3), ("slow", 3, 4)]);
    // fast: step 1/16 + 3 layers x 1 s + embedding 1/8; slow: step 1/16 + 2 s + head 1/4; hop: 1/2 s + 32 B at 64 B/s.
    let expected = (0.0625 + 3.0 + 0.125) + (0.0625 + 2.0 + 0.25) + (0.5 + 0.5);
    close(plan.objective_value, expected);
    plan.check(&problem).expect("a feasible plan");
}

#[test]
fn time_to_first_token_overlaps_the_chunks() {
    let problem = problem(two_devices(Objective::Ttft));
    let plan = chain(&problem, &[("fast", 0, 3), ("slow", 3, 4)]);
    // Two chunks of 2 tokens. fast: 1/16 + 3 x 2 + 1/8 each. slow: 1/16 + 2 x 2, and the head after the last chunk.
    // Hop of a chunk: 1/2 + 64 B at 64 B/s.
    let (fast, slow, hop) = (6.1875, 4.0625, 1.5);
    let first_done = fast + hop + slow;
    let second_arrives = 2.0 * fast + hop;
    let expected = f64::max(first_done, second_arrives) + slow + 0.25;
    close(plan.objective_value, expected);
    plan.check(&problem).expect("a feasible plan");
}

#[test]
fn throughput_is_bound_by_the_slowest_stage_of_each_route() {
    let mut parts = fork(Objective::Throughput);
    // Enough requests at once that none is missing, in batches of one.
    parts.serving.requests_max = 8;
    let problem = problem(parts);
    let mut plan = plan(&problem, &[("a", 0, 2), ("b", 2, 4), ("c", 2, 4)], &[(&[0, 1], 0.25), (&[0, 2], 0.75)]);
    plan.batch = Some(1);
    state_objective(&mut plan, &problem);
    // Output 3 per request. A request costs b two chunks of 2 tokens and two decodes:
    // 2 x (1/16 + 2 x 4 x 2) + 1/4 (head with the last chunk) + 2 x (1/16 + 2 x 4 + 1/4).
    let b = 2.0 * 16.0625 + 0.25 + 2.0 * 8.3125;
    let c = 2.0 * 8.0625 + 0.25 + 2.0 * 4.3125;
    let expected = f64::min(3.0 / b / 0.25, 3.0 / c / 0.75);
    close(plan.objective_value, expected);
    assert_eq!(evaluate(&plan, &problem).bottleneck, Some(Bottleneck::Stage("c".into())));
    plan.check(&problem).expect("a feasible plan");
}

#[test]
fn a_chain_is_bound_by_the_requests_in_flight() {
    let mut parts = fork(Objective::Throughput);
    parts.serving.requests_max = 2;
    let problem = problem(parts);
    let mut plan = chain(&problem, &[("a", 0, 2), ("b", 2, 4)]);
    let (a, b) = (problem.graph.find("a").expect("known"), problem.graph.find("b").expect("known"));
    let step = |device, start, end, shape: &StepShape| {
        problem.step(device, Layers::new(start, end), shape).expect("measured").value()
    };
    // In batches of one, each request takes two chunks of two tokens and two decodes on both, and crosses four times.
    let shapes = [
        StepShape::prefill(2, 0, false),
        StepShape::prefill(2, 2, true),
        StepShape::decode(1, 5.5),
        StepShape::decode(1, 5.5),
    ];
    let on = |device, start, end| shapes.iter().map(|shape| step(device, start, end, shape)).sum::<f64>();
    // Half of the four steps of a life have a chunk; of two batches that follow one another, three steps in four have
    // one in either.
    let held_up = |device, start, end| {
        let time = |shape: usize| step(device, start, end, &shapes[shape]);
        1.5 * (time(0) + time(1)) + time(2)
    };
    let crossing: f64 =
        shapes.iter().map(|s| problem.hop(a, b, Bytes(32 * u64::from(s.tokens()))).expect("a way").value()).sum();
    let (on_a, on_b) = (on(a, 0, 2), on(b, 2, 4));
    let stay = held_up(a, 0, 2) + crossing + held_up(b, 2, 4);
    plan.batch = Some(1);
    state_objective(&mut plan, &problem);
    close(plan.objective_value, f64::min(2.0 * 3.0 / stay, f64::min(3.0 / on_a, 3.0 / on_b)));
    plan.clone().check(&problem).expect("a feasible plan");
    // In one batch of both, chunks go beside one decode each; nothing overlaps.
    plan.batch = Some(2);
    state_objective(&mut plan, &problem);
    let beside = |cached, last| {
        let mut shape = StepShape::prefill(2, cached, last);
        (shape.decodes, shape.decode_context, shape.sequences) = (1, 5.5, shape.sequences + 1);
        shape
    };
    let shapes = [beside(0, false), beside(2, true)];
    let life = |device, start, end| 2.0 * shapes.iter().map(|shape| step(device, start, end, shape)).sum::<f64>();
    let hop = |shape: &StepShape| problem.hop(a, b, Bytes(32 * u64::from(shape.tokens()))).expect("a way").value();
    let crossing = 2.0 * shapes.iter().map(hop).sum::<f64>();
    close(plan.objective_value, 2.0 * 3.0 / (life(a, 0, 2) + crossing + life(b, 2, 4)));
    assert_eq!(evaluate(&plan, &problem).bottleneck, Some(Bottleneck::InFlight(2)));
    plan.clone().check(&problem).expect("a feasible plan");
    // A plan that states no batch is worth its best one; one that no scheduler would form is refused.
    plan.batch = None;
    let best = [1, 2].map(|batch| evaluate(&Plan { batch: Some(batch), ..plan.clone() }, &problem).throughput);
    assert_eq!(evaluate(&plan, &problem).throughput, best.into_iter().flatten().max_by(|x, y| x.total_cmp(y)));
    plan.batch = Some(3);
    state_objective(&mut plan, &problem);
    assert!(refusal(&plan, &problem).contains("batch is 3; a plan for throughput states one of [2, 1]"));
}

#[test]
fn littles_law_certifies_a_bound_that_the_devices_alone_would_exceed() {
    // One request at a time: no chain is faster than its own work allows.
    let problem = problem(two_devices(Objective::Throughput));
    let mut plan = chain(&problem, &[("fast", 0, 3), ("slow", 3, 4)]);
    let life = problem.life(1);
    let on = |name: &str, start, end| {
        let device = problem.graph.find(name).expect("known");
        problem.residence(device, Layers::new(start, end), &life).expect("measured").value()
    };
    // The quick device cannot hold all four; the bound does not mind that it is one.
    let quickest = (1..4).map(|cut| on("fast", 0, cut) + on("fast", cut, 4)).fold(f64::INFINITY, f64::min);
    let bound = 3.0 / quickest;
    certify(&mut plan, bound, Evidence::ClipBound);
    plan.clone().check(&problem).expect("the quickest chain is no faster");
    let mut parts = two_devices(Objective::Throughput);
    parts.serving.requests_max = 2;
    let more = crate::build::problem(parts);
    let mut plan = chain(&more, &[("fast", 0, 2), ("slow", 2, 4)]);
    let value = plan.objective_value.expect("evaluated");
    certify(&mut plan, value.max(bound), Evidence::ClipBound);
    let refused = refusal(&plan, &more);
    assert!(refused.contains("not proved impossible"), "two requests overlap: {refused}");
}

#[test]
fn flows_that_share_a_capacity_share_its_rate() {
    let mut parts = fork(Objective::Throughput);
    parts.serving.requests_max = 8;
    let mut file = parts.graph.file().clone();
    file.groups.push(SharedCapacity {
        name: "nic".into(),
        bandwidth_bytes_per_second: Figure::declared(BytesPerSecond::of(4.0), "test"),
    });
    for link in &mut file.links {
        link.groups = vec!["nic".into()];
    }
    parts.graph = isotherm_core::graph::DeviceGraph::new(file).expect("valid");
    let problem = problem(parts);
    let plan = plan(&problem, &[("a", 0, 2), ("b", 2, 4), ("c", 2, 4)], &[(&[0, 1], 0.5), (&[0, 2], 0.5)]);
    // Each request moves 32 B x (4 + 3 - 1) tokens for 3 output tokens, over one card of 4 B/s for both routes.
    close(plan.objective_value, 4.0 / (32.0 * 6.0 / 3.0));
    assert_eq!(evaluate(&plan, &problem).bottleneck, Some(Bottleneck::Group("nic".into())));
    plan.check(&problem).expect("a feasible plan");
}

#[test]
fn a_flow_problem_is_bound_by_source_and_sink() {
    let model = model(2);
    let mut flow = [device("a", &model, 1.0, 0), device("b", &model, 1.0, 0)];
    for device in &mut flow {
        device.profiles.clear();
        device.memory_bytes = None;
        device.rates = vec![(1, isotherm_core::units::TokensPerSecond::of(100.0))];
    }
    let links = vec![flow_link("source", "a", 50.0), flow_link("a", "b", 80.0), flow_link("b", "sink", 20.0)];
    let mut file = devices_file(flow.to_vec(), links);
    file.junctions = vec!["source".into(), "sink".into()];
    let problem = problem(parts(model, file, Objective::Throughput));
    let plan = chain(&problem, &[("a", 0, 1), ("b", 1, 2)]);
    close(plan.objective_value, 20.0);
    plan.check(&problem).expect("a feasible plan");
    let refused = refusal(&chain(&problem, &[("b", 0, 1), ("a", 1, 2)]), &problem);
    assert!(refused.contains("from \"source\" to \"b\"") && refused.contains("from \"a\" to \"sink\""), "{refused}");
}

#[test]
fn partial_inference_serves_part_of_a_stage_only_where_allowed() {
    let mut allowed = two_devices(Objective::Tpot);
    allowed.limits.partial = true;
    let allowed = problem(allowed);
    let mut plan = chain(&allowed, &[("fast", 0, 3), ("slow", 0, 4)]);
    plan.routes[0].stages[1].layers = Layers::new(3, 4);
    state_objective(&mut plan, &allowed);
    plan.clone().check(&allowed).expect("the slow device holds all layers and serves the last");
    let exact = problem(two_devices(Objective::Tpot));
    assert!(refusal(&plan, &exact).contains("limits.partial is off"));
}

#[test]
fn all_violations_are_reported_at_once() {
    let problem = problem(two_devices(Objective::Tpot));
    let mut plan = chain(&problem, &[("fast", 0, 3), ("slow", 3, 4)]);
    plan.scenario = "another".into();
    plan.stages[0].bytes.kv = Bytes(1);
    plan.routes[0].share = 0.5;
    plan.objective_value = Some(1.0);
    let found = plan.check(&problem).expect_err("four faults and their consequences");
    assert!(found.len() >= 4, "{found:?}");
}

#[test]
fn a_stage_that_exceeds_its_memory_is_refused_to_the_byte() {
    let mut parts = two_devices(Objective::Tpot);
    let needed = problem(parts.clone()).stage_bytes(isotherm_core::ids::DeviceId(0), Layers::new(0, 3)).total;
    for (memory, fits) in [(needed, true), (Bytes(needed.0 - 1), false)] {
        let mut file = parts.graph.file().clone();
        file.devices[0].memory_bytes = Some(Figure::declared(memory, "test"));
        parts.graph = isotherm_core::graph::DeviceGraph::new(file).expect("valid");
        let problem = problem(parts.clone());
        let plan = chain(&problem, &[("fast", 0, 3), ("slow", 3, 4)]);
        assert_eq!(plan.check(&problem).is_ok(), fits);
    }
}

#[test]
fn stages_of_one_memory_pool_must_fit_it_together() {
    let mut parts = two_devices(Objective::Tpot);
    let mut file = parts.graph.file().clone();
    for device in &mut file.devices {
        device.memory_pool = Some("ram".into());
        device.memory_bytes = Some(Figure::declared(Bytes(8_000), "test"));
    }
    parts.graph = isotherm_core::graph::DeviceGraph::new(file).expect("valid");
    let problem = problem(parts);
    let refused = refusal(&chain(&problem, &[("fast", 0, 3), ("slow", 3, 4)]), &problem);
    assert!(refused.contains("fast, slow share"), "{refused}");
}

#[test]
fn a_pool_is_as_small_as_its_smallest_member_even_for_one_stage() {
    let mut parts = two_devices(Objective::Tpot);
    let mut file = parts.graph.file().clone();
    for device in &mut file.devices {
        device.memory_pool = Some("ram".into());
    }
    parts.graph = isotherm_core::graph::DeviceGraph::new(file).expect("valid");
    let problem = problem(parts);
    let refused = refusal(&chain(&problem, &[("slow", 0, 4)]), &problem);
    assert!(refused.contains("devices slow share 5.86 KiB"), "{refused}");
}

#[test]
fn a_device_whose_memory_is_unknown_holds_nothing() {
    let mut parts = two_devices(Objective::Tpot);
    let mut file = parts.graph.file().clone();
    file.devices[1].memory_bytes = None;
    parts.graph = isotherm_core::graph::DeviceGraph::new(file).expect("valid");
    let problem = problem(parts);
    let refused = refusal(&chain(&problem, &[("fast", 0, 3), ("slow", 3, 4)]), &problem);
    assert!(refused.contains("its memory is unknown"), "{refused}");
}

#[test]
fn pins_bans_and_stage_limits_hold() {
    let build = |change: &dyn Fn(&mut isotherm_core::problem::Limits)| {
        let mut parts = two_devices(Objective::Tpot);
        change(&mut parts.limits);
        problem(parts)
    };
    let both = [("fast", 0, 3), ("slow", 3, 4)];
    let refuses = |problem: &isotherm_core::problem::PlacementProblem, stages: &[(&str, u32, u32)], with: &str| {
        let refused = refusal(&chain(problem, stages), problem);
        assert!(refused.contains(with), "{refused}");
    };
    refuses(&build(&|l| l.pinned = vec!["fast".into()]), &[("slow", 0, 4)], "pinned");
    refuses(&build(&|l| l.banned = vec!["fast".into()]), &both, "banned by the user");
    refuses(&build(&|l| l.stages_max = Some(1)), &both, "at most 1");
    refuses(&build(&|l| l.stages_exact = Some(1)), &both, "exactly 1");
    refuses(&build(&|l| l.stages_exact = Some(2)), &[("slow", 0, 4)], "exactly 2");
    chain(&build(&|l| l.stages_exact = Some(2)), &both).check(&build(&|l| l.stages_exact = Some(2))).expect("feasible");
}

#[test]
fn routes_cover_every_layer_once_and_in_order() {
    let problem = problem(two_devices(Objective::Tpot));
    let good = chain(&problem, &[("fast", 0, 3), ("slow", 3, 4)]);
    let with = |change: &dyn Fn(&mut Plan)| {
        let mut plan = good.clone();
        change(&mut plan);
        refusal(&plan, &problem)
    };
    assert!(with(&|p| p.routes[0].stages.swap(0, 1)).contains("continues at layer 3, where layer 0 is next"));
    assert!(with(&|p| p.routes[0].stages.truncate(1)).contains("continues at layer 4, where layer 3 is next"));
    assert!(with(&|p| p.routes[0].stages[1].stage = 7).contains("stops at stage 7; there are 2"));
    assert!(with(&|p| p.routes[0].stages.push(Stop { stage: 0, layers: Layers::new(0, 3) })).contains("twice"));
    assert!(with(&|p| p.routes[0].stages[0].layers = Layers::new(0, 9)).contains("is served layers 0..9"));
    assert!(with(&|p| p.routes.clear()).contains("no routes"));
    assert!(with(&|p| p.stages[0].layers = Layers::new(3, 0)).contains("holds layers 3..0"));
}

#[test]
fn shares_add_to_one_within_a_trillionth() {
    let problem = problem(fork(Objective::Throughput));
    let stages = [("a", 0, 2), ("b", 2, 4), ("c", 2, 4)];
    for (shares, good) in [
        ((0.3, 0.7), true),
        ((1.0 / 3.0, 2.0 / 3.0), true),
        ((0.3, 0.7 + 1e-11), false),
        ((1.5, -0.5), false),
        ((1.0, 0.0), false),
        ((f64::NAN, 0.5), false),
    ] {
        let plan = plan(&problem, &stages, &[(&[0, 1], shares.0), (&[0, 2], shares.1)]);
        assert_eq!(plan.check(&problem).is_ok(), good, "{shares:?}");
    }
}

#[test]
fn a_latency_plan_has_one_route() {
    let problem = problem(fork(Objective::Tpot));
    let plan = plan(&problem, &[("a", 0, 2), ("b", 2, 4), ("c", 2, 4)], &[(&[0, 1], 0.5), (&[0, 2], 0.5)]);
    assert!(refusal(&plan, &problem).contains("has exactly 1"));
}

#[test]
fn every_device_is_in_a_stage_or_unused_with_a_reason() {
    let problem = problem(fork(Objective::Tpot));
    let good = chain(&problem, &[("a", 0, 2), ("c", 2, 4)]);
    good.clone().check(&problem).expect("feasible");
    let with = |change: &dyn Fn(&mut Plan)| {
        let mut plan = good.clone();
        change(&mut plan);
        refusal(&plan, &problem)
    };
    assert!(with(&|p| p.unused.clear()).contains("listed as unused 0 times"));
    assert!(with(&|p| p.unused[0].reason = "  ".into()).contains("without a reason"));
    assert!(with(&|p| p.unused[0].device = "a".into()).contains("\"a\" is listed as unused 1 times and holds 1"));
    assert!(with(&|p| p.unused[0].device = "z".into()).contains("no device of this problem"));
}

#[test]
fn an_answer_without_a_plan_is_well_formed_but_no_feasible_plan() {
    let problem = problem(two_devices(Objective::Tpot));
    let mut answer = chain(&problem, &[("slow", 0, 4)]);
    answer.status = Status::Infeasible;
    assert!(refusal(&answer, &problem).contains("there must be none"));
    answer.stages.clear();
    answer.routes.clear();
    answer.objective_value = None;
    answer.certificate = None;
    assert!(refusal(&answer, &problem).contains("without a reason"));
    answer.reasons = vec!["no device holds layer 0".into()];
    assert_eq!(answer.violations(&problem), []);
    assert!(refusal(&answer, &problem).contains("no plan to follow"));
}

#[test]
fn enumeration_certifies_the_least_time_and_nothing_below() {
    let problem = problem(two_devices(Objective::Tpot));
    let mut best = chain(&problem, &[("fast", 0, 3), ("slow", 3, 4)]);
    let value = best.objective_value.expect("evaluated");
    certify(&mut best, value, Evidence::Enumeration);
    assert_eq!(best.status, Status::Optimal);
    best.clone().check(&problem).expect("the fast device holds no more than three layers");

    let mut alone = chain(&problem, &[("slow", 0, 4)]);
    let value = alone.objective_value.expect("evaluated");
    certify(&mut alone, value, Evidence::Enumeration);
    let refused = refusal(&alone, &problem);
    assert!(refused.contains("on fast, then") && refused.contains("less than the bound"), "{refused}");
}

#[test]
fn enumeration_knows_limits_and_first_tokens() {
    let mut limited = two_devices(Objective::Ttft);
    limited.limits.stages_max = Some(1);
    let limited = problem(limited);
    let mut alone = chain(&limited, &[("slow", 0, 4)]);
    let value = alone.objective_value.expect("evaluated");
    certify(&mut alone, value, Evidence::Enumeration);
    alone.clone().check(&limited).expect("the only placement of one stage");
    let free = problem(two_devices(Objective::Ttft));
    assert!(refusal(&alone, &free).contains("less than the bound"));
}

/// Every chain of a small problem that the checker calls feasible, by its value.
fn every_chain(problem: &isotherm_core::problem::PlacementProblem) -> Vec<Plan> {
    let names: Vec<&str> = problem.graph.devices().iter().map(|d| d.name.as_str()).collect();
    let mut found = Vec::new();
    let mut open: Vec<Vec<(&str, u32, u32)>> = vec![Vec::new()];
    while let Some(stages) = open.pop() {
        let start = stages.last().map_or(0, |s| s.2);
        if start == problem.layers() {
            let plan = chain(problem, &stages);
            if plan.objective_value.is_some() && plan.clone().check(problem).is_ok() {
                found.push(plan);
            }
            continue;
        }
        for name in names.iter().filter(|name| stages.iter().all(|s| s.0 != **name)) {
            open.extend((start + 1..=problem.layers()).map(|end| [&stages[..], &[(*name, start, end)]].concat()));
        }
    }
    found.sort_by(|a, b| a.objective_value.partial_cmp(&b.objective_value).expect("finite"));
    found
}

#[test]
fn enumeration_accepts_the_least_of_all_chains_and_refuses_any_bound_above_it() {
    let mut draw = Draw(0x0f1e_2d3c_4b5a_6978);
    let (mut certified, mut refused) = (0, 0);
    for _ in 0..250 {
        let problem = crate::peer::draw_problem(&mut draw);
        if problem.objective == Objective::Throughput || problem.may_group() || problem.formats().len() > 1 {
            continue;
        }
        let chains = every_chain(&problem);
        let Some(best) = chains.first() else { continue };
        let least = best.objective_value.expect("evaluated");
        let mut best = best.clone();
        certify(&mut best, least, Evidence::Enumeration);
        best.check(&problem).expect("nothing is quicker");
        certified += 1;
        for mut plan in chains.into_iter().skip(1).filter(|p| p.objective_value > Some(least * (1.0 + 1e-8))) {
            certify(&mut plan, least * (1.0 + 5e-9), Evidence::Enumeration);
            assert!(refusal(&plan, &problem).contains("less than the bound"));
            refused += 1;
        }
    }
    assert!(certified > 50 && refused > 200, "{certified} {refused}");
}

#[test]
fn the_clip_bound_certifies_throughput_and_a_lower_bound_is_refused() {
    let problem = problem(fork(Objective::Throughput));
    let mut plan = plan(&problem, &[("a", 0, 2), ("b", 2, 4), ("c", 2, 4)], &[(&[0, 1], 0.25), (&[0, 2], 0.75)]);
    // All three with as many layers as they like: a generous bound.
    certify(&mut plan, 1.0, Evidence::ClipBound);
    plan.clone().check(&problem).expect("nobody reaches one token per second");
    let value = plan.objective_value.expect("evaluated");
    certify(&mut plan, value, Evidence::ClipBound);
    assert!(refusal(&plan, &problem).contains("not proved impossible"));
}

#[test]
fn worths_certify_throughput_only_where_every_cover_pays() {
    // Two devices, two layers, rates 10 with one layer and 4 with two: the chain of both reaches 10.
    let model = model(2);
    let mut flow = [device("a", &model, 1.0, 0), device("b", &model, 1.0, 0)];
    for device in &mut flow {
        let rate = isotherm_core::units::TokensPerSecond::of;
        device.profiles.clear();
        device.rates = vec![(1, rate(10.0)), (2, rate(4.0))];
    }
    let file = devices_file(flow.to_vec(), vec![flow_link("a", "b", 1e9)]);
    let problem = problem(parts(model, file, Objective::Throughput));
    let mut plan = chain(&problem, &[("a", 0, 1), ("b", 1, 2)]);
    close(plan.objective_value, 10.0);
    let worths = |a: f64, b: f64| Evidence::DeviceWorths { worths: BTreeMap::from([("a".into(), a), ("b".into(), b)]) };
    // Above 10 a layer needs both devices, at least one of them with one layer: min(0.6 + 0.9 / 2, 0.6 / 2 + 0.9).
    certify(&mut plan, 10.0, worths(0.6, 0.9));
    plan.clone().check(&problem).expect("every cover pays 1.05 and the devices are worth 1.5 of 2 layers");
    certify(&mut plan, 10.0, worths(0.5, 0.75));
    let refused = refusal(&plan, &problem);
    assert!(refused.contains("1 x a with 1 layers + 1 x b with 2 layers") && refused.contains("0.875"), "{refused}");
    certify(&mut plan, 10.0, worths(1.0, 1.0));
    assert!(refusal(&plan, &problem).contains("less than 2 would prove"));
    certify(&mut plan, 10.0, worths(-1.0, 1.0));
    assert!(refusal(&plan, &problem).contains("the worth of \"a\" is -1"));
}

#[test]
fn a_certificate_must_be_consistent() {
    let problem = problem(two_devices(Objective::Tpot));
    let mut good = chain(&problem, &[("fast", 0, 3), ("slow", 3, 4)]);
    let value = good.objective_value.expect("evaluated");
    certify(&mut good, value, Evidence::Enumeration);
    let with = |change: &dyn Fn(&mut isotherm_core::plan::Certificate)| {
        let mut plan = good.clone();
        change(plan.certificate.as_mut().expect("certified"));
        refusal(&plan, &problem)
    };
    assert!(with(&|c| c.objective = value * (1.0 + 1e-12)).contains("the certificate is for"));
    assert!(with(&|c| c.bound = Some(value * 1.1)).contains("is better than its bound"));
    assert!(with(&|c| c.gap = Some(0.5)).contains("the stated gap is 0.5"));
    assert!(with(&|c| c.evidence = None).contains("evidence is absent"));
    assert!(with(&|c| c.bound_kind = BoundKind::Solver).contains("evidence is given"));
    assert!(with(&|c| c.evidence = Some(Evidence::ClipBound)).contains("clip_bound proves no bound on tpot"));
    assert!(with(&|c| c.method.clear()).contains("names no method"));
    assert!(with(&|c| c.bound = Some(f64::INFINITY)).contains("finite"));
    let loose = with(&|c| (c.bound, c.gap) = (Some(value * 0.5), Some(0.5)));
    assert!(loose.contains("at most 0.000001 is optimal"), "{loose}");
    let mut bare = good;
    bare.certificate = None;
    assert!(refusal(&bare, &problem).contains("no certificate"));
}

#[test]
fn a_stage_has_the_bytes_and_times_of_the_format_that_it_chooses() {
    let mut parts = two_devices(Objective::Tpot);
    parts.limits.choices.quantisations = vec!["F32".into(), "Q4_0".into()];
    // Of the slow device only the bandwidth is known: its times follow from the bytes.
    let mut file = parts.graph.file().clone();
    file.devices[1].profiles.clear();
    file.devices[1].memory_bandwidth_bytes_per_second = Some(Figure::declared(BytesPerSecond::of(1000.0), "test"));
    parts.graph = isotherm_core::graph::DeviceGraph::new(file).expect("valid");
    let problem = problem(parts);
    let own = chain(&problem, &[("fast", 0, 1), ("slow", 1, 4)]);
    own.clone().check(&problem).expect("feasible in the model's own format");
    let slow = problem.graph.find("slow").expect("known");
    let mut small = own.clone();
    small.stages[1].quantisation = "Q4_0".into();
    let refused = refusal(&small, &problem);
    assert!(refused.contains("weights") && refused.contains("tpot"), "bytes and time are those of F32: {refused}");
    let in_small = problem.in_formats(|_| Some("Q4_0"));
    small.stages[1].bytes = in_small.stage_bytes(slow, Layers::new(1, 4));
    state_objective(&mut small, &problem);
    small.clone().check(&problem).expect("feasible in the small format");
    // 4.5 of 32 bits, layer by layer, rounded up; the head keeps its bytes.
    let held: u64 = problem.model.layer_bytes[1..4].iter().map(|b| (b.0 * 9).div_ceil(64)).sum();
    assert_eq!(small.stages[1].bytes.weights, Bytes(held + problem.model.head_bytes.0));
    let saved: u64 = problem.model.layer_bytes[1..4].iter().map(|b| b.0).sum::<u64>() - held;
    let quicker = own.objective_value.expect("valued") - small.objective_value.expect("valued");
    // Every byte of the layers is read once per token, at 1000 bytes a second.
    assert!((quicker - saved as f64 / 1000.0).abs() < 1e-9 * quicker, "{quicker} s for {saved} B");
    // The quick device was measured in one format: what is not known of the other makes it no candidate.
    let mut other = small.clone();
    other.stages[0].quantisation = "Q4_0".into();
    assert!(refusal(&other, &problem).contains("not known") || refusal(&other, &problem).contains("known"));
    small.stages[1].quantisation = "Q8_0".into();
    assert!(refusal(&small, &problem).contains("F32 or Q4_0"));
}

#[test]
fn devices_that_hold_a_stage_together_divide_its_matrices_and_add_up_twice_a_layer() {
    let model = model(4);
    let mut twins =
        [device("a", &model, 1.0, 6_000), device("b", &model, 1.0, 6_000), device("c", &model, 3.0, 100_000)];
    twins[2].host = "elsewhere".into();
    let mut links = Vec::new();
    for (from, to) in [("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"), ("b", "c")] {
        links.push(link(from, to, 0.25, 64.0));
    }
    let mut model = model;
    (model.heads, model.kv_heads) = (2, 2);
    for device in &mut twins {
        device.profiles[0].geometry = model.geometry();
    }
    let mut parts = parts(model, devices_file(twins.to_vec(), links), Objective::Tpot);
    parts.limits.choices.tensor_parallel = vec![1, 2];
    let problem = problem(parts);
    let (a, b) = (problem.graph.find("a").expect("known"), problem.graph.find("b").expect("known"));
    let together = problem.grouped(&[vec![a, b]]).expect("alike, on one host, joined");
    let one = together.graph.find("a + b").expect("a device of its own");
    // Half the matrices and half the cache on each, the ends and the scratch whole.
    let (half, whole) = (together.stage_bytes(one, Layers::new(0, 4)), problem.stage_bytes(a, Layers::new(0, 4)));
    assert_eq!(half.weights, Bytes(4 * 1000 / 2 + 100 + 100));
    assert_eq!((half.kv.0 * 2, half.activations, half.reserve), (whole.kv.0, whole.activations, whole.reserve));
    // A token: half of each layer's second and two all-reduces over the way of 0.25 s and 64 B/s.
    let all_reduce = 2.0 * 0.25 + 2.0 * 0.5 * 32.0 / 64.0;
    let alone = problem.decode_time(a, Layers::new(0, 4)).expect("measured").value();
    let expected = alone - 4.0 * 0.5 + 4.0 * 2.0 * all_reduce;
    close(together.decode_time(one, Layers::new(0, 4)).map(|t| t.value()), expected);
    // As a plan: both devices in one stage, what it needs on each.
    let mut plan = chain(&problem, &[("a", 0, 4)]);
    plan.stages[0].devices = vec!["a".into(), "b".into()];
    plan.stages[0].bytes = half;
    plan.unused.retain(|unused| unused.device == "c");
    state_objective(&mut plan, &problem);
    close(plan.objective_value, expected);
    plan.clone().check(&problem).expect("both hold it together");
    for (devices, fault) in [(["a", "c"], "\"a\" is in \"host\""), (["a", "a"], "named twice"), (["a", "z"], "z")] {
        let mut wrong = plan.clone();
        wrong.stages[0].devices = devices.map(str::to_owned).to_vec();
        let refused = refusal(&wrong, &problem);
        assert!(refused.contains(fault.trim_matches('"')) || refused.contains("elsewhere"), "{devices:?}: {refused}");
    }
    let mut three = plan.clone();
    three.stages[0].devices.push("c".into());
    assert!(refusal(&three, &problem).contains("allows [1, 2] devices, not 3"));
    let mut twice = plan.clone();
    twice.unused.push(isotherm_core::plan::Unused { device: "b".into(), reason: "idle".into() });
    assert!(refusal(&twice, &problem).contains("device \"b\" is listed as unused 1 times and holds 1 stages"));
    plan.stages[0].bytes.kv = whole.kv;
    assert!(refusal(&plan, &problem).contains("key-value cache"));
}
