//! Losses and repairs: hand-computed courses, and what holds whatever fails.

use crate::material::{Case, Costs, UNIT, closed, poisson, units};
use isotherm_core::conditions::{Between, Conditions, Failure, InFlight, Moment, Recovery, Severity, Target};
use isotherm_core::record::{Reliability, SimulationReport};
use isotherm_core::units::Seconds;
use isotherm_core::workload::Length;
use isotherm_core::workload::replay::Replay;
use isotherm_sim::policy::PolicyName;
use isotherm_sim::{Asked, Options, SimulateError, rehearse, simulate};

pub fn fails(target: Target, severity: Severity, at: f64, repair_after: Option<f64>) -> Failure {
    Failure { target, severity, moment: Moment::At { at: units(at), repair_after: repair_after.map(units) } }
}

pub fn device(name: &str) -> Target {
    Target::Device(name.into())
}

pub fn link(from: &str, to: &str) -> Target {
    Target::Link(Between { from: from.into(), to: to.into() })
}

fn run(case: &Case, failures: Vec<Failure>, recovery: Recovery) -> SimulationReport {
    run_with(case, Conditions { failures, recovery, ..Conditions::default() }, 1)
}

fn run_with(case: &Case, conditions: Conditions, seeds: u32) -> SimulationReport {
    let mut problem = case.problem();
    problem.conditions = conditions;
    let options = Options { trace: true, attribution: true, seeds, ..Options::default() };
    simulate(&case.plan(&problem), &problem, &case.workload, &options).expect("simulates")
}

pub fn detect(after: f64) -> Recovery {
    Recovery { detect: units(after), ..Recovery::default() }
}

/// Ends of the answered requests, in units.
pub fn ends(report: &SimulationReport) -> Vec<f64> {
    let trace = report.trace.as_ref().expect("asked for");
    trace.requests.iter().map(|r| to_the_millionth(r.finished_ns.0 as f64 / UNIT as f64)).collect()
}

pub fn tally(report: &SimulationReport) -> Reliability {
    report.reliability.expect("something may fail")
}

fn in_units(time: Seconds) -> f64 {
    to_the_millionth(time.value() * 512.0)
}

/// Half a unit is no whole number of nanoseconds.
fn to_the_millionth(count: f64) -> f64 {
    (count * 1e6).round() / 1e6
}

#[test]
fn a_lost_device_loses_its_batch_and_its_requests_begin_again_when_it_is_back() {
    let case = Case::single(Costs::fixed(10.0), closed(1, 3, 1, 1));
    let report = run(&case, vec![fails(device("d0"), Severity::Lost, 14.0, Some(20.0))], detect(0.0));
    // The second request begins at 10, is lost at 14, begins again at 34.
    assert_eq!(ends(&report), [10.0, 44.0, 54.0]);
    let tally = tally(&report);
    assert_eq!((tally.incidents, tally.failed_requests, tally.recomputed_requests), (1, 0, 1));
    assert_eq!((in_units(tally.serving_seconds), in_units(tally.total_seconds)), (34.0, 54.0));
    assert_eq!(tally.recovery_seconds_max.map(in_units), Some(30.0));
    assert!((tally.availability() - 34.0 / 54.0).abs() < 1e-12);
}

#[test]
fn nothing_happens_on_a_lost_route_until_the_loss_is_detected() {
    let case = Case::single(Costs::fixed(10.0), closed(1, 3, 1, 1));
    let report = run(&case, vec![fails(device("d0"), Severity::Lost, 14.0, Some(20.0))], detect(30.0));
    assert_eq!(ends(&report), [10.0, 54.0, 64.0]);
    assert_eq!(in_units(tally(&report).serving_seconds), 34.0);
}

