//! What only the holder of the lease does: opening and closing slots, ordering steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use futures_util::future::join_all;
use resilver_host::audit::{self, Fact};
use resilver_host::planted::{Bug, bug};
use resilver_proto::agent::SlotRequest as WireSlotRequest;
use resilver_strategies::coordinator::SlotAsk;
use resilver_strategies::lease::{Ballot, Slot, SlotBook, SlotRequest, SlotState, majority};
use resilver_strategies::types::{Action, Fence, GuardName};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::Status;

use super::{
    Asked, CALL_DEADLINE, Coordinator, Order, Outcome, RESTART, START, SlotReply, Wish, action_named, no_such_order,
};
use crate::facts;
use crate::lease::{ballot_to_wire, slot_to_wire};
use crate::links::agent_peer;
use crate::main_loop::Request;
use crate::telemetry::Told;

/// The holder's papers.
pub(super) struct Desk {
    /// Which slots are open.
    pub(super) book: SlotBook,
    /// When this holder opened the slots it opened itself, and for what, by target.
    pub(super) opened: BTreeMap<String, (Instant, Action)>,
}

/// Opening or closing.
#[derive(Clone, Copy)]
enum Verb {
    Open,
    Close,
}

/// Does `work` in a task of its own. A handler is dropped when the connection of whoever asked breaks; dropped between
/// the opening and the closing of a slot it would leave the slot open, and every other step of the cluster waiting for it.
async fn seen_through<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, String> {
    tokio::spawn(work).await.map_err(|error| format!("the agent could not see it through: {error}"))
}

/// The target's agent was told, and whether it did anything is not known.
fn unsaid(target: &str, status: &Status) -> Outcome {
    Outcome::failed(format!("{target}'s agent did not say how the step ended: {}", status.message()))
}

