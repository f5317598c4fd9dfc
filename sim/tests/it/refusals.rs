//! What cannot be simulated is refused in words that say what to do.

use crate::material::{Case, Costs, closed, poisson};
use isotherm_core::units::TokensPerSecond;
use isotherm_core::workload::Length;
use isotherm_sim::policy::PolicyName;
use isotherm_sim::{Options, SimulateError, simulate};
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn devices_with_rates_only_are_refused() {
    let mut case = Case::replicas(&[Costs::fixed(1.0); 2], closed(1, 1, 1, 1));
    case.adjust = |_, device| {
        device.profiles.clear();
        device.rates = vec![(1, TokensPerSecond::of(100.0))];
    };
    let problem = case.problem();
    let refused = simulate(&case.plan(&problem), &problem, &case.workload, &Options::default());
    assert_eq!(refused, Err(SimulateError::RatesOnly("d0".into())));
}

#[test]
fn a_load_that_does_not_fit_the_plan_or_makes_no_sense_is_refused() {
    let case = Case::single(Costs::fixed(1.0), closed(1, 1, 10, 10));
    let problem = case.problem();
    let plan = case.plan(&problem);
    let refused = |load| simulate(&plan, &problem, &load, &Options::default()).expect_err("refused");
    let long = refused(closed(1, 1, 30, 10));
    assert_eq!(long, SimulateError::CacheTooSmall { device: "d0".into(), needed: 3, blocks: 2, routes: 1 });
    assert_eq!(refused(closed(0, 1, 1, 1)), SimulateError::Zero("workload.arrivals.clients"));
    assert_eq!(refused(closed(1, 0, 1, 1)), SimulateError::Zero("workload.requests"));
    assert_eq!(refused(closed(1, 1, 0, 1)), SimulateError::Zero("workload.prompt_tokens"));
    assert_eq!(refused(poisson(0.0, 1, 1, 1)), SimulateError::Zero("workload.arrivals.rate"));
    let mut reversed = closed(1, 1, 1, 1);
    reversed.output_tokens = Length { min: 5, max: 4 };
    assert!(matches!(refused(reversed), SimulateError::Reversed { min: 5, max: 4, .. }));
    let none = Options { seeds: 0, ..Options::default() };
    let refused = simulate(&plan, &problem, &case.workload, &none);
    assert_eq!(refused, Err(SimulateError::Zero("the number of seeds")));
}

#[test]
fn a_route_of_few_requests_has_room_for_the_longest() {
    let mut case = Case::single(Costs::fixed(1.0), closed(8, 200, 100, 10));
    case.routes = vec![(vec![0], 0.99), (vec![0], 0.01)];
    case.serving.requests_max = 8;
    let problem = case.problem();
    let report = simulate(&case.plan(&problem), &problem, &case.workload, &Options::default());
    assert!(report.expect("room for both").metrics["e2e_seconds"].p99 >= 10.0e-3);
}

#[test]
fn a_policy_that_divides_requests_by_stages_says_how_many_there_must_be() {
    let case = Case::chain(&[Costs::fixed(1.0); 3], 1, closed(1, 1, 1, 1));
    let problem = case.problem();
    let options = Options { policy: PolicyName::VidurSarathi, ..Options::default() };
    let refused = simulate(&case.plan(&problem), &problem, &case.workload, &options).expect_err("one for three");
    assert!(refused.to_string().ends_with("raise serving.requests_max to at least the number of stages"), "{refused}");
}

#[test]
fn a_run_without_end_is_stopped() {
    let case = Case::single(Costs::fixed(1.0), closed(1, 100, 10, 10));
    let problem = case.problem();
    let plan = case.plan(&problem);
    let few = Options { events_max: 1_000, ..Options::default() };
    let stopped = simulate(&plan, &problem, &case.workload, &few).expect_err("too many");
    assert!(matches!(stopped, SimulateError::TooManyEvents { events_max: 1_000, finished: 1.. }), "{stopped}");
    let never = simulate(&plan, &problem, &poisson(1e-300, 1, 1, 1), &Options::default());
    assert_eq!(never, Err(SimulateError::Endless));
}

#[test]
fn a_raised_flag_stops_a_run_under_way_and_says_how_far_it_came() {
    static STOP: AtomicBool = AtomicBool::new(false);
    // Some 30 million events: it cannot be over before the flag is up.
    let case = Case::single(Costs::fixed(1.0), closed(1, 1_000_000, 1, 10));
    let problem = case.problem();
    let plan = case.plan(&problem);
    let options = Options { interrupt: Some(&STOP), events_max: 2_000_000_000, ..Options::default() };
    let stopped = std::thread::scope(|scope| {
        let run = scope.spawn(|| simulate(&plan, &problem, &case.workload, &options));
        // Some tens of milliseconds; whether the run has begun by then changes nothing below.
        (0..20_000_000).for_each(|_| std::hint::spin_loop());
        STOP.store(true, Ordering::Relaxed);
        run.join().expect("no panic")
    });
    let stopped = stopped.expect_err("interrupted");
    assert!(matches!(stopped, SimulateError::Interrupted { requests: 1_000_000, .. }), "{stopped}");
    // One that is asked to stop before it begins does nothing.
    let none = simulate(&plan, &problem, &case.workload, &options);
    assert_eq!(none, Err(SimulateError::Interrupted { finished: 0, requests: 1_000_000 }));
}
