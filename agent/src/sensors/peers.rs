//! The other agents, asked once per interval; their nodes directly only when their agent is silent or says that its
//! node is dead: "I cannot see it" is not "it is dead".

use std::sync::Arc;
use std::time::Duration;

use resilver_proto::agent::{PingRequest, PingResponse, Silence};
use resilver_proto::contract::DescribeRequest;
use resilver_strategies::api::{Input, Observation, PeerFact, SilenceFact};
use resilver_strategies::liveness::MAX_SILENT;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::stopped;
use crate::health::{HealthDesk, Pinged};
use crate::lease::LeaseHandle;
use crate::links::{Links, PeerLink, agent_peer, node_control};
use crate::state::PeerViews;
use crate::swim::SwimView;
use crate::telemetry::Telemetry;

/// How long the node of a silent agent may take to say that it is there, from the second silent round on: a saturated
/// host answers late, and a late answer is one.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks one other agent how it and its node are.
pub(crate) struct PeerSensor {
    /// Who asks.
    pub(crate) own: String,
    /// Who is asked.
    pub(crate) peer: String,
    /// The ways.
    pub(crate) links: Arc<Links>,
    /// How often.
    pub(crate) interval: Duration,
    /// How long it may take to answer.
    pub(crate) deadline: Duration,
    /// Told when the peer says that it holds the lease.
    pub(crate) lease: LeaseHandle,
    /// Counts.
    pub(crate) telemetry: Arc<Telemetry>,
    /// What is shown to people of it.
    pub(crate) views: Arc<PeerViews>,
    /// How the others are by gossip.
    pub(crate) swim: watch::Receiver<SwimView>,
    /// Told how long it takes, and what the cluster's score is made from.
    pub(crate) health: Arc<HealthDesk>,
    /// Where facts go.
    pub(crate) out: mpsc::Sender<Input>,
}

impl PeerSensor {
    /// Asks until it is told to stop.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let Some(link) = self.links.peers.get(&self.peer) else { return };
        tokio::select! {
            () = stopped(&mut shutdown) => {}
            () = self.ask_on(link) => {}
        }
    }

    async fn ask_on(&self, link: &PeerLink) {
        let mut silent = false;
        loop {
            let asked = Instant::now();
            let fact = self.ask(link, if silent { self.deadline.max(PATIENCE) } else { self.deadline }).await;
            silent = !fact.agent_answers;
            self.views.set(&fact);
            // Only a stopping agent has dropped the receiver.
            let _ = self.out.send(Input::Observed(Observation::Peer(fact))).await;
            tokio::time::sleep(self.interval.saturating_sub(asked.elapsed())).await;
        }
    }

    async fn ask(&self, link: &PeerLink, patience: Duration) -> PeerFact {
        let asked = Instant::now();
        let request = PingRequest { from: self.own.clone() };
        let ping = |channel| async { agent_peer(channel).ping(request).await };
        let answer = link.agent.call(self.deadline, ping).await.map(tonic::Response::into_inner).ok();
        let took = answer.as_ref().map(|_| asked.elapsed());
        self.telemetry.peer(&self.peer, answer.is_some());
        // Only the holder's own word counts: hearsay about a third one would be repeated for ever.
        if answer.as_ref().is_some_and(|answer| answer.lease_holder == self.peer) {
            self.lease.heard(&self.peer);
        }
        let suspect = answer.as_ref().is_none_or(|answer| !answer.node_alive);
        let node_answers = if suspect { Some(self.node_answers(link, patience).await) } else { None };
        let ping = Pinged {
            took,
            alive: answer.as_ref().map(|answer| answer.node_alive),
            score: answer.as_ref().and_then(|answer| answer.health_score).and_then(|score| u8::try_from(score).ok()),
            node_answers,
            leader_known: answer.as_ref().map(|answer| !answer.leader.is_empty()),
        };
        self.health.pinged(&self.peer, &ping);
        self.fact(answer, node_answers)
    }

    async fn node_answers(&self, link: &PeerLink, deadline: Duration) -> bool {
        let describe = |channel| async { node_control(channel).describe(DescribeRequest {}).await };
        link.node.call(deadline, describe).await.is_ok()
    }

    fn fact(&self, answer: Option<PingResponse>, node_answers: Option<bool>) -> PeerFact {
        let swim = self.swim.borrow().get(&self.peer).copied();
        let fact = PeerFact { node: self.peer.clone(), node_answers, swim, ..PeerFact::default() };
        let Some(answer) = answer else { return fact };
        let silent: Vec<SilenceFact> = answer.silent.into_iter().map(silence).collect();
        PeerFact {
            agent_answers: true,
            node_alive: Some(answer.node_alive),
            node_phase: answer.node_phase,
            domain: answer.failure_domain,
            silent: Some(silent).filter(|silent| answer.tells_silent && silent.len() <= MAX_SILENT),
            leader: answer.leader,
            ..fact
        }
    }
}

fn silence(told: Silence) -> SilenceFact {
    SilenceFact {
        node: told.node,
        agent_ms: told.agent_silent_ms,
        node_ms: told.node_silent_ms,
        domain: told.failure_domain,
    }
}
