//! The log against a model, against crashes, against damage and against bad folders.

mod bad_input;
mod crash;
mod damage;
mod limits;
mod model;
mod real;
mod reread;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::record::unjudged;
use super::testing::MemDisk;
use super::{LogError, LogOptions, LogStore, Record, Recovered, VoteFile};
use crate::steps::Counter;

/// Small enough that a few records fill a segment.
const SEGMENT_BYTES: u64 = 8192;

fn options() -> LogOptions {
    // Both bounds far below what the tests append, so that reads meet the cache, the index and the disk.
    LogOptions { segment_bytes: SEGMENT_BYTES, cache_bytes: 1500, indexed_records: 8, create: true }
}

fn dir() -> &'static Path {
    Path::new("/meta/log")
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// An open log with its vote.
struct Opened {
    log: LogStore,
    vote: VoteFile,
    voted: Option<Bytes>,
    recovered: Recovered,
}

async fn open(disk: &MemDisk) -> Result<Opened, LogError> {
    open_with(disk, options()).await
}

async fn open_with(disk: &MemDisk, options: LogOptions) -> Result<Opened, LogError> {
    let (log, recovered) =
        LogStore::open_on(Arc::new(disk.clone()), dir(), options, &Counter::default(), &mut unjudged).await?;
    let (vote, voted) = VoteFile::open_on(disk, dir()).await?;
    Ok(Opened { log, vote, voted, recovered })
}

/// What must be in the folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    first: u64,
    next: u64,
    records: BTreeMap<u64, Bytes>,
    note: Bytes,
    voted: Option<Bytes>,
}

/// One change of the folder.
#[derive(Clone, Debug)]
enum Act {
    Append(Vec<Record>),
    Truncate(u64),
    Purge(u64, Bytes),
    Reset(u64, Bytes),
    Vote(Bytes),
}

/// An act drawn before it is known where the log stands.
#[derive(Clone, Debug)]
enum Draft {
    Append(Vec<usize>),
    /// Of so many parts of a hundred of the log.
    Truncate(u64),
    /// Likewise, and past the end when over a hundred.
    Purge(u64),
    /// So far from the log's end.
    Reset(i64),
    Vote,
}

fn draft() -> impl Strategy<Value = Draft> {
    let size = prop_oneof![8 => 0usize..200, 3 => 200usize..1500, 1 => Just(4080usize)];
    prop_oneof![
        8 => prop::collection::vec(size, 1..12).prop_map(Draft::Append),
        2 => (0u64..=100).prop_map(Draft::Truncate),
        2 => (0u64..=110).prop_map(Draft::Purge),
        1 => (-5i64..10).prop_map(Draft::Reset),
        3 => Just(Draft::Vote),
    ]
}

impl Draft {
    /// Made concrete for where `model` stands. `serial` makes every payload, note and vote unlike any before.
    fn act(&self, model: &Model, serial: &mut u64) -> Act {
        let mut fresh = |len: usize| {
            *serial += 1;
            let text = format!("{serial}.");
            Bytes::from(text.bytes().cycle().take(len).collect::<Vec<u8>>())
        };
        let held = model.next - model.first;
        match self {
            Draft::Append(sizes) => {
                let records = (model.next..).zip(sizes);
                Act::Append(records.map(|(index, len)| Record { index, payload: fresh(*len) }).collect())
            }
            Draft::Truncate(part) => Act::Truncate(model.first + held * part / 100),
            Draft::Purge(part) => Act::Purge((model.first + (held + 3) * part / 100).saturating_sub(1), fresh(20)),
            Draft::Reset(by) => Act::Reset(model.next.saturating_add_signed(*by), fresh(20)),
            Draft::Vote => Act::Vote(fresh(24)),
        }
    }
}

impl Model {
    fn apply(&mut self, act: &Act) {
        match act.clone() {
            Act::Append(records) => {
                self.next += records.len() as u64;
                self.records.extend(records.into_iter().map(|record| (record.index, record.payload)));
            }
            Act::Truncate(from) => {
                self.records.split_off(&from);
                self.next = self.next.min(from);
            }
            Act::Purge(through, _) if through + 1 < self.first => {}
            Act::Purge(through, note) => {
                self.records = self.records.split_off(&(through + 1));
                self.first = through + 1;
                self.next = self.next.max(self.first);
                self.note = note;
            }
            Act::Reset(next, note) => {
                *self = Model { first: next, next, note, voted: self.voted.take(), ..Model::default() };
            }
            Act::Vote(vote) => self.voted = Some(vote),
        }
    }

    fn after(&self, act: &Act) -> Model {
        let mut after = self.clone();
        after.apply(act);
        after
    }
}

impl Opened {
    async fn perform(&self, act: &Act) -> Result<(), LogError> {
        match act.clone() {
            Act::Append(records) => self.log.append(records).await,
            Act::Truncate(from) => self.log.truncate(from).await,
            Act::Purge(through, note) => self.log.purge(through, note).await,
            Act::Reset(next, note) => self.log.reset(next, note).await,
            Act::Vote(vote) => self.vote.write(vote).await,
        }
    }

    /// All there is, with the vote as it was when this was opened.
    async fn content(&self) -> Result<Model, LogError> {
        let (first, next) = (self.log.first(), self.log.next());
        let records = self.log.read(0..u64::MAX, u64::MAX).await?;
        let records = records.into_iter().map(|record| (record.index, record.payload)).collect();
        Ok(Model { first, next, records, note: self.log.note(), voted: self.voted.clone() })
    }

    /// Asserts that the log is what `model` says, read whole and in small helpings.
    async fn assert_log_is(&self, model: &Model) {
        let mut content = self.content().await.unwrap();
        content.voted = model.voted.clone();
        assert_eq!(&content, model);
        let mut at = model.first;
        while at < model.next {
            let end = model.next.min(at + 5);
            let helping = self.log.read(at..end, 300).await.unwrap();
            assert!(!helping.is_empty(), "a read of records that are there returns at least one");
            let rest: usize = helping.iter().skip(1).map(|record| record.payload.len()).sum();
            assert!(rest <= 300, "a read returns no more than asked for, its first record aside");
            for record in helping {
                assert_eq!((record.index, Some(&record.payload)), (at, model.records.get(&at)));
                at += 1;
            }
        }
    }
}

/// Runs `drafts` on a fresh disk, each to its end.
async fn build(drafts: &[Draft]) -> (MemDisk, Model) {
    let disk = MemDisk::default();
    let opened = open(&disk).await.unwrap();
    let (mut model, mut serial) = (Model::default(), 0);
    for draft in drafts {
        let act = draft.act(&model, &mut serial);
        opened.perform(&act).await.unwrap();
        model.apply(&act);
    }
    (disk, model)
}

fn records(from: u64, sizes: &[usize]) -> Vec<Record> {
    let payload = |index: u64, len: usize| Bytes::from(vec![index as u8 ^ 0x5a; len]);
    (from..).zip(sizes).map(|(index, len)| Record { index, payload: payload(index, *len) }).collect()
}

fn segment(id: u64) -> PathBuf {
    dir().join(super::segment::name(id))
}

/// The header as the disk has it.
async fn header(disk: &MemDisk) -> super::header::Header {
    let path = dir().join(super::header::HEADER_NAME);
    let opened = super::slots::Slots::open(disk, &path, &super::header::HEADER_KIND).await.unwrap();
    super::header::Header::decode(&path, &opened.content).unwrap()
}
