//! The task in which acceptor and proposer live.
//!
//! Invariants: asks are answered one after another, each only after its state is on disk; requests to other agents run
//! beside it and come back as events of their attempt.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use resilver_host::audit::{self, Fact};
use resilver_host::planted::{Bug, bug};
use resilver_host::{Host, rand::Rng};
use resilver_proto::agent::ReleaseRequest as WireRelease;
use resilver_strategies::lease::{
    AcceptReply, Acceptor, AcceptorOptions, Answer, LEASE, LeaseEffect, LeaseEvent, LeaseMessage, LeaseReply, Proposer,
    ProposerOptions, Slot,
};
use resilver_strategies::types::Fence;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Status;

use super::file::{LeaseFile, Stored};
use super::wire;
use super::{Answered, Ask, LeaseError, LeaseHandle, LeaseView, MAX_WAITING};
use crate::facts;
use crate::links::{Links, agent_peer};
use crate::sensors::stopped;
use crate::timebase::Timebase;

/// How often the rules hear that time passed. They want 100 ms while an attempt or a renewal is under way; idle agents
/// need not wake ten times a second for it.
const BUSY_TICK: Duration = Duration::from_millis(100);
/// The pace of an agent that neither holds nor tries: a lease that ran out is noticed half a second later.
const IDLE_TICK: Duration = Duration::from_millis(500);

/// How long another agent may take to answer. Below the rules' own timeout, so that an answer still counts.
const CALL_DEADLINE: Duration = Duration::from_millis(1_800);

/// A change of who holds.
#[derive(Clone, Debug)]
pub(crate) enum LeaseNotice {
    /// This agent holds, and inherits these slots.
    Acquired { fence: Fence, slots: Vec<Slot> },
    /// It does not any more.
    Lost { why: String },
}

/// What the task needs.
pub(crate) struct LeaseSetup {
    pub(crate) host: Host,
    /// This agent's name.
    pub(crate) own: String,
    /// The names of all members, this agent's among them.
    pub(crate) members: Vec<String>,
    pub(crate) links: Arc<Links>,
    pub(crate) time: Timebase,
    /// Told when the lease comes and goes.
    pub(crate) notices: mpsc::Sender<LeaseNotice>,
}

/// The task.
pub(crate) struct LeaseActor {
    setup: LeaseSetup,
    acceptors: Vec<String>,
    file: LeaseFile,
    stored: Stored,
    /// Both exist once the cluster is known.
    parts: Option<(Acceptor, Proposer)>,
    eligible: watch::Receiver<bool>,
    asks: mpsc::Receiver<Ask>,
    view: watch::Sender<LeaseView>,
    calls: JoinSet<Option<LeaseEvent>>,
    random: Rng,
}

impl LeaseActor {
    /// Reads `lease.json` in `dir`.
    ///
    /// # Errors
    /// [`LeaseError::Unreadable`]: an agent with unknown promises must not take part.
    pub(crate) async fn open(setup: LeaseSetup, dir: &Path) -> Result<(LeaseActor, LeaseHandle), LeaseError> {
        let file = LeaseFile::new(&setup.host, dir);
        let stored = file.load().await?;
        let acceptors = super::acceptors(setup.members.iter().map(String::as_str));
        let (asks_tx, asks) = mpsc::channel(MAX_WAITING);
        let (eligible, eligible_rx) = watch::channel(false);
        let (view, view_rx) = watch::channel(LeaseView {
            state: unknown_state(),
            fence: None,
            acceptors: acceptors.clone(),
            slots: stored.lease.slots.clone(),
            highest_fence: stored.lease.fence_highest.highest().to_string(),
            cluster: stored.cluster.clone(),
        });
        let random = setup.host.rand.fork("agent.lease");
        let mut actor = LeaseActor {
            setup,
            acceptors,
            file,
            stored,
            parts: None,
            eligible: eligible_rx,
            asks,
            view,
            calls: JoinSet::new(),
            random,
        };
        if !actor.stored.cluster.is_empty() {
            actor.begin();
        }
        Ok((actor, LeaseHandle { asks: asks_tx, view: view_rx, eligible: Arc::new(eligible) }))
    }

