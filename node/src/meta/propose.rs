//! Proposing commands: at most once, from any member, across changes of leader.
//!
//! Owns: this start's session, its sequences, and the forwarding. Invariants: every attempt of one command carries the same
//! (session, sequence), so however often it reaches the log it is applied once; a session whose command ended unknown
//! proposes nothing new (its floor would have to pass a command that may not have arrived yet).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::error::{ClientWriteError, RaftError};
use rand::RngCore;
use resilver_host::Rng;
use resilver_proto::internal::RaftMessage;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::Code;

use super::wire::{self, Forward, Forwarded};
use super::{Inner, MetaError, leader_leaves};
use crate::log::MAX_RECORD_BYTES;
use crate::model::{Command, Outcome, Refusal};
use crate::peers::Profile;
use crate::state::Proposal;
use crate::types::RaftId;

/// How long a command is tried. Several elections fit in.
pub const PROPOSE_DEADLINE: Duration = Duration::from_secs(10);
/// One attempt at one leader. A leader that cannot commit in this time is asked again with the same sequence.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(5);
/// Before asking a leader again that did not take the command: it may not know yet that it leads, or not yet that it
/// does not.
const RETRY_PAUSE: Duration = Duration::from_millis(30);
/// Commands of this node in flight. Each may hold an outcome in the state machine until it is answered.
const MAX_IN_FLIGHT: usize = 1024;
/// Room in a record of the log for what surrounds a command: the entry's id and the message's format.
const ENTRY_BYTES: u64 = 4096;
/// The largest command: one record of the log, which is half of what one message between members may carry.
const MAX_COMMAND_BYTES: usize = (MAX_RECORD_BYTES - ENTRY_BYTES) as usize;

/// How one attempt ended.
pub(super) enum Attempt {
    /// Applied.
    Answered(Outcome),
    /// Certainly not appended: asked the wrong one.
    NotLeader,
    /// Certainly not appended: it never left.
    Unsent(String),
    /// Perhaps appended.
    Lost(String),
}

/// The sessions of this start of this node.
pub(super) struct Sessions {
    rng: Mutex<Rng>,
    present: Mutex<Arc<Session>>,
    permits: Semaphore,
}

struct Session {
    id: u128,
    sequences: Mutex<Sequences>,
}

#[derive(Default)]
struct Sequences {
    last: u64,
    outstanding: BTreeSet<u64>,
}

impl Sessions {
    pub(super) fn new(mut rng: Rng) -> Self {
        let session = Session::draw(&mut rng);
        Self { rng: Mutex::new(rng), present: Mutex::new(session), permits: Semaphore::new(MAX_IN_FLIGHT) }
    }

    fn ticket(&self) -> Ticket<'_> {
        let session = self.present.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut sequences = session.sequences.lock().unwrap_or_else(PoisonError::into_inner);
        sequences.last += 1;
        let sequence = sequences.last;
        sequences.outstanding.insert(sequence);
        drop(sequences);
        Ticket { sessions: self, session, sequence, answered: false }
    }

    fn retire(&self, session: &Arc<Session>) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&present, session) {
            *present = Session::draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Session {
    fn draw(rng: &mut Rng) -> Arc<Self> {
        let id = (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64());
        Arc::new(Self { id, sequences: Mutex::default() })
    }
}

/// A sequence in use.
struct Ticket<'a> {
    sessions: &'a Sessions,
    session: Arc<Session>,
    sequence: u64,
    answered: bool,
}

impl Ticket<'_> {
    fn proposal(&self, command: &Command) -> Proposal {
        let sequences = self.session.sequences.lock().unwrap_or_else(PoisonError::into_inner);
        let floor = sequences.outstanding.first().copied().unwrap_or(self.sequence);
        Proposal { session: self.session.id, sequence: self.sequence, floor, command: command.clone() }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.answered {
            let mut sequences = self.session.sequences.lock().unwrap_or_else(PoisonError::into_inner);
            sequences.outstanding.remove(&self.sequence);
        } else {
            // Unknown, or its caller went away: this sequence stays outstanding for ever, in a session of the past.
            self.sessions.retire(&self.session);
        }
    }
}

