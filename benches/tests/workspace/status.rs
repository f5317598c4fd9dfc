//! STATUS.md says what `make status` saw: every row of `scripts/status.toml`, judged by running its command.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::checkout::{metadata, root};
use crate::expect_none;

#[derive(Deserialize)]
struct Rows {
    section: Vec<Section>,
}

#[derive(Deserialize)]
struct Section {
    row: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    capability: String,
    command: Option<String>,
    test: Option<String>,
}

/// The table rows of a status page as (capability, state).
fn table(page: &str) -> Vec<(&str, &str)> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")).filter_map(|line| line.split_once(" | "));
    let judged = rows.filter(|(capability, _)| *capability != "capability");
    judged.map(|(capability, rest)| (capability, rest.split(" | ").next().unwrap_or(rest))).collect()
}

#[test]
fn the_status_page_has_the_rows_of_the_status_file() {
    let rows = std::fs::read_to_string(root().join("scripts/status.toml")).expect("status.toml is tracked");
    let rows: Rows = toml::from_str(&rows).expect("status.toml is read by `make status` as well");
    let rows: Vec<Row> = rows.section.into_iter().flat_map(|section| section.row).collect();
    let page = std::fs::read_to_string(root().join("STATUS.md")).expect("STATUS.md is tracked");
    let shown = table(&page);
    let mut found = Vec::new();
    for row in &rows {
        let capability = row.capability.replace('|', "\\|");
        match shown.iter().find(|(name, _)| *name == capability) {
            None => found.push(format!("{capability:?} is missing")),
            Some((_, state)) if row.command.is_none() && row.test.is_none() && *state != "not yet" => {
                found.push(format!("{capability:?} reads {state:?} though no command shows it"));
            }
            Some(_) => {}
        }
    }
    let known: BTreeSet<String> = rows.iter().map(|row| row.capability.replace('|', "\\|")).collect();
    found
        .extend(shown.iter().filter(|(name, _)| !known.contains(*name)).map(|(name, _)| format!("{name:?} is no row")));
    expect_none("Run `make status` and commit STATUS.md:", &found);
}

/// Runs the script on `rows` in a folder of its own and returns its exit code and page; `None` without Python 3.11.
fn judged(test: &str, rows: &str) -> Option<(i32, String)> {
    let modern = Command::new("python3").args(["-c", "import tomllib"]).output();
    if !modern.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {test}: Python 3.11 or newer is not installed");
        return None;
    }
    let folder = metadata().target_directory.join("status-test").join(test);
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    let page = folder.join("STATUS.md");
    std::fs::write(folder.join("rows.toml"), rows).expect("the target folder can be written");
    std::fs::write(&page, "").expect("the target folder can be written");
    let script = |flag: &str, path: &Path| [flag.to_owned(), path.display().to_string()];
    let output = Command::new("python3")
        .arg(root().join("scripts/status.py"))
        .args(script("--rows", &folder.join("rows.toml")))
        .args(script("--page", &page))
        .output()
        .expect("python3 was just started");
    let page = std::fs::read_to_string(page).expect("the page was just made");
    Some((output.status.code().expect("the script ends by itself"), page))
}

#[test]
fn a_row_works_only_when_its_command_shows_it() {
    let rows = "
        [[section]]
        title = \"All\"
        row = [
            { capability = \"shown\", command = \"echo 3 plans\", expect = \"^[0-9]+ plans$\" },
            { capability = \"other words\", command = \"echo none\", expect = \"plans\" },
            { capability = \"other code\", command = \"exit 3\" },
            { capability = \"wanted code\", command = \"exit 3\", exit = 3 },
            { capability = \"too slow\", command = \"sleep 60; echo late\", seconds_max = 1 },
            { capability = \"lacking\", command = \"echo 'skipped: a: no card here'\" },
            { capability = \"promised\" },
        ]
    ";
    let Some((code, page)) = judged("a_row_works_only_when_its_command_shows_it", rows) else { return };
    assert_eq!(code, 1, "a failing row fails the run");
    let expected = [
        ("shown", "works"),
        ("other words", "FAILS"),
        ("other code", "FAILS"),
        ("wanted code", "works"),
        ("too slow", "FAILS"),
        ("lacking", "not run"),
        ("promised", "not yet"),
    ];
    assert_eq!(table(&page), expected);
}

#[test]
fn a_misspelt_key_is_refused() {
    let rows = "[[section]]\ntitle = \"All\"\nrow = [{ capability = \"a\", comand = \"true\" }]\n";
    let Some((code, page)) = judged("a_misspelt_key_is_refused", rows) else { return };
    assert_ne!(code, 0);
    assert_eq!(page, "");
}
