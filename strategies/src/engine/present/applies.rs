//! Which steps of a ladder fit the present: a node that does not lead cannot step down, and what is not full is not emptied.
//!
//! Owns: the difference between a step that is passed over, for a reason that is recorded, and one that is waited for.

use crate::api::{LockFact, NodeFact, Subject};
use crate::engine::Engine;
use crate::engine::detect::resource_exhaustion::Of;
use crate::engine::incidents::Incident;
use crate::engine::ladder::{Rung, Shows};
use crate::liveness::Verdict;
use crate::types::{Action, Mode, Moment};

/// Whether a step fits now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Applies {
    /// It does.
    Yes,
    /// It does not: the next one.
    Skip(&'static str),
    /// Not yet, and nothing after it either.
    Wait(&'static str),
}

impl Engine {
    pub(crate) fn applies(&self, now: Moment, incident: &Incident, rung: &Rung) -> Applies {
        let yes_if = |holds: bool, otherwise| if holds { Applies::Yes } else { otherwise };
        if rung.action == Action::SetMode && rung.with != "quiet" && self.mode_is_persons() {
            return Applies::Skip("a person set the node's mode: no agent changes it");
        }
        match (incident.mode, rung.action) {
            (Mode::DataCorruption, _) if incident.rung == 0 && matches!(incident.subject, Subject::Disk { .. }) => {
                Applies::Skip("it is about a whole disk, and not about one object")
            }
            (Mode::NetworkPartition, Action::SetMode) => yes_if(
                self.watches.partition.minority(&self.policy).0,
                Applies::Wait("the network to heal; this is no minority side, and goes on as it is"),
            ),
            (Mode::SplitBrain, Action::SetMode) => yes_if(
                self.watches.leaders.is_lower(&self.node, &self.policy.split_brain),
                Applies::Skip("the own node is not the one of the lower term"),
            ),
            (Mode::SplitBrain, Action::RestartNode | Action::StepDown) => yes_if(
                self.watches.leaders.is_lower(&self.node, &self.policy.split_brain) && self.leads(),
                Applies::Skip("the own node does not lead the lower term"),
            ),
            (Mode::SplitBrain, Action::Resync) => yes_if(
                self.state_is_ill(now, Mode::StateDivergence),
                Applies::Skip("the own replica is not known to differ"),
            ),
            (Mode::SlowFollower, Action::InstallSnapshot | Action::Demote) => yes_if(
                self.watches.lag.lags(&self.policy.lag),
                Applies::Wait(
                    "the node to be as quick as the others; it applies what is committed in time, so that nothing more is done",
                ),
            ),
            (Mode::TermDivergence, action) => self.applies_to_terms(action),
            (Mode::Deadlock, action) => self.applies_to_deadlock(now, rung, action),
            (Mode::ResourceExhaustion, action) => self.applies_to_resources(action),
            (_, Action::StepDown) => yes_if(self.leads(), Applies::Skip("the own node does not lead")),
            _ => Applies::Yes,
        }
    }

    /// Whether a person set the node's mode, as the node says.
    pub(crate) fn mode_is_persons(&self) -> bool {
        self.facts.node_now().is_some_and(|fact| fact.mode_is_persons)
    }

    fn applies_to_terms(&self, action: Action) -> Applies {
        let (terms, policy) = (&self.watches.terms, &self.policy.terms);
        let stray = terms.is_stray(policy);
        match action {
            Action::SetMode if !terms.runs_away(policy) => Applies::Skip("the own node is not the one that runs away"),
            Action::SetMode if self.leads() => Applies::Skip("the own node leads"),
            Action::StepDown if !(stray && self.leads()) || self.is_acknowledged() => {
                Applies::Skip("the own node does not lead without a quorum")
            }
            Action::AlignTerm if terms.aligns(policy).is_none() && terms.may_align() => {
                Applies::Wait("the terms to stay so for long enough")
            }
            Action::AlignTerm if terms.aligns(policy).is_none() => {
                Applies::Skip("another node has the best log, or leads: it aligns")
            }
            Action::RejoinLearner if !stray => Applies::Wait("the node that runs away to follow"),
            _ => Applies::Yes,
        }
    }

    /// A quorum has acknowledged the own node as its leader, just now.
    fn is_acknowledged(&self) -> bool {
        let epoch = self.facts.node().map_or(0, |fact| fact.epoch);
        let leader = self.watches.leaders.quorum_leader(self.now, self.policy.fresh_within() * 2, epoch);
        leader.is_some_and(|(name, _)| name == self.node)
    }

    fn applies_to_deadlock(&self, now: Moment, rung: &Rung, action: Action) -> Applies {
        let watch = &self.watches.deadlock;
        let hung = watch.is_hung(&self.policy.deadlock);
        match action {
            Action::CancelOperation | Action::BreakLock | Action::StepDown if hung => {
                Applies::Skip("the node answers nothing that it could be asked")
            }
            // An upload that lasts for hours is no sign by itself; a lock that somebody else holds makes it none.
            Action::CancelOperation if !watch.has_old_operation_and_more(now, &self.policy.deadlock) => Applies::Skip(
                "no operation is older than its limit while the canary, or a line of the log, says that something hangs",
            ),
            Action::BreakLock => match (watch.lock(), rung.approval) {
                (None, _) => Applies::Skip("no lock is held too long"),
                (Some(lock), false) if self.owner_is_dead(now, lock) => Applies::Yes,
                // The process itself does not get on: that is not to wait for somebody's lock.
                (Some(_), _) if watch.is_of_process(&self.policy.deadlock) => {
                    Applies::Skip("its owner is not proven dead, and the process itself does not get on")
                }
                (Some(lock), _) if !self.is_stuck_long(lock) => {
                    Applies::Wait("the owner of the lock to let it go, or to be proven dead")
                }
                (Some(_), false) => Applies::Skip("the owner of the lock is not proven dead"),
                (Some(_), true) => Applies::Yes,
            },
            Action::StepDown | Action::RestartNode
                if !hung && self.watches.resources.is_full_now(now, Of::Room, &self.policy.resources) =>
            {
                Applies::Skip(
                    "a volume is full: writes that find no room do not come through, and a restart makes none",
                )
            }
            Action::StepDown if !self.leads() => Applies::Skip("the own node does not lead"),
            Action::StepDown | Action::RestartNode if !watch.is_of_process(&self.policy.deadlock) => {
                Applies::Wait("what hangs to end: canaries come through, so that it is not the process")
            }
            _ => Applies::Yes,
        }
    }

    fn applies_to_resources(&self, action: Action) -> Applies {
        let (watch, policy) = (&self.watches.resources, &self.policy.resources);
        let (over, full) = (|of| watch.is_over(of, policy), |of| watch.is_full(of, policy));
        match action {
            Action::Reclaim if !over(Of::Room) => Applies::Skip("no volume is short of room"),
            Action::Throttle if !over(Of::Memory) && !over(Of::Cores) && !over(Of::Room) => {
                Applies::Skip("nothing is short")
            }
            // Leadership needs neither room on a disk nor an idle core: it is moved when the process itself is in danger.
            Action::SetMode if full(Of::Room) => Applies::Yes,
            Action::SetMode if full(Of::Memory) && self.leads() => Applies::Skip("no volume is full"),
            Action::SetMode => Applies::Wait("room, or for it to run out: nothing is full yet"),
            Action::StepDown if !full(Of::Memory) => {
                Applies::Skip("neither memory nor descriptors are as good as gone")
            }
            Action::StepDown if !self.leads() => Applies::Skip("the own node does not lead"),
            Action::EvacuateDisk if watch.fullest().is_none() => Applies::Skip("no disk for shards is full"),
            _ => Applies::Yes,
        }
    }

    fn state_is_ill(&self, now: Moment, mode: Mode) -> bool {
        matches!(self.state_of(now, mode, &[]), crate::engine::detect::State::Ill(_))
    }

    /// Whether the own node leads, by its own word.
    pub(crate) fn leads(&self) -> bool {
        self.facts.node_now().and_then(|fact| fact.raft.as_ref()).is_some_and(|raft| raft.role == "leader")
    }

    /// Dead beyond doubt: convicted, as for `host_down`. A host that this agent merely does not hear is not dead.
    fn owner_is_dead(&self, now: Moment, lock: &LockFact) -> bool {
        !lock.owner_node.is_empty()
            && lock.owner_node != self.node
            && self.liveness.judge(now, &lock.owner_node).verdict == Verdict::Convicted
    }

    fn is_stuck_long(&self, lock: &LockFact) -> bool {
        std::time::Duration::from_millis(lock.held_ms) >= self.policy.scaled(self.policy.deadlock.stuck_lock_after)
    }

    /// What the action needs beside its subject.
    pub(crate) fn with_of(&self, incident: &Incident, rung: &Rung) -> String {
        if !rung.with.is_empty() {
            return rung.with.to_owned();
        }
        let node = self.facts.node();
        match (incident.mode, rung.action) {
            (Mode::Deadlock, Action::CancelOperation) => {
                node.map_or_else(String::new, |fact| fact.oldest_operation.clone())
            }
            (Mode::Deadlock, Action::BreakLock) => {
                self.watches.deadlock.lock().map_or_else(String::new, |lock| format!("{}#{}", lock.path, lock.token))
            }
            (Mode::TermDivergence, Action::AlignTerm) => self
                .watches
                .terms
                .aligns(&self.policy.terms)
                .map_or_else(String::new, |highest| (highest + 1).to_string()),
            _ => String::new(),
        }
    }

    /// What a step of such an incident is done to: the own node, or the disk that is full.
    pub(crate) fn watched_subject(&self, incident: &Incident, rung: &Rung) -> Subject {
        let node = self.node.clone();
        match (incident.mode, rung.action, self.watches.resources.fullest()) {
            (Mode::ResourceExhaustion, Action::EvacuateDisk, Some(disk)) => {
                Subject::Disk { disk: disk.to_owned(), node }
            }
            _ => Subject::Node(node),
        }
    }

    /// Whether the node shows this of itself.
    pub(crate) fn node_shows(&self, shows: Shows, since: Option<Moment>) -> bool {
        let Some(fact) = self.facts.node_now() else { return false };
        let is_voter = |fact: &NodeFact| {
            fact.members.iter().find(|member| member.node == self.node).map(|member| member.role != "learner")
        };
        match shows {
            Shows::Mode(mode) => fact.mode == mode,
            Shows::ServesNobody => fact.mode == "isolated" || fact.phase == "lost_voter",
            Shows::Stands(stands) => fact.stands == Some(stands),
            Shows::Votes(votes) => is_voter(fact) == Some(votes),
            Shows::Follows => fact.raft.as_ref().is_some_and(|raft| raft.role != "leader"),
            Shows::Healthy => {
                let after = since.is_some_and(|since| self.facts.heartbeat_at().is_some_and(|at| at > since));
                after && fact.phase == "healthy"
            }
        }
    }
}
