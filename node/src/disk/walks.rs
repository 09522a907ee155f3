//! How far the slow walks over a disk are, on the disk itself: a node that is restarted goes on where it was.
//!
//! A small text file in the disk's root, as the superblock is one: a line of JSON, a line with its CRC32C. Losing it costs a walk
//! that begins anew and nothing else, so it is written seldom, and what cannot be read counts as absent.
//!
//! Must never: be written while the disk is not known to be ours (then this would be somebody else's file).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use resilver_host::disk;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::core::Core;

/// The file's name within the disk's folder.
const WALKS_FILE: &str = "walks";

/// Far more than it needs: a longer file is none.
const LIMIT_BYTES: u64 = 64 * 1024;

/// A walk is written down at most this often: with a short period (tests, demonstrations) a folder is done many times a second,
/// and each time would be two syncs.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// Which walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalkKind {
    /// Every byte is read.
    Scrub,
    /// Names and lengths are compared with the metadata, shard by shard.
    Compare,
}

/// How far a walk over the folders of a disk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walk {
    /// The folder it began with.
    pub first: u8,
    /// Folders done of this pass.
    pub done: u16,
    /// Time spent on this pass; that a node was not running does not count.
    pub elapsed_ms: u64,
}

/// All walks of a disk, as known here.
#[derive(Debug, Default)]
pub(super) struct Walks {
    known: BTreeMap<WalkKind, Walk>,
    kept: BTreeMap<WalkKind, Instant>,
}

/// Where a walk was when it was last written down; `None`: it never was, or that cannot be read.
pub(super) async fn load(core: &Core, kind: WalkKind) -> Option<Walk> {
    let mut walks = core.walks.lock().await;
    if let Some(walk) = walks.known.get(&kind) {
        return Some(*walk);
    }
    let read = disk::read_file(&*core.io.host.disk, &core.io.root.join(WALKS_FILE), LIMIT_BYTES).await;
    let stored = decode(&read.ok()?)?;
    for (kind, walk) in stored {
        walks.known.entry(kind).or_insert(walk);
    }
    walks.known.get(&kind).copied()
}

/// Remembers where a walk is, and writes it down now and then.
pub(super) async fn keep(core: &Core, kind: WalkKind, walk: Walk) {
    let mut walks = core.walks.lock().await;
    walks.known.insert(kind, walk);
    let now = Instant::now();
    // The first time is when it began: nothing is lost yet.
    let since = *walks.kept.entry(kind).or_insert(now);
    if now.duration_since(since) < KEEP_EVERY || !core.is_prepared() || core.admit(true).is_err() {
        return;
    }
    walks.kept.insert(kind, now);
    if let Err(error) = core.io.replace(&core.io.root.join(WALKS_FILE), encode(&walks.known)).await {
        tracing::debug!(disk = %core.io.disk, %error, "how far the walks over this disk are was not written down");
    }
}

fn encode(walks: &BTreeMap<WalkKind, Walk>) -> Bytes {
    let walks: Vec<(WalkKind, Walk)> = walks.iter().map(|(kind, walk)| (*kind, *walk)).collect();
    let line = serde_json::to_string(&walks).expect("names and numbers have a JSON form");
    let crc = crc32c::crc32c(line.as_bytes());
    Bytes::from(format!("{line}\ncrc32c {crc:08x}\n"))
}

fn decode(bytes: &[u8]) -> Option<Vec<(WalkKind, Walk)>> {
    let (line, trailer) = std::str::from_utf8(bytes).ok()?.split_once('\n')?;
    let crc = crc32c::crc32c(line.as_bytes());
    (trailer == format!("crc32c {crc:08x}\n")).then(|| serde_json::from_str(line).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_nothing() {
        let walk = Walk { first: 7, done: 200, elapsed_ms: 5 };
        let bytes = encode(&BTreeMap::from([(WalkKind::Scrub, walk)]));
        assert_eq!(decode(&bytes), Some(vec![(WalkKind::Scrub, walk)]));
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
        }
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(decode(b""), None);
    }
}
