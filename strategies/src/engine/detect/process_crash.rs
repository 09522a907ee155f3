//! `process_crash`: the node's process ended, and nobody meant it to.
//!
//! Never: takes a process for crashed that still runs. One that runs and does not answer is hung, which is another mode
//! (`deadlock`): noted, not started again.

use serde::{Deserialize, Serialize};

use crate::api::{ExitClass, ProcessFact, Subject};
use crate::config::PolicyConfig;
use crate::engine::detect::Symptom;
use crate::engine::facts::{Facts, Life};
use crate::types::Mode;

/// The signal number of SIGKILL.
const SIGKILL: i32 = 9;

/// How much of a node's last error makes its signature.
const SIGNATURE_CHARS: usize = 160;

/// What the facts about the process mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It runs, or nothing is known yet.
    Fine,
    /// It runs but does not answer.
    Hung { evidence: String },
    /// Somebody stopped it on purpose.
    Deliberate { evidence: String },
    /// It is dead.
    Dead(Box<Symptom>),
}

/// A life of the process that was ended for an operator's restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Planned {
    /// None.
    #[default]
    No,
    /// This one: its end is no crash.
    Life(Life),
    /// This one, but the restart failed: its end was meant, that it stays down was not.
    Failed(Life),
}

/// Reads the facts.
pub(crate) fn read(node: &str, facts: &Facts, policy: &PolicyConfig, planned: Planned) -> Reading {
    let Some(process) = facts.process() else { return Reading::Fine };
    let symptom = |detected_by: &str, evidence, life, signature, initial| {
        Reading::Dead(Box::new(Symptom {
            mode: Mode::ProcessCrash,
            subject: Subject::Node(node.to_owned()),
            detected_by: detected_by.to_owned(),
            evidence,
            initial,
            life,
            signature,
            mended: false,
        }))
    };
    match process {
        ProcessFact::Running { pid, .. } => {
            if facts.missed < policy.detection.missed_heartbeats {
                return Reading::Fine;
            }
            let (missed, error) = (facts.missed, &facts.missed_error);
            let evidence = format!("{missed} heartbeats missed ({error}), but process {pid} runs: hung, not crashed");
            Reading::Hung { evidence }
        }
        ProcessFact::Exited { pid, start_ticks, .. } if planned == Planned::Life((*pid, *start_ticks)) => Reading::Fine,
        ProcessFact::Exited { pid, start_ticks, .. } if planned == Planned::Failed((*pid, *start_ticks)) => {
            let evidence = format!("process {pid} was stopped for a restart, and the restart failed");
            symptom("restart", evidence, Some((*pid, *start_ticks)), None, false)
        }
        ProcessFact::Exited { pid, exit, deliberate, .. } if *deliberate || *exit == ExitClass::Code(0) => {
            Reading::Deliberate { evidence: format!("process {pid} ended on purpose ({exit})") }
        }
        ProcessFact::Exited { pid, start_ticks, exit, last_error, .. } => {
            let said = if last_error.is_empty() { String::new() } else { format!(", last error: {last_error}") };
            let evidence = format!("process {pid} ended: {exit}{said}");
            symptom("process exit", evidence, Some((*pid, *start_ticks)), signature(exit, last_error), false)
        }
        // It was there and left no trace: only with silence as the second source is that an end.
        ProcessFact::Absent if facts.ran => {
            if facts.missed < policy.detection.missed_heartbeats {
                return Reading::Fine;
            }
            let evidence = format!("no trace of the process, and {} heartbeats missed", facts.missed);
            symptom("heartbeats", evidence, None, None, false)
        }
        ProcessFact::Absent => {
            let evidence = "not running when its agent started".to_owned();
            symptom("agent start", evidence, None, None, true)
        }
    }
}

/// Names a crash so that the same one is recognised. `None` for a kill from outside: it says nothing about the node.
/// Numbers in the last error (addresses, times, counts) differ from crash to crash and are left out.
pub(crate) fn signature(exit: &ExitClass, last_error: &str) -> Option<String> {
    let how = match exit {
        ExitClass::Signal(SIGKILL) | ExitClass::Unknown => return None,
        ExitClass::Signal(number) => format!("signal {number}"),
        ExitClass::OutOfMemory => "out of memory".to_owned(),
        ExitClass::NoSpace => "no space".to_owned(),
        ExitClass::Code(code) => format!("code {code}"),
    };
    let mut said = String::new();
    for letter in last_error.chars().take(SIGNATURE_CHARS) {
        match letter {
            '0'..='9' if said.ends_with('#') => {}
            '0'..='9' => said.push('#'),
            other => said.push(other),
        }
    }
    Some(format!("{how}: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_knows_the_same_crash_and_not_a_kill_from_outside() {
        let code = |error: &str| signature(&ExitClass::Code(70), error);
        assert_eq!(code("bad record at 4096"), code("bad record at 512"));
        assert_ne!(code("bad record at 4096"), code("no such file"));
        assert_ne!(code("x"), signature(&ExitClass::Signal(11), "x"));
        assert_eq!(signature(&ExitClass::Signal(9), "x"), None);
        assert!(signature(&ExitClass::OutOfMemory, "").is_some(), "the kernel's kill has one of its own");
    }
}
