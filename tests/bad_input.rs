//! Bad input: one clear message with cause and next step, a documented exit code, and nothing lost or overwritten.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests are the outside world

use std::path::Path;
use std::process::{Command, Output};

fn resilver(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_resilver"))
        .args(args)
        .current_dir(dir)
        .env_remove("RESILVER_DIR")
        .env_remove("RESILVER_CONFIG")
        .env("NO_COLOR", "1")
        .output()
        .expect("the binary runs")
}

/// What `config check` says about a file with this text.
fn check(text: &str) -> (i32, String) {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("r.yaml"), text).expect("written");
    let output = resilver(dir.path(), &["config", "check", "r.yaml"]);
    assert!(output.stdout.is_empty() || output.status.success(), "talk does not belong on standard output");
    (output.status.code().expect("ended"), String::from_utf8_lossy(&output.stderr).into_owned())
}

const GOOD: &str = "\
profile: fast
node:
  name: n1
  address: 127.0.0.1:7401
  http: 127.0.0.1:7402
  data_dir: meta
  disks: [disk1, disk2]
agent:
  name: n1
  node_address: 127.0.0.1:7401
  address: 127.0.0.1:7403
  http: 127.0.0.1:7404
  dir: agent
recovery:
  max_restart_attempts: 5
  restart_cooldown: 60s
";

#[test]
fn a_good_configuration_is_ok() {
    assert_eq!(check(GOOD), (0, String::new()));
}

#[test]
fn an_unknown_key_is_named_with_line_column_and_valid_names() {
    let (code, text) = check(&GOOD.replace("  data_dir: meta", "  colour: red\n  data_dir: meta"));
    assert_eq!(code, 2);
    assert!(text.starts_with("error: r.yaml:6:3: unknown key `colour`"), "{text}");
    assert!(text.contains("6 |   colour: red\n  |   ^"), "{text}");
    assert!(text.contains("valid keys here: ") && text.contains("data_dir"), "{text}");
}

#[test]
fn a_misspelt_key_is_answered_with_the_right_one() {
    let (code, text) = check(&GOOD.replace("restart_cooldown", "restart_coldown"));
    assert_eq!(code, 2);
    assert!(text.starts_with("error: r.yaml:16:3: unknown key `restart_coldown`"), "{text}");
    assert!(text.contains("did you mean `restart_cooldown`?"), "{text}");
}

#[test]
fn a_duplicate_key_is_named_where_it_comes_again() {
    let (code, text) = check(&GOOD.replace("  data_dir: meta", "  data_dir: meta\n  data_dir: other"));
    assert_eq!(code, 2);
    assert!(text.starts_with("error: r.yaml:7:3: duplicate key `data_dir`"), "{text}");
}

#[test]
fn a_missing_key_and_a_wrong_type_are_named_with_their_place() {
    let (code, text) = check(&GOOD.replace("  data_dir: meta\n", ""));
    assert_eq!(code, 2);
    assert!(text.starts_with("error: r.yaml:") && text.contains("missing key `data_dir`"), "{text}");
    let (code, text) = check(&GOOD.replace("max_restart_attempts: 5", "max_restart_attempts: many"));
    assert_eq!(code, 2);
    assert!(text.starts_with("error: r.yaml:15:"), "{text}");
    let (code, text) = check(&GOOD.replace("60s", "sixty"));
    assert_eq!(code, 2);
    assert!(text.starts_with("error: r.yaml:16:"), "{text}");
}

#[test]
fn text_that_is_no_yaml_is_named_with_its_place() {
    let (code, text) = check("node: [\n");
    assert_eq!(code, 2);
    assert!(text.starts_with("error: r.yaml:"), "{text}");
    let (code, text) = check("node:\n\tname: n1\n");
    assert_eq!(code, 2);
    assert!(text.starts_with("error: r.yaml:2:"), "{text}");
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    for (from, to, what) in [
        ("disks: [disk1, disk2]", "disks: []", "node.disks is empty"),
        ("disks: [disk1, disk2]", "disks: [disk1, disk1]", "twice"),
        ("data_dir: meta", "data_dir: disk1/meta", "lie in each other"),
        ("  address: 127.0.0.1:7401", "  address: 127.0.0.1", "a port is missing"),
        ("  node_address: 127.0.0.1:7401", "  node_address: 127.0.0.1:7409", "agent.node_address"),
    ] {
        let (code, text) = check(&GOOD.replace(from, to));
        assert_eq!(code, 2, "{to}: {text}");
        assert!(text.starts_with("error: r.yaml: ") && text.contains(what) && text.contains("next: "), "{to}: {text}");
    }
}

#[test]
fn a_policy_that_is_not_builtin_is_refused_where_it_stands() {
    assert_eq!(check(&format!("{GOOD}strategies:\n  split_brain: builtin\n")), (0, String::new()));
    let (code, text) = check(&format!("{GOOD}strategies:\n  split_brain: my-policy\n"));
    assert_eq!(code, 2);
    assert!(text.starts_with("error: r.yaml:18:16: there is no policy `my-policy`"), "{text}");
    assert!(text.contains("`builtin` alone"), "{text}");
}

#[test]
fn a_daemon_refuses_what_check_refuses_before_it_touches_anything() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("resilver.yaml"), GOOD.replace("data_dir: meta", "data_dir: meta\n  colour: red"))
        .expect("written");
    for verb in ["node", "agent"] {
        let output = resilver(dir.path(), &[verb, "run"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("unknown key `colour`"));
    }
    let left = std::fs::read_dir(dir.path()).expect("listed").count();
    assert_eq!(left, 1, "something was made beside the refused configuration");
}

#[test]
fn a_local_cluster_that_could_hold_nothing_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let output = resilver(dir.path(), &["up", "--nodes", "1", "--disks", "1", "--dir", "c"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("cannot hold any coding") && text.contains("next: "), "{text}");
    assert!(!dir.path().join("c").exists(), "a refused cluster leaves nothing behind");
}

#[test]
fn a_folder_with_other_things_in_it_is_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("photos")).expect("made");
    std::fs::write(dir.path().join("photos/cat.jpg"), "cat").expect("written");
    let output = resilver(dir.path(), &["up", "--dir", "photos"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("is not empty (cat.jpg)"), "{text}");
    assert_eq!(std::fs::read_to_string(dir.path().join("photos/cat.jpg")).expect("there"), "cat");
}

#[test]
fn a_cluster_file_of_a_newer_format_is_refused_and_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = r#"{"format":99,"name":"x","disks":2,"nodes":[]}"#;
    std::fs::write(dir.path().join("cluster.json"), text).expect("written");
    for verb in ["status", "up"] {
        let output = resilver(dir.path(), &[verb, "--dir", "."]);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("format 99, newer than 2"), "{said}");
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("cluster.json")).expect("there"), text);
}
