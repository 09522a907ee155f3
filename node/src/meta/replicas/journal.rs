//! A member's own log replayed beside it, from a checkpoint of its own, and what comes out compared with what it has:
//! `MetaRecovery.ReplayJournal`. So it is proven that snapshot, log and state say the same, without asking anybody.
//!
//! Owns: the copy, in a folder of its own, and the comparison. Must never: change anything that the member lives on, stop it
//! from applying, or count entries as replayed that were not read. Invariant: cut off anywhere, there is nothing to mend: the
//! folder is emptied before the next replay, and at the next start.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::side::{Side, Subject};
use super::{Checkpoint, Difference, Differences, Meta, ReplicaError, differences};
use crate::meta::MetaError;
use crate::meta::replay::Apart;
use crate::state::{Held, Owner, State, root};

/// How often a replay begins anew because the snapshot that it began with was replaced by a newer one on the way.
const ATTEMPTS: u32 = 3;
/// Rest after each batch, in percent of what it took: clients need the processor, and this can wait.
const REST_PERCENT: u32 = 50;
/// Room that a copy takes, in databases: the state that it begins with, and what is replaced before the next flush.
const COPIES: u64 = 2;
/// Room that is left to the member itself, whatever the copy takes.
const SPARE_BYTES: u64 = 64 * 1024 * 1024;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replaying {
    /// Entries applied.
    pub(crate) done: u64,
    /// Of so many.
    pub(crate) total: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Replayed {
    /// The last entry of the snapshot that it began with; `None`: it began with nothing.
    pub(crate) from: Option<u64>,
    /// As of which entry both were compared.
    pub(crate) index: u64,
    /// Entries replayed.
    pub(crate) entries: u64,
    /// What the replayed state comes to.
    pub(crate) digest: u128,
    /// Its records.
    pub(crate) records: u64,
    /// Records that are not the same as replayed (left) and as the member has stored them (right).
    pub(crate) differences: Differences,
    /// The digests that the member keeps in step do not fit what it has stored.
    pub(crate) kept_differs: bool,
    /// What the state says of where Raft is does not fit the log.
    pub(crate) note_differs: bool,
}

impl Replayed {
    /// Whether the member has what its log comes to.
    pub(crate) fn equal(&self) -> bool {
        self.differences.found.is_empty() && !self.kept_differs && !self.note_differs
    }
}

/// Where a replay begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// The state file to begin with, and its last entry; `None`: nothing.
    pub(super) snapshot: Option<(PathBuf, u64)>,
}

/// Where to begin so that the entry `wanted` (0: whatever comes after the snapshot) is among those that are replayed.
pub(super) fn start(snapshot: Option<(PathBuf, u64)>, log_first: u64, wanted: u64) -> Result<Start, String> {
    let after = snapshot.as_ref().map(|(_, last)| last + 1);
    match after {
        Some(after) if wanted == 0 || wanted >= after => match log_first > after {
            false => Ok(Start { snapshot }),
            true => Err(format!("the snapshot ends before entry {after}, and the log begins at entry {log_first}")),
        },
        _ if log_first == 0 => Ok(Start { snapshot: None }),
        Some(after) => Err(format!(
            "the log begins at entry {log_first}, and the snapshot holds everything before entry {after}: there is no \
             checkpoint before entry {wanted} any more; leave it out to begin with the snapshot"
        )),
        None => Err(format!(
            "the log begins at entry {log_first}, and there is no snapshot of what came before: this member was given its \
             state as a whole; a snapshot is made after some thousand entries"
        )),
    }
}

