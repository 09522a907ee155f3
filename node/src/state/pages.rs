//! What the database's file must hold: a checksum of every page, in memory.
//!
//! redb verifies its pages' own checksums at open alone; a page that rots later is read as if it were sound, and what is made of
//! it is written with a good checksum. So every page is remembered as it was verified at open, or written since, and compared
//! whenever redb reads it and whenever `State::reread` comes by. Nothing of redb's format is known here, no moment of the state
//! is held, and a write that the disk acknowledged and lost is found as well.
//!
//! Must never: call a page damage that is being written (it is forgotten until it is), or that nobody knows. A page that redb has
//! given up meanwhile is compared like any other: whether it is needed the next open decides, by redb's own checksums.
//!
//! Memory: 8 bytes a page, 0.2% of the file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use resilver_host::BlockingFile;
use tokio::sync::watch;

/// Bytes of a page: what redb allocates and writes at least, its header of some hundred bytes aside.
pub(super) const PAGE_BYTES: u64 = 4096;

/// The beginning of one page, as it must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    /// How much of it is known; 0: nothing.
    bytes: u32,
    /// Its CRC32C.
    crc: u32,
}

/// The pages of one file.
#[derive(Debug)]
pub(super) struct Pages {
    path: PathBuf,
    file: Arc<dyn BlockingFile>,
    known: Mutex<Known>,
    /// What the engine came upon, once it did. For good: it cannot go on.
    found: watch::Sender<Option<String>>,
}

#[derive(Debug, Default)]
struct Known {
    sums: Vec<Sum>,
    /// The engine has verified what it read so far.
    verified: bool,
}

impl Known {
    fn sum(&self, page: u64) -> Sum {
        usize::try_from(page).ok().and_then(|page| self.sums.get(page)).copied().unwrap_or_default()
    }

    fn set(&mut self, page: u64, sum: Sum) {
        let Ok(page) = usize::try_from(page) else { return };
        if page >= self.sums.len() {
            self.sums.resize(page + 1, Sum::default());
        }
        self.sums[page] = sum;
    }
}

/// The pages whose beginnings lie in `[offset, offset + data.len())`, each with what is there of it.
fn beginnings(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let skipped = usize::try_from(offset.next_multiple_of(PAGE_BYTES) - offset).unwrap_or(usize::MAX);
    let first = offset.div_ceil(PAGE_BYTES);
    (first..).zip(data.get(skipped..).unwrap_or_default().chunks(PAGE_BYTES as usize))
}

