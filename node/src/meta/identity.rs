//! Who this data folder is: `identity.json`, replaced atomically, checksummed.
//!
//! Owns: the file. Invariant: an identity that names a membership is written only after log, vote and database of that
//! member exist. So a member's identity beside an empty folder is never a fresh start: it is a lost voter.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use resilver_host::disk::{create_dir_durably, read_file, replace_file};
use resilver_host::{Host, Rng};
use serde::{Deserialize, Serialize};

use super::MetaError;
use crate::types::{ClusterId, Epoch, InstanceId, NodeName, RaftId};

pub use crate::disk::KnownDisk;

/// The file's name within the metadata folder.
pub(super) const FILE: &str = "identity.json";
/// Its format. It stands for the whole metadata folder, since it is the first that is read of it: raised with
/// [`crate::model::FORMAT`].
const FORMAT: u32 = 5;
/// The longest identity believed: a thousand disks with long paths.
const MAX_BYTES: u64 = 1024 * 1024;

/// A node's place in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its epoch when this node joined.
    pub epoch: Epoch,
    /// This node's id in Raft.
    pub raft_id: RaftId,
    /// The cluster's name, for people.
    pub cluster_name: String,
}

/// What a member was before it was forced into its epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// Under which name that is kept, among what went aside.
    pub label: String,
    /// The last entry that the state had when the epoch began.
    pub entry: u64,
}

/// Who this data folder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node's name.
    pub node: NodeName,
    /// This folder.
    pub instance: InstanceId,
    /// Its membership, once it has one.
    pub member: Option<Membership>,
    /// Its disks.
    pub disks: Vec<KnownDisk>,
    /// Set while its membership is that of a survivor that was forced to go on alone.
    pub forced: Option<Forced>,
    /// The latest epoch that was forced here and undone; 0: none was. No other one may get that number.
    pub undone: Epoch,
}

impl Identity {
    /// A fresh folder's identity.
    pub fn draw(node: NodeName, rng: &mut Rng) -> Self {
        Self::new(node, InstanceId::draw(rng))
    }

    /// One that is in no cluster and knows of no disk.
    pub fn new(node: NodeName, instance: InstanceId) -> Self {
        Self { node, instance, member: None, disks: Vec::new(), forced: None, undone: Epoch::default() }
    }

    /// The same folder with another membership, which was not forced.
    #[must_use]
    pub fn as_member(&self, member: Membership) -> Self {
        Self { member: Some(member), forced: None, ..self.clone() }
    }

    /// Reads the identity in the metadata folder `dir`; `None` when there is none yet.
    ///
    /// # Errors
    /// When there is one and it cannot be believed.
    pub async fn load(host: &Host, dir: &Path) -> Result<Option<Self>, MetaError> {
        let path = dir.join(FILE);
        let bytes = match read_file(host.disk.as_ref(), &path, MAX_BYTES).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(MetaError::Io { what: "reading", path, source }),
        };
        let bad = |detail: String| MetaError::Identity { path: path.clone(), detail };
        let outer: Outer = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        if outer.format > FORMAT {
            return Err(MetaError::TooNew { what: path.display().to_string(), found: outer.format, known: FORMAT });
        }
        if outer.format < FORMAT {
            return Err(MetaError::TooOld { what: path.display().to_string(), found: outer.format, known: FORMAT });
        }
        let file: File = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        let expected = checksum(&file.identity).map_err(|error| bad(error.to_string()))?;
        if file.crc32c != expected {
            return Err(bad(format!("its checksum is {expected} where {} was written", file.crc32c)));
        }
        file.identity.into_identity().map(Some).map_err(bad)
    }

    /// Writes the identity into `dir`, durably, replacing the one that was there.
    ///
    /// # Errors
    /// When the disk refuses; the old one is then still in place.
    pub async fn store(&self, host: &Host, dir: &Path) -> Result<(), MetaError> {
        let path = dir.join(FILE);
        let identity = Body::from(self);
        let bad = |error: serde_json::Error| MetaError::Identity { path: path.clone(), detail: error.to_string() };
        let crc32c = checksum(&identity).map_err(bad)?;
        let text = serde_json::to_vec_pretty(&File { format: FORMAT, crc32c, identity }).map_err(bad)?;
        create_dir_durably(&*host.disk, dir).await.map_err(MetaError::io("creating", dir))?;
        replace_file(host.disk.as_ref(), &path, Bytes::from(text)).await.map_err(MetaError::io("writing", &path))
    }
}

/// What every format begins with.
#[derive(Deserialize)]
struct Outer {
    format: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    /// Of `identity` as compact JSON.
    crc32c: String,
    identity: Body,
}

/// The identity with its ids as text: JSON readers elsewhere round large numbers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    node: String,
    instance: String,
    member: Option<MemberBody>,
    disks: Vec<DiskBody>,
    // Added without a new format: left out where it says nothing, so that the checksum of older files holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forced: Option<ForcedBody>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    undone_epoch: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ForcedBody {
    label: String,
    entry: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberBody {
    cluster: String,
    cluster_name: String,
    epoch: u64,
    raft_id: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskBody {
    id: String,
    path: PathBuf,
    added: bool,
    removed: bool,
}

fn checksum(body: &Body) -> serde_json::Result<String> {
    Ok(format!("{:08x}", crc32c::crc32c(&serde_json::to_vec(body)?)))
}

impl From<&Identity> for Body {
    fn from(identity: &Identity) -> Self {
        Self {
            node: identity.node.0.clone(),
            instance: identity.instance.to_string(),
            member: identity.member.as_ref().map(|member| MemberBody {
                cluster: member.cluster.to_string(),
                cluster_name: member.cluster_name.clone(),
                epoch: member.epoch.0,
                raft_id: member.raft_id.0,
            }),
            disks: identity
                .disks
                .iter()
                .map(|disk| DiskBody {
                    id: disk.id.to_string(),
                    path: disk.path.clone(),
                    added: disk.added,
                    removed: disk.removed,
                })
                .collect(),
            forced: identity
                .forced
                .as_ref()
                .map(|forced| ForcedBody { label: forced.label.clone(), entry: forced.entry }),
            undone_epoch: Some(identity.undone.0).filter(|epoch| *epoch != 0),
        }
    }
}

impl Body {
    fn into_identity(self) -> Result<Identity, String> {
        let member = self.member.map(|member| {
            Ok::<_, String>(Membership {
                cluster: member.cluster.parse().map_err(|error| format!("member.cluster: {error}"))?,
                epoch: Epoch(member.epoch),
                raft_id: RaftId(member.raft_id),
                cluster_name: member.cluster_name,
            })
        });
        let disks = self.disks.into_iter().map(|disk| {
            let id = disk.id.parse().map_err(|error| format!("disks.id: {error}"))?;
            Ok::<_, String>(KnownDisk { path: disk.path, id, added: disk.added, removed: disk.removed })
        });
        Ok(Identity {
            node: NodeName(self.node),
            instance: self.instance.parse().map_err(|error| format!("instance: {error}"))?,
            member: member.transpose()?,
            disks: disks.collect::<Result<_, _>>()?,
            forced: self.forced.map(|forced| Forced { label: forced.label, entry: forced.entry }),
            undone: Epoch(self.undone_epoch.unwrap_or_default()),
        })
    }
}
