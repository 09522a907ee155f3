//! A forced epoch taken back: the member that went on alone is what it was before.
//!
//! Owns: whether that may still be ([`may_be_undone`], pure), and the way back. Must never: take back an epoch that another node
//! has joined; touch what is in its place before what is to come back was read and found whole; delete either. Invariant: what
//! comes back takes the newborn's way ([`finish`]), so that a start after a crash ends what was begun, or finds nothing begun.

use std::path::{Path, PathBuf};

use resilver_host::Host;
use resilver_host::disk::replace_file;

use super::MetaError;
use super::identity::{Forced, Identity, Membership};
use super::rebirth::{LABEL, NEWBORN, empty, finish};
use super::storage::{self, ASIDE};
use crate::model::ClusterMap;
use crate::types::Epoch;

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Undone {
    /// Who the member is from now on.
    pub(crate) member: Membership,
    /// The epoch that is over.
    pub(crate) epoch: Epoch,
    /// Entries of that epoch, which are not in this member's state any more.
    pub(crate) entries: u64,
    /// Where all of that epoch is kept.
    pub(crate) aside: PathBuf,
}

/// Why it did not come to it. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UndoError {
    /// By the guard.
    #[error("{0}")]
    Refused(String),
    /// The files.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

/// Whether the forced epoch that this member is in may be taken back, as far as its own state tells. Pure.
///
/// # Errors
/// Why not, for people.
pub(crate) fn may_be_undone<'a>(identity: &'a Identity, map: &ClusterMap) -> Result<&'a Forced, String> {
    let Some(member) = &identity.member else { return Err("this node is in no cluster".to_owned()) };
    let epoch = member.epoch.0;
    let Some(forced) = &identity.forced else {
        return Err(match identity.undone {
            undone if undone > member.epoch => {
                format!("epoch {} was undone already: this member is in epoch {epoch}", undone.0)
            }
            _ => format!("this member was not forced into epoch {epoch}: there is nothing to undo"),
        });
    };
    // Ids only rise: whoever has a later one than the founder of the epoch was given it in this epoch.
    let joined = map.nodes.values().filter(|node| node.raft_id > member.raft_id).map(|node| &node.name);
    let left = map.removed.iter().filter(|(id, _)| **id > member.raft_id).map(|(_, removed)| &removed.name);
    if let Some(name) = joined.chain(left).next() {
        return Err(format!(
            "node {name} has joined epoch {epoch}, and cannot be what it was before: the epoch stays; bring the others back to \
             it (`resilver node rejoin`)"
        ));
    }
    if !map.collection_held {
        return Err(format!(
            "collection was let go on in epoch {epoch}: shards that the state before needs may be gone; the epoch stays"
        ));
    }
    Ok(forced)
}

/// Takes it back. Raft must have stopped. `now_ms` makes the name under which what was forced is kept.
pub(crate) async fn undo(host: &Host, dir: &Path, identity: &Identity, now_ms: u64) -> Result<Undone, UndoError> {
    let (storage, member) = storage::open(host, dir, identity).await?;
    let (map, reaches) = (storage.state.map(), storage.state.applied().map_or(0, |applied| applied.index));
    storage.state.close().await;
    // Asked again now that nothing is applied any more: somebody may have joined since.
    let forced = may_be_undone(identity, &map).map_err(UndoError::Refused)?;
    let kept = dir.join(ASIDE).join(&forced.label);
    let was = whole(host, &kept, identity, &member).await?;
    let Some(back) = was.member.clone() else { return Err(MetaError::NotMember.into()) };
    // Its disks and its name are what they are now.
    let restored = Identity {
        member: was.member,
        forced: was.forced,
        undone: identity.undone.max(member.epoch),
        ..identity.clone()
    };
    restored.store(host, &kept).await?;
    let label = format!("undone-epoch-{}-{now_ms}", member.epoch.0);
    let note = kept.join(LABEL);
    replace_file(&*host.disk, &note, label.clone().into()).await.map_err(MetaError::io("writing", &note))?;
    host.disk.sync_dir(&kept).await.map_err(MetaError::io("syncing", &kept))?;
    let newborn = dir.join(NEWBORN);
    empty(host, &newborn).await?;
    // From here on it is begun: whatever happens, the next start ends it.
    host.disk.rename(&kept, &newborn).await.map_err(MetaError::io("moving back", &kept))?;
    let parent = dir.join(ASIDE);
    for folder in [dir, parent.as_path()] {
        host.disk.sync_dir(folder).await.map_err(MetaError::io("syncing", folder))?;
    }
    finish(host, dir).await?;
    Ok(Undone {
        member: back,
        epoch: member.epoch,
        entries: reaches.saturating_sub(forced.entry),
        aside: parent.join(label),
    })
}

