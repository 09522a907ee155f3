//! The holder's side: may this disruptive step begin now, anywhere in the cluster?
//!
//! Owns: the guards that need the whole cluster's picture (one at a time, quorum kept, storm brake, the cluster's
//! budget), judged by the agent that holds the lease. Must never: judge on a picture older than two heartbeats, or open
//! a slot itself.
//!
//! What is judged, with the facts there are: a node is *well* when its own agent says that it lives and is healthy (for
//! the holder's own node: its heartbeat). Voters come from the cluster map. Acknowledged data survives the loss of one
//! failure domain; a step takes its target away for a while, so no other node may be down and no shard may be without
//! a home, unless the disk in question holds nothing readable anyway, or the target is mute and serves none already.
//! Targets of open slots count as down. Starting what does not run takes nothing away, and asks for no slot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::api::{MemberFact, NodeFact, PeerFact};
use crate::config::PolicyConfig;
use crate::engine::is_cut_off;
use crate::lease::{Busy, SlotBook, majority};
use crate::record::GuardResult;
use crate::storm::StormBrake;
use crate::types::{Action, GuardName, Moment};

/// Slots remembered for the budgets: the cluster's hourly budget over a day, with room.
const MAX_TAKEN: usize = 512;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a step that moves the leadership may take until another one leads: the evidence is read again, an election, a heartbeat.
/// A change within it is the plan's own, after which there is no grace.
pub(crate) const LEADER_MOVES: Duration = Duration::from_secs(30);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
const TEN_MINUTES: Duration = Duration::from_secs(600);

/// A wish for a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotAsk {
    /// The node it is done to.
    pub target: String,
    /// What is done.
    pub action: Action,
    /// A person asked. Budget and grace restrain automation, not people; everything else holds for both.
    pub operator: bool,
    /// For `detach_disk`: the disk is gone or foreign, so nothing readable is taken away.
    pub disk_unreadable: bool,
}

/// One node, as the holder sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub node: String,
    /// It votes on the metadata.
    pub voter: bool,
    /// It is well, by fresh evidence.
    pub well: bool,
    /// Its process runs, as its own agent says, and has answered neither that agent nor the holder's for `deadlock.hung_after`.
    pub mute: bool,
}

/// The cluster, as the holder sees it now.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// All members.
    pub nodes: Vec<NodeView>,
    /// Targets of open slots: count as down.
    pub open_targets: Vec<String>,
    /// The slot that blocks every other.
    pub busy: Option<Busy>,
    /// The storm brake, with its numbers.
    pub storm: (bool, String),
    /// How much of the grace is left.
    pub grace_left: Duration,
    /// Age of the holder's own view of the cluster map; `None`: it has none.
    pub map_age: Option<Duration>,
    /// The oldest that evidence may be.
    pub fresh_within: Duration,
    /// Shards without a home.
    pub missing_shards: u64,
    /// Other nodes that may be down.
    pub others_down: u32,
    /// Slots opened for the target in a day, and the limit.
    pub target_day: (u32, u32),
    /// Slots opened in an hour, and the limit.
    pub cluster_hour: (u32, u32),
    /// Slots opened for the target in ten minutes (within the last hour), and the limit.
    pub flapping: (u32, u32),
    /// For how long nobody that is heard has named a leader, and from when on a hung voter may be restarted despite the brake.
    pub leaderless: (Duration, Duration),
}

/// Judges a wish. `Ok`: all guards passed, with their numbers. `Err`: the first that did not.
pub fn admit(view: &View, ask: &SlotAsk) -> Result<Vec<GuardResult>, GuardResult> {
    let mut passed = Vec::new();
    let checks: [fn(&View, &SlotAsk) -> GuardResult; 6] =
        [fresh, one_at_a_time, storm_brake, quorum_kept, budget, grace];
    for check in checks {
        let result = check(view, ask);
        if !result.passed {
            return Err(result);
        }
        passed.push(result);
    }
    Ok(passed)
}

fn result(guard: GuardName, passed: bool, evidence: String) -> GuardResult {
    GuardResult { guard, passed, evidence }
}

fn fresh(view: &View, _: &SlotAsk) -> GuardResult {
    let passed = view.map_age.is_some_and(|age| age <= view.fresh_within);
    let evidence = match view.map_age {
        Some(age) => format!("cluster map seen {age:?} ago, limit {:?}", view.fresh_within),
        None => "the holder has not seen the cluster map yet".to_owned(),
    };
    result(GuardName::Fresh, passed, evidence)
}

fn one_at_a_time(view: &View, _: &SlotAsk) -> GuardResult {
    let evidence = view.busy.as_ref().map_or_else(|| "no other step is open".to_owned(), ToString::to_string);
    result(GuardName::OneAtATime, view.busy.is_none(), evidence)
}

