//! `isotherm model`: obtain, describe and synthesise model files.

use crate::args::ModelCommand;
use crate::failure::{Code, Done, Failure};
use crate::models;
use crate::ui::{Ui, table};
use isotherm_core::model::Model;
use isotherm_core::units::Bytes;
use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::model::store;
use isotherm_runtime::model::synth::{self, SynthSpec, SynthTokenizer};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Runs the command.
pub fn run(ui: &Ui, command: &ModelCommand) -> Done {
    match command {
        ModelCommand::List => list(ui),
        ModelCommand::Fetch { name } => {
            let path = models::fetch(ui, name)?;
            ui.result(&Fetched { name: name.clone(), path: path.clone() }, || format!("{}\n", path.display()))
        }
        ModelCommand::Show { model } => {
            let local = models::open(ui, model)?;
            ui.result(&local.model, || describe(&local.model, &local.path))
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
    here: Option<PathBuf>,
    bytes: Bytes,
    about: String,
    licence: Option<String>,
}

fn list(ui: &Ui) -> Done {
    let store = models::store()?;
    let mut rows: Vec<Listed> = store::CATALOGUE
        .iter()
        .map(|entry| Listed {
            name: entry.name.to_owned(),
            here: store.find(entry),
            bytes: Bytes(entry.bytes),
            about: entry.about.to_owned(),
            licence: Some(entry.licence.to_owned()),
        })
        .collect();
    for path in store.files().map_err(|e| Failure::io(e.to_string()))? {
        if rows.iter().all(|row| row.here.as_ref() != Some(&path)) {
            let bytes = Bytes(path.metadata().map_or(0, |found| found.len()));
            let about = "a file of yours".to_owned();
            rows.push(Listed { name: models::name_of(&path), here: Some(path), bytes, about, licence: None });
        }
    }
    ui.result(&rows, || {
        let mut cells = vec![["name", "size", "here", "about"].map(str::to_owned).to_vec()];
        cells.extend(rows.iter().map(|row| {
            let here = if row.here.is_some() { "yes" } else { "no: isotherm model fetch" };
            vec![row.name.clone(), row.bytes.to_string(), here.to_owned(), row.about.clone()]
        }));
        format!("{}\n  folder: {}\n", table(&cells, &[1]), store.folder().display())
    })
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
