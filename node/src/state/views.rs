//! Moments that are kept: what members compare, and what one that differs is mended by.
//!
//! A checkpoint is an entry of the log. Whoever applies it keeps a read transaction of exactly that moment for a while, so
//! that members compare the same moment however far each has gone on since.
//!
//! Must never: keep a moment for longer than [`VIEW_LIFE`]: it pins old pages of the database. Write a patch that does not
//! come to what was expected of it: it is one transaction, and then none.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redb::{Durability, ReadTransaction, ReadableDatabase, WriteTransaction};
use resilver_host::audit::{self, Fact};
use resilver_host::planted::{Bug, bug};
use tokio::time::Instant;

use super::merkle::{self, LEAVES, Range, Stretch, Sum};
use super::tables::{CLUSTER, LOCKS, REPLICATED, unseal};
use super::{Applied, State, StateError, read_memory, snapshot};

/// How long a moment is kept: a comparison that reads every record anew takes some seconds per million objects.
pub(crate) const VIEW_LIFE: Duration = Duration::from_secs(120);
/// Moments kept at once. With another the one goes that was asked for least lately: agents look by themselves, several in a second where
/// they are told to, and must not take a moment away from whoever mends by it or proves by it. What all of them pin is what the
/// oldest pins; each costs its leaves beside that.
pub(super) const MAX_VIEWS: usize = 8;

/// All moments that are kept, by checkpoint.
#[derive(Default)]
pub(super) struct Views(BTreeMap<u128, Held>);

impl Views {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// One moment.
#[derive(Clone)]
pub(crate) struct Held {
    txn: Arc<ReadTransaction>,
    since: Instant,
    used: Instant,
    /// What was applied last.
    pub(crate) applied: Applied,
    kept: Arc<Mutex<Option<Arc<Vec<Range>>>>>,
    recomputed: Arc<Mutex<Option<Arc<Vec<Range>>>>>,
}

impl Held {
    fn now(txn: ReadTransaction) -> Result<Self, StateError> {
        let applied = read_memory(&txn.open_table(CLUSTER)?, &txn.open_table(LOCKS)?)?.applied;
        let (txn, since, applied) = (Arc::new(txn), Instant::now(), applied.unwrap_or_default());
        Ok(Self { txn, since, used: since, applied, kept: Arc::default(), recomputed: Arc::default() })
    }
}

/// One record of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateRecord {
    /// Where it lies in the order of all records.
    pub(crate) place: Vec<u8>,
    /// Its digest.
    pub(crate) digest: u128,
    /// Its value, where it was asked for.
    pub(crate) value: Vec<u8>,
}

/// A key, and the value that is to be there.
type Row<'a> = (&'a [u8], Option<&'a Vec<u8>>);

