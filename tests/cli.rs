//! The command line as people and scripts meet it: help, exit codes, messages. Nothing here needs a running cluster.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests are the outside world

use std::path::Path;
use std::process::{Command, Output};

fn resilver(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_resilver"))
        .args(args)
        .current_dir(dir)
        .env_remove("RESILVER_DIR")
        .env_remove("RESILVER_CONFIG")
        .env_remove("RESILVER_LOG")
        .env("NO_COLOR", "1")
        .output()
        .expect("the binary runs")
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

/// A configuration whose node nobody runs: its ports are of the discard range, where nothing listens.
fn config_of_nobody(dir: &Path) -> String {
    let text = "node: { name: n1, address: '127.0.0.1:9', http: '127.0.0.1:10', data_dir: meta, disks: [d1] }\n\
                agent: { name: n1, node_address: '127.0.0.1:9', address: '127.0.0.1:11', http: '127.0.0.1:12', dir: a }\n";
    let path = dir.join("nobody.yaml");
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

#[test]
fn help_names_every_noun_and_every_exit_code() {
    let dir = scratch();
    let help = resilver(dir.path(), &["--help"]);
    assert_eq!(code(&help), 0);
    let text = out(&help);
    for noun in [
        "up",
        "status",
        "verify",
        "plan",
        "pause",
        "resume",
        "cluster",
        "node",
        "agent",
        "disk",
        "bucket",
        "object",
        "key",
        "lock",
        "meta",
        "repair",
        "incident",
        "journal",
        "config",
        "completions",
        "man",
    ] {
        assert!(text.lines().any(|line| line.trim_start().starts_with(noun)), "{noun} is missing:\n{text}");
    }
    for line in ["0   ok", "2   usage", "3   degraded", "4   unreachable", "5   refused", "70  internal"] {
        assert!(text.contains(line), "{line} is missing:\n{text}");
    }
    assert!(!text.contains("keeper"), "what agents call is not for people");
}

#[test]
fn every_verb_of_the_specification_exists() {
    let dir = scratch();
    for verb in [
        "cluster init",
        "cluster status",
        "node run",
        "node list",
        "node status",
        "node restart",
        "node down",
        "node out",
        "node up",
        "agent run",
        "agent status",
        "disk list",
        "disk status",
        "disk smart",
        "bucket create",
        "bucket list",
        "bucket set",
        "bucket delete",
        "object put",
        "object get",
        "object list",
        "object delete",
        "object verify",
        "object repair",
        "key create",
        "key list",
        "key grant",
        "key deny",
        "key revoke",
        "lock list",
        "lock acquire",
        "lock release",
        "lock break",
        "meta status",
        "repair status",
        "incident list",
        "incident show",
        "incident explain",
        "incident approve",
        "policy replay",
        "journal list",
        "journal verify",
        "journal follow",
        "config check",
        "config schema",
    ] {
        let args: Vec<&str> = verb.split(' ').chain(["--help"]).collect();
        assert_eq!(code(&resilver(dir.path(), &args)), 0, "{verb}");
    }
}

#[test]
fn usage_errors_end_with_two() {
    let dir = scratch();
    for args in [
        &["nonsense"][..],
        &[],
        &["object", "put"],
        &["bucket", "create", "b", "--coding", "0+2"],
        &["bucket", "create", "b", "--quota", "10G"],
        &["bucket", "create", "b", "--quota", "-1"],
        &["bucket", "create", "b", "--repair-priority", "256"],
        &["bucket", "set", "b"],
        &["bucket", "set", "b", "--quota", "lots"],
        &["key", "create"],
        &["lock", "release", "a"],
        &["lock", "acquire", "a", "--lease", "long"],
        &["key", "grant", "RSX", "b"],
    ] {
        let output = resilver(dir.path(), args);
        assert_eq!(code(&output), 2, "{args:?}: {}", err(&output));
        assert_eq!(out(&output), "", "talk does not belong on standard output");
    }
}

#[test]
fn codings_out_of_range_say_what_is_allowed() {
    let dir = scratch();
    let output = resilver(dir.path(), &["bucket", "create", "b", "--coding", "30+3"]);
    assert!(err(&output).contains("at most 32"), "{}", err(&output));
}

#[test]
fn sizes_that_are_none_say_what_one_looks_like() {
    let dir = scratch();
    let text = |quota: &str| err(&resilver(dir.path(), &["bucket", "set", "b", "--quota", quota]));
    assert!(text("10G").contains("no unit `g`: use B, KB, MB"), "{}", text("10G"));
    assert!(text("ten").contains("or `none`"), "{}", text("ten"));
    let nothing = err(&resilver(dir.path(), &["key", "grant", "RSX", "b"]));
    assert!(nothing.contains("--read") && nothing.contains("--admin"), "{nothing}");
}

#[test]
fn without_a_cluster_it_says_where_it_looked_and_how_to_start_one() {
    let dir = scratch();
    let output = resilver(dir.path(), &["status"]);
    assert_eq!(code(&output), 2);
    let text = err(&output);
    assert!(text.starts_with("error: no cluster found\n next: start one here: `resilver up`"), "{text}");
    assert!(text.contains("RESILVER_DIR"), "{text}");
    let named = resilver(dir.path(), &["status", "--dir", "nowhere"]);
    assert_eq!(code(&named), 2, "an explicit place is not replaced by another");
    assert!(err(&named).contains("nowhere/cluster.json"), "{}", err(&named));
}

#[test]
fn a_cluster_that_does_not_answer_ends_with_four() {
    let dir = scratch();
    let config = config_of_nobody(dir.path());
    for verb in [
        &["status"][..],
        &["cluster", "status"],
        &["node", "list"],
        &["node", "status", "n1"],
        &["disk", "list"],
        &["bucket", "list"],
        &["bucket", "create", "b"],
        &["bucket", "set", "b", "--quota", "none"],
        &["bucket", "delete", "b"],
        &["bucket", "delete", "b", "--confirm=b"],
        &["key", "list"],
        &["key", "create", "backup"],
        &["key", "grant", "RSX", "b", "--read"],
        &["key", "revoke", "RSX", "--confirm=RSX"],
        &["object", "verify", "b/k"],
        &["meta", "status"],
        &["repair", "status"],
        &["incident", "list"],
        &["agent", "status"],
        &["plan"],
        &["pause", "--reason", "test"],
        &["node", "restart", "n1", "--reason", "test"],
        &["verify"],
    ] {
        let args: Vec<&str> = verb.iter().copied().chain(["--config", &config]).collect();
        let output = resilver(dir.path(), &args);
        assert_eq!(code(&output), 4, "{verb:?}: {}", err(&output));
        assert!(err(&output).contains("n1"), "{verb:?} names who was asked: {}", err(&output));
        assert_eq!(out(&output), "", "{verb:?}");
    }
}

#[test]
fn what_is_taken_away_is_confirmed_by_its_own_name() {
    let dir = scratch();
    let config = config_of_nobody(dir.path());
    for verb in [["bucket", "delete", "photos", "--confirm=phtos"], ["key", "revoke", "RSX", "--confirm=RSY"]] {
        let output = resilver(dir.path(), &[&verb[..], &["--config", &config]].concat());
        assert_eq!(code(&output), 5, "{}", err(&output));
        assert!(err(&output).contains("nothing was done"), "{}", err(&output));
    }
}

#[test]
fn an_unknown_node_is_named_with_the_ones_there_are() {
    let dir = scratch();
    let config = config_of_nobody(dir.path());
    let output = resilver(dir.path(), &["node", "status", "n7", "--config", &config]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("no node `n7`") && err(&output).contains("nodes there: n1"), "{}", err(&output));
}

#[test]
fn completions_manual_and_schema_are_data() {
    let dir = scratch();
    let completions = resilver(dir.path(), &["completions", "bash"]);
    assert!(code(&completions) == 0 && out(&completions).contains("_resilver"));
    let manual = resilver(dir.path(), &["man"]);
    assert!(code(&manual) == 0 && out(&manual).contains(".TH resilver"));
    let schema = resilver(dir.path(), &["config", "schema"]);
    assert_eq!(code(&schema), 0);
    let text = out(&schema);
    for key in ["node", "agent", "profile", "nodes", "recovery", "authority", "interval", "strategies"] {
        assert!(text.contains(&format!("\"{key}\"")), "{key} is missing");
    }
}

#[test]
fn a_download_never_overwrites_a_file_unasked() {
    let dir = scratch();
    let config = config_of_nobody(dir.path());
    std::fs::write(dir.path().join("mine"), "precious").expect("written");
    let output = resilver(dir.path(), &["object", "get", "b/k", "mine", "--config", &config]);
    assert_eq!(code(&output), 1, "{}", err(&output));
    assert!(err(&output).contains("mine exists already; nothing was written"), "{}", err(&output));
    assert_eq!(std::fs::read_to_string(dir.path().join("mine")).expect("there"), "precious");
    let forced = resilver(dir.path(), &["object", "get", "b/k", "mine", "--force", "--config", &config]);
    assert_eq!(code(&forced), 4, "{}", err(&forced));
    assert_eq!(std::fs::read_to_string(dir.path().join("mine")).expect("there"), "precious");
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).expect("listed").map(|entry| entry.expect("entry").file_name()).collect();
    assert_eq!(left.len(), 2, "half a file was left behind: {left:?}");
}

#[test]
fn a_journal_whose_line_was_changed_does_not_verify() {
    use resilver_strategies::chain::{Tip, seal};
    use resilver_strategies::record::{Draft, RecordKind};
    use resilver_strategies::types::Action;

    let dir = scratch();
    let folder = dir.path().join("agent/journal");
    std::fs::create_dir_all(&folder).expect("made");
    let segment = folder.join(format!("{:020}.jsonl", 1));
    let mut tip = Tip::default();
    let mut text = String::new();
    for number in 0..3 {
        let draft = Draft::new(RecordKind::Note, Action::Skip).with("evidence", format!("line {number}"));
        let line = seal(&tip, 1_700_000_000_000 + number, draft);
        tip = line.tip();
        text.push_str(&line.to_text());
        text.push('\n');
    }
    std::fs::write(&segment, &text).expect("written");
    let verify = || resilver(dir.path(), &["journal", "verify", "--journal", "agent"]);
    let good = verify();
    assert_eq!(code(&good), 0, "{}{}", out(&good), err(&good));
    let listed = resilver(dir.path(), &["journal", "list", "--journal", "agent", "--json"]);
    let lines: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(lines.as_array().map(Vec::len), Some(3));
    assert_eq!(lines[0]["timestamp"], "2023-11-14T22:13:20.000Z");

    std::fs::write(&segment, text.replacen("line 1", "line 7", 1)).expect("written");
    let bad = verify();
    assert_eq!(code(&bad), 1, "{}{}", out(&bad), err(&bad));
    assert!(out(&bad).contains("line 2"), "{}", out(&bad));
}
