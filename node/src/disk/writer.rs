//! Writing one shard: under a temporary name, until all of it is durable.
//!
//! Blocks are gathered and written [`GATHER_BYTES`] at a time, because every write is a trip to the blocking pool. So a
//! writer holds that much and one block, whatever the length of the shard. A shard that fits is made in two trips: the
//! durable file, then its name; what nobody waits for shares both with whatever else is written so (`together.rs`). There is
//! one sync of data and one of a folder per shard, both at the end: neither can be left out, and more would only cost.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use resilver_host::audit::{self, Fact};
use resilver_host::planted::{Bug, bug};
use resilver_host::{File, OpenMode, fault};

use super::core::{Core, TEMPORARY};
use super::error::DiskError;
use super::foreground::Purpose;
use super::reader;
use super::shard_file::{SEAL_BYTES, ShardHead, file_name, seal};
use crate::codec::Layout;
use crate::types::ShardKey;

/// How much is gathered before it is written. From 256 KiB on, positioned writes on the blocking pool are as fast as
/// any other way of writing (perf.md), and a shard of a small object is one write.
const GATHER_BYTES: usize = 256 * 1024;

/// A shard being written. Dropped without [`ShardWriter::finish`], it leaves nothing but a temporary file, which goes
/// within a second.
pub struct ShardWriter {
    core: Arc<Core>,
    head: ShardHead,
    layout: Layout,
    header_crc: u32,
    /// `None` as long as all is gathered: a small shard is created, written and synced in one step.
    file: Option<Arc<dyn File>>,
    temporary: Temporary,
    /// Gathered, not yet written.
    gathered: BytesMut,
    /// Bytes of the file that were written.
    written: u64,
    /// The block that is due.
    next: u32,
    purpose: Purpose,
    /// All of it is durable under the temporary name.
    settled: bool,
}

/// The temporary file and the sole right to write this shard: both given up when dropped, without touching the disk.
struct Temporary {
    core: Arc<Core>,
    key: ShardKey,
    /// `None` once it is gone or has its final name.
    path: Option<PathBuf>,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        self.core.release(self.key);
        if let Some(path) = self.path.take() {
            self.core.leave(path);
        }
    }
}

impl std::fmt::Debug for ShardWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardWriter").field("head", &self.head).field("next", &self.next).finish_non_exhaustive()
    }
}

impl ShardWriter {
    pub(super) fn create(core: &Arc<Core>, head: ShardHead) -> Result<Self, DiskError> {
        let key = head.key;
        head.check().map_err(|detail| DiskError::Invalid { key, detail })?;
        core.admit(true)?;
        core.reserve(head.file_bytes())?;
        if !core.claim(key) {
            return Err(DiskError::Busy { key });
        }
        let mut temporary = Temporary { core: Arc::clone(core), key, path: None };
        let name = format!("{}.{}", file_name(key), core.next_serial());
        let path = core.io.root.join(TEMPORARY).join(name);
        // Before it exists: a caller that is dropped while the file is being made must not leave it.
        temporary.path = Some(path);
        let layout = head.layout();
        let (header, header_crc) = head.encode();
        let room = usize::try_from(head.file_bytes()).unwrap_or(usize::MAX);
        let mut gathered = BytesMut::with_capacity(room.min(GATHER_BYTES + head.block_bytes as usize + SEAL_BYTES));
        gathered.put_slice(&header);
        Ok(Self {
            core: Arc::clone(core),
            head,
            layout,
            header_crc,
            file: None,
            temporary,
            gathered,
            written: 0,
            next: 0,
            purpose: Purpose::Background,
            settled: false,
        })
    }

    /// From now on a client waits for it: its steps count as the disk's foreground use.
    pub fn for_client(self) -> Self {
        Self { purpose: Purpose::Client, ..self }
    }

    /// What is being written.
    pub fn head(&self) -> &ShardHead {
        &self.head
    }

