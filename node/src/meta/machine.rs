//! Raft's state machine over [`crate::state`].
//!
//! Owns: nothing of its own: it numbers commands, notes where Raft is, and hands both to the state. A failure here stops
//! Raft for good, and says so through `failed`.

use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, EntryPayload, ErrorSubject, ErrorVerb, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    StorageIOError, StoredMembership,
};
use tokio::sync::watch;

use super::MetaError;
use super::raft::{Entry, Node, Note, RaftNode, StorageError, Stored, TypeConfig};
use super::replicas::Stops;
use super::snapshot::{SnapshotFile, Snapshots};
use super::wire;
use crate::model::{Command, Outcome};
use crate::phase::Damage;
use crate::state::{Applied, Change, SnapshotHead, State};

/// The state machine as openraft sees it.
pub(crate) struct Machine {
    state: State,
    snapshots: Snapshots,
    note: Note,
    stops: Arc<Stops>,
    failed: watch::Sender<Option<String>>,
    /// Whose it is; `None`: a copy's, of which checkers are told nothing.
    #[cfg(any(feature = "audit", feature = "planted-bugs"))]
    member: Option<crate::types::RaftId>,
}

impl Machine {
    pub(crate) fn new(
        state: State,
        snapshots: Snapshots,
        stops: Arc<Stops>,
        failed: watch::Sender<Option<String>>,
    ) -> Result<Self, MetaError> {
        let note = note_of(state.applied().as_ref())?;
        Ok(Self {
            state,
            snapshots,
            note,
            stops,
            failed,
            #[cfg(any(feature = "audit", feature = "planted-bugs"))]
            member: None,
        })
    }

    /// Applies entries in one transaction; `note` says where Raft is then.
    async fn apply_batch(&mut self, changes: Vec<Change>, note: Note) -> Result<Vec<Outcome>, StorageError> {
        let Some(last) = changes.last() else { return Ok(Vec::new()) };
        let bytes = wire::encode(&note).map_err(|error| self.fail(ErrorVerb::Write, &error))?;
        let applied = Applied { index: last.index, note: bytes.to_vec() };
        #[cfg(feature = "planted-bugs")]
        self.take_long().await;
        let outcomes = self.state.apply(changes, applied).await.map_err(|error| self.fail(ErrorVerb::Write, &error))?;
        self.note = note;
        #[cfg(feature = "planted-bugs")]
        self.slip_in().await.map_err(|error| self.fail(ErrorVerb::Write, &error))?;
        #[cfg(feature = "audit")]
        if self.member.is_some() {
            super::facts::applied(&self.state, &self.note).await;
        }
        Ok(outcomes)
    }

    /// This one is the member's own.
    #[cfg(any(feature = "audit", feature = "planted-bugs"))]
    pub(crate) fn of(self, member: crate::types::RaftId) -> Self {
        Self { member: Some(member), ..self }
    }

    /// Until the time is over, or the fault is.
    #[cfg(feature = "planted-bugs")]
    async fn take_long(&self) {
        /// How soon the end of the fault is noticed.
        const LOOK: std::time::Duration = std::time::Duration::from_millis(100);
        let Some(crate::types::RaftId(member)) = self.member else { return };
        let began = tokio::time::Instant::now();
        while began.elapsed() < resilver_host::planted::damage::slowness(member) {
            tokio::time::sleep(LOOK).await;
        }
    }

    #[cfg(feature = "planted-bugs")]
    async fn slip_in(&self) -> Result<(), crate::state::StateError> {
        let Some(crate::types::RaftId(member)) = self.member else { return Ok(()) };
        let Some(slip) = resilver_host::planted::damage::due(member) else { return Ok(()) };
        self.state.slip_in(member, slip).await?;
        resilver_host::audit::state(|| resilver_host::audit::Fact::StateTampered);
        Ok(())
    }

