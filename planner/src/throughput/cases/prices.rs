//! The ways to use devices on a layer, and what devices pay in one case.

use super::super::clip::{Span, Weights};
use super::{Counted, Division, Rule, Way};

/// What devices pay at some worths and values.
pub(super) struct Prices {
    /// By class and way: on all layers.
    pub pays: Vec<Vec<f64>>,
    /// By class and way: on a layer.
    each: Vec<Vec<f64>>,
    /// What layers of each site alone are let off.
    pub let_off: Vec<f64>,
}

impl Prices {
    /// Under the rules of a case.
    pub fn new(division: &Division, rules: &[Rule], worths: &[f64], values: &[f64]) -> Self {
        let mut let_off = vec![0.0; division.sites.len()];
        for (rule, value) in rules.iter().zip(values) {
            if let Counted::Alone(site) = rule.counted {
                let_off[site] += value;
            }
        }
        let (mut pays, mut each) = (Vec::new(), Vec::new());
        for (c, class) in division.classes.iter().enumerate() {
            let counted: Vec<(&Rule, f64)> = rules
                .iter()
                .zip(values.iter().copied())
                .filter(|(rule, _)| matches!(rule.counted, Counted::Holding(of, _) if of == c))
                .collect();
            let of_way = |way: &Way| {
                let counted = counted.iter().filter(|(rule, _)| Division::counts(rule, c, way.held));
                (worths[c] + counted.map(|(_, v)| v).sum::<f64>()).max(0.0)
            };
            let here: Vec<f64> = class.ways.iter().map(of_way).collect();
            each.push(class.ways.iter().zip(&here).map(|(way, pays)| pays / way.weight).collect());
            pays.push(here);
        }
        Self { pays, each, let_off }
    }

    /// What a known cover pays, and is let off.
    pub fn paid(&self, division: &Division, position: usize) -> f64 {
        let paid: f64 = division.known[position].iter().map(|(&(c, way), &n)| self.each[c][way] * n as f64).sum();
        paid + division.site_of[position].map_or(0.0, |site| self.let_off[site])
    }
}

/// The fastest way of each weight, heaviest first.
pub(super) fn ways(spans: &[Span], weights: Weights) -> Vec<Way> {
    let mut ways: Vec<Way> =
        spans.iter().map(|&span| Way { held: span.held, weight: weights.of(span), rate: span.rate }).collect();
    ways.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(b.held.cmp(&a.held)).then(b.rate.total_cmp(&a.rate)));
    ways.dedup_by(|next, kept| (next.weight, next.held) == (kept.weight, kept.held));
    ways
}