    /// Takes the next block and the CRC32C of its data, which is checked first: what does not match is not written.
    ///
    /// # Errors
    /// [`DiskError::BadBlock`] and [`DiskError::Invalid`] leave the writer as it was; any other ends it.
    pub async fn block(&mut self, data: Bytes, crc: u32) -> Result<(), DiskError> {
        let (key, block) = (self.head.key, self.next);
        let due = self.layout.block_len(block);
        if data.len() != due || block >= self.layout.stripes() {
            let detail = format!("block {block} has {} bytes where {due} are due", data.len());
            return Err(DiskError::Invalid { key, detail });
        }
        let got = crc32c::crc32c(&data);
        if got != crc {
            return Err(DiskError::BadBlock { key, block, expected: crc, got });
        }
        self.gathered.put_slice(&data);
        self.gathered.put_u32_le(seal(self.header_crc, block, crc));
        self.next += 1;
        if self.gathered.len() >= GATHER_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes what is gathered. The open file.
    async fn flush(&mut self) -> Result<Arc<dyn File>, DiskError> {
        let core = Arc::clone(&self.core);
        let _step = core.foreground.begin(self.purpose);
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let opened = self.core.io.open(self.temporary_path(), OpenMode::CreateNew).await;
                self.file.insert(opened.map_err(|error| self.told(error))?).clone()
            }
        };
        let data = self.gathered.split().freeze();
        if !data.is_empty() {
            let len = data.len() as u64;
            let result = self.core.io.write(&file, self.temporary_path(), self.written, data).await;
            result.map_err(|error| self.told(error))?;
            self.written += len;
        }
        Ok(file)
    }

    /// Makes the content durable under the temporary name, if all of it is there.
    async fn settle(&mut self) -> Result<(), DiskError> {
        if self.next != self.layout.stripes() {
            let detail = format!("{} of its {} blocks came", self.next, self.layout.stripes());
            return Err(DiskError::Invalid { key: self.head.key, detail });
        }
        if !self.settled {
            self.write_through().await?;
            assert_eq!(self.written, self.head.file_bytes(), "all blocks came with their due lengths");
            self.settled = true;
        }
        Ok(())
    }

    async fn write_through(&mut self) -> Result<(), DiskError> {
        let acknowledge_early = bug(Bug::AckBeforeShardSync);
        let core = Arc::clone(&self.core);
        let _step = core.foreground.begin(self.purpose);
        if self.file.is_none() && !acknowledge_early {
            let data = self.gathered.split().freeze();
            self.written = data.len() as u64;
            let (io, path) = (&self.core.io, self.temporary_path());
            let made = match self.purpose {
                Purpose::Client => io.create_synced(path, data).await,
                Purpose::Background => io.create_synced_together(path, data).await,
            };
            return made.map_err(|error| self.told(error));
        }
        let file = self.flush().await?;
        if acknowledge_early {
            return Ok(());
        }
        let synced = self.core.io.sync(&file, self.temporary_path()).await;
        synced.map_err(|error| self.told(error))
    }

    /// Gives the durable content its name. The length in bytes of what had it.
    async fn publish(&self, path: &Path) -> Result<Option<u64>, DiskError> {
        let _step = self.core.foreground.begin(self.purpose);
        // Only the new name must be durable. That the old one is gone need not be: what is under tmp/ is removed at open.
        let (io, from) = (&self.core.io, self.temporary_path());
        let named = match self.purpose {
            _ if bug(Bug::AckBeforeShardSync) => io.rename(from, path).await.map(|()| None),
            Purpose::Client => io.publish(from, path).await,
            Purpose::Background => io.publish_together(from, path).await,
        };
        named.map_err(|error| self.told(error))
    }

    fn temporary_path(&self) -> &Path {
        self.temporary.path.as_deref().unwrap_or(&self.core.io.root)
    }

    /// What a failed step means for a shard: a full disk is told with figures, a folder that is not there is a disk that
    /// went away.
    fn told(&self, error: DiskError) -> DiskError {
        match error {
            DiskError::Full { .. } => self.core.full(0, self.head.file_bytes()),
            error if error.is_not_found() => self.core.lost_folder(),
            other => other,
        }
    }

    /// Makes the content durable under its temporary name and reads it back from the device: whoever has the shard's name now
    /// keeps it until this is known to be good.
    ///
    /// # Errors
    /// When blocks are missing, the disk fails, or what is read back is not what was written.
    pub async fn prove(&mut self) -> Result<(), DiskError> {
        self.settle().await?;
        let core = Arc::clone(&self.core);
        reader::prove(&core, self.head.key, self.temporary_path()).await.map_err(|error| self.told(error))
    }

    /// Makes the shard durable under its name. Its length in bytes.
    ///
    /// # Errors
    /// When blocks are missing, or any step fails: the shard may then be there or not, but if it is, it is whole.
    pub async fn finish(mut self) -> Result<u64, DiskError> {
        let key = self.head.key;
        self.settle().await?;
        fault::point("disk.shard_synced");

        // A disk that turned out to be another one meanwhile must not be given our shard.
        let core = Arc::clone(&self.core);
        core.admit(true)?;
        let path = core.shard_path(key);
        audit::state(|| Fact::ShardWritten { path: path.display().to_string() });
        let replaced = self.publish(&path).await?;
        self.temporary.path = None;
        fault::point("disk.shard_published");
        if let Some(bytes) = replaced {
            core.removed(bytes);
        }
        core.added(self.written);
        core.touch(key);
        audit::state(|| Fact::ShardKept { path: path.display().to_string() });
        Ok(self.written)
    }

    /// Gives the shard up and removes the temporary file now.
    pub async fn abort(mut self) {
        if let Some(path) = self.temporary.path.take()
            && self.core.io.remove_file(&path).await.is_err()
        {
            self.core.leave(path);
        }
    }
}
