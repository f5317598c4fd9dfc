//! Losses where prompts and answers have routes of their own: hand-computed courses, and what holds whatever fails.

use crate::failures::{detect, device, ends, fails, link, tally};
use crate::material::{Case, Costs, UNIT, closed, poisson, units, whole_on};
use isotherm_core::conditions::{Conditions, Disaggregation, Failure, InFlight, Moment, Recovery, Severity};
use isotherm_core::problem::PlacementProblem;
use isotherm_core::record::{Cause, SimulationReport};
use isotherm_core::units::Seconds;
use isotherm_core::workload::{Length, Serving};
use isotherm_sim::{Asked, Options, SimulateError, rehearse, simulate};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Replicas of one device each, of which the first so many prefill. A prompt of 16 takes 21 units to its device, a step
/// 10, a token 6 home: 37. Its block takes 19 from device to device. Then a token takes 5 + 1 + 10 + 6.
fn pools(devices: usize, prefill: usize, failures: Vec<Failure>, recovery: Recovery) -> (Case, PlacementProblem) {
    let case = Case { links: true, ..Case::replicas(&vec![Costs::fixed(10.0); devices], closed(1, 1, 16, 3)) };
    let problem = apart(&case, prefill, failures, recovery);
    (case, problem)
}

fn apart(case: &Case, prefill: usize, failures: Vec<Failure>, recovery: Recovery) -> PlacementProblem {
    let mut problem = case.problem();
    let prefill = (0..prefill).map(|i| format!("d{i}")).collect();
    let disaggregation = Some(Disaggregation { prefill });
    problem.conditions = Conditions { failures, recovery, disaggregation, ..Conditions::default() };
    problem
}

fn run((case, problem): &(Case, PlacementProblem)) -> SimulationReport {
    let options = Options { trace: true, attribution: true, ..Options::default() };
    simulate(&case.plan(problem), problem, &case.workload, &options).expect("simulates")
}

fn lost(name: &str, at: f64) -> Vec<Failure> {
    vec![fails(device(name), Severity::Lost, at, None)]
}

fn first_token(report: &SimulationReport) -> u64 {
    report.trace.as_ref().expect("asked for").requests[0].first_token_ns.0 / UNIT
}

#[test]
fn cache_that_is_under_way_from_a_lost_device_is_computed_again_elsewhere() {
    // Without a loss: cache there at 56, tokens at 78 and 100.
    assert_eq!(ends(&run(&pools(3, 2, Vec::new(), detect(0.0)))), [100.0]);
    // Prompt and token, 17, are a prompt for the other: 22 + 10 + 6, the second token at 83. Two blocks take 35; 22.
    let report = run(&pools(3, 2, lost("d0", 45.0), detect(0.0)));
    assert_eq!((first_token(&report), ends(&report)), (37, vec![83.0 + 35.0 + 22.0]));
    let (tally, moves) = (tally(&report), report.moves.expect("cache moves"));
    assert_eq!((tally.recomputed_requests, tally.recomputed_tokens, tally.failed_requests), (1, 16, 0));
    assert_eq!(moves.handed_over, 2);
    // One of two routes that prefill is left after the loss.
    assert!((tally.availability() - (45.0 + 0.5 * 95.0) / 140.0).abs() < 1e-9, "{}", tally.availability());
}

#[test]
fn a_prefilling_device_that_is_lost_when_its_cache_was_fetched_is_not_missed() {
    let report = run(&pools(2, 1, lost("d0", 57.0), detect(0.0)));
    assert_eq!(ends(&report), [100.0]);
    assert_eq!((tally(&report).recomputed_requests, tally(&report).outages), (0, 0));
}

#[test]
fn cache_under_way_to_a_lost_device_is_fetched_by_another_and_nothing_is_computed_again() {
    let report = run(&pools(3, 1, lost("d1", 45.0), detect(3.0)));
    // From 48 on: 19 and twice 22.
    assert_eq!(ends(&report), [48.0 + 19.0 + 44.0]);
    let tally = tally(&report);
    assert_eq!((tally.recomputed_requests, tally.failed_requests, tally.outages, tally.recoveries), (0, 0, 1, 1));
    // From the loss at 45 to the second token at 89.
    assert_eq!(tally.recovery_seconds_max, Some(units(44.0)));
}

#[test]
fn an_answer_on_a_lost_device_is_prefilled_again_with_the_tokens_it_has() {
    let report = run(&pools(3, 1, lost("d1", 80.0), detect(0.0)));
    // Two tokens by 78. A prompt of 18 brings the third and last: 23 + 10 + 6.
    assert_eq!(ends(&report), [80.0 + 39.0]);
    let tally = tally(&report);
    assert_eq!((tally.recomputed_requests, tally.recomputed_tokens), (1, 17));
}

