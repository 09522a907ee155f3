//! Armed fault points of this very process. Compiled in only with the feature `fault-points`.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fault::VARIABLE;

/// Status of a process that a fault point ended: what a shell shows for SIGKILL.
const EXIT_STATUS: i32 = 137;

/// Status when the variable cannot be read: an error of the harness. A misspelt point would test nothing.
const HARNESS_ERROR: i32 = 70;

#[derive(Debug)]
enum Action {
    /// SIGSTOP, the first time only.
    Stop { passed: AtomicBool },
    /// The end of the process, with no cleaning up.
    Exit,
}

/// Passes the point `name`: stops or ends the process if it was told to.
pub(crate) fn pass(name: &'static str) {
    static ARMED: OnceLock<BTreeMap<String, Action>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        // Read once: arming is for the whole life of a process.
        let text = std::env::var(VARIABLE).unwrap_or_default();
        parse(&text).unwrap_or_else(|cause| {
            eprintln!("{VARIABLE}: {cause}");
            std::process::exit(HARNESS_ERROR);
        })
    });
    match armed.get(name) {
        Some(Action::Exit) => std::process::exit(EXIT_STATUS),
        Some(Action::Stop { passed }) if !passed.swap(true, Ordering::SeqCst) => stop_here(),
        Some(Action::Stop { .. }) | None => {}
    }
}

fn parse(text: &str) -> Result<BTreeMap<String, Action>, String> {
    let mut armed = BTreeMap::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (name, action) = match item.split_once('=') {
            Some((name, "stop")) if !name.is_empty() => (name, Action::Stop { passed: AtomicBool::new(false) }),
            Some((name, "exit")) if !name.is_empty() => (name, Action::Exit),
            _ => return Err(format!("{item:?} is not NAME=stop or NAME=exit")),
        };
        if armed.insert(name.to_owned(), action).is_some() {
            return Err(format!("{name} is armed twice"));
        }
    }
    Ok(armed)
}

/// Stops the whole process, this thread at this very place.
#[allow(unsafe_code)]
fn stop_here() {
    // `raise`, not `kill`: a signal sent to the process may be taken by another thread, and this one would run on past
    // its point for a moment. One sent to this thread is taken before the call returns, and stops all others too.
    // SAFETY: the declaration is C's own, and `raise` may be called at any time with any number.
    unsafe extern "C" {
        safe fn raise(signal: std::ffi::c_int) -> std::ffi::c_int;
    }
    raise(rustix::process::Signal::STOP.as_raw());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_armed_by_name() {
        let armed = parse(" coordinator.before_step=stop,journal.after_intent=exit, ").unwrap();
        assert!(matches!(armed["coordinator.before_step"], Action::Stop { .. }));
        assert!(matches!(armed["journal.after_intent"], Action::Exit));
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn what_would_silently_test_nothing_is_refused() {
        for text in ["a", "a=", "a=stopp", "a=stop,a=exit", "=stop"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
