//! What less memory for weights costs: a bench of `isotherm bench runtime --speed --weights-budget SIZE`.
//!
//! A device decodes with everything held, and with as many layers elsewhere as the budget asks for: the processor's in
//! a file, a card's in the host's memory. The token's time and, of a card, its memory are predicted from the run with
//! everything held, from the layers' bytes and from how quickly they come, and stand beside what the other run took.

use super::speed::{self, Load, Seen, Side};
use crate::failure::{Code, Failure};
use crate::models;
use isotherm_core::offload;
use isotherm_core::units::Bytes;
use isotherm_runtime::engine::Card;
use isotherm_runtime::probe::offload::to_card;
use serde::Serialize;

/// Memory of a card.
#[derive(Serialize)]
struct OnCard {
    /// In use with everything held: by the driver's word, of all programs; where it says nothing, by our own count.
    all: Bytes,
    /// The same within the budget, less what plans count as saved: layers elsewhere, without their two buffers.
    predicted: Bytes,
    measured: Bytes,
}

/// What less memory costs.
#[derive(Serialize)]
pub(super) struct Slower {
    arithmetic: &'static str,
    budget: Bytes,
    held: Bytes,
    layers_away: usize,
    /// Bytes per second at which layers came.
    read_rate: f64,
    tpot_held: f64,
    /// The longer of computing and bringing; both, where a card does not do one beside the other.
    tpot_predicted: f64,
    tpot_measured: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    card: Option<OnCard>,
}

/// Decoding with everything held, and with a budget.
pub(super) fn slower(side: &Side<'_>, budget: Bytes) -> Result<Slower, Failure> {
    let model = &side.model.model;
    let layers: Vec<u64> = model.layer_bytes.iter().map(|bytes| bytes.0).collect();
    let Some(card) = &side.device.card else {
        // What is refused is refused at once.
        let less = side.round(Load::Within(budget))?;
        let tpot_held = speed::median(&mut side.round(Load::All)?.token);
        let figures = less.offloaded.unwrap_or_default();
        let time = figures.reading.unwrap_or_default().as_secs_f64();
        let rate = figures.read_bytes as f64 / time.max(1e-9);
        let foretold = Foretold { rate, tpot_held, card: None };
        return Ok(foretold.beside(side, budget, &layers, &less));
    };
    let ends = model.embedding_bytes.0 + if model.tied { 0 } else { model.head_bytes.0 };
    let away = fewest(&layers, ends, budget).map_err(|least| {
        let what =
            format!("--weights-budget is {budget}; with as many layers elsewhere as there can be, it takes {least}");
        Failure::new(Code::Usage, what).remedy("give at least that much")
    })?;
    let largest = layers.iter().max().copied().unwrap_or(0);
    let rate = rate(card, largest)?;
    let mut held = side.round(Load::All)?;
    let less = side.round(Load::Away(away))?;
    let saved = saved(&layers, away);
    let memory = held.card_bytes.zip(less.card_bytes).map(|(all, measured)| OnCard {
        all: Bytes(all),
        predicted: Bytes(all.saturating_sub(saved)),
        measured: Bytes(measured),
    });
    let tpot_held = speed::median(&mut held.token);
    Ok(Foretold { rate, tpot_held, card: Some((card.platform.refills_beside(), memory)) }
        .beside(side, budget, &layers, &less))
}

/// As few layers elsewhere as let the others, the buffers and `ends` fit a budget; else the least that would.
fn fewest(layers: &[u64], ends: u64, budget: Bytes) -> Result<usize, Bytes> {
    let away = offload::fewest(layers, budget.0.saturating_sub(ends));
    let need = |away| ends.saturating_add(offload::held(layers, &offload::spread(layers.len(), away)));
    if need(away) <= budget.0 {
        return Ok(away);
    }
    Err(Bytes((0..=layers.len()).map(need).min().unwrap_or(ends)))
}