impl Meta {
    /// Replays this member's log on a copy, from the checkpoint before the entry `wanted` (0: from its snapshot), up to what it
    /// has applied now, and compares. `tell` answers whether anybody still wants to know.
    ///
    /// # Errors
    /// [`ReplicaError::Refused`] where nothing can be replayed: another replay is under way, there is no checkpoint, no room,
    /// nobody listens any more. [`ReplicaError::Damaged`] where snapshot or log cannot be read. Nothing was changed.
    pub(crate) async fn replay_journal(
        &self,
        wanted: u64,
        tell: &(dyn Fn(Replaying) -> bool + Send + Sync),
    ) -> Result<Replayed, ReplicaError> {
        let inner = &self.inner;
        let busy = |_| ReplicaError::Refused("this member's log is being replayed already: ask again later".to_owned());
        let _one = inner.replicas.replaying.try_lock().map_err(busy)?;
        self.room_for_a_copy().await?;
        for _ in 0..ATTEMPTS {
            let begun_with = inner.snapshots.current().map(|(_, file)| file.path);
            match self.replay_once(wanted, tell).await {
                // What it began with is not there any more, and the entries behind it may be purged.
                Err(error @ (ReplicaError::Meta(_) | ReplicaError::State(_)))
                    if inner.snapshots.current().map(|(_, file)| file.path) != begun_with =>
                {
                    tracing::info!(%error, operation = "replay", "a newer snapshot came; the replay begins anew");
                }
                Err(ReplicaError::Meta(MetaError::State(error)) | ReplicaError::State(error)) if error.is_damage() => {
                    return Err(ReplicaError::Damaged(error.to_string()));
                }
                Err(ReplicaError::Meta(MetaError::LostVoter { what, where_, .. })) => {
                    return Err(ReplicaError::Damaged(format!("{what} ({where_})")));
                }
                outcome => return outcome,
            }
        }
        Err(ReplicaError::Refused(format!(
            "{ATTEMPTS} times a newer snapshot was made before the replay had ended: ask again when less is written"
        )))
    }

    async fn room_for_a_copy(&self) -> Result<(), ReplicaError> {
        let room = &self.inner.room;
        let failed = |source| MetaError::Io { what: "measuring", path: room.dir.clone(), source };
        let space = room.host.disk.space(&room.dir).await.map_err(failed)?;
        let database = room.host.disk.metadata(&room.database).await.map_err(failed)?;
        let needed = database.len_bytes.saturating_mul(COPIES) + SPARE_BYTES;
        match space.available_bytes < needed {
            true => Err(ReplicaError::Refused(format!(
                "{} bytes are free in {}, and a copy of the state may take {needed}: free some",
                space.available_bytes,
                room.dir.display()
            ))),
            false => Ok(()),
        }
    }

    async fn replay_once(
        &self,
        wanted: u64,
        tell: &(dyn Fn(Replaying) -> bool + Send + Sync),
    ) -> Result<Replayed, ReplicaError> {
        let inner = &self.inner;
        // The snapshot first: what is held then reaches at least as far.
        let snapshot = inner.snapshots.current();
        let snapshot = snapshot.and_then(|(head, file)| Some((file.path, head.applied?.index)));
        let start = start(snapshot, inner.elections.log.first(), wanted).map_err(ReplicaError::Refused)?;
        let held = inner.state.moment().await?;
        if held.applied.note.is_empty() {
            return Err(ReplicaError::Refused("nothing was applied here yet".to_owned()));
        }
        let ids = &inner.links.ids;
        let scratch = inner.snapshots.scratch_for_replay();
        let owner = Owner { cluster: ids.cluster, raft_id: ids.raft_id };
        let apart = Apart::make(&inner.links.host, &scratch, owner).await?;
        let outcome = self.replay_on(&apart, start, &held, tell).await;
        apart.end().await?;
        outcome
    }

