//! `isotherm model`: obtain, describe and synthesise model files.

mod perplexity;

use crate::args::ModelCommand;
use crate::failure::{Code, Done, Failure};
use crate::models;
use crate::ui::{Ui, table};
use isotherm_core::model::Model;
use isotherm_core::units::Bytes;
use isotherm_runtime::host::{Host, Roots};
use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::model::store;
use isotherm_runtime::model::synth::{self, SynthSpec, SynthTokenizer};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Runs the command.
pub fn run(ui: &Ui, command: &ModelCommand) -> Done {
    match command {
        ModelCommand::List { folder, context } => list(ui, folder.as_deref(), *context),
        ModelCommand::Fetch { name } => {
            let path = models::fetch(ui, name)?;
            ui.result(&Fetched { name: name.clone(), path: path.clone() }, || format!("{}\n", path.display()))
        }
        ModelCommand::Show { model } => {
            let local = models::open(ui, model)?;
            ui.result(&local.model, || describe(&local.model, &local.path))
        }
        ModelCommand::Perplexity { model, text, tokens, skip_reference } => {
            perplexity::run(ui, model, text.as_deref(), *tokens, *skip_reference)
        }
        ModelCommand::Synth { geometry, output, quantisation, seed } => {
            synthesise(geometry, output, quantisation, *seed)?;
            ui.result(&Fetched { name: geometry.clone(), path: output.clone() }, || format!("{}\n", output.display()))
        }
    }
}

#[derive(Serialize)]
struct Fetched {
    name: String,
    path: PathBuf,
}

#[derive(Serialize)]
struct Listed {
    name: String,
    keeper: &'static str,
    here: Option<PathBuf>,
    bytes: Bytes,
    /// What the file says; absent where it is not here or cannot be run.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Shape>,
    about: String,
    licence: Option<String>,
}

#[derive(Serialize)]
struct Shape {
    architecture: String,
    layers: u32,
    hidden: u32,
    quantisation: String,
    /// Weights, and cache for the context asked for.
    memory_bytes: Bytes,
    /// Whether so much is free now; absent where nobody knows.
    fits: Option<bool>,
}

fn list(ui: &Ui, folder: Option<&Path>, context: u32) -> Done {
    let store = models::store()?;
    let free = Host::discover(&Roots::default()).memory_available_bytes;
    let mut rows: Vec<Listed> = Vec::new();
    for entry in &store::CATALOGUE {
        let here = store.find(entry);
        let (model, _) = here.as_deref().map_or((None, None), |path| look(path, context, free));
        rows.push(Listed {
            name: entry.name.to_owned(),
            keeper: "isotherm",
            model,
            here,
            bytes: Bytes(entry.bytes),
            about: entry.about.to_owned(),
            licence: Some(entry.licence.to_owned()),
        });
    }
    let own = store.files().map_err(|e| Failure::io(e.to_string()))?;
    let own = own.into_iter().map(|path| (models::name_of(&path), "isotherm", path));
    let others = models::elsewhere(folder).into_iter().map(|found| (found.name, found.keeper.name(), found.path));
    for (name, keeper, path) in own.chain(others) {
        if rows.iter().any(|row| row.here.as_ref() == Some(&path)) {
            continue;
        }
        let bytes = Bytes(path.metadata().map_or(0, |found| found.len()));
        let (model, why) = look(&path, context, free);
        let about = why.unwrap_or_else(|| "a file of yours".to_owned());
        rows.push(Listed { name, keeper, here: Some(path), bytes, model, about, licence: None });
    }
    ui.result(&rows, || {
        let heading = ["name", "kept by", "size", "shape", "format", "fits", "about"].map(str::to_owned);
        let mut cells = vec![heading.to_vec()];
        cells.extend(rows.iter().map(Listed::cells));
        let free = free.map_or_else(|| "unknown".to_owned(), |free| free.to_string());
        format!(
            "{}\n  fits: weights and {context} tokens of cache in the memory that is free now ({free})\n  folder: {}\n",
            table(&cells, &[2]),
            store.folder().display()
        )
    })
}