#[test]
fn a_prefilled_request_waits_with_its_cache_until_the_only_decoding_device_is_back() {
    let failures = vec![fails(device("d1"), Severity::Lost, 45.0, Some(100.0))];
    let report = run(&pools(2, 1, failures, detect(5.0)));
    assert_eq!(ends(&report), [145.0 + 19.0 + 44.0]);
    assert_eq!(tally(&report).recomputed_requests, 0);
    let parts = report.attribution.expect("asked for").parts;
    let recovery: f64 = parts.iter().filter(|p| p.cause == Cause::Recovery).map(|p| p.tpot_seconds).sum();
    assert!(recovery > 0.0, "{parts:?}");
}

#[test]
fn where_nobody_decodes_any_more_each_prefilled_request_is_answered_with_an_error() {
    let (case, mut problem) = pools(2, 1, lost("d1", 45.0), detect(5.0));
    let case = Case { workload: closed(2, 6, 16, 3), ..case };
    problem.workload = case.workload.clone();
    let report = run(&(case, problem));
    assert_eq!((ends(&report).len(), tally(&report).failed_requests), (0, 6));
}

#[test]
fn where_nobody_prefills_any_more_answers_that_were_fetched_still_end() {
    let (case, mut problem) = pools(2, 1, lost("d0", 57.0), detect(5.0));
    let case = Case { workload: closed(1, 3, 16, 3), ..case };
    problem.workload = case.workload.clone();
    let report = run(&(case, problem));
    assert_eq!((ends(&report), tally(&report).failed_requests), (vec![100.0], 2));
}

#[test]
fn cache_takes_a_detour_around_a_lost_link_or_waits_for_one_that_is_back_before_anybody_noticed() {
    // Over the coordinator: two latencies of 5, and 1024 bytes at 4 a unit.
    let cut = |repair| vec![fails(link("d0", "d1"), Severity::Lost, 45.0, repair)];
    assert_eq!(ends(&run(&pools(2, 1, cut(None), detect(0.0)))), [45.0 + 266.0 + 44.0]);
    let mut both = cut(Some(2.0));
    both.push(fails(link("d0", "driver"), Severity::Lost, 45.0, Some(2.0)));
    // Two routes are cut off for two units: it begins again at 47.
    assert_eq!(ends(&run(&pools(2, 1, both, detect(5.0)))), [47.0 + 19.0 + 44.0]);
}

#[test]
fn cache_that_no_way_leads_to_one_device_goes_to_another() {
    // The first decoding device is cut off from the first device's cache for good, once it is on its way.
    let failures = vec![
        fails(link("d0", "d1"), Severity::Lost, 45.0, None),
        fails(link("driver", "d1"), Severity::Lost, 45.0, None),
        fails(link("d2", "d1"), Severity::Lost, 45.0, None),
    ];
    let report = run(&pools(3, 1, failures, detect(4.0)));
    assert_eq!(ends(&report), [49.0 + 19.0 + 44.0]);
    assert_eq!(tally(&report).recomputed_requests, 0);
}

#[test]
fn a_prepared_plan_takes_over_whole_where_no_pool_is_left_to_divide() {
    let (case, problem) = pools(2, 1, lost("d0", 45.0), detect(0.0));
    let (plan, fallback) = (case.plan(&problem), whole_on(&problem, "d1"));
    let options = Options { trace: true, attribution: true, ..Options::default() };
    let report = rehearse(&plan, &fallback, &problem, Asked::Drawn(&case.workload), &options).expect("simulates");
    // A prompt of 17 on the device that is left, and a token there.
    assert_eq!(ends(&report), [45.0 + 38.0 + 22.0]);
    assert_eq!(tally(&report).recomputed_requests, 1);
    assert_eq!(tally(&report).availability(), 1.0);
}

#[test]
fn requests_whose_cache_is_lost_may_be_answered_with_an_error_instead() {
    let recovery = Recovery { in_flight: InFlight::Fail, ..detect(0.0) };
    assert_eq!(tally(&run(&pools(3, 2, lost("d0", 45.0), recovery))).failed_requests, 1);
    // What is still held where it was prefilled is not lost.
    let rescued = run(&pools(3, 1, lost("d1", 45.0), recovery));
    assert_eq!((tally(&rescued).failed_requests, ends(&rescued)), (0, vec![45.0 + 19.0 + 44.0]));
}

/// Five devices, two of which prefill, under pressure of cache; everything may fail.
fn busy(prompt: u32, output: u32, blocks: u32, swap: Option<u32>) -> Case {
    let serving = Serving {
        requests_max: 6,
        step_tokens_max: 64,
        kv_block_tokens: 16,
        kv_blocks: Some(blocks),
        kv_swap_blocks: swap,
        ..Serving::default()
    };
    let costs = Costs { step: 2.1, token: 0.03, cached: 0.001, head: 0.7, embedding: 0.01 };
    let mut case = Case { links: true, haste: 64.0, serving, ..Case::replicas(&[costs; 5], poisson(8.0, 120, 1, 1)) };
    case.workload.prompt_tokens = Length { min: 1, max: prompt };
    case.workload.output_tokens = Length { min: 1, max: output };
    case.adjust = |_, device| device.host = "driver".into();
    case
}

