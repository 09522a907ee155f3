//! What every command does, and when it is refused; what survives a crash; what a snapshot carries.
#![allow(clippy::disallowed_methods)]

mod buckets;
mod compact;
mod durable;
mod flush;
mod hosts;
mod keys;
mod leaves;
mod leaving;
mod listing;
mod locks;
mod members;
mod model;
mod objects;
mod placed;
mod reread;
mod sessions;
mod uploads;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use resilver_host::Host;

use super::*;
use crate::model::*;
use crate::types::*;

const OWNER: Owner = Owner { cluster: ClusterId(7), raft_id: RaftId(1) };

/// A state in a folder of its own, and a proposer that numbers its commands.
struct Story {
    dir: tempfile::TempDir,
    host: Host,
    state: State,
    index: u64,
    sequence: u64,
}

impl Story {
    /// Nothing in it.
    async fn blank() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = resilver_host::real::host();
        let state = State::create(&host, &dir.path().join("state.redb"), OWNER).await.unwrap();
        Self { dir, host, state, index: 0, sequence: 0 }
    }

    /// A cluster of two nodes with two disks each, and one bucket.
    async fn cluster() -> Self {
        let mut story = Self::blank().await;
        story.run(Command::InitCluster { cluster: OWNER.cluster, name: "c".into() }).await;
        story.run(join("n1", 1, &[11, 12])).await;
        story.run(join("n2", 2, &[21, 22])).await;
        story.run(bucket("b")).await;
        story.state.watch_disks(placed::watched()).await.unwrap();
        story
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("state.redb")
    }

    async fn run(&mut self, command: Command) -> Outcome {
        self.sequence += 1;
        let proposal = Proposal { session: 1, sequence: self.sequence, floor: self.sequence, command };
        self.apply(proposal).await
    }

    async fn apply(&mut self, proposal: Proposal) -> Outcome {
        self.index += 1;
        let change = Change { index: self.index, proposal: Some(proposal) };
        let applied = Applied { index: self.index, note: vec![] };
        let outcome = self.state.apply(vec![change], applied).await.unwrap().pop().unwrap();
        self.check().await;
        outcome
    }

    /// Everything that lives, by bucket and key.
    async fn live(&self) -> BTreeMap<(String, String), ObjectRecord> {
        let (mut live, mut after) = (BTreeMap::new(), None);
        loop {
            let scan = self.state.scan(after, 1000).await.unwrap();
            after = scan.objects.last().map(|(bucket, key, _)| (bucket.clone(), key.clone()));
            live.extend(scan.objects.into_iter().map(|(bucket, key, object)| ((bucket.0, key), object)));
            if scan.end {
                return live;
            }
        }
    }

    async fn garbage(&self) -> Vec<GarbageRecord> {
        let mut garbage = Vec::new();
        for version in self.state.garbage_versions(usize::MAX).await.unwrap() {
            garbage.push(self.state.garbage(version).await.unwrap().expect("it was there a moment ago"));
        }
        garbage
    }

    /// The invariants that hold after every command: what was counted on the way is what there is, and every version has
    /// one owner at most.
    async fn check(&self) {
        self.check_leaves().await;
        self.check_placed().await;
        let live = self.live().await;
        let mut counted = Counts::default();
        let mut owners = BTreeMap::new();
        let mut used: BTreeMap<String, Usage> = BTreeMap::new();
        let leftovers = self.state.leftovers(usize::MAX).await.unwrap();
        for ((bucket, key), object) in &live {
            counted.add_shards(object);
            let part = bucket == UPLOADS_BUCKET;
            if part {
                counted.parts += 1
            } else {
                counted.add_object()
            }
            let left = |(of, id): &(BucketName, UploadId)| key.starts_with(&part_prefix(of, *id));
            if !part || !leftovers.iter().any(left) {
                let usage = used.entry(accounted_bucket(&bucket.as_str().into(), key).0).or_default();
                usage.objects += u64::from(!part);
                usage.bytes += object.size_bytes;
            }
            for version in object.versions() {
                let twice = owners.insert(version, tables::object_key(bucket, key));
                assert_eq!(twice, None, "{version:?} is owned twice");
            }
        }
        assert_eq!(self.state.counts(), counted);
        for bucket in self.state.buckets().await.unwrap() {
            let expected = used.remove(bucket.name.as_str()).unwrap_or_default();
            assert_eq!(self.state.usage(&bucket.name).await.unwrap(), expected, "{}", bucket.name);
        }
        assert!(used.is_empty(), "objects of buckets that are gone: {used:?}");
        locks::check(self).await;
        let (recorded, forbidden) = self.version_tables().await;
        assert_eq!(recorded, owners, "every version leads to its owner, and no other does");
        for garbage in self.garbage().await {
            for version in garbage.object.versions() {
                assert!(!owners.contains_key(&version), "{version:?} is garbage and lives");
            }
        }
        assert!(!forbidden.iter().any(|version| owners.contains_key(version)), "a forbidden version lives");
        let found = self.state.validate().await.unwrap();
        assert!(!found.findings.iter().any(|finding| finding.contradiction), "{found:?}");
    }

    /// The tables of versions and of forbidden ones.
    async fn version_tables(&self) -> (BTreeMap<Version, Vec<u8>>, BTreeSet<Version>) {
        let read = self.state.read(|txn| {
            let (mut owners, mut forbidden) = (BTreeMap::new(), BTreeSet::new());
            for entry in txn.open_table(tables::VERSIONS)?.range::<&[u8]>(..)? {
                let (version, key) = entry?;
                owners.insert(tables::split_version_key(version.value())?, key.value().to_vec());
            }
            for entry in txn.open_table(tables::FORBIDDEN)?.range::<&[u8]>(..)? {
                forbidden.insert(tables::split_version_key(entry?.0.value())?);
            }
            Ok((owners, forbidden))
        });
        read.await.unwrap()
    }

    async fn put(&mut self, key: &str, object: ObjectRecord) -> Outcome {
        self.run(put(key, object, Condition::None)).await
    }
}

