//! `deadlock`: heartbeats are answered and nothing gets on; or the process runs and answers nobody.
//!
//! Never: takes saturation for deadlock; calls slow what is fast enough for any client; blames this node for a cluster without a
//! leader; treats a process that somebody stopped (SIGSTOP), or that the kernel holds (D state).

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{CanaryFact, HostFact, LockFact, NodeFact, ProcessStateFact};
use crate::config::{DeadlockPolicy, PolicyConfig};
use crate::engine::detect::State;
use crate::engine::detect::held::Held;
use crate::engine::peers::Peers;
use crate::types::Moment;

/// The longest time between two canaries that is waited for: a thousand nodes at one a second, and some.
const MAX_PERIOD: Duration = Duration::from_secs(1800);
/// Good canaries that make the baseline.
const MAX_BASELINE: usize = 64;
/// Canaries that must be seen before the 99th percentile says anything.
const MIN_CANARIES: u32 = 3;
/// A process that the kernel holds for so long waits for a disk, and no signal reaches it.
const HELD_BY_KERNEL_MS: u64 = 5_000;

/// What was seen of the node's progress.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Watch {
    /// When the last canary was sent, and how long after the one before: in a large cluster each node is asked seldom.
    asked: Option<Moment>,
    period: Duration,
    /// Canaries that came through in time, in a row.
    flows: Held,
    baseline: VecDeque<u64>,
    last_error: String,
    stuck: Held,
    hung: Held,
    operation: Held,
    locks: Held,
    lock: Option<LockFact>,
    fine: Held,
    /// When the host was looked at, and why it is saturated, if it is.
    host: Option<(Moment, Option<String>)>,
    process: Option<(Moment, ProcessStateFact)>,
    /// A line of the log that spoke for it.
    line: Option<Moment>,
}

impl Watch {
    /// The canary's limit in milliseconds; `None`: there is no baseline yet.
    pub(crate) fn limit(&self, policy: &DeadlockPolicy) -> Option<u64> {
        if self.baseline.len() < policy.baseline_samples as usize {
            return None;
        }
        let mut known: Vec<u64> = self.baseline.iter().copied().collect();
        known.sort_unstable();
        let middle = known.get(known.len() / 2).copied().unwrap_or(0);
        let floor = u64::try_from(policy.canary_floor.as_millis()).unwrap_or(u64::MAX);
        Some(middle.saturating_mul(u64::from(policy.canary_factor)).max(floor))
    }

    pub(crate) fn canary(&mut self, now: Moment, fact: &CanaryFact, policy: &DeadlockPolicy) {
        let limit = self.limit(policy);
        let slow = fact.millis.is_none_or(|took| limit.is_some_and(|limit| took > limit));
        if let Some(took) = fact.millis.filter(|_| !slow) {
            if self.baseline.len() >= MAX_BASELINE {
                self.baseline.pop_front();
            }
            self.baseline.push_back(took);
        }
        self.period = self.asked.map_or(self.period, |asked| now.since(asked)).min(MAX_PERIOD);
        self.asked = Some(now);
        let gap = policy.good_for.max(self.period * 3);
        self.stuck.look(now, slow, gap);
        self.flows.look(now, !slow, gap);
        if slow {
            self.last_error.clone_from(&fact.error);
        }
    }

    pub(crate) fn host(&mut self, now: Moment, fact: &HostFact, policy: &DeadlockPolicy) {
        let over = |name: &str, share: Option<u32>, limit: u32| {
            share.filter(|share| *share >= limit).map(|share| format!("{name} {share} per mille, limit {limit}"))
        };
        let saturated = over("cores busy", fact.cpu_per_mille, policy.saturated_cpu)
            .or_else(|| over("waiting for a core", fact.cpu_pressure_per_mille, policy.saturated_pressure))
            .or_else(|| over("waiting for memory", fact.memory_pressure_per_mille, policy.saturated_pressure))
            .or_else(|| over("waiting for a disk", fact.io_pressure_per_mille, policy.saturated_pressure));
        self.host = Some((now, saturated));
    }

    pub(crate) fn process(&mut self, now: Moment, fact: &ProcessStateFact) {
        self.process = Some((now, fact.clone()));
    }

    pub(crate) fn line(&mut self, now: Moment) {
        self.line = Some(now);
    }

