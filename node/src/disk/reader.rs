//! Reading one shard, every block checked.
//!
//! Every read is a trip to the blocking pool, so blocks are fetched a window at a time. The window starts small and
//! doubles while blocks are asked for in order, up to [`WINDOW_BYTES`]: a range read of one block does not pay for the
//! whole shard, and a rebuild reads a shard in a few calls. A reader holds one window; blocks are slices of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use resilver_host::File;
use resilver_host::audit::{self, Fact};
use resilver_host::planted::{Bug, bug};

use super::ShardVerdict;
use super::core::Core;
use super::error::DiskError;
use super::foreground::Purpose;
use super::shard_file::{BadHeader, HEADER_BYTES, SEAL_BYTES, ShardHead, block_offset, seal};
use crate::codec::Layout;
use crate::types::ShardKey;

/// The largest window: at 1 MiB the trip to the pool costs less than a hundredth of the read.
const WINDOW_BYTES: usize = 1024 * 1024;

/// The first window, read together with the header: holds the whole shard of a small object, which is then opened and
/// read in one trip.
pub(super) const FIRST_WINDOW_BYTES: usize = 128 * 1024 + HEADER_BYTES;

/// An open shard.
pub struct ShardReader {
    core: Arc<Core>,
    file: Arc<dyn File>,
    path: PathBuf,
    head: ShardHead,
    header_crc: u32,
    layout: Layout,
    window: Bytes,
    /// Where the window begins in the file.
    window_start: u64,
    /// How much the next window takes.
    ahead: usize,
    /// The block that follows the last one read.
    next: u32,
    purpose: Purpose,
}

impl std::fmt::Debug for ShardReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardReader").field("head", &self.head).finish_non_exhaustive()
    }
}

impl ShardReader {
    pub(super) async fn open(core: &Arc<Core>, key: ShardKey, purpose: Purpose) -> Result<Self, DiskError> {
        core.admit(false)?;
        let path = core.shard_path(key);
        let _step = core.foreground.begin(purpose);
        let opening = async {
            let opened = core.io.open_and_read(&path, FIRST_WINDOW_BYTES).await;
            let (file, window) = opened.map_err(|error| missing(core, key, error))?;
            Self::with_window(core, key, path.clone(), file, window).await
        };
        let reader = core.doubting(key, opening.await)?;
        Ok(Self { purpose, ..reader })
    }

    /// [`ShardReader::open`] of several that nobody waits for, as one operation. An error is the disk's.
    pub(super) async fn open_all(
        core: &Arc<Core>,
        keys: &[ShardKey],
    ) -> Result<Vec<Result<Self, DiskError>>, DiskError> {
        core.admit(false)?;
        let paths: Vec<PathBuf> = keys.iter().map(|key| core.shard_path(*key)).collect();
        let opened = core.io.open_and_read_all(&paths, FIRST_WINDOW_BYTES).await?;
        let mut readers = Vec::with_capacity(keys.len());
        for ((key, path), opened) in keys.iter().copied().zip(paths).zip(opened) {
            let reader = match opened.map_err(|error| missing(core, key, error)) {
                Ok((file, window)) => Self::with_window(core, key, path, file, window).await,
                Err(error) => Err(error),
            };
            readers.push(core.doubting(key, reader));
        }
        Ok(readers)
    }

