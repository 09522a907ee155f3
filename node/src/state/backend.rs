//! redb's file, over the host seam.
//!
//! Owns: one open file. Must never: write or sync after it was sealed: a crash (and the simulator's) runs `Drop`, and
//! redb's own `Drop` would otherwise make durable what the crash was to lose.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use resilver_host::{BlockingFile, Host, OpenMode};

/// Shuts a backend for good: everything after it fails without touching the disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Seal(Arc<AtomicBool>);

impl Seal {
    pub(super) fn close(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) {
            return Err(io::Error::other("the database was let go without a clean close"));
        }
        Ok(())
    }
}

/// The file redb works on.
#[derive(Debug)]
pub(super) struct Backend {
    file: Box<dyn BlockingFile>,
    seal: Seal,
}

impl Backend {
    /// Opens `path`. Call it inside `host.blocking`.
    pub(super) fn open(host: &Host, path: &Path, mode: OpenMode, seal: Seal) -> io::Result<Self> {
        Ok(Self { file: host.disk.open_blocking(path, mode)?, seal })
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.seal.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.seal.check()?;
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.seal.check()?;
        self.file.write_all_at(offset, data)
    }
}