    /// Acceptor and proposer for the known cluster. The acceptor's silence counts from the agent's start: this process
    /// granted nothing before it.
    fn begin(&mut self) {
        let Stored { cluster, epoch, lease } = &self.stored;
        let start = resilver_strategies::types::Moment::default();
        let acceptor = Acceptor::start(start, AcceptorOptions::new(cluster, *epoch), lease.clone());
        let options = ProposerOptions::new(&self.setup.own, cluster, *epoch, self.acceptors.clone(), lease.proposed);
        let mut proposer = Proposer::new(self.setup.time.mono(), options);
        proposer.handle(self.setup.time.mono(), LeaseEvent::Eligible(*self.eligible.borrow()));
        self.parts = Some((acceptor, proposer));
    }

    /// Serves until told to stop; gives the lease up then.
    pub(crate) async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut last_tick = Instant::now();
        loop {
            let pace = self.pace();
            tokio::select! {
                () = stopped(&mut shutdown) => break,
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.answer(ask).await,
                    None => break,
                },
                Some(done) = self.calls.join_next() => {
                    if let Ok(Some(event)) = done {
                        self.event(event).await;
                    }
                }
                Ok(()) = self.eligible.changed() => {
                    let eligible = *self.eligible.borrow_and_update();
                    self.event(LeaseEvent::Eligible(eligible)).await;
                }
                () = tokio::time::sleep_until(last_tick + pace) => {
                    last_tick = Instant::now();
                    let random = self.random.next_u32() % 1000;
                    self.event(LeaseEvent::Tick { random }).await;
                }
            }
            self.publish();
        }
        self.event(LeaseEvent::Eligible(false)).await;
        // The releases just sent spare the others the rest of the term; a short while is enough for them.
        let _ = tokio::time::timeout(BUSY_TICK, async { while self.calls.join_next().await.is_some() {} }).await;
    }

    fn pace(&self) -> Duration {
        match &self.parts {
            Some((_, proposer)) if proposer.status(self.setup.time.mono()).state != "idle" => BUSY_TICK,
            _ => IDLE_TICK,
        }
    }

    async fn answer(&mut self, ask: Ask) {
        let now = self.setup.time.mono();
        match ask {
            Ask::Prepare(request, tx) => {
                self.heard_of(&request.cluster, request.epoch).await;
                let answer = self.acceptor().map(|acceptor| acceptor.prepare(now, &request));
                self.give(answer, tx).await;
            }
            Ask::Accept(request, tx) => {
                self.heard_of(&request.cluster, request.epoch).await;
                let answer = self.acceptor().map(|acceptor| acceptor.accept(now, &request));
                if answer.as_ref().is_ok_and(|answer| answer.reply.accepted) {
                    self.heard(&request.ballot.agent);
                }
                self.give(answer, tx).await;
            }
            Ask::Answered(ballot) => {
                if let Ok(acceptor) = self.acceptor() {
                    acceptor.answered(now, &ballot);
                }
            }
            Ask::Release(request) => {
                if let Ok(acceptor) = self.acceptor() {
                    acceptor.release(&request);
                }
            }
            Ask::OpenSlot(request, tx) => {
                let answer = self.acceptor().map(|acceptor| acceptor.open_slot(&request));
                self.give(answer, tx).await;
            }
            Ask::CloseSlot(request, tx) => {
                let answer = self.acceptor().map(|acceptor| acceptor.close_slot(&request));
                self.give(answer, tx).await;
            }
            Ask::Admit(fence, tx) => self.admit(&fence, tx).await,
            Ask::RaiseFence(fence, tx) => {
                let answer = self.acceptor().map(|acceptor| acceptor.raise_fence(&fence));
                let raised = answer.as_ref().ok().map(|answer| facts::gate_at(&answer.reply));
                if self.give(answer, tx).await
                    && let Some(raised) = raised
                {
                    raised.state();
                }
            }
            Ask::Fence(tx) => {
                // Whoever asked may have stopped waiting.
                let _ = tx.send(self.parts.as_ref().and_then(|(_, proposer)| proposer.fence(now)));
            }
            Ask::Heard { holder } => self.heard(&holder),
            Ask::Known { cluster, epoch } => self.known(cluster, epoch).await,
        }
    }

    fn acceptor(&mut self) -> Result<&mut Acceptor, LeaseError> {
        self.parts.as_mut().map(|(acceptor, _)| acceptor).ok_or(LeaseError::NoCluster)
    }

    fn heard(&mut self, holder: &str) {
        let now = self.setup.time.mono();
        if let Some((_, proposer)) = &mut self.parts {
            proposer.heard(now, holder, LEASE);
        }
    }

    /// Stores what came with the answer, then gives it. When it cannot be stored there is no answer. Whether there was.
    async fn give<T>(&mut self, answer: Result<Answer<T>, LeaseError>, tx: Answered<T>) -> bool {
        let reply = match answer {
            Ok(Answer { persist: Some(lease), reply }) => self.store(lease).await.map(|()| reply),
            Ok(Answer { persist: None, reply }) => Ok(reply),
            Err(error) => Err(error),
        };
        let answered = reply.is_ok();
        // Whoever asked may have stopped waiting; the promise stays.
        let _ = tx.send(reply);
        answered
    }

    async fn admit(&mut self, fence: &Fence, tx: Answered<()>) {
        let (checked, result) = oneshot::channel();
        let answer = self.acceptor().map(|acceptor| acceptor.admit(fence));
        self.give(answer, checked).await;
        let reply = match result.await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(_))) if bug(Bug::ReuseOldFence) => Ok(()),
            Ok(Ok(Err(stale))) => Err(LeaseError::Stale(stale)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(LeaseError::Stopping),
        };
        match &reply {
            Ok(()) => facts::gate_at(fence).state(),
            Err(LeaseError::Stale(_)) => audit::state(|| Fact::FenceRefused { fence: facts::fence(fence) }),
            Err(_) => {}
        }
        // As above.
        let _ = tx.send(reply);
    }

    async fn store(&mut self, lease: resilver_strategies::lease::Persisted) -> Result<(), LeaseError> {
        self.stored.lease = lease;
        let result = self.file.store(&self.stored).await;
        if let Err(error) = &result {
            tracing::error!(%error, "the lease's state cannot be stored: this agent promises nothing");
        }
        result
    }

    async fn known(&mut self, cluster: String, epoch: u64) {
        if cluster.is_empty() || (self.stored.cluster == cluster && epoch <= self.stored.epoch) {
            return;
        }
        if !self.stored.cluster.is_empty() && self.stored.cluster != cluster {
            let known = &self.stored.cluster;
            tracing::error!(
                cluster,
                known,
                "the node is in another cluster than this agent's promises: it takes no part"
            );
            self.parts = None;
            return;
        }
        self.stored.cluster = cluster;
        self.stored.epoch = epoch;
        let lease =
            self.parts.as_ref().map_or_else(|| self.stored.lease.clone(), |(acceptor, _)| acceptor.persisted().clone());
        if self.store(lease).await.is_err() {
            return;
        }
        let now = self.setup.time.mono();
        match &mut self.parts {
            Some((acceptor, proposer)) => {
                acceptor.set_epoch(epoch);
                let effects = proposer.set_epoch(now, epoch);
                self.follow(effects).await;
            }
            None => self.begin(),
        }
    }

    /// Another agent asks under a later epoch than this one knows of: it is this one's from now on. Its own node may be the last
    /// to hear of it, or be in the one before again, because the later one was undone; fences go on from the latest all the same.
    async fn heard_of(&mut self, cluster: &str, epoch: u64) {
        if !self.stored.cluster.is_empty() && self.stored.cluster == cluster && epoch > self.stored.epoch {
            self.known(cluster.to_owned(), epoch).await;
        }
    }

    /// Hands an event to the proposer and does what follows. Messages to this agent's own acceptor are answered in
    /// place, which may make further events.
    async fn event(&mut self, event: LeaseEvent) {
        let now = self.setup.time.mono();
        let Some((_, proposer)) = &mut self.parts else { return };
        let effects = proposer.handle(now, event);
        self.follow(effects).await;
    }

    /// Does what the proposer wants, and hands it what its own acceptor answers.
    async fn follow(&mut self, mut effects: Vec<LeaseEffect>) {
        let mut events = VecDeque::new();
        loop {
            for effect in effects {
                match effect {
                    LeaseEffect::PersistRound(round) => {
                        let Some((acceptor, _)) = &mut self.parts else { return };
                        let lease = acceptor.propose(round);
                        if self.store(lease).await.is_err() {
                            // Nothing of this attempt may be sent; it times out.
                            return;
                        }
                    }
                    LeaseEffect::Send { to, attempt, message } if to == self.setup.own => {
                        events.extend(self.ask_own(attempt, message).await);
                    }
                    LeaseEffect::Send { to, attempt, message } => self.ask_other(to, attempt, message),
                    LeaseEffect::Acquired { fence, slots } => {
                        audit::state(|| Fact::LeaseAcquired { fence: facts::fence(&fence) });
                        self.notice(LeaseNotice::Acquired { fence, slots }).await;
                    }
                    LeaseEffect::Lost { why } => {
                        audit::state(|| Fact::LeaseLost);
                        self.notice(LeaseNotice::Lost { why }).await;
                    }
                }
            }
            let Some(event) = events.pop_front() else { return };
            let now = self.setup.time.mono();
            let Some((_, proposer)) = &mut self.parts else { return };
            effects = proposer.handle(now, event);
        }
    }

    async fn notice(&mut self, notice: LeaseNotice) {
        // Only a stopping agent has dropped the receiver.
        let _ = self.setup.notices.send(notice).await;
    }

    async fn ask_own(&mut self, attempt: u64, message: LeaseMessage) -> Option<LeaseEvent> {
        let now = self.setup.time.mono();
        let (acceptor, _) = self.parts.as_mut()?;
        let (persist, reply) = match message {
            LeaseMessage::Prepare(request) => {
                let Answer { persist, reply } = acceptor.prepare(now, &request);
                (persist, LeaseReply::Prepare(reply))
            }
            LeaseMessage::Accept(request) => {
                let Answer { persist, reply } = acceptor.accept(now, &request);
                (persist, LeaseReply::Accept(reply))
            }
            LeaseMessage::Release(request) => {
                acceptor.release(&request);
                return None;
            }
        };
        if let Some(lease) = persist {
            self.store(lease).await.ok()?;
        }
        Some(LeaseEvent::Reply { from: self.setup.own.clone(), attempt, reply })
    }

    fn ask_other(&mut self, to: String, attempt: u64, message: LeaseMessage) {
        let links = self.setup.links.clone();
        self.calls.spawn(async move {
            match ask(&links, &to, message).await {
                Ok(reply) => Some(LeaseEvent::Reply { from: to, attempt, reply: reply? }),
                Err(status) => {
                    tracing::debug!(peer = to, %status, "an agent did not answer about the lease");
                    None
                }
            }
        });
    }

    fn publish(&self) {
        let now = self.setup.time.mono();
        let view = match &self.parts {
            Some((acceptor, proposer)) => LeaseView {
                state: proposer.status(now),
                fence: proposer.fence(now).map(|fence| fence.to_string()),
                acceptors: self.acceptors.clone(),
                slots: acceptor.persisted().slots.clone(),
                highest_fence: acceptor.persisted().fence_highest.highest().to_string(),
                cluster: self.stored.cluster.clone(),
            },
            None => LeaseView { state: unknown_state(), ..self.view.borrow().clone() },
        };
        self.view.send_if_modified(|held| {
            let changed = *held != view;
            *held = view;
            changed
        });
    }
}

