//! From replications to a report.

use crate::Options;
use crate::sample::{Ranked, Sample};
use crate::setup::Setup;
use crate::tally::Tally;
use crate::world::Outcome;
use isotherm_core::artefact::Header;
use isotherm_core::conditions::Slo;
use isotherm_core::digest::Digest;
use isotherm_core::percentile::{PERCENTS, Percentile};
use isotherm_core::plan::Plan;
use isotherm_core::record::{
    Attribution, CacheMoves, DeviceSummary, Goodput, Reliability, SIMULATION_SCHEMA, SimulationReport,
};
use isotherm_core::trace::Statistic;
use isotherm_core::units::{Joules, Seconds};
use isotherm_core::workload::replay::Replay;

/// The report on a plan's replications, in their order.
pub fn report(plan: &Plan, setup: &Setup<'_>, outcomes: Vec<Outcome>, options: &Options) -> SimulationReport {
    let plan_digest = plan.digest();
    let mut inputs = vec![plan_digest];
    inputs.extend(setup.problem.inputs.iter().copied());
    inputs.extend(setup.recording.map(Replay::digest));
    let digests: Vec<u8> = outcomes.iter().flat_map(|outcome| *outcome.digest.bytes()).collect();
    let reliability = outcomes.iter().filter_map(|outcome| outcome.reliability).reduce(Reliability::with);
    let moves = outcomes.iter().filter_map(|outcome| outcome.moves).reduce(CacheMoves::with);
    let attribution = attribution(setup, &outcomes);
    let rates = outcomes.iter().filter_map(|outcome| outcome.tally.tokens_per_second());
    let rates: Vec<Sample> = rates.map(|rate| std::iter::once(rate).collect()).collect();
    let of = |samples: fn(&Tally) -> &Sample| Merged::of(outcomes.iter().map(|outcome| samples(&outcome.tally)));
    let merged = [
        ("ttft_seconds", of(|tally| &tally.ttft)),
        ("tpot_seconds", of(|tally| &tally.tpot)),
        ("e2e_seconds", of(|tally| &tally.e2e)),
        ("tokens_per_second", Merged::of(rates.iter())),
    ];
    let metrics = merged.iter().filter_map(|(name, merged)| Some(((*name).to_owned(), merged.statistic()?)));
    // A run has one rate; percentiles of so few say nothing.
    let times = merged.iter().filter(|(name, merged)| *name != "tokens_per_second" && merged.all.count() > 0);
    let percentiles = times.map(|(name, merged)| ((*name).to_owned(), merged.percentiles())).collect();
    let devices = (0..setup.servers.len()).map(|server| summary(setup, &outcomes, server)).collect();
    SimulationReport {
        header: Header::new(SIMULATION_SCHEMA, inputs),
        plan: plan_digest,
        workload: setup.workload.clone(),
        requests: setup.workload.requests,
        seeds: options.seeds,
        metrics: metrics.collect(),
        percentiles,
        goodput: goodput(&setup.problem.conditions.slo, &outcomes, setup.workload.requests),
        devices,
        attribution,
        sensitivity: None,
        reliability,
        moves,
        trace: outcomes.into_iter().next().filter(|_| options.trace).map(|outcome| outcome.trace),
        digest: Digest::of(&digests),
    }
}

/// Requests that kept the times asked for, of all that a run has.
fn goodput(slo: &Slo, outcomes: &[Outcome], of_run: u32) -> Option<Goodput> {
    if slo.is_none() {
        return None;
    }
    let counts: Vec<u64> = outcomes.iter().map(|outcome| outcome.tally.kept).collect();
    let shares: Vec<f64> = counts.iter().map(|&kept| kept as f64 / f64::from(of_run)).collect();
    let (kept, requests) = (counts.iter().sum::<u64>(), u64::from(of_run) * outcomes.len() as u64);
    let seconds: f64 = outcomes.iter().map(|outcome| outcome.trace.end_ns.seconds().value()).sum();
    Some(Goodput {
        slo: *slo,
        requests,
        kept,
        share: kept as f64 / requests as f64,
        ci95: half_width(&shares),
        requests_per_second: if seconds > 0.0 { kept as f64 / seconds } else { 0.0 },
    })
}

/// Where the time of requests went, over all replications.
fn attribution(setup: &Setup<'_>, outcomes: &[Outcome]) -> Option<Attribution> {
    let mut sums = outcomes.iter().filter_map(|outcome| outcome.sums.as_ref());
    let mut all = sums.next()?.clone();
    sums.for_each(|other| all.add(other));
    let servers: Vec<&str> = setup.servers.iter().map(|server| server.name.as_str()).collect();
    let lanes: Vec<_> = setup.layout.lane_ends().collect();
    Some(all.attribution(&servers, &lanes))
}

/// The values of one metric, of all replications together and of each.
struct Merged {
    all: Ranked,
    runs: Vec<Ranked>,
}