    fn fail(&self, verb: ErrorVerb, error: &(impl std::error::Error + 'static)) -> StorageError {
        self.failed.send_replace(Some(error.to_string()));
        StorageIOError::new(ErrorSubject::StateMachine, verb, AnyError::new(error)).into()
    }
}

/// Where Raft was when this was applied.
pub(crate) fn note_of(applied: Option<&Applied>) -> Result<Note, MetaError> {
    match applied {
        Some(applied) => wire::decode(&applied.note).map_err(|error| {
            MetaError::lost(Damage::Database, "the database does not say where it stands in the log", error)
        }),
        None => Ok(Note::default()),
    }
}

fn snapshot_of(head: &SnapshotHead, file: SnapshotFile) -> Result<Snapshot<TypeConfig>, MetaError> {
    let note = note_of(head.applied.as_ref())?;
    let meta =
        SnapshotMeta { last_log_id: note.log_id, last_membership: note.membership, snapshot_id: head.id.clone() };
    Ok(Snapshot { meta, snapshot: Box::new(file) })
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId<Node>>, Stored), StorageError> {
        Ok((self.note.log_id, self.note.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut note = self.note.clone();
        let (mut changes, mut outcomes) = (Vec::new(), Vec::new());
        for entry in entries {
            note.log_id = Some(entry.log_id);
            let proposal = match entry.payload {
                EntryPayload::Normal(proposal) => Some(proposal),
                EntryPayload::Blank => None,
                EntryPayload::Membership(membership) => {
                    note.membership = StoredMembership::new(Some(entry.log_id), membership);
                    None
                }
            };
            let checkpoint = proposal.as_ref().and_then(|proposal| match proposal.command {
                Command::Checkpoint { id, .. } => Some(id),
                _ => None,
            });
            changes.push(Change { index: entry.log_id.index, proposal });
            // A checkpoint ends its batch: the state is to be kept as of this entry.
            if let Some(id) = checkpoint {
                outcomes.extend(self.apply_batch(std::mem::take(&mut changes), note.clone()).await?);
                if !matches!(outcomes.last(), Some(Outcome::Refused(_))) {
                    self.state.hold(id).await.map_err(|error| self.fail(ErrorVerb::Read, &error))?;
                    self.stops.stop_at(id).await;
                }
            }
        }
        outcomes.extend(self.apply_batch(changes, note).await?);
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { state: self.state.clone(), snapshots: self.snapshots.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError> {
        Ok(Box::new(SnapshotFile { path: self.snapshots.incoming() }))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<Node, RaftNode>,
        snapshot: Box<SnapshotFile>,
    ) -> Result<(), StorageError> {
        let head = self.state.install(&snapshot.path).await.map_err(|error| self.fail(ErrorVerb::Write, &error))?;
        let note = note_of(head.applied.as_ref()).map_err(|error| self.fail(ErrorVerb::Read, &error))?;
        if note.log_id != meta.last_log_id {
            let error = MetaError::Refused { detail: format!("snapshot {} is not the one offered", head.id) };
            return Err(self.fail(ErrorVerb::Write, &error));
        }
        self.note = note;
        #[cfg(feature = "audit")]
        super::facts::installed(&self.state, &self.note).await;
        self.snapshots.adopt(&snapshot.path, head).await.map_err(|error| self.fail(ErrorVerb::Write, &error))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let Some((head, file)) = self.snapshots.current() else { return Ok(None) };
        snapshot_of(&head, file).map(Some).map_err(|error| self.fail(ErrorVerb::Read, &error))
    }
}

/// Builds a snapshot from one read transaction, while entries go on being applied.
pub(crate) struct Builder {
    state: State,
    snapshots: Snapshots,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let failed = |error: MetaError| StorageError::from(StorageIOError::write_snapshot(None, AnyError::new(&error)));
        let (head, file) = self.snapshots.build(&self.state).await.map_err(failed)?;
        snapshot_of(&head, file).map_err(failed)
    }
}
