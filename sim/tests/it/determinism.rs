//! Same inputs, same report, whatever runs beside and how many threads there are.

use crate::material::{Case, Costs, poisson};
use isotherm_core::conditions::{
    Between, CrossTraffic, Failure, LinkCondition, Moment, Place, Severity, Spread, Target,
};
use isotherm_core::device::Device;
use isotherm_core::record::SimulationReport;
use isotherm_core::units::Seconds;
use isotherm_core::workload::Length;
use isotherm_sim::policy::PolicyName;
use isotherm_sim::{Options, simulate};

fn case() -> Case {
    let costs = [
        Costs { step: 2.1, token: 0.3, cached: 0.01, head: 0.7, embedding: 0.01 },
        Costs { step: 1.7, token: 0.2, cached: 0.02, head: 0.9, embedding: 0.01 },
    ];
    let mut case = Case::chain(&costs, 3, poisson(4.0, 300, 1, 1));
    case.workload.prompt_tokens = Length { min: 3, max: 60 };
    case.workload.output_tokens = Length { min: 1, max: 40 };
    case.serving.requests_max = 6;
    case.serving.step_tokens_max = 24;
    case.co_run = vec![1.0, 1.3];
    case.adjust = crate::heat::warm;
    case
}

fn with_threads(threads: usize) -> SimulationReport {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    pool.install(|| case().report(&Options { seed: 11, seeds: 8, trace: true, ..Options::default() }))
}

#[test]
fn a_report_is_the_same_at_any_number_of_threads() {
    let one = with_threads(1);
    assert_eq!(one, with_threads(2));
    assert_eq!(one, with_threads(4));
    assert!(one.metrics["ttft_seconds"].ci95.is_some_and(|half| half > 0.0));
}

#[test]
fn a_seed_fixes_a_run_and_another_seed_is_another_run() {
    let digest = |seed, seeds| case().report(&Options { seed, seeds, ..Options::default() }).digest;
    assert_eq!(digest(3, 2), digest(3, 2));
    assert_ne!(digest(3, 2), digest(4, 2));
    assert_ne!(digest(3, 2), digest(3, 3));
}

#[test]
fn watching_a_run_does_not_change_it() {
    let watched = case().report(&Options { seeds: 2, trace: true, ..Options::default() });
    let alone = case().report(&Options { seeds: 2, ..Options::default() });
    assert_eq!((watched.digest, &watched.metrics), (alone.digest, &alone.metrics));
    assert_eq!(alone.trace, None);
}

/// Pinned, so that a change of the order of events, of the generator or of any rounding is noticed. Change it together
/// with what changed, and say why.
#[test]
fn a_known_run_has_the_digest_it_always_had() {
    let report = case().report(&Options { seed: 1, ..Options::default() });
    assert_eq!(report.digest.short(), "79dbb4ca7e84");
}

/// Pinned as above, for every policy, and for what moves, fails, warms and shares. A build without optimisation must give
/// the same: `make campaign` makes one and runs this.
#[test]
fn every_policy_and_every_condition_has_the_digest_it_always_had() {
    let mut found = Vec::new();
    for policy in PolicyName::ALL {
        let mut case = case();
        (case.serving.step_tokens_max, case.serving.kv_blocks) = (64, Some(4_000));
        let report = case.report(&Options { seed: 5, seeds: 2, policy, ..Options::default() });
        found.push((policy.name(), report.digest.short()));
    }
    let mut swapping = case();
    swapping.serving.kv_blocks = Some(9);
    swapping.serving.kv_swap_blocks = Some(6);
    let adjust = |i: usize, device: &mut Device| {
        crate::heat::warm(i, device);
        device.host = "driver".into();
    };
    swapping.adjust = adjust;
    let report = swapping.report(&Options { seed: 5, ..Options::default() });
    assert!(report.moves.is_some_and(|moves| moves.swapped_out > 0), "{:?}", report.moves);
    found.push(("swapping", report.digest.short()));
    let case = case();
    let mut problem = case.problem();
    let link = Between { from: "d0".into(), to: "d1".into() };
    problem.conditions.links = vec![LinkCondition {
        link: link.clone(),
        jitter: Some(Spread::Lognormal { median: Seconds::of(1e-3), sigma: 0.7 }),
        loss: Some(0.02),
    }];
    let on_off = Some((Seconds::of(0.2), Seconds::of(0.4)));
    problem.conditions.cross_traffic = vec![CrossTraffic { place: Place::Link(link), share: 0.4, on_off }];
    let moment = Moment::Random { mean_between: Seconds::of(3.0), mean_repair: Seconds::of(0.1) };
    let target = Target::Device("d1".into());
    problem.conditions.failures = vec![Failure { target, severity: Severity::Lost, moment }];
    let options = Options { seed: 5, seeds: 2, ..Options::default() };
    let report = simulate(&case.plan(&problem), &problem, &case.workload, &options).expect("simulates");
    found.push(("conditions", report.digest.short()));
    let pinned = include_str!("digests.txt");
    let found: String = found.iter().map(|(what, digest)| format!("{what} {digest}\n")).collect();
    assert_eq!(found, pinned);
}