/// Why a patch was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PatchError {
    /// It would not have come to what it was to come to.
    #[error("there would be {} records of digest {:032x} with it, and there should be {} of {:032x}; nothing was changed",
        .found.0.records, .found.0.digest, .found.1.records, .found.1.digest)]
    Unlike {
        /// As it would be, and as it should be.
        found: Box<(Sum, Sum)>,
    },
    /// The state is not any more what was compared.
    #[error("it was made for entry {at}, and the state is that of entry {now}; nothing was changed")]
    Late {
        /// Where it is.
        now: u64,
        /// Where it was to be.
        at: u64,
    },
    /// The database failed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl State {
    /// The present moment, under no name: its pages are pinned until this is dropped, so not for long.
    pub(crate) async fn moment(&self) -> Result<Held, StateError> {
        self.look(|_, database| Held::now(database.begin_read()?)).await
    }

    /// Keeps the present moment under this name.
    pub(crate) async fn hold(&self, checkpoint: u128) -> Result<(), StateError> {
        self.look(move |inner, database| {
            let held = Held::now(database.begin_read()?)?;
            let mut views = inner.views.lock().unwrap_or_else(PoisonError::into_inner);
            while views.0.len() >= MAX_VIEWS {
                let idlest = views.0.iter().min_by_key(|(_, held)| held.used).map(|(id, _)| *id);
                idlest.and_then(|id| views.0.remove(&id));
            }
            views.0.insert(checkpoint, held);
            inner.holds.send_modify(|holds| *holds += 1);
            Ok(())
        })
        .await
    }

    /// The moment of this name, while it is kept.
    pub(crate) fn held(&self, checkpoint: u128) -> Option<Held> {
        let mut views = self.inner.views.lock().unwrap_or_else(PoisonError::into_inner);
        let held = views.0.get_mut(&checkpoint)?;
        held.used = Instant::now();
        Some(held.clone())
    }

    /// Waits until the moment is kept; `None` when it is not to be expected any more: its entry, if its index is known, lies
    /// behind, or the state machine is gone.
    pub(crate) async fn will_hold(&self, checkpoint: u128, index: Option<u64>) -> Option<Held> {
        let mut holds = self.inner.holds.subscribe();
        let mut applied = self.applied_changes();
        loop {
            // In this order: what is kept is kept before the next entry is applied.
            let passed = index.is_some_and(|index| *applied.borrow_and_update() > Some(index));
            holds.borrow_and_update();
            match self.held(checkpoint) {
                Some(held) => return Some(held),
                None if passed => return None,
                None => {}
            }
            tokio::select! {
                changed = holds.changed() => changed.ok()?,
                changed = applied.changed() => changed.ok()?,
            }
        }
    }

    /// Lets a moment go.
    pub(crate) fn release(&self, checkpoint: u128) {
        self.inner.views.lock().unwrap_or_else(PoisonError::into_inner).0.remove(&checkpoint);
    }

    /// Lets go of what was kept for too long.
    pub(crate) fn release_old(&self) {
        let mut views = self.inner.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.0.retain(|_, held| held.since.elapsed() < VIEW_LIFE);
    }

    /// The leaves of a moment: as they were kept in step, or made anew from what is stored.
    pub(crate) async fn leaves(&self, held: &Held, stored: bool) -> Result<Arc<Vec<Range>>, StateError> {
        let held = held.clone();
        self.look(move |_, _| {
            let cell = if stored { &held.recomputed } else { &held.kept };
            let mut cell = cell.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(leaves) = cell.as_ref() {
                return Ok(leaves.clone());
            }
            let leaves = Arc::new(if stored { merkle::recompute(&held.txn)? } else { kept(&held.txn)? });
            *cell = Some(leaves.clone());
            Ok(leaves)
        })
        .await
    }

    /// Records of a moment in a stretch of the order, at most `most` of them and, with their values, about `most_bytes`; the
    /// place to go on from when there are more.
    pub(crate) async fn records(
        &self,
        held: &Held,
        stretch: Stretch,
        values: bool,
        (most, most_bytes): (usize, usize),
    ) -> Result<(Vec<StateRecord>, Option<Vec<u8>>), StateError> {
        let held = held.clone();
        self.look(move |_, _| {
            let (mut found, mut bytes) = (Vec::new(), 0);
            for (tag, table) in REPLICATED {
                let (first, next) = (merkle::place(tag, &[]), merkle::place(tag + 1, &[]));
                let (from, to) =
                    (stretch.0.clone().max(first), stretch.1.clone().map_or(next.clone(), |to| to.min(next)));
                if from >= to {
                    continue;
                }
                let table = held.txn.open_table(table)?;
                // A table's end is the next one's begin: all of its keys lie before that.
                let end = (to.first() == Some(&tag)).then(|| to[1..].to_vec());
                let rows = match &end {
                    Some(end) => table.range::<&[u8]>(&from[1..]..end.as_slice())?,
                    None => table.range::<&[u8]>(&from[1..]..)?,
                };
                for entry in rows {
                    let (key, value) = entry?;
                    if !merkle::counts(tag, key.value()) {
                        continue;
                    }
                    let place = merkle::place(tag, key.value());
                    if found.len() >= most || bytes >= most_bytes {
                        return Ok((found, Some(place)));
                    }
                    let digest = merkle::digest(tag, key.value(), value.value());
                    let value = if values { value.value().to_vec() } else { Vec::new() };
                    bytes += place.len() + value.len();
                    found.push(StateRecord { place, digest, value });
                }
            }
            Ok((found, None))
        })
        .await
    }

    /// Writes a moment to a file, as a snapshot.
    pub(crate) async fn export_moment(&self, held: &Held, path: &Path) -> Result<(), StateError> {
        let (held, host, path) = (held.clone(), self.inner.host.clone(), path.to_path_buf());
        self.look(move |_, _| snapshot::export(&host, &held.txn, &path, "moment".to_owned()).map(drop)).await
    }

    /// Writes, replaces or (where the value is `None`) removes records, as (place, value), if the state is still that of
    /// entry `at`. All of it or nothing: what comes out must be `expected`.
    pub(crate) async fn patch(
        &self,
        at: u64,
        changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
        expected: Sum,
    ) -> Result<(), PatchError> {
        self.make_like(at, expected, move |txn| {
            // Past the leaves, which are made anew behind this: those that are kept may not fit what is stored.
            let mut by_table: BTreeMap<u8, Vec<Row<'_>>> = BTreeMap::new();
            for (place, value) in &changes {
                let (tag, key) =
                    place.split_first().ok_or_else(|| merkle::corrupt("a place of no bytes".to_owned()))?;
                by_table.entry(*tag).or_default().push((key, value.as_ref()));
            }
            for (tag, changes) in by_table {
                let table = REPLICATED.into_iter().find(|(known, _)| *known == tag);
                let (_, table) = table.ok_or_else(|| merkle::corrupt(format!("there is no table {tag}")))?;
                let mut table = txn.open_table(table)?;
                for (key, value) in changes {
                    match value {
                        Some(value) => drop(table.insert(key, value.as_slice())?),
                        None => drop(table.remove(key)?),
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// Takes the whole state from a file that another member made at the same entry, if this state is still that of `at`.
    pub(crate) async fn replace(&self, path: &Path, at: u64, expected: Sum) -> Result<(), PatchError> {
        snapshot::inspect(&self.inner.host, path).await?;
        let (host, path) = (self.inner.host.clone(), path.to_path_buf());
        self.make_like(at, expected, move |txn| snapshot::replace_tables(&host, txn, &path).map(drop)).await
    }

    /// One transaction that is undone unless it began at entry `at` and ends in a state of this sum.
    async fn make_like(
        &self,
        at: u64,
        expected: Sum,
        work: impl FnOnce(&WriteTransaction) -> Result<(), StateError> + Send + 'static,
    ) -> Result<(), PatchError> {
        let refusal = Arc::new(Mutex::new(None));
        let told = refusal.clone();
        let refuse = move |error: PatchError| {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            // Any error takes the transaction back.
            Err(merkle::corrupt("a patch that was refused".to_owned()))
        };
        let written = self.write(Durability::Immediate, move |txn, memory| {
            let before = memory.applied.clone();
            if before.as_ref().map(|applied| applied.index) != Some(at) {
                let now = before.map_or(0, |applied| applied.index);
                return refuse(PatchError::Late { now, at });
            }
            work(txn)?;
            // Not as kept: what is wrong may have come past the leaves.
            let found = merkle::root(&merkle::rebuild(txn)?);
            if found != expected && !bug(Bug::ResyncSkipsRecord) {
                return refuse(PatchError::Unlike { found: Box::new((found, expected)) });
            }
            *memory = read_memory(&txn.open_table(CLUSTER)?, &txn.open_table(LOCKS)?)?;
            // Where Raft is, only this member's own entries say.
            match memory.applied == before {
                true => Ok(()),
                false => {
                    refuse(PatchError::Late { now: memory.applied.as_ref().map_or(0, |applied| applied.index), at })
                }
            }
        });
        let written = written.await;
        match (written, refusal.lock().unwrap_or_else(PoisonError::into_inner).take()) {
            (Err(_), Some(refused)) => Err(refused),
            (written, _) => {
                written?;
                audit::state(|| Fact::StateMended);
                Ok(())
            }
        }
    }
}

/// The leaves as they were kept in step.
fn kept(txn: &ReadTransaction) -> Result<Vec<Range>, StateError> {
    let mut leaves = Vec::new();
    for entry in txn.open_table(LEAVES)?.range::<&[u8]>(..)? {
        let (start, sum) = entry?;
        leaves.push(Range { start: start.value().to_vec(), sum: unseal("leaves", sum.value())? });
    }
    Ok(leaves)
}

#[cfg(feature = "planted-bugs")]
impl State {
    /// Changes records that nobody asks for again: versions that are given up. Behind the leaves' back, or with them. Where there
    /// are too few to be removed or changed, others slip in that were never drawn.
    pub(crate) async fn slip_in(
        &self,
        member: u64,
        slip: resilver_host::planted::damage::Slip,
    ) -> Result<(), StateError> {
        use redb::ReadableTable as _;
        use resilver_host::planted::damage::{Slip, Tampering};
        let Slip { how, records, in_step } = slip;
        self.write(Durability::Immediate, move |txn, _| {
            let mut there = Vec::new();
            if how != Tampering::Inserted {
                for entry in txn.open_table(super::tables::FORBIDDEN)?.range::<&[u8]>(..)?.take(records as usize) {
                    there.push(entry?.0.value().to_vec());
                }
            }
            // Nobody reads what is written there.
            let changed = |key| (key, (how != Tampering::Removed).then_some(&[1_u8][..]));
            let mut changes: Vec<(Vec<u8>, Option<&[u8]>)> = there.into_iter().map(changed).collect();
            for number in 1..=records.saturating_sub(changes.len() as u32) {
                // Spread over the table, and so over many leaves.
                let version = (u128::from(member) << 32 | u128::from(number))
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
                changes.push((version.to_be_bytes().to_vec(), Some(&[])));
            }
            if in_step {
                let mut table = super::tables::Tables::open(txn)?.forbidden;
                for (key, value) in changes {
                    match value {
                        Some(value) => table.insert(&key, value)?,
                        None => drop(table.remove(&key)?),
                    }
                }
                return Ok(());
            }
            let mut table = txn.open_table(super::tables::FORBIDDEN)?;
            for (key, value) in changes {
                match value {
                    Some(value) => drop(table.insert(key.as_slice(), value)?),
                    None => drop(table.remove(key.as_slice())?),
                }
            }
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
impl State {
    /// Writes (or removes) a record behind the leaves' back, as rot or a bug would; whatever was there.
    pub(crate) async fn tamper(&self, place: Vec<u8>, value: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let tampered = self.write(Durability::Immediate, move |txn, memory| {
            let (_, table) = REPLICATED.into_iter().find(|(tag, _)| *tag == place[0]).unwrap();
            let mut table = txn.open_table(table)?;
            let was = match &value {
                Some(value) => table.insert(&place[1..], value.as_slice())?.map(|was| was.value().to_vec()),
                None => table.remove(&place[1..])?.map(|was| was.value().to_vec()),
            };
            let _ = memory;
            Ok(was)
        });
        tampered.await.unwrap()
    }
}
