//! The pages on threats name every folder of attacks, and no folder that is not there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PAGES: [&str; 2] = ["SECURITY.md", "docs/explanation/threat-model.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn folders() -> BTreeSet<String> {
    let both = ["audit/tests/attacks", "access/tests/attacks"].map(|folder| root().join(folder));
    both.iter()
        .flat_map(|folder| fs::read_dir(folder).expect("in the checkout"))
        .map(|found| found.expect("listed"))
        .filter(|found| found.path().is_dir())
        .map(|found| found.file_name().to_string_lossy().into_owned())
        .collect()
}

/// What stands in code marks in the last cell of a page's tables: where an attack is shown to be refused.
fn named(page: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(page)).expect("in the checkout");
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.rsplit(" | ").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn every_folder_of_attacks_is_tied_to_a_threat_on_both_pages() {
    for page in PAGES {
        let named = named(page);
        let missing: Vec<_> = folders().into_iter().filter(|folder| !named.contains(folder)).collect();
        // The sets of leases and tokens, and what a log suffers on disk, are told apart on both.
        assert!(missing.is_empty(), "{page} does not name {missing:?}");
    }
}

#[test]
fn every_place_that_a_threat_is_tied_to_is_there_and_holds_a_test() {
    let folders = folders();
    for page in PAGES {
        for place in named(page) {
            if !folders.contains(&place) {
                // Another place than a folder of attacks is a path from the root.
                assert!(root().join(place.trim_end_matches('/')).exists(), "{page}: {place} is not there");
                continue;
            }
            let tests =
                ["audit", "access"].map(|room| root().join(room).join("tests/attacks").join(&place).join("mod.rs"));
            let holds = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains("#[test]"));
            assert!(tests.iter().any(holds), "{place} holds no test");
            assert!(
                tests.iter().filter(|path| path.exists()).all(|path| {
                    let list = path.parent().and_then(Path::parent).expect("the folder of attacks").join("mod.rs");
                    fs::read_to_string(list).is_ok_and(|text| text.contains(&format!("mod {place};")))
                }),
                "{place} is not part of the tests"
            );
        }
    }
}
