//! The other agents, asked once per interval; their nodes directly only when their agent is silent or says that its
//! node is dead: "I cannot see it" is not "it is dead".

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use resilver_host::Host;
use resilver_proto::agent::{PeerRaft, PingRequest, PingResponse, Silence};
use resilver_proto::contract::DescribeRequest;
use resilver_strategies::api::{Input, Observation, PeerFact, RaftFact, SilenceFact, VoteFact, WayFact};
use resilver_strategies::liveness::{MAX_HEARD, MAX_SILENT};
use resilver_strategies::watching::FULL_MATRIX;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::stopped;
use crate::health::{HealthDesk, Pinged};
use crate::lease::LeaseHandle;
use crate::links::{Links, PeerLink, agent_peer, node_control};
use crate::state::PeerViews;
use crate::swim::SwimView;
use crate::telemetry::Telemetry;

/// Disruptive steps that one answer may tell of.
const MAX_DISRUPTED: usize = 32;

/// How long the node of a silent agent may take to say that it is there, from the second silent round on: a saturated
/// host answers late, and a late answer is one.
const PATIENCE: Duration = Duration::from_secs(3);

/// A node whose agent has not heard it for so long is asked directly. Three heartbeats: one that is late is no news.
const MUTE_FOR_MS: u64 = 3_000;

/// Asks one other agent how it and its node are.
#[derive(Clone)]
pub(crate) struct PeerSensor {
    /// The machine: its clock is compared with theirs.
    pub(crate) host: Host,
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
    /// How long it waits before it begins: many that begin at once spread over an interval.
    pub(crate) begins_in: Duration,
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
        if !self.begins_in.is_zero() {
            tokio::time::sleep(self.begins_in).await;
        }
        let mut silent = false;
        let mut ways = Vec::new();
        // Of many hosts only some ways are tried each time, each of them in turn: what is tried at once stays the same.
        let turns = self.links.peers.len().div_ceil(FULL_MATRIX).max(1);
        let mut round = 0;
        loop {
            let asked = Instant::now();
            if !link.ways.is_empty() && (silent || round % turns == 0) {
                ways = self.try_ways(link).await;
            }
            round = (round + 1) % turns;
            let patience = if silent { self.deadline.max(PATIENCE) } else { self.deadline };
            let fact = PeerFact { ways: ways.clone(), ..self.ask(link, patience).await };
            silent = !fact.agent_answers;
            self.views.set(&fact);
            // Only a stopping agent has dropped the receiver.
            let _ = self.out.send(Input::Observed(Observation::Peer(fact))).await;
            tokio::time::sleep(self.interval.saturating_sub(asked.elapsed())).await;
        }
    }

    /// Asks over every way side by side, and turns to the first that answers.
    async fn try_ways(&self, link: &PeerLink) -> Vec<WayFact> {
        let tries = link.ways.iter().map(async |way| {
            let request = PingRequest { from: self.own.clone() };
            let ping = |channel| async { agent_peer(channel).ping(request).await };
            let answers = way.call(self.deadline, ping).await.is_ok_and(|answer| answer.into_inner().node == self.peer);
            WayFact { address: way.address(), answers }
        });
        let ways = join_all(tries).await;
        let now = link.agent.address();
        // The configured order is the preferred one: back to the first as soon as it answers.
        if let Some(way) = ways.iter().find(|way| way.answers).filter(|way| way.address != now) {
            tracing::info!(peer = self.peer, from = now, to = way.address, "another way to an agent is taken");
            link.agent.turn_to(&way.address);
        }
        ways
    }

    async fn ask(&self, link: &PeerLink, patience: Duration) -> PeerFact {
        let (asked, wall_ms) = (Instant::now(), self.host.clock.now().as_millis());
        let request = PingRequest { from: self.own.clone() };
        let ping = |channel| async { agent_peer(channel).ping(request).await };
        let answer = link.agent.call(self.deadline, ping).await.map(tonic::Response::into_inner).ok();
        let took = answer.as_ref().map(|_| asked.elapsed());
        self.telemetry.peer(&self.peer, answer.is_some());
        self.views.names(&self.peer, answer.as_ref().map_or("", |answer| &answer.lease_holder));
        // Only the holder's own word counts: hearsay about a third one would be repeated for ever.
        if answer.as_ref().is_some_and(|answer| answer.lease_holder == self.peer) {
            self.lease.heard(&self.peer);
        }
        let suspect = answer.as_ref().is_none_or(|answer| {
            // A process that runs and answers nobody: its own agent is one source, this one the other.
            let mute = answer.node_heartbeat_age_ms != u64::MAX && answer.node_heartbeat_age_ms > MUTE_FOR_MS;
            !answer.node_alive || mute
        });
        let node_answers = if suspect { Some(self.node_answers(link, patience).await) } else { None };
        let ping = Pinged {
            took,
            alive: answer.as_ref().map(|answer| answer.node_alive),
            score: answer.as_ref().and_then(|answer| answer.health_score).and_then(|score| u8::try_from(score).ok()),
            node_answers,
            leader_known: answer.as_ref().map(|answer| !answer.leader.is_empty()),
        };
        self.health.pinged(&self.peer, &ping);
        let clock = answer.as_ref().zip(took).map(|(answer, took)| clock_offset(wall_ms, answer.wall_ms, took));
        self.fact(answer, node_answers, clock)
    }

    async fn node_answers(&self, link: &PeerLink, deadline: Duration) -> bool {
        let describe = |channel| async { node_control(channel).describe(DescribeRequest {}).await };
        link.node.call(deadline, describe).await.is_ok()
    }

    fn fact(&self, answer: Option<PingResponse>, node_answers: Option<bool>, clock: Option<(i64, u64)>) -> PeerFact {
        let swim = self.swim.borrow().get(&self.peer).copied();
        let fact = PeerFact { node: self.peer.clone(), node_answers, swim, ..PeerFact::default() };
        let Some(answer) = answer else { return fact };
        let silent: Vec<SilenceFact> = answer.silent.into_iter().map(silence).collect();
        let bounded = silent.len() <= MAX_SILENT && answer.heard.len() <= MAX_HEARD;
        PeerFact {
            agent_answers: true,
            node_alive: Some(answer.node_alive),
            node_phase: answer.node_phase,
            domain: answer.failure_domain,
            silent: Some(silent).filter(|_| answer.tells_silent && bounded),
            heard: Some(answer.heard).filter(|_| answer.partial && bounded),
            leader: answer.leader,
            hears_us: answer.hears_you,
            raft: answer.raft.map(raft_fact),
            raft_age_ms: answer.node_heartbeat_age_ms,
            cluster: answer.cluster_id,
            epoch: answer.epoch,
            clock_offset_ms: clock.map(|(offset, _)| offset),
            clock_error_ms: clock.map_or(0, |(_, error)| error),
            canary_ms: answer.canary_ms,
            disrupted_ms: Some(answer.disrupted_ms).filter(|ages| ages.len() <= MAX_DISRUPTED).unwrap_or_default(),
            ..fact
        }
    }
}

