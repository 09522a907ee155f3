//! The superblock: whose disk this is.
//!
//! A small text file in the disk's root, replaced atomically: one line of JSON, one line with the CRC32C of the first
//! line's bytes. The checksum is judged before the contents, so that a flipped bit is never taken for a newer format or
//! another cluster's disk.

use std::io;
use std::path::Path;

use bytes::Bytes;
use resilver_host::{FileKind, Host, disk};
use serde::{Deserialize, Serialize};

use super::Owner;
use super::error::DiskError;
use crate::types::{ClusterId, DiskId, Epoch, InstanceId, NodeName};

/// The format of disks and shard files this version writes. A disk with a higher one is refused.
pub const FORMAT: u16 = 1;

/// The superblock's file name within the disk's folder.
pub const SUPERBLOCK_FILE: &str = "resilver-disk";

/// Far more than a superblock needs: a longer file is none.
const LIMIT_BYTES: u64 = 64 * 1024;

/// What [`disk::replace_file`] leaves behind when it is interrupted: ours too, and no reason to call a folder foreign.
const TEMPORARY_FILE: &str = "resilver-disk.tmp";

/// What a file system's root holds by itself.
const LOST_AND_FOUND: &str = "lost+found";

/// Who a disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) disk: DiskId,
    pub(super) node: NodeName,
    pub(super) instance: InstanceId,
    /// `None` until its node joins a cluster.
    pub(super) cluster: Option<ClusterId>,
    pub(super) epoch: Epoch,
    /// For people.
    pub(super) created_ms: u64,
}

/// The JSON line: ids as the hexadecimal text people see everywhere else.
#[derive(Serialize, Deserialize)]
struct Wire {
    format: u16,
    disk: String,
    node: NodeName,
    instance: String,
    cluster: Option<String>,
    epoch: Epoch,
    created_ms: u64,
}

/// All that is read before the format is known to be ours.
#[derive(Deserialize)]
struct FormatOnly {
    format: u16,
}

/// Why a text is no superblock of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    Damaged(String),
    TooNew(u16),
}

impl Superblock {
    pub(super) fn encode(&self) -> Bytes {
        let wire = Wire {
            format: FORMAT,
            disk: self.disk.to_string(),
            node: self.node.clone(),
            instance: self.instance.to_string(),
            cluster: self.cluster.map(|cluster| cluster.to_string()),
            epoch: self.epoch,
            created_ms: self.created_ms,
        };
        let line = serde_json::to_string(&wire).expect("strings and numbers have a JSON form");
        let crc = crc32c::crc32c(line.as_bytes());
        Bytes::from(format!("{line}\ncrc32c {crc:08x}\n"))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let damaged = |what: &str| Unreadable::Damaged(what.to_owned());
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
        let (line, trailer) = text.split_once('\n').ok_or_else(|| damaged("it ends early"))?;
        let crc = crc32c::crc32c(line.as_bytes());
        if trailer != format!("crc32c {crc:08x}\n") {
            return Err(Unreadable::Damaged(format!("its checksum is {crc:08x}, which it does not say itself")));
        }
        let json = |error: serde_json::Error| Unreadable::Damaged(error.to_string());
        let FormatOnly { format } = serde_json::from_str(line).map_err(json)?;
        if format > FORMAT {
            return Err(Unreadable::TooNew(format));
        }
        let wire: Wire = serde_json::from_str(line).map_err(json)?;
        Ok(Self {
            disk: wire.disk.parse().map_err(|_| damaged("its disk id is none"))?,
            node: wire.node,
            instance: wire.instance.parse().map_err(|_| damaged("its instance is none"))?,
            cluster: match wire.cluster {
                Some(text) => Some(text.parse().map_err(|_| damaged("its cluster id is none"))?),
                None => None,
            },
            epoch: wire.epoch,
            created_ms: wire.created_ms,
        })
    }
}

/// What a configured path turned out to be.
#[derive(Debug)]
pub(super) enum Found {
    /// A disk of Resilver.
    Disk(Superblock),
    /// There is a superblock, but it is damaged.
    Damaged(String),
    /// No such path.
    Absent,
    /// A folder with nothing in it.
    Empty,
    /// A folder with something in it that is not ours.
    Occupied { first: String },
    /// It could not be looked at.
    Failed(io::Error),
}

/// Looks at a configured path without changing anything.
pub(super) async fn inspect(host: &Host, path: &Path) -> Result<Found, DiskError> {
    match host.disk.metadata(path).await {
        Ok(metadata) if metadata.kind != FileKind::Dir => return Err(DiskError::NotAFolder { path: path.to_owned() }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(error) => return Ok(Found::Failed(error)),
    }
    match read(host, path).await {
        Ok(Ok(superblock)) => return Ok(Found::Disk(superblock)),
        Ok(Err(Unreadable::Damaged(detail))) => return Ok(Found::Damaged(detail)),
        Ok(Err(Unreadable::TooNew(found))) => return Err(DiskError::TooNew { path: path.to_owned(), found }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Ok(Found::Failed(error)),
    }
    match host.disk.list(path).await {
        Ok(entries) => {
            let foreign =
                entries.into_iter().find(|entry| entry.name != LOST_AND_FOUND && entry.name != TEMPORARY_FILE);
            Ok(foreign.map_or(Found::Empty, |entry| Found::Occupied { first: entry.name }))
        }
        Err(error) => Ok(Found::Failed(error)),
    }
}

/// Reads a disk's superblock.
pub(super) async fn read(host: &Host, disk: &Path) -> io::Result<Result<Superblock, Unreadable>> {
    match disk::read_file(&*host.disk, &disk.join(SUPERBLOCK_FILE), LIMIT_BYTES).await {
        Ok(bytes) => Ok(Superblock::decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Err(Unreadable::Damaged(error.to_string()))),
        Err(error) => Err(error),
    }
}

/// Whose disk lies at this path, if a sound superblock says so: a node that lost its metadata folder learns from it who it
/// was.
pub(crate) async fn owner_on(host: &Host, disk: &Path) -> Option<Owner> {
    let superblock = read(host, disk).await.ok()?.ok()?;
    Some(Owner { node: superblock.node, instance: superblock.instance, cluster: superblock.cluster })
}

/// Writes a disk's superblock, atomically and durably.
pub(super) async fn write(host: &Host, disk: &Path, superblock: &Superblock) -> io::Result<()> {
    disk::replace_file(&*host.disk, &disk.join(SUPERBLOCK_FILE), superblock.encode()).await
}
