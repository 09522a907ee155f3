//! Every scenario of the demonstration, through the command a newcomer runs.

#![cfg(feature = "chaos")]
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::process::Command;

#[test]
fn the_demonstration_recovers_from_everything_and_loses_nothing() {
    let output = Command::new(env!("CARGO_BIN_EXE_resilver")).args(["demo", "--json"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no JSON on stdout ({error}); it said:\n{said}"));
    let scenarios = report["scenarios"].as_array().unwrap();
    let modes: Vec<&str> = scenarios.iter().filter_map(|scenario| scenario["mode"].as_str()).collect();
    assert_eq!(modes, ["process_crash", "process_crash", "disk_failure", "data_corruption"], "{said}");
    for scenario in scenarios {
        assert_eq!(scenario["verdict"], "recovered", "{scenario:#}\n{said}");
        for measured in ["mttd_ms", "mttr_service_ms", "mttr_redundancy_ms", "lost_writes"] {
            assert!(scenario[measured].is_u64(), "{measured} was not measured: {scenario:#}");
        }
        // What the scrub finds the node repairs by itself; the agent then has nothing to do but prove it.
        let by_agent = scenario["steps"].as_array().is_some_and(|steps| !steps.is_empty());
        assert!(by_agent || scenario["mode"] == "data_corruption", "no step: {scenario:#}");
        assert!(scenario["detected_by"].is_string(), "nobody detected it: {scenario:#}");
    }
    assert_eq!(output.status.code(), Some(0), "{said}");
}
