//! The vote: what this member promised in which term. Forgetting it would let it vote twice in one term.
//!
//! Owns: the file `vote` in the log's folder. It is made together with the log, so that its absence is never taken for
//! "has not voted yet".
//!
//! Must never: answer a write before both copies are synced.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use resilver_host::planted::{Bug, bug};
use resilver_host::{Disk, Host};
use tokio::sync::Mutex;

use super::error::{Damage, Fuse, LogError};
use super::prefix::Kind;
use super::slots::{Doubtful, FIRST_SEQUENCE, MAX_CONTENT_BYTES, Opened, Slots};

/// The file's name within the log's folder.
pub(super) const VOTE_NAME: &str = "vote";
/// Most bytes of a vote: a serialized one has about 20.
pub const MAX_VOTE_BYTES: usize = 512;
const _: () = assert!(MAX_VOTE_BYTES <= MAX_CONTENT_BYTES);
static VOTE_KIND: Kind = Kind { magic: *b"RSLVVOTE", format: 1 };

/// The vote, open for writing. Cheap to clone.
#[derive(Clone)]
pub struct VoteFile {
    writer: Arc<Mutex<Writer>>,
}

struct Writer {
    slots: Slots,
    fuse: Fuse,
}

impl VoteFile {
    /// Opens the vote in the log's folder `dir`, after [`super::LogStore::open`] has made or judged that folder. The
    /// vote last written, if ever one was.
    ///
    /// # Errors
    /// [`LogError::Lost`] when it is missing or unreadable.
    pub async fn open(host: &Host, dir: &Path) -> Result<(VoteFile, Option<Bytes>), LogError> {
        Self::open_on(&*host.disk, dir).await
    }

    pub(super) async fn open_on(disk: &dyn Disk, dir: &Path) -> Result<(VoteFile, Option<Bytes>), LogError> {
        let Opened { mut slots, content, sequence } = open(disk, dir).await?;
        slots.settle(&content).await?;
        let vote = (sequence > FIRST_SEQUENCE).then_some(content);
        Ok((VoteFile { writer: Arc::new(Mutex::new(Writer { slots, fuse: Fuse::Sound })) }, vote))
    }

    /// Replaces the vote. Durable when `Ok`.
    ///
    /// # Errors
    /// Of writing and syncing; after one, every later write fails.
    pub async fn write(&self, vote: Bytes) -> Result<(), LogError> {
        if vote.len() > MAX_VOTE_BYTES {
            let (bytes, limit_bytes) = (vote.len() as u64, MAX_VOTE_BYTES as u64);
            return Err(LogError::TooLarge { what: "the vote".to_owned(), bytes, limit_bytes });
        }
        if bug(Bug::ForgetVote) {
            return Ok(());
        }
        let mut writer = self.writer.lock().await;
        writer.fuse.begin("writing the vote")?;
        let done = writer.slots.write(&vote).await;
        writer.fuse.end(done)
    }

    /// Compares both copies on disk with what was voted last; one that is rotten is written anew, as at open. What was wrong
    /// with it.
    ///
    /// # Errors
    /// [`LogError::Lost`] when both are rotten; [`LogError::Io`]; [`LogError::Poisoned`] after a failed write.
    pub(crate) async fn reread(&self, disk: &dyn Disk) -> Result<Option<Damage>, LogError> {
        let mut writer = self.writer.lock().await;
        writer.fuse.check()?;
        let Some(Doubtful { which, damage }) = writer.slots.reread(disk).await? else { return Ok(None) };
        writer.fuse.begin("mending the vote")?;
        let done = writer.slots.mend(which).await;
        writer.fuse.end(done)?;
        Ok(Some(damage))
    }
}

/// Makes the file, not voted yet.
pub(super) async fn create(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    Slots::create(disk, &dir.join(VOTE_NAME), &VOTE_KIND, &[]).await
}

/// Whether nothing was ever voted with the file in `dir`.
pub(super) async fn is_pristine(disk: &dyn Disk, dir: &Path) -> Result<bool, LogError> {
    Ok(open(disk, dir).await?.sequence == FIRST_SEQUENCE)
}

async fn open(disk: &dyn Disk, dir: &Path) -> Result<Opened, LogError> {
    let path = dir.join(VOTE_NAME);
    match Slots::open(disk, &path, &VOTE_KIND).await {
        Err(LogError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(Damage::new(&path, 0, "file", "the vote beside the log", "no such file").into())
        }
        opened => opened,
    }
}
