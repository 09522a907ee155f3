//! `disk_failure`: the node's own canary (write, sync, read) calls a disk gone, failing or foreign, and does so again.
//!
//! Never: convicts on one reading; convicts on `suspect`, which is a slow canary.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::{NodeFact, Subject};
use crate::config::PolicyConfig;
use crate::engine::detect::Symptom;
use crate::types::{Mode, Moment};

/// Disks watched; a node has fewer.
const MAX_DISKS: usize = 256;

/// How often in a row a disk was called bad, or well.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Streak {
    bad: u32,
    well: u32,
    since: Moment,
}

/// Watches the disks over heartbeats.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Watch {
    disks: BTreeMap<String, Streak>,
    /// Disks that answer, and rot all over: why each was given up.
    rotten: BTreeMap<String, String>,
}

/// Whether this health is a failure.
pub(crate) fn failed(health: &str) -> bool {
    matches!(health, "gone" | "error" | "foreign")
}

/// Whether nothing on such a disk can be read.
pub(crate) fn unreadable(health: &str) -> bool {
    matches!(health, "gone" | "foreign")
}

impl Watch {
    /// Takes one heartbeat; tells which disks are convicted by it.
    pub(crate) fn observe(&mut self, now: Moment, node: &str, fact: &NodeFact, policy: &PolicyConfig) -> Vec<Symptom> {
        let there = |disk: &String| fact.disks.iter().any(|fact| fact.disk == *disk);
        self.disks.retain(|disk, _| there(disk));
        self.rotten.retain(|disk, _| fact.disks.is_empty() || there(disk));
        let mut symptoms = Vec::new();
        for disk in fact.disks.iter().take(MAX_DISKS) {
            let streak = self.disks.entry(disk.disk.clone()).or_default();
            if disk.state == "out" {
                self.rotten.remove(&disk.disk);
            }
            let in_service = matches!(disk.state.as_str(), "up" | "read_only" | "draining");
            if let Some(why) = self.rotten.get(&disk.disk).filter(|_| in_service) {
                let subject = Subject::Disk { disk: disk.disk.clone(), node: node.to_owned() };
                symptoms.push(Symptom::of(Mode::DiskFailure, subject, "corrupt shards, counted", why.clone()));
            }
            if !failed(&disk.health) {
                // A suspect disk is neither: it breaks both streaks.
                let well = if disk.health == "ok" { streak.well.saturating_add(1) } else { 0 };
                *streak = Streak { bad: 0, well, since: now };
                continue;
            }
            if streak.bad == 0 {
                streak.since = now;
            }
            streak.bad = streak.bad.saturating_add(1);
            streak.well = 0;
            if !in_service || !convicted(streak, now, policy) {
                continue;
            }
            let (health, path, reason, times) = (&disk.health, &disk.path, &disk.reason, streak.bad);
            let for_s = now.since(streak.since).as_secs_f64();
            symptoms.push(Symptom {
                mode: Mode::DiskFailure,
                subject: Subject::Disk { disk: disk.disk.clone(), node: node.to_owned() },
                detected_by: "disk canary".to_owned(),
                evidence: format!("{path} is {health} ({reason}) in {times} heartbeats over {for_s:.1} s"),
                initial: false,
                life: None,
                signature: None,
                mended: false,
            });
        }
        symptoms
    }

    /// It answers, and what it holds rots: it has failed all the same.
    pub(crate) fn condemn(&mut self, disk: &str, why: String) {
        if self.rotten.len() < MAX_DISKS {
            self.rotten.insert(disk.to_owned(), why);
        }
    }

    /// Why it was given up although it answers.
    pub(crate) fn rotten(&self, disk: &str) -> Option<&str> {
        self.rotten.get(disk).map(String::as_str)
    }

    /// How often in a row the disk was called bad.
    pub(crate) fn bad(&self, disk: &str) -> u32 {
        self.disks.get(disk).map_or(0, |streak| streak.bad)
    }

    /// Whether the disk was well as often in a row as it takes to convict it.
    pub(crate) fn well(&self, disk: &str, policy: &PolicyConfig) -> bool {
        self.disks.get(disk).is_some_and(|streak| streak.well >= policy.detection.disk_confirmations)
    }
}

/// Called bad in enough heartbeats, and over as many intervals: each canary had time to be another one.
fn convicted(streak: &Streak, now: Moment, policy: &PolicyConfig) -> bool {
    let apart = policy.detection.heartbeat * policy.detection.disk_confirmations;
    // A heartbeat comes a little early now and then: nine tenths of the time will do.
    streak.bad >= policy.detection.disk_confirmations && now.since(streak.since) >= apart.mul_f64(0.9)
}
