//! Disruptive steps, one at a time: asking the holder of the lease, and being it.
//!
//! Owns: the way of a disruptive step from who wants it to where it takes effect (slot at a majority, durable intent,
//! order, close), and what a successor does with slots that its predecessor left open.
//!
//! Must never: do a step (the target's agent does), or order one without an open slot at a majority of the acceptors;
//! but for the start of a node that does not run, which takes nothing away.
//!
//! Invariants: the lease is asked anew before every use, because a process may have been frozen in between; whatever
//! was true before a freeze, the target's persisted fence decides. A slot is closed only when its step is known to have
//! ended or its target was seen well under a raised fence.

mod holder;
mod settle;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use resilver_host::planted::{Bug, bug};
use resilver_proto::agent::{CoordinateRequest, FinishSlotRequest, RequestSlotRequest, RunStepRequest};
use resilver_strategies::api::{Observation, Step, Subject};
use resilver_strategies::coordinator::{Coordinator as Judge, SlotAsk};
use resilver_strategies::lease::{Slot, step_name};
use resilver_strategies::types::{Action, Fence, GuardName};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

use crate::lease::{LeaseHandle, fence_from_wire, fence_to_wire, slot_to_wire};
use crate::links::{Links, agent_peer};
use crate::main_loop::Request;
use crate::state::{PeerViews, View};
use crate::telemetry::Told;
use crate::timebase::Timebase;

use self::holder::Desk;

/// How long a whole step may take, from the order to its proof: a node that replays a long log included.
const STEP_DEADLINE: Duration = Duration::from_secs(300);

/// How long another agent may take for one small answer with a store in it.
const CALL_DEADLINE: Duration = Duration::from_secs(2);

/// The only steps that one agent may order on another's host. A closed list: an order is never a script.
const RESTART: &str = Action::RestartNode.as_str();
/// As a restart, of a node that does not run.
const START: &str = Action::StartNode.as_str();

/// The guard that refuses another step, and why.
fn no_such_order(step: &str) -> (GuardName, String) {
    (GuardName::Authority, format!("{step} is no step that may be ordered: {RESTART}, {START}"))
}

/// How a refusal by a guard of the target's own engine begins.
pub(crate) const HELD_BY: &str = "held by ";

/// How an asked-for step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done and verified.
    Done { detail: String, fence: Option<Fence> },
    /// A guard said no; nothing happened.
    Refused { guard: String, why: String },
    /// Tried, and it failed or nobody knows.
    Failed { why: String },
}

impl Outcome {
    fn refused(guard: GuardName, why: impl Into<String>) -> Outcome {
        Outcome::Refused { guard: guard.as_str().to_owned(), why: why.into() }
    }

    fn failed(why: impl Into<String>) -> Outcome {
        Outcome::Failed { why: why.into() }
    }
}

/// A slot, or the guard that refused one and why.
pub(crate) type SlotReply = Result<Fence, (GuardName, String)>;

/// What the coordinator needs.
pub(crate) struct CoordinatorSetup {
    pub(crate) own: String,
    pub(crate) links: Arc<Links>,
    pub(crate) lease: LeaseHandle,
    pub(crate) peers: Arc<PeerViews>,
    pub(crate) view: watch::Receiver<View>,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) time: Timebase,
    pub(crate) policy: resilver_strategies::config::PolicyConfig,
}

/// Asks for disruptive steps, and grants them while this agent holds the lease. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Coordinator {
    setup: Arc<CoordinatorSetup>,
    /// `Some` from when the lease is gained until it is known to be lost.
    desk: Arc<Mutex<Option<Desk>>>,
    /// What the guards are judged by. Fed always, asked only while this agent holds the lease.
    judge: Arc<Mutex<Judge>>,
    /// This agent's own steps that have a slot, or have asked for one.
    under_way: Arc<Mutex<BTreeSet<String>>>,
}

/// A step that wants a slot.
pub(crate) struct Wish<'a> {
    /// Its name over all agents.
    pub(crate) step: &'a str,
    /// Its incident; empty: an operator's.
    pub(crate) incident: &'a str,
    /// The other steps of the target's agent that may have a slot.
    pub(crate) under_way: &'a BTreeSet<String>,
}

