//! The guards, as pure functions: each answers with the numbers it judged by.
//!
//! Owns: whether a step may begin on this host. Must never: pass because a fact is missing. What needs the whole
//! cluster's picture is judged again by the holder of the lease (`coordinator.rs`), and the fence at the place of
//! effect.

use std::time::Duration;

use crate::api::{NodeFact, Subject};
use crate::config::PolicyConfig;
use crate::coordinator::grace_left;
use crate::engine::detect::{Watches, disk_degrading, disk_failure};
use crate::engine::facts::Facts;
use crate::engine::incidents::Incident;
use crate::engine::ladder::{LEFT, Rung};
use crate::engine::ledger::Ledger;
use crate::engine::lines::Heard;
use crate::engine::pause::Pause;
use crate::engine::peers::Peers;
use crate::engine::present::is_watched;
use crate::lease::majority;
use crate::liveness::{Liveness, Verdict};
use crate::record::GuardResult;
use crate::storm::StormBrake;
use crate::types::{Action, Authority, Fence, Grade, GuardName, Mode, Moment};

/// Room that a reconstruction needs: the new shard of one extent beside the bad one, with room to spare.
const RECONSTRUCTION_BYTES: u64 = 64 << 20;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the guards look at.
pub(crate) struct Look<'a> {
    pub(crate) now: Moment,
    pub(crate) node: &'a str,
    pub(crate) policy: &'a PolicyConfig,
    pub(crate) facts: &'a Facts,
    pub(crate) disks: &'a disk_failure::Watch,
    pub(crate) degrading: &'a disk_degrading::Watch,
    pub(crate) peers: &'a Peers,
    pub(crate) watches: &'a Watches,
    pub(crate) heard: &'a Heard,
    pub(crate) pause: Option<&'a Pause>,
    pub(crate) ledger: &'a Ledger,
    pub(crate) storm: &'a StormBrake,
    pub(crate) liveness: &'a Liveness,
    /// The lease's fence, if this agent holds it.
    pub(crate) lease: Option<&'a Fence>,
    pub(crate) began: Moment,
    /// For how long the cluster is known.
    pub(crate) age: Duration,
    /// Who approved this step.
    pub(crate) approved_by: Option<&'a str>,
    pub(crate) incident: &'a Incident,
    pub(crate) rung: &'a Rung,
    /// A disruptive step of this host that is under way, in words.
    pub(crate) under_way: Option<String>,
    /// The slot's fence, once there is one.
    pub(crate) fence: Option<&'a Fence>,
}

/// All guards of a step, in its order.
pub(crate) fn judge(look: &Look<'_>) -> Vec<GuardResult> {
    let mut judged: Vec<GuardResult> = look.rung.guards.iter().map(|guard| one(look, *guard)).collect();
    // From the minority side nothing is repaired, whatever the mode: what it takes for lost the others have.
    let (minority, told) = look.watches.partition.minority(look.policy);
    if look.rung.grade == Grade::REPAIR && minority {
        let evidence = format!("this host is on the minority side: {told}");
        judged.insert(0, GuardResult { guard: GuardName::QuorumKept, passed: false, evidence });
    }
    judged
}

fn one(look: &Look<'_>, guard: GuardName) -> GuardResult {
    let (passed, evidence) = match guard {
        GuardName::Pause => pause(look),
        GuardName::Fresh => fresh(look),
        GuardName::Corroborated => with_line(look, corroborated(look)),
        GuardName::Budget => budget(look),
        GuardName::Pressure => pressure(look),
        GuardName::MoveAside => move_aside(look),
        GuardName::IntentFirst => (true, "the intention is written and synced before the step".to_owned()),
        GuardName::OneAtATime => one_at_a_time(look),
        GuardName::QuorumKept => quorum_kept(look),
        GuardName::StormBrake => storm_brake(look),
        GuardName::Backoff => (true, "no wait is left".to_owned()),
        GuardName::Grace => grace(look),
        GuardName::DeliberateStop => deliberate_stop(look),
        GuardName::CrashSignature => crash_signature(look),
        GuardName::Authority => authority(look),
    };
    GuardResult { guard, passed, evidence }
}

fn pause(look: &Look<'_>) -> (bool, String) {
    look.pause.map_or_else(|| (true, "not paused".to_owned()), |pause| (false, pause.evidence(look.now)))
}

