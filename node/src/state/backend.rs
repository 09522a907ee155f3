//! redb's file, over the host seam.
//!
//! Owns: one open file. Must never: change a file before it is known to be ours to change (opening a database writes to
//! it, and one of a newer format would be marked by a release that only came to refuse it); write or sync after it was sealed: a crash (and the simulator's) runs `Drop`, and
//! redb's own `Drop` would otherwise make durable what the crash was to lose. What is read is compared with what was written
//! ([`super::pages`]).

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use resilver_host::{BlockingFile, Host, OpenMode};

use super::pages::Pages;
use crate::steps::Counter;

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

/// A change that redb made to its file.
#[derive(Debug)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

/// What is held back until the file is admitted; `None` from then on. Opening a database of a process that ended
/// cleanly changes a few hundred bytes, and one that was killed some pages.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    file: Arc<dyn BlockingFile>,
    pages: Arc<Pages>,
    held: Arc<Mutex<Option<Vec<Change>>>>,
}

impl Admission {
    /// The file is ours, and whole: makes the changes so far, in their order, and lets all later ones through.
    pub(super) fn admit(&self) -> io::Result<()> {
        let mut held = self.lock();
        for change in held.take().unwrap_or_default() {
            match change {
                Change::Write(offset, data) => self.file.write_all_at(offset, &data)?,
                Change::SetLen(len) => self.file.set_len(len)?,
                Change::Sync => self.file.sync()?,
            }
        }
        self.pages.verified();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Change>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The length of the file with the changes made.
fn len_with(changes: &[Change], len: u64) -> u64 {
    changes.iter().fold(len, |len, change| match change {
        Change::SetLen(len) => *len,
        Change::Write(offset, data) => len.max(offset + data.len() as u64),
        Change::Sync => len,
    })
}

/// Lays the changes over what the file holds from `offset` on.
fn lay_over(changes: &[Change], offset: u64, out: &mut [u8]) {
    let end = offset + out.len() as u64;
    for change in changes {
        match change {
            Change::Write(at, data) => {
                let (from, to) = ((*at).max(offset), (at + data.len() as u64).min(end));
                if from < to {
                    let source = &data[(from - at) as usize..(to - at) as usize];
                    out[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
                }
            }
            // What was cut off reads as zeros, should the file grow again.
            Change::SetLen(len) if *len < end => out[(len.saturating_sub(offset)) as usize..].fill(0),
            Change::SetLen(_) | Change::Sync => {}
        }
    }
}

/// The file redb works on.
#[derive(Debug)]
pub(super) struct Backend {
    admission: Admission,
    seal: Seal,
    /// Bytes read.
    read: Arc<Counter>,
}

impl Backend {
    /// Opens `path`; nothing reaches the file before [`Admission::admit`]. Call it inside `host.blocking`.
    pub(super) fn open(
        host: &Host,
        path: &Path,
        mode: OpenMode,
        (seal, read): (Seal, Arc<Counter>),
    ) -> io::Result<Self> {
        let file: Arc<dyn BlockingFile> = Arc::from(host.disk.open_blocking(path, mode)?);
        read.expect(file.len()?);
        let pages = Pages::new(path, file.clone());
        Ok(Self { admission: Admission { file, pages, held: Arc::new(Mutex::new(Some(Vec::new()))) }, seal, read })
    }

    /// What lets changes through to the file.
    pub(super) fn admission(&self) -> Admission {
        self.admission.clone()
    }

    /// What the file must hold.
    pub(super) fn pages(&self) -> Arc<Pages> {
        self.admission.pages.clone()
    }

    /// Holds a change back, or makes it.
    fn change(&self, change: impl FnOnce() -> Change, make: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.seal.check()?;
        let mut held = self.admission.lock();
        match held.as_mut() {
            Some(held) => {
                held.push(change());
                Ok(())
            }
            None => {
                // Only the order of changes before the admission is ours to keep.
                drop(held);
                make()
            }
        }
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        let len = self.admission.file.len()?;
        Ok(self.admission.lock().as_ref().map_or(len, |held| len_with(held, len)))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read.add(out.len() as u64);
        let held = self.admission.lock();
        let Some(changes) = held.as_ref().filter(|changes| !changes.is_empty()) else {
            drop(held);
            self.admission.file.read_exact_at(offset, out)?;
            return self.admission.pages.read(offset, out);
        };
        let len = self.admission.file.len()?;
        if offset + out.len() as u64 > len_with(changes, len) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let there = usize::try_from(len.saturating_sub(offset)).map_or(out.len(), |there| there.min(out.len()));
        let (in_file, behind) = out.split_at_mut(there);
        self.admission.file.read_exact_at(offset, in_file)?;
        behind.fill(0);
        lay_over(changes, offset, out);
        self.admission.pages.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // Before: what is cut off must not be missed meanwhile.
        self.admission.pages.resizing(len);
        self.change(|| Change::SetLen(len), || self.admission.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|| Change::Sync, || self.admission.file.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.admission.pages.writing(offset, data.len());
        self.change(|| Change::Write(offset, data.to_vec()), || self.admission.file.write_all_at(offset, data))?;
        self.admission.pages.written(offset, data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_changes_read_as_if_they_were_made() {
        let changes = [
            Change::Write(2, vec![7; 4]),
            Change::Sync,
            Change::Write(5, vec![9; 2]),
            Change::SetLen(6),
            Change::SetLen(10),
        ];
        assert_eq!(len_with(&changes, 8), 10);
        let mut whole = [1, 1, 1, 1, 1, 1, 1, 1, 0, 0];
        lay_over(&changes, 0, &mut whole);
        assert_eq!(whole, [1, 1, 7, 7, 7, 9, 0, 0, 0, 0]);
        let mut middle = [1; 3];
        lay_over(&changes, 4, &mut middle);
        assert_eq!(middle, [7, 9, 0]);
    }
}
