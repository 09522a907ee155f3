//! What the agent sees: its node's process, its node's answers, the other agents, its host, logs, and what the disks say of
//! themselves. [docs/sensors.md](../../../docs/sensors.md) has all of them in a table.
//!
//! Owns: the periods of looking and the translation into the engine's facts.
//!
//! Must never: judge. A missed heartbeat is a fact; what it means is the engine's to say. Detection periods are not
//! scaled by the profile.
//!
//! Invariants: every question has a deadline; a sensor that cannot look says so in the log and looks again.

mod canary;
mod choice;
mod failures;
mod heartbeat;
mod host;
mod logs;
mod peers;
mod process;
mod process_state;
mod replicas;
mod smart;

pub(crate) use canary::CanarySensor;
pub(crate) use choice::PeerWatch;
pub(crate) use heartbeat::{HeartbeatSensor, observe};
pub(crate) use host::HostSensor;
pub(crate) use logs::{LogDesk, LogSensor, UnreadLog};
pub(crate) use peers::{PeerSensor, clock_offset};
pub(crate) use process::ProcessSensor;
pub(crate) use process_state::ProcessStateSensor;
pub(crate) use replicas::{ReplicasSensor, compare};
pub(crate) use smart::SmartSensor;

use resilver_host::ProcId;
use resilver_strategies::api::ProcessFact;
use tokio::sync::watch;

use crate::state::View;

/// Resolves when the agent is to stop; also when nobody is left who could say so.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: then, too, it is time to stop.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// The node's process, while it runs.
fn running(view: &View) -> Option<ProcId> {
    match view.node.process {
        Some(ProcessFact::Running { pid, start_ticks }) => Some(ProcId { pid, start_ticks }),
        _ => None,
    }
}

/// Whether the node said last that it serves.
fn serves(view: &View) -> bool {
    view.node.phase() == "healthy"
}
