//! Folders of LLMServingSim: which of them holds the profile that is meant, and what lies beside a run.

use crate::args::ModelShape;
use crate::failure::{Code, Failure};
use crate::files;
use isotherm_core::digest::Digest;
use isotherm_core::import::llmservingsim::{Catalogue, ProfileMeta, ProfileTexts, read_link};
use isotherm_core::model::PublicModel;
use std::path::{Path, PathBuf};

/// Deepest folder that is looked into below the one that was named.
const DEPTH_MAX: usize = 6;

/// The files of one degree of tensor parallelism, as far as there are any.
#[derive(Debug, Default)]
struct Files {
    dense: Option<String>,
    per_sequence: Option<String>,
    attention: Option<String>,
    moe: Option<String>,
    skew_fit: Option<String>,
}

impl Files {
    fn read(folder: &Path, digests: &mut Vec<Digest>) -> Result<Self, Failure> {
        let mut one = |name: &str| -> Result<Option<String>, Failure> {
            let path = folder.join(name);
            if !path.is_file() {
                return Ok(None);
            }
            let text = files::read_text(&path)?;
            digests.push(Digest::of(text.as_bytes()));
            Ok(Some(text))
        };
        Ok(Self {
            dense: one("dense.csv")?,
            per_sequence: one("per_sequence.csv")?,
            attention: one("attention.csv")?,
            moe: one("moe.csv")?,
            skew_fit: one("skew_fit.csv")?,
        })
    }

    fn texts(&self) -> ProfileTexts<'_> {
        ProfileTexts {
            dense: self.dense.as_deref(),
            per_sequence: self.per_sequence.as_deref(),
            attention: self.attention.as_deref(),
            moe: self.moe.as_deref(),
            skew_fit: self.skew_fit.as_deref(),
        }
    }
}

/// A profile that was found and read.
#[derive(Debug)]
pub struct Profile {
    /// Its operators.
    pub catalogue: Catalogue,
    /// Its folder, the one with `tpN` in it.
    pub folder: PathBuf,
    /// Digests of what was read.
    pub digests: Vec<Digest>,
}

impl Profile {
    /// Finds and reads the profile of a model (any, where that is empty) at a degree of tensor parallelism. `variant`
    /// is preferred where there are several.
    pub fn find(named: &Path, model: &str, degree: u32, variant: &str) -> Result<Self, Failure> {
        let tp = format!("tp{degree}");
        let (folder, own) = if named.join("attention.csv").is_file() {
            (named.parent().unwrap_or(named).to_owned(), named.to_owned())
        } else {
            let mut found = Vec::new();
            search(named, &tp, DEPTH_MAX, &mut found).map_err(|e| Failure::file(named, e))?;
            found.sort();
            let folder = choose(named, found, model, &tp, variant)?;
            let own = folder.join(&tp);
            (folder, own)
        };
        let mut digests = Vec::new();
        let meta = folder.join("meta.yaml");
        let meta = if meta.is_file() {
            let text = files::read_text(&meta)?;
            digests.push(Digest::of(text.as_bytes()));
            ProfileMeta::read(&text, degree)
        } else {
            ProfileMeta::default()
        };
        let texts = Files::read(&own, &mut digests)?;
        let single = if degree > 1 { Files::read(&folder.join("tp1"), &mut digests)? } else { Files::default() };
        // What uneven decodes cost is a matter of one device's heads: that of another degree says nothing.
        let single = ProfileTexts { skew_fit: None, ..single.texts() };
        let catalogue = Catalogue::read(meta, texts.texts(), single).map_err(|e| Failure::file(&own, e))?;
        Ok(Self { catalogue, folder, digests })
    }

    /// Bandwidth and latency of `hardware.yaml` above the profile, where they were measured.
    pub fn link(&self) -> Option<(f64, f64)> {
        let above = self.folder.ancestors().take(DEPTH_MAX);
        let file = above.map(|folder| folder.join("hardware.yaml")).find(|path| path.is_file())?;
        read_link(&files::read_text(&file).ok()?)
    }
}

fn search(folder: &Path, tp: &str, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if folder.join(tp).join("attention.csv").is_file() {
        found.push(folder.to_owned());
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            search(&path, tp, depth - 1, found)?;
        }
    }
    Ok(())
}

/// The one that is meant among the folders of profiles.
fn choose(named: &Path, mut found: Vec<PathBuf>, model: &str, tp: &str, variant: &str) -> Result<PathBuf, Failure> {
    if found.len() > 1 && !model.is_empty() {
        let short = model.rsplit('/').next().unwrap_or(model).to_lowercase();
        let of_model =
            |path: &PathBuf| path.components().any(|part| part.as_os_str().to_string_lossy().to_lowercase() == short);
        let of_model: Vec<PathBuf> = found.iter().filter(|path| of_model(path)).cloned().collect();
        if !of_model.is_empty() {
            found = of_model;
        }
    }
    if found.len() > 1 && found.iter().any(|path| path.ends_with(variant)) {
        found.retain(|path| path.ends_with(variant));
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Failure::file(named, format!("holds no {tp}/attention.csv, down to {DEPTH_MAX} folders below it"))
            .remedy("name the folder of a profile, HARDWARE/MODEL/VARIANT, of this degree of tensor parallelism")),
        several => {
            let list: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            Err(Failure::new(Code::Usage, format!("{} profiles fit: {}", several.len(), list.join(", ")))
                .remedy("name one of them"))
        }
    }
}

/// The shape of a model: as stated, else by its name.
pub fn shape(name: &str, given: &ModelShape) -> Result<PublicModel, Failure> {
    if let Some(path) = &given.model_config {
        let text = files::read_text(path)?;
        return PublicModel::from_config(name, &text).map_err(|e| Failure::file(path, e));
    }
    let known = PublicModel::named(name);
    match (known, given.layers) {
        (Some(model), None) => Ok(model),
        (Some(model), Some(layers)) if layers != model.layers => {
            let stated = format!("--layers says {layers}, and the model {name:?} has {} by its makers", model.layers);
            Err(Failure::new(Code::Usage, stated)
                .remedy("leave --layers out, or describe another model of that name with --model-config"))
        }
        (Some(model), Some(_)) => Ok(model),
        (None, Some(layers)) => Ok(PublicModel {
            name: name.to_owned(),
            layers,
            hidden: 0,
            feed_forward: 0,
            heads: 0,
            kv_heads: 0,
            head_size: 0,
            vocabulary: 0,
            experts: None,
        }),
        (None, None) => Err(Failure::io(format!(
            "the model {name:?} is not known by name, and a profile does not say how many layers it has"
        ))
        .remedy("give its config.json with --model-config, or --layers for a model without experts")),
    }
}