fn raft_fact(raft: PeerRaft) -> RaftFact {
    RaftFact {
        role: raft.role,
        term: raft.term,
        leader: raft.leader,
        committed: raft.committed,
        applied: raft.applied,
        voters: raft.voters,
        last_log: raft.last_log,
        last_log_term: raft.last_log_term,
        snapshot: raft.snapshot,
        quorum_ack_ms: raft.quorum_ack_ms,
        unheard_ms: raft.unheard_ms,
        vote: raft.vote.map(|vote| VoteFact { term: vote.term, node: vote.node, committed: vote.committed }),
    }
}

/// How far another clock is ahead, and by how much that may be wrong, both in milliseconds: it was read somewhere within the
/// time that the answer took, and is taken to have been read in the middle. That time is monotonic: a clock of ours that is
/// set meanwhile does not count twice.
pub(crate) fn clock_offset(asked_ms: u64, theirs_ms: u64, took: Duration) -> (i64, u64) {
    let half = u64::try_from(took.as_micros().div_ceil(2_000)).unwrap_or(u64::MAX);
    let ours = i128::from(asked_ms) + i128::from(half);
    let offset = i128::from(theirs_ms) - ours;
    // Whole milliseconds on both sides: each may be off by almost one.
    (offset.clamp(i64::MIN.into(), i64::MAX.into()) as i64, half.saturating_add(1))
}

fn silence(told: Silence) -> SilenceFact {
    SilenceFact {
        node: told.node,
        agent_ms: told.agent_silent_ms,
        node_ms: told.node_silent_ms,
        domain: told.failure_domain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_read_in_the_middle_of_the_answer() {
        let took = Duration::from_millis(10);
        assert_eq!(clock_offset(1_000, 1_005, took), (0, 6));
        assert_eq!(clock_offset(1_000, 1_505, took), (500, 6));
        assert_eq!(clock_offset(1_000, 5, took), (-1_000, 6));
        assert_eq!(clock_offset(1_000, 1_000, Duration::ZERO), (0, 1));
        assert_eq!(clock_offset(0, u64::MAX, Duration::ZERO).0, i64::MAX);
    }
}