#[test]
fn requests_of_a_lost_route_go_on_where_another_works_from_the_tokens_they_have() {
    let case = Case::replicas(&[Costs::fixed(10.0); 2], closed(2, 2, 1, 3));
    let report = run(&case, vec![fails(device("d0"), Severity::Lost, 15.0, None)], detect(0.0));
    // Request 0 has one token at 15. It waits until request 1 is done at 30; its prompt and token are one step, which
    // brings its second token at 40; the third comes at 50.
    assert_eq!(ends(&report), [50.0, 30.0]);
    let trace = report.trace.as_ref().expect("asked for");
    assert_eq!(trace.requests[0].first_token_ns.0, 10 * UNIT);
    // Two steps of two tokens and one: the lost one does not count.
    assert_eq!((trace.stages[0].steps, trace.stages[1].tokens), (1, 3 + 2 + 1));
    let tally = tally(&report);
    assert_eq!((tally.recomputed_requests, tally.recomputed_tokens), (1, 1));
    assert_eq!(tally.recovery_seconds_max.map(in_units), Some(25.0));
    assert!((tally.availability() - (15.0 + 35.0 * 0.5) / 50.0).abs() < 1e-12);
    assert_eq!(in_units(tally.serving_seconds), 50.0);
}

#[test]
fn requests_in_flight_may_be_answered_with_an_error_instead() {
    let case = Case::replicas(&[Costs::fixed(10.0); 2], closed(2, 4, 1, 3));
    let recovery = Recovery { in_flight: InFlight::Fail, ..detect(0.0) };
    let report = run(&case, vec![fails(device("d0"), Severity::Lost, 15.0, None)], recovery);
    // Request 0 fails at 15; its client sends request 2 at once, which waits for request 1; request 3 follows.
    assert_eq!(ends(&report), [30.0, 60.0, 90.0]);
    let tally = tally(&report);
    assert_eq!((tally.failed_requests, tally.recomputed_requests), (1, 0));
}

#[test]
fn where_nothing_is_left_every_request_is_answered_with_an_error() {
    let case = Case::single(Costs::fixed(10.0), closed(1, 3, 1, 1));
    let report = run(&case, vec![fails(device("d0"), Severity::Lost, 14.0, None)], detect(2.0));
    assert_eq!(ends(&report), [10.0]);
    let tally = tally(&report);
    assert_eq!((tally.failed_requests, in_units(tally.total_seconds)), (2, 16.0));
    // Nobody got on: that is no recovery in no time.
    assert_eq!((tally.outages, tally.recoveries, tally.recovery_seconds_max), (1, 0, None));
    // One answer of one token, in the 16 units until the last request was refused.
    let rate = report.metrics["tokens_per_second"].mean;
    assert!((rate - 512.0 / 16.0).abs() < 1e-9, "{rate}");
}

#[test]
fn a_request_is_computed_again_only_so_often() {
    let case = Case::single(Costs::fixed(10.0), closed(1, 1, 1, 1));
    let failures = (0..5).map(|i| fails(device("d0"), Severity::Lost, 5.0 + 10.0 * f64::from(i), Some(1.0))).collect();
    let report = run(&case, failures, Recovery { attempts_max: 3, ..detect(0.0) });
    assert_eq!(ends(&report), Vec::<f64>::new());
    let tally = tally(&report);
    assert_eq!((tally.failed_requests, tally.recomputed_requests, in_units(tally.total_seconds)), (1, 3, 35.0));
}

#[test]
fn a_lost_link_costs_only_the_detour_while_another_way_leads_around() {
    let case = Case::chain(&[Costs::fixed(4.0); 2], 1, closed(1, 1, 1, 2));
    assert_eq!(ends(&run(&case, Vec::new(), detect(0.0)).clone()), [48.0]);
    let report = run(&case, vec![fails(link("d0", "d1"), Severity::Lost, 20.0, None)], detect(0.0));
    // Over the coordinator: two latencies of 5, and 64 bytes at 4 a unit, in the place of 3 + 1.
    assert_eq!(ends(&report), [48.0 - 4.0 + 26.0]);
    assert_eq!((tally(&report).recomputed_requests, tally(&report).availability()), (0, 1.0));
}