/// Only the restart of a live process has to ask: that a dead one was stopped on purpose is read before an incident is opened.
fn deliberate_stop(look: &Look<'_>) -> (bool, String) {
    let stopped = match look.rung.action {
        Action::StartNode => None,
        _ => look.watches.deadlock.stopped(look.now, &look.policy.deadlock),
    };
    stopped.map_or_else(|| (true, "nobody stopped it on purpose".to_owned()), |why| (false, why))
}

fn fresh(look: &Look<'_>) -> (bool, String) {
    let limit = look.policy.fresh_within();
    // A hung node's evidence is that it was asked just now, and did not answer.
    if look.incident.mode == Mode::Deadlock && look.watches.deadlock.is_hung(&look.policy.deadlock) {
        let age = look.facts.asked_at().map(|at| look.now.since(at)).unwrap_or_default();
        return (age <= limit, format!("asked in vain {} ms ago, limit {} ms", age.as_millis(), limit.as_millis()));
    }
    match look.facts.heartbeat_age(look.now) {
        Some(age) => (age <= limit, format!("heartbeat is {} ms old, limit {} ms", age.as_millis(), limit.as_millis())),
        None => (false, "no heartbeat yet".to_owned()),
    }
}

/// A disk cannot answer for itself: its node's canary is asked twice, and the last answer must be a young one. A
/// shard's checksum speaks for itself: it was computed from the bytes that were read.
fn corroborated(look: &Look<'_>) -> (bool, String) {
    if is_watched(look.incident.mode) {
        return corroborated_by_watch(look);
    }
    if let Subject::Hosts(hosts) = &look.incident.subject {
        return convicted(look, hosts);
    }
    if look.incident.mode == Mode::ProcessCrash {
        return (look.incident.unproven, "the process runs, and the proof that it serves did not hold".to_owned());
    }
    let Subject::Disk { disk, .. } = &look.incident.subject else {
        return (true, format!("the checksum was computed from the bytes read ({})", look.incident.detected_by));
    };
    let out = look.facts.disk(disk).is_some_and(|fact| matches!(fact.state.as_str(), "down" | "out"));
    if out {
        return (true, "the cluster map has the disk out of service".to_owned());
    }
    if look.incident.mode == Mode::DataCorruption {
        return (true, format!("each checksum was computed from the bytes read ({})", look.incident.evidence));
    }
    if let Some(why) = look.disks.rotten(disk) {
        return (true, format!("each checksum was computed from the bytes read: {why}"));
    }
    if look.incident.mode == Mode::DiskDegrading {
        return two_kinds_of_evidence(look, disk);
    }
    let (bad, need) = (look.disks.bad(disk), look.policy.detection.disk_confirmations);
    (bad >= need, format!("called bad by {bad} canaries in a row, {need} needed"))
}

/// What was judged, and what a log says to it. That is for people: of the modes whose guard a line can pass, `deadlock` counts it
/// among its sources by itself.
fn with_line(look: &Look<'_>, (passed, evidence): (bool, String)) -> (bool, String) {
    match look.heard.told(look.now, look.incident.mode) {
        Some(line) => (passed, format!("{evidence}; {line}")),
        None => (passed, evidence),
    }
}

/// What a node says of itself needs no second source, and what is counted over all members has more than two.
fn corroborated_by_watch(look: &Look<'_>) -> (bool, String) {
    let (watches, policy) = (look.watches, look.policy);
    match look.incident.mode {
        Mode::Deadlock => watches.deadlock.corroborated(look.now, look.peers, policy),
        Mode::DatabaseCorruption | Mode::LogCorruption => {
            let (said, need) = (watches.damage.said(), policy.damage.confirmations);
            (said >= need, format!("the node says so itself, {said} times in a row, {need} needed"))
        }
        Mode::SlowFollower => match watches.lag.common_cause(&look.policy.lag) {
            Some(why) => (false, why),
            None => (true, "the own node's word and the other hosts', and those are not slow".to_owned()),
        },
        Mode::SplitBrain => (true, "two nodes' own words, each with a quorum behind it".to_owned()),
        Mode::TermDivergence => (true, "the own node's term and the other voters', each from its own agent".to_owned()),
        Mode::StateDivergence => (true, "a majority of at least three members, compared as of two entries".to_owned()),
        _ => (true, "the kernel's own figures".to_owned()),
    }
}

