//! Material that tests take from outside the repository: the real model and the reference data.
//!
//! Whatever is absent is skipped aloud, never silently.

use std::path::{Path, PathBuf};

use isotherm_runtime::model::gguf::Gguf;

const MODEL_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const MODEL_DATA: &str = "data/models/smollm2-135m-instruct-q4_1";

/// The real test model: the file `ISOTHERM_MODEL` names, or else the one in the user's cache.
pub fn real_model(test: &str) -> Option<Gguf> {
    let path = real_model_path(test)?;
    Some(Gguf::open(&path).expect("the real model opens"))
}

/// Where the real test model is.
pub fn real_model_path(test: &str) -> Option<PathBuf> {
    let named = std::env::var_os("ISOTHERM_MODEL").map(PathBuf::from);
    let home = std::env::var_os("ISOTHERM_HOME").map(|home| Path::new(&home).join("models"));
    let xdg = std::env::var_os("XDG_CACHE_HOME").map(|cache| Path::new(&cache).join("isotherm/models"));
    let user = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/isotherm/models"));
    let cached = home.or(xdg).or(user).map(|models| models.join(MODEL_FILE));
    let found = named.or(cached).filter(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: {test}: no {MODEL_FILE} in the model cache, and ISOTHERM_MODEL names no file");
    }
    found
}

/// A reference file about the real test model, by its name.
pub fn model_reference(test: &str, name: &str) -> Option<serde_json::Value> {
    let roots = std::env::var_os("ISOTHERM_SHARED")
        .map(PathBuf::from)
        .into_iter()
        .chain(Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("shared")));
    let Some(path) = roots.map(|root| root.join(MODEL_DATA).join(name)).find(|path| path.is_file()) else {
        eprintln!("skipped: {test}: no {name} under ISOTHERM_SHARED or a shared/ folder beside the checkout");
        return None;
    };
    let text = std::fs::read_to_string(path).expect("reference data is readable");
    Some(serde_json::from_str(&text).expect("reference data is JSON"))
}

/// The text of a recorded log of a card's power and temperature, by its name.
pub fn thermal_log(test: &str, name: &str) -> Option<String> {
    let roots = std::env::var_os("ISOTHERM_SHARED")
        .map(PathBuf::from)
        .into_iter()
        .chain(Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("shared")));
    let found = roots.map(|root| root.join("data/thermal").join(name)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: {test}: no {name} under ISOTHERM_SHARED or a shared/ folder beside the checkout");
    }
    found.map(|path| std::fs::read_to_string(path).expect("a log is readable"))
}
