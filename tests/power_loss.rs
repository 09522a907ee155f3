//! Hosts that lose their power without a word: what clients of the others notice. Real processes in network namespaces of
//! their own; needs root.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "support/lone.rs"]
mod lone;

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use lone::is_root;
use serde_json::{Value, json};

/// One cluster at a time: each would measure the other.
static TURN: Mutex<()> = Mutex::new(());

/// Runs the benchmark once and gives its cases.
fn cases(arguments: &[&str]) -> Vec<Value> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO_BIN_EXE_resilver"))
        .args(["bench", "power-loss", "--runs", "1", "--json"])
        .args(arguments)
        .env_remove("RESILVER_DIR")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let cases: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    cases.as_array().unwrap().clone()
}

/// How long things take depends on the machine of the day: it is printed. That nothing fails does not.
fn no_client_noticed(cases: &[Value]) {
    for case in cases {
        let median = |name: &str| case[name]["median"].as_f64().unwrap_or(f64::NAN);
        println!(
            "{}: {} errors in {} requests; longest {:.0} ms, circuits open after {:.0} ms and closed {:.0} ms after, \
             status {:.0} ms",
            case["case"],
            case["errors"],
            case["requests"],
            median("stall_ms"),
            median("breaker_open_ms"),
            median("breaker_closed_ms"),
            median("status_p99_ms"),
        );
    }
    for case in cases {
        let name = case["case"].as_str().unwrap();
        if name.starts_with("saturated") {
            busy_is_not_dead(case);
            continue;
        }
        let dead = name.starts_with("power off");
        if dead {
            assert_eq!(case["errors"], 0, "{}: {}", case["case"], case["first_error"]);
        } else if let Some(error) = case["first_error"].as_str() {
            // Through a network that is ill a request may fail: with a clear answer, and in time.
            assert!(error.contains("503 ServiceUnavailable"), "{}: {error}", case["case"]);
        }
        assert!(!dead || case["breaker_open_ms"].is_object(), "{}: nobody suspected it", case["case"]);
        assert!(case["back_ms"].is_object(), "{}: not whole again", case["case"]);
    }
}

/// A host that is merely busy: every download is whole, nobody takes it for dead, and no agent lays a hand on it.
fn busy_is_not_dead(case: &Value) {
    let evidence = &case["evidence"];
    println!(
        "{}: {}, the longest {:.0} ms; {evidence}",
        case["case"],
        case["note"],
        case["download_ms"]["worst"].as_f64().unwrap()
    );
    assert!(case["requests"].as_u64().unwrap() >= 64, "fewer downloads than were to run at a time: {case}");
    assert_eq!(case["truncated"], 0, "{}", case["first_error"]);
    assert_eq!(case["errors"], 0, "{}", case["first_error"]);
    assert_eq!(evidence["steps"], json!({}), "steps against a host that was busy: {evidence}");
    assert_eq!(evidence["convicted"], json!([]), "taken for dead: {evidence}");
    assert!(evidence["incidents"].get("host_down").is_none(), "taken for dead: {evidence}");
}

#[test]
fn six_hosts_with_4_2_lose_one_and_no_client_sees_an_error() {
    if is_root("network namespaces") {
        let size = ["--nodes", "6", "--disks", "4", "--upload", "150", "--outage", "8s", "--saturation", "10s"];
        no_client_noticed(&cases(&[&size[..], &["--skip", "thrice"]].concat()));
    }
}

#[test]
fn four_hosts_with_2_2_lose_one_and_no_client_sees_an_error() {
    if is_root("network namespaces") {
        let size = ["--nodes", "4", "--disks", "4", "--upload", "0", "--outage", "8s"];
        no_client_noticed(&cases(&[&size[..], &["--skip", "thrice", "--skip", "saturated"]].concat()));
    }
}
