//! A file that grows, is cut, or is put aside for another of its name.
//!
//! Invariants: what was written to a file before it was put aside is read to its end; every byte is handed out once. The one
//! exception: a file that is cut (or could not be read, and is another by then) and has grown beyond where it was read before
//! anybody looks again cannot be told from one that only grew. (A next file of just the length of the one before is seen once it grows.)

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use resilver_host::{File, Host, OpenMode};

/// The farthest that reading may be behind: a log that runs wild is sampled, not followed.
const MAX_BEHIND_BYTES: u64 = 16 * 1024 * 1024;

/// What a file that only the sensor reads may grow to before it is emptied.
const EMPTY_BYTES: u64 = 4 * 1024 * 1024;

/// The next bytes.
pub(super) struct Piece {
    pub(super) data: Bytes,
    /// They do not go on from those before.
    pub(super) anew: bool,
}

/// Follows a file.
pub(super) struct Follower {
    host: Host,
    path: PathBuf,
    file: Option<Arc<dyn File>>,
    at: u64,
    /// How far a file was read that then could not be.
    resume: Option<u64>,
    /// The first file that is found is read from its end: only news count.
    from_end: bool,
    anew: bool,
}

impl Follower {
    /// Follows `path`, which need not be there yet. `from_end`: what it has now is no news.
    pub(super) fn new(host: &Host, path: PathBuf, from_end: bool) -> Self {
        Self { host: host.clone(), path, file: None, at: 0, resume: None, from_end, anew: true }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there was a file to read at the last look.
    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// The next bytes; `None`: there are none now.
    pub(super) async fn next(&mut self, most: usize) -> io::Result<Option<Piece>> {
        let read = self.read(most).await;
        if read.is_err() && self.file.take().is_some() {
            // What is open may never be read again, while its name is long another file's (a share that was mounted anew).
            self.resume = Some(self.at);
        }
        read
    }

    async fn read(&mut self, most: usize) -> io::Result<Option<Piece>> {
        // A file that was put aside has an end, and another one behind it.
        for _ in 0..2 {
            let Some(file) = self.open().await? else { return Ok(None) };
            let len = file.len().await?;
            if len < self.at {
                (self.at, self.anew) = (0, true);
            }
            if len - self.at > MAX_BEHIND_BYTES {
                let skipped = len - self.at - MAX_BEHIND_BYTES;
                tracing::warn!(log = %self.path.display(), skipped, "a log grows faster than it is looked at");
                (self.at, self.anew) = (len - MAX_BEHIND_BYTES, true);
            }
            let data = file.read_at(self.at, most).await?;
            if !data.is_empty() {
                self.at += data.len() as u64;
                return Ok(Some(Piece { data, anew: std::mem::take(&mut self.anew) }));
            }
            if !self.is_another(&*file).await? {
                return Ok(None);
            }
            (self.file, self.at, self.anew) = (None, 0, true);
        }
        Ok(None)
    }

    /// Empties a file that only this reads, once it is long and read to its end. What is written in between is lost.
    pub(super) async fn empty_when_read(&mut self) {
        if self.at < EMPTY_BYTES || self.file.is_none() {
            return;
        }
        let emptied = async {
            let file = self.host.disk.open(&self.path, OpenMode::Write).await?;
            if file.len().await? == self.at {
                file.set_len(0).await?;
                self.at = 0;
            }
            io::Result::Ok(())
        };
        if let Err(error) = emptied.await {
            tracing::debug!(log = %self.path.display(), %error, "a followed file could not be emptied");
        }
    }

    async fn open(&mut self) -> io::Result<Option<Arc<dyn File>>> {
        if let Some(file) = &self.file {
            return Ok(Some(file.clone()));
        }
        let file = match self.host.disk.open(&self.path, OpenMode::Read).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Whatever comes from now on is news.
                (self.from_end, self.resume) = (false, None);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let len = file.len().await?;
        self.at = match self.resume.take() {
            _ if std::mem::take(&mut self.from_end) => len,
            Some(at) if at <= len => at,
            _ => 0,
        };
        Ok(Some(self.file.insert(file).clone()))
    }

    /// Whether the name is another file's by now. The one that is open has no more bytes, so that it is as long as it was
    /// read; the file of the name is, too, if it is this one.
    async fn is_another(&self, file: &dyn File) -> io::Result<bool> {
        let named = match self.host.disk.metadata(&self.path).await {
            Ok(found) => found.len_bytes,
            // Put aside, and the next is not there yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        // Measured after the name, so that what was written in between is not taken for a difference.
        let open = file.len().await?;
        Ok(named > open || (named < self.at && open >= self.at))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::io::Write;

    use super::*;

    async fn all(follower: &mut Follower) -> String {
        let mut text = Vec::new();
        while let Some(piece) = follower.next(5).await.unwrap() {
            text.extend_from_slice(&piece.data);
        }
        String::from_utf8(text).unwrap()
    }

    fn append(path: &Path, text: &str) {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[tokio::test]
    async fn what_is_appended_is_read_once_and_what_was_there_before_is_no_news() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "old\n");
        let mut follower = Follower::new(&resilver_host::real::host(), path.clone(), true);
        assert_eq!(all(&mut follower).await, "");
        append(&path, "one\ntwo\n");
        assert_eq!(all(&mut follower).await, "one\ntwo\n");
        assert_eq!(all(&mut follower).await, "");
    }

    #[tokio::test]
    async fn a_rotated_log_is_read_to_its_end_and_then_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut follower = Follower::new(&resilver_host::real::host(), path.clone(), true);
        assert_eq!(all(&mut follower).await, "");
        append(&path, "first\n");
        assert_eq!(all(&mut follower).await, "first\n", "a log that comes later is read from its beginning");
        append(&path, "last\n");
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        assert_eq!(all(&mut follower).await, "last\n");
        append(&path, "new\n");
        assert_eq!(all(&mut follower).await, "new\n");
        std::fs::rename(&path, dir.path().join("log.2")).unwrap();
        append(&path, "a longer one than before\n");
        assert_eq!(all(&mut follower).await, "a longer one than before\n");
    }

    #[tokio::test]
    async fn a_log_that_is_cut_is_read_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "");
        let mut follower = Follower::new(&resilver_host::real::host(), path.clone(), true);
        assert_eq!(all(&mut follower).await, "");
        append(&path, "much of it\n");
        assert_eq!(all(&mut follower).await, "much of it\n");
        std::fs::write(&path, "cut\n").unwrap();
        assert_eq!(all(&mut follower).await, "cut\n");
    }
}
