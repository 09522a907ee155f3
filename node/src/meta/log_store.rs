//! Raft's log storage over [`crate::log`].
//!
//! Owns: how entries, the vote and the last purged id are written as bytes. Invariants: an append is durable before its
//! callback, callbacks come in order, and both before the call returns; the log is purged only below what the state
//! machine holds durably ([`PurgeGate`]): openraft purges right after it has *queued* a snapshot's installation.

// openraft's own error type, which its traits demand.
#![allow(clippy::result_large_err)]

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogId, LogState, OptionalSend, RaftLogReader, StorageIOError, Vote};
use resilver_host::Disk;
use resilver_host::audit::{self, Fact};
use tokio::sync::watch;

use super::raft::{Entry, Node, StorageError, TypeConfig};
use super::wire::{self, WireError};
use super::{MetaError, facts};
use crate::log::{Damage as LogDamage, LogError, LogStore, Record, Reread, Unfit, VoteFile};
use crate::phase::Damage;

/// The most bytes of entries read for one append: well under a message, so that an append of many fits.
pub(crate) const READ_BYTES: u64 = 1024 * 1024;

/// Holds a purge back until the state machine is durable that far.
#[derive(Clone)]
pub(crate) struct PurgeGate {
    /// Up to where it is durable.
    pub(crate) durable: watch::Receiver<Option<u64>>,
    /// Why it will never get there, once that is known.
    pub(crate) failed: watch::Receiver<Option<String>>,
}

impl PurgeGate {
    async fn pass(&mut self, index: u64) -> Result<(), StorageError> {
        let stopped = |reason: &str| StorageError::from(StorageIOError::write_logs(AnyError::error(reason)));
        let failed = async {
            match self.failed.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or_default(),
                Err(_) => "the state machine is gone".to_owned(),
            }
        };
        tokio::select! {
            durable = self.durable.wait_for(|durable| *durable >= Some(index)) => match durable {
                Ok(_) => Ok(()),
                Err(_) => Err(stopped("the state machine is gone")),
            },
            reason = failed => Err(stopped(&reason)),
        }
    }
}

/// Judges records, one after another, as the entries that they are: each at its own index, in terms that never fall.
#[derive(Default)]
pub(super) struct InOrder {
    /// Index and term of the last.
    last: Option<(u64, u64)>,
}

impl InOrder {
    pub(super) fn judge(&mut self, index: u64, payload: &[u8]) -> Result<(), Unfit> {
        let unfit = |what: String, expected: String, got: String| Err(Unfit { what, expected, got });
        // The log id is what an entry begins with.
        let id: LogId<Node> = match wire::decode_first(payload) {
            Ok(id) => id,
            // Not damage: whoever decodes the whole of it tells of which release it is.
            Err(WireError::Format { .. }) => return Ok(()),
            Err(error) => return unfit(format!("entry {index}"), "an entry".to_owned(), error.to_string()),
        };
        let term = id.leader_id.term;
        if id.index != index {
            return unfit(format!("index of entry {index}"), index.to_string(), id.index.to_string());
        }
        if let Some((before, least)) = self.last
            && before.checked_add(1) == Some(index)
            && term < least
        {
            return unfit(format!("term of entry {index}"), format!("{least} or later"), term.to_string());
        }
        self.last = Some((index, term));
        Ok(())
    }
}

/// The log and the vote as openraft sees them. Clones read the same log.
#[derive(Clone)]
pub(crate) struct LogAdapter {
    log: LogStore,
    vote_file: Arc<VoteFile>,
    vote: Arc<Mutex<Option<Vote<Node>>>>,
    committed: Arc<AtomicU64>,
    gate: PurgeGate,
}

impl LogAdapter {
    pub(crate) fn new(log: LogStore, vote_file: VoteFile, vote: Option<Vote<Node>>, gate: PurgeGate) -> Self {
        Self { log, vote_file: Arc::new(vote_file), vote: Arc::new(Mutex::new(vote)), committed: Arc::default(), gate }
    }

