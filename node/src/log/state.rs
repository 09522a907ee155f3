//! What the open log knows in memory. No IO.
//!
//! Owns: the header as it is on disk, the open segments, where records lie, the last payloads.
//!
//! Invariants: it describes durable state only: the writer changes it after the last sync. Memory is bounded, whatever
//! the length of the log: [`super::LogOptions`] has the limits.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::header::Header;
use super::recent::{Budget, Recent};
use super::record::Entry;
use super::segment::{Head, Segment};

/// The state, shared by the writer and all readers. Held for moments, never across an await.
pub(super) struct Shared(Mutex<State>);

impl Shared {
    pub(super) fn new(state: State) -> Arc<Self> {
        Arc::new(Self(Mutex::new(state)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("a panic while the log's state was held: it may be half changed")
    }
}

/// The open log.
pub(super) struct State {
    /// As both slots have it.
    pub(super) header: Header,
    /// Counts truncations, purges and resets. A read that began under another generation looks again: bytes it was
    /// about to read may have been overwritten.
    pub(super) generation: u64,
    segments: VecDeque<Indexed>,
    recent: Recent,
    indexed_records: usize,
}

/// A segment, and where its records lie as far as that is in memory.
pub(super) struct Indexed {
    pub(super) segment: Arc<Segment>,
    /// `None`: forgotten to save memory, read again when asked for.
    pub(super) table: Option<Vec<Entry>>,
}

/// What one write added to one segment.
pub(super) struct Extension {
    pub(super) segment: Arc<Segment>,
    pub(super) entries: Vec<Entry>,
    pub(super) payloads: Vec<Bytes>,
}

/// Where a record begins.
pub(super) struct Position {
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// Checksum of what is before it.
    pub(super) chain: u32,
}

/// A segment whose table has to be read.
pub(super) struct Unindexed {
    pub(super) segment: Arc<Segment>,
    pub(super) count: u64,
    pub(super) end: u64,
    pub(super) generation: u64,
}

/// What must be in one segment, as far as the header covers it.
pub(super) struct Expected {
    pub(super) head: Head,
    pub(super) path: PathBuf,
    /// Its records.
    pub(super) count: u64,
    /// Where they end at the latest.
    pub(super) end: u64,
    /// The checksum of the last.
    pub(super) chain: u32,
    /// Whether nothing is added to it any more.
    pub(super) closed: bool,
    pub(super) generation: u64,
}

/// A run of records within one segment.
pub(super) struct Run {
    pub(super) segment: Arc<Segment>,
    pub(super) first: u64,
    /// Checksum of what is before it.
    pub(super) chain: u32,
    pub(super) entries: Vec<Entry>,
}

/// How the next records of a read are to be had.
pub(super) enum Step {
    /// The budget is used up.
    Full,
    /// They are in memory.
    Recent(Vec<Bytes>),
    /// They lie here.
    Fetch(Run),
    /// Where they lie has to be read first.
    Load(Unindexed),
}

impl State {
    pub(super) fn new(header: Header, segments: VecDeque<Indexed>, cache_bytes: u64, indexed_records: usize) -> Self {
        let recent = Recent::new(header.next, cache_bytes);
        let mut state = Self { header, generation: 0, segments, recent, indexed_records };
        state.forget_tables(None);
        state
    }

    pub(super) fn tail(&self) -> Option<Arc<Segment>> {
        self.segments.back().map(|tail| tail.segment.clone())
    }

    /// Takes in what an append made durable.
    pub(super) fn extend(&mut self, header: Header, extensions: Vec<Extension>) {
        for Extension { segment, entries, payloads } in extensions {
            self.recent.push(payloads);
            match self.segments.back_mut() {
                Some(tail) if tail.segment.head.id == segment.head.id => {
                    if let Some(table) = &mut tail.table {
                        table.extend(entries);
                    }
                }
                _ => self.segments.push_back(Indexed { segment, table: Some(entries) }),
            }
        }
        self.header = header;
        self.forget_tables(None);
    }

    /// Takes in a header that begins later or ends earlier: the segments that fell out of it.
    pub(super) fn shrink(&mut self, header: Header) -> Vec<Arc<Segment>> {
        let held = header.first_segment..header.next_segment;
        let (kept, dropped) = self.segments.drain(..).partition(|indexed| held.contains(&indexed.segment.head.id));
        self.segments = kept;
        if let Some(tail) = self.segments.back_mut() {
            let count = header.next - tail.segment.head.first;
            if let Some(table) = &mut tail.table {
                table.truncate(usize::try_from(count).unwrap_or(usize::MAX));
            }
        }
        self.recent.keep(header.first, header.next);
        self.header = header;
        self.generation += 1;
        let dropped: VecDeque<Indexed> = dropped;
        dropped.into_iter().map(|indexed| indexed.segment).collect()
    }

    /// Takes in a table that was read, unless the log was cut or this segment grew meanwhile.
    pub(super) fn index(&mut self, read: &Unindexed, entries: Vec<Entry>) {
        let id = read.segment.head.id;
        let Some(slot) = self.segments.iter().position(|indexed| indexed.segment.head.id == id) else { return };
        if self.generation == read.generation && self.unindexed(slot).count == read.count {
            self.segments[slot].table = Some(entries);
            self.forget_tables(Some(id));
        }
    }

    /// What the first segment numbered `from` or later must hold.
    pub(super) fn expected(&self, from: u64) -> Option<Expected> {
        let slot = self.segments.partition_point(|indexed| indexed.segment.head.id < from);
        let segment = self.segments.get(slot)?.segment.clone();
        let next = self.segments.get(slot + 1).map(|next| next.segment.head.chain_before);
        let Unindexed { count, end, generation, .. } = self.unindexed(slot);
        Some(Expected {
            head: segment.head,
            path: segment.path.clone(),
            count,
            end,
            chain: next.unwrap_or(self.header.chain),
            closed: next.is_some(),
            generation,
        })
    }

    /// Which segment holds `index`, or would.
    pub(super) fn segment_of(&self, index: u64) -> Option<u64> {
        self.slot_of(index).map(|slot| self.segments[slot].segment.head.id)
    }

    /// Where record `index` of the log begins; the segment to read first when that is not in memory.
    ///
    /// `index` must lie within the log.
    pub(super) fn position(&self, index: u64) -> Result<Position, Unindexed> {
        let slot = self.slot_of(index).expect("a log with records has segments");
        let indexed = &self.segments[slot];
        let Some(table) = &indexed.table else { return Err(self.unindexed(slot)) };
        let at = place(indexed, index);
        let offset = u64::from(table[at].offset);
        Ok(Position { segment: indexed.segment.head.id, offset, chain: chain_before(indexed, table, at) })
    }

    /// How to get at records from `index` on, up to `end`, both within the log.
    pub(super) fn step(&self, index: u64, end: u64, mut budget: Budget) -> Step {
        if let Some(payloads) = self.recent.take(index, end, &mut budget) {
            return if payloads.is_empty() { Step::Full } else { Step::Recent(payloads) };
        }
        let slot = self.slot_of(index).expect("a log with records has segments");
        let indexed = &self.segments[slot];
        let Some(table) = &indexed.table else { return Step::Load(self.unindexed(slot)) };
        let at = place(indexed, index);
        let until = end.min(self.recent.first()) - index;
        let until = usize::try_from(until).unwrap_or(usize::MAX).min(table.len() - at);
        let entries: Vec<Entry> =
            table[at..at + until].iter().copied().take_while(|entry| budget.take(u64::from(entry.len_bytes))).collect();
        if entries.is_empty() {
            return Step::Full;
        }
        let chain = chain_before(indexed, table, at);
        Step::Fetch(Run { segment: indexed.segment.clone(), first: index, chain, entries })
    }

    fn slot_of(&self, index: u64) -> Option<usize> {
        self.segments.partition_point(|indexed| indexed.segment.head.first <= index).checked_sub(1)
    }

    fn unindexed(&self, slot: usize) -> Unindexed {
        let segment = self.segments[slot].segment.clone();
        let (until, end) = match self.segments.get(slot + 1) {
            Some(next) => (next.segment.head.first, segment.head.size_bytes),
            None => (self.header.next, self.header.end_offset),
        };
        Unindexed { count: until - segment.head.first, end, generation: self.generation, segment }
    }

    /// Forgets the oldest tables while there are too many, but not the last segment's nor that of `wanted`.
    fn forget_tables(&mut self, wanted: Option<u64>) {
        let mut indexed: usize = self.segments.iter().filter_map(|held| held.table.as_ref()).map(Vec::len).sum();
        let older = self.segments.len().saturating_sub(1);
        for held in self.segments.iter_mut().take(older) {
            if indexed <= self.indexed_records {
                break;
            }
            if Some(held.segment.head.id) != wanted {
                indexed -= held.table.take().map_or(0, |table| table.len());
            }
        }
    }

    #[cfg(test)]
    pub(super) fn records_in_tables(&self) -> usize {
        self.segments.iter().filter_map(|held| held.table.as_ref()).map(Vec::len).sum()
    }
}

fn place(indexed: &Indexed, index: u64) -> usize {
    usize::try_from(index - indexed.segment.head.first).expect("a segment has fewer records than bytes")
}

fn chain_before(indexed: &Indexed, table: &[Entry], at: usize) -> u32 {
    at.checked_sub(1).map_or_else(|| indexed.segment.head.seed(), |before| table[before].crc)
}