    /// `led`: a leader is seen. Without one nothing gets on anywhere, and it is not this node.
    pub(crate) fn heartbeat(&mut self, now: Moment, fact: &NodeFact, led: bool, policy: &PolicyConfig) {
        let (figures, gap) = (&policy.deadlock, policy.detection.heartbeat * 10);
        let serves = fact.phase == "healthy" && led && fact.mode != "isolated";
        self.fine.look(now, serves, gap);
        self.hung.look(now, false, gap);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let old = !fact.oldest_operation.is_empty() && fact.oldest_operation_ms >= millis(figures.operation_limit);
        self.operation.look(now, old, gap);
        let bad = |lock: &&LockFact| {
            lock.health == "unhealthy"
                && lock.waiting > 0
                && lock.token > 0
                && lock.held_ms >= millis(figures.lock_limit)
        };
        let lock = fact.locks.iter().find(bad);
        self.locks.look(now, lock.is_some(), gap);
        self.lock = lock.cloned();
        // Not to serve (an election, a restart) is another mode's: no canary can come through then.
        if !serves {
            (self.stuck, self.flows) = (Held::default(), Held::default());
        }
    }

    /// The node did not answer. `runs`: its process is there.
    pub(crate) fn missed(&mut self, now: Moment, runs: bool, policy: &PolicyConfig) {
        let gap = policy.detection.heartbeat * 10;
        self.hung.look(now, runs, gap);
        self.fine.look(now, false, gap);
        (self.stuck, self.flows) = (Held::default(), Held::default());
    }

    /// The process runs and has not answered for long enough.
    pub(crate) fn is_hung(&self, policy: &DeadlockPolicy) -> bool {
        self.hung.lasts(policy.hung_after, 3)
    }