/// What the holder has the agent of `target` do, for a person.
struct Order<'a> {
    target: &'a str,
    step: &'a str,
    /// Of the holder's lease.
    fence: &'a Fence,
}

/// What a person asked for, as far as the record of a refusal tells it.
#[derive(Clone, Copy)]
struct Asked<'a> {
    target: &'a str,
    step: &'a str,
    operator: &'a str,
    /// The fence that it came with.
    fence: Option<&'a Fence>,
}

impl Coordinator {
    /// A coordinator that holds nothing yet.
    pub(crate) fn new(setup: CoordinatorSetup) -> Coordinator {
        let judge = Judge::new(setup.time.mono(), &setup.own, setup.policy.clone());
        Coordinator {
            setup: Arc::new(setup),
            desk: Arc::default(),
            judge: Arc::new(Mutex::new(judge)),
            under_way: Arc::default(),
        }
    }

    /// The node that this agent looks after.
    pub(crate) fn own(&self) -> &str {
        &self.setup.own
    }

    /// What the sensors see: the holder's guards are judged by it.
    pub(crate) fn observe(&self, observation: &Observation) {
        let now = self.setup.time.mono();
        let mut judge = self.judge.lock().unwrap_or_else(PoisonError::into_inner);
        match observation {
            Observation::Heartbeat(fact) => {
                judge.disrupted(now, &self.setup.own, &self.setup.view.borrow().disrupted);
                judge.heartbeat(now, fact);
            }
            Observation::HeartbeatMissed { .. } => judge.heartbeat_missed(now),
            Observation::Peer(fact) => judge.peer(now, fact),
            Observation::Watch(fact) => judge.forget(&fact.dropped),
            Observation::Process(_)
            | Observation::Failures { .. }
            | Observation::Smart(_)
            | Observation::Host(_)
            | Observation::Canary(_)
            | Observation::Replicas(_)
            | Observation::ProcessState(_)
            | Observation::LogMatch(_) => {}
        }
    }

    /// An operator wants a node restarted: asks the holder, which may be this agent.
    pub(crate) async fn restart(&self, target: &str, reason: &str, operator: &str) -> Outcome {
        let holder = match self.setup.lease.holder() {
            None => {
                let asked = Asked { target, step: RESTART, operator, fence: None };
                return self.refuse(asked, nobody_holds()).await;
            }
            Some(holder) if holder == self.setup.own => {
                return self.coordinate(target, RESTART, reason, operator).await;
            }
            Some(holder) => holder,
        };
        let request = CoordinateRequest {
            target: target.to_owned(),
            step: RESTART.to_owned(),
            reason: reason.to_owned(),
            operator: operator.to_owned(),
        };
        let call = |channel| async { agent_peer(channel).coordinate(request).await };
        let link = match self.setup.links.agent(&holder) {
            Ok(link) => link,
            Err(status) => return Outcome::failed(status.message()),
        };
        match link.call(STEP_DEADLINE, call).await.map(tonic::Response::into_inner) {
            Ok(answer) if answer.done => {
                Outcome::Done { detail: answer.detail, fence: fence_from_wire(answer.fence).ok() }
            }
            Ok(answer) if answer.guard.is_empty() => Outcome::failed(answer.refusal),
            Ok(answer) => Outcome::Refused { guard: answer.guard, why: answer.refusal },
            Err(status) => Outcome::failed(format!(
                "the holder of the lease, {holder}, did not say how it ended: {}",
                status.message()
            )),
        }
    }

    /// A person's step is refused by this agent. Refusals are records: it is told before it is answered.
    async fn refuse(&self, asked: Asked<'_>, (guard, why): (GuardName, String)) -> Outcome {
        let Asked { target, step, operator, fence } = asked;
        let told = Told::OrderRefused {
            guard,
            target: target.to_owned(),
            step: step.to_owned(),
            fence: fence.map(ToString::to_string),
            operator: operator.to_owned(),
            why: why.clone(),
        };
        // Only a stopping agent has dropped the receiver.
        let _ = self.setup.requests.send(Request::Tell { told, durable: None }).await;
        Outcome::refused(guard, why)
    }

