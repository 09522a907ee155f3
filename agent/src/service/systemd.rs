//! The node as a systemd unit, asked and told through systemctl.
//!
//! Owns: the calls of systemctl and journalctl and the reading of their answers. Must never: write a unit, or touch another unit than
//! the configured one.
//!
//! systemd has its own net under the node (Restart=on-failure after 5 s); the agent acts first. A start or restart is
//! preceded by `reset-failed`, because each counts towards the unit's start limit.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use resilver_host::disk::{create_dir_durably, read_file};
use resilver_host::{ExitStatus, Host, ProcId, SpawnSpec};
use resilver_strategies::api::ExitClass;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::child::Flag;
use super::{Ended, ServiceError, ServiceManager, ServiceState, classify};
use crate::log_tail;
use crate::options::Options;

/// How long systemctl may take for a question. It asks PID 1 over a socket: milliseconds, unless the host is stuck.
const ASK_DEADLINE: Duration = Duration::from_secs(5);
/// How long it may take for a job: the unit's own stop timeout is 90 s by default, and the job waits for it.
const JOB_DEADLINE: Duration = Duration::from_secs(120);
/// How long systemd may take to notice that its main process ended.
const NOTICE_DEADLINE: Duration = Duration::from_secs(3);
/// How often it is asked meanwhile; each question costs a process.
const NOTICE_LOOK: Duration = Duration::from_millis(20);
/// The longest answer that is read: the properties asked for fill a few hundred bytes.
const MAX_ANSWER_BYTES: u64 = 16 * 1024;
/// How long the journal may take to give a run's last lines: a witness, which an exit does not wait for any longer.
const WORDS_DEADLINE: Duration = Duration::from_secs(2);
/// How long journald may take to have the words of a process that ended by itself.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(1);
/// How often it is asked meanwhile; each question reads journal files.
const JOURNAL_LOOK: Duration = Duration::from_millis(100);
/// How many lines of it: an error and what was said after it.
const WORDS_LINES: &str = "50";
/// The longest of what they hold that is read; a longer one is none.
const MAX_WORDS_BYTES: u64 = 256 * 1024;
/// The properties that tell what runs and how the last run ended.
const PROPERTIES: &str = "ActiveState,SubState,MainPID,ExecMainPID,ExecMainCode,ExecMainStatus,Result";

/// The node as a systemd unit.
pub struct SystemdService {
    host: Host,
    unit: String,
    dir: PathBuf,
    calls: AtomicU64,
    acting: Mutex<()>,
    restarting: AtomicBool,
    /// What the run of this process said last: asked for once, and not with every look at a unit that is down.
    words: Mutex<Option<(u32, String)>>,
}

/// A program's call, and how much of its answer is read.
#[derive(Clone, Copy)]
struct Call<'a> {
    program: &'static str,
    args: &'a [&'a str],
    deadline: Duration,
    max_bytes: u64,
}

/// What `systemctl show` says of the unit.
#[derive(Debug, Default, PartialEq, Eq)]
struct UnitState {
    active: String,
    /// Finer, and of the unit's own kind.
    sub: String,
    main_pid: u32,
    last_pid: u32,
    /// As waitid's si_code: 1 exited, 2 killed, 3 killed with a core dump.
    code: i32,
    status: i32,
    result: String,
}

impl UnitState {
    fn parse(text: &str) -> UnitState {
        let mut state = UnitState::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match name {
                "ActiveState" => value.clone_into(&mut state.active),
                "SubState" => value.clone_into(&mut state.sub),
                "MainPID" => state.main_pid = value.parse().unwrap_or(0),
                "ExecMainPID" => state.last_pid = value.parse().unwrap_or(0),
                "ExecMainCode" => state.code = value.parse().unwrap_or(0),
                "ExecMainStatus" => state.status = value.parse().unwrap_or(0),
                "Result" => value.clone_into(&mut state.result),
                _ => {}
            }
        }
        state
    }

    fn exit(&self, last_error: &str) -> ExitClass {
        match self.code {
            1 => classify(ExitStatus::Code(self.status), false, last_error),
            2 | 3 => classify(ExitStatus::Signal(self.status), self.result == "oom-kill", last_error),
            _ => ExitClass::Unknown,
        }
    }

    /// systemd waits out RestartSec= before it starts the unit again by itself.
    fn awaits_restart(&self) -> bool {
        self.sub == "auto-restart"
    }

    /// A stop job, or the end with success: systemd then calls the result a success and the unit inactive, not failed.
    fn deliberate(&self) -> bool {
        self.result == "success" && matches!(self.active.as_str(), "inactive" | "deactivating")
    }
}

