//! What the agent sees: its node's process, its node's answers, the other agents, and what the disks say of themselves.
//!
//! Owns: the periods of looking and the translation into the engine's facts.
//!
//! Must never: judge. A missed heartbeat is a fact; what it means is the engine's to say. Detection periods are not
//! scaled by the profile.
//!
//! Invariants: every question has a deadline; a sensor that cannot look says so in the log and looks again.

mod failures;
mod heartbeat;
mod peers;
mod process;
mod smart;

pub(crate) use heartbeat::{HeartbeatSensor, observe};
pub(crate) use peers::PeerSensor;
pub(crate) use process::ProcessSensor;
pub(crate) use smart::SmartSensor;

use tokio::sync::watch;

/// Resolves when the agent is to stop; also when nobody is left who could say so.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: then, too, it is time to stop.
    let _ = shutdown.wait_for(|stop| *stop).await;
}
