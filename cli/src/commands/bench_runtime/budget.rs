//! What less memory for weights costs: a bench of `isotherm bench runtime --speed --weights-budget SIZE`.
//!
//! A device decodes with everything held, and with as many layers elsewhere as the budget asks for: the processor's in a
//! file, a card's in the host's memory. The token's time and, of a card, its memory are predicted from the first run and
//! from how quickly layers come, and stand beside what the second run took.

use super::speed::{self, Load, Seen};
use crate::args::BenchRuntime;
use crate::failure::Failure;
use crate::models::{self, LocalModel};
use isotherm_core::offload;
use isotherm_core::units::Bytes;
use isotherm_runtime::cpu::Arithmetic;
use isotherm_runtime::engine::{Card, CpuDevice};
use isotherm_runtime::probe::offload::to_card;
use serde::Serialize;

/// Memory of a card.
#[derive(Serialize)]
struct OnCard {
    /// In use with everything held, by the driver's word where it gives one.
    all: Bytes,
    /// The same within the budget: less the layers that are elsewhere, with the buffers that they pass through.
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
pub(super) fn slower(
    args: &BenchRuntime,
    model: &LocalModel,
    device: &CpuDevice,
    arithmetic: Arithmetic,
    budget: Bytes,
) -> Result<Slower, Failure> {
    let round = |load| speed::round_apart(args, model, device, arithmetic, load);
    let held = round(Load::All)?;
    let tpot_held = speed::median(&mut held.token.clone());
    let Some(card) = &device.card else {
        let less = round(Load::Within(budget))?;
        let figures = less.offloaded.unwrap_or_default();
        let rate = figures.read_bytes as f64 / figures.reading.as_secs_f64().max(1e-9);
        let bringing = if figures.away == 0 { 0.0 } else { figures.pass_bytes as f64 / rate };
        return Ok(row(arithmetic, budget, &less, (rate, tpot_held, tpot_held.max(bringing)), None));
    };
    let layers: Vec<u64> = model.model.layer_bytes.iter().map(|bytes| bytes.0).collect();
    let ends = model.model.embedding_bytes.0 + if model.model.tied { 0 } else { model.model.head_bytes.0 };
    let away = offload::fewest(&layers, budget.0.saturating_sub(ends));
    let largest = layers.iter().max().copied().unwrap_or(0);
    let least = ends + offload::held(&layers, &offload::spread(layers.len(), layers.len()));
    if budget.0 < least {
        return Err(Failure::new(
            crate::failure::Code::Usage,
            format!("--weights-budget is {budget}; embedding, head and two layers of this model take {}", Bytes(least)),
        )
        .remedy("give at least that much"));
    }
    let rate = rate(card, largest)?;
    let less = round(Load::Away(away))?;
    let brought = less.offloaded.unwrap_or_default().pass_bytes as f64 / rate;
    // Copies go on beside computing where the interface has a way of its own for them.
    let beside = card.platform.name() == "cuda";
    let predicted = if beside { tpot_held.max(brought) } else { tpot_held + brought };
    let saved = layers.iter().sum::<u64>().saturating_sub(offload::held(&layers, &offload::spread(layers.len(), away)));
    let memory = held.card_bytes.zip(less.card_bytes).map(|(all, measured)| OnCard {
        all: Bytes(all),
        predicted: Bytes(all.saturating_sub(saved)),
        measured: Bytes(measured),
    });
    Ok(row(arithmetic, budget, &less, (rate, tpot_held, predicted), memory))
}

fn row(
    arithmetic: Arithmetic,
    budget: Bytes,
    less: &Seen,
    (read_rate, tpot_held, tpot_predicted): (f64, f64, f64),
    card: Option<OnCard>,
) -> Slower {
    let figures = less.offloaded.unwrap_or_default();
    Slower {
        arithmetic: arithmetic.name(),
        budget,
        held: Bytes(figures.held_bytes),
        layers_away: figures.away,
        read_rate,
        tpot_held,
        tpot_predicted,
        tpot_measured: speed::median(&mut less.token.clone()),
        card,
    }
}

/// Bytes per second of pieces of the size of a layer, copied to the card while nothing else is done.
fn rate(card: &Card, layer_bytes: u64) -> Result<f64, Failure> {
    let failed = |e| Failure::io(format!("failed to copy to the card: {}", models::causes(&e)));
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
            "  {} within {}: {} of layers held, {} layers brought at {:.1} GB/s, {:.2} ms a token predicted, {:.2} measured, \
             {:.2} with all held{memory}\n",
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
