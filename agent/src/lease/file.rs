//! `lease.json`: what must outlive this agent for the lease to be safe.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use resilver_host::Host;
use resilver_host::disk::{read_file, replace_file};
use resilver_strategies::lease::Persisted;
use serde::{Deserialize, Serialize};

use super::LeaseError;

/// The longest file that is read: 64 slots and a few names.
const MAX_BYTES: u64 = 256 * 1024;

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    /// The cluster that the promises belong to; empty: not known yet.
    pub(super) cluster: String,
    /// Its epoch.
    pub(super) epoch: u64,
    /// Promises, slots, fence, rounds.
    pub(super) lease: Persisted,
}

/// What is on disk: the content, and its checksum, so that a flipped bit is no promise.
#[derive(Serialize, Deserialize)]
struct Envelope {
    sha256: String,
    content: Stored,
}

/// The file of one agent.
pub(super) struct LeaseFile {
    host: Host,
    path: PathBuf,
}

impl LeaseFile {
    pub(super) fn new(host: &Host, dir: &Path) -> LeaseFile {
        LeaseFile { host: host.clone(), path: dir.join("lease.json") }
    }

    /// The content; the default when there is no file.
    pub(super) async fn load(&self) -> Result<Stored, LeaseError> {
        let unreadable = |why: String| LeaseError::Unreadable { path: self.path.display().to_string(), why };
        let data = match read_file(&*self.host.disk, &self.path, MAX_BYTES).await {
            Ok(data) => data,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stored::default()),
            Err(error) => return Err(unreadable(error.to_string())),
        };
        let envelope: Envelope = serde_json::from_slice(&data).map_err(|error| unreadable(error.to_string()))?;
        let found = digest(&envelope.content).map_err(|error| unreadable(error.to_string()))?;
        if found != envelope.sha256 {
            return Err(unreadable(format!("its content hashes to {found}, not to {}", envelope.sha256)));
        }
        Ok(envelope.content)
    }

    /// Replaces the content. Durable when it returns.
    pub(super) async fn store(&self, content: &Stored) -> Result<(), LeaseError> {
        let failed = |source| LeaseError::Store { path: self.path.display().to_string(), source };
        let sha256 = digest(content).map_err(|error| failed(error.into()))?;
        let envelope = Envelope { sha256, content: content.clone() };
        let mut data = serde_json::to_vec(&envelope).map_err(|error| failed(error.into()))?;
        data.push(b'\n');
        replace_file(&*self.host.disk, &self.path, Bytes::from(data)).await.map_err(failed)
    }
}

fn digest(content: &Stored) -> Result<String, serde_json::Error> {
    use sha2::{Digest, Sha256};
    let text = serde_json::to_vec(content)?;
    Ok(Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect())
}
