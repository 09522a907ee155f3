//! How the command ends: the exit codes operators script against, and the one shape of a failure.
//!
//! Owns: [`Code`] and [`Failure`]. Must never: print (main does, once) or end the process itself.
//!
//! Invariant: unknown is never success. What could not be found out ends as [`Code::Degraded`] or
//! [`Code::Unreachable`].

use std::fmt;
use std::process::ExitCode;

use tonic::Status;

/// Exit codes, the same for every verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Code {
    /// Done, or: everything is as it should be.
    Ok = 0,
    /// Tried and failed.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Works with less than it should have, or it could not be found out.
    Degraded = 3,
    /// Nobody answered.
    Unreachable = 4,
    /// A guard said no; nothing was done.
    Refused = 5,
    /// A fault of the command itself.
    Internal = 70,
}

impl Code {
    /// All of them with what they mean, for the help text.
    pub(crate) const HELP: &'static str = "\
Exit codes:
  0   ok or pass
  1   failed
  2   usage, or a configuration that cannot be used
  3   degraded, or unknown (never counted as pass)
  4   unreachable
  5   refused by a guard
  70  internal error";
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        ExitCode::from(code as u8)
    }
}

/// Why a verb did not do what was asked: the cause, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// How the process ends.
    pub(crate) code: Code,
    /// What happened and where; may have several lines.
    pub(crate) message: String,
    /// What a person can do about it, one step each.
    pub(crate) next: Vec<String>,
}

impl Failure {
    /// A failure with its code and cause.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), next: Vec::new() }
    }

    /// The command line or the configuration is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    /// Tried and failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Code::Failed, message)
    }

    /// Adds a step that helps.
    #[must_use]
    pub(crate) fn next(mut self, step: impl Into<String>) -> Self {
        self.next.push(step.into());
        self
    }

    /// What a node's refusal means for the caller of a verb. `doing` completes "could not …".
    pub(crate) fn from_status(doing: &str, node: &str, status: &Status) -> Self {
        use tonic::Code as Grpc;
        let code = match status.code() {
            Grpc::Unavailable | Grpc::DeadlineExceeded | Grpc::Cancelled => Code::Unreachable,
            Grpc::InvalidArgument | Grpc::OutOfRange => Code::Usage,
            Grpc::FailedPrecondition | Grpc::PermissionDenied | Grpc::Unauthenticated => Code::Refused,
            _ => Code::Failed,
        };
        let failure = Self::new(code, format!("could not {doing}: {node} says: {}", reason(status)));
        match status.code() {
            Grpc::Unavailable => failure.next("see `resilver status`: is there a leader, and are enough nodes up?"),
            // The request may have been applied: asking again blindly could do it twice.
            Grpc::DeadlineExceeded | Grpc::Unknown => {
                failure.next("the outcome is unknown: look before doing it again (`resilver status`, `object list`)")
            }
            Grpc::Unimplemented => failure.next("this node runs another version: compare `resilver --version` there"),
            _ => failure,
        }
    }
}

/// An error with its causes, on one line. Many name their source in their own words: nothing is said twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(&format!(": {said}"));
        }
        source = error.source();
    }
    text
}

/// The text of a status; some transports leave it empty and put the cause into the source.
fn reason(status: &Status) -> String {
    if !status.message().is_empty() {
        return status.message().to_owned();
    }
    let mut source = std::error::Error::source(status);
    let mut text = status.code().description().to_owned();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        self.next.iter().try_for_each(|step| write!(f, "\n next: {step}"))
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_cause_then_steps() {
        let failure = Failure::usage("no cluster found").next("start one: `resilver up`");
        assert_eq!(failure.to_string(), "error: no cluster found\n next: start one: `resilver up`");
    }

    #[test]
    fn a_cause_is_named_once() {
        #[derive(Debug)]
        struct Outer(&'static str, std::io::Error);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0)
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.1)
            }
        }
        assert_eq!(chain(&Outer("no log", std::io::Error::other("full"))), "no log: full");
        assert_eq!(chain(&Outer("no log: full", std::io::Error::other("full"))), "no log: full");
    }

    #[test]
    fn statuses_map_to_the_documented_codes() {
        let code = |status: Status| Failure::from_status("do it", "n1", &status).code;
        assert_eq!(code(Status::unavailable("no leader")), Code::Unreachable);
        assert_eq!(code(Status::failed_precondition("fence")), Code::Refused);
        assert_eq!(code(Status::not_found("no bucket")), Code::Failed);
        assert_eq!(code(Status::invalid_argument("k")), Code::Usage);
    }
}