    async fn with_window(
        core: &Arc<Core>,
        key: ShardKey,
        path: PathBuf,
        file: Arc<dyn File>,
        window: Bytes,
    ) -> Result<Self, DiskError> {
        let disk = core.io.disk;
        let (head, header_crc) = ShardHead::decode(&window, key).map_err(|bad| match bad {
            BadHeader::TooNew(found) => DiskError::ShardTooNew { disk, key, found },
            BadHeader::Corrupt { expected, got, detail } => {
                DiskError::Corrupt { disk, key, block: None, expected, got, detail }
            }
        })?;
        // A read that got less than it asked for has seen the end.
        let len =
            if window.len() < FIRST_WINDOW_BYTES { window.len() as u64 } else { core.io.len(&file, &path).await? };
        if len != head.file_bytes() {
            let detail = format!("the file is {len} bytes long, and by its header it has {}", head.file_bytes());
            return Err(DiskError::Corrupt { disk, key, block: None, expected: 0, got: 0, detail });
        }
        Ok(Self {
            core: Arc::clone(core),
            file,
            path,
            head,
            header_crc,
            layout: head.layout(),
            window,
            window_start: 0,
            ahead: FIRST_WINDOW_BYTES * 2,
            next: 0,
            purpose: Purpose::Background,
        })
    }

    /// What the shard says of itself.
    pub fn head(&self) -> &ShardHead {
        &self.head
    }

    /// How many blocks it has.
    pub fn blocks(&self) -> u32 {
        self.layout.stripes()
    }

    /// A block and the CRC32C of its data. Fastest in order.
    ///
    /// # Errors
    /// [`DiskError::Corrupt`] when it is not what was written; [`DiskError::Invalid`] when there is no such block.
    pub async fn block(&mut self, block: u32) -> Result<(Bytes, u32), DiskError> {
        let read = self.read_block(block).await;
        self.core.doubting(self.head.key, read)
    }

    async fn read_block(&mut self, block: u32) -> Result<(Bytes, u32), DiskError> {
        let (disk, key) = (self.core.io.disk, self.head.key);
        if block >= self.blocks() {
            let detail = format!("block {block} was asked for, and it has {}", self.blocks());
            return Err(DiskError::Invalid { key, detail });
        }
        let len = self.layout.block_len(block);
        let record = self.record(block, len + SEAL_BYTES).await?;
        self.next = block + 1;
        let Some((data, stored)) = record.split_at_checked(len).and_then(|(d, s)| Some((d, s.first_chunk()?))) else {
            let detail = format!("the file ends within block {block}");
            return Err(DiskError::Corrupt { disk, key, block: Some(block), expected: 0, got: 0, detail });
        };
        let crc = crc32c::crc32c(data);
        let (expected, got) = (u32::from_le_bytes(*stored), seal(self.header_crc, block, crc));
        if expected != got {
            let detail = format!("block {block} does not match its checksum");
            return Err(DiskError::Corrupt { disk, key, block: Some(block), expected, got, detail });
        }
        Ok((record.slice(..len), crc))
    }

    /// Block and seal as they are in the file; shorter only where the file ends.
    async fn record(&mut self, block: u32, len: usize) -> Result<Bytes, DiskError> {
        let start = block_offset(&self.head, block);
        if let Some(found) = self.in_window(start, len) {
            return Ok(found);
        }
        self.ahead = if block == self.next { (self.ahead * 2).min(WINDOW_BYTES) } else { FIRST_WINDOW_BYTES };
        let rest = usize::try_from(self.head.file_bytes() - start).unwrap_or(usize::MAX);
        // Whole records only: one that straddled two windows would be read twice.
        let full = self.head.block_bytes as usize + SEAL_BYTES;
        let take = (self.ahead / full * full).max(full).min(rest);
        // The old window goes before the new one comes, unless somebody still holds a slice of it.
        self.window = Bytes::new();
        let step = self.core.foreground.begin(self.purpose);
        self.window = self.core.io.read(&self.file, &self.path, start, take).await?;
        drop(step);
        self.window_start = start;
        Ok(self.in_window(start, len).unwrap_or_else(|| self.window.clone()))
    }

    fn in_window(&self, start: u64, len: usize) -> Option<Bytes> {
        let from = usize::try_from(start.checked_sub(self.window_start)?).ok()?;
        let to = from.checked_add(len)?;
        (to <= self.window.len()).then(|| self.window.slice(from..to))
    }
}