impl Inner {
    /// Proposes a command and waits for its outcome.
    pub(super) async fn propose(&self, command: &Command) -> Result<Outcome, MetaError> {
        let started = Instant::now();
        let deadline = started + PROPOSE_DEADLINE;
        let no_leader = || MetaError::NoLeader { doing: name_of(command), waited: PROPOSE_DEADLINE };
        let permit = tokio::time::timeout_at(deadline, self.sessions.permits.acquire()).await;
        let _permit = permit.map_err(|_| no_leader())?.map_err(|_| no_leader())?;
        let mut ticket = self.sessions.ticket();
        let bytes = wire::encode(&ticket.proposal(command)).map_or(usize::MAX, |bytes| bytes.len());
        if bytes > MAX_COMMAND_BYTES {
            ticket.answered = true;
            return Err(MetaError::TooLarge { bytes, limit: MAX_COMMAND_BYTES });
        }
        let mut sent = false;
        loop {
            let tried = tokio::time::timeout_at(deadline, self.try_once(ticket.proposal(command), &mut sent)).await;
            match tried {
                Ok(Ok(Some(outcome))) => {
                    ticket.answered = true;
                    return match outcome {
                        // The state machine let this session go: what it knew of this command is gone.
                        Outcome::Refused(Refusal::Expired) => {
                            self.sessions.retire(&ticket.session);
                            Err(MetaError::Unknown { doing: name_of(command), waited: started.elapsed() })
                        }
                        outcome => Ok(outcome),
                    };
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) if sent => {
                    return Err(MetaError::Unknown { doing: name_of(command), waited: PROPOSE_DEADLINE });
                }
                Err(_) => return Err(no_leader()),
            }
        }
    }

