//! The map's arrows, read from `cargo metadata`: they point down and never back.
//!
//! Who breaks this test is about to draw an arrow the design does not have: change the design first, or find the crate
//! the new code belongs to.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests are the outside world

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

/// Every crate of the workspace and the siblings it may depend on (tests included).
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "resilver",
        &[
            "resilver-host",
            "resilver-proto",
            "resilver-node",
            "resilver-agent",
            "resilver-smart",
            "resilver-strategies",
            "resilver-chaos",
        ],
    ),
    ("resilver-node", &["resilver-host", "resilver-proto"]),
    (
        "resilver-agent",
        &["resilver-host", "resilver-proto", "resilver-smart", "resilver-strategies", "resilver-alerts"],
    ),
    ("resilver-chaos", &["resilver-host", "resilver-proto"]),
    ("resilver-proto", &["resilver-host"]),
    ("resilver-smart", &[]),
    ("resilver-strategies", &[]),
    ("resilver-alerts", &[]),
    ("resilver-host", &[]),
];

/// What the pure core must not even reach through others: no runtime, no socket, no file system, no randomness.
const NEVER_UNDER_STRATEGIES: &[&str] = &["tokio", "mio", "socket2", "rustix", "hyper", "tonic", "rand", "getrandom"];

fn metadata() -> Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    // Only this machine's platform: what others would link is not downloaded, and `--offline` keeps it that way.
    let options = ["--offline", "--filter-platform", &platform()].map(str::to_owned).to_vec();
    MetadataCommand::new().manifest_path(manifest).other_options(options).exec().expect("cargo metadata")
}

fn platform() -> String {
    let said = Command::new("rustc").arg("-vV").output().expect("rustc runs").stdout;
    let said = String::from_utf8(said).expect("UTF-8");
    said.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host").to_owned()
}

#[test]
fn siblings_depend_on_each_other_only_as_the_map_shows() {
    let metadata = metadata();
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ALLOWED.iter().map(|(name, edges)| (*name, edges.iter().copied().collect())).collect();
    let workspace = metadata.workspace_packages();
    let names: BTreeSet<&str> = workspace.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, allowed.keys().copied().collect(), "a crate came or went: draw it on the map and here");
    for package in workspace {
        let edges: BTreeSet<&str> = package
            .dependencies
            .iter()
            .map(|dependency| dependency.name.as_str())
            .filter(|name| names.contains(name))
            .collect();
        let wrong: Vec<_> = edges.difference(&allowed[package.name.as_str()]).collect();
        assert!(wrong.is_empty(), "{} must not depend on {wrong:?}", package.name);
    }
}

#[test]
fn node_and_agent_never_meet() {
    let metadata = metadata();
    assert!(!reachable(&metadata, "resilver-node").contains("resilver-agent"));
    assert!(!reachable(&metadata, "resilver-agent").contains("resilver-node"));
}

#[test]
fn the_pure_core_pulls_in_no_runtime() {
    let metadata = metadata();
    let reached = reachable(&metadata, "resilver-strategies");
    assert!(reached.contains("serde"), "the walk finds nothing: {reached:?}");
    let wrong: Vec<_> = NEVER_UNDER_STRATEGIES.iter().filter(|name| reached.contains(**name)).collect();
    assert!(wrong.is_empty(), "resilver-strategies reaches {wrong:?}");
}

#[test]
fn openraft_stays_behind_its_facade_and_is_the_pinned_one() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        let direct = package.dependencies.iter().find(|dependency| dependency.name == "openraft");
        assert_eq!(direct.is_some(), package.name.as_str() == "resilver-node", "{}", package.name);
        if let Some(direct) = direct {
            assert_eq!(direct.req.to_string(), "=0.9.25", "older ones can commit without a quorum");
        }
    }
}

/// Names of everything a crate's own code links, through however many steps; tests' and build scripts' needs left out.
fn reachable(metadata: &Metadata, name: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().expect("a resolved graph");
    let nodes: BTreeMap<&PackageId, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let start = metadata.packages.iter().find(|package| package.name.as_str() == name).expect("a package of that name");
    let mut waiting = vec![&start.id];
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        for edge in &nodes[id].deps {
            let linked = edge.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            if linked && seen.insert(&edge.pkg) {
                waiting.push(&edge.pkg);
            }
        }
    }
    seen.into_iter().map(|id| metadata[id].name.to_string()).collect()
}