/// What a shard's file that cannot be opened means.
fn missing(core: &Core, key: ShardKey, error: DiskError) -> DiskError {
    if !error.is_not_found() {
        return error;
    }
    // One missing shard is repair's business; all of them missing is a wiped disk. The canary tells which.
    core.io.doubt.notify_one();
    DiskError::Missing { disk: core.io.disk, key }
}

/// How often a shard is read before it is called unreadable: what fails once or twice may pass.
const READS: u32 = 3;

/// Reads a whole shard from the device and judges it. One that cannot be read is judged only while its disk serves, each time
/// by a probe that began after the read had failed: else it is the disk's matter, and the shard stays in doubt.
pub(super) async fn verify(core: &Arc<Core>, key: ShardKey) -> Result<ShardVerdict, DiskError> {
    let mut reads = 0;
    loop {
        let error = match verify_once(core, key).await {
            Err(error) if error.is_unreadable() => error,
            told => return told,
        };
        reads += 1;
        if !core.serves_now().await {
            return core.doubting(key, Err(error));
        }
        if reads == READS {
            audit::state(|| Fact::ShardVerified { path: core.shard_path(key).display().to_string(), sound: false });
            let detail = format!("it cannot be read, {READS} times in succession, and its disk serves: {error}");
            return Ok(ShardVerdict::Corrupt { expected: 0, got: 0, detail });
        }
    }
}

/// Reads a whole shard from the device. The page cache is emptied of it first, or this would only prove
/// that memory is sound; and afterwards, because a scrub must not push out what clients read. A shard was synced before it
/// got its name.
async fn verify_once(core: &Arc<Core>, key: ShardKey) -> Result<ShardVerdict, DiskError> {
    core.admit(false)?;
    let path = core.shard_path(key);
    audit::state(|| Fact::ShardVerifying { path: path.display().to_string() });
    let opened = core.io.open_and_reread(&path).await;
    let (file, window) = match opened.map_err(|error| missing(core, key, error)) {
        Err(DiskError::Missing { .. }) => return Ok(ShardVerdict::Missing),
        result => result?,
    };
    let more = window.len() == FIRST_WINDOW_BYTES;
    let verdict = match read_through(core, key, path.clone(), Arc::clone(&file), window).await {
        Ok((bytes, crc)) => ShardVerdict::Ok { bytes, crc },
        Err(DiskError::Corrupt { .. }) if bug(Bug::TrustBadShard) => ShardVerdict::Ok { bytes: 0, crc: 0 },
        Err(DiskError::Corrupt { expected, got, detail, .. }) => ShardVerdict::Corrupt { expected, got, detail },
        Err(error) => return Err(error),
    };
    let sound = matches!(verdict, ShardVerdict::Ok { .. });
    audit::state(|| Fact::ShardVerified { path: path.display().to_string(), sound });
    if more {
        core.io.drop_cache(&file, &path).await?;
    }
    Ok(verdict)
}

/// Reads back from the device what was written under a name that is not yet the shard's.
pub(super) async fn prove(core: &Arc<Core>, key: ShardKey, path: &Path) -> Result<(), DiskError> {
    let (file, window) = core.io.open_and_reread(path).await?;
    read_through(core, key, path.to_owned(), file, window).await.map(drop)
}

/// Length of the file and checksum of its content.
async fn read_through(
    core: &Arc<Core>,
    key: ShardKey,
    path: PathBuf,
    file: Arc<dyn File>,
    window: Bytes,
) -> Result<(u64, u32), DiskError> {
    let mut reader = ShardReader::with_window(core, key, path, file, window).await?;
    let mut whole = 0;
    for block in 0..reader.blocks() {
        let (data, _) = reader.read_block(block).await?;
        // Cheaper than to combine the blocks' own: the content is in the processor's cache.
        whole = crc32c::crc32c_append(whole, &data);
    }
    Ok((reader.head.file_bytes(), whole))
}
