//! A small write and read through the own node, now and then: whether it makes progress, whatever its heartbeats say.
//!
//! Must never: ask a node that does not say that it serves (it would only fail, and its phase says that already), or ask
//! again before the last question ended.

use std::sync::Arc;
use std::time::Duration;

use resilver_proto::contract::CanaryRequest;
use resilver_strategies::api::{CanaryFact, Input, Observation};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::{serves, stopped};
use crate::executors::CANARY_DEADLINE;
use crate::links::{Links, node_control};
use crate::state::View;

/// What canaries may cost the metadata: one of them is three commits, so that all nodes together make no more than three a
/// second. In a cluster of more than ten, each is asked less often than configured.
const SHARE_PER_MEMBER: Duration = Duration::from_secs(1);

/// But no less often than this, whatever that costs: what is judged by a minute of canaries needs some in each.
const LONGEST_PERIOD: Duration = Duration::from_secs(15);

/// Asks for canaries.
pub(crate) struct CanarySensor {
    /// The way to the own node.
    pub(crate) links: Arc<Links>,
    /// How often.
    pub(crate) every: Duration,
    /// How the node is.
    pub(crate) view: watch::Receiver<View>,
    /// Where facts go.
    pub(crate) out: mpsc::Sender<Input>,
}

impl CanarySensor {
    /// Asks until it is told to stop.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            () = stopped(&mut shutdown) => {}
            () = self.ask_on() => {}
        }
    }

    async fn ask_on(&self) {
        loop {
            let members = self.view.borrow().node.fact.as_ref().map_or(1, |fact| fact.members.len());
            let began = Instant::now();
            sleep_until(began + period(self.every, members)).await;
            if !serves(&self.view.borrow()) {
                continue;
            }
            let fact = self.ask().await;
            // Only a stopping agent has dropped the receiver.
            let _ = self.out.send(Input::Observed(Observation::Canary(fact))).await;
        }
    }

    async fn ask(&self) -> CanaryFact {
        let canary = |channel| async { node_control(channel).canary(CanaryRequest {}).await };
        match self.links.node.call(CANARY_DEADLINE, canary).await {
            Ok(answer) => CanaryFact { millis: Some(answer.into_inner().millis), error: String::new() },
            Err(status) => CanaryFact { millis: None, error: status.message().to_owned() },
        }
    }
}

fn period(every: Duration, members: usize) -> Duration {
    every.max((SHARE_PER_MEMBER * u32::try_from(members).unwrap_or(u32::MAX)).min(LONGEST_PERIOD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_cluster_is_asked_less_often_by_each() {
        assert_eq!(period(Duration::from_secs(10), 6), Duration::from_secs(10));
        assert_eq!(period(Duration::from_secs(10), 12), Duration::from_secs(12));
        assert_eq!(period(Duration::from_secs(10), 100), LONGEST_PERIOD);
        assert_eq!(period(Duration::from_secs(60), 100), Duration::from_secs(60));
    }
}