    /// One attempt at whoever leads, or a wait for somebody to. `sent` says whether any attempt may have arrived.
    async fn try_once(&self, proposal: Proposal, sent: &mut bool) -> Result<Option<Outcome>, MetaError> {
        let leader = self.leader().await?;
        let before = std::mem::replace(sent, true);
        let attempt = async {
            if leader == self.links.ids.raft_id {
                self.submit(proposal).await
            } else {
                self.forward(leader, proposal).await
            }
        };
        let attempt = tokio::select! {
            attempt = tokio::time::timeout(ATTEMPT_DEADLINE, attempt) => attempt,
            // A dead leader never answers; its successor knows whether the command arrived.
            () = leader_leaves(&self.raft, leader.0) => return Ok(None),
        };
        match attempt {
            Ok(Attempt::Answered(outcome)) => return Ok(Some(outcome)),
            Ok(Attempt::NotLeader) => *sent = before,
            Ok(Attempt::Unsent(detail)) => {
                *sent = before;
                tracing::debug!(%leader, detail, "a command did not reach the leader");
            }
            Ok(Attempt::Lost(detail)) => tracing::debug!(%leader, detail, "a command's answer was lost"),
            Err(_) => {
                if let Some(address) = self.links.address(leader) {
                    self.links.peers.drop_channel(&address, Profile::Control);
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_PAUSE) => {}
            () = leader_leaves(&self.raft, leader.0) => {}
        }
        Ok(None)
    }

    /// Whoever leads, as soon as somebody does.
    pub(super) async fn leader(&self) -> Result<RaftId, MetaError> {
        let mut metrics = self.raft.metrics();
        loop {
            {
                let metrics = metrics.borrow_and_update();
                if let Err(fatal) = &metrics.running_state {
                    return Err(MetaError::Stopped { reason: fatal.to_string() });
                }
                if let Some(leader) = metrics.current_leader {
                    return Ok(RaftId(leader));
                }
            }
            if metrics.changed().await.is_err() {
                return Err(MetaError::Stopped { reason: "raft is shut down".to_owned() });
            }
        }
    }

    /// Appends here, if this member leads.
    pub(super) async fn submit(&self, proposal: Proposal) -> Attempt {
        // While leadership is being handed over, new entries would only renew the lease that is to run out.
        if *self.yielding.borrow() || self.raft.metrics().borrow().current_leader != Some(self.links.ids.raft_id.0) {
            return Attempt::NotLeader;
        }
        match self.raft.client_write(proposal).await {
            Ok(response) => Attempt::Answered(response.data),
            // An entry cut off by a new leader is answered like this too; the successor's log decides.
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Attempt::Lost("not leading".to_owned()),
            Err(RaftError::APIError(error)) => Attempt::Unsent(error.to_string()),
            Err(RaftError::Fatal(fatal)) => Attempt::Lost(fatal.to_string()),
        }
    }

    async fn forward(&self, leader: RaftId, proposal: Proposal) -> Attempt {
        match self.ask(leader, &Forward::Propose(Box::new(proposal))).await {
            Ok(Forwarded::Outcome(outcome)) => Attempt::Answered(outcome),
            Ok(Forwarded::NotLeader | Forwarded::Standing) => Attempt::NotLeader,
            Err(attempt) => attempt,
        }
    }

    /// Sends a request to a member.
    pub(super) async fn ask(&self, member: RaftId, request: &Forward) -> Result<Forwarded, Attempt> {
        let unsent = |detail: String| Attempt::Unsent(detail);
        let address = self.links.address(member).ok_or_else(|| unsent(format!("member {member} has no address")))?;
        let mut client = self.links.client(&address, Profile::Control).map_err(|error| unsent(error.to_string()))?;
        let payload = wire::encode(request).map_err(|error| unsent(error.to_string()))?;
        let message = RaftMessage { envelope: Some(self.links.ids.envelope(member)), payload };
        match client.propose(message).await {
            Ok(answer) => wire::decode(&answer.into_inner().payload).map_err(|error| Attempt::Lost(error.to_string())),
            Err(status) if status.code() == Code::FailedPrecondition => Err(unsent(status.message().to_owned())),
            Err(status) => Err(Attempt::Lost(status.to_string())),
        }
    }
}

/// What a command is called in messages.
pub(crate) fn name_of(command: &Command) -> &'static str {
    match command {
        Command::InitCluster { .. } => "making the cluster",
        Command::JoinNode { .. } => "letting a node in",
        Command::PauseRepair { .. } => "pausing repair",
        Command::ResumeRepair { .. } => "resuming repair",
        Command::ReleaseCollection => "letting collection go on",
        Command::ForgetDisk { .. } => "forgetting a disk",
        Command::ReplaceMember { .. } => "replacing a lost member",
        Command::Checkpoint { .. } => "a checkpoint",
        Command::SetDiskState { .. } => "setting a disk's state",
        Command::SetHostState { .. } => "setting a host's state",
        Command::DrainHost { .. } => "emptying a node",
        Command::SetVoting { .. } => "saying who votes",
        Command::ForgetNode { .. } => "removing a node",
        Command::CreateBucket { .. } => "making a bucket",
        Command::PutObject { .. } => "putting an object",
        Command::DeleteObject { .. } => "deleting an object",
        Command::DeleteBucket { .. } => "deleting a bucket",
        Command::SetBucket { .. } => "changing a bucket",
        Command::DeleteObjects { .. } => "deleting objects",
        Command::CreateUpload { .. } => "beginning an upload",
        Command::PutPart { .. } => "putting a part",
        Command::CompleteUpload { .. } => "completing an upload",
        Command::AbortUpload { .. } => "aborting an upload",
        Command::ForgetUpload { .. } => "forgetting an upload",
        Command::DropParts { .. } => "dropping parts of an upload",
        Command::PutKey { .. } => "making an access key",
        Command::RevokeKey { .. } => "revoking an access key",
        Command::GrantKey { .. } => "changing what an access key may do",
        Command::SetMetadataRoom { .. } => "telling of a metadata disk",
        Command::SetHome { .. } | Command::SetHomes { .. } => "recording where shards are",
        Command::ForbidVersion { .. } => "giving up a version",
        Command::AcquireLock { .. } => "asking for a lock",
        Command::RenewLock { .. } => "renewing a lock",
        Command::ReleaseLock { .. } | Command::WithdrawLock { .. } => "giving a lock back",
        Command::ExpireLock { .. } => "ending a lease",
        Command::BreakLock { .. } => "breaking a lock",
        Command::UnderLock { command, .. } => name_of(command),
    }
}