    /// The vote as it is on disk; none before the first.
    pub(super) fn vote(&self) -> Option<Vote<Node>> {
        *self.vote.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The highest index known to be committed; 0 before any.
    pub(crate) fn committed(&self) -> Arc<AtomicU64> {
        self.committed.clone()
    }

    async fn read(&self, start: u64, end: u64, max_bytes: u64) -> Result<Vec<Entry>, StorageError> {
        let range = start.max(self.log.first())..end.min(self.log.next());
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let records = self.log.read(range, max_bytes).await.map_err(|error| reading(&error))?;
        records.iter().map(decode).collect()
    }

    /// Entries of a part of the log, as many as one read takes. Damage is told apart: it is a lost voter's.
    pub(super) async fn entries(&self, start: u64, end: u64) -> Result<Vec<Entry>, MetaError> {
        let range = start.max(self.log.first())..end.min(self.log.next());
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let records = self.log.read(range, READ_BYTES).await?;
        let unread = |error: StorageError| MetaError::lost(Damage::Log, "an entry of the log cannot be read", error);
        records.iter().map(decode).collect::<Result<_, _>>().map_err(unread)
    }

    /// Index of the first entry that was not purged.
    pub(super) fn first(&self) -> u64 {
        self.log.first()
    }

    /// Reads the first segment numbered `from` or later back; see [`LogStore::reread`].
    ///
    /// Each segment by itself: the log may be cut between two of them, and what follows then need not fit what was read before.
    pub(super) async fn reread(&self, from: u64) -> Result<Option<Reread>, LogError> {
        let mut order = InOrder::default();
        self.log.reread(from, &mut |index, payload| order.judge(index, payload)).await
    }

    /// Compares both copies of the header, and both of the vote, with what this member knows: what was wrong with one, and was
    /// mended.
    pub(super) async fn reread_slots(&self, disk: &dyn Disk) -> Result<Vec<LogDamage>, LogError> {
        let (header, vote) = (self.log.reread_header().await?, self.vote_file.reread(disk).await?);
        Ok(header.into_iter().chain(vote).collect())
    }

    fn purged(&self) -> Result<Option<LogId<Node>>, StorageError> {
        decode_note(&self.log.note()).map_err(|error| reading(&error))
    }
}

fn reading(error: &(impl std::error::Error + 'static)) -> StorageError {
    StorageIOError::read_logs(AnyError::new(error)).into()
}

fn writing(error: &(impl std::error::Error + 'static)) -> StorageError {
    StorageIOError::write_logs(AnyError::new(error)).into()
}

fn decode(record: &Record) -> Result<Entry, StorageError> {
    let entry: Entry = wire::decode(&record.payload).map_err(|error| reading(&error))?;
    if entry.log_id.index != record.index {
        let detail = format!("record {} holds entry {}", record.index, entry.log_id.index);
        return Err(StorageIOError::read_log_at_index(record.index, AnyError::error(detail)).into());
    }
    Ok(entry)
}

/// The last purged id from the log's note; an empty note is none.
pub(crate) fn decode_note(note: &[u8]) -> Result<Option<LogId<Node>>, WireError> {
    if note.is_empty() { Ok(None) } else { wire::decode(note).map(Some) }
}

impl RaftLogReader<TypeConfig> for LogAdapter {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let mut entries = Vec::new();
        loop {
            let run = self.read(start, end, READ_BYTES).await?;
            let Some(last) = run.last() else { return Ok(entries) };
            start = last.log_id.index + 1;
            entries.extend(run);
        }
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.read(start, end, READ_BYTES).await
    }
}

impl RaftLogStorage<TypeConfig> for LogAdapter {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let last_purged_log_id = self.purged()?;
        let next = self.log.next();
        let last = if next > self.log.first() { self.read(next - 1, next, READ_BYTES).await?.pop() } else { None };
        let last_log_id = last.map(|entry| entry.log_id).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<Node>) -> Result<(), StorageError> {
        let failed = |error: AnyError| StorageError::from(StorageIOError::write_vote(error));
        let bytes = wire::encode(vote).map_err(|error| failed(AnyError::new(&error)))?;
        self.vote_file.write(bytes).await.map_err(|error| failed(AnyError::new(&error)))?;
        audit::state(|| Fact::VoteStored { vote: facts::vote(vote) });
        *self.vote.lock().unwrap_or_else(PoisonError::into_inner) = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<Node>>, StorageError> {
        Ok(self.vote())
    }

    /// For people only: it is not kept, since the state machine knows how far it got.
    async fn save_committed(&mut self, committed: Option<LogId<Node>>) -> Result<(), StorageError> {
        self.committed.store(committed.map_or(0, |id| id.index), Ordering::Relaxed);
        if let Some(id) = &committed {
            audit::state(|| Fact::Committed { id: facts::log_id(id) });
        }
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records: Result<Vec<Record>, WireError> = entries
            .into_iter()
            .map(|entry| Ok(Record { index: entry.log_id.index, payload: wire::encode(&entry)? }))
            .collect();
        let records = records.map_err(|error| writing(&error))?;
        let appended = facts::appended(&records);
        self.log.append(records).await.map_err(|error| writing(&error))?;
        appended.state();
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<Node>) -> Result<(), StorageError> {
        audit::state(|| Fact::Truncating { from: log_id.index });
        self.log.truncate(log_id.index).await.map_err(|error| writing(&error))?;
        audit::state(|| Fact::Truncated { from: log_id.index });
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId<Node>) -> Result<(), StorageError> {
        self.gate.pass(log_id.index).await?;
        let note = wire::encode(&log_id).map_err(|error| writing(&error))?;
        // Beyond the end: a snapshot took this member further than its log ever reached.
        let purged = if log_id.index >= self.log.next() {
            self.log.reset(log_id.index + 1, note).await
        } else {
            self.log.purge(log_id.index, note).await
        };
        purged.map_err(|error| writing(&error))?;
        audit::state(|| Fact::Purged { through: facts::log_id(&log_id) });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, EntryPayload};

    use super::*;

    fn entry(term: u64, index: u64) -> Vec<u8> {
        let log_id = LogId::new(CommittedLeaderId::new(term, 1), index);
        wire::encode(&Entry { log_id, payload: EntryPayload::Blank }).unwrap().to_vec()
    }

    #[test]
    fn terms_never_fall_from_one_entry_to_the_next_and_every_entry_is_at_its_index() {
        let mut order = InOrder::default();
        for (term, index) in [(1, 5), (1, 6), (4, 7)] {
            order.judge(index, &entry(term, index)).unwrap();
        }
        let fell = order.judge(8, &entry(3, 8)).unwrap_err();
        assert_eq!(
            (fell.what.as_str(), fell.expected.as_str(), fell.got.as_str()),
            ("term of entry 8", "4 or later", "3")
        );
        assert!(order.judge(8, &entry(4, 9)).unwrap_err().what.contains("index of entry 8"));
        // Looked at anew from an earlier one: nothing lies between them.
        order.judge(3, &entry(1, 3)).unwrap();
        assert!(order.judge(4, &[wire::WIRE_FORMAT]).unwrap_err().got.contains("cannot be read"));
        // Of another release: told as that, not as damage.
        order.judge(4, &[wire::WIRE_FORMAT - 1, 0]).unwrap();
    }
}
