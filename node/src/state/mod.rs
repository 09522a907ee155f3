//! The state machine: what the cluster agreed upon, in redb.
//!
//! Owns: the database file, the tables, applying ([`apply`]), reading ([`query`]), and copying the state out and in
//! ([`snapshot`]). Knows nothing of Raft: it is handed numbered commands and a note to keep beside them.
//!
//! Must never: apply out of order, or let a command take effect without the index that carried it: both are in one
//! transaction. Applying commits without durability; [`State::flush`] makes everything so far durable. After a crash the
//! state is exactly that of its last flush, and the log brings it forward again.
//!
//! Invariant: at most one open database per file. [`State::close`] waits for what is running and closes; a `State`
//! dropped without it writes nothing any more.

mod apply;
mod backend;
mod buckets;
mod compact;
mod complete;
mod counts;
#[cfg(feature = "audit")]
mod digest;
mod epoch;
mod error;
mod hosts;
mod keys;
mod leaving;
mod listing;
mod locks;
mod members;
mod merkle;
mod objects;
mod pages;
mod pauses;
mod placed;
mod query;
mod reread;
mod sessions;
mod snapshot;
mod tables;
#[cfg(test)]
mod tests;
mod uploads;
mod validate;
mod views;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::{Database, Durability, ReadTransaction, ReadableDatabase, TableHandle, WriteTransaction};
use resilver_host::audit::{self, Fact};
use resilver_host::{Host, OpenMode};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::apply::Work;
use self::backend::{Backend, Seal};
use self::counts::Totals;
use self::merkle::LEAVES;
use self::pages::Pages;
use self::placed::{Placed, Told};
use self::tables::{
    CLUSTER, KEY_APPLIED, KEY_FORMAT, KEY_MAP, KEY_OWNER, KEY_TOTALS, LOCAL, LOCKS, REPLICATED, Tables, get, put,
};
use crate::model::{ClusterMap, FORMAT, LockTable, Outcome};
use crate::steps::Counter;
use crate::types::{ClusterId, RaftId};

pub use self::apply::FIRST_EPOCH;
pub use self::counts::Counts;
pub(crate) use self::epoch::NewEpoch;
pub use self::epoch::{Description, describe};
pub use self::error::StateError;
pub use self::listing::{Entry, ListQuery, Page, PartPage, UploadEntry, UploadPage, UploadQuery};
pub(crate) use self::merkle::shards;
pub(crate) use self::merkle::{Range, Stretch, Sum, TOP, fold, in_words, root, unequal};
pub(crate) use self::placed::{PlacedShard, Unsettled};
pub use self::query::Scan;
pub use self::sessions::Proposal;
pub(crate) use self::snapshot::{SnapshotHead, inspect};
pub use self::validate::{StateFinding, Validation};
use self::views::Views;
pub(crate) use self::views::{Held, PatchError, StateRecord};

/// redb's cache. An idle node must stay under 64 MiB in all, and the working set of metadata is small.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// The first Raft id handed out. The founder's.
pub const FIRST_RAFT_ID: RaftId = RaftId(1);

/// Whose database a file is: a folder copied to another node is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub raft_id: RaftId,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "member {} of cluster {}", self.raft_id, self.cluster)
    }
}

/// What was applied last: the log index, and whatever the caller needs to find its place again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Index of the last entry applied.
    pub index: u64,
    /// The caller's own record, returned as it is.
    pub note: Vec<u8>,
}

/// One entry of the log to apply. Entries that carry no command still move the index.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its index.
    pub index: u64,
    /// Its command, if it carries one.
    pub proposal: Option<Proposal>,
}

/// The map with the counter that belongs to it, as stored.
#[derive(Serialize, Deserialize)]
struct StoredMap {
    map: Arc<ClusterMap>,
    next_raft_id: u64,
}

/// The small records, held in memory by the one who applies.
#[derive(Clone)]
struct Memory {
    map: Arc<ClusterMap>,
    next_raft_id: u64,
    totals: Totals,
    locks: Arc<LockTable>,
    applied: Option<Applied>,
    /// What the present transaction changes of what is placed.
    told: Told,
}

/// A handle to the state. Cheap to clone.
#[derive(Clone)]
pub struct State {
    inner: Arc<Inner>,
}

struct Inner {
    host: Host,
    seal: Seal,
    pages: Arc<Pages>,
    database: RwLock<Option<Database>>,
    /// Held from the beginning of a write transaction until memory says what it committed. redb's own lock ends with the
    /// commit: a flush that published its unchanged memory after the next batch had published its own took that batch
    /// back.
    writing: Mutex<()>,
    memory: Mutex<Memory>,
    map: watch::Sender<Arc<ClusterMap>>,
    locks: watch::Sender<Arc<LockTable>>,
    applied: watch::Sender<Option<u64>>,
    durable: watch::Sender<Option<u64>>,
    max_outcomes: u64,
    views: Mutex<Views>,
    placed: Mutex<Placed>,
    /// Moments kept so far.
    holds: watch::Sender<u64>,
    /// A copy, of which checkers are told nothing.
    apart: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.seal.close();
    }
}

