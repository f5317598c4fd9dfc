//! Cache that moves: swapped to host memory, handed over from prefill to decode.

use super::material::{Case, Costs, UNIT, closed, poisson, times};
use isotherm_core::conditions::Disaggregation;
use isotherm_core::model::Model;
use isotherm_core::objective::evaluate;
use isotherm_core::problem::{Division, PlacementProblem, ProblemParts, Role};
use isotherm_core::record::{Cause, SimulationReport};
use isotherm_core::units::Bytes;
use isotherm_core::workload::Serving;
use isotherm_sim::policy::PolicyName;
use isotherm_sim::{Options, SimulateError, simulate};

/// Two clients whose answers need a block more than there is; the host is where the driver is.
fn swapping(swap: Option<u32>) -> Case {
    let serving = Serving {
        requests_max: 2,
        kv_block_tokens: 16,
        kv_blocks: Some(3),
        kv_swap_blocks: swap,
        ..Serving::default()
    };
    let chain = Case::chain(&[Costs::fixed(10.0)], 1, closed(2, 2, 16, 3));
    Case { serving, adjust: |_, device| device.host = "driver".into(), ..chain }
}

/// Replicas of which the first so many prefill.
fn pools(case: &Case, prefill: usize) -> PlacementProblem {
    let mut problem = case.problem();
    let names = (0..prefill).map(|i| format!("d{i}")).collect();
    problem.conditions.disaggregation = Some(Disaggregation { prefill: names });
    problem
}

fn serve(case: &Case, problem: &PlacementProblem, options: &Options) -> Result<SimulationReport, SimulateError> {
    simulate(&case.plan(problem), problem, &case.workload, options)
}

fn traced() -> Options {
    Options { trace: true, attribution: true, ..Options::default() }
}

fn ends(report: &SimulationReport) -> Vec<(u64, u64)> {
    report.trace.as_ref().expect("asked for").requests.iter().map(times).collect()
}

#[test]
fn a_preempted_request_goes_out_over_the_hosts_link_and_comes_back_by_hand() {
    // A prompt takes 37 units to the device, a step 10, tokens come home in 7 (two) or 6 (one); a block of 1024 bytes
    // takes 261. While it goes out at half the rate two tokens of 4 bytes pass it, which costs each a unit.
    let case = swapping(Some(8));
    let report = case.report(&traced());
    let (out, back) = (54 + 258 + 5, 261);
    let second = out + back + 2 * 22;
    assert_eq!(ends(&report), [(54 * UNIT, 100 * UNIT), (54 * UNIT, second * UNIT)]);
    let moves = report.moves.expect("cache may move");
    assert_eq!((moves.swapped_out, moves.swapped_in, moves.swapped_bytes), (1, 1, Bytes(2 * 1024)));
    let parts = report.attribution.expect("asked for").parts;
    let transfer: f64 = parts.iter().filter(|part| part.cause == Cause::Transfer).map(|part| part.tpot_seconds).sum();
    // Of one of two requests, over its two tokens after the first.
    assert!((transfer - 261.0 / 512.0 / 2.0 / 2.0).abs() < 1e-12, "{transfer}");
    let again = swapping(None).report(&traced());
    assert_eq!((again.moves, ends(&again)[1].1), (None, (98 + 38 + 22) * UNIT));
}

#[test]
fn an_answer_goes_on_where_it_is_decoded_once_its_cache_is_there_by_hand() {
    // Prompt in 21, step 10, token home 6; one block of 1024 bytes at 64 to the unit and 3 of latency; then 22 a token.
    let case = Case { links: true, ..Case::replicas(&[Costs::fixed(10.0); 2], closed(1, 2, 16, 3)) };
    let problem = pools(&case, 1);
    let report = serve(&case, &problem, &traced()).expect("simulates");
    assert_eq!(ends(&report), [(37 * UNIT, (37 + 19 + 44) * UNIT); 2]);
    let moves = report.moves.expect("cache moves");
    assert_eq!((moves.handed_over, moves.handed_over_bytes, moves.swapped_out), (2, Bytes(2 * 1024), 0));
    let of = |device: usize| report.devices[device].utilisation;
    assert!((of(0) - 0.1).abs() < 1e-9 && (of(1) - 0.2).abs() < 1e-9, "{} {}", of(0), of(1));
}