#[test]
fn messages_wait_for_a_link_that_is_back_before_anybody_noticed_and_else_begin_again() {
    let case = Case::chain(&[Costs::fixed(4.0)], 1, closed(1, 1, 1, 1));
    for (detected, recomputed) in [(20.0, 0), (5.0, 1)] {
        let cut = fails(link("driver", "d0"), Severity::Lost, 0.5, Some(10.0));
        let report = run(&case, vec![cut], detect(detected));
        // Cut while its byte is under way; all of it again from 10.5 on: 6 to get there, a step of 4, 6 back.
        assert_eq!(ends(&report), [26.5], "detected after {detected}");
        assert_eq!(tally(&report).recomputed_requests, recomputed);
    }
}

#[test]
fn a_loss_that_hits_no_request_is_no_outage() {
    let case = Case::replicas(&[Costs::fixed(10.0); 2], closed(1, 1, 1, 3));
    let report = run(&case, vec![fails(device("d1"), Severity::Lost, 5.0, Some(2.0))], detect(0.0));
    let tally = tally(&report);
    assert_eq!((tally.incidents, tally.outages, tally.recoveries, tally.recovery_seconds_max), (1, 0, 0, None));
}

#[test]
fn what_is_lost_on_a_route_that_was_given_up_is_not_lost_again_when_a_link_blinks_later() {
    let case = Case::chain(&[Costs::fixed(4.0)], 1, closed(1, 1, 1, 1));
    let cut = |at, after| fails(link("driver", "d0"), Severity::Lost, at, Some(after));
    // The link goes at 3, which is noticed at 5; its device is away from 10 to 15; the link is back at 30. The request
    // is computed again from there: 6 to get there, a step of 4, 6 back. Nobody notices the unit without the link.
    let failures = vec![cut(3.0, 27.0), fails(device("d0"), Severity::Lost, 10.0, Some(5.0)), cut(37.0, 1.0)];
    let report = run(&case, failures, detect(2.0));
    assert_eq!(ends(&report), [46.0]);
    let tally = tally(&report);
    assert_eq!((tally.incidents, tally.outages, tally.recoveries, tally.recomputed_requests), (3, 1, 1, 1));
    assert_eq!(tally.recovery_seconds_max.map(in_units), Some(43.0));
}

#[test]
fn each_loss_has_the_whole_time_until_it_is_detected() {
    // The link is away from 0.5 to 1.5 and from 4 to 10; the first would have been noticed at 5.5, the second is at 9.
    let case = Case::chain(&[Costs::fixed(20.0)], 1, closed(1, 1, 1, 1));
    let cut = |at, after| fails(link("driver", "d0"), Severity::Lost, at, Some(after));
    for (after, recomputed) in [(4.0, 0), (6.0, 1)] {
        let report = run(&case, vec![cut(0.5, 1.0), cut(4.0, after)], detect(5.0));
        assert_eq!(tally(&report).recomputed_requests, recomputed, "away for {after}");
    }
}

#[test]
fn a_slowed_device_takes_its_share_of_its_speed_while_it_is_slow() {
    let case = Case::single(Costs::fixed(20.0), closed(1, 1, 1, 1));
    let slow = |at, after| fails(device("d0"), Severity::Slowed(0.5), at, after);
    assert_eq!(ends(&run(&case, vec![slow(5.0, Some(10.0))], detect(0.0))), [25.0]);
    // Two at once: a quarter from 8 to 12.
    let both = vec![slow(4.0, Some(8.0)), slow(8.0, Some(16.0))];
    // 4 by 4, 2 more by 8, 1 more by 12, 6 more by 24, the rest of 7 alone.
    assert_eq!(ends(&run(&case, both, detect(0.0))), [31.0]);
}

#[test]
fn a_slowed_link_takes_longer() {
    let case = Case::chain(&[Costs::fixed(4.0)], 1, closed(1, 1, 8, 1));
    assert_eq!(ends(&run(&case, Vec::new(), detect(0.0))), [5.0 + 8.0 + 4.0 + 6.0]);
    let slow = fails(link("driver", "d0"), Severity::Slowed(0.25), 4.0, None);
    assert_eq!(ends(&run(&case, vec![slow], detect(0.0))), [5.0 + 4.0 + 16.0 + 4.0 + 6.0]);
}

