//! A simulation as text.

use crate::ui::table;
use isotherm_core::percentile::Percentile;
use isotherm_core::record::{Attribution, CacheMoves, Goodput, Reliability, Sensitivity, SimulationReport};
use isotherm_core::trace::Statistic;
use isotherm_core::units::Seconds;

/// The report as text.
pub fn describe(report: &SimulationReport) -> String {
    let mut text = format!("{}, {}\n", counted(report.requests.into(), "request"), counted(report.seeds.into(), "run"));
    if let Some(failed) = report.reliability.map(|tally| tally.failed_requests).filter(|&failed| failed > 0) {
        let all = u64::from(report.requests) * u64::from(report.seeds);
        text.push_str(&format!("{} of {all} requests answered\n", all.saturating_sub(failed)));
    }
    text.push('\n');
    let heading = ["metric", "mean", "p50", "p90", "p99", "95 % interval"].map(str::to_owned).to_vec();
    let mut rows = vec![heading];
    rows.extend(report.metrics.iter().map(|(name, statistic)| metric_row(name, statistic)));
    text.push_str(&table(&rows, &[1, 2, 3, 4, 5]));
    let heading = ["device", "busy", "energy", "hottest", "throttled", "step times"].map(str::to_owned).to_vec();
    let mut rows = vec![heading];
    let unknown = || "unknown".to_owned();
    rows.extend(report.devices.iter().map(|device| {
        vec![
            device.name.clone(),
            format!("{:.1} %", device.utilisation * 100.0),
            device.energy_joules.map_or_else(unknown, |energy| energy.to_string()),
            device.temperature_max_celsius.map_or_else(unknown, |hottest| hottest.to_string()),
            device.throttled_seconds.map_or_else(unknown, |time| time.to_string()),
            device.timing.to_string(),
        ]
    }));
    text.push('\n');
    text.push_str(&table(&rows, &[1, 2, 3, 4]));
    text.push_str(&percentiles(report));
    for (heading, part) in [
        ("times asked for", report.goodput.as_ref().map(goodput)),
        ("failures", report.reliability.as_ref().map(reliability)),
        ("cache that moved", report.moves.as_ref().map(moves)),
        ("where the time went", report.attribution.as_ref().map(attribution)),
        ("what the prediction hangs on", report.sensitivity.as_ref().map(sensitivity)),
    ] {
        if let Some(part) = part.filter(|part| !part.is_empty()) {
            text.push_str(&format!("\n{heading}\n{part}"));
        }
    }
    text.push_str(&format!("\n  digest {}\n", report.digest));
    text
}

/// So many of something.
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn metric_row(name: &str, statistic: &Statistic) -> Vec<String> {
    let show = |value: f64| {
        if name.ends_with("_seconds") && value.is_finite() {
            Seconds::of(value).to_string()
        } else {
            format!("{value:.2}")
        }
    };
    vec![
        name.to_owned(),
        show(statistic.mean),
        show(statistic.p50),
        show(statistic.p90),
        show(statistic.p99),
        statistic.ci95.map_or_else(|| "-".to_owned(), |half| format!("± {}", show(half))),
    ]
}

fn seconds(value: f64) -> String {
    Seconds::new(value).map_or_else(|_| "-".to_owned(), |value| value.to_string())
}

/// The percentiles beyond those of the table above, each with its interval, and whether there are enough requests.
fn percentiles(report: &SimulationReport) -> String {
    let heading = ["percentile", "value", "95 % interval", "over runs", "requests"].map(str::to_owned).to_vec();
    let mut rows = vec![heading];
    for (name, percentiles) in &report.percentiles {
        rows.extend(percentiles.iter().filter(|p| p.percent > 90.0).map(|p| percentile_row(name, p)));
    }
    if rows.len() > 1 { format!("\n{}", table(&rows, &[1, 2, 3])) } else { String::new() }
}

fn percentile_row(name: &str, p: &Percentile) -> Vec<String> {
    let enough = if p.is_supported() {
        p.queries.to_string()
    } else {
        format!("{} of {} that MLPerf's rule wants", p.queries, p.queries_min)
    };
    vec![
        format!("{name} p{}", p.percent),
        seconds(p.value),
        p.interval.map_or_else(|| "-".to_owned(), |(low, high)| format!("{} .. {}", seconds(low), seconds(high))),
        p.ci95.map_or_else(|| "-".to_owned(), |half| format!("± {}", seconds(half))),
        enough,
    ]
}