#[test]
fn the_roles_of_a_plan_do_what_those_of_the_scenario_would() {
    let case = Case { links: true, ..Case::replicas(&[Costs::fixed(10.0); 2], closed(1, 2, 16, 3)) };
    let problem = case.problem();
    let mut plan = case.plan(&problem).plan().clone();
    (plan.division, plan.batch) = (Division::Always, Some(1));
    for (i, role) in Role::ALL.into_iter().enumerate() {
        let device = problem.graph.find(&plan.stages[i].devices[0]).expect("a device");
        plan.stages[i].bytes = problem.side(role).stage_bytes(device, plan.stages[i].layers);
        (plan.routes[i].role, plan.routes[i].share) = (Some(role), 1.0);
    }
    let value = evaluate(&plan, &problem).value(problem.objective).expect("well formed");
    plan.objective_value = Some(value);
    plan.certificate.as_mut().expect("there is one").objective = value;
    let plan = plan.check(&problem).unwrap_or_else(|found| panic!("{found:?}"));
    let own = simulate(&plan, &problem, &case.workload, &traced()).expect("simulates");
    let named = serve(&case, &pools(&case, 1), &traced()).expect("simulates");
    assert_eq!(ends(&own), ends(&named));
    assert_eq!(own.moves, named.moves);
}

#[test]
fn a_group_has_room_for_the_requests_that_it_is_planned_for() {
    // Each member holds half of the heads of every block, and the plan states what each holds.
    let serving = Serving { requests_max: 4, kv_block_tokens: 16, ..Serving::default() };
    let replicas = Case::replicas(&[Costs::fixed(10.0); 2], closed(4, 4, 16, 3));
    let adjust = |_: usize, device: &mut isotherm_core::device::Device| device.profiles[0].geometry.kv_heads = 2;
    let case = Case { serving, links: true, adjust, ..replicas };
    let plain = case.problem();
    let mut limits = plain.limits.clone();
    limits.choices.tensor_parallel = vec![1, 2];
    let problem = PlacementProblem::new(ProblemParts {
        name: plain.name.clone(),
        model: Model { kv_heads: 2, ..plain.model.clone() },
        graph: plain.graph.clone(),
        workload: plain.workload.clone(),
        serving: plain.serving,
        objective: plain.objective,
        limits,
        ambient: plain.ambient,
        inputs: plain.inputs.clone(),
    })
    .expect("a well-formed problem");
    let mut plan = case.plan(&problem).plan().clone();
    let members: Vec<_> = problem.graph.device_ids().collect();
    let grouped = problem.grouped(&[members]).expect("alike, on one host, joined");
    let together = grouped.graph.device_ids().next().expect("the group");
    plan.stages.truncate(1);
    plan.routes.truncate(1);
    plan.stages[0].devices = problem.graph.devices().iter().map(|device| device.name.clone()).collect();
    plan.stages[0].bytes = grouped.stage_bytes(together, plan.stages[0].layers);
    (plan.routes[0].share, plan.batch) = (1.0, Some(4));
    let value = evaluate(&plan, &problem).value(problem.objective).expect("well formed");
    plan.objective_value = Some(value);
    plan.certificate.as_mut().expect("there is one").objective = value;
    let plan = plan.check(&problem).unwrap_or_else(|found| panic!("{found:?}"));
    let report = simulate(&plan, &problem, &case.workload, &traced()).expect("simulates");
    let parts = report.attribution.expect("asked for").parts;
    let waits = parts.iter().filter(|part| part.cause == Cause::Admission).map(|part| part.ttft_seconds).sum::<f64>();
    assert!(waits < 1e-9, "{waits} s until there is room");
}

#[test]
fn a_request_of_one_token_never_leaves_the_route_that_prefills() {
    let case = Case { links: true, ..Case::replicas(&[Costs::fixed(10.0); 2], closed(1, 3, 16, 1)) };
    let report = serve(&case, &pools(&case, 1), &traced()).expect("simulates");
    assert_eq!(ends(&report), [(37 * UNIT, 37 * UNIT); 3]);
    assert_eq!(report.moves.expect("could move").handed_over, 0);
}