impl State {
    /// Makes an empty database for a member that has none yet.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub async fn create(host: &Host, path: &Path, owner: Owner) -> Result<Self, StateError> {
        Self::start(host, path, OpenMode::Create, owner, (false, Arc::default())).await
    }

    /// The same, for a copy that is none of the member's own: checkers are not told what it holds.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub async fn create_apart(host: &Host, path: &Path, owner: Owner) -> Result<Self, StateError> {
        Self::start(host, path, OpenMode::Create, owner, (true, Arc::default())).await
    }

    /// Opens the database of a member, every page's checksum verified.
    ///
    /// # Errors
    /// [`StateError::is_damage`] when it must not be built upon; [`StateError::TooNew`] when it is not ours to read.
    pub async fn open(host: &Host, path: &Path, owner: Owner) -> Result<Self, StateError> {
        Self::open_counted(host, path, owner, Arc::default()).await
    }

    /// The same, counting the bytes that were read for it.
    pub(crate) async fn open_counted(
        host: &Host,
        path: &Path,
        owner: Owner,
        counter: Arc<Counter>,
    ) -> Result<Self, StateError> {
        Self::start(host, path, OpenMode::Write, owner, (false, counter)).await
    }

    async fn start(
        host: &Host,
        path: &Path,
        mode: OpenMode,
        owner: Owner,
        (apart, counter): (bool, Arc<Counter>),
    ) -> Result<Self, StateError> {
        let seal = Seal::default();
        let (database, pages, memory) = {
            let (host_, path, seal) = (host.clone(), path.to_path_buf(), seal.clone());
            host.blocking(move || open_database(&host_, &path, mode, (seal, counter), owner)).await?
        };
        let applied = memory.applied.as_ref().map(|applied| applied.index);
        Ok(Self {
            inner: Arc::new(Inner {
                host: host.clone(),
                seal,
                pages,
                database: RwLock::new(Some(database)),
                map: watch::Sender::new(memory.map.clone()),
                locks: watch::Sender::new(memory.locks.clone()),
                writing: Mutex::new(()),
                memory: Mutex::new(memory),
                applied: watch::Sender::new(applied),
                durable: watch::Sender::new(applied),
                max_outcomes: sessions::MAX_OUTCOMES,
                views: Mutex::default(),
                placed: Mutex::default(),
                holds: watch::Sender::new(0),
                apart,
            }),
        })
    }

    /// Applies entries, in order, in one transaction without durability; one outcome for each.
    ///
    /// # Errors
    /// When the database fails: nothing of the batch is then applied, and the state machine must stop.
    pub async fn apply(&self, changes: Vec<Change>, applied: Applied) -> Result<Vec<Outcome>, StateError> {
        let max_outcomes = self.inner.max_outcomes;
        self.write(Durability::None, move |txn, memory| {
            let tables = Tables::open(txn)?;
            let mut work = Work {
                tables,
                map: memory.map.clone(),
                next_raft_id: memory.next_raft_id,
                totals: memory.totals.clone(),
                locks: memory.locks.clone(),
                told: memory.told.clone(),
                max_outcomes,
            };
            let mut outcomes = Vec::with_capacity(changes.len());
            for change in &changes {
                outcomes.push(match &change.proposal {
                    Some(proposal) => apply::apply(&mut work, change.index, proposal)?,
                    None => Outcome::Done,
                });
            }
            if !Arc::ptr_eq(&work.map, &memory.map) {
                let stored = StoredMap { map: work.map.clone(), next_raft_id: work.next_raft_id };
                put(&mut work.tables.cluster, KEY_MAP, &stored)?;
            }
            if work.totals != memory.totals {
                put(&mut work.tables.cluster, KEY_TOTALS, &work.totals)?;
            }
            put(&mut work.tables.cluster, KEY_APPLIED, &applied)?;
            *memory = Memory {
                map: work.map,
                next_raft_id: work.next_raft_id,
                totals: work.totals,
                locks: work.locks,
                applied: Some(applied.clone()),
                told: work.told,
            };
            Ok(outcomes)
        })
        .await
    }

    /// Makes everything applied so far durable.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn flush(&self) -> Result<(), StateError> {
        if *self.inner.durable.borrow() == *self.inner.applied.borrow() {
            return Ok(());
        }
        self.write(Durability::Immediate, |_, _| Ok(())).await
    }

    /// What was applied last.
    pub fn applied(&self) -> Option<Applied> {
        self.inner.memory.lock().unwrap_or_else(PoisonError::into_inner).applied.clone()
    }

    /// Follows the index applied last.
    pub fn applied_changes(&self) -> watch::Receiver<Option<u64>> {
        self.inner.applied.subscribe()
    }

    /// Follows the index up to which the state would survive a crash.
    pub fn durable_changes(&self) -> watch::Receiver<Option<u64>> {
        self.inner.durable.subscribe()
    }

    /// The cluster map.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.inner.map.borrow().clone()
    }

    /// Follows the cluster map.
    pub fn map_changes(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.inner.map.subscribe()
    }

    /// Every lock that is held.
    pub fn locks(&self) -> Arc<LockTable> {
        self.inner.locks.borrow().clone()
    }

    /// Follows the locks.
    pub fn lock_changes(&self) -> watch::Receiver<Arc<LockTable>> {
        self.inner.locks.subscribe()
    }

    /// The totals.
    pub fn counts(&self) -> Counts {
        self.inner.memory.lock().unwrap_or_else(PoisonError::into_inner).totals.counts.clone()
    }

    /// Waits for what is running, then closes the database. Later calls answer [`StateError::Closed`].
    pub async fn close(&self) {
        let inner = self.inner.clone();
        self.inner
            .host
            .blocking(move || {
                let database = inner.database.write().unwrap_or_else(PoisonError::into_inner).take();
                inner.views.lock().unwrap_or_else(PoisonError::into_inner).clear();
                drop(database);
                inner.seal.close();
            })
            .await;
    }

    /// Runs `work` on one read transaction, off the event loop.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        self.look(move |_, database| work(&database.begin_read()?)).await
    }

    /// Runs `work` off the event loop while the database is open: [`State::close`] waits for it.
    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &Database) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let inner = self.inner.clone();
        self.inner
            .host
            .blocking(move || {
                let database = inner.database.read().unwrap_or_else(PoisonError::into_inner);
                work(&inner, database.as_ref().ok_or(StateError::Closed)?)
            })
            .await
    }

    /// Runs `work` in a write transaction, off the event loop. Memory and watchers follow only after the commit.
    async fn write<T: Send + 'static>(
        &self,
        durability: Durability,
        work: impl FnOnce(&WriteTransaction, &mut Memory) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let inner = self.inner.clone();
        self.inner
            .host
            .blocking(move || {
                let database = inner.database.read().unwrap_or_else(PoisonError::into_inner);
                let database = database.as_ref().ok_or(StateError::Closed)?;
                let _writing = inner.writing.lock().unwrap_or_else(PoisonError::into_inner);
                let mut txn = database.begin_write()?;
                txn.set_durability(durability)?;
                let mut memory = inner.memory.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let result = work(&txn, &mut memory)?;
                txn.commit()?;
                inner.publish(memory, durability);
                Ok(result)
            })
            .await
    }
}