    /// Why the host is saturated; `Err`: nothing is known of it.
    fn saturated(&self, now: Moment, policy: &DeadlockPolicy) -> Result<Option<&str>, &'static str> {
        match &self.host {
            Some((at, why)) if now.since(*at) <= policy.good_for => Ok(why.as_deref()),
            _ => Err("nothing fresh is known of the host's load: it may be saturated"),
        }
    }

    /// The host is known not to be saturated.
    pub(crate) fn host_is_free(&self, now: Moment, policy: &DeadlockPolicy) -> bool {
        matches!(self.saturated(now, policy), Ok(None))
    }

    fn is_stuck(&self, policy: &DeadlockPolicy) -> bool {
        self.stuck.lasts(policy.stuck_after, 3)
    }

    /// The lock that is held too long.
    pub(crate) fn lock(&self) -> Option<&LockFact> {
        self.lock.as_ref().filter(|_| self.locks.looks() >= 2)
    }

    /// An operation is too old: by itself that may be a client on a slow line.
    pub(crate) fn has_old_operation(&self) -> bool {
        self.operation.looks() >= 2
    }

    /// And there is another sign.
    pub(crate) fn has_old_operation_and_more(&self, now: Moment, policy: &DeadlockPolicy) -> bool {
        self.has_old_operation() && (self.stuck.looks() >= 2 || self.has_line(now, policy))
    }

    fn has_line(&self, now: Moment, policy: &DeadlockPolicy) -> bool {
        self.line.is_some_and(|at| now.since(at) <= policy.operation_limit)
    }

    /// The process itself does not get on, or does not answer: what would be restarted is what hangs.
    pub(crate) fn is_of_process(&self, policy: &DeadlockPolicy) -> bool {
        self.is_hung(policy) || self.is_stuck(policy)
    }

    /// Whether it is more than slowness: not saturation, and by a second source.
    pub(crate) fn corroborated(&self, now: Moment, peers: &Peers, policy: &PolicyConfig) -> (bool, String) {
        let figures = &policy.deadlock;
        if let Some(why) = self.held_by_kernel(now, figures) {
            return (false, why);
        }
        if self.is_hung(figures) {
            let (hear, miss) = peers.hears_us(now, policy.fresh_within() * 2);
            let told = format!(
                "no heartbeat for {:.0} s; {miss} peers do not hear the node either, {hear} do",
                self.hung.time().as_secs_f64()
            );
            return (miss > 0 && hear == 0, told);
        }
        match self.saturated(now, figures) {
            Err(why) => return (false, why.to_owned()),
            Ok(Some(why)) => return (false, format!("the host is saturated ({why}): that is no deadlock")),
            Ok(None) => {}
        }
        let mut sources = Vec::new();
        if self.has_old_operation() {
            sources.push("the age of an operation");
        }
        if self.lock().is_some() {
            sources.push("the health of a lock");
        }
        if self.has_line(now, figures) {
            sources.push("a line of the log");
        }
        // An old operation that holds a lock is one slow client; only with the canary it is the node.
        let (canary, others) = (self.is_stuck(figures), sources.join(" and "));
        let said = if canary { "does not come through" } else { "comes through" };
        let told = format!(
            "the host is not saturated; the canary {said}, and needs one more source: {}",
            if others.is_empty() { "none" } else { &others }
        );
        (canary && !sources.is_empty(), told)
    }

    fn fresh_process(&self, now: Moment, policy: &DeadlockPolicy) -> Option<&ProcessStateFact> {
        self.process.as_ref().filter(|(at, _)| now.since(*at) <= policy.good_for).map(|(_, fact)| fact)
    }

    /// What hangs, as far as it can be seen from outside: the process, its operations, its locks, and what the canary met.
    pub(crate) fn dump(&self, now: Moment, node: Option<&NodeFact>, policy: &DeadlockPolicy) -> String {
        let process = self.fresh_process(now, policy).map_or_else(
            || "the process's state is not known".to_owned(),
            |fact| format!("process {} is {} for {} ms", fact.pid, fact.state, fact.for_ms),
        );
        let mut said = vec![process];
        match node {
            None => said.push("the node has told nothing yet".to_owned()),
            Some(fact) => {
                said.push(format!("by its last answer {} operations were under way", fact.operations_in_flight));
                if !fact.oldest_operation.is_empty() {
                    said.push(format!("the oldest, {}, for {} ms", fact.oldest_operation, fact.oldest_operation_ms));
                }
                said.extend(fact.locks.iter().map(|lock| {
                    let LockFact { path, owner, owner_node, held_ms, waiting, health, .. } = lock;
                    format!(
                        "lock {path} ({health}) is held for {held_ms} ms by {owner} of {owner_node}, {waiting} wait"
                    )
                }));
            }
        }
        if !self.last_error.is_empty() {
            said.push(format!("the canary met: {}", self.last_error));
        }
        said.join("; ")
    }

    /// Whether somebody stopped the process, which is not fought: it was a signal, and no accident sends that one.
    pub(crate) fn stopped(&self, now: Moment, policy: &DeadlockPolicy) -> Option<String> {
        let fact = self.fresh_process(now, policy).filter(|fact| fact.state == "stopped")?;
        Some(format!(
            "process {} was stopped by a signal {} ms ago: somebody meant it, and has to let it go on",
            fact.pid, fact.for_ms
        ))
    }

    fn held_by_kernel(&self, now: Moment, policy: &DeadlockPolicy) -> Option<String> {
        let fact = self
            .fresh_process(now, policy)
            .filter(|fact| fact.state == "disk_wait" && fact.for_ms >= HELD_BY_KERNEL_MS)?;
        Some(format!(
            "process {} waits in the kernel (D state) for {} ms: no signal reaches it, a restart would not either",
            fact.pid, fact.for_ms
        ))
    }

    pub(crate) fn state(&self, now: Moment, policy: &DeadlockPolicy, calm_for: Duration) -> State {
        if self.is_hung(policy) {
            let state = self.fresh_process(now, policy).map_or("state unknown", |fact| fact.state.as_str());
            return State::Ill(format!(
                "the process runs ({state}) and has answered no heartbeat for {:.0} s",
                self.hung.time().as_secs_f64()
            ));
        }
        let (old, stuck) = (self.has_old_operation_and_more(now, policy), self.is_stuck(policy));
        // Of a lock that does badly there is no other sign: timeouts are what a saturated host gives.
        if (self.lock().is_some() || old || stuck) && matches!(self.saturated(now, policy), Ok(Some(_))) {
            return State::Unknown("the host is saturated: slowness is no deadlock then");
        }
        if let Some(lock) = self.lock() {
            let LockFact { path, owner, owner_node, held_ms, waiting, .. } = lock;
            return State::Ill(format!(
                "lock {path} is held for {held_ms} ms by {owner} of {owner_node}, {waiting} wait, and it is unhealthy"
            ));
        }
        let error = &self.last_error;
        if old {
            let limit = policy.operation_limit.as_secs();
            return State::Ill(format!(
                "an operation is older than {limit} s, and the canary does not come through: {error}"
            ));
        }
        if stuck {
            let limit =
                self.limit(policy).map_or_else(|| "no baseline yet".to_owned(), |limit| format!("limit {limit} ms"));
            let time = self.stuck.time().as_secs_f64();
            return State::Ill(format!(
                "no canary came through in time for {time:.0} s ({limit}): {error}; heartbeats are fine"
            ));
        }
        match self.is_calm(calm_for) {
            true => State::Well,
            false => State::Unknown("the canary to be back under its limit for long enough"),
        }
    }

    /// The canary's 99th percentile over the time is under its limit: of so few samples that is all of them.
    fn is_calm(&self, calm_for: Duration) -> bool {
        // Where nothing sends canaries, heartbeats and operations have to do; the proof sends one of its own.
        let flows = self.flows.lasts(calm_for, MIN_CANARIES) || self.asked.is_none();
        flows && self.fine.lasts(calm_for, 3)
    }
}