#[test]
fn pools_of_several_routes_serve_every_request_whole_and_the_same_way_each_time() {
    let serving = Serving { requests_max: 4, step_tokens_max: 64, kv_block_tokens: 16, ..Serving::default() };
    let replicas = Case::replicas(&[Costs { token: 1.0, ..Costs::fixed(4.0) }; 5], poisson(3.0, 300, 40, 12));
    let case = Case { links: true, haste: 64.0, serving, ..replicas };
    let problem = pools(&case, 2);
    let options = Options { seeds: 2, seed: 3, ..traced() };
    let report = serve(&case, &problem, &options).expect("simulates");
    assert_eq!(report.moves.expect("cache moves").handed_over, 600);
    assert_eq!(report.digest, serve(&case, &problem, &options).expect("simulates").digest);
    // Prompts are 40 tokens of five devices' work, answers 11: each pool does only its own.
    let trace = report.trace.expect("asked for");
    let tokens: Vec<u64> = trace.stages.iter().map(|stage| stage.tokens).collect();
    assert_eq!((tokens[..2].iter().sum::<u64>(), tokens[2..].iter().sum::<u64>()), (300 * 40, 300 * 11));
    assert!(tokens.iter().all(|&tokens| tokens > 0), "{tokens:?}");
}

#[test]
fn pools_under_pressure_swap_hand_over_and_lose_nothing() {
    // The decoding device has room for two answers and no more.
    let serving = Serving {
        requests_max: 6,
        step_tokens_max: 64,
        kv_block_tokens: 16,
        kv_blocks: Some(9),
        kv_swap_blocks: Some(7),
        ..Serving::default()
    };
    let replicas = Case::replicas(&[Costs::fixed(2.0); 2], closed(6, 200, 33, 60));
    let case =
        Case { links: true, haste: 1024.0, serving, adjust: |_, device| device.host = "driver".into(), ..replicas };
    let report = serve(&case, &pools(&case, 1), &traced()).expect("simulates");
    let moves = report.moves.expect("cache moves");
    assert_eq!((report.trace.expect("asked for").requests.len(), moves.handed_over), (200, 200));
    assert!(moves.swapped_out > 20 && moves.swapped_in == moves.swapped_out, "{moves:?}");
}

#[test]
fn what_cannot_move_is_refused_in_words() {
    let case = Case { links: true, ..Case::replicas(&[Costs::fixed(10.0); 2], closed(1, 2, 16, 3)) };
    let refused = |problem: &PlacementProblem, policy| {
        serve(&case, problem, &Options { policy, ..Options::default() }).expect_err("refused")
    };
    let vllm = refused(&pools(&case, 1), PolicyName::Vllm);
    assert_eq!(vllm, SimulateError::MovesNothing(PolicyName::Vllm));
    assert_eq!(refused(&pools(&case, 2), PolicyName::Isotherm), SimulateError::EmptyPool("decodes"));
    assert_eq!(refused(&pools(&case, 0), PolicyName::Isotherm), SimulateError::EmptyPool("prefills"));
    let mut unknown = pools(&case, 1);
    unknown.conditions.disaggregation = Some(Disaggregation { prefill: vec!["d7".into()] });
    assert_eq!(refused(&unknown, PolicyName::Isotherm), SimulateError::UnknownPrefill("d7".into()));
    let chain = Case::chain(&[Costs::fixed(1.0); 2], 1, closed(1, 1, 4, 2));
    let mixed = serve(&chain, &pools(&chain, 1), &Options::default()).expect_err("refused");
    assert_eq!(mixed, SimulateError::MixedRoute { one: "d0".into(), other: "d1".into() });
    let lonely = Case { adjust: |_, _| {}, ..swapping(Some(8)) };
    let lonely = serve(&lonely, &lonely.problem(), &Options::default()).expect_err("refused");
    assert!(matches!(lonely, SimulateError::NoHostMemory { .. }), "{lonely}");
    let at_home = |_: usize, device: &mut isotherm_core::device::Device| {
        device.kind = isotherm_core::device::DeviceKind::Cpu;
    };
    let home = Case { adjust: at_home, ..swapping(Some(8)) };
    let home = serve(&home, &home.problem(), &Options::default()).expect_err("refused");
    assert_eq!(home, SimulateError::SwapsToItself("d0".into()));
}
