//! Numbers as people read them. Nothing here ever shows a number that is not finite.

use isotherm_core::ids::Layers;
use isotherm_core::plan::Plan;
use isotherm_core::units::{Joules, Seconds, TokensPerSecond};

/// The metrics that predictions and runs share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Seconds per output token after the first.
    Tpot,
    /// Seconds to the first token.
    Ttft,
    /// Output tokens per second over a whole run.
    TokensPerSecond,
    /// Seconds from arrival to the last token.
    E2e,
}

impl Metric {
    /// In the order of the page.
    pub(crate) const ALL: [Self; 4] = [Self::Tpot, Self::Ttft, Self::TokensPerSecond, Self::E2e];

    /// The metric of this name, with or without its unit; none for a name nobody here knows.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| name == metric.key() || Some(name) == metric.key().strip_suffix("_seconds"))
    }

    /// Its name in artefacts.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Tpot => "tpot_seconds",
            Self::Ttft => "ttft_seconds",
            Self::TokensPerSecond => "tokens_per_second",
            Self::E2e => "e2e_seconds",
        }
    }

    /// Its name in words.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Tpot => "time per token (TPOT)",
            Self::Ttft => "time to first token (TTFT)",
            Self::TokensPerSecond => "tokens per second",
            Self::E2e => "time to last token",
        }
    }

    /// Its name where there is little room.
    pub(crate) const fn short(self) -> &'static str {
        match self {
            Self::Tpot => "TPOT",
            Self::Ttft => "TTFT",
            Self::TokensPerSecond => "tokens/s",
            Self::E2e => "last token",
        }
    }

    /// Whether larger values are better.
    pub(crate) const fn maximises(self) -> bool {
        matches!(self, Self::TokensPerSecond)
    }

    /// A value with its unit; none where it is not finite.
    pub(crate) fn show(self, value: f64) -> Option<String> {
        match self {
            Self::TokensPerSecond => TokensPerSecond::new(value).ok().map(|rate| rate.to_string()),
            Self::Tpot | Self::Ttft | Self::E2e => seconds(value),
        }
    }
}

/// A time in seconds with a readable unit; none where it is not finite.
pub(crate) fn seconds(value: f64) -> Option<String> {
    Seconds::new(value).ok().map(|time| time.to_string())
}

/// An energy in joules; none where it is not finite.
pub(crate) fn joules(value: f64) -> Option<String> {
    Joules::new(value).ok().map(|energy| energy.to_string())
}

/// A share as a percentage without sign, with one decimal from 0.1 % on; none where it is not finite.
pub(crate) fn percent(share: f64) -> Option<String> {
    let percent = share.abs() * 100.0;
    if !percent.is_finite() {
        return None;
    }
    Some(match percent {
        0.0 => "0 %".to_owned(),
        p if p < 1e-4 => "less than 0.0001 %".to_owned(),
        p if p < 0.1 => format!("{} %", round_to(p, 1)),
        p if p < 100.0 => format!("{p:.1} %"),
        p if p < 1e6 => format!("{p:.0} %"),
        p => format!("{p:.1e} %"),
    })
}

/// A share as a percentage with its sign; none where it is not finite.
pub(crate) fn signed_percent(share: f64) -> Option<String> {
    let shown = percent(share)?;
    Some(match share {
        s if s > 0.0 => format!("+{shown}"),
        s if s < 0.0 => format!("−{shown}"),
        _ => shown,
    })
}

/// A number without unit: four significant digits; none where it is not finite.
pub(crate) fn number(value: f64) -> Option<String> {
    value.is_finite().then(|| match value.abs() {
        v if v != 0.0 && !(1e-4..1e9).contains(&v) => format!("{value:.3e}"),
        _ => round_to(value, 4),
    })
}

/// A count with its digits in groups of three.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

/// A count and its noun, in the plural where there is not exactly one.
pub(crate) fn counted(n: usize, noun: &str) -> String {
    let plural = match noun {
        "entry" => "entries".to_owned(),
        noun => format!("{noun}s"),
    };
    format!("{} {}", count(n as u64), if n == 1 { noun } else { &plural })
}

/// Layers as people count them: first and last, and how many.
pub(crate) fn layers(layers: Layers) -> String {
    match layers.len() {
        0 => "no layers".to_owned(),
        1 => format!("layer {}", layers.start),
        n => format!("layers {}–{} ({n})", layers.start, layers.end.saturating_sub(1)),
    }
}

/// The same where a heading already says that these are layers.
pub(crate) fn layer_range(layers: Layers) -> String {
    match layers.len() {
        0 => "none".to_owned(),
        1 => format!("{} (1)", layers.start),
        n => format!("{}–{} ({n})", layers.start, layers.end.saturating_sub(1)),
    }
}

/// A value, or the range of several.
pub(crate) fn low_high(low: String, high: &str) -> String {
    if low == high { low } else { format!("{low} to {high}") }
}

/// The value of an objective, in words.
pub(crate) fn objective(plan: &Plan, value: f64) -> Option<String> {
    match plan.unit.as_str() {
        "s" => seconds(value),
        "tok/s" => Metric::TokensPerSecond.show(value),
        unit => number(value).map(|shown| format!("{shown} {unit}")),
    }
}

/// The metric that says in a run what the objective says of a plan.
pub(crate) fn objective_metric(plan: &Plan) -> Option<Metric> {
    match plan.objective_name.as_str() {
        "throughput" => Some(Metric::TokensPerSecond),
        name => Metric::named(name),
    }
}

/// At least this many significant digits, no needless zeros, no exponent.
fn round_to(value: f64, significant: i32) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = usize::try_from(significant - 1 - magnitude).unwrap_or(0).min(12);
    let shown = format!("{value:.decimals$}");
    if shown.contains('.') { shown.trim_end_matches('0').trim_end_matches('.').to_owned() } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_sensible_digits() {
        assert_eq!(percent(0.021).as_deref(), Some("2.1 %"));
        assert_eq!(percent(-0.000_4).as_deref(), Some("0.04 %"));
        assert_eq!(percent(0.0).as_deref(), Some("0 %"));
        assert_eq!(signed_percent(-0.03).as_deref(), Some("−3.0 %"));
        assert_eq!(signed_percent(1.5).as_deref(), Some("+150 %"));
        assert_eq!(number(12.3456).as_deref(), Some("12.35"));
        assert_eq!(number(1234.0).as_deref(), Some("1234"));
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(counted(1, "run"), "1 run");
        assert_eq!(counted(2, "entry"), "2 entries");
    }

    #[test]
    fn no_number_that_is_not_finite_is_shown() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(percent(value), None);
            assert_eq!(signed_percent(value), None);
            assert_eq!(number(value), None);
            assert_eq!(seconds(value), None);
            for metric in Metric::ALL {
                assert_eq!(metric.show(value), None);
            }
        }
    }

    #[test]
    fn a_metric_is_known_with_and_without_its_unit() {
        assert_eq!(Metric::named("tpot"), Some(Metric::Tpot));
        assert_eq!(Metric::named("tpot_seconds"), Some(Metric::Tpot));
        assert_eq!(Metric::named("tokens_per_second"), Some(Metric::TokensPerSecond));
        assert_eq!(Metric::named("tokens_per"), None);
    }

    #[test]
    fn layers_are_counted_with_both_ends() {
        assert_eq!(layers(Layers::new(0, 14)), "layers 0–13 (14)");
        assert_eq!(layers(Layers::new(3, 4)), "layer 3");
        assert_eq!(layers(Layers::new(4, 4)), "no layers");
    }
}