impl SystemdService {
    /// The unit that the options name.
    pub fn new(host: &Host, options: &Options) -> SystemdService {
        SystemdService {
            host: host.clone(),
            unit: options.service.unit.clone(),
            dir: options.run_dir(),
            calls: AtomicU64::new(0),
            acting: Mutex::new(()),
            restarting: AtomicBool::new(false),
            words: Mutex::new(None),
        }
    }

    async fn show(&self) -> Result<UnitState, ServiceError> {
        let property = format!("--property={PROPERTIES}");
        let text = self.systemctl(&["show", &property, &self.unit], ASK_DEADLINE).await?;
        Ok(UnitState::parse(&text))
    }

    /// The unit's state once systemd has noticed the end of `node`: our pidfd is faster than its SIGCHLD, and an exit
    /// judged too early would turn a deliberate stop into a crash.
    async fn after(&self, node: ProcId) -> Result<UnitState, ServiceError> {
        let begun = Instant::now();
        loop {
            let unit = self.show().await?;
            if unit.main_pid != node.pid || begun.elapsed() > NOTICE_DEADLINE {
                return Ok(unit);
            }
            tokio::time::sleep(NOTICE_LOOK).await;
        }
    }

    async fn job(&self, verb: &str) -> Result<ProcId, ServiceError> {
        // A unit that was never failed is no reason to stop here.
        if let Err(error) = self.systemctl(&["reset-failed", &self.unit], ASK_DEADLINE).await {
            tracing::debug!(%error, unit = self.unit, "the unit's failure count was not reset");
        }
        self.systemctl(&[verb, &self.unit], JOB_DEADLINE).await?;
        let begun = self.show().await?;
        if let Some(node) = self.identify(begun.main_pid)? {
            return Ok(node);
        }
        // It ended as soon as it began, which systemd may not have noticed yet.
        let gone = self.after(ProcId { pid: begun.main_pid, start_ticks: 0 });
        let state = if begun.main_pid == 0 { begun } else { gone.await? };
        let words = self.last_error(state.last_pid, &state).await;
        let words = if words.is_empty() { "no main process".to_owned() } else { words };
        Err(ServiceError::Failed {
            what: format!("systemctl {verb} {}", self.unit),
            how: format!("the unit is {}", state.active),
            said: format!("{words}; its last run ended with {} {}", state.result, state.status),
        })
    }

    fn identify(&self, pid: u32) -> Result<Option<ProcId>, ServiceError> {
        if pid == 0 {
            return Ok(None);
        }
        self.host.proc.identify(pid).map_err(record_error("look for the unit's main process"))
    }

    /// Runs systemctl and returns what it printed.
    async fn systemctl(&self, args: &[&str], deadline: Duration) -> Result<String, ServiceError> {
        self.run(Call { program: "systemctl", args, deadline, max_bytes: MAX_ANSWER_BYTES }).await
    }

    /// The last error that a run of the unit said before it failed, by systemd's journal. Empty when it said none, or speaks to
    /// somebody else.
    async fn last_error(&self, pid: u32, unit: &UnitState) -> String {
        if unit.result == "success" {
            return String::new();
        }
        let mut words = self.words.lock().await;
        if let Some((_, said)) = words.as_ref().filter(|(of, _)| *of == pid) {
            return said.clone();
        }
        let exited = unit.code == 1;
        let (unit, process) = (format!("_SYSTEMD_UNIT={}", self.unit), format!("_PID={pid}"));
        // Of this boot: an earlier one may have had a run of the same number.
        let args = ["--boot", "--quiet", "--no-pager", "--output=cat", "--lines", WORDS_LINES, &unit, &process];
        let call = Call { program: "journalctl", args: &args, deadline: WORDS_DEADLINE, max_bytes: MAX_WORDS_BYTES };
        let begun = Instant::now();
        let said = loop {
            let said = match self.run(call).await {
                Ok(lines) => log_tail::pick(&lines),
                // A witness, not a condition: an exit without a last error is still an exit.
                Err(error) => {
                    tracing::debug!(%error, unit = self.unit, pid, "what the unit said last could not be read");
                    break String::new();
                }
            };
            // A signal leaves no words, and journald may be a moment behind an exit.
            if !said.is_empty() || !exited || begun.elapsed() > JOURNAL_PATIENCE {
                break said;
            }
            tokio::time::sleep(JOURNAL_LOOK).await;
        };
        *words = Some((pid, said.clone()));
        said
    }