/// The one case in which brake and quorum do not hold: nobody leads, and the target, a voter, is not well, so that nothing is taken
/// away. Its own agent has shown that it hangs. Still one at a time, under the lease.
fn revives(view: &View, ask: &SlotAsk) -> Option<String> {
    let (without, limit) = view.leaderless;
    let ill = view.nodes.iter().any(|node| node.node == ask.target && node.voter && !node.well);
    let applies = ask.action == Action::RestartNode && ill && without >= limit;
    applies.then(|| {
        format!("no leader for {} s, and the target, a voter, is not well: nothing is taken away", without.as_secs())
    })
}

fn storm_brake(view: &View, ask: &SlotAsk) -> GuardResult {
    if let Some(why) = revives(view, ask) {
        return result(GuardName::StormBrake, true, why);
    }
    result(GuardName::StormBrake, !view.storm.0, view.storm.1.clone())
}

fn quorum_kept(view: &View, ask: &SlotAsk) -> GuardResult {
    if let Some(why) = revives(view, ask) {
        return result(GuardName::QuorumKept, true, why);
    }
    let down = |node: &NodeView| !node.well || view.open_targets.contains(&node.node);
    let others_down: Vec<&str> =
        view.nodes.iter().filter(|node| node.node != ask.target && down(node)).map(|node| node.node.as_str()).collect();
    if ask.action == Action::DetachDisk && ask.disk_unreadable {
        let evidence = "the disk holds nothing readable: no valid copy is taken away, and the process stays".to_owned();
        return result(GuardName::QuorumKept, true, evidence);
    }
    // Leadership that moves, or a term that is aligned, takes no vote away; nor does what happens to one disk.
    let takes_voter =
        !matches!(ask.action, Action::DetachDisk | Action::EvacuateDisk | Action::StepDown | Action::AlignTerm);
    let voters: Vec<&NodeView> = view.nodes.iter().filter(|node| node.voter).collect();
    let healthy = voters.iter().filter(|node| !down(node) && (!takes_voter || node.node != ask.target)).count();
    let need = majority(voters.len());
    let votes = format!("{healthy} of {} voters healthy during the step, {need} needed", voters.len());
    if voters.is_empty() || healthy < need {
        return result(GuardName::QuorumKept, false, votes);
    }
    let of_metadata = matches!(
        ask.action,
        Action::StepDown
            | Action::AlignTerm
            | Action::Resync
            | Action::InstallSnapshot
            | Action::RejoinLearner
            | Action::Demote
    );
    // These take no shard away: a lost voter serves none, and the others keep serving theirs.
    if of_metadata {
        return result(GuardName::QuorumKept, true, votes);
    }
    // A shard without a home may wait for this very node.
    let mute = ask.action == Action::RestartNode && view.nodes.iter().any(|node| node.node == ask.target && node.mute);
    let shards = format!(
        "{} shards without a home{}, nodes down besides the target: {others_down:?}",
        view.missing_shards,
        if mute { " (the target answers nobody: its own it does not serve already)" } else { "" }
    );
    let kept = others_down.len() <= view.others_down as usize && (view.missing_shards == 0 || mute);
    result(GuardName::QuorumKept, kept, format!("{votes}; {shards}"))
}

fn budget(view: &View, ask: &SlotAsk) -> GuardResult {
    let (day, hour, flaps) = (view.target_day, view.cluster_hour, view.flapping);
    let evidence = format!(
        "{} of {} on {} in a day, {} of {} in the cluster in an hour, {} of {} in ten minutes",
        day.0, day.1, ask.target, hour.0, hour.1, flaps.0, flaps.1
    );
    if ask.operator {
        return result(GuardName::Budget, true, format!("{evidence}; asked for by an operator"));
    }
    if flaps.0 >= flaps.1 {
        return result(GuardName::Backoff, false, format!("flapping, held for an hour: {evidence}"));
    }
    result(GuardName::Budget, day.0 < day.1 && hour.0 < hour.1, evidence)
}

fn grace(view: &View, ask: &SlotAsk) -> GuardResult {
    let passed = ask.operator || view.grace_left.is_zero();
    result(GuardName::Grace, passed, format!("{:?} of grace left after start or leader change", view.grace_left))
}

