//! Queueing theory: the whole simulator (events, policies, devices, routers) on systems whose mean times are known in
//! closed form.
//!
//! Service times of any distribution come from the device's own cost table: a prompt has a uniform number of tokens, and
//! the table gives each number its time. With the quantiles of a distribution in shuffled order, two stages with
//! differently shuffled tables are independent of each other.
//!
//! Each figure is a mean over independent replications of a hundred thousand requests, the first fiftieth of each left
//! out, and is held to the 99 % interval and to 2 %. The seeds are 1, 2, 3 ..., so a test gives the same figures each
//! time. At a load of 0.9 the standard error of one replication is about 6 %, and 32 of them still leave 1 %: there the
//! variance is reduced by control variates (Lavenberg and Welch, Management Science 27, 1981). The mean time between
//! arrivals and the mean service time of a run are known in advance and explain most of how far its mean time in the
//! system is off; the regression on both takes that part out, and its residual makes the interval.
//! `ISOTHERM_CAMPAIGN` in the environment makes it ten million requests for each figure.

use crate::material::{Case, Costs, poisson};
use isotherm_core::cost::Curve;
use isotherm_core::device::Device;
use isotherm_core::trace::Trace;
use isotherm_core::units::Seconds;
use isotherm_core::workload::Length;
use isotherm_sim::router::RouterName;
use isotherm_sim::{Options, simulate};
use rayon::prelude::*;

/// Different service times of a table.
const KNOTS: u32 = 2_048;
/// Mean service time in seconds: so long that two requests hardly ever arrive in one nanosecond, which would put them
/// into one batch.
const MEAN: f64 = 1.0;

/// The exponential distribution with mean one in strata of equal probability, each at its conditional mean, so that the
/// mean of the table is one and only the spread within strata is lost (of the second moment 3 parts in 10 000).
fn exponential(stratum: u32) -> f64 {
    let tail = |share: f64| if share > 0.0 { share * (1.0 - libm::log(share)) } else { 0.0 };
    let of = |i: u32| 1.0 - f64::from(i) / f64::from(KNOTS);
    f64::from(KNOTS) * (tail(of(stratum)) - tail(of(stratum + 1)))
}

/// Always the mean.
fn constant(_: u32) -> f64 {
    1.0
}

/// One in eight takes 4.5 times the mean, the others half of it: a coefficient of variation of 1.32.
fn two_kinds(stratum: u32) -> f64 {
    if stratum.is_multiple_of(8) { 4.5 } else { 0.5 }
}

/// Where the stratum `i` stands in the table of stage `stage`: odd multipliers permute a power of two.
fn place(i: u32, stage: usize) -> u32 {
    [1_u32, 1_103, 1_523, 619][stage].wrapping_mul(i).wrapping_add(97 * stage as u32) % KNOTS
}

fn table(device: &mut Device, stage: usize, times: fn(u32) -> f64, mean: f64) {
    let mut knots = vec![(0, Seconds::ZERO); KNOTS as usize];
    for i in 0..KNOTS {
        // A prompt has from one table length to two, so that no batch of two prompts fits a step.
        let at = place(i, stage) as usize;
        knots[at] = (KNOTS + 1 + at as u32, Seconds::of(times(i) * mean));
    }
    device.profiles[0].dense_seconds = Curve::new(knots).expect("rising");
}

fn m(stage: usize, device: &mut Device) {
    table(device, stage, exponential, MEAN);
}

fn d(stage: usize, device: &mut Device) {
    table(device, stage, constant, MEAN);
}

fn g(stage: usize, device: &mut Device) {
    table(device, stage, two_kinds, MEAN);
}

/// Stage 0 at twice the speed of the others.
fn fast_first(stage: usize, device: &mut Device) {
    table(device, stage, exponential, if stage == 0 { MEAN / 2.0 } else { MEAN });
}

/// A case whose batches are single requests: each is formed when its request arrives and waits at the device.
fn case(base: Case, rate: f64, requests: u32) -> Case {
    // Links that take a few nanoseconds.
    let mut case = Case { haste: 1e9, ..base };
    case.workload = poisson(rate / MEAN, requests, 1, 1);
    case.workload.prompt_tokens = Length { min: KNOTS + 1, max: 2 * KNOTS };
    case.serving.step_tokens_max = 2 * KNOTS;
    case
}

fn chain(stages: usize, adjust: fn(usize, &mut Device), load: f64, requests: u32) -> Case {
    let mut case = case(Case::chain(&vec![Costs::fixed(0.0); stages], 1, poisson(1.0, 1, 1, 1)), load, requests);
    case.adjust = adjust;
    case.serving.requests_max = 4_000;
    case.batch = Some(1);
    case
}

/// What is found in each replication.
fn runs<T: Send>(case: &Case, replications: u64, router: RouterName, of: impl Fn(&Trace) -> T + Sync) -> Vec<T> {
    let problem = case.problem();
    let plan = case.plan(&problem);
    let run = |seed| {
        let options = Options { seed, router, trace: true, ..Options::default() };
        let report = simulate(&plan, &problem, &case.workload, &options).expect("simulates");
        of(&report.trace.expect("asked for"))
    };
    (1..=replications).into_par_iter().map(run).collect()
}

