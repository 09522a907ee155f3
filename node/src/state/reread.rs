//! The database's file read back while it is in use.
//!
//! Must never: change anything, or hold a moment of the state: a walk that takes minutes would make the file grow.

use std::io;

use resilver_host::OpenMode;
use tokio::sync::watch;

use super::{State, StateError};

/// What is read at a time: 256 pages.
const PIECE_BYTES: u64 = 1 << 20;

impl State {
    /// Reads a piece of the file back from the disk, from byte `from` on, and compares every page with what was verified at open
    /// or written since. The bytes read; `None`: the file ends before.
    ///
    /// # Errors
    /// [`StateError::is_damage`] when a page is not what it must be, or the file is gone.
    pub(crate) async fn reread(&self, from: u64) -> Result<Option<u64>, StateError> {
        let pages = self.inner.pages.clone();
        let end = pages.end().min(from.saturating_add(PIECE_BYTES));
        let Some(len) = end.checked_sub(from).filter(|len| *len > 0) else { return Ok(None) };
        let path = pages.path().to_path_buf();
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => StateError::Missing { path: path.clone() },
            _ => StateError::Io { what: "reading", path: path.clone(), source },
        };
        // By its name: a file that was removed is missed, although the database still has it open.
        let file = self.inner.host.disk.open(&path, OpenMode::Read).await.map_err(failed)?;
        file.drop_cache_of(from, len).await.map_err(failed)?;
        let data = file.read_at(from, usize::try_from(len).unwrap_or(usize::MAX)).await.map_err(failed)?;
        // Sums of a piece, and reading a page while nobody writes it, take their time.
        let compared = self
            .inner
            .host
            .blocking(move || pages.doubtful(from, &data, end).into_iter().try_for_each(|page| pages.confirm(page)));
        compared.await.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => StateError::Corrupt { table: "the file", detail: error.to_string() },
            _ => failed(error),
        })?;
        Ok(Some(len))
    }

    /// Why the database ended, once it read a page that is not what it must be. [`State::reread`] says what it finds itself.
    pub(crate) fn damage_changes(&self) -> watch::Receiver<Option<String>> {
        self.inner.pages.found()
    }
}