impl Merged {
    fn of<'s>(replications: impl Iterator<Item = &'s Sample>) -> Self {
        let (mut all, mut runs) = (Sample::default(), Vec::new());
        for sample in replications.filter(|sample| sample.count() > 0) {
            all.merge(sample);
            runs.push(sample.clone().ranked());
        }
        Self { all: all.ranked(), runs }
    }

    /// Over all values together; the confidence interval is of the replications' means.
    fn statistic(&self) -> Option<Statistic> {
        let means: Vec<f64> = self.runs.iter().filter_map(Ranked::mean).collect();
        Some(Statistic { ci95: half_width(&means), ..self.all.statistic()? })
    }

    /// Of all values together; the confidence intervals are of the replications' percentiles.
    fn percentiles(&self) -> Vec<Percentile> {
        let of = |&percent: &f64| {
            let runs: Vec<f64> = self.runs.iter().filter_map(|run| Some(run.percentile(percent)?.value)).collect();
            Some(Percentile { ci95: half_width(&runs), ..self.all.percentile(percent)? })
        };
        PERCENTS.iter().filter_map(of).collect()
    }
}

/// Half width of the 95 % confidence interval of the mean of independent values; none for fewer than two.
fn half_width(values: &[f64]) -> Option<f64> {
    let freedom = values.len().checked_sub(1).filter(|&n| n > 0)?;
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    Some(student_97_5(freedom) * libm::sqrt(squares / freedom as f64 / values.len() as f64))
}

/// The 97.5 % quantile of Student's t distribution: a table to 10 degrees of freedom (to three decimals, as printed in
/// any book), beyond it the expansion in 1/n about the normal quantile (Abramowitz and Stegun 26.7.5), right to 1e-4
/// there.
fn student_97_5(freedom: usize) -> f64 {
    const TABLE: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    if let Some(&t) = freedom.checked_sub(1).and_then(|i| TABLE.get(i)) {
        return t;
    }
    let (z, n) = (1.959_963_984_540_054, freedom as f64);
    let z3 = z * z * z;
    let z5 = z3 * z * z;
    let z7 = z5 * z * z;
    z + (z3 + z) / (4.0 * n)
        + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * n * n)
        + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * n * n * n)
}

fn summary(setup: &Setup<'_>, outcomes: &[Outcome], server: usize) -> DeviceSummary {
    let known = &setup.servers[server];
    let records = || outcomes.iter().map(|outcome| &outcome.trace.devices[server]);
    let runs = outcomes.len() as f64;
    let total: f64 = outcomes.iter().map(|outcome| outcome.trace.end_ns.seconds().value()).sum();
    let busy: f64 = records().map(|record| record.busy_ns.seconds().value()).sum();
    let energy: Option<Joules> = records().map(|record| record.energy_joules).sum();
    let throttled: Option<Seconds> = records().map(|record| record.throttled_ns.map(|t| t.seconds())).sum();
    DeviceSummary {
        name: known.name.clone(),
        utilisation: if total > 0.0 { busy / total } else { 0.0 },
        energy_joules: energy.map(|energy| energy / runs),
        temperature_max_celsius: records().filter_map(|r| r.temperature_max_celsius).reduce(|a, b| a.max(b)),
        throttled_seconds: throttled.map(|throttled| throttled / runs),
        throttled_after_seconds: records().filter_map(|r| r.throttled_after_ns).min().map(|at| at.seconds()),
        sustained_speed: mean(records().filter_map(|record| record.sustained_speed)),
        timing: known.timing,
        source: known.source.clone(),
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, printed) in
            [(1, 12.706), (10, 2.228), (11, 2.201), (15, 2.131), (29, 2.045), (60, 2.000), (120, 1.980)]
        {
            assert!((student_97_5(freedom) - printed).abs() < 6e-4, "{freedom}: {}", student_97_5(freedom));
        }
    }

    fn sample(values: &[f64]) -> Sample {
        values.iter().copied().collect()
    }

    #[test]
    fn percentiles_are_of_all_values_together() {
        // The mean of the two medians would be 50.5.
        let merged = Merged::of([&sample(&[1.0, 1.0, 1.0]), &sample(&[100.0])].into_iter());
        assert_eq!(merged.percentiles()[0].value, 1.0);
        let merged = merged.statistic().expect("values");
        assert_eq!((merged.p50, merged.p99, merged.mean), (1.0, 100.0, 25.75));
        let by_hand = 12.706 * libm::sqrt(2.0 * 49.5 * 49.5 / 2.0);
        assert!((merged.ci95.expect("two replications") - by_hand).abs() < 1e-9);
    }

    #[test]
    fn one_replication_has_no_confidence_interval() {
        assert_eq!(Merged::of([&sample(&[1.0, 2.0])].into_iter()).statistic().expect("values").ci95, None);
        assert_eq!(Merged::of(std::iter::empty()).statistic(), None);
    }
}
