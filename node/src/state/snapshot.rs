//! The state as one file: written table by table, verified whole before a byte of it counts.
//!
//! The file: magic, format, CRC32C of both; then frames of length, CRC32C (length included) and payload. The first frame
//! is the head, then come records (table, key, value), the last is the trailer: their number and the SHA-256 of every
//! payload before it. A file without its trailer is no snapshot.
//!
//! Must never: hold the state in memory (records stream, redb spills), or replace state by a file that was not verified
//! to its end. All of it runs inside `host.blocking`.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use redb::{Durability, ReadTransaction, TableHandle, WriteTransaction};
use resilver_host::{BlockingFile, Host, OpenMode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::tables::{CLUSTER, Definition, LOCKS, REPLICATED};
use super::{Applied, State, StateError, merkle, read_memory};
use crate::model::FORMAT;
use crate::types::ClusterId;

const MAGIC: &[u8; 8] = b"RSLVSNAP";
/// Reads and writes of the file, in bytes: large enough for a disk, small beside the memory a node may use.
const BUFFER_BYTES: usize = 256 * 1024;
/// The longest frame believed. A record is a key and one object's record: far below; a broken length is far above.
const MAX_FRAME_BYTES: u32 = 64 * 1024 * 1024;

const KIND_HEAD: u8 = 0;
const KIND_RECORD: u8 = 1;
const KIND_TRAILER: u8 = 2;

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    /// Names it: two snapshots of one index may differ in bytes.
    pub(crate) id: String,
    /// The cluster it is of.
    pub(crate) cluster: Option<ClusterId>,
    /// Up to where it reaches; `None`: nothing was applied yet.
    pub(crate) applied: Option<Applied>,
}

impl State {
    /// Writes the state to `path` and syncs the file; the state is then durable at least as far.
    pub(crate) async fn export(&self, path: &Path, id: String) -> Result<SnapshotHead, StateError> {
        let (host, target) = (self.inner.host.clone(), path.to_path_buf());
        let head = self.read(move |txn| export(&host, txn, &target, id)).await?;
        // The log may be purged up to a snapshot: what the snapshot holds must not be lost here either.
        self.flush().await?;
        Ok(head)
    }

    /// Verifies the file at `path`, then replaces the whole state by it in one durable transaction.
    pub(crate) async fn install(&self, path: &Path) -> Result<SnapshotHead, StateError> {
        inspect(&self.inner.host, path).await?;
        let (host, source) = (self.inner.host.clone(), path.to_path_buf());
        self.write(Durability::Immediate, move |txn, memory| {
            let head = replace_tables(&host, txn, &source)?;
            *memory = read_memory(&txn.open_table(CLUSTER)?, &txn.open_table(LOCKS)?)?;
            Ok(head)
        })
        .await
    }
}

/// Reads a snapshot file from begin to end and says what it is.
///
/// # Errors
/// [`StateError::Snapshot`] when anything in it is not as it was written.
pub(crate) async fn inspect(host: &Host, path: &Path) -> Result<SnapshotHead, StateError> {
    let (host_, path) = (host.clone(), path.to_path_buf());
    host.blocking(move || {
        let mut reader = Reader::open(&host_, &path)?;
        let head = reader.head()?;
        while reader.record()?.is_some() {}
        Ok(head)
    })
    .await
}

pub(super) fn export(host: &Host, txn: &ReadTransaction, path: &Path, id: String) -> Result<SnapshotHead, StateError> {
    let memory = read_memory(&txn.open_table(CLUSTER)?, &txn.open_table(LOCKS)?)?;
    let head = SnapshotHead { id, cluster: memory.map.cluster, applied: memory.applied };
    let mut writer = Writer::create(host, path)?;
    writer.head(&head)?;
    for (tag, table) in REPLICATED {
        let table = txn.open_table(table)?;
        for entry in table.range::<&[u8]>(..)? {
            let (key, value) = entry?;
            writer.record(tag, key.value(), value.value())?;
        }
    }
    writer.finish()?;
    Ok(head)
}