/// A disk's own counters are one source, what the node failed to read there is the other. Once it is being emptied, that
/// was judged: going on takes nothing away.
fn two_kinds_of_evidence(look: &Look<'_>, disk: &str) -> (bool, String) {
    let left = look.facts.disk(disk).is_some_and(|fact| LEFT.contains(&fact.state.as_str()));
    match left {
        true => (true, "its shards leave the disk already".to_owned()),
        false => look.degrading.agree(look.now, disk, &look.policy.smart),
    }
}

/// Every host that is not heard is convicted, by evidence as fresh as this very moment.
fn convicted(look: &Look<'_>, hosts: &[String]) -> (bool, String) {
    let judged = hosts.iter().map(|host| (host, look.liveness.judge(look.now, host)));
    let silent: Vec<_> = judged.filter(|(_, judgement)| judgement.verdict != Verdict::Heard).collect();
    let evidence: Vec<String> = silent.iter().map(|(host, judgement)| format!("{host}: {judgement}")).collect();
    let all = !silent.is_empty() && silent.iter().all(|(_, judgement)| judgement.verdict == Verdict::Convicted);
    (all, evidence.join("; "))
}

fn budget(look: &Look<'_>) -> (bool, String) {
    let (action, subject) = (look.rung.action, &look.incident.subject);
    let window = look.policy.scaled(look.policy.budget.window);
    let used = look.ledger.attempts(look.now, window, action, subject);
    let limit = match action {
        Action::StartNode => look.policy.recovery.max_restart_attempts,
        _ => look.policy.budget.attempts,
    };
    let evidence = format!("{used} of {limit} attempts used in {} s", window.as_secs());
    if !look.rung.disruptive || used >= limit {
        return (used < limit, evidence);
    }
    let (day, most) = (look.policy.scaled(DAY), look.policy.budget.disruptive_per_target_day);
    let disruptive = look.ledger.disruptive(look.now, day);
    (disruptive < most, format!("{evidence}, {disruptive} of {most} disruptive steps on this node in a day"))
}

fn pressure(look: &Look<'_>) -> (bool, String) {
    let (limit, limit_percent) = (look.policy.pressure_operations, look.policy.pressure_percent);
    let Some(fact) = look.facts.node() else { return (false, "no heartbeat yet".to_owned()) };
    let (busy, percent, missing) = (fact.operations_in_flight, fact.foreground_percent, fact.missing_shards);
    // Shards without a home, or a shard that is corrupt beside them: that redundancy may be the last spare.
    let last_spare = missing > 0;
    let evidence = format!(
        "{busy} client operations in flight, limit {limit}; {percent}% of the busiest disk's time, limit {limit_percent}%; {missing} \
         shards without a home"
    );
    ((busy < limit && percent <= limit_percent) || last_spare, evidence)
}

fn move_aside(look: &Look<'_>) -> (bool, String) {
    if !look.policy.recovery.backup_before_recovery {
        return (true, "recovery.backup_before_recovery is false; the node keeps the bad file all the same".to_owned());
    }
    let Some(fact) = look.facts.node() else { return (false, "no heartbeat yet".to_owned()) };
    let known = fact.disks.iter().filter(|disk| disk.total_bytes > 0 || disk.available_bytes > 0);
    let Some(most) = known.map(|disk| disk.available_bytes).max() else {
        return (true, "the bad file is renamed and kept; room is not reported by this node".to_owned());
    };
    let evidence = format!("{most} bytes of room on the emptiest disk, {RECONSTRUCTION_BYTES} needed for the new copy");
    (most >= RECONSTRUCTION_BYTES, evidence)
}

fn one_at_a_time(look: &Look<'_>) -> (bool, String) {
    if look.incident.mode == Mode::HostDown {
        let held = |fence| (true, format!("this agent holds the lease, fence {fence}"));
        return look.lease.map_or_else(|| (false, "the lease is not held here".to_owned()), held);
    }
    match (&look.under_way, look.fence) {
        (Some(other), _) => (false, format!("{other} is under way on this host")),
        (None, Some(fence)) => (true, format!("slot open under fence {fence}")),
        (None, None) => (true, "nothing disruptive is under way here; the lease's holder is asked".to_owned()),
    }
}