fn unknown_state() -> resilver_strategies::lease::LeaseState {
    resilver_strategies::lease::LeaseState {
        state: "no cluster",
        holder: String::new(),
        round: 0,
        eligible: false,
        left_ms: 0,
    }
}

/// Asks another agent. `None`: there is nothing to answer.
async fn ask(links: &Links, to: &str, message: LeaseMessage) -> Result<Option<LeaseReply>, Status> {
    let link = links.agent(to)?;
    match message {
        LeaseMessage::Prepare(request) => {
            let request = wire::prepare_to_wire(&request);
            let call = |channel| async { agent_peer(channel).prepare(request).await };
            let reply = link.call(CALL_DEADLINE, call).await?.into_inner();
            Ok(Some(LeaseReply::Prepare(wire::prepare_reply_from_wire(reply)?)))
        }
        LeaseMessage::Accept(request) => {
            let lease_ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
            let request = wire::accept_to_wire(&request, lease_ms);
            let call = |channel| async { agent_peer(channel).accept(request).await };
            let reply = link.call(CALL_DEADLINE, call).await?.into_inner();
            let highest = wire::ballot_from_wire(reply.highest)?;
            Ok(Some(LeaseReply::Accept(AcceptReply { accepted: reply.accepted, highest, refusal: reply.refusal })))
        }
        LeaseMessage::Release(request) => {
            let holder = request.ballot.agent.clone();
            let request = WireRelease { ballot: Some(wire::ballot_to_wire(&request.ballot)), holder };
            let call = |channel| async { agent_peer(channel).release(request).await };
            link.call(CALL_DEADLINE, call).await?;
            Ok(None)
        }
    }
}