/// Everything fails now and then, for good or for a while.
fn turmoil(between: f64, repair: f64) -> Vec<Failure> {
    let random = |target, severity| Failure {
        target,
        severity,
        moment: Moment::Random { mean_between: Seconds::of(between), mean_repair: Seconds::of(repair) },
    };
    let mut failures: Vec<Failure> = (0..5).map(|i| random(device(&format!("d{i}")), Severity::Lost)).collect();
    for (from, to) in [("d0", "d2"), ("d1", "d3"), ("driver", "d4"), ("d0", "driver"), ("driver", "d1")] {
        failures.push(random(link(from, to), Severity::Lost));
    }
    failures.push(random(device("d3"), Severity::Slowed(0.4)));
    failures
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, rng_seed: RngSeed::Fixed(2), ..ProptestConfig::default() })]
    /// Conservation: each request is answered whole and once, or refused once; its parts add up to its time (which the
    /// simulator asserts of each), Little's law holds, and nothing depends on who looks.
    #[test]
    fn every_request_is_answered_once_or_refused_once_whatever_fails(
        (prompt, output, blocks) in (1_u32..70, 1_u32..40, 8_u32..30),
        (between, repair, detected) in (0.3..20.0_f64, 0.01..3.0_f64, 0.0..0.8_f64),
        swaps in prop::option::of(1_u32..20),
        fail in any::<bool>(),
        seed in 0_u64..1_000,
    ) {
        let in_flight = if fail { InFlight::Fail } else { InFlight::Recompute };
        let recovery = Recovery { detect: Seconds::of(detected), in_flight, attempts_max: 5 };
        let case = busy(prompt, output, blocks, swaps);
        let problem = apart(&case, 2, turmoil(between, repair), recovery);
        let options = Options { trace: true, attribution: true, seed, ..Options::default() };
        let report = simulate(&case.plan(&problem), &problem, &case.workload, &options).expect("simulates");
        let trace = report.trace.as_ref().expect("asked for");
        let refused = tally(&report).failed_requests;
        prop_assert_eq!(trace.requests.len() as u64 + refused, 120);
        prop_assert!(trace.requests.windows(2).all(|pair| pair[0].id < pair[1].id));
        for request in &trace.requests {
            prop_assert!(request.arrival_ns < request.first_token_ns && request.first_token_ns <= request.finished_ns);
            prop_assert_eq!(request.output_tokens > 1, request.first_token_ns < request.finished_ns);
        }
        // Little: the mean number of those that are answered is their rate times their mean time.
        let end = trace.end_ns.0 as f64;
        let mut changes: Vec<(u64, i32)> = Vec::new();
        for request in &trace.requests {
            changes.extend([(request.arrival_ns.0, 1), (request.finished_ns.0, -1)]);
        }
        changes.sort_unstable();
        let (mut number, mut since, mut area) = (0, 0, 0.0);
        for (time, change) in changes {
            area += f64::from(number) * (time - since) as f64;
            (number, since) = (number + change, time);
        }
        prop_assert_eq!(number, 0);
        let times: f64 = trace.requests.iter().map(|request| request.e2e().0 as f64).sum();
        prop_assert!((area / end - times / end).abs() <= 1e-9 * (1.0 + times / end));
        // Devices did at least the tokens of all answers, less the first of each, which prompts yield.
        let done: u64 = trace.stages[2..].iter().map(|stage| stage.tokens).sum();
        let wanted: u64 = trace.requests.iter().map(|request| u64::from(request.output_tokens) - 1).sum();
        prop_assert!(tally(&report).recomputed_requests > 0 || done >= wanted, "{} {}", done, wanted);
        let blind = Options { trace: false, attribution: false, ..options };
        let again = simulate(&case.plan(&problem), &problem, &case.workload, &blind).expect("simulates");
        prop_assert_eq!(again.digest, report.digest);
    }
}

#[test]
fn failures_that_never_come_change_nothing_where_prompts_and_answers_are_apart() {
    let case = busy(40, 20, 30, None);
    let plan = |failures| {
        let problem = apart(&case, 2, failures, detect(1.0));
        let options = Options { trace: true, attribution: true, seeds: 2, ..Options::default() };
        simulate(&case.plan(&problem), &problem, &case.workload, &options)
    };
    let quiet = plan(Vec::new()).expect("simulates");
    let watched = plan(lost("d0", 1e9)).expect("simulates");
    assert_eq!((&quiet.metrics, &quiet.trace), (&watched.metrics, &watched.trace));
    assert_eq!((quiet.moves, tally(&watched).availability()), (watched.moves, 1.0));
}

#[test]
fn a_plan_whose_pools_cannot_exchange_cache_is_still_refused() {
    let (case, mut problem) = pools(2, 1, lost("d0", 45.0), detect(0.0));
    problem.conditions.disaggregation = Some(Disaggregation { prefill: vec!["d0".into(), "d1".into()] });
    let refused = simulate(&case.plan(&problem), &problem, &case.workload, &Options::default()).expect_err("refused");
    assert_eq!(refused, SimulateError::EmptyPool("decodes"));
}