/// A disk that holds nothing readable can be detached at any time. One that still answers may hold the copy somebody
/// else lost: not while another node is ill or a shard has no home.
fn quorum_kept(look: &Look<'_>) -> (bool, String) {
    let of_node = is_watched(look.incident.mode) || look.incident.mode == Mode::ProcessCrash;
    if of_node && look.rung.action != Action::EvacuateDisk {
        return voters_kept(look);
    }
    let disk = match &look.incident.subject {
        Subject::Disk { disk, .. } => look.facts.disk(disk),
        _ => look.watches.resources.fullest().and_then(|disk| look.facts.disk(disk)),
    };
    let Some(disk) = disk else { return (false, "the disk is not in the last heartbeat".to_owned()) };
    if disk_failure::unreadable(&disk.health) {
        return (true, format!("the disk is {}: no valid copy is taken away, and the process stays", disk.health));
    }
    let ill: Vec<String> = look.storm.ill().into_iter().filter(|node| node != look.node).collect();
    let missing = look.facts.node().map_or(u64::MAX, |fact| fact.missing_shards);
    let kept = ill.len() <= look.policy.disk.others_down as usize && missing == 0;
    (
        kept,
        format!(
            "the disk is {} and may still be read; other nodes ill: {ill:?}, shards without a home: {missing}",
            disk.health
        ),
    )
}

/// Whether the voters stay enough while the own node is away, or after it has given something up. Judged again by the lease's holder.
fn voters_kept(look: &Look<'_>) -> (bool, String) {
    if let Some(told) = hung_without_leader(look) {
        return (true, format!("{told}: a node that answers nobody takes no vote away"));
    }
    let Some(fact) = look.facts.node() else { return (false, "no heartbeat yet".to_owned()) };
    let voters: Vec<&str> = fact
        .members
        .iter()
        .filter(|member| member.role == "voter" && member.state != "out")
        .map(|member| member.node.as_str())
        .collect();
    // A lost voter has opened nothing that would name them. Its vote is gone already, the lease's holder counts the others' before it
    // gives a slot, and without a quorum of them nobody takes the node back.
    if voters.is_empty() && fact.phase == "lost_voter" && look.rung.action == Action::RejoinLearner {
        return (
            true,
            "the node takes no part: its vote is gone, and the lease's holder counts the others'".to_owned(),
        );
    }
    if voters.is_empty() {
        return (false, "the voters are not known".to_owned());
    }
    let ill = look.storm.ill();
    let within = look.policy.detection.suspect_after;
    let well = |voter: &&&str| !ill.iter().any(|ill| ill == **voter) && look.peers.is_alive(look.now, within, voter);
    let others = voters.iter().filter(|voter| **voter != look.node).filter(well).count();
    // Leadership that moves, or a term that is aligned, takes no vote away.
    let stays = matches!(look.rung.action, Action::StepDown | Action::AlignTerm) && voters.contains(&look.node);
    let (healthy, need) = (others + usize::from(stays), majority(voters.len()));
    let votes = format!("{healthy} of {} voters healthy during the step, {need} needed", voters.len());
    if look.rung.action != Action::RestartNode {
        return (healthy >= need, votes);
    }
    let ill: Vec<String> = ill.into_iter().filter(|node| node != look.node).collect();
    // A shard without a home may wait for this very node, which serves none while it hangs.
    let hung = look.watches.deadlock.is_hung(&look.policy.deadlock);
    let kept = ill.len() <= look.policy.disk.others_down as usize && (fact.missing_shards == 0 || hung);
    let missing = match hung {
        true => format!("{} (this node hangs: its own it does not serve already)", fact.missing_shards),
        false => fact.missing_shards.to_string(),
    };
    (healthy >= need && kept, format!("{votes}; other nodes ill: {ill:?}, shards without a home: {missing}"))
}

