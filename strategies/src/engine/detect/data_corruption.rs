//! `data_corruption`: a shard's checksum did not hold, wherever it was read. Many findings of one object are one
//! incident.
//!
//! Never: reads a finding twice; loses one because there was no room (it is read again with the next heartbeat).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
    /// When corrupt shards were found, by disk, and of which object (its name's hash).
    by_disk: BTreeMap<String, VecDeque<(Moment, u64)>>,
    told: BTreeMap<String, Told>,
}

/// A disk that was told of.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Told {
    at: Moment,
    /// When its deep scan began.
    scanned: Option<Moment>,
    condemned: bool,
}

/// What a heartbeat's findings mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) symptoms: Vec<Symptom>,
    /// Disks with more corruption in a day than rot explains: (disk, evidence).
    pub(crate) many: Vec<(String, String)>,
    /// Disks on which a deep scan found as much again: (disk, evidence).
    pub(crate) condemned: Vec<(String, String)>,
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
            // A scan of a disk takes the place of one, too.
            if found.symptoms.len() + found.many.len() + 1 >= room {
                break;
            }
            self.read.1 = finding.sequence;
            if finding.kind != "corrupt_shard" {
                continue;
            }
            match self.count(now, finding, policy) {
                Some(Count::Many(many)) => found.many.push((finding.disk.clone(), many)),
                Some(Count::Again(again)) => found.condemned.push((finding.disk.clone(), again)),
                None => {}
            }
            if finding.key.is_empty() {
                found.nameless.push(format!("{} on disk {}: {}", finding.found_by, finding.disk, finding.detail));
                continue;
            }
            found.symptoms.push(symptom(finding));
        }
        found
    }

    /// The deep scan of a disk began: what is found from now on, of objects that were well so far, counts against the disk.
    pub(crate) fn scanning(&mut self, now: Moment, disk: &str) {
        if let Some(told) = self.told.get_mut(disk) {
            told.scanned.get_or_insert(now);
        }
    }

    fn count(&mut self, now: Moment, finding: &FindingFact, policy: &PolicyConfig) -> Option<Count> {
        let disk = &finding.disk;
        if self.by_disk.len() >= MAX_DISKS && !self.by_disk.contains_key(disk) {
            return None;
        }
        // Of detection: rot does not come faster because policy does.
        let day = DAY;
        let times = self.by_disk.entry(disk.to_owned()).or_default();
        times.push_back((now, name_hash(finding)));
        while times.len() > MAX_PER_DISK || times.front().is_some_and(|(first, _)| now.since(*first) > day) {
            times.pop_front();
        }
        let limit = policy.corruption.many_in_a_day as usize;
        let Some(told) = self.told.get_mut(disk).filter(|told| now.since(told.at) <= day) else {
            if times.len() <= limit {
                return None;
            }
            self.told.insert(disk.to_owned(), Told { at: now, scanned: None, condemned: false });
            let count = times.len();
            return Some(Count::Many(format!(
                "{count} corrupt shards in a day, limit {limit}: the disk itself may be dying"
            )));
        };
        let scanned = told.scanned.filter(|_| !told.condemned)?;
        let before: BTreeSet<u64> = times.iter().filter(|(at, _)| *at <= scanned).map(|(_, object)| *object).collect();
        let new: BTreeSet<u64> =
            times.iter().map(|(_, object)| *object).filter(|object| !before.contains(object)).collect();
        (new.len() > limit).then(|| {
            told.condemned = true;
            Count::Again(format!("its deep scan found {} more objects with corrupt shards, limit {limit}", new.len()))
        })
    }
}

/// FNV-1a over the object's name: whether it was counted before.
fn name_hash(finding: &FindingFact) -> u64 {
    let bytes = finding.bucket.bytes().chain([0]).chain(finding.key.bytes());
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// What one more corrupt shard on a disk comes to.
enum Count {
    /// More in a day than rot explains: the whole disk is read.
    Many(String),
    /// As many again after that: the disk has failed.
    Again(String),
}

/// The disk as a whole is to be read.
pub(crate) fn scan(disk: &str, node: &str, evidence: &str) -> Symptom {
    let subject = Subject::Disk { disk: disk.to_owned(), node: node.to_owned() };
    Symptom::of(Mode::DataCorruption, subject, "corrupt shards, counted", evidence.to_owned())
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
