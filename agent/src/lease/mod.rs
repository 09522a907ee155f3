//! The agents' lease: this agent's acceptor, its proposer and its fence gate, driven over gRPC.
//!
//! Owns: `lease.json`, and the one task in which acceptor and proposer live. The rules are
//! [`resilver_strategies::lease`]'s; here is only sending, storing and waiting.
//!
//! Must never: answer, or let a step pass, before the state that came with the answer is on disk; share the state
//! between tasks (a frozen answer of one would overtake the other's promise).
//!
//! Who accepts: of all members sorted by name the first 5 when there are at least seven, else the first 3 (all of them
//! when there are fewer). Every agent computes the same list from the same configuration; changing it by more than one
//! member at a time is refused by the rules.

mod actor;
mod file;
mod wire;

use std::sync::Arc;

use resilver_strategies::lease::{
    AcceptReply, AcceptRequest, Ballot, LeaseState, PrepareReply, PrepareRequest, ReleaseRequest, Slot, SlotReply,
    SlotRequest,
};
use resilver_strategies::types::Fence;
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use actor::{LeaseActor, LeaseNotice, LeaseSetup};
pub(crate) use wire::{
    accept_from_wire, ballot_from_wire, ballot_to_wire, fence_from_wire, fence_to_wire, prepare_from_wire,
    prepare_reply_to_wire, slot_from_wire, slot_request, slot_to_wire,
};

/// Questions that may wait for the lease's task. One store takes milliseconds; more in waiting means a stuck disk.
const MAX_WAITING: usize = 64;

/// Why the lease could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The state file could not be written, so nothing may be promised.
    #[error("the lease's state cannot be stored in {path}: {source}")]
    Store {
        /// Where.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The state file is there and cannot be read: with unknown promises none may be given.
    #[error(
        "{path} cannot be read ({why}): move it aside only when this agent has been stopped for longer than a lease (10 s)"
    )]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        why: String,
    },
    /// The node has not told its cluster yet.
    #[error("this agent does not know its cluster yet: its node has not answered")]
    NoCluster,
    /// A fence that was overtaken.
    #[error("{0}")]
    Stale(resilver_strategies::lease::Stale),
    /// The task is gone: the agent stops.
    #[error("the agent is stopping")]
    Stopping,
}

type Answered<T> = oneshot::Sender<Result<T, LeaseError>>;

/// A question to the lease's task.
pub(crate) enum Ask {
    Prepare(PrepareRequest, Answered<PrepareReply>),
    Accept(AcceptRequest, Answered<AcceptReply>),
    Answered(Ballot),
    Release(ReleaseRequest),
    OpenSlot(SlotRequest, Answered<SlotReply>),
    CloseSlot(SlotRequest, Answered<SlotReply>),
    Admit(Fence, Answered<()>),
    RaiseFence(Fence, Answered<Fence>),
    Fence(oneshot::Sender<Option<Fence>>),
    Heard { holder: String },
    Known { cluster: String, epoch: u64 },
}

/// What others see of the lease.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct LeaseView {
    /// Where the proposer stands.
    #[serde(flatten)]
    pub(crate) state: LeaseState,
    /// The fence this agent holds; `None`: it does not hold.
    pub(crate) fence: Option<String>,
    /// Whose promises count.
    pub(crate) acceptors: Vec<String>,
    /// Open slots that this agent's acceptor knows.
    pub(crate) slots: Vec<Slot>,
    /// The highest fence this host's gate has seen.
    pub(crate) highest_fence: String,
    /// Which cluster the promises are of; empty: not known yet.
    pub(crate) cluster: String,
}

impl LeaseView {
    /// Nobody is known to hold it.
    pub(crate) fn is_unheld(&self) -> bool {
        self.fence.is_none() && self.state.holder.is_empty()
    }
}

/// The lease, as the rest of the agent asks it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LeaseHandle {
    asks: mpsc::Sender<Ask>,
    view: watch::Receiver<LeaseView>,
    /// Not a question: the main loop must never wait for the lease's task, which may wait for it.
    eligible: Arc<watch::Sender<bool>>,
}

impl LeaseHandle {
    async fn ask<T>(&self, ask: impl FnOnce(Answered<T>) -> Ask) -> Result<T, LeaseError> {
        let (tx, rx) = oneshot::channel();
        self.asks.send(ask(tx)).await.map_err(|_| LeaseError::Stopping)?;
        rx.await.map_err(|_| LeaseError::Stopping)?
    }

    async fn tell(&self, ask: Ask) {
        // Only a stopping agent has dropped the receiver.
        let _ = self.asks.send(ask).await;
    }