pub(super) fn replace_tables(host: &Host, txn: &WriteTransaction, path: &Path) -> Result<SnapshotHead, StateError> {
    let mut reader = Reader::open(host, path)?;
    let head = reader.head()?;
    for (_, table) in REPLICATED {
        txn.delete_table(table)?;
    }
    let mut next = reader.record()?;
    for (tag, table) in REPLICATED {
        let mut table = txn.open_table(table)?;
        while let Some(record) = next.as_ref().filter(|record| record.table == tag) {
            table.insert(record.key(), record.value())?;
            next = reader.record()?;
        }
    }
    merkle::rebuild(txn)?;
    match next {
        None => Ok(head),
        Some(record) => {
            Err(reader.damaged(format!("a record of table {}, which is unknown or out of turn", record.table)))
        }
    }
}

/// A [`BlockingFile`] read or written from its begin on.
struct Sequential {
    file: Box<dyn BlockingFile>,
    at: u64,
    len: u64,
}

impl Read for Sequential {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.len.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let want = buf.len().min(rest);
        self.file.read_exact_at(self.at, &mut buf[..want])?;
        self.at += want as u64;
        Ok(want)
    }
}

impl Write for Sequential {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(self.at, buf)?;
        self.at += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_path_buf();
    move |source| StateError::Io { what, path, source }
}

/// The file's first bytes.
fn preamble() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn frame_crc(len: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&len.to_le_bytes()), payload)
}

struct Writer {
    path: PathBuf,
    out: BufWriter<Sequential>,
    digest: Sha256,
    records: u64,
    frame: Vec<u8>,
}

impl Writer {
    fn create(host: &Host, path: &Path) -> Result<Self, StateError> {
        let file = host.disk.open_blocking(path, OpenMode::Create).map_err(failed("creating", path))?;
        file.set_len(0).map_err(failed("cutting", path))?;
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, Sequential { file, at: 0, len: 0 });
        out.write_all(&preamble()).map_err(failed("writing", path))?;
        Ok(Self { path: path.to_path_buf(), out, digest: Sha256::new(), records: 0, frame: Vec::new() })
    }

    fn head(&mut self, head: &SnapshotHead) -> Result<(), StateError> {
        let body = postcard::to_stdvec(head).map_err(|error| StateError::Encoding {
            detail: format!("a snapshot's head could not be written: {error}"),
        })?;
        self.begin(KIND_HEAD);
        self.frame.extend_from_slice(&body);
        self.digest.update(&self.frame);
        self.end()
    }

    fn record(&mut self, table: u8, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        let key_len = u32::try_from(key.len())
            .map_err(|_| StateError::Encoding { detail: format!("a key of {} bytes", key.len()) })?;
        self.begin(KIND_RECORD);
        self.frame.push(table);
        self.frame.extend_from_slice(&key_len.to_le_bytes());
        self.frame.extend_from_slice(key);
        self.frame.extend_from_slice(value);
        self.digest.update(&self.frame);
        self.records += 1;
        self.end()
    }

    /// Writes the trailer and makes the file durable. Its name is the caller's to make durable.
    fn finish(mut self) -> Result<(), StateError> {
        let digest = self.digest.clone().finalize();
        self.begin(KIND_TRAILER);
        self.frame.extend_from_slice(&self.records.to_le_bytes());
        self.frame.extend_from_slice(&digest);
        self.end()?;
        let file = self.out.into_inner().map_err(|error| failed("writing", &self.path)(error.into_error()))?;
        file.file.sync().map_err(failed("syncing", &self.path))
    }

    fn begin(&mut self, kind: u8) {
        self.frame.clear();
        self.frame.push(kind);
    }

    fn end(&mut self) -> Result<(), StateError> {
        let len = u32::try_from(self.frame.len()).ok().filter(|len| *len <= MAX_FRAME_BYTES);
        let len =
            len.ok_or_else(|| StateError::Encoding { detail: format!("a record of {} bytes", self.frame.len()) })?;
        let crc = frame_crc(len, &self.frame);
        let parts: [&[u8]; 3] = [&len.to_le_bytes(), &crc.to_le_bytes(), &self.frame];
        for part in parts {
            self.out.write_all(part).map_err(failed("writing", &self.path))?;
        }
        Ok(())
    }
}

/// One record as read.
pub(super) struct Record {
    table: u8,
    key_len: usize,
    body: Vec<u8>,
}

impl Record {
    /// Whether it is of this table.
    pub(super) fn is_in(&self, table: Definition) -> bool {
        REPLICATED.iter().any(|(tag, known)| *tag == self.table && known.name() == table.name())
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.body[..self.key_len]
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.body[self.key_len..]
    }
}