fn join(name: &str, instance: u128, disks: &[u128]) -> Command {
    Command::JoinNode {
        name: name.into(),
        instance: InstanceId(instance),
        address: format!("{name}:1"),
        location: Location::default(),
        disks: disks
            .iter()
            .map(|id| JoiningDisk { id: DiskId(*id), path: format!("/d{id}"), capacity_bytes: 100 })
            .collect(),
        raft_id: None,
    }
}

fn bucket(name: &str) -> Command {
    Command::CreateBucket { bucket: bucket_record(name), if_absent: false }
}

fn bucket_record(name: &str) -> BucketRecord {
    BucketRecord {
        name: name.into(),
        coding: Coding { k: 1, m: 1 },
        created_ms: 1,
        quota_bytes: None,
        repair_priority: DEFAULT_REPAIR_PRIORITY,
        owner: String::new(),
    }
}

fn quota(name: &str, quota_bytes: Option<u64>) -> Command {
    Command::SetBucket { bucket: name.into(), coding: None, quota_bytes: Some(quota_bytes), repair_priority: None }
}

fn object(version: u128) -> ObjectRecord {
    sized(version, 10)
}

/// An object whose first shards are on disk 11 and whose second have no home. Its ETag is its version.
fn sized(version: u128, size_bytes: u64) -> ObjectRecord {
    let homes = vec![Home { at: Some(DiskId(11)), wanted: DiskId(11) }, Home { at: None, wanted: DiskId(21) }];
    let extents = (0..size_bytes.div_ceil(EXTENT_BYTES)).map(|index| ExtentRecord {
        id: ExtentId { version: Version(version), index: ExtentIndex(index as u32) },
        len_bytes: EXTENT_BYTES.min(size_bytes - index * EXTENT_BYTES),
        homes: homes.clone(),
    });
    ObjectRecord {
        version: Version(version),
        size_bytes,
        crc32c: 1,
        modified_ms: 1,
        coding: Coding { k: 1, m: 1 },
        block_bytes: BLOCK_BYTES,
        extents: extents.collect(),
        etag: etag(version),
        attributes: Attributes::default(),
        parts: vec![],
    }
}

fn etag(version: u128) -> ETag {
    ETag::Content(version.to_be_bytes())
}

fn put(key: &str, object: ObjectRecord, condition: Condition) -> Command {
    Command::PutObject { bucket: "b".into(), key: key.into(), object, condition, now_ms: 5 }
}

fn delete(key: &str, condition: Condition) -> Command {
    Command::DeleteObject { bucket: "b".into(), key: key.into(), condition, now_ms: 6 }
}

fn mark(disk: u128, state: DiskState, by: MarkedBy, round: Option<u64>) -> Command {
    let fence = round.map(|round| Fence { epoch: 1, round, holder: "n1".into() });
    Command::SetDiskState { disk: DiskId(disk), state, by, reason: "test".into(), judged: None, fence }
}

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}
