//! What queueing theory says of the same systems.

use crate::material::{Case, Costs, UNIT, closed, poisson, times};
use isotherm_core::trace::RequestRecord;
use isotherm_sim::Options;

/// Mean waiting time, in units of the service time, over several seeds of a queue with Poisson arrivals and one
/// server of fixed service time.
fn mean_wait(load: f64) -> f64 {
    let case = Case::single(Costs::fixed(1.0), poisson(load * 512.0, 100_000, 1, 1));
    let report = case.report(&Options { seeds: 12, ..Options::default() });
    report.metrics["e2e_seconds"].mean * 512.0 - 1.0
}

#[test]
fn waits_with_random_arrivals_and_fixed_service_are_those_of_m_d_1() {
    for load in [0.5, 0.8] {
        // Pollaczek and Khinchine for fixed service: load / (2 (1 - load)) service times.
        let theory = load / (2.0 * (1.0 - load));
        let error = mean_wait(load) / theory - 1.0;
        assert!(error.abs() < 0.02, "load {load}: {error:+.4}");
    }
}

#[test]
fn a_closed_loop_of_fixed_service_serves_its_clients_in_turn() {
    let (clients, requests) = (5, 40);
    let trace = Case::single(Costs::fixed(3.0), closed(clients, requests, 1, 1)).trace();
    for request in &trace.requests {
        // The first ones find as many before them as their number; later ones always wait for all other clients.
        let turns = u64::from(request.id + 1).min(clients.into());
        assert_eq!(times(request), (3 * turns * UNIT, 3 * turns * UNIT), "request {}", request.id);
    }
    assert_eq!(trace.devices[0].busy_ns.0, trace.end_ns.0);
}

#[test]
fn a_server_is_busy_for_the_work_it_was_given_and_no_longer() {
    let trace = Case::single(Costs::fixed(2.0), poisson(128.0, 5_000, 1, 3)).trace();
    assert_eq!(trace.stages[0].busy_ns.0, 5_000 * 3 * 2 * UNIT);
    let longest_idle = trace.end_ns.0 - trace.stages[0].busy_ns.0;
    assert!(longest_idle > 0);
}

/// Time during which requests are in the system, by sweeping over arrivals and departures.
fn mean_number(requests: &[RequestRecord], end: u64) -> f64 {
    let mut changes: Vec<(u64, i64)> = Vec::new();
    for request in requests {
        changes.push((request.arrival_ns.0, 1));
        changes.push((request.finished_ns.0, -1));
    }
    changes.sort_unstable();
    let (mut number, mut since, mut area) = (0_i64, 0, 0.0);
    for (time, change) in changes {
        area += number as f64 * (time - since) as f64;
        number += change;
        since = time;
    }
    assert_eq!(number, 0, "a request never left");
    area / end as f64
}

#[test]
fn the_number_in_the_system_is_arrival_rate_times_time_in_it() {
    let mut open = Case::single(Costs::fixed(2.0), poisson(60.0, 20_000, 4, 5));
    open.serving.requests_max = 8;
    let trace = open.trace();
    let end = trace.end_ns.seconds().value();
    let rate = trace.requests.len() as f64 / end;
    let inside = trace.e2es().iter().sum::<f64>() / trace.requests.len() as f64;
    let number = mean_number(&trace.requests, trace.end_ns.0);
    assert!((number / (rate * inside) - 1.0).abs() < 1e-9, "{number} {rate} {inside}");
}

#[test]
fn in_a_closed_loop_throughput_times_response_is_the_number_of_clients() {
    let clients = 7;
    let mut case = Case::chain(&[Costs::fixed(3.0), Costs::fixed(5.0)], 1, closed(clients, 7_000, 4, 6));
    case.serving.requests_max = 4;
    let trace = case.trace();
    let rate = trace.requests.len() as f64 / trace.end_ns.seconds().value();
    let response = trace.e2es().iter().sum::<f64>() / trace.requests.len() as f64;
    // Clients fall silent one by one at the end: a share of at most clients / requests is missing.
    assert!((rate * response / f64::from(clients) - 1.0).abs() < 1e-3, "{rate} {response}");
}
