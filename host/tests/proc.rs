//! Processes of the seam: started, watched, adopted, never mistaken for each other.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use resilver_host::{ExitStatus, Host, ProcId, Process, Signal, SpawnSpec, real};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// How long anything here may take; only reached when a test fails.
const DEADLINE: Duration = Duration::from_secs(30);

fn shell(script: &str) -> SpawnSpec {
    SpawnSpec {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: vec![("RESILVER_TEST_WORD".into(), "word".into())],
        log: None,
        new_session: false,
    }
}

async fn ended(process: &dyn Process) -> Option<ExitStatus> {
    tokio::time::timeout(DEADLINE, process.exited()).await.expect("ends in time").unwrap()
}

/// A process that is nobody's child here: its parent, a shell, ended after starting it.
fn foreign(host: &Host) -> ProcId {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", "sleep 600 >/dev/null 2>&1 & echo $!"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    shell.wait().unwrap();
    host.proc.identify(line.trim().parse().unwrap()).unwrap().expect("it runs")
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Field `number` of /proc/PID/stat, counted from 1, of a process with a plain name.
fn stat_field(pid: u32, number: usize) -> i64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.split_whitespace().nth(number - 1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_child_tells_its_exit_code_or_signal_and_leaves_no_zombie() {
    let host = real::host();
    for code in [0, 1, 70, 137, 255] {
        let child = host.proc.spawn(shell(&format!("exit {code}"))).await.unwrap();
        assert_eq!(ended(&*child).await, Some(ExitStatus::Code(code)));
        assert_eq!(ended(&*child).await, Some(ExitStatus::Code(code)), "may be asked again");
        assert!(!exists(child.id().pid), "reaped before its end is told");
    }
    let child = host.proc.spawn(shell("exec sleep 600")).await.unwrap();
    child.signal(Signal::Kill).unwrap();
    assert_eq!(ended(&*child).await, Some(ExitStatus::Signal(9)));
    let child = host.proc.spawn(shell("kill -SEGV $$")).await.unwrap();
    assert_eq!(ended(&*child).await, Some(ExitStatus::Signal(11)));
    for signal in [Signal::Terminate, Signal::Kill, Signal::Stop, Signal::Continue] {
        assert_eq!(child.signal(signal).unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn a_dropped_handle_neither_ends_the_child_nor_leaves_a_zombie() {
    let host = real::host();
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("gate");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let child = host.proc.spawn(shell(&format!("read line < {}", fifo.display()))).await.unwrap();
    let id = child.id();
    drop(child);

    let again = host.proc.adopt(id).await.unwrap().expect("it runs on");
    // Opening for writing waits for the reader; the line then lets it end.
    tokio::task::spawn_blocking(move || std::fs::write(fifo, "go\n")).await.unwrap().unwrap();
    assert_eq!(ended(&*again).await, Some(ExitStatus::Code(0)), "the one watcher keeps the status of our child");
    assert!(!exists(id.pid));
}

#[tokio::test]
async fn stop_and_continue_reach_the_child() {
    let host = real::host();
    let child = host.proc.spawn(shell("exec sleep 600")).await.unwrap();
    let pid = Pid::from_raw(child.id().pid.cast_signed()).unwrap();
    let wait = |options| {
        tokio::task::spawn_blocking(move || waitid(WaitId::Pid(pid), options | WaitIdOptions::NOWAIT).unwrap().unwrap())
    };
    child.signal(Signal::Stop).unwrap();
    assert!(wait(WaitIdOptions::STOPPED).await.unwrap().stopped());
    child.signal(Signal::Continue).unwrap();
    assert!(wait(WaitIdOptions::CONTINUED).await.unwrap().continued());
    child.signal(Signal::Terminate).unwrap();
    assert_eq!(ended(&*child).await, Some(ExitStatus::Signal(15)));
}

#[tokio::test]
async fn output_is_appended_to_the_log_and_the_environment_is_added() {
    let host = real::host();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("node.log");
    std::fs::write(&log, "before\n").unwrap();
    let mut spec = shell("echo out $RESILVER_TEST_WORD; echo err >&2; [ -n \"$PATH\" ] && cat");
    spec.log = Some(log.clone());
    let child = host.proc.spawn(spec).await.unwrap();
    assert_eq!(ended(&*child).await, Some(ExitStatus::Code(0)), "standard input is empty, not ours");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "before\nout word\nerr\n");
}

#[tokio::test]
async fn a_new_session_is_beyond_our_terminal_and_group() {
    const GROUP: usize = 5;
    const SESSION: usize = 6;
    let host = real::host();
    for new_session in [false, true] {
        let mut spec = shell("exec sleep 600");
        spec.new_session = new_session;
        let child = host.proc.spawn(spec).await.unwrap();
        let pid = child.id().pid;
        let own = i64::from(pid);
        assert_eq!(stat_field(pid, SESSION) == own, new_session);
        assert_eq!(stat_field(pid, GROUP) == own, new_session);
        child.signal(Signal::Kill).unwrap();
        ended(&*child).await;
    }
}

#[tokio::test]
async fn a_program_or_log_that_cannot_be_opened_starts_nothing() {
    let host = real::host();
    let mut spec = shell("exit 0");
    spec.program = "/nonexistent/program".into();
    assert_eq!(host.proc.spawn(spec).await.err().unwrap().kind(), ErrorKind::NotFound);
    let mut spec = shell("exit 0");
    spec.log = Some("/nonexistent/folder/log".into());
    assert_eq!(host.proc.spawn(spec).await.err().unwrap().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_foreign_process_is_adopted_signalled_and_its_end_seen() {
    let host = real::host();
    let id = foreign(&host);
    let adopted = host.proc.adopt(id).await.unwrap().expect("it runs");
    assert_eq!(adopted.id(), id);
    let twice = host.proc.adopt(id).await.unwrap().expect("still runs");

    adopted.signal(Signal::Kill).unwrap();
    assert_eq!(ended(&*adopted).await, None, "whose child it was learns how it ended, we do not");
    assert_eq!(ended(&*twice).await, None);
    assert_eq!(adopted.signal(Signal::Terminate).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(host.proc.adopt(id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_watcher_started_anew_adopts_the_children_of_its_predecessor() {
    // Phase 1: a first watcher starts a child and goes away with its whole runtime, as when the program re-executes
    // itself: the child is still ours, but nobody waits for it.
    let id = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { real::host().proc.spawn(shell("exec sleep 600")).await.unwrap().id() })
    })
    .join()
    .unwrap();

    // Phase 2: a second one adopts it from its record, and reaps it.
    let host = real::host();
    let adopted = host.proc.adopt(id).await.unwrap().expect("it runs on");
    adopted.signal(Signal::Terminate).unwrap();
    assert_eq!(ended(&*adopted).await, Some(ExitStatus::Signal(15)));
    assert!(!exists(id.pid));
}

#[tokio::test]
async fn a_reused_pid_is_not_the_process_of_that_record() {
    let host = real::host();
    let child = host.proc.spawn(shell("exec sleep 600")).await.unwrap();
    let id = child.id();
    assert_eq!(host.proc.identify(id.pid).unwrap(), Some(id));
    for start_ticks in [0, id.start_ticks - 1, id.start_ticks + 1] {
        assert!(host.proc.adopt(ProcId { start_ticks, ..id }).await.unwrap().is_none());
    }
    child.signal(Signal::Kill).unwrap();
    ended(&*child).await;
    assert_eq!(host.proc.identify(id.pid).unwrap(), None);
    for pid in [0, u32::MAX, i32::MAX.cast_unsigned()] {
        assert_eq!(host.proc.identify(pid).unwrap(), None);
        assert!(host.proc.adopt(ProcId { pid, start_ticks: 1 }).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_zombie_has_ended() {
    let host = real::host();
    let mut child = Command::new("/bin/sh").args(["-c", "exit 3"]).spawn().unwrap();
    let zombie = child.id();
    let raw = Pid::from_raw(zombie.cast_signed()).unwrap();
    tokio::task::spawn_blocking(move || waitid(WaitId::Pid(raw), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT))
        .await
        .unwrap()
        .unwrap();
    assert!(exists(zombie), "it is a zombie now");
    assert_eq!(host.proc.identify(zombie).unwrap(), None);
    let start_ticks = u64::try_from(stat_field(zombie, 22)).unwrap();
    assert!(host.proc.adopt(ProcId { pid: zombie, start_ticks }).await.unwrap().is_none());
    assert_eq!(child.wait().unwrap().code(), Some(3), "looking at it did not reap it");
}

#[tokio::test]
async fn a_name_with_spaces_and_parentheses_changes_nothing() {
    let host = real::host();
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("a) S 1 (b");
    std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
    let spec = SpawnSpec { program, args: vec!["600".into()], ..shell("") };
    let child = host.proc.spawn(spec).await.unwrap();
    assert_eq!(host.proc.identify(child.id().pid).unwrap(), Some(child.id()));
    assert!(host.proc.own().start_ticks <= child.id().start_ticks, "started after us");
    child.signal(Signal::Kill).unwrap();
    assert_eq!(ended(&*child).await, Some(ExitStatus::Signal(9)));
}

#[test]
fn this_process_and_this_boot_are_known() {
    let host = real::host();
    let own = host.proc.own();
    assert_eq!(own.pid, std::process::id());
    assert_eq!(host.proc.identify(own.pid).unwrap(), Some(own));
    let boot = host.proc.boot_id().unwrap();
    assert_eq!(boot, host.proc.boot_id().unwrap());
    assert_eq!(boot.0.len(), 36, "{boot:?}");
}
