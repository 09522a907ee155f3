//! A small file that is never half written: two slots, each a whole copy of the same content.
//!
//! Owns: the file of the log's header and that of the vote; which of two copies counts.
//!
//! Must never: write the second copy before the first is synced, or answer before the second is.
//!
//! Invariants: at every moment one slot is sound, whatever a crash leaves of the other. Content that was acknowledged
//! is in both slots. Content that was not, but was read back at open, is put into both before anyone acts on it: else
//! the one copy could rot after we had answered for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use resilver_host::planted::{Bug, bug};
use resilver_host::{Disk, File, OpenMode};

use super::error::{Damage, LogError};
use super::prefix::{Kind, PREFIX_BYTES, Prefix, u32_at, u64_at};

/// Distance of the slots: a block of every disk there is, so that writing one cannot tear the other.
const SLOT_BYTES: u64 = 4096;
/// Before the content: prefix, sequence, length, checksum.
const SLOT_HEAD_BYTES: usize = PREFIX_BYTES + 16;
/// Most bytes of content.
pub(super) const MAX_CONTENT_BYTES: usize = SLOT_BYTES as usize - SLOT_HEAD_BYTES;
/// The sequence of a file as it was created.
pub(super) const FIRST_SEQUENCE: u64 = 1;
const NAMES: [&str; 2] = ["slot A", "slot B"];

/// A file of two slots, open for writing. One writer at a time; who owns it sees to that and to [`super::error::Fuse`].
pub(super) struct Slots {
    file: Arc<dyn File>,
    path: PathBuf,
    kind: &'static Kind,
    sequence: u64,
    /// What was written last.
    content: Bytes,
    /// The slot that is older or unreadable, until it is settled.
    stale: Option<usize>,
}

/// What [`Slots::open`] found.
pub(super) struct Opened {
    pub(super) slots: Slots,
    /// The content that counts.
    pub(super) content: Bytes,
    /// Its sequence: one higher with each write.
    pub(super) sequence: u64,
}

/// One copy of two that is not what was written last.
pub(super) struct Doubtful {
    /// Which.
    pub(super) which: usize,
    /// What is wrong with it.
    pub(super) damage: Damage,
}

/// One slot as read.
enum Slot {
    Good { sequence: u64, content: Bytes },
    Newer(u32),
    Bad(Damage),
}

/// Which content counts, and which slot has to be written anew.
#[derive(Debug)]
struct Verdict {
    sequence: u64,
    content: Bytes,
    stale: Option<usize>,
}

impl Slots {
    /// Creates the file, whole and durable at once.
    pub(super) async fn create(disk: &dyn Disk, path: &Path, kind: &Kind, content: &[u8]) -> Result<(), LogError> {
        let slot = encode(kind, FIRST_SEQUENCE, content);
        let mut file = BytesMut::with_capacity(2 * slot.len());
        file.put_slice(&slot);
        file.put_slice(&slot);
        resilver_host::disk::replace_file(disk, path, file.freeze()).await.map_err(LogError::io("create", path))
    }

    /// Opens the file and tells what counts. Changes nothing yet: [`Slots::settle`] comes next, before anyone acts on it.
    pub(super) async fn open(disk: &dyn Disk, path: &Path, kind: &'static Kind) -> Result<Opened, LogError> {
        let file = disk.open(path, OpenMode::Write).await.map_err(LogError::io("open", path))?;
        let bytes = file.read_at(0, 2 * SLOT_BYTES as usize).await.map_err(LogError::io("read", path))?;
        let slots = [0, 1].map(|which| decode(kind, path, &bytes, which));
        let Verdict { sequence, content, stale } = judge(path, kind, slots)?;
        let slots = Slots { file, path: path.to_owned(), kind, sequence, content: content.clone(), stale };
        Ok(Opened { slots, content, sequence })
    }

    /// Sees to it that both slots hold `content`, which was read at open, and that both are on the disk. Whether one had
    /// to be written anew.
    pub(super) async fn settle(&mut self, content: &[u8]) -> Result<bool, LogError> {
        // What we read may be in the page cache only, left by a process that was killed between write and sync. First it
        // must be on the disk: else a power failure could tear it and the copy that we are about to write.
        self.file.sync().await.map_err(LogError::io("sync", &self.path))?;
        let Some(stale) = self.stale.take() else { return Ok(false) };
        let slot = encode(self.kind, self.sequence, content);
        let written = self.file.write_at(stale as u64 * SLOT_BYTES, slot).await;
        written.map_err(LogError::io("write", &self.path))?;
        self.file.sync().await.map_err(LogError::io("sync", &self.path))?;
        Ok(true)
    }

    /// Replaces the content: slot A, sync, slot B, sync.
    pub(super) async fn write(&mut self, content: &[u8]) -> Result<(), LogError> {
        let sequence = self.sequence + 1;
        let slot = encode(self.kind, sequence, content);
        for which in 0..2 {
            let written = self.file.write_at(which * SLOT_BYTES, slot.clone()).await;
            written.map_err(LogError::io("write", &self.path))?;
            if !bug(Bug::AckBeforeLogSync) {
                self.file.sync().await.map_err(LogError::io("sync", &self.path))?;
            }
        }
        self.sequence = sequence;
        self.content = Bytes::copy_from_slice(content);
        Ok(())
    }

