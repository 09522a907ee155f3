//! The node's process, held by a pidfd: its end is seen in the instant it happens.
//!
//! Invariants: an exit is reported only with its classification (the keeper's record is awaited), and never for an end
//! that a restart of ours brought about.

use std::sync::Arc;
use std::time::Duration;

use resilver_host::{Host, ProcId};
use resilver_strategies::api::{Input, Observation, ProcessFact};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use super::stopped;
use crate::service::{Ended, ServiceManager, ServiceState};

/// How often a node that does not run is looked for, besides being told: somebody else may have started it.
const LOOK: Duration = Duration::from_secs(1);

/// Watches the node's process.
pub(crate) struct ProcessSensor {
    /// The machine.
    pub(crate) host: Host,
    /// Who knows which process it is.
    pub(crate) service: Arc<dyn ServiceManager>,
    /// Told by the executor when it has started or restarted the node.
    pub(crate) changed: Arc<Notify>,
    /// Tells the heartbeat sensor that a new process runs.
    pub(crate) begun: Arc<Notify>,
    /// Where facts go.
    pub(crate) out: mpsc::Sender<Input>,
}

impl ProcessSensor {
    /// Watches until it is told to stop.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            () = stopped(&mut shutdown) => {}
            () = self.watch() => {}
        }
    }

    async fn watch(&self) {
        let mut seen: Option<ProcId> = None;
        loop {
            let fact = match self.service.state().await {
                Ok(ServiceState::Running(node)) => {
                    if seen.replace(node) != Some(node) {
                        self.begun.notify_one();
                    }
                    self.follow(node).await;
                    continue;
                }
                Ok(_) if self.service.is_restarting() => {
                    self.wait().await;
                    continue;
                }
                Ok(ServiceState::Ended(ended)) => exited(ended),
                Ok(ServiceState::Absent) => ProcessFact::Absent,
                Err(error) => {
                    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(%error, source, "the node's service manager cannot be asked");
                    self.wait().await;
                    continue;
                }
            };
            self.send(fact).await;
            self.wait().await;
        }
    }

    /// Reports a running process until it ends, and then how it ended.
    async fn follow(&self, node: ProcId) {
        let process = match self.host.proc.adopt(node).await {
            Ok(Some(process)) => process,
            // It ended in between: the next look says how.
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, pid = node.pid, "the node's process cannot be watched");
                return self.wait().await;
            }
        };
        loop {
            self.send(ProcessFact::Running { pid: node.pid, start_ticks: node.start_ticks }).await;
            match timeout(LOOK, process.exited()).await {
                Err(_) => {}
                Ok(Ok(_)) => break,
                Ok(Err(error)) => {
                    tracing::warn!(%error, pid = node.pid, "watching the node's process failed");
                    return self.wait().await;
                }
            }
        }
        if self.service.is_restarting() {
            return;
        }
        match self.service.ended(node).await {
            Ok(ended) => self.send(exited(ended)).await,
            Err(error) => tracing::warn!(%error, pid = node.pid, "how the node ended cannot be told"),
        }
        // The next look would only repeat it; wait for a start, or for the period.
        self.wait().await;
    }

    async fn wait(&self) {
        // Either way it is time to look again.
        let _ = timeout(LOOK, self.changed.notified()).await;
    }

    async fn send(&self, fact: ProcessFact) {
        // Only a stopping agent has dropped the receiver.
        let _ = self.out.send(Input::Observed(Observation::Process(fact))).await;
    }
}

fn exited(ended: Ended) -> ProcessFact {
    ProcessFact::Exited {
        pid: ended.node.pid,
        start_ticks: ended.node.start_ticks,
        exit: ended.exit,
        last_error: ended.last_error,
        deliberate: ended.deliberate,
    }
}
