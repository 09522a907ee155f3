//! Fault points: named places where a test stops or ends this very process, so that a race is met for certain and not
//! by luck. Compiled in only with the feature `fault-points`.
//!
//! `RESILVER_FAULT_POINTS=coordinator.before_step=stop,journal.after_intent=exit`: at the named point the process sends
//! itself SIGSTOP (`stop`, once: the first time it passes) or exits at once with status 137 (`exit`).

/// The variable that arms fault points.
pub const VARIABLE: &str = "RESILVER_FAULT_POINTS";

/// Passes the fault point `name`. Does nothing unless it is armed and compiled in.
#[inline]
pub fn point(name: &'static str) {
    #[cfg(feature = "fault-points")]
    crate::real::fault::pass(name);
    #[cfg(not(feature = "fault-points"))]
    let _ = name;
}
