//! A member born from a state instead of an empty log: from a backup, or from what a survivor has when its quorum is lost.
//!
//! Owns: making such a member beside what is there, and having it take its place. Must never: start Raft; change a byte of what
//! was there (it goes aside as it is). Invariants: the new member is the
//! only voter of a new epoch, under an id nobody ever had, and its vote is above every term in the state; so that nobody
//! of the epoch before can be mistaken for it, or outvote it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use openraft::{BasicNode, LogId, Membership as Voters, StoredMembership, Vote};
use resilver_host::disk::{create_dir_durably, read_file, replace_file};
use resilver_host::{FileKind, Host};
use tokio::sync::watch;

use super::identity::{Forced, Identity, Membership};
use super::log_store::{LogAdapter, PurgeGate};
use super::machine::note_of;
use super::raft::{Node, Note};
use super::replay::{Replay, replay};
use super::storage::{self, Layout};
use super::{MetaError, wire};
use crate::log::{LogOptions, LogStore, VoteFile};
use crate::state::{Description, NewEpoch, Owner, State, StateError};
use crate::types::{Epoch, NodeName, RaftId};

/// Where the newborn is made, within the metadata folder.
pub(super) const NEWBORN: &str = "newborn";
/// In there: the name under which what it replaces goes aside; gone once it has.
pub(super) const LABEL: &str = "replaces";
/// Longer than any of ours.
const MAX_LABEL_BYTES: u64 = 512;
/// Where a survivor's log is applied to a copy of its state.
pub(super) const SCRATCH: &str = "recovery";
/// Where a member's log is replayed, only to be compared.
pub(super) const REPLAY_SCRATCH: &str = "replay";
/// How names of states on their way end.
const PASSING: &str = ".passing";

/// Who is born.
pub(crate) struct Birth {
    /// The node's identity; its membership is set here.
    pub(crate) identity: Identity,
    /// Its address.
    pub(crate) address: String,
    /// The latest epoch that anything knows of.
    pub(crate) above: Epoch,
    /// Nodes that are gone for good.
    pub(crate) gone: BTreeSet<NodeName>,
    /// Why, for people.
    pub(crate) reason: String,
    /// What it replaces is a whole member, to which it may go back.
    pub(crate) undoable: bool,
}

/// Writes what a member has to `to`, up to the end of its log, committed or not. Raft must have stopped. An entry that was not
/// committed may have been, as far as a survivor can tell: to keep it loses nothing. The member's own files are only read: should
/// nothing come of it, it must not have applied what was not committed.
pub(crate) async fn export_all(host: &Host, dir: &Path, identity: &Identity, to: &Path) -> Result<u64, MetaError> {
    let (storage, member) = storage::open(host, dir, identity).await?;
    let passing = passing(dir, "recovery-state");
    let exported = storage.state.export(&passing, "survivor".to_owned()).await;
    storage.state.close().await;
    exported?;
    let owner = Owner { cluster: member.cluster, raft_id: member.raft_id };
    let scratch = dir.join(SCRATCH);
    let whole = Replay { scratch: &scratch, owner, from: Some(&passing), up_to: None };
    let log = |state: &State| {
        let gate = PurgeGate { durable: state.durable_changes(), failed: watch::channel(None).1 };
        LogAdapter::new(storage.log, storage.vote_file, storage.vote, gate)
    };
    let outcome = replay(host, whole, log, to).await;
    remove(host, &passing).await?;
    outcome
}

/// Makes the only voter of a new epoch out of a verified state file, beside what is there, and then has it take the place of
/// that, which goes aside. Who it is, and where what was there is kept.
///
/// Cut off before the newborn is whole, nothing has changed; after that, the next start ends what was begun
/// ([`finish`]).
pub(crate) async fn give_birth(
    host: &Host,
    dir: &Path,
    birth: Birth,
    from: &Path,
    label: &str,
) -> Result<(Identity, PathBuf), MetaError> {
    let newborn = dir.join(NEWBORN);
    let layout = Layout::of(&newborn);
    let Description { cluster, name, .. } = crate::state::describe(host, from).await?;
    empty(host, &newborn).await?;
    create_dir_durably(&*host.disk, &newborn).await.map_err(MetaError::io("creating", &newborn))?;
    // Whose it is, is written with the epoch: the id comes from the state itself.
    let nobody = Owner { cluster, raft_id: RaftId::default() };
    let state = State::create_apart(host, &layout.database, nobody).await?;
    let outcome = async {
        state.install(from).await?;
        let note = note_of(state.applied().as_ref())?;
        let Some(last) = note.log_id else {
            return Err(MetaError::Refused {
                detail: format!("{} holds no entry: there is nothing in it", from.display()),
            });
        };
        let (address, own) = (birth.address.clone(), birth.identity.node.clone());
        let change = NewEpoch {
            own,
            instance: birth.identity.instance,
            address: address.clone(),
            above: birth.above,
            gone: birth.gone,
            reason: birth.reason,
        };
        let encode = move |id: RaftId| alone(id, address, last);
        let (raft_id, epoch) = state.begin_epoch(change, encode).await?;
        begin_log(host, &layout, last, raft_id).await?;
        Ok((Membership { cluster, epoch, raft_id, cluster_name: name }, last.index))
    };
    let outcome = outcome.await;
    state.close().await;
    let (member, entry) = outcome?;
    let forced = birth.undoable.then(|| Forced { label: label.to_owned(), entry });
    let identity = Identity { forced, ..birth.identity.as_member(member) };
    let aside = dir.join(storage::ASIDE).join(label);
    let note = newborn.join(LABEL);
    replace_file(&*host.disk, &note, label.to_owned().into()).await.map_err(MetaError::io("writing", &note))?;
    host.disk.sync_dir(&newborn).await.map_err(MetaError::io("syncing", &newborn))?;
    // From here on it is born: its identity is the last that was missing.
    identity.store(host, &newborn).await?;
    finish(host, dir).await?;
    Ok((identity, aside))
}

