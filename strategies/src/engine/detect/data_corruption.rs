//! `data_corruption`: a shard's checksum did not hold, wherever it was read. Many findings of one object are one
//! incident.
//!
//! Never: reads a finding twice; loses one because there was no room (it is read again with the next heartbeat).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{FindingFact, NodeFact, Subject};
use crate::config::PolicyConfig;
use crate::engine::detect::Symptom;
use crate::types::{Mode, Moment};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Disks counted, and corrupt shards remembered per disk.
const MAX_DISKS: usize = 256;
const MAX_PER_DISK: usize = 256;

/// What is remembered of a node's findings.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Watch {
    /// The process whose findings are counted, and the last one read.
    read: (u32, u64),
    /// When corrupt shards were found, by disk.
    by_disk: BTreeMap<String, VecDeque<Moment>>,
    told: BTreeMap<String, Moment>,
}

/// What a heartbeat's findings mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) symptoms: Vec<Symptom>,
    /// Disks with more corruption in a day than rot explains: (disk, evidence).
    pub(crate) many: Vec<(String, String)>,
    /// Findings that name no object: for the record only.
    pub(crate) nameless: Vec<String>,
}

impl Watch {
    /// Reads what is new. `room`: how many incidents may still be opened; what does not fit is read again later.
    pub(crate) fn observe(&mut self, now: Moment, fact: &NodeFact, room: usize, policy: &PolicyConfig) -> Found {
        if self.read.0 != fact.pid {
            self.read = (fact.pid, 0);
        }
        let mut new: Vec<&FindingFact> =
            fact.findings.iter().filter(|finding| finding.sequence > self.read.1).collect();
        new.sort_by_key(|finding| finding.sequence);
        let mut found = Found::default();
        for finding in new {
            if found.symptoms.len() >= room {
                break;
            }
            self.read.1 = finding.sequence;
            if finding.kind != "corrupt_shard" {
                continue;
            }
            if let Some(many) = self.count(now, &finding.disk, policy) {
                found.many.push((finding.disk.clone(), many));
            }
            if finding.key.is_empty() {
                found.nameless.push(format!("{} on disk {}: {}", finding.found_by, finding.disk, finding.detail));
                continue;
            }
            found.symptoms.push(symptom(finding));
        }
        found
    }

    fn count(&mut self, now: Moment, disk: &str, policy: &PolicyConfig) -> Option<String> {
        if self.by_disk.len() >= MAX_DISKS && !self.by_disk.contains_key(disk) {
            return None;
        }
        let day = policy.scaled(DAY);
        let times = self.by_disk.entry(disk.to_owned()).or_default();
        times.push_back(now);
        while times.len() > MAX_PER_DISK || times.front().is_some_and(|first| now.since(*first) > day) {
            times.pop_front();
        }
        let limit = policy.corruption.many_in_a_day as usize;
        let told = self.told.get(disk).is_some_and(|told| now.since(*told) <= day);
        if times.len() <= limit || told {
            return None;
        }
        self.told.insert(disk.to_owned(), now);
        Some(format!("{} corrupt shards in a day, limit {limit}: the disk itself may be dying", times.len()))
    }
}

fn symptom(finding: &FindingFact) -> Symptom {
    let FindingFact { disk, bucket, key, found_by, detail, repaired, .. } = finding;
    let mended = if *repaired { "; the node says it has repaired it" } else { "" };
    Symptom {
        mode: Mode::DataCorruption,
        subject: Subject::Object { bucket: bucket.clone(), key: key.clone() },
        detected_by: found_by.clone(),
        evidence: format!("shard of {bucket}/{key} on disk {disk} is corrupt ({detail}), found by {found_by}{mended}"),
        initial: false,
        life: None,
        signature: None,
        mended: *repaired,
    }
}
