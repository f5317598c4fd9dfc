//! Where the time went: parts by hand, and that they add up. (That the parts of each single request add up to its time,
//! to the nanosecond, the simulator asserts of every request of every run with attribution.)

use crate::failures::{busy_case, turmoil};
use crate::material::{Case, Costs, closed, poisson};
use isotherm_core::conditions::{Between, Conditions, CrossTraffic, LinkCondition, Place, Spread};
use isotherm_core::record::{Cause, SimulationReport};
use isotherm_core::units::Seconds;
use isotherm_core::workload::replay::Replay;
use isotherm_sim::policy::PolicyName;
use isotherm_sim::{Options, replay, simulate};

fn run(case: &Case, conditions: Conditions, seeds: u32) -> SimulationReport {
    let mut problem = case.problem();
    problem.conditions = conditions;
    let options = Options { attribution: true, seeds, ..Options::default() };
    simulate(&case.plan(&problem), &problem, &case.workload, &options).expect("simulates")
}

/// Mean units before the first token, and per token after it.
fn part(report: &SimulationReport, cause: Cause, place: &str) -> (f64, f64) {
    let parts = &report.attribution.as_ref().expect("asked for").parts;
    let part = parts.iter().find(|part| part.cause == cause && part.place == place);
    let rounded = |seconds: f64| (seconds * 512.0 * 1e6).round() / 1e6;
    part.map_or((0.0, 0.0), |part| (rounded(part.ttft_seconds), rounded(part.tpot_seconds)))
}

#[test]
fn a_request_alone_spends_its_time_on_links_and_devices() {
    let costs = [Costs { token: 1.0, ..Costs::fixed(4.0) }, Costs { token: 2.0, ..Costs::fixed(6.0) }];
    let report = run(&Case::chain(&costs, 1, closed(1, 1, 10, 5)), Conditions::default(), 1);
    assert_eq!(part(&report, Cause::Compute, "d0"), (14.0, 5.0));
    assert_eq!(part(&report, Cause::Compute, "d1"), (26.0, 8.0));
    assert_eq!(part(&report, Cause::Link, "driver -> d0"), (15.0, 6.0));
    assert_eq!(part(&report, Cause::Link, "d0 -> d1"), (13.0, 4.0));
    assert_eq!(part(&report, Cause::Link, "d1 -> driver"), (6.0, 6.0));
    assert_eq!(report.attribution.as_ref().expect("asked for").parts.len(), 5);
}

#[test]
fn waiting_is_told_apart_by_what_is_waited_for() {
    // Three requests at once, one admitted at a time: the second waits one request, the third two.
    let report = run(&Case::single(Costs::fixed(10.0), closed(3, 3, 1, 2)), Conditions::default(), 1);
    assert_eq!(part(&report, Cause::Admission, ""), (20.0, 0.0));
    assert_eq!(part(&report, Cause::Compute, "d0"), (10.0, 10.0));
    // Two routes over one device: the second batch waits for it.
    let mut case = Case::chain(&[Costs::fixed(10.0), Costs::fixed(1.0), Costs::fixed(1.0)], 1, closed(2, 2, 1, 1));
    case.layers[2] = case.layers[1];
    case.routes = vec![(vec![0, 1], 0.5), (vec![0, 2], 0.5)];
    case.serving.requests_max = 2;
    let report = run(&case, Conditions::default(), 1);
    // Both share the link to device 0 for two units in the place of one each, and the second waits ten.
    assert_eq!(part(&report, Cause::LinkContention, "driver -> d0"), (1.0, 0.0));
    assert_eq!(part(&report, Cause::Wait, "d0"), (5.0, 0.0));
}

#[test]
fn what_slows_a_device_is_told_apart_from_what_it_computes() {
    let mut case = Case::replicas(&[Costs::fixed(6.0), Costs::fixed(3.0)], closed(2, 2, 1, 1));
    case.co_run = vec![1.0, 2.0];
    let report = run(&case, Conditions::default(), 1);
    // Both at half speed until 6; the first goes on alone to 9: 3 of contention each.
    assert_eq!(part(&report, Cause::Contention, "d0"), (1.5, 0.0));
    assert_eq!(part(&report, Cause::Contention, "d1"), (1.5, 0.0));
    assert_eq!(part(&report, Cause::Compute, "d0"), (3.0, 0.0));
    assert_eq!(part(&report, Cause::Compute, "d1"), (1.5, 0.0));
}

