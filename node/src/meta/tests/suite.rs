//! openraft's own conformance suite against our storage.

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{Entry, EntryPayload, LogId, LogState, OptionalSend, RaftLogReader, Vote};
use tokio::sync::watch;

use super::super::log_store::{LogAdapter, PurgeGate};
use super::super::machine::Machine;
use super::super::raft::{Node, StorageError, TypeConfig};
use super::super::snapshot::Snapshots;
use super::host;
use crate::log::{LogOptions, LogStore, VoteFile};
use crate::state::{Owner, State};
use crate::types::{ClusterId, RaftId};

/// The suite begins logs in the middle, and begins them again; ours has no holes and overwrites nothing. This fills holes
/// with blank entries, truncates before what comes again, drops what is purged already, and is otherwise our log.
struct Filled {
    log: LogAdapter,
    store: LogStore,
}

impl RaftLogReader<TypeConfig> for Filled {
    async fn try_get_log_entries<R>(&mut self, range: R) -> Result<Vec<Entry<TypeConfig>>, StorageError>
    where
        R: std::ops::RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend,
    {
        self.log.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry<TypeConfig>>, StorageError> {
        self.log.limited_get_log_entries(start, end).await
    }
}

impl RaftLogStorage<TypeConfig> for Filled {
    type LogReader = LogAdapter;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        self.log.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> LogAdapter {
        self.log.get_log_reader().await
    }

    async fn save_vote(&mut self, vote: &Vote<Node>) -> Result<(), StorageError> {
        self.log.save_vote(vote).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<Node>>, StorageError> {
        self.log.read_vote().await
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let first = self.store.first();
        let entries: Vec<_> = entries.into_iter().filter(|entry| entry.log_id.index >= first).collect();
        if let Some(first) = entries.first().filter(|first| first.log_id.index < self.store.next()) {
            self.log.truncate(first.log_id).await?;
        }
        let mut filled = Vec::new();
        let mut next = self.store.next();
        for entry in entries {
            for index in next..entry.log_id.index {
                let log_id = LogId::new(entry.log_id.leader_id, index);
                filled.push(Entry { log_id, payload: EntryPayload::Blank });
            }
            next = entry.log_id.index + 1;
            filled.push(entry);
        }
        self.log.append(filled, callback).await
    }

    async fn truncate(&mut self, log_id: LogId<Node>) -> Result<(), StorageError> {
        self.log.truncate(log_id).await
    }

    async fn purge(&mut self, log_id: LogId<Node>) -> Result<(), StorageError> {
        self.log.purge(log_id).await
    }
}

struct Folders;

/// What must live as long as a store of the suite: its folder, and the senders behind its watches.
struct Guard {
    _dir: tempfile::TempDir,
    _durable: watch::Sender<Option<u64>>,
}

impl StoreBuilder<TypeConfig, Filled, Machine, Guard> for Folders {
    async fn build(&self) -> Result<(Guard, Filled, Machine), StorageError> {
        let host = host();
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner { cluster: ClusterId(1), raft_id: RaftId(0) };
        let state = State::create(&host, &dir.path().join("state.redb"), owner).await.unwrap();
        let (store, _) = LogStore::open(&host, &dir.path().join("log"), LogOptions::default()).await.unwrap();
        let (vote_file, _) = VoteFile::open(&host, &dir.path().join("log")).await.unwrap();
        let snapshots = Snapshots::open(&host, &dir.path().join("snapshots"), "s".to_owned(), 0).await.unwrap();
        // The suite purges what was never applied.
        let (durable_tx, durable) = watch::channel(Some(u64::MAX));
        let (failed_tx, failed) = watch::channel(None);
        let log = LogAdapter::new(store.clone(), vote_file, None, PurgeGate { durable, failed });
        let machine = Machine::new(state, snapshots, std::sync::Arc::default(), failed_tx).unwrap();
        Ok((Guard { _dir: dir, _durable: durable_tx }, Filled { log, store }, machine))
    }
}

#[test]
fn our_storage_is_what_openraft_expects() {
    Suite::test_all(Folders).unwrap();
}