fn moves(moves: &CacheMoves) -> String {
    let mut text = String::new();
    if moves.swapped_out > 0 {
        let (out, back, bytes) = (moves.swapped_out, moves.swapped_in, moves.swapped_bytes);
        text.push_str(&format!("  swapped out {out} times and in {back} times, {bytes}\n"));
    }
    if moves.handed_over > 0 {
        let (count, bytes) = (counted(moves.handed_over, "request"), moves.handed_over_bytes);
        text.push_str(&format!("  {count} handed over from prefill to decode, {bytes}\n"));
    }
    if text.is_empty() { "  none\n".to_owned() } else { text }
}

fn goodput(goodput: &Goodput) -> String {
    let limit = |limit: Option<Seconds>| limit.map_or_else(|| "any".to_owned(), |limit| format!("at most {limit}"));
    let half = goodput.ci95.map_or_else(String::new, |half| format!(" ± {:.1} %", half * 100.0));
    format!(
        "  ttft {}, tpot {}: kept by {} of {} requests, {:.1} %{half}, {:.3} /s\n",
        limit(goodput.slo.ttft),
        limit(goodput.slo.tpot),
        goodput.kept,
        goodput.requests,
        goodput.share * 100.0,
        goodput.requests_per_second
    )
}

fn reliability(tally: &Reliability) -> String {
    let recovery = match (tally.recovery_seconds_mean(), tally.recovery_seconds_max) {
        (Some(mean), Some(most)) => format!("{mean} on average, {most} at most"),
        _ if tally.outages > 0 || tally.failed_requests > 0 => "never recovered".to_owned(),
        _ => "none was needed".to_owned(),
    };
    format!(
        "  {}; routes available {:.3} % of the time, at least one {:.3} %\n  \
         {} answered with an error, {} computed again with {} tokens of lost cache\n  time to recover: {recovery}\n",
        counted(tally.incidents, "incident"),
        tally.availability() * 100.0,
        if tally.total_seconds > Seconds::ZERO { tally.serving_seconds / tally.total_seconds * 100.0 } else { 100.0 },
        counted(tally.failed_requests, "request"),
        tally.recomputed_requests,
        tally.recomputed_tokens
    )
}

/// Parts below this share of both times are left out of the text; the JSON has them all.
const PART_MIN: f64 = 0.001;

fn attribution(attribution: &Attribution) -> String {
    let sums =
        attribution.parts.iter().fold((0.0, 0.0), |sum, part| (sum.0 + part.ttft_seconds, sum.1 + part.tpot_seconds));
    let share = |part: f64, sum: f64| if sum > 0.0 { part / sum } else { 0.0 };
    let heading = ["cause", "where", "ttft", "", "tpot", ""].map(str::to_owned).to_vec();
    let mut rows = vec![heading];
    for part in &attribution.parts {
        let (ttft, tpot) = (share(part.ttft_seconds, sums.0), share(part.tpot_seconds, sums.1));
        if ttft < PART_MIN && tpot < PART_MIN {
            continue;
        }
        rows.push(vec![
            part.cause.word().to_owned(),
            part.place.clone(),
            seconds(part.ttft_seconds),
            format!("{:.1} %", ttft * 100.0),
            seconds(part.tpot_seconds),
            format!("{:.1} %", tpot * 100.0),
        ]);
    }
    table(&rows, &[2, 3, 4, 5])
}

fn sensitivity(sensitivity: &Sensitivity) -> String {
    let Some(base) = sensitivity.value else { return String::new() };
    let heading = ["figure", "moved by", "", "moves it to", "", "elasticity"].map(str::to_owned).to_vec();
    let mut rows = vec![heading];
    let change = |value: f64| format!("{:+.2} %", (value / base - 1.0) * 100.0);
    for influence in &sensitivity.influences {
        rows.push(vec![
            influence.input.clone(),
            format!("± {:.1} %", influence.share * 100.0),
            if influence.stated { "its spread" } else { "assumed" }.to_owned(),
            change(influence.low),
            change(influence.high),
            format!("{:+.3}", influence.elasticity(base)),
        ]);
    }
    format!("  {}\n{}", sensitivity.metric, table(&rows, &[1, 3, 4, 5]))
}