/// Whether a newborn is whole and has not taken its place yet: the next start has it do so.
pub(crate) async fn is_born(host: &Host, dir: &Path) -> bool {
    matches!(Identity::load(host, &dir.join(NEWBORN)).await, Ok(Some(_)))
}

/// Has a newborn that is whole take its place, if there is one. However often it is cut off, the next call goes on.
pub(crate) async fn finish(host: &Host, dir: &Path) -> Result<(), MetaError> {
    let newborn = dir.join(NEWBORN);
    let born = match Identity::load(host, &newborn).await {
        Ok(born) => born.is_some(),
        // Not whole: what it was to replace is in its place.
        Err(MetaError::Identity { .. }) => false,
        Err(error) => return Err(error),
    };
    if !born {
        return Ok(());
    }
    let note = newborn.join(LABEL);
    match read_file(&*host.disk, &note, MAX_LABEL_BYTES).await {
        Ok(label) => {
            let label = String::from_utf8_lossy(&label).into_owned();
            super::move_aside(host, dir, &dir.join(storage::ASIDE).join(label)).await?;
            // Now nothing of what was there is in its place any more, and what comes next must not go aside.
            remove(host, &note).await?;
            host.disk.sync_dir(&newborn).await.map_err(MetaError::io("syncing", &newborn))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(MetaError::io("reading", &note)(error)),
    }
    storage::move_in(host, dir, &newborn).await
}

async fn remove(host: &Host, path: &Path) -> Result<(), MetaError> {
    match host.disk.remove_file(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(MetaError::io("removing", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a folder of ours that only ever holds what can be made again.
pub(super) async fn empty(host: &Host, folder: &Path) -> Result<(), MetaError> {
    let mut due = vec![folder.to_path_buf()];
    let mut folders = Vec::new();
    while let Some(path) = due.pop() {
        let entries = match host.disk.list(&path).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(MetaError::io("listing", &path)(error)),
        };
        for entry in entries {
            let below = path.join(&entry.name);
            match entry.kind {
                FileKind::Dir => due.push(below),
                _ => remove(host, &below).await?,
            }
        }
        folders.push(path);
    }
    for path in folders.iter().rev() {
        host.disk.remove_dir(path).await.map_err(MetaError::io("removing", path))?;
    }
    Ok(())
}

/// Removes what an earlier process had on its way in or out.
pub(crate) async fn sweep(host: &Host, dir: &Path) -> Result<(), MetaError> {
    empty(host, &dir.join(SCRATCH)).await?;
    empty(host, &dir.join(REPLAY_SCRATCH)).await?;
    let entries = match host.disk.list(dir).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(MetaError::io("listing", dir)(error)),
    };
    for entry in entries.iter().filter(|entry| entry.name.ends_with(PASSING)) {
        remove(host, &dir.join(&entry.name)).await?;
    }
    Ok(())
}

/// What the state says to Raft: where it is, and that one member votes.
fn alone(id: RaftId, address: String, last: LogId<Node>) -> Result<Vec<u8>, StateError> {
    let nodes = BTreeMap::from([(id.0, BasicNode::new(address))]);
    let voters = Voters::new(vec![BTreeSet::from([id.0])], nodes);
    let note = Note { log_id: Some(last), membership: StoredMembership::new(Some(last), voters) };
    let bytes = wire::encode(&note).map_err(|error| StateError::Encoding { detail: error.to_string() })?;
    Ok(bytes.to_vec())
}

/// An empty log behind the state, and a vote above every term in it.
async fn begin_log(host: &Host, layout: &Layout, last: LogId<Node>, own: RaftId) -> Result<(), MetaError> {
    let encoding = |error: wire::WireError| MetaError::Refused { detail: error.to_string() };
    let options = LogOptions { create: true, ..LogOptions::default() };
    let (log, _) = LogStore::open(host, layout.log(), options).await?;
    log.reset(last.index + 1, wire::encode(&last).map_err(encoding)?).await?;
    let (vote_file, _) = VoteFile::open(host, layout.log()).await?;
    let vote: Vote<Node> = Vote::new(last.leader_id.term + 1, own.0);
    vote_file.write(wire::encode(&vote).map_err(encoding)?).await?;
    Ok(())
}

/// A name in the metadata folder for a state on its way in or out.
pub(crate) fn passing(dir: &Path, what: &str) -> PathBuf {
    dir.join(format!("{what}{PASSING}"))
}