/// Bytes that a device holds less with so many layers elsewhere, buffers counted.
fn saved(layers: &[u64], away: usize) -> u64 {
    let all: u64 = layers.iter().sum();
    all.saturating_sub(offload::held(layers, &offload::spread(layers.len(), away)))
}

/// Seconds of a token: the longer of computing and bringing where both go on at once, else both.
fn token(held: f64, bringing: f64, beside: bool) -> f64 {
    if beside { held.max(bringing) } else { held + bringing }
}

/// What a token within the budget is foretold from.
struct Foretold {
    /// Bytes per second at which layers come.
    rate: f64,
    /// Seconds of a token with everything held.
    tpot_held: f64,
    /// Of a card, whether it is refilled while it computes, and its memory.
    card: Option<(bool, Option<OnCard>)>,
}

impl Foretold {
    /// The same beside what was seen.
    fn beside(self, side: &Side<'_>, budget: Bytes, layers: &[u64], less: &Seen) -> Slower {
        let figures = less.offloaded.unwrap_or_default();
        let (refills_beside, card) = self.card.unwrap_or((true, None));
        let bringing = if figures.pass_bytes == 0 { 0.0 } else { figures.pass_bytes as f64 / self.rate };
        let held = if figures.away == 0 { layers.iter().sum() } else { figures.held_bytes };
        Slower {
            arithmetic: side.arithmetic.name(),
            budget,
            held: Bytes(held),
            layers_away: figures.away,
            read_rate: self.rate,
            tpot_held: self.tpot_held,
            tpot_predicted: token(self.tpot_held, bringing, refills_beside && figures.beside),
            tpot_measured: speed::median(&mut less.token.clone()),
            card,
        }
    }
}

/// Bytes per second of pieces of the size of a layer, copied to the card while nothing else is done.
fn rate(card: &Card, layer_bytes: u64) -> Result<f64, Failure> {
    let failed = |e| Failure::new(Code::Device, format!("failed to copy to the card: {}", models::causes(&e)));
    let rate = to_card(card, layer_bytes, "").map_err(failed)?;
    rate.map(|rate| rate.value.value()).ok_or_else(|| Failure::io("copies to the card took no time that can be told"))
}

impl Slower {
    /// A line of text.
    pub(super) fn line(&self) -> String {
        let memory = self.card.as_ref().map_or_else(String::new, |card| {
            format!(
                "; memory of the card {} predicted, {} measured, {} with all held",
                card.predicted, card.measured, card.all
            )
        });
        format!(
            "  {} within {}: {} of layers and buffers held, {} layers brought at {:.1} GB/s, {:.2} ms a token predicted, {:.2} \
             measured, {:.2} with all held{memory}\n",
            self.arithmetic,
            self.budget,
            self.held,
            self.layers_away,
            self.read_rate * 1e-9,
            self.tpot_predicted * 1e3,
            self.tpot_measured * 1e3,
            self.tpot_held * 1e3
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_leaves_as_few_layers_elsewhere_as_it_must_and_is_refused_with_the_least_that_would_do() {
        let layers = [10; 8];
        assert_eq!(fewest(&layers, 5, Bytes(85)), Ok(0));
        assert_eq!(fewest(&layers, 5, Bytes(84)), Ok(3), "two buffers: one or two away save nothing");
        assert_eq!(fewest(&layers, 5, Bytes(25)), Ok(8));
        assert_eq!(fewest(&layers, 5, Bytes(24)), Err(Bytes(25)));
        // Two buffers of the larger are more than both: what holds all takes least.
        assert_eq!(fewest(&[10, 30], 0, Bytes(40)), Ok(0));
        assert_eq!(fewest(&[10, 30], 0, Bytes(39)), Err(Bytes(40)));
        assert_eq!((saved(&layers, 0), saved(&layers, 2), saved(&layers, 5)), (0, 0, 30));
    }

    #[test]
    fn bringing_hides_behind_computing_only_where_both_go_on_at_once() {
        assert_eq!((token(2.0, 5.0, true), token(5.0, 2.0, true), token(5.0, 2.0, false)), (5.0, 5.0, 7.0));
    }
}
