//! A state that goes on in a new epoch: of a backup, or of a survivor whose quorum is lost.
//!
//! Owns: what changes with the epoch, and what a file says it is. Must never: change what clients stored. Invariant: what
//! carries the epoch before (members, fences) is refused from here on.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use redb::Durability;
use resilver_host::Host;
use resilver_host::planted::{Bug, bug};

use super::snapshot::Reader;
use super::tables::{CLUSTER, KEY_APPLIED, KEY_MAP, KEY_OWNER, KEY_TOTALS, LOCAL, Tables, put, unseal};
use super::{Applied, Owner, State, StateError, StoredMap, Totals};
use crate::model::{HostState, MarkedBy};
use crate::types::{ClusterId, Epoch, Fence, InstanceId, NodeName, RaftId};

/// What a snapshot file holds, read from its first byte to its last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
    /// The epoch it is of.
    pub epoch: Epoch,
    /// Up to which entry of the log.
    pub applied: u64,
    /// Nodes in its map.
    pub nodes: Vec<NodeName>,
    /// Live objects.
    pub objects: u64,
    /// Records in the file.
    pub records: u64,
}

/// Who goes on, and without whom.
#[derive(Clone, Debug)]
pub(crate) struct NewEpoch {
    /// The node that is the only voter.
    pub(crate) own: NodeName,
    /// Its data folder.
    pub(crate) instance: InstanceId,
    /// Its address.
    pub(crate) address: String,
    /// The latest epoch that anything knows of: what this state was followed by, if it is an old one.
    pub(crate) above: Epoch,
    /// Nodes that are gone for good: their shards are rebuilt elsewhere.
    pub(crate) gone: BTreeSet<NodeName>,
    /// Why, for people.
    pub(crate) reason: String,
}

/// Reads a file from begin to end and says what it is.
///
/// # Errors
/// When anything in it is not as it was written, or it is of no cluster.
pub async fn describe(host: &Host, path: &Path) -> Result<Description, StateError> {
    let (host_, path) = (host.clone(), path.to_path_buf());
    host.blocking(move || {
        let mut reader = Reader::open(&host_, &path)?;
        let head = reader.head()?;
        let damaged = |detail: &str| StateError::Snapshot { path: path.clone(), detail: detail.to_owned() };
        let (mut map, mut totals, mut records) = (None, Totals::default(), 0);
        while let Some(record) = reader.record()? {
            records += 1;
            if record.is_in(CLUSTER) {
                match record.key() {
                    KEY_MAP => map = Some(unseal::<StoredMap>("cluster", record.value())?.map),
                    KEY_TOTALS => totals = unseal("cluster", record.value())?,
                    _ => {}
                }
            }
        }
        let map = map.ok_or_else(|| damaged("there is no cluster map in it"))?;
        Ok(Description {
            cluster: map.cluster.ok_or_else(|| damaged("it is of no cluster"))?,
            name: map.name.clone(),
            epoch: map.epoch,
            applied: head.applied.map_or(0, |applied| applied.index),
            nodes: map.nodes.keys().cloned().collect(),
            objects: totals.counts.objects,
            records,
        })
    })
    .await
}

impl State {
    /// Makes this the state of the only voter of a new epoch: the id it has in Raft from now on, and the epoch. `note` says
    /// to Raft where that is, once the id is known.
    pub(crate) async fn begin_epoch(
        &self,
        change: NewEpoch,
        note: impl FnOnce(RaftId) -> Result<Vec<u8>, StateError> + Send + 'static,
    ) -> Result<(RaftId, Epoch), StateError> {
        self.write(Durability::Immediate, move |txn, memory| {
            let mut map = (*memory.map).clone();
            let own = RaftId(memory.next_raft_id);
            let corrupt = |detail: String| StateError::Corrupt { table: "cluster", detail };
            let cluster = map.cluster.ok_or_else(|| corrupt("it is of no cluster".to_owned()))?;
            let node = map.nodes.get_mut(&change.own);
            let node = node.ok_or_else(|| corrupt(format!("there is no node {} in it", change.own)))?;
            node.raft_id = own;
            node.instance = change.instance;
            node.attempt = None;
            // Whatever was said of it: there is nobody else to vote.
            (node.draining, node.no_vote) = (None, None);
            map.removed.retain(|_, removed| removed.instance != change.instance);
            node.address.clone_from(&change.address);
            (node.state, node.marked_by, node.reason) = Default::default();
            for (_, node) in map.nodes.iter_mut().filter(|(name, _)| change.gone.contains(*name)) {
                (node.state, node.marked_by) = (HostState::Out, MarkedBy::Operator);
                node.reason.clone_from(&change.reason);
            }
            let next = if bug(Bug::KeepOldEpoch) { 0 } else { 1 };
            // Fences may carry the number of an epoch that was undone.
            map.epoch = Epoch(map.epoch.max(change.above).0.max(map.fence.epoch) + next);
            // Whatever fence was given before is lower.
            map.fence = Fence { epoch: map.epoch.0, ..Fence::default() };
            map.collection_held = true;
            map.revision += 1;
            let epoch = map.epoch;
            memory.map = Arc::new(map);
            memory.next_raft_id = own.0 + 1;
            let index = memory.applied.as_ref().map_or(0, |applied| applied.index);
            let applied = Applied { index, note: note(own)? };
            let mut tables = Tables::open(txn)?;
            let stored = StoredMap { map: memory.map.clone(), next_raft_id: memory.next_raft_id };
            put(&mut tables.cluster, KEY_MAP, &stored)?;
            put(&mut tables.cluster, KEY_APPLIED, &applied)?;
            memory.applied = Some(applied);
            put(&mut txn.open_table(LOCAL)?, KEY_OWNER, &Owner { cluster, raft_id: own })?;
            Ok((own, epoch))
        })
        .await
    }
}
