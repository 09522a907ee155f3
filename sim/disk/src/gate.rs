//! The gate: what every disk call passes before it takes effect.
//!
//! Owns: the shape of an operation as the kernel sees it. Must never: know what an operation does. An operation whose
//! future is dropped at the gate has had no effect; one that passed takes effect in the same poll, at once.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;

/// What kind of work an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKind {
    /// Opening (and perhaps creating) a file.
    Open,
    /// Reading from an open file.
    Read,
    /// Writing to an open file.
    Write,
    /// Making an open file durable.
    Sync,
    /// Asking an open file's length.
    Len,
    /// Setting an open file's length.
    SetLen,
    /// Reserving room for an open file.
    Allocate,
    /// Dropping an open file's cache.
    DropCache,
    /// Asking a path's length and kind.
    Metadata,
    /// Renaming.
    Rename,
    /// Removing a file.
    RemoveFile,
    /// Removing a folder.
    RemoveDir,
    /// Creating a folder and its parents.
    CreateDir,
    /// Making a folder's entries durable.
    SyncDir,
    /// Listing a folder.
    List,
    /// Asking for room.
    Space,
}

/// An operation that wants to pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Its kind.
    pub kind: OpKind,
    /// The path it names; of an open file the path it was opened by.
    pub path: PathBuf,
    /// Bytes it moves: the data of a write, the wish of a read, what a sync has to make durable.
    pub bytes: usize,
    /// How many times longer than usual it takes ([`crate::DeviceFault::Slow`]); 1 when the device is well.
    pub slow: u32,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} ({} bytes", self.kind, self.path.display(), self.bytes)?;
        if self.slow > 1 {
            write!(f, ", {} times slower", self.slow)?;
        }
        f.write_str(")")
    }
}

/// What a process's disk calls pass before they do anything. The kernel has one per process.
#[async_trait]
pub trait Gate: Send + Sync + 'static {
    /// Awaits the operation's simulated duration. Never resolves once the process is dying: no effect may happen then.
    /// An operation that found its device hung passes again after the mend.
    async fn pass(&self, op: &Op);
    /// The synchronous face. False: the process is dying, and nothing may take effect.
    fn pass_blocking(&self, op: &Op) -> bool;
}

/// A gate that is always open: for tests and for tools that look at a machine from outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDelay;

#[async_trait]
impl Gate for NoDelay {
    async fn pass(&self, _op: &Op) {}

    fn pass_blocking(&self, _op: &Op) -> bool {
        true
    }
}
