//! The model: plain maps.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{etag, refused};
use crate::model::{ETag, Outcome, Refusal};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) version: u128,
    pub(super) size: u64,
    pub(super) etag: ETag,
    /// Every version it owns.
    pub(super) versions: BTreeSet<u128>,
}

impl Content {
    pub(super) fn put(version: u128, size: u64) -> Self {
        Self { version, size, etag: etag(version), versions: [version].into() }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Bucket {
    pub(super) quota: Option<u64>,
    pub(super) objects: BTreeMap<&'static str, Content>,
    pub(super) uploads: BTreeMap<u128, Upload>,
}

#[derive(Clone, Debug)]
pub(super) struct Upload {
    pub(super) key: &'static str,
    pub(super) parts: BTreeMap<u16, Content>,
    pub(super) completed: Option<(ETag, Content)>,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) buckets: BTreeMap<&'static str, Bucket>,
    pub(super) leftovers: BTreeMap<(&'static str, u128), BTreeMap<u16, Content>>,
    /// What is garbage, by the version it is kept under.
    pub(super) garbage: BTreeMap<u128, BTreeSet<u128>>,
    pub(super) forbidden: BTreeSet<u128>,
    /// Every upload ever begun: bucket, key, id.
    pub(super) begun: Vec<(&'static str, &'static str, u128)>,
    /// Every put ever tried: bucket, key, version, size.
    pub(super) tried: Vec<(&'static str, &'static str, u128, u64)>,
    /// The parts lists of completions that were accepted.
    pub(super) named: BTreeMap<u128, Vec<(u16, ETag)>>,
    pub(super) next: u128,
}

impl Model {
    pub(super) fn draw(&mut self) -> u128 {
        self.next += 1;
        self.next
    }

    pub(super) fn live(&self) -> BTreeSet<u128> {
        let mut live = BTreeSet::new();
        for bucket in self.buckets.values() {
            live.extend(bucket.objects.values().flat_map(|content| content.versions.clone()));
            let parts = bucket.uploads.values().flat_map(|upload| upload.parts.values());
            live.extend(parts.flat_map(|content| content.versions.clone()));
        }
        live.extend(self.leftovers.values().flat_map(|parts| parts.values()).map(|content| content.version));
        live
    }

    pub(super) fn discard(&mut self, content: Content) {
        self.garbage.insert(content.version, content.versions);
    }
}

impl Bucket {
    pub(super) fn used(&self) -> u64 {
        let parts = self.uploads.values().flat_map(|upload| upload.parts.values());
        self.objects.values().chain(parts).map(|content| content.size).sum()
    }

    /// What a quota says to so many bytes in the place of so many.
    pub(super) fn quota(&self, name: &str, comes: u64, goes: u64) -> Option<Outcome> {
        let (quota_bytes, used_bytes) = (self.quota?, self.used());
        let over = comes > goes && used_bytes - goes + comes > quota_bytes;
        over.then(|| refused(Refusal::Quota { bucket: name.into(), quota_bytes, used_bytes }))
    }
}
