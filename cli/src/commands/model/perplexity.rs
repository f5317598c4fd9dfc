//! `isotherm model perplexity`: how well a model foretells a text, and whether fast kernels change that.
//!
//! Perplexity is `exp` of the mean negative logarithm of the probability that the model gives each token after those before
//! it. The same tokens are fed to the kernels in each arithmetic, and to the plain loops that every kernel is judged by.

use crate::failure::{Code, Done, Failure};
use crate::files;
use crate::models;
use crate::ui::{Ui, percent, table};
use isotherm_runtime::cpu::{Arithmetic, Isa, reference};
use isotherm_runtime::engine::{CpuDevice, Cut, Kernels, Runner};
use isotherm_runtime::model::tokenizer::Tokenizer;
use serde::Serialize;
use std::path::Path;

/// What is foretold where no file is given.
const TEXT: &str = "A river does not hurry, and yet it arrives. In spring it carries the snow of the mountains past the old \
mill, where two brothers once ground wheat for the whole valley. The younger one kept the books; the older one kept the bees. \
When the war came, the wheel stopped, and for eleven years nobody lived there but swallows. Then a teacher from the city \
bought the house, mended the roof, and put a small generator where the millstone had been. It gives enough light for six \
rooms and one street lamp. Children who walk home in winter say that the lamp is the first thing they see, long before the \
road turns, and that it never flickers, because water is more patient than wind.";

/// One way of computing.
#[derive(Serialize)]
struct Row {
    arithmetic: &'static str,
    kernels: &'static str,
    perplexity: f64,
    /// Its difference from the plain computation, as a share of it; absent without that.
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<f64>,
}

#[derive(Serialize)]
struct Foretold {
    model: String,
    quantisation: String,
    tokens: usize,
    rows: Vec<Row>,
}

/// Runs the command.
pub(super) fn run(ui: &Ui, model: &str, text: Option<&Path>, tokens: usize, skip_reference: bool) -> Done {
    let model = models::open(ui, model)?;
    let text = text.map_or_else(|| Ok(TEXT.to_owned()), files::read_text)?;
    let tokenizer = Tokenizer::from_gguf(&model.gguf).map_err(|e| Failure::file(&model.path, e))?;
    let mut fed = tokenizer.encode_prompt(&text).map_err(|e| Failure::io(e.to_string()))?;
    fed.truncate(tokens.min(model.geometry.context));
    if fed.len() < 2 {
        return Err(Failure::new(Code::Usage, "one token foretells nothing; give a text and --tokens of at least 2"));
    }
    let plain = if skip_reference {
        None
    } else {
        ui.note("  computing plainly, which takes its time");
        let rows = reference::logits::<f32>(&model.gguf, &model.geometry, &fed, 0);
        Some(perplexity(rows.iter().map(Vec::as_slice), &fed))
    };
    let row = |arithmetic, kernels, perplexity: f64| Row {
        arithmetic,
        kernels,
        perplexity,
        difference: plain.map(|plain| perplexity / plain - 1.0),
    };
    let mut rows: Vec<Row> = plain.map(|plain| row("f32", "plain loops", plain)).into_iter().collect();
    let quantised = !matches!(model.model.quantisation.as_str(), "F32" | "F16" | "BF16");
    let ways: &[Arithmetic] = if quantised { &[Arithmetic::F32, Arithmetic::Int8] } else { &[Arithmetic::F32] };
    for &arithmetic in ways {
        let found = by_kernels(&model, arithmetic, &fed)?;
        rows.push(row(arithmetic.name(), Isa::detect().name(), found));
    }
    let quantisation = model.model.quantisation.clone();
    let result = Foretold { model: model.model.name.clone(), quantisation, tokens: fed.len(), rows };
    ui.result(&result, || describe(&result))
}

/// Perplexity of the tokens by logits at each position but the last.
fn perplexity<'a>(rows: impl Iterator<Item = &'a [f32]>, tokens: &[u32]) -> f64 {
    let surprises: Vec<f64> = rows.zip(&tokens[1..]).map(|(row, &next)| surprise(row, next)).collect();
    (surprises.iter().sum::<f64>() / surprises.len().max(1) as f64).exp()
}

/// Minus the logarithm of a token's probability.
fn surprise(row: &[f32], token: u32) -> f64 {
    let largest = row.iter().fold(f32::NEG_INFINITY, |most, &logit| most.max(logit));
    let sum: f64 = row.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
    sum.ln() - f64::from(row[token as usize] - largest)
}

fn by_kernels(model: &models::LocalModel, arithmetic: Arithmetic, tokens: &[u32]) -> Result<f64, Failure> {
    let cut = Cut { layers: 0..model.geometry.layers, device: CpuDevice::new("cpu", CpuDevice::host_cores()) };
    let kernels = Kernels { arithmetic, ..Kernels::detect() };
    let failed = |e: isotherm_runtime::engine::RunnerError| Failure::io(models::causes(&e));
    // Loading binds the calling thread to a core.
    let computed = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let mut runner = Runner::start(&model.gguf, &model.geometry, kernels, &[cut], tokens.len(), 64)?;
                let mut surprises = Vec::new();
                runner.logits(tokens, 0, &mut |position, row| {
                    surprises.extend(tokens.get(position + 1).map(|&next| surprise(row, next)));
                })?;
                Ok(surprises)
            })
            .join()
    });
    let surprises = computed.map_err(|_| Failure::io("the computation ended in a panic"))?.map_err(failed)?;
    Ok((surprises.iter().sum::<f64>() / surprises.len().max(1) as f64).exp())
}

fn describe(result: &Foretold) -> String {
    let mut cells = vec![["arithmetic", "kernels", "perplexity", "difference"].map(str::to_owned).to_vec()];
    cells.extend(result.rows.iter().map(|row| {
        let difference = row.difference.map_or_else(
            || "-".to_owned(),
            |share| {
                if share.abs() < 1e-4 { format!("{:+.5} %", share * 100.0) } else { percent(share) }
            },
        );
        vec![row.arithmetic.to_owned(), row.kernels.to_owned(), format!("{:.4}", row.perplexity), difference]
    }));
    format!("{}\n  {} in {}, {} tokens\n", table(&cells, &[2, 3]), result.model, result.quantisation, result.tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_knows_nothing_is_as_perplexed_as_it_has_tokens() {
        let rows = [[0.5_f32; 7]; 3];
        let found = perplexity(rows.iter().map(<[f32; 7]>::as_slice), &[0, 3, 6, 1]);
        assert!((found - 7.0).abs() < 1e-9);
    }

    #[test]
    fn a_model_that_is_sure_and_right_is_not_perplexed() {
        let row = [0.0_f32, 100.0, 0.0];
        assert!((perplexity([row.as_slice()].into_iter(), &[0, 1]) - 1.0).abs() < 1e-9);
    }
}