    pub(crate) async fn prepare(&self, request: PrepareRequest) -> Result<PrepareReply, LeaseError> {
        self.ask(|tx| Ask::Prepare(request, tx)).await
    }

    pub(crate) async fn accept(&self, request: AcceptRequest) -> Result<AcceptReply, LeaseError> {
        self.ask(|tx| Ask::Accept(request, tx)).await
    }

    /// The answer to an accept is on its way: granters count from then.
    pub(crate) async fn answered(&self, ballot: Ballot) {
        self.tell(Ask::Answered(ballot)).await;
    }

    pub(crate) async fn release(&self, request: ReleaseRequest) {
        self.tell(Ask::Release(request)).await;
    }

    pub(crate) async fn open_slot(&self, request: SlotRequest) -> Result<SlotReply, LeaseError> {
        self.ask(|tx| Ask::OpenSlot(request, tx)).await
    }

    pub(crate) async fn close_slot(&self, request: SlotRequest) -> Result<SlotReply, LeaseError> {
        self.ask(|tx| Ask::CloseSlot(request, tx)).await
    }

    /// Passes the gate with this fence, or is told that it is stale. The new highest is on disk when this returns.
    pub(crate) async fn admit(&self, fence: Fence) -> Result<(), LeaseError> {
        self.ask(|tx| Ask::Admit(fence, tx)).await
    }

    /// From now on refuse lower fences.
    pub(crate) async fn raise_fence(&self, fence: Fence) -> Result<Fence, LeaseError> {
        self.ask(|tx| Ask::RaiseFence(fence, tx)).await
    }

    /// The fence of the lease, if this agent holds it at this moment.
    pub(crate) async fn fence(&self) -> Option<Fence> {
        let (tx, rx) = oneshot::channel();
        self.asks.send(Ask::Fence(tx)).await.ok()?;
        rx.await.ok().flatten()
    }

    /// Another agent says who holds it.
    pub(crate) fn heard(&self, holder: &str) {
        // A hint: dropped when the task is busy, the next ping brings another.
        let _ = self.asks.try_send(Ask::Heard { holder: holder.to_owned() });
    }

    /// Whether this agent may hold.
    pub(crate) fn set_eligible(&self, eligible: bool) {
        self.eligible.send_replace(eligible);
    }

    /// The node has said which cluster it is in.
    pub(crate) async fn known(&self, cluster: &str, epoch: u64) {
        self.tell(Ask::Known { cluster: cluster.to_owned(), epoch }).await;
    }

    /// For people, and for who looks for the holder.
    pub(crate) fn view(&self) -> LeaseView {
        self.view.borrow().clone()
    }

    /// Which cluster this agent is of, by its node's word now or before; empty: not known yet.
    pub(crate) fn cluster(&self) -> String {
        self.view.borrow().cluster.clone()
    }

    /// Whether this agent holds it.
    pub(crate) fn holds(&self) -> bool {
        self.view.borrow().fence.is_some()
    }

    /// Resolves when whether this agent holds it is not `as_now` any more.
    pub(crate) async fn turns(&self, as_now: bool) {
        let mut view = self.view.clone();
        if view.wait_for(|view| view.fence.is_some() != as_now).await.is_err() {
            // The lease's task has ended, and the agent with it: it turns no more.
            std::future::pending::<()>().await;
        }
    }

    /// Whose promises count.
    pub(crate) fn acceptors(&self) -> Vec<String> {
        self.view.borrow().acceptors.clone()
    }

    /// Who holds the lease, as far as this agent knows.
    pub(crate) fn holder(&self) -> Option<String> {
        let holder = self.view.borrow().state.holder.clone();
        (!holder.is_empty()).then_some(holder)
    }
}

/// The acceptors among all members.
pub fn acceptors<'a>(members: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = members.map(str::to_owned).collect();
    names.sort();
    names.dedup();
    let count = if names.len() >= 7 { 5 } else { 3 };
    names.truncate(count);
    names
}

#[cfg(test)]
mod tests {
    use super::acceptors;

    #[test]
    fn three_of_six_and_five_of_seven_accept() {
        let names: Vec<String> = (1..=7).rev().map(|number| format!("n{number}")).collect();
        let of = |count: usize| acceptors(names[7 - count..].iter().map(String::as_str));
        assert_eq!(of(1), ["n1"]);
        assert_eq!(of(2), ["n1", "n2"]);
        assert_eq!(of(6), ["n1", "n2", "n3"]);
        assert_eq!(of(7), ["n1", "n2", "n3", "n4", "n5"]);
    }
}
