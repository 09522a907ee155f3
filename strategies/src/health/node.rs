//! A node's score: what its agent knows of it, component by component.

use super::config::{NodeWeights, points};
use super::input::{Announced, Condition, DiskInput, Latency, NodeInput, Presence, Rebuild, Service, Usage};
use super::verdict::{Verdict, log_ramp, percent, ramp, worst_and_mean};
use super::{Ceiling, Component, Score};

/// A node that runs and does not answer is worth at most this: clients fare no better with it than its agent.
const SILENT_AT_MOST: u8 = 20;
/// A node that answers and does not serve (it starts, recovers, waits) is worth at most this.
const NOT_SERVING_AT_MOST: u8 = 40;
/// A node of which nothing was seen yet is worth at most this: no more than one that is known not to serve.
const UNKNOWN_AT_MOST: u8 = 40;

/// What any shard that waits to be rebuilt costs of the redundancy, however few.
const REBUILD_COSTS: f64 = 0.2;
/// The share of its shards that a node has to rebuild at which all of its redundancy is lost: a disk of ten.
const REBUILD_WORST: f64 = 0.1;
/// What no room to take in a lost disk's shards costs of the redundancy: other nodes have room, too.
const NO_SPARE_COSTS: f64 = 0.3;

/// A disk that the canary suspects: it may be slow on a busy machine.
const SUSPECT_COSTS: f64 = 0.6;
/// A disk that takes no new shards.
const READ_ONLY_COSTS: f64 = 0.5;
/// A disk of whose health or place nothing is known.
const UNKNOWN_DISK_COSTS: f64 = 0.5;

/// A disk whose counters show its first losses: it may go on for years, and is likelier to die than the others.
const DEGRADING_COSTS: f64 = 0.3;
/// A disk whose counters say that it fails: as one that the canary suspects.
const FAILING_COSTS: f64 = 0.6;

/// The share of unanswered questions at which all of the component is lost: every fifth. The first costs a twelfth of it.
const FAILED_WORST: f64 = 0.2;
/// What the first failed disk operation of the last hour costs of the component.
const DISK_ERROR_COSTS: f64 = 0.3;
/// Failed disk operations of the last hour at which all of it is lost: far beyond one bad sector.
const DISK_ERRORS_WORST: f64 = 20.0;

/// An answer that takes twice its baseline is still the ordinary spread of a busy machine.
const SLOWER_FINE: f64 = 2.0;
/// Ten times the baseline is another machine than it was.
const SLOWER_WORST: f64 = 10.0;

/// This share of the room free is plenty: a fifth.
const ROOM_FINE: f64 = 0.20;
/// This share free is as good as full: file systems slow down, and the nodes' reserve begins.
const ROOM_WORST: f64 = 0.05;
/// A single full disk costs this of the headroom while the node's others have room: placement goes around it.
const ONE_DISK_COSTS: f64 = 0.5;
/// Use of memory and descriptors that is still plenty of headroom, and use that is as good as none.
const USAGE_FINE: f64 = 0.75;
/// See [`USAGE_FINE`].
const USAGE_WORST: f64 = 0.95;

/// Entries behind that are ordinary under load: a second's worth.
const LAG_FINE: f64 = 1_000.0;
/// Entries behind at which a snapshot would be quicker.
const LAG_WORST: f64 = 100_000.0;
/// A member that has no vote, or cannot name a leader, costs this of the component.
const LEARNER_COSTS: f64 = 0.2;
/// See [`LEARNER_COSTS`].
const NO_LEADER_COSTS: f64 = 0.8;
/// A leader that was acknowledged by a quorum this lately leads.
const ACK_FINE_SECS: f64 = 1.0;
/// A leader that was not for so long leads nobody: elections begin.
const ACK_WORST_SECS: f64 = 3.0;

/// What judges one component.
type Judge = fn(&NodeInput) -> Verdict;

/// A node's score.
pub fn node(input: &NodeInput, weights: &NodeWeights) -> Score {
    let judges: [(Component, Judge); 6] = [
        (Component::Redundancy, redundancy),
        (Component::DiskHealth, disk_health),
        (Component::Errors, errors),
        (Component::Latency, latency),
        (Component::Headroom, headroom),
        (Component::Raft, raft),
    ];
    let weighed = judges.into_iter().zip(points(weights.all()));
    let reasons = weighed.map(|((component, judge), points)| judge(input).reason(component, points)).collect();
    Score::of(reasons, ceiling(&input.presence).into_iter().collect())
}

fn ceiling(presence: &Presence) -> Option<Ceiling> {
    let (at_most, why) = match presence {
        Presence::Serving => return None,
        Presence::NotServing(phase) => (NOT_SERVING_AT_MOST, format!("it does not serve, its phase is {phase}")),
        Presence::Unknown => (UNKNOWN_AT_MOST, "it is not known whether it runs".to_owned()),
        Presence::Silent(times) => (SILENT_AT_MOST, format!("it runs and left {times} questions unanswered")),
        Presence::Dead => (0, "its process does not run".to_owned()),
    };
    Some(Ceiling { at_most, why })
}