impl Inner {
    fn publish(&self, mut memory: Memory, durability: Durability) {
        self.placed.lock().unwrap_or_else(PoisonError::into_inner).follow(&mut memory.told);
        let applied = memory.applied.as_ref().map(|applied| applied.index);
        let (map, locks) = (memory.map.clone(), memory.locks.clone());
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = memory;
        self.map.send_if_modified(|known| {
            let changed = !Arc::ptr_eq(known, &map);
            *known = map;
            changed
        });
        self.locks.send_if_modified(|known| {
            let changed = !Arc::ptr_eq(known, &locks);
            *known = locks;
            changed
        });
        self.applied.send_replace(applied);
        if matches!(durability, Durability::Immediate) {
            if !self.apart {
                audit::state(|| Fact::StateDurable { applied });
            }
            self.durable.send_replace(applied);
        }
    }
}

/// Opens and verifies the file. A page that redb cannot make sense of may panic inside it: that too is damage.
fn open_database(
    host: &Host,
    path: &Path,
    mode: OpenMode,
    (seal, counter): (Seal, Arc<Counter>),
    owner: Owner,
) -> Result<(Database, Arc<Pages>, Memory), StateError> {
    let sealed = seal.clone();
    let backend = Backend::open(host, path, mode, (seal, counter)).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => StateError::Missing { path: path.to_path_buf() },
        _ => StateError::Io { what: "opening", path: path.to_path_buf(), source },
    })?;
    let empty = redb::StorageBackend::len(&backend).map_err(|source| StateError::Io {
        what: "measuring",
        path: path.to_path_buf(),
        source,
    })? == 0;
    if empty && mode == OpenMode::Write {
        return Err(StateError::Corrupt { table: "the file", detail: format!("{} is empty", path.display()) });
    }
    let (admission, pages) = (backend.admission(), backend.pages());
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        // After a crash the engine verifies every page itself, and says so: to read all of them twice gains nothing.
        let verified = Arc::new(AtomicBool::new(false));
        let repaired = verified.clone();
        let mut database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_repair_callback(move |_| repaired.store(true, Ordering::Relaxed))
            .create_with_backend(backend)?;
        if !empty && !verified.load(Ordering::Relaxed) && !database.check_integrity()? {
            let detail = "its pages contradict their checksums".to_owned();
            return Err(StateError::Corrupt { table: "the file", detail });
        }
        let memory = if empty { initialise(&database, owner)? } else { load(&database, owner)? };
        // Whole, of our format, ours: only now may anything of this reach the file.
        admission.admit().map_err(|source| {
            sealed.close();
            StateError::Io { what: "opening", path: path.to_path_buf(), source }
        })?;
        Ok((database, pages, memory))
    }));
    opened.unwrap_or_else(|_| {
        let detail = "the database engine gave up on its pages".to_owned();
        Err(StateError::Corrupt { table: "the file", detail })
    })
}