#[test]
fn batches_that_have_passed_a_lost_stage_still_bring_their_tokens_home() {
    // Two stages; the first is lost while the second works on the batch that it passed on.
    let case = Case::chain(&[Costs::fixed(4.0); 2], 1, closed(1, 1, 1, 2));
    let report = run(&case, vec![fails(device("d0"), Severity::Lost, 15.0, Some(30.0))], detect(20.0));
    // First token at 24 as ever; detected at 35, back at 45: a pass of prompt and token, with one more unit for each
    // of entry and hop.
    assert_eq!(ends(&report), [45.0 + 24.0 + 2.0]);
    assert_eq!(report.trace.as_ref().expect("asked for").requests[0].first_token_ns.0, 24 * UNIT);
    assert_eq!(tally(&report).recomputed_tokens, 1);
}

/// Something of everything, at random.
pub fn turmoil() -> Conditions {
    let random = |target, severity, between: f64, repair: f64| Failure {
        target,
        severity,
        moment: Moment::Random { mean_between: Seconds::of(between), mean_repair: Seconds::of(repair) },
    };
    Conditions {
        failures: vec![
            random(device("d0"), Severity::Lost, 8.0, 1.0),
            random(device("d1"), Severity::Lost, 11.0, 2.0),
            random(device("d2"), Severity::Slowed(0.3), 3.0, 2.0),
            random(link("d0", "d1"), Severity::Lost, 2.0, 1.0),
            random(link("driver", "d2"), Severity::Lost, 5.0, 1.5),
            random(link("d1", "d2"), Severity::Slowed(0.1), 2.0, 3.0),
        ],
        recovery: Recovery { detect: Seconds::of(0.4), attempts_max: 4, ..Recovery::default() },
        ..Conditions::default()
    }
}

pub fn busy_case() -> Case {
    let costs = Costs { step: 2.1, token: 0.3, cached: 0.01, head: 0.7, embedding: 0.01 };
    let mut case = Case::chain(&[costs; 3], 3, poisson(4.0, 300, 1, 1));
    case.layers[2] = case.layers[1];
    case.routes = vec![(vec![0, 1], 0.6), (vec![0, 2], 0.4)];
    case.workload.prompt_tokens = Length { min: 3, max: 60 };
    case.workload.output_tokens = Length { min: 1, max: 40 };
    case.serving.requests_max = 6;
    case.serving.step_tokens_max = 24;
    case
}

#[test]
fn every_request_is_answered_once_or_refused_once_whatever_fails() {
    let (case, mut lost, mut again) = (busy_case(), 0, 0);
    for (in_flight, seeds) in [(InFlight::Recompute, 6), (InFlight::Fail, 6)] {
        let mut conditions = turmoil();
        conditions.recovery.in_flight = in_flight;
        let report = run_with(&case, conditions, seeds);
        let tally = tally(&report);
        let answered = report.metrics["e2e_seconds"];
        assert!(answered.mean > 0.0);
        let trace = report.trace.as_ref().expect("asked for");
        assert!(trace.requests.windows(2).all(|pair| pair[0].id < pair[1].id));
        assert!(trace.requests.iter().all(|r| r.arrival_ns < r.first_token_ns && r.first_token_ns <= r.finished_ns));
        assert!((0.0..=1.0).contains(&tally.availability()));
        assert!(tally.serving_seconds >= tally.available_seconds && tally.total_seconds >= tally.serving_seconds);
        assert!(tally.incidents > 100 && tally.outages > 10, "{tally:?}");
        // Nobody gets on again where whoever is in flight is answered with an error.
        assert_eq!(tally.recoveries > 10, in_flight == InFlight::Recompute, "{tally:?}");
        assert!(tally.recoveries <= tally.outages, "{tally:?}");
        (lost, again) = (lost + tally.failed_requests, again + tally.recomputed_requests);
        if seeds == 1 {
            assert_eq!(trace.requests.len() as u64 + tally.failed_requests, 300);
        }
    }
    assert!(lost > 10 && again > 10, "{lost} {again}");
    let one = run_with(&case, turmoil(), 1);
    assert_eq!(one.trace.as_ref().expect("asked for").requests.len() as u64 + tally(&one).failed_requests, 300);
}