/// Gathers what [`admit`] judges. Lives as long as the agent; it is asked only while the agent holds the lease.
#[derive(Clone, Debug)]
pub struct Coordinator {
    node: String,
    policy: PolicyConfig,
    began: Moment,
    storm: StormBrake,
    well: BTreeMap<String, (bool, Moment)>,
    /// Whose agent says that no process runs, and when it said so.
    dead: BTreeMap<String, Moment>,
    /// Whose process runs and answers neither its own agent nor this one, since when, and when that was seen last.
    mute: BTreeMap<String, (Moment, Moment)>,
    members: Vec<MemberFact>,
    missing_shards: u64,
    map_seen: Option<Moment>,
    leader: String,
    /// An admitted step moves the leadership: until then a change is the plan's own.
    leader_moves: Option<Moment>,
    leader_changed: Option<Moment>,
    /// When somebody named a leader last; the start, when nobody did.
    led: Moment,
    /// Slots this holder let open: (when, target).
    taken: VecDeque<(Moment, String)>,
    /// Steps on each node as its own agent has them in its journal: how long before when they were told each was begun. Among them are
    /// those that an earlier holder granted.
    told: BTreeMap<String, (Moment, Vec<Duration>)>,
}

impl Coordinator {
    /// One that has seen nothing yet.
    pub fn new(now: Moment, node: &str, policy: PolicyConfig) -> Self {
        let storm = StormBrake::new(&policy.storm, policy.scaled(policy.storm.window));
        Self {
            node: node.to_owned(),
            policy,
            began: now,
            storm,
            well: BTreeMap::new(),
            dead: BTreeMap::new(),
            mute: BTreeMap::new(),
            members: Vec::new(),
            missing_shards: 0,
            map_seen: None,
            leader: String::new(),
            leader_changed: None,
            leader_moves: None,
            led: now,
            taken: VecDeque::new(),
            told: BTreeMap::new(),
        }
    }

    /// The holder's own node answered.
    pub fn heartbeat(&mut self, now: Moment, fact: &NodeFact) {
        self.members.clone_from(&fact.members);
        self.missing_shards = fact.missing_shards;
        self.map_seen = Some(now);
        let leader = fact.raft.as_ref().map(|raft| raft.leader.clone()).unwrap_or_default();
        if !leader.is_empty() && !fact.raft.as_ref().is_some_and(is_cut_off) {
            self.led = now;
        }
        if !leader.is_empty() && leader != self.leader {
            let meant = self.leader_moves.take_if(|until| now <= *until).is_some();
            if !self.leader.is_empty() && !meant {
                self.leader_changed = Some(now);
            }
            self.leader = leader;
        }
        let node = self.node.clone();
        self.see(now, &node, fact.phase == "healthy");
    }

    /// The holder's own node did not answer.
    pub fn heartbeat_missed(&mut self, now: Moment) {
        let node = self.node.clone();
        self.see(now, &node, false);
    }

    /// A peer's agent answered, or did not.
    pub fn peer(&mut self, now: Moment, fact: &PeerFact) {
        if fact.agent_answers {
            self.disrupted(now, &fact.node, &fact.disrupted_ms);
        }
        // Its phase is its last word: one that hangs was healthy when it gave it.
        let mute = fact.node_answers == Some(false);
        self.see(now, &fact.node, fact.node_alive == Some(true) && fact.node_phase == "healthy" && !mute);
        if fact.agent_answers && !fact.leader.is_empty() && !fact.raft.as_ref().is_some_and(is_cut_off) {
            self.led = now;
        }
        match fact.node_alive {
            Some(false) => _ = self.dead.insert(fact.node.clone(), now),
            _ => _ = self.dead.remove(&fact.node),
        }
        // Asked directly only while its own agent does not hear it either.
        match fact.node_alive == Some(true) && mute {
            true => {
                let within = self.mute_within();
                let (first, last) = self.mute.entry(fact.node.clone()).or_insert((now, now));
                // Nobody looked in between: it begins anew.
                if now.since(*last) > within {
                    *first = now;
                }
                *last = now;
            }
            false => _ = self.mute.remove(&fact.node),
        }
    }

    /// What a node's own agent says of disruptive steps on it.
    pub fn disrupted(&mut self, now: Moment, node: &str, ages_ms: &[u64]) {
        if ages_ms.is_empty() {
            self.told.remove(node);
        } else {
            self.told.insert(node.to_owned(), (now, ages_ms.iter().copied().map(Duration::from_millis).collect()));
        }
    }

    /// How long ago each step on a node was: as this holder granted them, and as the node's agent says. Most are known by both, so that
    /// the more of the two counts, and never their sum.
    fn steps_on(&self, now: Moment, node: &str) -> [Vec<Duration>; 2] {
        let granted = self.taken.iter().filter(|(_, of)| of == node).map(|(at, _)| now.since(*at));
        let told = self.told.get(node).map(|(at, ages)| ages.iter().map(|age| *age + now.since(*at)));
        [granted.collect(), told.into_iter().flatten().collect()]
    }