impl Coordinator {
    /// Looks at the desk, if there is one. Never held across an await.
    pub(super) fn with_desk<T>(&self, work: impl FnOnce(&mut Desk) -> T) -> Option<T> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(work)
    }

    pub(super) fn set_desk(&self, desk: Option<Desk>) {
        *self.desk.lock().unwrap_or_else(PoisonError::into_inner) = desk;
    }

    /// The holder: opens a slot for the target (none to start what does not run) and has its agent do the step. Seen to
    /// its end also when whoever asked hangs up.
    pub(crate) async fn coordinate(&self, target: &str, step: &str, reason: &str, operator: &str) -> Outcome {
        let (own, target, step) = (self.clone(), target.to_owned(), step.to_owned());
        let (reason, operator) = (reason.to_owned(), operator.to_owned());
        let work = async move { own.coordinate_now(&target, &step, &reason, &operator).await };
        seen_through(work).await.unwrap_or_else(Outcome::failed)
    }

    async fn coordinate_now(&self, target: &str, step: &str, reason: &str, operator: &str) -> Outcome {
        let asked = Asked { target, step, operator, fence: None };
        if step != RESTART {
            return self.refuse(asked, no_such_order(step)).await;
        }
        // Another thing to judge: a node that does not run has nothing that a start could take away.
        if self.is_dead(target) {
            return self.start_dead(target, reason, operator).await;
        }
        let name = format!("{step}:{target}-{}", self.setup.time.wall_ms());
        let ask =
            SlotAsk { target: target.to_owned(), action: action_named(step), operator: true, disk_unreadable: false };
        let fence = match self
            .request_slot(ask, &Wish { step: &name, incident: "", under_way: &BTreeSet::new() }, operator)
            .await
        {
            Ok(fence) => fence,
            Err(refused) => return self.refuse(asked, refused).await,
        };
        let slot = Slot {
            target: target.to_owned(),
            step: name,
            fence,
            incident: String::new(),
            opened_ms: self.setup.time.wall_ms(),
        };
        resilver_host::fault::point("coordinator.before_step");
        match self.order(&Order { target, step, fence: &slot.fence }, reason, operator).await {
            Ok(outcome) => {
                self.finish_slot(slot, matches!(outcome, Outcome::Done { .. })).await;
                outcome
            }
            Err(status) => {
                // It may be under way: the slot stays, and the target counts as down until it is seen well.
                self.counts_as_down(target);
                unsaid(target, &status)
            }
        }
    }

    /// Under the fence of the lease, and without a slot. The one place there is may be taken by a step of this very node, whose proof
    /// waits for the node to run; and what a storm has ended a person has to be able to start. Its own agent refuses if it runs by now.
    async fn start_dead(&self, target: &str, reason: &str, operator: &str) -> Outcome {
        let Some(fence) = self.setup.lease.fence().await else {
            let asked = Asked { target, step: START, operator, fence: None };
            let why = format!("{} does not hold the lease", self.setup.own);
            return self.refuse(asked, (GuardName::OneAtATime, why)).await;
        };
        let told =
            Told::StartOrdered { target: target.to_owned(), fence: fence.to_string(), operator: operator.to_owned() };
        // Only a stopping agent has dropped the receiver.
        let _ = self.setup.requests.send(Request::Tell { told, durable: None }).await;
        let order = Order { target, step: START, fence: &fence };
        self.order(&order, reason, operator).await.unwrap_or_else(|status| unsaid(target, &status))
    }

    fn is_dead(&self, target: &str) -> bool {
        if target == self.setup.own {
            return self.setup.view.borrow().node.is_dead();
        }
        let judge = self.judge.lock().unwrap_or_else(PoisonError::into_inner);
        judge.is_dead(self.setup.time.mono(), target)
    }

    /// The holder: opens a slot for another agent's step, at a majority and in its own journal. Seen to its end also when
    /// that agent stops waiting.
    pub(crate) async fn slot_for(
        &self,
        ask: SlotAsk,
        step: String,
        incident: String,
        under_way: BTreeSet<String>,
    ) -> SlotReply {
        let own = self.clone();
        let asked_by = if incident.is_empty() { ask.target.clone() } else { incident.clone() };
        let work = async move {
            let wish = Wish { step: &step, incident: &incident, under_way: &under_way };
            own.request_slot(ask, &wish, &asked_by).await
        };
        seen_through(work).await.unwrap_or_else(|why| Err((GuardName::OneAtATime, why)))
    }

    /// Closes slots that the target's own agent got and knows nothing of any more: it was killed between the grant and
    /// its own record. They would hold everybody back until they are given up, long after.
    async fn close_forgotten(&self, ask: &SlotAsk, wish: &Wish<'_>) {
        if ask.operator {
            return;
        }
        let found = self.with_desk(|desk| {
            (desk.book.forgotten(&ask.target, wish.step, wish.under_way), desk.book.ballot().clone())
        });
        let Some((slots, ballot)) = found else { return };
        for slot in slots {
            if self.close(&ballot, &slot).await {
                self.tell_closed(&slot, false, "forgotten: its agent has begun anew without it").await;
            }
        }
    }

    /// As above.
    pub(super) async fn request_slot(&self, ask: SlotAsk, wish: &Wish<'_>, asked_by: &str) -> SlotReply {
        let Wish { step, incident, .. } = *wish;
        let refused = |guard, why: String| Err((guard, why));
        if let Some(fence) = self.forged_fence() {
            return Ok(fence);
        }
        let Some(held) = self.setup.lease.fence().await else {
            return refused(GuardName::OneAtATime, format!("{} does not hold the lease", self.setup.own));
        };
        self.close_forgotten(&ask, wish).await;
        let now = self.setup.time.mono();
        let opened = self.with_desk(|desk| {
            if *desk.book.fence() != held {
                return Err((GuardName::OneAtATime, format!("the lease has just changed hands: {held}")));
            }
            // A request that is repeated because its answer was lost is not judged anew: it is in its own way.
            let same = |(slot, state): (&Slot, SlotState)| {
                slot.target == ask.target && slot.step == step && state == SlotState::Open
            };
            if !desk.book.all().any(same) && !bug(Bug::ActOnStaleView) {
                let mut judge = self.judge.lock().unwrap_or_else(PoisonError::into_inner);
                judge.request(now, &desk.book, &ask).map_err(|guard| (guard.guard, guard.evidence))?;
            }
            let slot = desk.book.open(&ask.target, step, incident, self.setup.time.wall_ms());
            let slot = slot.map_err(|busy| (GuardName::OneAtATime, busy.to_string()))?;
            desk.opened.insert(ask.target.clone(), (Instant::now(), ask.action));
            Ok((slot, desk.book.ballot().clone()))
        });
        let (slot, ballot) = match opened {
            Some(Ok(opened)) => opened,
            Some(Err((guard, why))) => return refused(guard, why),
            None => return refused(GuardName::OneAtATime, "the lease was gained a moment ago: ask again".to_owned()),
        };
        if let Err(why) = self.at_majority(Verb::Open, &ballot, &slot).await {
            self.withdraw(&ballot, &slot).await;
            return refused(GuardName::OneAtATime, format!("the slot is open at no majority of the agents: {why}"));
        }
        if let Err(why) = self.write_intent(&slot, asked_by).await {
            self.withdraw(&ballot, &slot).await;
            return refused(GuardName::IntentFirst, why);
        }
        let Slot { target, step, fence, .. } = &slot;
        audit::state(|| Fact::SlotGranted { target: target.clone(), step: step.clone(), fence: facts::fence(fence) });
        Ok(slot.fence)
    }

    /// The holder: the step of another agent's slot is verified, or given up for good. Seen to its end also when that agent
    /// stops waiting.
    pub(crate) async fn finish_slot_for(&self, slot: Slot, verified: bool) -> bool {
        let own = self.clone();
        seen_through(async move { own.finish_slot(slot, verified).await }).await.unwrap_or(false)
    }

    /// As above, for a step that this agent follows itself.
    pub(super) async fn finish_slot(&self, slot: Slot, verified: bool) -> bool {
        let Some(ballot) = self.with_desk(|desk| desk.book.ballot().clone()) else { return false };
        let closed = self.close(&ballot, &slot).await;
        if closed {
            let detail = if verified { "verified" } else { "given up" };
            self.tell_closed(&slot, verified, detail).await;
        }
        closed
    }

    /// Closes a slot at a majority and only then forgets it.
    pub(super) async fn close(&self, ballot: &Ballot, slot: &Slot) -> bool {
        match self.at_majority(Verb::Close, ballot, slot).await {
            Ok(()) => {
                self.with_desk(|desk| {
                    if desk.book.closed(slot) {
                        desk.opened.remove(&slot.target);
                    }
                });
                true
            }
            Err(why) => {
                // It blocks further steps until its target was seen well: then closing is tried again.
                tracing::warn!(target = slot.target, step = slot.step, why, "a slot could not be closed at a majority");
                if self.with_desk(|desk| desk.book.all().any(|(known, _)| known == slot)).unwrap_or(false) {
                    self.counts_as_down(&slot.target);
                }
                false
            }
        }
    }

    /// The target's slots hold nobody back any more; it counts as down until it is seen well.
    pub(super) fn counts_as_down(&self, target: &str) {
        audit::state(|| Fact::TargetDown { target: target.to_owned() });
        self.with_desk(|desk| desk.book.unreachable(target));
    }

    /// Takes back a slot whose step was never ordered.
    async fn withdraw(&self, ballot: &Ballot, slot: &Slot) {
        self.close(ballot, slot).await;
    }

    async fn write_intent(&self, slot: &Slot, asked_by: &str) -> Result<(), String> {
        let told = Told::SlotOpened {
            target: slot.target.clone(),
            step: slot.step.clone(),
            fence: slot.fence.to_string(),
            asked_by: asked_by.to_owned(),
        };
        let (done, written) = oneshot::channel();
        let request = Request::Tell { told, durable: Some(done) };
        self.setup.requests.send(request).await.map_err(|_| "the agent is stopping".to_owned())?;
        written.await.map_err(|_| "the agent is stopping".to_owned())?
    }

    pub(super) async fn tell_closed(&self, slot: &Slot, verified: bool, detail: &str) {
        let told = Told::SlotClosed {
            target: slot.target.clone(),
            step: slot.step.clone(),
            verified,
            detail: detail.to_owned(),
        };
        // Only a stopping agent has dropped the receiver.
        let _ = self.setup.requests.send(Request::Tell { told, durable: None }).await;
    }

    async fn at_majority(&self, verb: Verb, ballot: &Ballot, slot: &Slot) -> Result<(), String> {
        let acceptors = self.setup.lease.view().acceptors;
        let asked = acceptors.iter().map(|acceptor| self.at(acceptor, verb, ballot, slot));
        let answers = join_all(asked).await;
        let refusals: Vec<String> = answers.into_iter().filter_map(Result::err).collect();
        if acceptors.len() - refusals.len() >= majority(acceptors.len()) { Ok(()) } else { Err(refusals.join("; ")) }
    }

    async fn at(&self, acceptor: &str, verb: Verb, ballot: &Ballot, slot: &Slot) -> Result<(), String> {
        let (done, refusal) = if acceptor == self.setup.own {
            let request = SlotRequest { ballot: ballot.clone(), slot: slot.clone() };
            let answer = match verb {
                Verb::Open => self.setup.lease.open_slot(request).await,
                Verb::Close => self.setup.lease.close_slot(request).await,
            };
            let reply = answer.map_err(|error| format!("{acceptor}: {error}"))?;
            (reply.done, reply.refusal)
        } else {
            let request = WireSlotRequest { ballot: Some(ballot_to_wire(ballot)), slot: Some(slot_to_wire(slot)) };
            let answer = self.ask_slot(acceptor, verb, request).await;
            answer.map_err(|status| format!("{acceptor}: {}", status.message()))?
        };
        if done { Ok(()) } else { Err(format!("{acceptor}: {refusal}")) }
    }

    async fn ask_slot(&self, acceptor: &str, verb: Verb, request: WireSlotRequest) -> Result<(bool, String), Status> {
        let link = self.setup.links.agent(acceptor)?;
        let call = |channel| async move {
            match verb {
                Verb::Open => agent_peer(channel).open_slot(request).await,
                Verb::Close => agent_peer(channel).close_slot(request).await,
            }
        };
        let answer = link.call(CALL_DEADLINE, call).await?.into_inner();
        Ok((answer.done, answer.refusal))
    }

    /// The fence this desk works under.
    pub(super) fn desk_fence(&self) -> Option<Fence> {
        self.with_desk(|desk| desk.book.fence().clone())
    }
}