fn redundancy(input: &NodeInput) -> Verdict {
    let mut verdict = Verdict::default();
    match input.rebuild {
        None => verdict.unknown("shards that wait to be rebuilt"),
        Some(Rebuild { waiting: 0, held }) => verdict.found(0.0, format!("none of {held} shards waits to be rebuilt")),
        Some(Rebuild { waiting, held }) => {
            let share = waiting as f64 / (waiting as f64 + held as f64);
            let lost = REBUILD_COSTS + (1.0 - REBUILD_COSTS) * ramp(share, 0.0, REBUILD_WORST);
            verdict.found(lost, format!("{waiting} shards wait to be rebuilt, {held} are held"));
        }
    }
    // A node with one disk has no other to take its shards in: that is the cluster's to judge.
    if let (Some(_), Some(disks)) = (input.rebuild, input.disks.as_ref().filter(|disks| disks.len() > 1)) {
        let (lost, evidence) = spare(disks);
        verdict.found(lost * NO_SPARE_COSTS, evidence);
    }
    verdict
}

/// The share of a disk's shards that would find no room on the node's other disks, for the disk where it is largest.
fn spare(disks: &[DiskInput]) -> (f64, String) {
    let takes = |disk: &DiskInput| disk.condition == Some(Condition::Well) && disk.service == Some(Service::Full);
    let without_room = |(index, lost): (usize, &DiskInput)| {
        let others = disks.iter().enumerate().filter(|(other, disk)| *other != index && takes(disk));
        let room: u64 = others.map(|(_, disk)| disk.available_bytes).fold(0, u64::saturating_add);
        lost.used_bytes.saturating_sub(room) as f64 / lost.used_bytes.max(1) as f64
    };
    let share = disks.iter().enumerate().map(without_room).fold(0.0, f64::max);
    let evidence = match share > 0.0 {
        true => format!("if a disk is lost, {} of its shards find no room on the others", percent(share)),
        false => "each disk's shards would find room on the others".to_owned(),
    };
    (share, evidence)
}

fn disk_health(input: &NodeInput) -> Verdict {
    let mut verdict = Verdict::default();
    let Some(disks) = input.disks.as_ref().filter(|disks| !disks.is_empty()) else {
        verdict.unknown("its disks");
        return verdict;
    };
    let judged: Vec<(f64, String)> = disks.iter().map(one_disk).collect();
    let costs: Vec<f64> = judged.iter().map(|(cost, _)| *cost).collect();
    let bad: Vec<String> = disks
        .iter()
        .zip(&judged)
        .filter(|(_, (cost, _))| *cost > 0.0)
        .map(|(disk, (_, why))| format!("{} {why}", disk.name))
        .collect();
    let well = disks.len() - bad.len();
    verdict.found(worst_and_mean(&costs), format!("{well} of {} disks well", disks.len()));
    verdict.say(bad);
    if disks.iter().all(|disk| disk.announced.is_none()) {
        verdict.unmeasured("SMART");
    }
    verdict
}

fn one_disk(disk: &DiskInput) -> (f64, String) {
    let condition = match disk.condition {
        Some(Condition::Well) => (0.0, ""),
        Some(Condition::Suspect) => (SUSPECT_COSTS, "is suspect"),
        Some(Condition::Failed) => (1.0, "has failed"),
        None => (UNKNOWN_DISK_COSTS, "has not said how it is"),
    };
    let service = match disk.service {
        Some(Service::Full) => (0.0, ""),
        Some(Service::ReadOnly) => (READ_ONLY_COSTS, "takes no new shards"),
        Some(Service::None) => (1.0, "is out of service"),
        None => (UNKNOWN_DISK_COSTS, "has no known place in the cluster map"),
    };
    let (cost, why) = if condition.0 >= service.0 { condition } else { service };
    match &disk.announced {
        Some(Announced::Degrading(reason)) => {
            worse((cost, why), DEGRADING_COSTS, &format!("is degrading by SMART: {reason}"))
        }
        Some(Announced::Failing(reason)) => {
            worse((cost, why), FAILING_COSTS, &format!("is failing by SMART: {reason}"))
        }
        Some(Announced::Well) | None => (cost, why.to_owned()),
    }
}

/// The graver of the two costs, and both reasons.
fn worse((cost, why): (f64, &str), announced: f64, reason: &str) -> (f64, String) {
    let why = if why.is_empty() { reason.to_owned() } else { format!("{why}, and {reason}") };
    (cost.max(announced), why)
}

