//! Whether the disk still has what the open log says it has.
//!
//! Must never: look past the last synced position (what lies there was never acknowledged, and is being written); change
//! anything; call damage what was merely cut or removed meanwhile.
//!
//! Invariant: what is compared with is memory, which was read and checked at open, or written and synced since. So a file that
//! is sound by itself and is another one is damage, too. Files are opened anew by their names: one that was removed behind
//! the log's back is missed, although the log still has it open.

use std::io;

use resilver_host::Disk;

use super::error::{Damage, LogError};
use super::reader::settle;
use super::record::{Chain, Judge};
use super::segment::{Head, SEGMENT_HEAD_BYTES};
use super::state::{Expected, Shared};

/// A segment that was read back and is sound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reread {
    /// Its number.
    pub(crate) segment: u64,
    /// What was read of it.
    pub(crate) bytes: u64,
}

/// Reads the first segment numbered `from` or later back; `None` when there is none.
pub(super) async fn reread(
    disk: &dyn Disk,
    shared: &Shared,
    from: u64,
    judge: &mut Judge<'_>,
) -> Result<Option<Reread>, LogError> {
    loop {
        let Some(expected) = shared.lock().expected(from) else { return Ok(None) };
        let found = expected.read_back(disk, judge).await;
        if let Some(found) = settle(shared, expected.generation, found)? {
            return Ok(Some(found));
        }
    }
}

impl Expected {
    async fn read_back(&self, disk: &dyn Disk, judge: &mut Judge<'_>) -> Result<Reread, LogError> {
        let path = &self.path;
        let len = usize::try_from(self.end).expect("segments are limited to 1 GiB");
        let read = match self.closed {
            true => disk.open_and_reread(path, len).await,
            // It is written to: what the page cache has of it is about to be used.
            false => disk.open_and_read(path, len).await,
        };
        let bytes = match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Damage::new(path, 0, "file", "a segment of the log", "no such file").into());
            }
            read => read.map_err(LogError::io("read", path))?.1,
        };
        let head = Head::decode(path, &bytes)?;
        if head != self.head {
            let (expected, got) = (format!("{:?}", self.head), format!("{head:?}"));
            return Err(Damage::new(path, 0, "head of the segment", expected, got).into());
        }
        let records = bytes.get(SEGMENT_HEAD_BYTES as usize..).unwrap_or_default();
        let (base, offset, seed) = (SEGMENT_HEAD_BYTES, SEGMENT_HEAD_BYTES, head.seed());
        let mut chain = Chain { path, bytes: records, base, offset, index: head.first, chain: seed };
        for _ in 0..self.count {
            chain.step_judged(judge)?;
        }
        if chain.chain != self.chain {
            let (expected, got) = (format!("{:#010x}", self.chain), format!("{:#010x}", chain.chain));
            return Err(Damage::new(path, chain.offset, "checksum of the last record", expected, got).into());
        }
        Ok(Reread { segment: head.id, bytes: bytes.len() as u64 })
    }
}
