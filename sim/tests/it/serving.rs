//! Batches, shares and preemption as the report shows them.

use crate::material::{Case, Costs, UNIT, closed, poisson};
use isotherm_core::conditions::{Sharing, Slo};
use isotherm_core::workload::replay::Replay;
use isotherm_core::workload::{Length, Workload};
use isotherm_sim::policy::PolicyName;
use isotherm_sim::router::RouterName;
use isotherm_sim::{Options, SimulateError, replay, simulate};

#[test]
fn requests_that_arrive_together_share_their_first_batch() {
    let mut case = Case::single(Costs::fixed(4.0), closed(3, 3, 5, 2));
    case.serving.requests_max = 3;
    let trace = case.trace();
    assert_eq!(trace.stages[0].steps, 2);
    assert!(trace.requests.iter().all(|r| (r.ttft().0, r.e2e().0) == (4 * UNIT, 8 * UNIT)));
}

#[test]
fn routes_get_their_share_of_the_requests() {
    let mut case = Case::replicas(&[Costs::fixed(1.0); 2], poisson(50.0, 400, 3, 2));
    case.routes[0].1 = 0.75;
    case.routes[1].1 = 0.25;
    let tokens: Vec<u64> = case.trace().stages.iter().map(|s| s.tokens).collect();
    assert_eq!(tokens, [300 * 4, 100 * 4]);
}

#[test]
fn routes_through_one_stage_take_turns_on_its_device() {
    // Devices 1 and 2 hold the second half; both routes begin on device 0.
    let mut case = Case::chain(&[Costs::fixed(4.0), Costs::fixed(8.0), Costs::fixed(8.0)], 1, closed(2, 2, 1, 1));
    case.layers[2] = case.layers[1];
    case.routes = vec![(vec![0, 1], 0.5), (vec![0, 2], 0.5)];
    case.serving.requests_max = 2;
    let trace = case.trace();
    // Both requests share the link to device 0 and reach it at 7. Then 4 units each, a hop of 4, a step of 8, 6 back.
    let ends = |trace: isotherm_core::trace::Trace| -> Vec<u64> {
        trace.requests.iter().map(|r| r.finished_ns.0 / UNIT).collect()
    };
    assert_eq!(ends(trace), [7 + 4 + 4 + 8 + 6, 7 + 4 + 4 + 4 + 8 + 6]);
    // Served in turn the link brings them at 6 and 7.
    let mut problem = case.problem();
    problem.conditions.sharing = Sharing::Fifo;
    let options = Options { trace: true, ..Options::default() };
    let report = simulate(&case.plan(&problem), &problem, &case.workload, &options).expect("simulates");
    assert_eq!(ends(report.trace.expect("asked for")), [6 + 4 + 4 + 8 + 6, 6 + 4 + 4 + 4 + 8 + 6]);
}

#[test]
fn each_token_passes_each_stage_once_unless_its_request_is_preempted() {
    let load = |prompt, output| Workload {
        prompt_tokens: Length { min: 1, max: prompt },
        output_tokens: Length { min: 1, max: output },
        ..closed(4, 50, 1, 1)
    };
    let mut case = Case::single(Costs::fixed(1.0), load(16, 16));
    case.serving.requests_max = 4;
    let needed = |trace: &isotherm_core::trace::Trace| -> u64 {
        trace.requests.iter().map(|r| u64::from(r.prompt_tokens + r.output_tokens - 1)).sum()
    };
    let trace = case.trace();
    assert_eq!(trace.stages[0].tokens, needed(&trace));
    // The plan gave four requests of 32 tokens their cache, eight blocks in all. Longer ones do not fit together.
    let problem = case.problem();
    let options = Options { trace: true, ..Options::default() };
    let report = simulate(&case.plan(&problem), &problem, &load(16, 112), &options).expect("one fits alone");
    let trace = report.trace.expect("asked for");
    assert_eq!(trace.requests.len(), 50);
    assert!(trace.stages[0].tokens > needed(&trace) + 100, "nothing was recomputed: {}", trace.stages[0].tokens);
    assert!(trace.requests.iter().all(|r| r.arrival_ns < r.first_token_ns && r.first_token_ns <= r.finished_ns));
}