    /// Reads both copies back, past the page cache, and compares them with what was written last: the damage of one that is not
    /// that, if the other is. Changes nothing.
    ///
    /// # Errors
    /// [`LogError::Lost`] when neither is.
    pub(super) async fn reread(&self, disk: &dyn Disk) -> Result<Option<Doubtful>, LogError> {
        let read = disk.open_and_reread(&self.path, 2 * SLOT_BYTES as usize).await;
        let bytes = match read {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Bytes::new(),
            read => read.map_err(LogError::io("read", &self.path))?.1,
        };
        let [one, other] = [0, 1].map(|which| self.contradiction(&bytes, which));
        match (one, other) {
            (None, None) => Ok(None),
            (Some(damage), None) => Ok(Some(Doubtful { which: 0, damage })),
            (None, Some(damage)) => Ok(Some(Doubtful { which: 1, damage })),
            (Some(damage), Some(_)) => Err(damage.into()),
        }
    }

    /// In what a copy is not what was written last.
    fn contradiction(&self, file: &Bytes, which: usize) -> Option<Damage> {
        let at = which as u64 * SLOT_BYTES;
        let differs = |what: String, expected: String, got: String| {
            Some(Damage::new(&self.path, at, format!("{what} of {}", NAMES[which]), expected, got))
        };
        match decode(self.kind, &self.path, file, which) {
            Slot::Bad(damage) => Some(damage),
            Slot::Newer(format) => differs("format".to_owned(), self.kind.format.to_string(), format.to_string()),
            Slot::Good { sequence, .. } if sequence != self.sequence => {
                differs("sequence".to_owned(), self.sequence.to_string(), sequence.to_string())
            }
            Slot::Good { content, .. } if content != self.content => {
                differs("content".to_owned(), hex(&self.content), hex(&content))
            }
            Slot::Good { .. } => None,
        }
    }

    /// Writes one copy anew; the other stays untouched.
    pub(super) async fn mend(&mut self, which: usize) -> Result<(), LogError> {
        self.stale = Some(which);
        let content = self.content.clone();
        self.settle(&content).await.map(drop)
    }
}

fn encode(kind: &Kind, sequence: u64, content: &[u8]) -> Bytes {
    assert!(content.len() <= MAX_CONTENT_BYTES, "callers check the size of what they keep in a slot");
    let mut slot = BytesMut::with_capacity(SLOT_BYTES as usize);
    slot.put_slice(&kind.encode());
    slot.put_u64_le(sequence);
    slot.put_u32_le(u32::try_from(content.len()).expect("just checked"));
    let crc = crc32c::crc32c_append(crc32c::crc32c(&slot), content);
    slot.put_u32_le(crc);
    slot.put_slice(content);
    slot.resize(SLOT_BYTES as usize, 0);
    slot.freeze()
}

fn decode(kind: &Kind, path: &Path, file: &Bytes, which: usize) -> Slot {
    let base = which * SLOT_BYTES as usize;
    let bytes = file.slice(base.min(file.len())..(base + SLOT_BYTES as usize).min(file.len()));
    let bad = |what: &str, expected: String, got: String| {
        Slot::Bad(Damage::new(path, base as u64, format!("{what} of {}", NAMES[which]), expected, got))
    };
    if bytes.len() < SLOT_HEAD_BYTES {
        return bad("head", format!("{SLOT_HEAD_BYTES} bytes"), format!("{} bytes", bytes.len()));
    }
    match kind.judge(&bytes) {
        Prefix::Ours => {}
        Prefix::Newer(format) => return Slot::Newer(format),
        Prefix::Bad => {
            return bad("prefix", hex(&kind.encode()), hex(&bytes[..PREFIX_BYTES]));
        }
    }
    let (sequence, len, crc) = (u64_at(&bytes, 16), u32_at(&bytes, 24) as usize, u32_at(&bytes, 28));
    let Some(content) = bytes.get(SLOT_HEAD_BYTES..SLOT_HEAD_BYTES + len) else {
        return bad("length", format!("at most {} bytes", bytes.len() - SLOT_HEAD_BYTES), len.to_string());
    };
    let expected = crc32c::crc32c_append(crc32c::crc32c(&bytes[..28]), content);
    if crc != expected {
        return bad("checksum", format!("{expected:#010x}"), format!("{crc:#010x}"));
    }
    Slot::Good { sequence, content: bytes.slice(SLOT_HEAD_BYTES..SLOT_HEAD_BYTES + len) }
}

/// The higher sequence counts: slot A is written only when what it speaks of is synced.
fn judge(path: &Path, kind: &Kind, slots: [Slot; 2]) -> Result<Verdict, LogError> {
    match slots {
        [Slot::Newer(found), _] | [_, Slot::Newer(found)] => {
            Err(LogError::TooNew { path: path.to_owned(), found, known: kind.format })
        }
        [Slot::Good { sequence: a, content: one }, Slot::Good { sequence: b, content: other }] => {
            if a == b && one != other {
                let what = "two slots of one sequence that differ";
                return Err(Damage::new(path, SLOT_BYTES, what, hex(&one), hex(&other)).into());
            }
            let stale = (a != b).then_some(usize::from(a > b));
            let (sequence, content) = if a >= b { (a, one) } else { (b, other) };
            Ok(Verdict { sequence, content, stale })
        }
        [Slot::Good { sequence, content }, Slot::Bad(_)] => Ok(Verdict { sequence, content, stale: Some(1) }),
        [Slot::Bad(_), Slot::Good { sequence, content }] => Ok(Verdict { sequence, content, stale: Some(0) }),
        // Never both by a crash: while one is written, the other is sound. The second damage says no more.
        [Slot::Bad(damage), Slot::Bad(_)] => Err(damage.into()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
