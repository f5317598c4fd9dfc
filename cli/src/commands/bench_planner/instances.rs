//! The instances: published ones from measured data beside the checkout, generated ones from seeds.

use crate::failure::{Code, Failure};
use crate::files;
use isotherm_benches::clusters::{SETS, cluster};
use isotherm_core::import::helix_flow;
use isotherm_core::problem::PlacementProblem;
use isotherm_core::scenario::Scenario;
use std::path::PathBuf;

/// The instances of the sets asked for, and what is to be said about those that are absent.
pub(super) fn all(sets: &[String], seeds: u64) -> Result<(Vec<PlacementProblem>, Vec<String>), Failure> {
    let (mut instances, mut notes) = (Vec::new(), Vec::new());
    for set in sets {
        match set.as_str() {
            "published" => match published()? {
                Some(mut found) => instances.append(&mut found),
                None => notes.push(
                    "published instances were NOT run: there is no folder `shared` beside the checkout (or set \
                     ISOTHERM_SHARED)"
                        .to_owned(),
                ),
            },
            "generated" => {
                for seed in 1..=seeds {
                    instances.extend(SETS.iter().map(|recipe| cluster(recipe, seed)));
                }
            }
            name => {
                let Some(recipe) = SETS.iter().find(|recipe| recipe.name == name) else {
                    let known: Vec<&str> = SETS.iter().map(|recipe| recipe.name).collect();
                    let what = format!("there is no set {name:?}; known: published, generated, {}", known.join(", "));
                    return Err(Failure::new(Code::Usage, what));
                };
                instances.extend((1..=seeds).map(|seed| cluster(recipe, seed)));
            }
        }
    }
    Ok((instances, notes))
}

/// Folders upwards from where the program is called and from where it lies.
pub(super) fn folders() -> Vec<PathBuf> {
    let from = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    from.into_iter().flatten().flat_map(|path| path.ancestors().map(PathBuf::from).collect::<Vec<_>>()).collect()
}

/// The folder of measured data of others; none where there is none.
pub fn shared() -> Option<PathBuf> {
    let set = std::env::var_os("ISOTHERM_SHARED").map(PathBuf::from);
    let beside =
        || folders().into_iter().map(|folder| folder.join("shared")).find(|folder| folder.join("data").is_dir());
    set.or_else(beside)
}

/// The published flow problems; none where the data is absent.
fn published() -> Result<Option<Vec<PlacementProblem>>, Failure> {
    let Some(folder) = shared() else { return Ok(None) };
    let path = folder.join("data/helix/instances/parsed.json");
    if !path.is_file() {
        return Ok(None);
    }
    let text = files::read_text(&path)?;
    let names: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&text).map_err(|e| Failure::file(&path, e))?;
    let mut found = Vec::new();
    for name in names.keys() {
        let imported = helix_flow::scenario(&text, name).map_err(|e| Failure::file(&path, e))?;
        let scenario = Scenario::parse(&imported.text, &mut |_, _| Err(Vec::new()))
            .map_err(|faults| Failure::all(Code::Io, path.display(), &faults))?;
        let problem = scenario.problem(None, None).map_err(|faults| Failure::all(Code::Io, path.display(), &faults))?;
        found.push(problem);
    }
    Ok(Some(found))
}
