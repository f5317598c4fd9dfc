//! Model files where other programs keep them.
//!
//! * **Hugging Face**: `$HF_HUB_CACHE`, else `$HF_HOME/hub`, else `~/.cache/huggingface/hub`, with
//!   `models--OWNER--NAME/snapshots/REVISION/FILE.gguf`.
//! * **Ollama**: `$OLLAMA_MODELS`, else `~/.ollama/models`, with `manifests/REGISTRY/NAMESPACE/NAME/TAG` naming a file
//!   `blobs/sha256-HEX`.
//! * **LM Studio**: `~/.lmstudio/models`, or of older versions `~/.cache/lm-studio/models`, with `OWNER/NAME/FILE.gguf`.
//! * **llama.cpp**: `$LLAMA_CACHE`, else `~/.cache/llama.cpp`.
//!
//! Nothing is written there, and no file is opened to find it.

use isotherm_core::import::ollama::model_digest;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Who keeps a model file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keeper {
    /// A folder that the user named.
    Folder,
    /// The cache of Hugging Face's libraries.
    HuggingFace,
    /// Ollama.
    Ollama,
    /// LM Studio.
    LmStudio,
    /// llama.cpp's own downloads.
    LlamaCpp,
}

impl Keeper {
    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::HuggingFace => "Hugging Face",
            Self::Ollama => "Ollama",
            Self::LmStudio => "LM Studio",
            Self::LlamaCpp => "llama.cpp",
        }
    }
}

/// A model file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// What it is called there: `OWNER/NAME/FILE` without the ending, `NAME:TAG` in Ollama, the file's stem elsewhere.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Who keeps it.
    pub keeper: Keeper,
}

/// Folders to look in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(Vec<(Keeper, PathBuf)>);

/// Folders below a place that are looked into.
const DEPTH_MAX: usize = 6;
/// Entries that are looked at in one place.
const ENTRIES_MAX: usize = 200_000;

impl Places {
    /// Those of this user. The only place of this module that reads the environment.
    #[must_use]
    pub fn of_user() -> Self {
        Self::from_variables(&|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
    }

    /// Those that variables of the environment name.
    #[must_use]
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<PathBuf>) -> Self {
        let home = variable("HOME").or_else(|| variable("USERPROFILE"));
        let in_home = |below: &str| home.as_ref().map(|home| home.join(below));
        let cache = variable("XDG_CACHE_HOME").or_else(|| in_home(".cache"));
        let in_cache = |below: &str| cache.as_ref().map(|cache| cache.join(below));
        let hub = variable("HF_HUB_CACHE")
            .or_else(|| variable("HF_HOME").map(|folder| folder.join("hub")))
            .or_else(|| in_cache("huggingface/hub"));
        let places = [
            (Keeper::HuggingFace, hub),
            (Keeper::Ollama, variable("OLLAMA_MODELS").or_else(|| in_home(".ollama/models"))),
            (Keeper::LmStudio, in_home(".lmstudio/models")),
            (Keeper::LmStudio, in_cache("lm-studio/models")),
            (Keeper::LlamaCpp, variable("LLAMA_CACHE").or_else(|| in_cache("llama.cpp"))),
        ];
        Self(places.into_iter().filter_map(|(keeper, place)| Some((keeper, place?))).collect())
    }

    /// Looks in this folder too, and in those below it.
    pub fn add(&mut self, folder: &Path) {
        self.0.insert(0, (Keeper::Folder, folder.to_owned()));
    }

    /// Every model file there, each once, in order of keeper and name. Folders that are not there or cannot be read hold
    /// none.
    #[must_use]
    pub fn find(&self) -> Vec<Found> {
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for (keeper, place) in &self.0 {
            let mut found = match keeper {
                Keeper::Ollama => in_ollama(place),
                keeper => in_folder(*keeper, place),
            };
            found.retain(|one| seen.insert(one.path.canonicalize().unwrap_or_else(|_| one.path.clone())));
            all.extend(found);
        }
        all.sort_by(|a, b| (a.keeper, &a.name).cmp(&(b.keeper, &b.name)));
        all
    }
}

/// Files below a folder, with their path from it. Links to folders are not followed, so that none is walked twice.
fn files(folder: &Path, visit: &mut dyn FnMut(&Path, Vec<String>)) {
    let mut open = vec![(folder.to_owned(), Vec::<String>::new())];
    let mut entries = 0;
    while let Some((folder, parts)) = open.pop() {
        let Ok(listing) = folder.read_dir() else { continue };
        for entry in listing.filter_map(Result::ok) {
            entries += 1;
            if entries > ENTRIES_MAX {
                return;
            }
            let path = entry.path();
            let mut parts = parts.clone();
            parts.push(entry.file_name().to_string_lossy().into_owned());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if parts.len() <= DEPTH_MAX {
                    open.push((path, parts));
                }
            } else if path.is_file() {
                visit(&path, parts);
            }
        }
    }
}

