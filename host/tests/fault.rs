//! Fault points: this test binary runs itself with points armed.
#![cfg(feature = "fault-points")]
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::process::{Command, Stdio};

use resilver_host::fault;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// Tells the helper below that it is run on purpose.
const HELPER: &str = "RESILVER_HOST_TEST_FAULT_HELPER";

/// The helper's status when it got through all points.
const THROUGH: i32 = 23;

/// Not a test of its own: the process that passes the points.
#[test]
fn helper_passes_points() {
    if std::env::var_os(HELPER).is_none() {
        return;
    }
    fault::point("test.first");
    fault::point("test.first");
    println!("between");
    fault::point("test.second");
    std::process::exit(THROUGH);
}

fn helper(points: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "helper_passes_points", "--nocapture"])
        .env(HELPER, "1")
        .env(fault::VARIABLE, points)
        .stderr(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

#[test]
fn points_that_are_not_armed_do_nothing() {
    assert_eq!(helper("").output().unwrap().status.code(), Some(THROUGH));
    assert_eq!(helper("another.point=exit").output().unwrap().status.code(), Some(THROUGH));
}

#[test]
fn exit_ends_the_process_at_its_point() {
    let output = helper("test.second=exit").output().unwrap();
    assert_eq!(output.status.code(), Some(137));
    assert!(String::from_utf8_lossy(&output.stdout).contains("between"), "it came as far as that");
    let output = helper("test.first=exit").output().unwrap();
    assert_eq!(output.status.code(), Some(137));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("between"));
}

#[test]
fn stop_stops_once_and_continues_where_it_was() {
    let child = helper("test.first=stop").spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    let status = waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        .unwrap()
        .unwrap();
    assert!(status.stopped(), "{status:?}");
    kill_process(pid, Signal::CONT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(THROUGH), "the second passing of the point did not stop it");
}

#[test]
fn a_misspelt_action_is_an_error_of_the_harness() {
    let output = helper("test.first=halt").output().unwrap();
    assert_eq!(output.status.code(), Some(70));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("RESILVER_FAULT_POINTS") && message.contains("test.first=halt"), "{message}");
}