#[test]
fn a_run_with_failures_is_the_same_at_any_number_of_threads() {
    let digest = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| run_with(&busy_case(), turmoil(), 4))
    };
    assert_eq!(digest(1), digest(3));
}

#[test]
fn failures_that_never_come_change_nothing_but_what_is_reported() {
    let case = busy_case();
    let quiet = run_with(&case, Conditions::default(), 2);
    let never = fails(device("d0"), Severity::Lost, 1e9, None);
    let watched = run_with(&case, Conditions { failures: vec![never], ..Conditions::default() }, 2);
    assert_eq!((&quiet.metrics, &quiet.trace, quiet.digest), (&watched.metrics, &watched.trace, watched.digest));
    assert_eq!(tally(&watched).availability(), 1.0);
    assert_eq!(quiet.reliability, None);
}

#[test]
fn a_failure_of_nothing_is_refused() {
    let case = Case::single(Costs::fixed(1.0), closed(1, 1, 1, 1));
    let mut problem = case.problem();
    problem.conditions.failures = vec![fails(device("d7"), Severity::Lost, 1.0, None)];
    let refused = simulate(&case.plan(&problem), &problem, &case.workload, &Options::default());
    assert_eq!(refused, Err(SimulateError::UnknownFailing("d7".into())));
}

#[test]
fn a_prepared_plan_takes_over_once_its_weights_have_come_over_the_links() {
    // Device 0 serves; device 1 is kept for its loss and holds nothing yet.
    let mut case = Case::chain(&[Costs::fixed(10.0); 2], 1, closed(1, 6, 1, 1));
    case.layers = vec![case.layers[0]];
    case.routes = vec![(vec![0], 1.0)];
    let mut problem = case.problem();
    problem.conditions.failures = vec![fails(device("d0"), Severity::Lost, 50.0, Some(100.0))];
    problem.conditions.recovery = detect(2.0);
    let (plan, kept) = (case.plan(&problem), crate::material::whole_on(&problem, "d1"));
    let options = Options { trace: true, attribution: true, ..Options::default() };
    let report = rehearse(&plan, &kept, &problem, Asked::Drawn(&case.workload), &options).expect("simulates");
    // A request takes 6 + 10 + 6. The third begins at 44, is lost at 50 with the device, which is noticed at 52. The
    // layer, embedding and head are 1200 bytes at 4 a unit, one latency of 5: 357. The device is back by then, but the
    // prepared plan goes on.
    assert_eq!(ends(&report), [22.0, 44.0, 379.0, 401.0, 423.0, 445.0]);
    let trace = report.trace.as_ref().expect("asked for");
    let steps: Vec<(&str, u64)> = trace.stages.iter().map(|stage| (stage.device.as_str(), stage.steps)).collect();
    assert_eq!(steps, [("d0", 2), ("d1", 4)]);
    let tally = tally(&report);
    assert_eq!((tally.recomputed_requests, tally.failed_requests), (1, 0));
    assert_eq!(tally.recovery_seconds_max.map(in_units), Some(329.0));
    assert_eq!(in_units(tally.serving_seconds), 445.0 - 307.0);
    // A recording of the same load, and another policy that serves one request at a time, take the very same times.
    let recorded: String = ends(&report).iter().map(|_| "0,1,1\n").collect();
    let load = Replay::parse(&format!("arrival,prompt_tokens,output_tokens\n{recorded}")).expect("a load");
    for policy in [PolicyName::Isotherm, PolicyName::VidurVllm] {
        let options = Options { policy, ..options.clone() };
        let again = rehearse(&plan, &kept, &problem, Asked::Recorded(&load), &options).expect("simulates");
        assert_eq!(ends(&again), ends(&report), "{policy}");
    }
    // Without the prepared plan the device's repair is all there is to wait for.
    let alone = simulate(&plan, &problem, &case.workload, &options).expect("simulates");
    assert_eq!(ends(&alone)[2], 172.0);
}