    /// Runs a program and returns what it printed. The seam hands output only into files: one per call, removed after.
    async fn run(&self, asked: Call<'_>) -> Result<String, ServiceError> {
        let Call { program, args, deadline, max_bytes } = asked;
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        create_dir_durably(&*self.host.disk, &self.dir).await.map_err(record_error("make the folder for runs"))?;
        let answer = self.dir.join(format!("{program}-{}-{call}.out", self.host.proc.own().pid));
        let spec = SpawnSpec {
            program: PathBuf::from(program),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: vec![("LC_ALL".to_owned(), "C".to_owned())],
            log: Some(answer.clone()),
            new_session: false,
        };
        let what = format!("{program} {}", args.join(" "));
        let spawned = self.host.proc.spawn(spec).await;
        let process = spawned.map_err(|source| ServiceError::Spawn { program: what.clone(), source })?;
        let ended = timeout(deadline, process.exited()).await;
        let said = read_file(&*self.host.disk, &answer, max_bytes).await;
        if let Err(error) = self.host.disk.remove_file(&answer).await {
            tracing::debug!(%error, program, "an answer was not removed");
        }
        let said = String::from_utf8_lossy(&said.map_err(record_error("read an answer"))?).into_owned();
        match ended {
            Err(_) => Err(ServiceError::Late { what, seconds: deadline.as_secs() }),
            Ok(Err(source)) => Err(record_error("wait for an answer")(source)),
            Ok(Ok(Some(ExitStatus::Code(0)))) => Ok(said),
            Ok(Ok(status)) => {
                Err(ServiceError::Failed { what, how: format!("{status:?}"), said: said.trim().to_owned() })
            }
        }
    }
}

#[async_trait]
impl ServiceManager for SystemdService {
    async fn state(&self) -> Result<ServiceState, ServiceError> {
        let unit = self.show().await?;
        if let Some(node) = self.identify(unit.main_pid)? {
            return Ok(ServiceState::Running(node));
        }
        if unit.last_pid == 0 {
            return Ok(ServiceState::Absent);
        }
        // systemd keeps no start time of a process that is gone; its pid names the run within this boot.
        let node = ProcId { pid: unit.last_pid, start_ticks: 0 };
        let deliberate = unit.deliberate() && !self.is_restarting();
        let last_error = self.last_error(node.pid, &unit).await;
        Ok(ServiceState::Ended(Ended { node, exit: unit.exit(&last_error), last_error, deliberate }))
    }

    async fn start(&self) -> Result<ProcId, ServiceError> {
        let _one = self.acting.lock().await;
        // A start job would only queue behind the unit's own restart, seconds away; a restart job takes its place at once.
        let verb = if self.show().await?.awaits_restart() { "restart" } else { "start" };
        self.job(verb).await
    }

    async fn restart(&self, owner: &str, reason: &str) -> Result<ProcId, ServiceError> {
        let _one = self.acting.lock().await;
        let _restarting = Flag::raise(&self.restarting);
        tracing::info!(unit = self.unit, owner, reason, "asking systemd for a restart");
        self.job("restart").await
    }

    async fn ended(&self, node: ProcId) -> Result<Ended, ServiceError> {
        let unit = self.after(node).await?;
        // systemd may have begun the next run already: how the asked one ended is then no longer told.
        if unit.last_pid != node.pid || unit.main_pid == node.pid {
            return Ok(Ended { node, exit: ExitClass::Unknown, last_error: String::new(), deliberate: false });
        }
        let deliberate = unit.deliberate() && !self.is_restarting();
        let last_error = self.last_error(node.pid, &unit).await;
        Ok(Ended { node, exit: unit.exit(&last_error), last_error, deliberate })
    }

    fn is_restarting(&self) -> bool {
        self.restarting.load(Ordering::Acquire)
    }
}

fn record_error(what: &'static str) -> impl Fn(io::Error) -> ServiceError {
    move |source| ServiceError::Record { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_systemd_will_restart_is_known_as_such() {
        let waiting = UnitState::parse("ActiveState=activating\nSubState=auto-restart\nMainPID=0\nResult=signal\n");
        assert!(waiting.awaits_restart() && !waiting.deliberate());
        assert!(!UnitState::parse("ActiveState=active\nSubState=running\nMainPID=7\n").awaits_restart());
    }

    #[test]
    fn a_killed_unit_and_a_stopped_one_are_told_apart() {
        let killed = UnitState::parse(
            "ActiveState=failed\nMainPID=0\nExecMainPID=77\nExecMainCode=2\nExecMainStatus=9\nResult=signal\n",
        );
        assert_eq!(killed.exit(""), ExitClass::Signal(9));
        assert!(!killed.deliberate());
        let stopped = UnitState::parse("ActiveState=inactive\nExecMainCode=1\nExecMainStatus=0\nResult=success\n");
        assert_eq!(stopped.exit(""), ExitClass::Code(0));
        assert!(stopped.deliberate());
        let starved = UnitState::parse("ActiveState=failed\nExecMainCode=2\nExecMainStatus=9\nResult=oom-kill\n");
        assert_eq!(starved.exit(""), ExitClass::OutOfMemory);
    }
}