/// Writes what even an empty state has.
fn initialise(database: &Database, owner: Owner) -> Result<Memory, StateError> {
    let memory = Memory {
        map: Arc::default(),
        next_raft_id: FIRST_RAFT_ID.0,
        totals: Totals::default(),
        locks: Arc::default(),
        applied: None,
        told: Told::default(),
    };
    let txn = database.begin_write()?;
    {
        let mut local = txn.open_table(LOCAL)?;
        local.insert(KEY_FORMAT, FORMAT.to_le_bytes().as_slice())?;
        put(&mut local, KEY_OWNER, &owner)?;
        for (_, table) in REPLICATED {
            txn.open_table(table)?;
        }
        let mut cluster = txn.open_table(CLUSTER)?;
        put(&mut cluster, KEY_MAP, &StoredMap { map: memory.map.clone(), next_raft_id: memory.next_raft_id })?;
        put(&mut cluster, KEY_TOTALS, &memory.totals)?;
    }
    merkle::rebuild(&txn)?;
    txn.commit()?;
    Ok(memory)
}

/// Checks whose it is and of which format, and reads the small records.
fn load(database: &Database, owner: Owner) -> Result<Memory, StateError> {
    let txn = database.begin_read()?;
    let local = txn.open_table(LOCAL)?;
    let format = local.get(KEY_FORMAT)?.map(|guard| guard.value().to_vec()).unwrap_or_default();
    let format = <[u8; 2]>::try_from(format.as_slice())
        .map(u16::from_le_bytes)
        .map_err(|_| StateError::Corrupt { table: "local", detail: "there is no format in it".to_owned() })?;
    if format > FORMAT {
        return Err(StateError::TooNew { found: format, known: FORMAT });
    }
    if format < FORMAT {
        return Err(StateError::TooOld { found: format, known: FORMAT });
    }
    let found: Option<Owner> = get(&local, "local", KEY_OWNER)?;
    match found {
        Some(found) if found == owner => {}
        Some(found) => return Err(StateError::Foreign { found: found.to_string(), expected: owner.to_string() }),
        None => return Err(StateError::Corrupt { table: "local", detail: "there is no owner in it".to_owned() }),
    }
    drop(local);
    drop(txn);
    add_tables(database)?;
    let txn = database.begin_read()?;
    read_memory(&txn.open_table(CLUSTER)?, &txn.open_table(LOCKS)?)
}

/// Makes the tables that a database of an earlier release does not have: they were added without a new format, because
/// an empty one says the same as none, and leaves are made of what there is.
fn add_tables(database: &Database) -> Result<(), StateError> {
    let txn = database.begin_read()?;
    let there: BTreeSet<String> = txn.list_tables()?.map(|table| table.name().to_owned()).collect();
    drop(txn);
    if REPLICATED.iter().all(|(_, table)| there.contains(table.name())) && there.contains(LEAVES.name()) {
        return Ok(());
    }
    let txn = database.begin_write()?;
    for (_, table) in REPLICATED {
        txn.open_table(table)?;
    }
    merkle::rebuild(&txn)?;
    txn.commit()?;
    Ok(())
}

fn read_memory(
    cluster: &impl redb::ReadableTable<&'static [u8], &'static [u8]>,
    locks: &impl redb::ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<Memory, StateError> {
    let absent = |what: &str| StateError::Corrupt { table: "cluster", detail: format!("there is no {what} in it") };
    let stored: StoredMap = get(cluster, "cluster", KEY_MAP)?.ok_or_else(|| absent("map"))?;
    let totals: Totals = get(cluster, "cluster", KEY_TOTALS)?.ok_or_else(|| absent("record of totals"))?;
    let applied: Option<Applied> = get(cluster, "cluster", KEY_APPLIED)?;
    let locks = Arc::new(locks::read_locks(cluster, locks)?);
    Ok(Memory { map: stored.map, next_raft_id: stored.next_raft_id, totals, locks, applied, told: Told::default() })
}
