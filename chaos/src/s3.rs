//! A client of the S3 door: each request goes to one door, once, and says precisely how it ended.
//!
//! Owns: connections that are kept, requests signed by presigning (so contents are never hashed here, and pass as a
//! stream), and the difference between a refusal and an unknown outcome. Must never: retry what may have been done, or
//! hold a content whole.

mod door;
mod etag;
mod multipart;
mod objects;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use resilver_host::Host;
use resilver_host::disk::read_file;
use rusty_s3::Credentials;
use serde::Deserialize;

use door::Door;
pub use door::Reply;
pub use etag::{etag_of, etag_of_parts};
pub use multipart::Upload;
pub use objects::{Condition, From, Listed, Page, Store};

/// Written by `resilver up` into the cluster's folder.
pub const ACCESS_FILE: &str = "s3.json";

/// An access file is a few addresses and a key.
const MAX_ACCESS_BYTES: u64 = 64 * 1024;

/// Where the doors of a cluster are, and a key to them.
#[derive(Clone, Deserialize)]
pub struct Access {
    /// `http://host:port` of each node, in the order of the nodes.
    pub endpoints: Vec<String>,
    /// Name of the key.
    pub access_key: String,
    /// The key.
    pub secret_key: String,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Access {
    /// Reads `DIR/s3.json`.
    ///
    /// # Errors
    /// When it is absent or no access file.
    pub async fn read(host: &Host, dir: &Path) -> Result<Self, S3Error> {
        let path = dir.join(ACCESS_FILE);
        let file = |why: String| S3Error::Access { path: path.display().to_string(), why };
        let data = read_file(&*host.disk, &path, MAX_ACCESS_BYTES).await.map_err(|error| file(error.to_string()))?;
        serde_json::from_slice(&data).map_err(|error| file(error.to_string()))
    }

    /// One bucket through each door, in the order of the endpoints. Asks nobody: the bucket need not exist.
    ///
    /// # Errors
    /// When an endpoint is no plain HTTP address, or the bucket's name is no name.
    pub fn stores(&self, host: &Host, bucket: &str) -> Result<Vec<Store>, S3Error> {
        let credentials = Credentials::new(self.access_key.as_str(), self.secret_key.as_str());
        let store = |endpoint: &String| {
            let address = endpoint.strip_prefix("http://").map(|address| address.trim_end_matches('/'));
            let address = address.ok_or_else(|| S3Error::Endpoint { endpoint: endpoint.clone() })?;
            let door = Door::new(host.net.clone(), address.to_owned());
            Store::new(Arc::new(door), credentials.clone(), endpoint, bucket)
        };
        self.endpoints.iter().map(store).collect()
    }
}

/// What is sent.
#[derive(Clone, Debug)]
pub enum Content {
    /// These bytes.
    Whole(Bytes),
    /// This piece over and over, up to a length: large objects take no more memory than the piece.
    Repeated {
        /// The piece.
        piece: Bytes,
        /// How much in all.
        len_bytes: u64,
    },
}

impl Content {
    /// How long it is.
    pub fn len_bytes(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Repeated { len_bytes, .. } => *len_bytes,
        }
    }
}

/// What a door said when it did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// HTTP status.
    pub status: u16,
    /// S3's name of the error; empty when the answer had no body (as for HEAD).
    pub code: String,
    /// In words.
    pub message: String,
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.message)
    }
}

/// How a request ended, if not well.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// The cluster's access file is no help.
    #[error("{path} does not say how to reach the S3 doors: {why} (it is written by `resilver up`)")]
    Access {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// Not an address this client can use.
    #[error("{endpoint} is no http:// address of a door")]
    Endpoint {
        /// What is there instead.
        endpoint: String,
    },
    /// No request was sent: nobody listens, or not in time.
    #[error("{address} cannot be reached: {why}")]
    Unreachable {
        /// Whom we asked.
        address: String,
        /// Why.
        why: String,
    },
    /// Refused by rule (4xx): certainly not done.
    #[error("refused: {0}")]
    Refused(Said),
    /// The door failed (5xx): it may have been done, or may yet be.
    #[error("failed: {0}")]
    Failed(Said),
    /// No whole answer came: it may have been done, or may yet be.
    #[error("{address} gave no whole answer: {why}")]
    Broken {
        /// Whom we asked.
        address: String,
        /// Why.
        why: String,
    },
    /// An answer that is not S3's.
    #[error("{address} answered what S3 would not: {why}")]
    Odd {
        /// Whom we asked.
        address: String,
        /// What is odd.
        why: String,
    },
}

impl S3Error {
    /// Whether the request certainly changed nothing.
    pub fn certainly_not_done(&self) -> bool {
        matches!(self, Self::Access { .. } | Self::Endpoint { .. } | Self::Unreachable { .. } | Self::Refused(_))
    }

    /// What the door said, if it did.
    pub fn said(&self) -> Option<&Said> {
        match self {
            Self::Refused(said) | Self::Failed(said) => Some(said),
            _ => None,
        }
    }

    /// Whether the door said this.
    pub fn is(&self, code: &str) -> bool {
        self.said().is_some_and(|said| said.code == code)
    }
}