pub(super) struct Reader {
    path: PathBuf,
    input: BufReader<Sequential>,
    digest: Sha256,
    records: u64,
}

impl Reader {
    pub(super) fn open(host: &Host, path: &Path) -> Result<Self, StateError> {
        let file = host.disk.open_blocking(path, OpenMode::Read).map_err(failed("opening", path))?;
        let len = file.len().map_err(failed("measuring", path))?;
        let input = BufReader::with_capacity(BUFFER_BYTES, Sequential { file, at: 0, len });
        let mut reader = Self { path: path.to_path_buf(), input, digest: Sha256::new(), records: 0 };
        let expected = preamble();
        let mut found = vec![0; expected.len()];
        reader.fill(&mut found)?;
        let body = &found[..found.len() - 4];
        if !body.starts_with(MAGIC) || crc32c::crc32c(body).to_le_bytes() != found[found.len() - 4..] {
            return Err(reader.damaged("it does not begin like a snapshot".to_owned()));
        }
        let format = u16::from_le_bytes([body[MAGIC.len()], body[MAGIC.len() + 1]]);
        if format > FORMAT {
            return Err(StateError::TooNew { found: format, known: FORMAT });
        }
        if format < FORMAT {
            return Err(StateError::TooOld { found: format, known: FORMAT });
        }
        Ok(reader)
    }

    pub(super) fn head(&mut self) -> Result<SnapshotHead, StateError> {
        let frame = self.frame()?;
        self.digest.update(&frame);
        match frame.split_first() {
            Some((&KIND_HEAD, body)) => {
                postcard::from_bytes(body).map_err(|error| self.damaged(format!("a head that cannot be read: {error}")))
            }
            _ => Err(self.damaged("it has no head".to_owned())),
        }
    }

    /// The next record; `None` after the last, with the trailer checked and nothing behind it.
    pub(super) fn record(&mut self) -> Result<Option<Record>, StateError> {
        let mut frame = self.frame()?;
        match frame.first() {
            Some(&KIND_RECORD) if frame.len() >= 6 => {
                self.digest.update(&frame);
                self.records += 1;
                let table = frame[1];
                let key_len = u32::from_le_bytes([frame[2], frame[3], frame[4], frame[5]]) as usize;
                let body = frame.split_off(6);
                if key_len > body.len() {
                    return Err(self.damaged(format!("a key of {key_len} bytes in a record of {}", body.len())));
                }
                Ok(Some(Record { table, key_len, body }))
            }
            Some(&KIND_TRAILER) => self.trailer(&frame[1..]).map(|()| None),
            _ => Err(self.damaged("a frame of no known kind".to_owned())),
        }
    }

    fn trailer(&mut self, body: &[u8]) -> Result<(), StateError> {
        let mut expected = self.records.to_le_bytes().to_vec();
        expected.extend_from_slice(&self.digest.clone().finalize());
        if body != expected {
            return Err(self.damaged(format!("its trailer does not match the {} records before it", self.records)));
        }
        let mut rest = [0; 1];
        match self.input.read(&mut rest).map_err(failed("reading", &self.path))? {
            0 => Ok(()),
            _ => Err(self.damaged("it goes on after its trailer".to_owned())),
        }
    }

    fn frame(&mut self) -> Result<Vec<u8>, StateError> {
        let mut lead = [0; 8];
        self.fill(&mut lead)?;
        let len = u32::from_le_bytes([lead[0], lead[1], lead[2], lead[3]]);
        let crc = u32::from_le_bytes([lead[4], lead[5], lead[6], lead[7]]);
        if len > MAX_FRAME_BYTES {
            return Err(self.damaged(format!("a frame of {len} bytes")));
        }
        let mut payload = vec![0; len as usize];
        self.fill(&mut payload)?;
        let got = frame_crc(len, &payload);
        if got != crc {
            return Err(self.damaged(format!("crc32c {got:08x} where {crc:08x} was written")));
        }
        Ok(payload)
    }

    fn fill(&mut self, buf: &mut [u8]) -> Result<(), StateError> {
        self.input.read_exact(buf).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it ends too early".to_owned()),
            _ => failed("reading", &self.path)(error),
        })
    }

    fn damaged(&self, detail: String) -> StateError {
        StateError::Snapshot { path: self.path.clone(), detail }
    }
}