/// Figures of the requests after the first fiftieth, over replications: mean, 99 % half width.
fn replicated(case: &Case, replications: u64, router: RouterName, of: fn(&Trace) -> f64) -> (f64, f64) {
    let means: Vec<f64> = runs(case, replications, router, of);
    let count = means.len() as f64;
    let mean = means.iter().sum::<f64>() / count;
    let variance = means.iter().map(|m| (m - mean) * (m - mean)).sum::<f64>() / (count - 1.0);
    // Student's 99.5 % quantiles for 7, 15 and 31 degrees of freedom.
    let quantile = match replications {
        8 => 3.499,
        16 => 2.947,
        32 => 2.744,
        other => unreachable!("no quantile for {other} replications"),
    };
    (mean, quantile * (variance / count).sqrt())
}

/// What a run drew, less what is drawn in the mean: time between arrivals and service time, in mean service times.
fn drawn(trace: &Trace, rate: f64) -> [f64; 2] {
    let requests = &trace.requests;
    let span = requests[requests.len() - 1].arrival_ns.since(requests[0].arrival_ns).seconds().value();
    let between = span / (requests.len() - 1) as f64 / MEAN;
    let service = trace.devices[0].busy_ns.seconds().value() / requests.len() as f64 / MEAN;
    [between - 1.0 / rate, service - 1.0]
}

/// A figure and its controls.
type Controlled = (f64, [f64; 2]);

/// The mean of figures, each with its controls, whose expectations are zero: the intercept of their regression, and its
/// 99 % half width.
fn controlled(runs: &[Controlled]) -> (f64, f64) {
    let count = runs.len() as f64;
    let mean = |of: &dyn Fn(&Controlled) -> f64| runs.iter().map(of).sum::<f64>() / count;
    let figure = mean(&|run| run.0);
    let centre = [mean(&|run| run.1[0]), mean(&|run| run.1[1])];
    let product = |a: &dyn Fn(&Controlled) -> f64, b: &dyn Fn(&Controlled) -> f64| {
        runs.iter().map(|run| a(run) * b(run)).sum::<f64>()
    };
    let y = |run: &Controlled| run.0 - figure;
    let (c, d) = (|run: &Controlled| run.1[0] - centre[0], |run: &Controlled| run.1[1] - centre[1]);
    let (cc, dd, cd, yc, yd) = (product(&c, &c), product(&d, &d), product(&c, &d), product(&y, &c), product(&y, &d));
    // Constant service times control nothing.
    let constant = dd < 1e-18;
    let (slopes, reach) = if constant {
        ([yc / cc, 0.0], centre[0] * centre[0] / cc)
    } else {
        let determinant = cc * dd - cd * cd;
        let inverse = [dd / determinant, -cd / determinant, cc / determinant];
        let slopes = [inverse[0] * yc + inverse[1] * yd, inverse[1] * yc + inverse[2] * yd];
        let [a, b] = centre;
        (slopes, inverse[0] * a * a + 2.0 * inverse[1] * a * b + inverse[2] * b * b)
    };
    let residual = |run: &Controlled| y(run) - slopes[0] * c(run) - slopes[1] * d(run);
    let freedom = count - if constant { 2.0 } else { 3.0 };
    let variance = product(&residual, &residual) / freedom;
    // Student's 99.5 % quantile for 29 degrees of freedom, which is above that for 30.
    assert_eq!(runs.len(), 32, "the quantile is for this many");
    (figure - slopes[0] * centre[0] - slopes[1] * centre[1], 2.756 * (variance * (1.0 / count + reach)).sqrt())
}

#[test]
fn control_variates_find_the_intercept_of_a_line_and_leave_what_is_not_on_it() {
    let runs: Vec<Controlled> = (0..32)
        .map(|i| {
            let (a, b) = (f64::from(i % 5) - 1.7, f64::from(i % 7) - 3.4);
            (4.0 + 3.0 * a - 2.0 * b, [a, b])
        })
        .collect();
    let (mean, half) = controlled(&runs);
    assert!((mean - 4.0).abs() < 1e-9 && half < 1e-6, "{mean} {half}");
    let noisy: Vec<Controlled> =
        (0..).zip(&runs).map(|(i, run)| (run.0 + if i % 2 == 0 { 0.1 } else { -0.1 }, run.1)).collect();
    let (mean, half) = controlled(&noisy);
    assert!((mean - 4.0).abs() < half && half > 0.04 && half < 0.08, "{mean} {half}");
}

/// Mean time in the system, in mean service times.
fn sojourn(trace: &Trace) -> f64 {
    let warm = &trace.requests[trace.requests.len() / 50..];
    warm.iter().map(|r| r.e2e().seconds().value()).sum::<f64>() / warm.len() as f64 / MEAN
}

fn agrees(name: &str, (found, half): (f64, f64), theory: f64) {
    let error = found / theory - 1.0;
    eprintln!("{name}: theory {theory:.4}, simulated {found:.4} ± {half:.4} (99 %), error {:+.2} %", error * 100.0);
    assert!((found - theory).abs() <= half, "{name}: {found} ± {half} against {theory}");
    assert!(error.abs() <= 0.02, "{name}: {error:+.4}");
}

