//! Keepers and the child service, with real processes.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod support;

use std::path::Path;

use resilver_agent::keeper::{EXIT_FAILED, EXIT_OK, EXIT_REFUSED};
use resilver_agent::run_dir::{RunDir, StopRecord};
use resilver_agent::service::{ChildService, ServiceManager, ServiceState};
use resilver_agent::{KeeperOptions, Options, run_keeper};
use resilver_host::{ExitStatus, Host, ProcId, Signal};
use resilver_strategies::api::ExitClass;
use support::until;

#[test]
#[ignore = "no test: the keeper's own process, started by the tests"]
fn keeper_entry() {
    support::keeper_main();
}

fn options(dir: &Path, program: &str, args: &[&str]) -> KeeperOptions {
    KeeperOptions {
        run_dir: dir.join("run"),
        log: dir.join("node.log"),
        program: program.into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
    }
}

fn service(host: &Host, dir: &Path, program: &str, args: &[&str]) -> ChildService {
    let text = format!(
        r#"{{"name":"n1","node_address":"127.0.0.1:1","address":"127.0.0.1:0","http":"127.0.0.1:0","dir":"{}"}}"#,
        dir.display()
    );
    let mut options: Options = serde_json::from_str(&text).expect("options");
    options.launch = support::launch(dir, program, args);
    ChildService::new(host, &options)
}

async fn signal(host: &Host, node: ProcId, signal: Signal) {
    host.proc.adopt(node).await.unwrap().expect("it runs").signal(signal).unwrap();
}

#[tokio::test]
async fn a_run_is_recorded_with_its_exit_code_and_last_error() {
    let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("node.log"), "ERROR of an earlier run\n").unwrap();
    let script = "echo hello; echo ERROR no room at all; echo bye; exit 3";
    let code = run_keeper(host.clone(), options(dir.path(), "/bin/sh", &["-c", script])).await;
    assert_eq!(code, EXIT_OK);
    let run = RunDir::new(&host, &dir.path().join("run"));
    let node = run.node().await.unwrap().expect("recorded");
    let exit = run.exit().await.unwrap().expect("recorded");
    assert_eq!((exit.node(), exit.boot_id.clone()), (node.node(), node.boot_id.clone()));
    assert_eq!(exit.status, ExitStatus::Code(3));
    assert_eq!(exit.last_error, "ERROR no room at all");
    assert!(run.alive(&node).await.unwrap().is_none());

    let code = run_keeper(host.clone(), options(dir.path(), "/bin/true", &[])).await;
    assert_eq!(code, EXIT_OK);
    let exit = run.exit().await.unwrap().expect("recorded");
    assert_eq!((exit.status, exit.last_error.as_str()), (ExitStatus::Code(0), ""), "an old error is not this run's");
}

#[tokio::test]
async fn a_second_node_is_refused_and_a_missing_program_fails() {
    let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
    let first = tokio::spawn(run_keeper(host.clone(), options(dir.path(), "/bin/sleep", &["300"])));
    let run = RunDir::new(&host, &dir.path().join("run"));
    let node = until("the node's record", || async { run.node().await.unwrap() }).await;
    let second = run_keeper(host.clone(), options(dir.path(), "/bin/sleep", &["300"])).await;
    assert_eq!(second, EXIT_REFUSED);
    assert_eq!(run.node().await.unwrap().expect("recorded"), node, "the refused keeper left the record alone");
    signal(&host, node.node(), Signal::Kill).await;
    assert_eq!(first.await.unwrap(), EXIT_OK);
    assert_eq!(run.exit().await.unwrap().expect("recorded").status, ExitStatus::Signal(9));
    assert_eq!(run_keeper(host, options(dir.path(), "/no/such/program", &[])).await, EXIT_FAILED);
}

#[tokio::test]
async fn a_killed_node_is_told_from_a_stopped_one_and_survives_its_agent() {
    let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
    let child = service(&host, dir.path(), "/bin/sleep", &["300"]);
    assert_eq!(child.state().await.unwrap(), ServiceState::Absent);
    let node = child.start().await.expect("started");
    assert_eq!(child.start().await.expect("idempotent"), node);

    // The agent is restarted: another service object, the same records.
    drop(child);
    let child = service(&host, dir.path(), "/bin/sleep", &["300"]);
    assert_eq!(child.state().await.unwrap(), ServiceState::Running(node), "adopted");
    let watched = host.proc.adopt(node).await.unwrap().expect("it runs");
    signal(&host, node, Signal::Kill).await;
    watched.exited().await.unwrap();
    let ended = child.ended(node).await.unwrap();
    assert_eq!((ended.exit.clone(), ended.deliberate), (ExitClass::Signal(9), false));
    assert_eq!(child.state().await.unwrap(), ServiceState::Ended(ended));

    // An operator stops the next one on purpose.
    let node = child.start().await.expect("started again");
    let run = RunDir::new(&host, &dir.path().join("run"));
    let stop = StopRecord { owner: "ann".into(), reason: "new cable".into(), at_ms: 1 };
    run.mark_stopped(&stop).await.unwrap();
    signal(&host, node, Signal::Terminate).await;
    let ended = child.ended(node).await.unwrap();
    assert!(ended.deliberate, "{ended:?}");
    run.want_running().await.unwrap();
    assert_eq!(child.state().await.unwrap(), ServiceState::Absent, "wanted again: to be started");
}

#[tokio::test]
async fn a_restart_makes_a_new_process_and_no_deliberate_stop() {
    let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
    let child = service(&host, dir.path(), "/bin/sleep", &["300"]);
    let first = child.start().await.expect("started");
    let second = child.restart("ann", "a test").await.expect("restarted");
    assert_ne!(first, second);
    assert_eq!(child.state().await.unwrap(), ServiceState::Running(second));
    assert!(!child.is_restarting());
    signal(&host, second, Signal::Kill).await;
    assert_eq!(child.ended(second).await.unwrap().exit, ExitClass::Signal(9));
}

#[tokio::test]
async fn a_node_that_cannot_start_is_told_with_its_reason() {
    let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
    let child = service(&host, dir.path(), "/no/such/program", &[]);
    let error = child.start().await.expect_err("there is no such program");
    assert!(error.to_string().contains("starting the node failed (exit code 1)"), "{error}");
    let short = service(&host, dir.path(), "/bin/false", &[]);
    let node = short.start().await.expect("it ran, however shortly");
    assert_eq!(short.ended(node).await.unwrap().exit, ExitClass::Code(1));
}