/// The parts add up to the mean times that the report states.
fn adds_up(report: &SimulationReport) {
    let parts = &report.attribution.as_ref().expect("asked for").parts;
    let (ttft, tpot) = (report.metrics["ttft_seconds"].mean, report.metrics["tpot_seconds"].mean);
    let sums = parts.iter().fold((0.0, 0.0), |sum, part| (sum.0 + part.ttft_seconds, sum.1 + part.tpot_seconds));
    assert!((sums.0 / ttft - 1.0).abs() < 1e-9, "{} {ttft}", sums.0);
    assert!((sums.1 / tpot - 1.0).abs() < 1e-9, "{} {tpot}", sums.1);
}

#[test]
fn the_parts_add_up_whatever_happens() {
    let report = run(&busy_case(), turmoil(), 4);
    adds_up(&report);
    for cause in [Cause::Admission, Cause::Turn, Cause::Recovery, Cause::Wait, Cause::Straggling, Cause::LinkContention]
    {
        let parts = &report.attribution.as_ref().expect("asked for").parts;
        assert!(
            parts.iter().any(|part| part.cause == cause && part.ttft_seconds + part.tpot_seconds > 0.0),
            "{cause:?}"
        );
    }
    // Heat, chunked prefill, preemption, co-run sets, jitter and cross traffic.
    let mut case = busy_case();
    case.co_run = vec![1.0, 1.3, 1.7];
    case.adjust = crate::heat::warm;
    case.workload = isotherm_core::workload::Workload { requests: 400, ..poisson(6.0, 400, 1, 1) };
    case.workload.prompt_tokens = isotherm_core::workload::Length { min: 10, max: 60 };
    case.workload.output_tokens = isotherm_core::workload::Length { min: 1, max: 40 };
    let between = |from: &str, to: &str| Between { from: from.into(), to: to.into() };
    let conditions = Conditions {
        links: vec![LinkCondition {
            link: between("d0", "d1"),
            jitter: Some(Spread::Lognormal { median: Seconds::of(1e-3), sigma: 1.0 }),
            loss: Some(0.05),
        }],
        cross_traffic: vec![CrossTraffic {
            place: Place::Link(between("driver", "d0")),
            share: 0.7,
            on_off: Some((Seconds::of(0.5), Seconds::of(1.0))),
        }],
        ..Conditions::default()
    };
    let report = run(&case, conditions, 3);
    adds_up(&report);
    let parts = &report.attribution.as_ref().expect("asked for").parts;
    for cause in [Cause::Throttle, Cause::Contention] {
        assert!(parts.iter().any(|part| part.cause == cause && part.ttft_seconds > 0.0), "{cause:?}");
    }
}

#[test]
fn every_policy_names_whom_its_time_went_to_and_is_not_changed_by_being_asked() {
    let (problem, plan) = crate::peers::replicas(2, "requests_max = 64\nstep_tokens_max = 2048\nkv_blocks = 20000\n");
    let mut text = "arrived_at,num_prefill_tokens,num_decode_tokens\n".to_owned();
    for i in 0..60 {
        text += &format!("{}.{:02},{},{}\n", i / 20, i % 20, 100 + 37 * (i % 11), 1 + i % 7);
    }
    let load = Replay::parse(&text).expect("a load");
    for policy in PolicyName::ALL {
        let asked = Options { policy, attribution: true, trace: true, ..Options::default() };
        let alone = Options { policy, ..Options::default() };
        let run = |options: &Options| replay(&plan, &problem, &load, options).expect("simulates");
        let (asked, alone) = (run(&asked), run(&alone));
        assert_eq!((asked.digest, &asked.metrics), (alone.digest, &alone.metrics), "{policy}");
        let parts = &asked.attribution.as_ref().expect("asked for").parts;
        let ttft: f64 = parts.iter().map(|part| part.ttft_seconds).sum();
        assert!((ttft - asked.metrics["ttft_seconds"].mean).abs() < 1e-9, "{policy}: {ttft}");
        let trace = asked.trace.as_ref().expect("asked for");
        assert!(trace.steps.iter().all(|step| !step.requests.is_empty()), "{policy}");
    }
}