/// Reads what is to come back to its end: whose it is, log, vote, every page of the database.
async fn whole(host: &Host, kept: &Path, now: &Identity, member: &Membership) -> Result<Identity, UndoError> {
    let refused = |why: String| {
        UndoError::Refused(format!("what was there before cannot come back from {}: {why}", kept.display()))
    };
    let was = Identity::load(host, kept).await.map_err(|error| refused(error.to_string()))?;
    let was = was.ok_or_else(|| refused("there is no identity in it".to_owned()))?;
    let before = was.member.as_ref().filter(|before| before.cluster == member.cluster && before.epoch < member.epoch);
    if was.instance != now.instance || before.is_none() {
        return Err(refused("it is of another member".to_owned()));
    }
    let (storage, _) = storage::open(host, kept, &was).await.map_err(|error| refused(error.to_string()))?;
    storage.state.close().await;
    Ok(was)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{HostState, Location, MarkedBy, NodeRecord, RemovedNode};
    use crate::types::{ClusterId, InstanceId, NodeName, RaftId};

    fn forced() -> Identity {
        let member =
            Membership { cluster: ClusterId(1), epoch: Epoch(2), raft_id: RaftId(7), cluster_name: "c".to_owned() };
        Identity {
            node: NodeName::from("n1"),
            instance: InstanceId(1),
            member: Some(member),
            disks: Vec::new(),
            forced: Some(Forced { label: "member-1-epoch-1-5".to_owned(), entry: 100 }),
            undone: Epoch::default(),
        }
    }

    /// n1 is the only voter; the others have the ids that they had before.
    fn alone() -> ClusterMap {
        let node = |name: &str, id| {
            let name = NodeName::from(name);
            let record = NodeRecord {
                name: name.clone(),
                raft_id: RaftId(id),
                instance: InstanceId(u128::from(id)),
                address: String::new(),
                location: Location::default(),
                metadata_low: false,
                state: HostState::Up,
                marked_by: MarkedBy::Operator,
                reason: String::new(),
                attempt: None,
                draining: None,
                no_vote: None,
            };
            (name, record)
        };
        let nodes: BTreeMap<_, _> = [node("n1", 7), node("n2", 2), node("n3", 6)].into();
        ClusterMap { nodes, collection_held: true, ..ClusterMap::default() }
    }

    #[test]
    fn a_forced_epoch_is_undone_until_somebody_joined_it() {
        assert_eq!(may_be_undone(&forced(), &alone()).map(|forced| forced.entry), Ok(100));
        let mut joined = alone();
        joined.nodes.get_mut(&NodeName::from("n2")).unwrap().raft_id = RaftId(8);
        let why = may_be_undone(&forced(), &joined).unwrap_err();
        assert!(why.contains("node n2 has joined epoch 2"), "{why}");
        let mut left = alone();
        left.removed.insert(RaftId(9), RemovedNode { name: "n9".into(), instance: InstanceId(9) });
        let why = may_be_undone(&forced(), &left).unwrap_err();
        assert!(why.contains("node n9 has joined"), "{why}");
    }

    #[test]
    fn an_epoch_in_which_shards_were_collected_stays() {
        let collecting = ClusterMap { collection_held: false, ..alone() };
        assert!(may_be_undone(&forced(), &collecting).unwrap_err().contains("collection"));
    }

    #[test]
    fn what_was_not_forced_or_is_undone_already_is_not_undone() {
        let plain = Identity { forced: None, ..forced() };
        assert!(may_be_undone(&plain, &alone()).unwrap_err().contains("was not forced"));
        let again = Identity { undone: Epoch(3), ..plain };
        assert!(may_be_undone(&again, &alone()).unwrap_err().contains("epoch 3 was undone already"));
    }
}