    /// This agent's own step needs a slot.
    pub(crate) async fn take_slot(&self, step: &Step) -> SlotReply {
        let name = self.step_name(step);
        // Entered before the holder hears of it: another request on its way says that this one is not forgotten.
        let others = self.with_own(|own| {
            let others = own.clone();
            own.insert(name.clone());
            others
        });
        let reply = self.ask_for_slot(step, &name, &others).await;
        if reply.is_err() {
            self.with_own(|own| own.remove(&name));
        }
        reply
    }

    fn with_own<T>(&self, work: impl FnOnce(&mut BTreeSet<String>) -> T) -> T {
        work(&mut self.under_way.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn ask_for_slot(&self, step: &Step, name: &str, under_way: &BTreeSet<String>) -> SlotReply {
        let refused = |why: String| Err((GuardName::OneAtATime, why));
        let incident = step.incident.as_ref().map(|incident| incident.0.clone()).unwrap_or_default();
        if let Some(fence) = self.forged_fence() {
            return Ok(fence);
        }
        let ask = self.ask_for(step);
        let Some(holder) = self.setup.lease.holder() else {
            return refused("nobody holds the lease: no majority of the agents can be reached".to_owned());
        };
        if holder == self.setup.own {
            let wish = Wish { step: name, incident: &incident, under_way };
            return self.request_slot(ask, &wish, &incident).await;
        }
        let request = RequestSlotRequest {
            target: ask.target,
            step: name.to_owned(),
            incident,
            under_way: under_way.iter().cloned().collect(),
            operator: ask.operator,
            action: ask.action.as_str().to_owned(),
            disk_unreadable: ask.disk_unreadable,
        };
        let call = |channel| async { agent_peer(channel).request_slot(request).await };
        let asked = async { self.setup.links.agent(&holder)?.call(2 * CALL_DEADLINE, call).await };
        match asked.await.map(tonic::Response::into_inner) {
            Ok(answer) if answer.granted => {
                fence_from_wire(answer.fence).map_err(|status| (GuardName::OneAtATime, status.message().to_owned()))
            }
            Ok(answer) => Err((guard_named(&answer.guard), format!("{}; {}", answer.refusal, answer.evidence))),
            Err(status) => refused(format!("the holder of the lease, {holder}, did not answer: {}", status.message())),
        }
    }

    /// This agent's own step under a slot has ended.
    pub(crate) async fn give_slot_back(&self, step: &Step, verified: bool) {
        self.with_own(|own| own.remove(&self.step_name(step)));
        let Some(fence) = step.fence.clone() else { return };
        let slot = Slot {
            target: self.setup.own.clone(),
            step: self.step_name(step),
            incident: step.incident.as_ref().map(|incident| incident.0.clone()).unwrap_or_default(),
            opened_ms: 0,
            fence,
        };
        match self.setup.lease.holder() {
            Some(holder) if holder == self.setup.own => {
                self.finish_slot(slot, verified).await;
            }
            Some(holder) => {
                let request = FinishSlotRequest { slot: Some(slot_to_wire(&slot)), verified };
                let call = |channel| async { agent_peer(channel).finish_slot(request).await };
                let told = async { self.setup.links.agent(&holder)?.call(2 * CALL_DEADLINE, call).await };
                if let Err(status) = told.await {
                    // A successor closes it when it has seen this node well.
                    tracing::warn!(holder, %status, "the end of a step could not be told to the lease's holder");
                }
            }
            None => {
                tracing::warn!("nobody holds the lease: the slot stays open until a holder has seen this node well")
            }
        }
    }

    /// An order from the holder: do this step here. Answered when it is verified or given up.
    pub(crate) async fn run_here(&self, fence: Fence, step: &str, reason: &str, operator: &str) -> Outcome {
        let asked = Asked { target: &self.setup.own, step, operator, fence: Some(&fence) };
        if step != RESTART && step != START {
            return self.refuse(asked, no_such_order(step)).await;
        }
        // Persisted before the engine even hears of it: from now on lower fences are refused, whatever comes of this.
        if let Err(error) = self.setup.lease.admit(fence.clone()).await {
            return self.refuse(asked, (GuardName::OneAtATime, error.to_string())).await;
        }
        let (done, ended) = oneshot::channel();
        let (owner, reason) = (operator.to_owned(), reason.to_owned());
        let request = Request::Restart { owner, reason, fence: fence.clone(), dead: step == START, done };
        if self.setup.requests.send(request).await.is_err() {
            return Outcome::failed("the target's agent is stopping");
        }
        match ended.await {
            Ok((true, detail)) => Outcome::Done { detail, fence: Some(fence) },
            Ok((false, detail)) => refusal_in(&detail).unwrap_or_else(|| Outcome::failed(detail)),
            Err(_) => Outcome::failed("the target's agent stopped before the step ended"),
        }
    }

    /// The fence of nobody's lease, for the planted bug that does without one.
    fn forged_fence(&self) -> Option<Fence> {
        bug(Bug::SkipLease).then(|| Fence { epoch: 0, round: 0, holder: self.setup.own.clone() })
    }

    /// Names a step over all agents.
    fn step_name(&self, step: &Step) -> String {
        step_name(step.action, &self.setup.own, step.id.0)
    }

    /// What the holder's guards have to know of a step of this agent.
    fn ask_for(&self, step: &Step) -> SlotAsk {
        let disk_unreadable = matches!(&step.subject, Subject::Disk { disk, .. } if self.is_unreadable(disk));
        SlotAsk { target: self.setup.own.clone(), action: step.action, operator: false, disk_unreadable }
    }

    fn is_unreadable(&self, disk: &str) -> bool {
        let view = self.setup.view.borrow();
        let mut disks = view.node.fact.iter().flat_map(|fact| &fact.disks);
        disks.any(|fact| fact.disk == disk && matches!(fact.health.as_str(), "gone" | "foreign"))
    }

    /// Orders a step at the target's agent, which may be this one. `Err`: it did not answer, nobody knows.
    async fn order(&self, order: &Order<'_>, reason: &str, operator: &str) -> Result<Outcome, Status> {
        let Order { target, step, fence } = *order;
        if target == self.setup.own {
            return Ok(self.run_here(fence.clone(), step, reason, operator).await);
        }
        let request = RunStepRequest {
            fence: Some(fence_to_wire(fence)),
            step: step.to_owned(),
            incident: String::new(),
            reason: reason.to_owned(),
            operator: operator.to_owned(),
        };
        let call = |channel| async { agent_peer(channel).run_step(request).await };
        let answer = self.setup.links.agent(target)?.call(STEP_DEADLINE, call).await?.into_inner();
        Ok(match (answer.done, answer.refusal.is_empty()) {
            (true, _) => Outcome::Done { detail: answer.detail, fence: Some(fence.clone()) },
            (false, false) => {
                refusal_in(&answer.refusal).unwrap_or_else(|| Outcome::refused(GuardName::OneAtATime, answer.refusal))
            }
            (false, true) => Outcome::failed(answer.detail),
        })
    }
}

fn nobody_holds() -> (GuardName, String) {
    let why = "nobody holds the agents' lease: a majority of the agents must be up and in touch, and have run for 10 s";
    (GuardName::OneAtATime, why.to_owned())
}

/// The engine tells an operator's step that a guard held as `held by GUARD: why`; a refusal travels in the same words.
fn refusal_in(detail: &str) -> Option<Outcome> {
    let (guard, why) = detail.strip_prefix(HELD_BY)?.split_once(": ")?;
    Some(Outcome::Refused { guard: guard.to_owned(), why: why.to_owned() })
}

/// An action by its name on the wire. One that this version does not know is judged like the strictest: a restart.
pub(crate) fn action_named(name: &str) -> Action {
    Action::ALL.iter().copied().find(|known| known.as_str() == name).unwrap_or(Action::RestartNode)
}

fn guard_named(name: &str) -> GuardName {
    GuardName::ALL.iter().copied().find(|guard| guard.as_str() == name).unwrap_or(GuardName::OneAtATime)
}
