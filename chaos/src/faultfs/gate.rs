//! Where requests pass, wait or fail.
//!
//! Owns: the rules in force, and the requests that they hold. Must never: let a request that is held keep a thread: then
//! so many of them would hold up what is not meant to hang.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::rules::{Fate, Kind, Order, Rules};

/// What is left to do of a request: it is told whether it may be done, and answers in any case.
type Job = Box<dyn FnOnce(io::Result<()>) + Send>;

#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rules: Rules,
    held: Vec<Job>,
}

impl Gate {
    /// Does a request now, later, or not at all.
    pub(super) fn pass(&self, kind: Kind, job: impl FnOnce(io::Result<()>) + Send + 'static) {
        let mut state = self.state();
        match state.rules.fate(kind) {
            Fate::Held => state.held.push(Box::new(job)),
            Fate::Answered { after, failed } => {
                drop(state);
                let verdict = if failed { Err(Errno::IO.into()) } else { Ok(()) };
                if after.is_zero() {
                    job(verdict);
                } else {
                    later(after, move || job(verdict));
                }
            }
        }
    }

    /// Puts an order in force, and does what is not held any more. How things stand after it.
    pub(super) fn order(&self, order: Order) -> String {
        let mut state = self.state();
        state.rules = state.rules.after(order);
        let released = if order == Order::Clear { std::mem::take(&mut state.held) } else { Vec::new() };
        let told = format!("ok held={} {:?}", state.held.len(), state.rules);
        drop(state);
        for job in released {
            job(Ok(()));
        }
        told
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread for each request that is delayed. There are never more than callers that wait for one.
fn later(delay: Duration, work: impl FnOnce() + Send + 'static) {
    // When there is no thread to be had the request is dropped, and with it the caller is told of an I/O error.
    let _ = std::thread::Builder::new().name("slow".to_owned()).spawn(move || {
        std::thread::sleep(delay);
        work();
    });
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_is_held_is_done_when_the_rules_are_cleared_and_not_before() {
        let gate = Gate::default();
        let (tell, told) = mpsc::channel();
        let job = |name: &'static str| {
            let tell = tell.clone();
            move |verdict: io::Result<()>| tell.send((name, verdict.map_err(|error| error.raw_os_error()))).unwrap()
        };
        gate.order(Order::Hang);
        gate.pass(Kind::Write, job("write"));
        gate.pass(Kind::Sync, job("sync"));
        assert!(gate.order(Order::SyncError).starts_with("ok held=2 "));
        assert!(told.try_recv().is_err(), "it hangs");
        assert!(gate.order(Order::Clear).starts_with("ok held=0 "));
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [("write", Ok(())), ("sync", Ok(()))]);
        gate.order(Order::SyncError);
        gate.pass(Kind::Sync, job("sync"));
        assert_eq!(told.try_recv(), Ok(("sync", Err(Some(5)))));
    }
}
