//! The checkout as the tests see it: what `cargo metadata` and `git ls-files` say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde::Deserialize;

/// The part of `cargo metadata --format-version 1` that the rules read.
#[derive(Deserialize)]
pub struct Metadata {
    pub packages: Vec<Package>,
    pub workspace_members: Vec<String>,
    pub workspace_root: PathBuf,
    pub target_directory: PathBuf,
    pub resolve: Resolve,
}

/// One package of the dependency graph, ours or foreign.
#[derive(Deserialize)]
pub struct Package {
    pub id: String,
    pub name: String,
    pub version: String,
    pub license: Option<String>,
    pub dependencies: Vec<Dependency>,
    pub targets: Vec<Target>,
}

/// A dependency as declared, for whatever purpose; `name` is the package's, not a local rename.
#[derive(Deserialize)]
pub struct Dependency {
    pub name: String,
}

/// A crate root of a package.
#[derive(Deserialize)]
pub struct Target {
    pub kind: Vec<String>,
    pub src_path: PathBuf,
}

/// The graph after version resolution.
#[derive(Deserialize)]
pub struct Resolve {
    pub nodes: Vec<Node>,
}

/// A resolved package and what it was linked to.
#[derive(Deserialize)]
pub struct Node {
    pub id: String,
    pub deps: Vec<Edge>,
}

/// One resolved dependency.
#[derive(Deserialize)]
pub struct Edge {
    pub pkg: String,
    pub dep_kinds: Vec<EdgeKind>,
}

/// Why an edge exists; one package can be both an ordinary and a development dependency.
#[derive(Deserialize)]
pub struct EdgeKind {
    pub kind: Option<String>,
}

impl Metadata {
    /// Our own packages, in the workspace's order.
    pub fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// Names of every package that `name` pulls in, itself included, development dependencies left out.
    pub fn reachable_from(&self, name: &str) -> BTreeSet<&str> {
        let name_of: BTreeMap<&str, &str> =
            self.packages.iter().map(|package| (package.id.as_str(), package.name.as_str())).collect();
        let edges_of: BTreeMap<&str, &[Edge]> =
            self.resolve.nodes.iter().map(|node| (node.id.as_str(), node.deps.as_slice())).collect();
        let start = self.members().find(|package| package.name == name);
        let mut open: Vec<&str> = start.iter().map(|package| package.id.as_str()).collect();
        let mut seen: BTreeSet<&str> = open.iter().copied().collect();
        while let Some(id) = open.pop() {
            for edge in edges_of[id] {
                let shipped = edge.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"));
                if shipped && seen.insert(&edge.pkg) {
                    open.push(&edge.pkg);
                }
            }
        }
        seen.into_iter().map(|id| name_of[id]).collect()
    }
}

/// The workspace's metadata, read once for all tests.
pub fn metadata() -> &'static Metadata {
    static READ: OnceLock<Metadata> = OnceLock::new();
    READ.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--locked"])
            .output()
            .expect("cargo runs these tests, so it can be started");
        assert!(
            output.status.success(),
            "`cargo metadata --locked` failed; if Cargo.toml changed, commit Cargo.lock with it:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).expect("cargo prints the documented metadata format")
    })
}

/// The folder that holds the root `Cargo.toml`.
pub fn root() -> &'static Path {
    &metadata().workspace_root
}

/// Paths of all tracked files that still exist, relative to the root; `None` where this is no git checkout.
pub fn tracked() -> Option<Vec<String>> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    let listed = String::from_utf8(output.stdout).expect("tracked paths are UTF-8");
    let present = listed.split_terminator('\0').filter(|path| root().join(path).is_file());
    Some(present.map(str::to_owned).collect())
}

/// Tracked text files as (path, content); files that are not UTF-8 are left out.
pub fn tracked_texts() -> Option<Vec<(String, String)>> {
    let read = |path: String| std::fs::read_to_string(root().join(&path)).ok().map(|text| (path, text));
    Some(tracked()?.into_iter().filter_map(read).collect())
}

/// Says aloud that a rule was not applied because git cannot list the files.
pub fn skip_without_git(test: &str) {
    eprintln!("skipped: {test}: git cannot list the tracked files of this folder");
}