    /// They are asked no more: nothing is known of them until they are asked again, neither that they are well nor that they are not.
    pub fn forget(&mut self, nodes: &[String]) {
        for node in nodes {
            self.well.remove(node);
            self.dead.remove(node);
            self.mute.remove(node);
            self.storm.forget(node);
        }
    }

    /// A look at a mute node takes as long as it is given to answer.
    fn mute_within(&self) -> Duration {
        self.policy.fresh_within() * 2
    }

    /// Mute without a break for as long as an agent takes to call its own node hung: a slow one still serves.
    fn is_mute(&self, now: Moment, node: &str) -> bool {
        let seen = self.mute.get(node).filter(|(_, last)| now.since(*last) <= self.mute_within());
        seen.is_some_and(|(first, _)| now.since(*first) >= self.policy.deadlock.hung_after)
    }

    /// Whether the node's own agent says, freshly, that no process of it runs.
    pub fn is_dead(&self, now: Moment, node: &str) -> bool {
        self.dead.get(node).is_some_and(|seen| now.since(*seen) <= self.policy.fresh_within())
    }

    /// Judges a wish, and counts it when it is admitted.
    pub fn request(&mut self, now: Moment, book: &SlotBook, ask: &SlotAsk) -> Result<Vec<GuardResult>, GuardResult> {
        let view = self.view(now, book, &ask.target);
        let guards = admit(&view, ask)?;
        if self.taken.len() >= MAX_TAKEN {
            self.taken.pop_front();
        }
        self.taken.push_back((now, ask.target.clone()));
        if ask.action.moves_leader() {
            self.leader_moves = Some(now + LEADER_MOVES);
        }
        Ok(guards)
    }

    /// The cluster as it is seen now, for a step on `target`.
    pub fn view(&mut self, now: Moment, book: &SlotBook, target: &str) -> View {
        self.storm.judge(now);
        let fresh_within = self.policy.fresh_within();
        let well =
            |node: &str| self.well.get(node).is_some_and(|(well, seen)| *well && now.since(*seen) <= fresh_within);
        let nodes = self.members.iter().filter(|member| member.state != "out").map(|member| NodeView {
            node: member.node.clone(),
            voter: member.role != "learner",
            well: well(&member.node),
            mute: self.is_mute(now, &member.node),
        });
        let within = |window: Duration, node: &str| {
            let window = self.policy.scaled(window);
            let most =
                self.steps_on(now, node).iter().map(|ages| ages.iter().filter(|age| **age <= window).count()).max();
            u32::try_from(most.unwrap_or(0)).unwrap_or(u32::MAX)
        };
        let known: BTreeSet<&str> =
            self.taken.iter().map(|(_, node)| node.as_str()).chain(self.told.keys().map(String::as_str)).collect();
        let budget = &self.policy.budget;
        View {
            nodes: nodes.collect(),
            open_targets: book.down(),
            busy: book.blocking(),
            storm: self.storm.state(now),
            grace_left: grace_left(now, self.policy.scaled(self.policy.grace), self.began, self.leader_changed),
            map_age: self.map_seen.map(|seen| now.since(seen)),
            fresh_within,
            missing_shards: self.missing_shards,
            others_down: self.policy.disk.others_down,
            target_day: (within(DAY, target), budget.disruptive_per_target_day),
            cluster_hour: (known.iter().map(|node| within(HOUR, node)).sum(), budget.disruptive_per_cluster_hour),
            flapping: (self.flaps(now, target), budget.flapping),
            leaderless: (now.since(self.led), self.policy.deadlock.leaderless_after),
        }
    }

    fn see(&mut self, now: Moment, node: &str, well: bool) {
        self.well.insert(node.to_owned(), (well, now));
        self.storm.observe(now, node, !well);
    }

    /// The most slots for the target in any ten minutes that ended within the last hour: flapping is held for an hour.
    fn flaps(&self, now: Moment, target: &str) -> u32 {
        let (hour, ten) = (self.policy.scaled(HOUR), self.policy.scaled(TEN_MINUTES));
        let most = self.steps_on(now, target).into_iter().filter_map(|ages| {
            let in_window = |end: &Duration| ages.iter().filter(|age| *age >= end && **age - *end <= ten).count();
            // The hour begins with the slot by which it is known.
            ages.iter().filter(|end| **end <= hour).map(in_window).max()
        });
        u32::try_from(most.max().unwrap_or(0)).unwrap_or(u32::MAX)
    }
}

/// How much of the grace is left after the agent's start and the last leader change.
pub(crate) fn grace_left(now: Moment, grace: Duration, began: Moment, leader_changed: Option<Moment>) -> Duration {
    let last = leader_changed.map_or(began, |changed| changed.max(began));
    grace.saturating_sub(now.since(last))
}

#[cfg(test)]
mod tests;
