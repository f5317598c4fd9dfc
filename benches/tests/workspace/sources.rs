//! What the text of the checkout may hold.

use crate::checkout::{skip_without_git, tracked_texts};
use crate::expect_none;

/// Lines after which a source file should have been split into two ideas.
const LINES_MAX: usize = 600;

/// Longer files that read better whole: (path, reason).
const LONG_FILES: [(&str, &str); 1] =
    [("benches/peers/check_plan.py", "a second checker, in one file so that a stranger can read and run it alone")];

/// Package registries; written in pieces so that this file does not name one.
const REGISTRY_HOSTS: [&str; 5] = [
    concat!("crates", ".io"),
    concat!("py", "pi.org"),
    concat!("npm", "js"),
    concat!("debian", ".org"),
    concat!("pythonhosted", ".org"),
];

/// Folders of one machine; a tracked file that names one works nowhere else.
const MACHINE_FOLDERS: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// The generated lock file names its registry in every entry; nothing else may.
fn is_generated(path: &str) -> bool {
    path.ends_with("Cargo.lock")
}

/// A path starts where the character before it could not belong to a longer path or address.
fn starts_a_path(before: Option<char>) -> bool {
    !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | '}' | ')' | '~' | '*'))
}

fn machine_path(line: &str) -> Option<&str> {
    let named = MACHINE_FOLDERS.iter().flat_map(|folder| line.match_indices(*folder));
    let scratch = line
        .match_indices(concat!("/tm", "p/"))
        .filter(|(at, folder)| line[at + folder.len()..].chars().next().is_some_and(|c| c.is_ascii_alphanumeric()));
    let mut starts = named.chain(scratch).map(|(at, _)| at);
    starts.find(|at| starts_a_path(line[..*at].chars().next_back())).map(|at| &line[at..])
}

fn registry_host(line: &str) -> Option<&'static str> {
    REGISTRY_HOSTS.into_iter().find(|host| line.contains(host))
}

/// A macro that stands for work not done.
fn unfinished(line: &str) -> Option<&'static str> {
    let code = line.split("//").next().unwrap_or_default();
    [concat!("to", "do!("), concat!("unimplemen", "ted!("), concat!("db", "g!(")].into_iter().find(|m| code.contains(m))
}

/// What core and the simulator do without: files, clocks, threads and the surrounding process.
fn impure(line: &str) -> Option<&'static str> {
    let code = line.split("//").next().unwrap_or_default();
    ["std::fs", "std::net", "std::process", "std::env", "std::thread", "Instant::now", "SystemTime::now"]
        .into_iter()
        .find(|name| code.contains(name))
}

/// The part of a source file before its unit tests.
fn shipped(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]"))
}

/// Applies `judge` to each line of each file that `wanted` picks; a finding reads `path:line: what`.
fn findings(test: &str, wanted: impl Fn(&str) -> bool, judge: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let Some(files) = tracked_texts() else {
        skip_without_git(test);
        return Vec::new();
    };
    let in_file = |(path, text): &(String, String)| -> Vec<String> {
        let hits = text.lines().enumerate().filter_map(|(index, line)| Some((index, judge(line)?)));
        hits.map(|(index, what)| format!("{path}:{}: {what}", index + 1)).collect()
    };
    files.iter().filter(|(path, _)| wanted(path)).flat_map(in_file).collect()
}

#[test]
fn no_tracked_file_names_a_folder_of_one_machine() {
    let found = findings(
        "no_tracked_file_names_a_folder_of_one_machine",
        |_| true,
        |line| machine_path(line).map(str::to_owned),
    );
    expect_none("Take the path as an argument or an environment variable:", &found);
}

#[test]
fn no_tracked_file_names_a_registry_host() {
    let found = findings(
        "no_tracked_file_names_a_registry_host",
        |path| !is_generated(path),
        |line| registry_host(line).map(str::to_owned),
    );
    expect_none("Name the package and leave its host to the client's own configuration:", &found);
}

#[test]
fn no_source_file_leaves_work_for_later() {
    let found = findings(
        "no_source_file_leaves_work_for_later",
        |path| path.ends_with(".rs"),
        |line| unfinished(line).map(str::to_owned),
    );
    expect_none("Finish it, or return an error that says what is missing:", &found);
}

#[test]
fn core_and_simulator_touch_no_file_clock_or_thread() {
    let Some(files) = tracked_texts() else {
        return skip_without_git("core_and_simulator_touch_no_file_clock_or_thread");
    };
    let mut found = Vec::new();
    for (path, text) in &files {
        if !(path.starts_with("core/src/") || path.starts_with("sim/src/")) || path.ends_with("/tests.rs") {
            continue;
        }
        for (index, line) in shipped(text) {
            found.extend(impure(line).map(|name| format!("{path}:{}: {name}", index + 1)));
        }
    }
    expect_none("Read it in cli and pass the value in:", &found);
}

#[test]
fn no_source_file_outgrows_its_idea() {
    let Some(files) = tracked_texts() else { return skip_without_git("no_source_file_outgrows_its_idea") };
    let sources =
        files.iter().filter(|(path, _)| [".rs", ".py", ".sh", ".wgsl", ".cu"].iter().any(|end| path.ends_with(end)));
    let long: Vec<(&str, usize)> = sources
        .map(|(path, text)| (path.as_str(), text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .collect();
    let unlisted = long.iter().filter(|(path, _)| !LONG_FILES.iter().any(|(listed, _)| listed == path));
    let found: Vec<String> = unlisted.map(|(path, lines)| format!("{path}: {lines} lines")).collect();
    expect_none("Split the file at its second idea, or list it in LONG_FILES with the reason:", &found);
    let stale = LONG_FILES.iter().filter(|(listed, _)| !long.iter().any(|(path, _)| path == listed));
    let found: Vec<String> = stale.map(|(path, _)| path.to_string()).collect();
    expect_none("No longer long; take it off LONG_FILES:", &found);
}

#[test]
fn machine_paths_are_told_from_addresses_and_relative_paths() {
    let folder = concat!("/wo", "rk/");
    for bad in
        [format!("open({folder}a)"), format!("\"{folder}shared\""), format!("see {}x.json", concat!("/tm", "p/"))]
    {
        assert!(machine_path(&bad).is_some(), "{bad}");
    }
    for fine in [format!("https://example.test{folder}x"), format!("..{folder}x"), concat!("/tm", "p/$name").to_owned()]
    {
        assert_eq!(machine_path(&fine), None);
    }
}

#[test]
fn bad_samples_are_caught() {
    assert!(registry_host(concat!("from crates", ".io")).is_some());
    assert!(unfinished(concat!("    to", "do!()")).is_some());
    assert!(unfinished("// the word alone is fine: todo").is_none());
    assert!(impure("let now = std::time::Instant::now();").is_some());
    assert_eq!(shipped("a\n#[cfg(test)]\nstd::fs").count(), 1);
}