    async fn replay_on(
        &self,
        apart: &Apart<'_>,
        start: Start,
        held: &Held,
        tell: &(dyn Fn(Replaying) -> bool + Send + Sync),
    ) -> Result<Replayed, ReplicaError> {
        let (log, end) = (&self.inner.elections.log, held.applied.index + 1);
        let from = start.snapshot.as_ref().map(|(_, last)| *last);
        let mut applying = apart.begin(start.snapshot.as_ref().map(|(path, _)| path.as_path())).await?;
        let first = applying.next;
        let total = end.saturating_sub(first);
        loop {
            if !tell(Replaying { done: applying.next - first, total }) {
                return Err(ReplicaError::Refused("nobody listens any more: the replay was given up".to_owned()));
            }
            let began = Instant::now();
            if applying.step(log, end).await?.is_none() {
                break;
            }
            rest(began.elapsed()).await;
        }
        if applying.next != end {
            return Err(ReplicaError::Damaged(format!(
                "the log ends before entry {}, and entry {} is applied: what was applied is not in the log",
                applying.next, held.applied.index
            )));
        }
        self.compared(&apart.state, held, (from, total)).await
    }

    /// The copy against what the member has, every record of both read anew.
    async fn compared(
        &self,
        copy: &State,
        held: &Held,
        (from, entries): (Option<u64>, u64),
    ) -> Result<Replayed, ReplicaError> {
        let state = &self.inner.state;
        let replayed = copy.moment().await?;
        let made = root(&copy.leaves(&replayed, true).await?);
        let (stored, kept) = (root(&state.leaves(held, true).await?), root(&state.leaves(held, false).await?));
        let index = held.applied.index;
        let differences = match made == stored {
            true => Differences::default(),
            false => {
                let at = Checkpoint { id: 0, index };
                let (left, right) = (Side::Own(copy, replayed.clone()), Side::Own(state, held.clone()));
                differences(&left, &right, Subject { at: &at, stored: true }).await?
            }
        };
        Ok(Replayed {
            from,
            index,
            entries,
            digest: made.digest,
            records: made.records,
            differences,
            kept_differs: kept != stored,
            note_differs: replayed.applied.note != held.applied.note,
        })
    }
}

/// Half as long again as a batch took, and no longer than one step of anything else.
async fn rest(step: Duration) {
    tokio::time::sleep((step * REST_PERCENT / 100).min(Duration::from_secs(1))).await;
}

/// For people: the record, and what it is on each side.
pub(crate) fn difference_in_words(difference: &Difference) -> String {
    let one = |digest: Option<u128>| digest.map_or_else(|| "not there".to_owned(), |digest| format!("{digest:032x}"));
    let (replayed, stored) = (one(difference.left), one(difference.right));
    format!("{}: {replayed} as replayed, {stored} as stored", crate::state::in_words(&difference.place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(last: u64) -> Option<(PathBuf, u64)> {
        Some((PathBuf::from("s"), last))
    }

    #[test]
    fn a_replay_begins_at_the_checkpoint_before_the_entry_that_is_asked_for() {
        let begins =
            |snapshot, first, wanted| start(snapshot, first, wanted).map(|start| start.snapshot.map(|it| it.1));
        assert_eq!(begins(snapshot(99), 50, 0), Ok(Some(99)), "with the snapshot, when nothing is said");
        assert_eq!(begins(snapshot(99), 100, 0), Ok(Some(99)), "the log may begin right behind it");
        assert_eq!(begins(snapshot(99), 50, 100), Ok(Some(99)));
        assert_eq!(begins(snapshot(99), 0, 99), Ok(None), "from the first entry, while the log has it");
        assert_eq!(begins(None, 0, 0), Ok(None));
        assert_eq!(begins(None, 0, 7), Ok(None));
        let purged = begins(snapshot(99), 50, 60).unwrap_err();
        assert!(purged.contains("no checkpoint before entry 60"), "{purged}");
        let gap = begins(snapshot(99), 101, 0).unwrap_err();
        assert!(gap.contains("ends before entry 100") && gap.contains("begins at entry 101"), "{gap}");
        let whole = begins(None, 5, 0).unwrap_err();
        assert!(whole.contains("no snapshot"), "{whole}");
    }
}