fn in_folder(keeper: Keeper, place: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    files(place, &mut |path, parts| {
        let Some(stem) = parts.last().and_then(|file| file.strip_suffix(".gguf")) else { return };
        // Projectors of images lie beside the models they belong to, and are none.
        if stem.starts_with("mmproj") {
            return;
        }
        let name = match (keeper, parts.first(), parts.get(1)) {
            (Keeper::HuggingFace, Some(repository), _) => {
                let repository = repository.strip_prefix("models--").unwrap_or(repository).replace("--", "/");
                format!("{repository}/{stem}")
            }
            (Keeper::LmStudio, Some(owner), Some(name)) if parts.len() > 2 => format!("{owner}/{name}/{stem}"),
            _ => stem.to_owned(),
        };
        found.push(Found { name, path: path.to_owned(), keeper });
    });
    found
}

fn in_ollama(place: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    files(&place.join("manifests"), &mut |path, parts| {
        let [.., namespace, name, tag] = parts.as_slice() else { return };
        let Some(digest) = std::fs::read_to_string(path).ok().and_then(|text| model_digest(&text).ok()) else { return };
        let blob = place.join("blobs").join(format!("sha256-{}", digest.hex()));
        if blob.is_file() {
            let owner = if namespace == "library" { String::new() } else { format!("{namespace}/") };
            found.push(Found { name: format!("{owner}{name}:{tag}"), path: blob, keeper: Keeper::Ollama });
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, path: &str, text: &str) {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("writable");
        std::fs::write(path, text).expect("writable");
    }

    #[test]
    fn files_are_found_where_each_program_keeps_them_and_under_the_names_it_uses() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let hex = "0c".repeat(32);
        put(home.path(), ".cache/huggingface/hub/models--ann--Tiny-GGUF/snapshots/abc/tiny-q8.gguf", "x");
        put(home.path(), ".cache/huggingface/hub/models--ann--Tiny-GGUF/snapshots/abc/README.md", "x");
        put(home.path(), ".lmstudio/models/bob/Small/small-q4.gguf", "x");
        put(home.path(), ".lmstudio/models/bob/Small/mmproj-small.gguf", "x");
        put(home.path(), ".cache/llama.cpp/other.gguf", "x");
        let manifest = format!(
            "{{\"layers\": [{{\"mediaType\": \"application/vnd.ollama.image.model\", \"digest\": \"sha256:{hex}\"}}]}}"
        );
        put(home.path(), ".ollama/models/manifests/registry.ollama.ai/library/qwen/0.5b", &manifest);
        put(home.path(), ".ollama/models/manifests/registry.ollama.ai/carl/mine/latest", &manifest.replace("0c", "0d"));
        put(home.path(), &format!(".ollama/models/blobs/sha256-{hex}"), "x");
        put(home.path(), "mine/deep/own.gguf", "x");
        let variable = |name: &str| (name == "HOME").then(|| home.path().to_owned());
        let mut places = Places::from_variables(&variable);
        places.add(&home.path().join("mine"));
        let found: Vec<(Keeper, String)> = places.find().into_iter().map(|one| (one.keeper, one.name)).collect();
        let expected = [
            (Keeper::Folder, "own"),
            (Keeper::HuggingFace, "ann/Tiny-GGUF/tiny-q8"),
            (Keeper::Ollama, "qwen:0.5b"),
            (Keeper::LmStudio, "bob/Small/small-q4"),
            (Keeper::LlamaCpp, "other"),
        ];
        assert_eq!(found, expected.map(|(keeper, name)| (keeper, name.to_owned())));
    }

    #[test]
    fn variables_that_programs_obey_are_obeyed() {
        let variable = |name: &str| match name {
            "HF_HOME" => Some(PathBuf::from("/hf")),
            "OLLAMA_MODELS" => Some(PathBuf::from("/ollama")),
            "LLAMA_CACHE" => Some(PathBuf::from("/llama")),
            _ => None,
        };
        let places = Places::from_variables(&variable);
        let folders: Vec<&Path> = places.0.iter().map(|(_, folder)| folder.as_path()).collect();
        assert_eq!(folders, [Path::new("/hf/hub"), Path::new("/ollama"), Path::new("/llama")]);
    }
}
