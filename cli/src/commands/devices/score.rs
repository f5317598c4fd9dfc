//! One figure for each device, for people: the tokens a second that it would give alone, from its measured profile of the
//! model in question, with the parts that make it up. A device that was not measured has none.

use crate::models::LocalModel;
use crate::ui::table;
use isotherm_core::cost::StepShape;
use isotherm_core::device::Device;
use isotherm_core::graph::DevicesFile;
use isotherm_core::ids::Layers;
use isotherm_core::units::{Bytes, Seconds};
use serde::Serialize;

/// Context at which it is stated, in tokens.
const CONTEXT: f64 = 128.0;

/// What a device is worth alone.
#[derive(Serialize)]
pub struct Score {
    device: String,
    /// Output tokens a second of one request with the whole model on it.
    tokens_per_second: f64,
    /// Seconds of one token that go into products of the layers.
    dense_seconds: Seconds,
    /// Into attention.
    attention_seconds: Seconds,
    /// Into norm, head and choice.
    head_seconds: Seconds,
    /// Into what every step costs.
    step_seconds: Seconds,
    /// Bytes that the weights take.
    weight_bytes: Bytes,
    /// Whether its memory holds them; unknown where its memory is.
    holds_the_model: Option<bool>,
    /// Largest share by which the profile missed a shape that was measured beside its knots.
    interpolation_error: Option<f64>,
}

impl Score {
    fn of(device: &Device, model: &LocalModel) -> Option<Self> {
        let geometry = model.model.geometry();
        let profile = device.profiles.iter().find(|profile| profile.geometry == geometry)?;
        let layers = model.model.layers();
        let whole = Layers::new(0, layers);
        let token = profile.step(whole, layers, &StepShape::decode(1, CONTEXT));
        let weights = model.model.layer_bytes.iter().map(|bytes| bytes.0).sum::<u64>() + model.model.head_bytes.0;
        let times = f64::from(layers);
        (token.value() > 0.0).then(|| Self {
            device: device.name.clone(),
            tokens_per_second: 1.0 / token.value(),
            dense_seconds: profile.dense_seconds.at(1.0) * times,
            attention_seconds: profile.attention_decode_seconds.at(1.0, CONTEXT) * times,
            head_seconds: profile.head_seconds.at(1.0),
            step_seconds: profile.step_seconds,
            weight_bytes: Bytes(weights),
            holds_the_model: device.memory_bytes.as_ref().map(|memory| memory.value.0 >= weights),
            interpolation_error: profile.conditions.as_ref().and_then(|conditions| conditions.interpolation_error),
        })
    }
}

/// The scores of the devices that were measured with a model, best first.
pub fn scores(file: &DevicesFile, model: &LocalModel) -> Vec<Score> {
    let mut scores: Vec<Score> = file.devices.iter().filter_map(|device| Score::of(device, model)).collect();
    scores.sort_by(|a, b| b.tokens_per_second.total_cmp(&a.tokens_per_second));
    scores
}

/// The scores as text.
pub fn text(scores: &[Score], model: &LocalModel) -> String {
    if scores.is_empty() {
        return format!("  no device was measured with {}; run `isotherm probe --model`\n", model.model.name);
    }
    let heading = ["device", "alone", "layers", "attention", "head", "step", "holds it", "profile misses"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(scores.iter().map(|score| {
        let holds = score.holds_the_model.map_or("unknown", |holds| if holds { "yes" } else { "no" });
        vec![
            score.device.clone(),
            format!("{:.1} tok/s", score.tokens_per_second),
            score.dense_seconds.to_string(),
            score.attention_seconds.to_string(),
            score.head_seconds.to_string(),
            score.step_seconds.to_string(),
            holds.to_owned(),
            score.interpolation_error.map_or_else(|| "unknown".to_owned(), |error| format!("{:.1} %", error * 100.0)),
        ]
    }));
    format!(
        "{}\n  one request of {} at a context of {CONTEXT} tokens\n",
        table(&rows, &[1, 2, 3, 4, 5, 7]),
        model.model.name
    )
}
