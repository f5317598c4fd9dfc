//! Who may see whom: one direction, and each heavy dependency behind one door.

use std::collections::BTreeSet;

use crate::checkout::{Metadata, metadata, root};
use crate::expect_none;

/// The rooms: they build on core and never see one another, but for access, which stands on audit's keys and events.
const ROOMS: [&str; 6] =
    ["isotherm-planner", "isotherm-sim", "isotherm-audit", "isotherm-access", "isotherm-runtime", "isotherm-reports"];

/// Own packages that each own package may declare, for any purpose, tests included.
fn may_see(package: &str) -> Option<BTreeSet<&'static str>> {
    let mut seen = BTreeSet::from(["isotherm-core"]);
    match package {
        "isotherm-core" => seen.clear(),
        "isotherm-access" => drop(seen.insert("isotherm-audit")),
        room if ROOMS.contains(&room) => {}
        "isotherm-benches" => seen.extend(ROOMS),
        // The generator of clusters, which `isotherm bench planner` draws instances from.
        "isotherm-cli" => {
            seen.extend(ROOMS);
            seen.insert("isotherm-benches");
        }
        _ => return None,
    }
    Some(seen)
}

/// Foreign packages that one room alone may declare.
const ONE_DOOR: [(&str, &str); 16] = [
    ("good_lp", "isotherm-planner"),
    ("highs", "isotherm-planner"),
    ("highs-sys", "isotherm-planner"),
    ("microlp", "isotherm-planner"),
    ("plotters", "isotherm-reports"),
    ("polars", "isotherm-reports"),
    ("polars-io", "isotherm-reports"),
    ("core_affinity", "isotherm-runtime"),
    ("cudarc", "isotherm-runtime"),
    ("memmap2", "isotherm-runtime"),
    ("minijinja", "isotherm-runtime"),
    ("quinn", "isotherm-runtime"),
    ("tokenizers", "isotherm-runtime"),
    ("wgpu", "isotherm-runtime"),
    ("ed25519-dalek", "isotherm-audit"),
    ("cedar-policy", "isotherm-access"),
];

/// Of those, the ones so heavy or so particular that no other room may pull them in by a detour either.
const NO_DETOUR: [&str; 11] = [
    "good_lp",
    "highs",
    "highs-sys",
    "microlp",
    "polars",
    "polars-io",
    "cudarc",
    "quinn",
    "tokenizers",
    "wgpu",
    "cedar-policy",
];

fn direction_violations<'a>(declared: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let judge = |(package, dependency): (&str, &str)| {
        let Some(allowed) = may_see(package) else {
            return Some(format!("{package} is no known room: give it a place in this test and in ARCHITECTURE.md"));
        };
        let own = dependency.starts_with("isotherm-");
        (own && !allowed.contains(dependency)).then(|| format!("{package} declares {dependency}"))
    };
    declared.into_iter().filter_map(judge).collect()
}

fn door_violations<'a>(declared: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let judge = |(package, dependency): (&str, &str)| {
        let (_, door) = ONE_DOOR.iter().find(|(banned, _)| *banned == dependency)?;
        (package != *door).then(|| format!("{package} declares {dependency}, which only {door} may"))
    };
    declared.into_iter().filter_map(judge).collect()
}

fn declared(metadata: &Metadata) -> Vec<(&str, &str)> {
    metadata
        .members()
        .flat_map(|package| {
            package.dependencies.iter().map(|dependency| (package.name.as_str(), dependency.name.as_str()))
        })
        .collect()
}

#[test]
fn dependencies_point_from_the_command_line_to_the_rooms_to_core() {
    expect_none(
        "A room sees core alone; a line that needs two rooms belongs in cli:",
        &direction_violations(declared(metadata())),
    );
}

#[test]
fn each_heavy_dependency_has_one_door() {
    expect_none(
        "Call the room that owns the dependency, or move the code there:",
        &door_violations(declared(metadata())),
    );
}

#[test]
fn no_room_reaches_a_heavy_dependency_by_a_detour() {
    let metadata = metadata();
    let mut found = Vec::new();
    for room in ROOMS.iter().chain(&["isotherm-core"]) {
        let reached = metadata.reachable_from(room);
        for (banned, door) in ONE_DOOR {
            if door != *room && NO_DETOUR.contains(&banned) && reached.contains(banned) {
                found.push(format!(
                    "{room} pulls in {banned}; run `cargo tree -p {room} -i {banned}` to see through whom"
                ));
            }
        }
    }
    expect_none("Turn the feature off that brings it, or drop the dependency between:", &found);
}

#[test]
fn every_crate_root_but_the_runtime_forbids_unsafe_code() {
    let mut found = Vec::new();
    for package in metadata().members().filter(|package| package.name != "isotherm-runtime") {
        for target in package.targets.iter().filter(|target| target.kind == ["lib"] || target.kind == ["bin"]) {
            let text = std::fs::read_to_string(&target.src_path).expect("cargo lists only roots that exist");
            if !text.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]") {
                let path = target.src_path.strip_prefix(root()).unwrap_or(&target.src_path);
                found.push(path.display().to_string());
            }
        }
    }
    expect_none("Add `#![forbid(unsafe_code)]` at the top, or move the unsafe line to the runtime:", &found);
}

#[test]
fn a_room_that_declares_another_room_is_caught() {
    assert_eq!(direction_violations([("isotherm-sim", "isotherm-planner")]).len(), 1);
    assert_eq!(direction_violations([("isotherm-core", "isotherm-core")]).len(), 1);
    assert_eq!(direction_violations([("isotherm-kitchen", "serde")]).len(), 1);
    assert_eq!(direction_violations([("isotherm-audit", "isotherm-access")]).len(), 1);
    assert!(direction_violations([("isotherm-sim", "isotherm-core"), ("isotherm-cli", "isotherm-sim")]).is_empty());
}

#[test]
fn a_solver_outside_the_planner_is_caught() {
    assert_eq!(door_violations([("isotherm-cli", "highs")]).len(), 1);
    assert!(door_violations([("isotherm-planner", "highs"), ("isotherm-cli", "serde")]).is_empty());
}