#[test]
fn goodput_counts_the_requests_that_kept_their_times_and_percentiles_are_of_all_runs() {
    // Three clients, one admitted at a time, steps of 10: first tokens after 10, 30, 50, then always 50.
    let case = Case::single(Costs::fixed(10.0), closed(3, 9, 1, 2));
    let mut problem = case.problem();
    let options = Options { seeds: 2, ..Options::default() };
    for (ttft, tpot, kept) in [(30.0, None, 2), (50.0, Some(10.0), 9), (50.0, Some(9.0), 0), (9.0, None, 0)] {
        let after = |units| crate::material::units(units);
        problem.conditions.slo = Slo { ttft: Some(after(ttft)), tpot: tpot.map(after) };
        let report = simulate(&case.plan(&problem), &problem, &case.workload, &options).expect("simulates");
        let goodput = report.goodput.expect("asked for");
        assert_eq!((goodput.kept, goodput.requests, goodput.ci95), (2 * kept, 18, Some(0.0)), "{ttft} {tpot:?}");
        // Nine requests of two steps of 10 units take 180.
        assert!((goodput.requests_per_second - kept as f64 / (180.0 / 512.0)).abs() < 1e-9);
    }
    problem.conditions.slo = Slo::default();
    let report = simulate(&case.plan(&problem), &problem, &case.workload, &options).expect("simulates");
    assert_eq!(report.goodput, None);
    let p90 = report.percentiles["ttft_seconds"][1];
    assert_eq!((p90.percent, p90.value, p90.queries, p90.queries_min), (90.0, 50.0 / 512.0, 18, 64));
    assert!(!p90.is_supported() && p90.interval.is_none() && p90.ci95 == Some(0.0));
    assert_eq!(report.metrics["ttft_seconds"].p50, report.percentiles["ttft_seconds"][0].value);
}

#[test]
fn requests_recorded_for_one_moment_share_their_first_batch() {
    let mut case = Case::single(Costs::fixed(4.0), closed(1, 1, 5, 2));
    case.serving.requests_max = 4;
    case.serving.kv_blocks = Some(64);
    let problem = case.problem();
    let text = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,5,2\n0.5,3,2\n0.5,4,2\n";
    let load = Replay::parse(text).expect("a load");
    for policy in PolicyName::ALL {
        let options = Options { policy, trace: true, ..Options::default() };
        let report = replay(&case.plan(&problem), &problem, &load, &options).expect("simulates");
        let trace = report.trace.expect("asked for");
        assert_eq!(trace.stages[0].steps, 2, "{policy}");
        assert!(trace.requests.iter().all(|r| (r.ttft().0, r.e2e().0) == (4 * UNIT, 8 * UNIT)), "{policy}");
    }
}

#[test]
fn recorded_requests_take_the_routes_in_turn() {
    let mut case = Case::replicas(&[Costs::fixed(1.0); 2], closed(1, 1, 3, 2));
    case.serving.kv_blocks = Some(64);
    let problem = case.problem();
    // The second and fourth are alone on their route, so each of the others waits for nobody either.
    let text = "arrived_at,num_prefill_tokens,num_decode_tokens\n0,3,200\n0.1,3,1\n0.2,3,100\n0.3,3,1\n";
    let load = Replay::parse(text).expect("a load");
    let options = Options { router: RouterName::RoundRobin, trace: true, ..Options::default() };
    let trace = replay(&case.plan(&problem), &problem, &load, &options).expect("simulates").trace.expect("asked for");
    assert_eq!(trace.stages.iter().map(|stage| stage.tokens).collect::<Vec<_>>(), [2 * 3 + 199 + 99, 2 * 3]);
}

#[test]
fn a_load_that_a_policy_can_never_serve_is_an_error_and_not_a_run_without_end() {
    // Three blocks of 16: the second request gives up its own at 17 tokens, and whole prompts of so many do not fit a
    // step of 12.
    let mut case = Case::single(Costs::fixed(1.0), closed(2, 2, 8, 20));
    case.serving.requests_max = 2;
    case.serving.step_tokens_max = 12;
    case.serving.kv_blocks = Some(3);
    let problem = case.problem();
    let options = Options { policy: PolicyName::VidurVllm, ..Options::default() };
    let result = simulate(&case.plan(&problem), &problem, &case.workload, &options);
    assert!(matches!(result, Err(SimulateError::Stuck { waiting: 1, .. })), "{result:?}");
    let options = Options { policy: PolicyName::VidurSarathi, ..options };
    assert!(simulate(&case.plan(&problem), &problem, &case.workload, &options).is_ok());
}