fn errors(input: &NodeInput) -> Verdict {
    let mut verdict = Verdict::default();
    match input.questions.filter(|rate| rate.asked > 0) {
        None => verdict.unknown("whether it answers"),
        Some(rate) => {
            let evidence = format!("{} of the last {} questions unanswered", rate.failed, rate.asked);
            verdict.found(ramp(rate.share(), 0.0, FAILED_WORST), evidence);
        }
    }
    let disks = input.disks.as_deref().unwrap_or_default();
    let known: Vec<u64> = disks.iter().filter_map(|disk| disk.recent_errors).collect();
    if known.len() < disks.len() || disks.is_empty() {
        verdict.unknown("failed operations of some disks");
    }
    let failed: u64 = known.iter().fold(0, |sum, errors| sum.saturating_add(*errors));
    let lost = match failed {
        0 => 0.0,
        _ => DISK_ERROR_COSTS + (1.0 - DISK_ERROR_COSTS) * ramp(failed as f64, 1.0, DISK_ERRORS_WORST),
    };
    if !known.is_empty() {
        verdict.found(lost, format!("{failed} disk operations failed within an hour"));
    }
    verdict
}

fn latency(input: &NodeInput) -> Verdict {
    let mut verdict = Verdict::default();
    for Latency { what, now, baseline, fine } in &input.latencies {
        let took = format!("{what}: {:.1} ms", now.as_secs_f64() * 1e3);
        match baseline {
            _ if now <= fine => verdict.found(0.0, took),
            None => verdict.unknown(&format!("{took}, which is long; its baseline")),
            Some(baseline) => {
                // A baseline below `fine` is as good as `fine`: from there on it counts.
                let times = now.as_secs_f64() / baseline.max(fine).as_secs_f64().max(f64::MIN_POSITIVE);
                let evidence = format!("{took}, {:.1} ms as a rule", baseline.as_secs_f64() * 1e3);
                verdict.found(log_ramp(times, SLOWER_FINE, SLOWER_WORST), evidence);
            }
        }
    }
    if input.latencies.is_empty() {
        verdict.unknown("how long it takes to answer");
    }
    verdict
}

/// Bytes of a disk's file system, as far as known; 0: not.
fn size(disk: &DiskInput) -> u64 {
    disk.total_bytes.max(disk.used_bytes.saturating_add(disk.available_bytes))
}

fn headroom(input: &NodeInput) -> Verdict {
    let mut verdict = Verdict::default();
    let disks = input.disks.as_deref().unwrap_or_default();
    let sized: Vec<&DiskInput> = disks.iter().filter(|disk| size(disk) > 0).collect();
    if sized.len() < disks.len() || disks.is_empty() {
        verdict.unknown("room on some disks");
    }
    if !sized.is_empty() {
        let sum = |of: fn(&DiskInput) -> u64| sized.iter().map(|disk| of(disk) as f64).sum::<f64>();
        let together = sum(|disk| disk.available_bytes) / sum(size);
        let fullest = sized.iter().map(|disk| disk.available_bytes as f64 / size(disk) as f64).fold(1.0, f64::min);
        let lost = ramp(together, ROOM_FINE, ROOM_WORST);
        let one = ONE_DISK_COSTS * ramp(fullest, ROOM_FINE, ROOM_WORST);
        let evidence = format!("{} of the room is free, {} on the fullest disk", percent(together), percent(fullest));
        verdict.found(lost.max(one), evidence);
    }
    for (what, usage) in [("memory", input.memory), ("descriptors", input.descriptors)] {
        match usage {
            None => verdict.unmeasured(what),
            Some(Usage { limit: 0, .. }) => verdict.found(0.0, format!("{what}: no limit")),
            Some(Usage { used, limit }) => {
                let share = used as f64 / limit as f64;
                verdict.found(ramp(share, USAGE_FINE, USAGE_WORST), format!("{what}: {} in use", percent(share)));
            }
        }
    }
    verdict
}

fn raft(input: &NodeInput) -> Verdict {
    let mut verdict = Verdict::default();
    let Some(raft) = &input.raft else {
        verdict.unknown("its part in the metadata");
        return verdict;
    };
    let role = match raft.role.as_str() {
        "leader" | "follower" => 0.0,
        "learner" => LEARNER_COSTS,
        "candidate" => NO_LEADER_COSTS,
        // Shut down, or a word that this agent does not know.
        _ => 1.0,
    };
    verdict.found(role, raft.role.clone());
    if !raft.leader_known {
        verdict.found(NO_LEADER_COSTS, "it knows no leader");
    }
    verdict.found(log_ramp(raft.behind as f64, LAG_FINE, LAG_WORST), format!("{} entries behind", raft.behind));
    if let Some(age) = raft.quorum_ack_age {
        let lost = ramp(age.as_secs_f64(), ACK_FINE_SECS, ACK_WORST_SECS);
        verdict.found(lost, format!("a quorum acknowledged it {} ms ago", age.as_millis()));
    }
    verdict
}