/// The one case in which the storm brake, the quorum and the grace hold no restart back: nobody leads, and this node, which could
/// vote, hangs. What is taken away is nothing. Whether it could, its last word says; of one that has said nothing yet the lease's
/// holder knows.
fn hung_without_leader(look: &Look<'_>) -> Option<String> {
    let policy = &look.policy.deadlock;
    let (hung, without) = (look.watches.deadlock.is_hung(policy), look.watches.voters.leaderless());
    let votes = |fact: &NodeFact| {
        fact.members.iter().any(|member| member.node == look.node && member.role == "voter" && member.state != "out")
    };
    let may_vote = look.facts.node().is_none_or(votes);
    let applies = look.rung.action == Action::RestartNode && hung && may_vote && without >= policy.leaderless_after;
    applies.then(|| format!("hung, and no leader named by anybody for {} s", without.as_secs()))
}

/// Hosts of another failure domain that fell silent together with this incident's. The brake's own window is over long
/// before a host is given up; what they have in common may not be.
fn common_cause(look: &Look<'_>, hosts: &[String]) -> Option<String> {
    let settled = |host: &str| look.facts.member(host).is_none_or(|member| member.state == "out");
    let (ours, others): (Vec<_>, Vec<_>) =
        look.liveness.silent(look.now).partition(|(host, _)| hosts.iter().any(|known| known == host));
    let domains: Vec<String> = hosts.iter().map(|host| look.liveness.domain(host)).collect();
    // Of detection, not of policy: no factor moves hosts' ends apart.
    let window = look.policy.storm.window;
    let together = |at: &Moment| ours.iter().any(|(_, ours)| at.since(*ours).max(ours.since(*at)) <= window);
    let with: Vec<String> = others
        .iter()
        .filter(|(host, at)| !settled(host) && !domains.contains(&look.liveness.domain(host)) && together(at))
        .map(|(host, _)| format!("{host} ({})", look.liveness.domain(host)))
        .collect();
    (!with.is_empty()).then(|| {
        let seconds = window.as_secs();
        format!("{} fell silent within {seconds} s of it: a common cause, a person decides", with.join(", "))
    })
}

fn storm_brake(look: &Look<'_>) -> (bool, String) {
    if let Some(told) = hung_without_leader(look) {
        return (true, told);
    }
    if let Subject::Hosts(hosts) = &look.incident.subject
        && let Some(why) = common_cause(look, hosts)
    {
        return (false, why);
    }
    let (frozen, evidence) = look.storm.state(look.now);
    (!frozen, evidence)
}

fn grace(look: &Look<'_>) -> (bool, String) {
    let grace = look.policy.scaled(look.policy.grace);
    let left = grace_left(look.now, grace, look.began, look.facts.leader_changed);
    (left.is_zero(), format!("{} ms left of {} ms after start or leader change", left.as_millis(), grace.as_millis()))
}

fn crash_signature(look: &Look<'_>) -> (bool, String) {
    let Some(signature) = &look.incident.signature else {
        return (true, "no signature: killed from outside, or nobody saw how".to_owned());
    };
    let starts = look.ledger.starts_after(look.now, signature);
    let most = look.policy.budget.same_crash;
    (starts < most, format!("started {starts} times after \"{signature}\", at most {most}"))
}

/// What an operator allows for a step; some steps are a person's whatever is allowed.
pub(crate) fn authority_for(
    policy: &PolicyConfig,
    mode: Mode,
    rung: &Rung,
    age: Duration,
) -> (Authority, &'static str) {
    match policy.authority_at(mode, rung.grade, rung.disruptive, age) {
        (authority, _) if rung.approval && authority > Authority::Approve => {
            (Authority::Approve, "this step is never automatic")
        }
        found => found,
    }
}

fn authority(look: &Look<'_>) -> (bool, String) {
    let rung = look.rung;
    let (authority, why) = authority_for(look.policy, look.incident.mode, rung, look.age);
    let grade = rung.grade;
    if authority == Authority::Approve
        && let Some(by) = look.approved_by
    {
        return (true, format!("approved by {by} for this step of grade {}", grade.0));
    }
    let text = match authority {
        Authority::Auto => format!("automatic for grade {} ({why})", grade.0),
        Authority::Approve => format!("grade {} needs a person's approval ({why}): would have: {}", grade.0, rung.does),
        Authority::Shadow => format!("shadow for grade {} ({why}): would have: {}", grade.0, rung.does),
        Authority::Observe => format!("only observes at grade {} ({why})", grade.0),
    };
    (authority == Authority::Auto, text)
}