impl Pages {
    pub(super) fn new(path: &Path, file: Arc<dyn BlockingFile>) -> Arc<Self> {
        Arc::new(Self { path: path.to_path_buf(), file, known: Mutex::default(), found: watch::Sender::new(None) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the engine came upon when it read, and every change of that.
    pub(super) fn found(&self) -> watch::Receiver<Option<String>> {
        self.found.subscribe()
    }

    /// The engine has verified what it read so far: from now on all of it is compared.
    pub(super) fn verified(&self) {
        self.lock().verified = true;
    }

    /// These bytes are about to be written, and nobody knows them until [`Pages::written`].
    pub(super) fn writing(&self, offset: u64, len: usize) {
        let mut known = self.lock();
        for page in offset / PAGE_BYTES..(offset + len as u64).div_ceil(PAGE_BYTES) {
            known.set(page, Sum::default());
        }
    }

    /// They were.
    pub(super) fn written(&self, offset: u64, data: &[u8]) {
        let mut known = self.lock();
        for (page, bytes) in beginnings(offset, data) {
            known.set(page, sum(bytes));
        }
    }

    /// The file is about to be cut, or to grow.
    pub(super) fn resizing(&self, len: u64) {
        let whole = usize::try_from(len / PAGE_BYTES).unwrap_or(usize::MAX);
        self.lock().sums.truncate(whole);
    }

    /// The engine read this. Before it is verified that is what the file holds; afterwards it has to be that.
    pub(super) fn read(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut known = self.lock();
        if !known.verified {
            for (page, bytes) in beginnings(offset, data).filter(|(_, bytes)| bytes.len() == PAGE_BYTES as usize) {
                if known.sum(page).bytes == 0 {
                    known.set(page, sum(bytes));
                }
            }
            return Ok(());
        }
        let doubtful: Vec<u64> = beginnings(offset, data)
            .filter(|(page, bytes)| !agrees(known.sum(*page), bytes))
            .map(|(page, _)| page)
            .collect();
        drop(known);
        doubtful.into_iter().try_for_each(|page| self.confirm(page)).inspect_err(|error| {
            self.found.send_replace(Some(error.to_string()));
        })
    }

    /// Pages of a piece of the file, read from `offset` on, that are not what they must be, or were written meanwhile:
    /// [`Pages::confirm`] knows.
    pub(super) fn doubtful(&self, offset: u64, data: &[u8], end: u64) -> Vec<u64> {
        let known = self.lock();
        let read =
            beginnings(offset, data).filter(|(page, bytes)| !agrees(known.sum(*page), bytes)).map(|(page, _)| page);
        // What lies behind the end of a file that was cut.
        let missing = (offset + data.len() as u64).div_ceil(PAGE_BYTES)..end.div_ceil(PAGE_BYTES);
        read.chain(missing.filter(|page| known.sum(*page).bytes > 0)).collect()
    }

    /// Where the known part of the file ends.
    pub(super) fn end(&self) -> u64 {
        self.lock().sums.len() as u64 * PAGE_BYTES
    }

    /// Reads one page while nobody can begin to write it, and compares it. Only inside [`resilver_host::Host::blocking`].
    pub(super) fn confirm(&self, page: u64) -> io::Result<()> {
        let known = self.lock();
        let expected = known.sum(page);
        // Being written, or not known.
        if expected.bytes == 0 {
            return Ok(());
        }
        let mut bytes = vec![0; expected.bytes as usize];
        let got = match self.file.read_exact_at(page * PAGE_BYTES, &mut bytes) {
            Ok(()) if crc32c::crc32c(&bytes) == expected.crc => return Ok(()),
            Ok(()) => format!("{:#010x}", crc32c::crc32c(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => "the end of the file".to_owned(),
            Err(error) => return Err(error),
        };
        let (path, at) = (self.path.display(), page * PAGE_BYTES);
        let detail = format!("{path}, byte {at}: checksum of a page: expected {:#010x}, got {got}", expected.crc);
        Err(io::Error::new(io::ErrorKind::InvalidData, detail))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sum(bytes: &[u8]) -> Sum {
    Sum { bytes: u32::try_from(bytes.len()).expect("a page at most"), crc: crc32c::crc32c(bytes) }
}

/// Whether a page that begins like this may be the one that is known. One of which less was read than is known may.
fn agrees(known: Sum, bytes: &[u8]) -> bool {
    bytes.get(..known.bytes as usize).is_none_or(|bytes| known.bytes == 0 || crc32c::crc32c(bytes) == known.crc)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::os::unix::fs::FileExt;

    use redb::StorageBackend;
    use resilver_host::OpenMode;

    use super::*;
    use crate::state::backend::{Backend, Seal};

    const PAGE: usize = PAGE_BYTES as usize;

    /// A file of four pages that was verified, and one handle behind its back.
    fn opened(dir: &Path) -> (Backend, std::fs::File) {
        let path = dir.join("file");
        std::fs::write(&path, vec![1; 4 * PAGE]).unwrap();
        let host = resilver_host::real::host();
        let backend = Backend::open(&host, &path, OpenMode::Write, (Seal::default(), Arc::default())).unwrap();
        let mut all = vec![0; 4 * PAGE];
        backend.read(0, &mut all).unwrap();
        backend.admission().admit().unwrap();
        (backend, std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap())
    }

    #[test]
    fn a_page_that_rotted_is_refused_when_it_is_read_and_whoever_asks_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (backend, behind) = opened(dir.path());
        let mut page = vec![0; PAGE];
        behind.write_all_at(&[2], 2 * PAGE as u64 + 7).unwrap();
        backend.read(PAGE as u64, &mut page).unwrap();
        assert_eq!(*backend.pages().found().borrow(), None);
        let error = backend.read(2 * PAGE as u64, &mut page).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("byte 8192"), "{error}");
        assert_eq!(*backend.pages().found().borrow(), Some(error.to_string()));
        // Written anew it is sound.
        backend.write(2 * PAGE as u64, &vec![3; PAGE]).unwrap();
        backend.read(2 * PAGE as u64, &mut page).unwrap();
    }

    #[test]
    fn a_write_that_the_disk_lost_is_found_and_a_part_of_a_page_counts_as_far_as_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (backend, behind) = opened(dir.path());
        let pages = backend.pages();
        backend.write(PAGE as u64, &vec![5; 2 * PAGE]).unwrap();
        behind.write_all_at(&vec![1; PAGE], PAGE as u64).unwrap();
        assert_eq!(pages.confirm(1).unwrap_err().kind(), io::ErrorKind::InvalidData);
        pages.confirm(2).unwrap();
        // As redb writes its header.
        backend.write(0, &[9; 320]).unwrap();
        behind.write_all_at(&[0; 10], 400).unwrap();
        pages.confirm(0).unwrap();
        behind.write_all_at(&[0; 10], 300).unwrap();
        assert!(pages.confirm(0).is_err());
        // From the middle of a page on nobody knows it.
        backend.write(3 * PAGE as u64 + 10, &[4; 20]).unwrap();
        behind.write_all_at(&[0; 10], 3 * PAGE as u64).unwrap();
        pages.confirm(3).unwrap();
    }

    #[test]
    fn a_page_that_is_being_written_or_was_cut_off_is_nobodys_to_judge() {
        let dir = tempfile::tempdir().unwrap();
        let (backend, behind) = opened(dir.path());
        let pages = backend.pages();
        pages.writing(PAGE as u64, PAGE);
        behind.write_all_at(&[7], PAGE as u64).unwrap();
        pages.confirm(1).unwrap();
        assert!(pages.doubtful(PAGE as u64, &vec![9; PAGE], 2 * PAGE_BYTES).is_empty());
        backend.set_len(2 * PAGE_BYTES).unwrap();
        assert_eq!(pages.end(), 2 * PAGE_BYTES);
        pages.confirm(3).unwrap();
    }
}