impl Listed {
    fn cells(&self) -> Vec<String> {
        let none = || "-".to_owned();
        let (shape, format, fits) = match (&self.model, &self.here) {
            (Some(model), _) => (
                format!("{} {} x {}", model.architecture, model.layers, model.hidden),
                model.quantisation.clone(),
                model.fits.map_or("unknown", |fits| if fits { "yes" } else { "no" }).to_owned(),
            ),
            (None, Some(_)) => (none(), none(), none()),
            (None, None) => (none(), none(), "not here".to_owned()),
        };
        let about = if self.here.is_none() {
            format!("isotherm model fetch {}: {}", self.name, self.about)
        } else {
            self.about.clone()
        };
        vec![self.name.clone(), self.keeper.to_owned(), self.bytes.to_string(), shape, format, fits, about]
    }
}

/// What a model file says, or why it cannot be run.
fn look(path: &Path, context: u32, free: Option<Bytes>) -> (Option<Shape>, Option<String>) {
    match models::describe(path) {
        Err(why) => (None, Some(format!("cannot be run: {why}"))),
        Ok(model) => {
            let tokens = u64::from(context.min(model.context_max)) * u64::from(model.layers());
            let cache = model.kv_bytes_per_token_layer().saturating_mul(tokens);
            let memory_bytes = model.weight_bytes(model.all_layers()).saturating_add(cache);
            let shape = Shape {
                architecture: model.architecture.clone(),
                layers: model.layers(),
                hidden: model.hidden,
                quantisation: model.quantisation.clone(),
                memory_bytes,
                fits: free.map(|free| memory_bytes <= free),
            };
            (Some(shape), None)
        }
    }
}

/// Writes a model with random weights and a small built-in tokenizer.
pub fn synthesise(geometry: &str, output: &Path, quantisation: &str, seed: u64) -> Done {
    let usage = |message: String| Failure::new(Code::Usage, message);
    let shape = synth::named(geometry)
        .ok_or_else(|| usage(format!("{geometry:?} is no known geometry; use one of {}", synth::NAMES.join(", "))))?;
    let format =
        BlockFormat::ALL.iter().copied().find(|f| f.name().eq_ignore_ascii_case(quantisation)).ok_or_else(|| {
            let known: Vec<&str> = BlockFormat::ALL.iter().map(|f| f.name()).collect();
            usage(format!("{quantisation:?} is no known format; use one of {}", known.join(", ")))
        })?;
    let spec =
        SynthSpec { geometry: &shape, format, embedding: BlockFormat::Q8_0, seed, tokenizer: SynthTokenizer::Small };
    synth::write(output, &spec).map_err(|e| Failure::file(output, models::causes(&e)))
}

fn describe(model: &Model, path: &Path) -> String {
    let body: Bytes = model.layer_bytes.iter().copied().sum();
    let heads = format!("{} heads of {}, {} for keys and values", model.heads, model.head_size, model.kv_heads);
    let head = if model.tied { "the embedding (tied)".to_owned() } else { model.head_bytes.to_string() };
    let rows = [
        ("name", model.name.clone()),
        ("file", path.display().to_string()),
        ("digest", model.digest.map_or_else(|| "unknown".to_owned(), |digest| digest.to_string())),
        ("architecture", model.architecture.clone()),
        ("layers", format!("{} of {} wide, {} in all", model.layers(), model.hidden, body)),
        ("attention", heads),
        ("feed-forward", model.feed_forward.to_string()),
        ("vocabulary", format!("{} tokens; embedding {}, head {head}", model.vocabulary, model.embedding_bytes)),
        ("format", model.quantisation.clone()),
        (
            "context",
            format!(
                "{} tokens, {} of cache each",
                model.context_max,
                model.kv_bytes_per_token_layer().saturating_mul(model.layers().into())
            ),
        ),
    ];
    rows.iter().map(|(name, value)| format!("  {name:<13} {value}\n")).collect()
}