/// Requests of a replication, and replications that bring the standard error well below 2 %.
fn size(load: f64) -> (u32, u64) {
    let campaign = std::env::var_os("ISOTHERM_CAMPAIGN").is_some();
    let replications = if load > 0.85 {
        32
    } else if load > 0.6 {
        16
    } else {
        8
    };
    (if campaign { 10_000_000 / replications as u32 } else { 100_000 }, replications)
}

/// Pollaczek and Khinchine: the mean time in an M/G/1 queue, `1 + load (1 + variance) / (2 (1 - load))`.
fn one_server(load: f64, variance: f64) -> f64 {
    1.0 + load * (1.0 + variance) / (2.0 * (1.0 - load))
}

/// Erlang: the mean time in an M/M/c queue, `1 + C(c, c load) / (c (1 - load))` mean service times.
fn servers(count: u32, load: f64) -> f64 {
    let offered = f64::from(count) * load;
    let blocked = (1..=count).fold(1.0, |b, k| offered * b / (f64::from(k) + offered * b));
    let waits = blocked / (1.0 - load * (1.0 - blocked));
    1.0 + waits / (f64::from(count) * (1.0 - load))
}

#[test]
fn one_server_takes_as_long_as_pollaczek_and_khinchine_say() {
    type Kind = (&'static str, fn(usize, &mut Device), f64, &'static [f64]);
    let kinds: [Kind; 3] =
        [("M/M/1", m, 1.0, &[0.5, 0.8]), ("M/D/1", d, 0.0, &[0.5, 0.8]), ("M/G/1", g, 1.75, &[0.5, 0.8])];
    for (name, adjust, variance, loads) in kinds {
        for &load in loads {
            let (requests, replications) = size(load);
            let found = replicated(&chain(1, adjust, load, requests), replications, RouterName::Share, sojourn);
            agrees(&format!("{name} at {load}"), found, one_server(load, variance));
        }
        let load = 0.9;
        let (requests, replications) = size(load);
        let figures = |trace: &Trace| (sojourn(trace), drawn(trace, load));
        let runs = runs(&chain(1, adjust, load, requests), replications, RouterName::Share, figures);
        agrees(&format!("{name} at {load}, controlled"), controlled(&runs), one_server(load, variance));
    }
}

#[test]
fn a_tandem_takes_as_long_as_its_queues_alone() {
    for load in [0.5, 0.8] {
        let (requests, replications) = size(load);
        let found = replicated(&chain(2, m, load, requests), replications, RouterName::Share, sojourn);
        agrees(&format!("M/M/1 -> M/M/1 at {load}"), found, 2.0 * one_server(load, 1.0));
    }
}

#[test]
fn servers_that_pull_from_one_queue_take_as_long_as_erlang_says() {
    for (count, load) in [(2, 0.8), (4, 0.9)] {
        let (requests, replications) = size(load);
        let base = Case::replicas(&vec![Costs::fixed(0.0); count as usize], poisson(1.0, 1, 1, 1));
        let mut case = case(base, f64::from(count) * load, requests);
        // All servers read one table: a request takes as long wherever it is served.
        case.adjust = |_, device| m(0, device);
        let found = replicated(&case, replications, RouterName::Pull, sojourn);
        agrees(&format!("M/M/{count} at {load}"), found, servers(count, load));
    }
}

#[test]
fn an_open_network_takes_as_long_as_jackson_says() {
    // A fast first stage; then 0.6 of the requests go to one device and 0.4 to another, each by chance.
    for rate in [1.2, 1.45] {
        let (requests, replications) = size(rate * 0.6);
        let base = Case::chain(&[Costs::fixed(0.0); 3], 1, poisson(1.0, 1, 1, 1));
        let mut case = case(base, rate, requests);
        case.layers[2] = case.layers[1];
        case.routes = vec![(vec![0, 1], 0.6), (vec![0, 2], 0.4)];
        case.adjust = fast_first;
        case.serving.requests_max = 4_000;
        case.batch = Some(1);
        let found = replicated(&case, replications, RouterName::Random, sojourn);
        let queue = |arrivals: f64, service: f64| service / (1.0 - arrivals * service);
        let theory = queue(rate, 0.5) + 0.6 * queue(rate * 0.6, 1.0) + 0.4 * queue(rate * 0.4, 1.0);
        agrees(&format!("Jackson at {:.2}, {:.2}, {:.2}", rate / 2.0, rate * 0.6, rate * 0.4), found, theory);
    }
}

#[test]
fn a_device_is_busy_for_the_share_of_time_that_its_load_is() {
    fn busy(trace: &Trace) -> f64 {
        trace.devices[0].busy_ns.seconds() / trace.end_ns.seconds()
    }
    let (requests, replications) = size(0.5);
    let (found, _) = replicated(&chain(1, m, 0.8, requests), replications, RouterName::Share, busy);
    // 800 000 requests: one standard error is 0.15 %.
    assert!((found / 0.8 - 1.0).abs() < 0.004, "{found}");
}
