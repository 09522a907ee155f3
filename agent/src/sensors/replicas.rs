//! Whether the members' metadata is the same: their digests compared as of one entry of the log, through the own node.
//!
//! Costs one entry of the log and one small answer of each member, by the digests that are kept in step with every change: no
//! record is read, unless members differ. Must never: begin while the own node does not serve. A comparison that did not come
//! to an end is no fact.

use std::sync::Arc;
use std::time::Duration;

use resilver_host::Host;
use resilver_proto::contract::scope::Of;
use resilver_proto::contract::{ChecksumDifference, CompareChecksumsRequest, MemberDigest, Scope};
use resilver_strategies::api::{Input, Observation, ReplicaFact, ReplicasFact};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, Streaming};

use super::{serves, stopped};
use crate::links::{Links, replica_repair};
use crate::state::View;

/// How long a comparison may take to begin: a commit of the metadata.
const BEGIN_DEADLINE: Duration = Duration::from_secs(10);

/// How long it may be silent: members that differ are gone through.
const SILENCE: Duration = Duration::from_secs(30);

/// How soon members that differed are compared again: twice is what counts, and at the same time would be once.
const AGAIN: Duration = Duration::from_secs(30);

/// How soon a node that does not serve yet is looked at again.
const LOOK: Duration = Duration::from_secs(1);

/// Compares members.
pub(crate) struct ReplicasSensor {
    /// The machine.
    pub(crate) host: Host,
    /// The way to the own node.
    pub(crate) links: Arc<Links>,
    /// How often.
    pub(crate) every: Duration,
    /// How the node is.
    pub(crate) view: watch::Receiver<View>,
    /// Where facts go.
    pub(crate) out: mpsc::Sender<Input>,
}

impl ReplicasSensor {
    /// Compares until it is told to stop.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            () = stopped(&mut shutdown) => {}
            () = self.compare_on() => {}
        }
    }

    async fn compare_on(&self) {
        // Not all agents at once: each has its own moment within the period.
        let mut rng = self.host.rand.fork("agent.replicas");
        let mut due = Instant::now() + self.every.mul_f64(f64::from(rng.next_u32()) / f64::from(u32::MAX));
        loop {
            sleep(due.saturating_duration_since(Instant::now())).await;
            if !serves(&self.view.borrow()) {
                due = Instant::now() + LOOK.min(self.every);
                continue;
            }
            let began = Instant::now();
            let differ = match compare(&self.links, false).await {
                Ok(fact) => {
                    let differ =
                        fact.members.iter().any(|member| matches!(member.verdict.as_str(), "wrong" | "undecided"));
                    // Only a stopping agent has dropped the receiver.
                    let _ = self.out.send(Input::Observed(Observation::Replicas(fact))).await;
                    differ
                }
                Err(status) => {
                    tracing::debug!(error = status.message(), "the members' metadata could not be compared");
                    false
                }
            };
            due = began + if differ { AGAIN.min(self.every) } else { self.every };
        }
    }
}

/// Compares all members once. `stored`: by digests made anew from what is stored.
pub(crate) async fn compare(links: &Links, stored: bool) -> Result<ReplicasFact, Status> {
    let scope = Some(Scope { of: Some(Of::Metadata(true)) });
    let request = CompareChecksumsRequest { scope, with_node: String::new(), stored };
    let call = |channel| async { replica_repair(channel).compare_checksums(request).await };
    let stream = links.node.call(BEGIN_DEADLINE, call).await?.into_inner();
    collect(stream).await
}

async fn collect(mut stream: Streaming<ChecksumDifference>) -> Result<ReplicasFact, Status> {
    let mut members = Vec::new();
    loop {
        let silent = |_| Status::deadline_exceeded(format!("no word for {} s", SILENCE.as_secs()));
        let Some(said) = timeout(SILENCE, stream.message()).await.map_err(silent)?? else {
            return Err(Status::unavailable("the comparison ended before it said that it was finished"));
        };
        members.extend(said.member.map(member_fact));
        if said.finished {
            return Ok(ReplicasFact { index: said.index, members });
        }
    }
}

fn member_fact(member: MemberDigest) -> ReplicaFact {
    let digest = member.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    ReplicaFact { node: member.node, verdict: member.verdict, digest }
}
