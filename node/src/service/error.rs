//! Why a node does not start or go on: each says what, where and what next.

use std::io;

use crate::disk::DiskError;
use crate::meta::MetaError;
use crate::options::{Options, S3Options};

/// The longest node name: it is part of folder names, labels and fences.
const MAX_NAME_BYTES: usize = 63;

/// Why a node did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A value of the configuration makes no sense.
    #[error("configuration: {0}")]
    Options(String),
    /// The address is taken or not ours.
    #[error(
        "cannot listen on {address}: {source}; another process may hold the port (`ss -ltnp` shows it), or the address is not of this host"
    )]
    Bind {
        /// Which.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Another live process uses the folder.
    #[error("{folder} is in use by process {pid}: stop that node first, or give this one a folder of its own")]
    InUse {
        /// Which folder.
        folder: String,
        /// Which process.
        pid: u32,
    },
    /// A folder could not be read or written.
    #[error("{what} in {folder}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        folder: String,
        /// What the system said.
        source: io::Error,
    },
    /// A disk is not ours, or not usable.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Metadata could not be opened.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The node counts as a member but its metadata is damaged or gone.
    #[error("{0}")]
    LostVoter(String),
    /// The cluster will not let this node in.
    #[error("the cluster does not let this node in: {0}")]
    Refused(String),
    /// Raft stopped inside after a storage error: answering on would be lying.
    #[error("raft stopped: {0}; the process ends so that its agent can start it anew on what the disk holds")]
    RaftStopped(String),
    /// It is another member from now on, which only a new process can be.
    #[error("{0}; the process ends so that its agent starts it as that member")]
    Reborn(String),
    /// S3 clients can reach this node no more: answering on without them would look healthy.
    #[error("the S3 door at {address} ended: {why}; the process ends so that its agent can start it anew")]
    Door {
        /// Where it was told to listen.
        address: String,
        /// What ended it.
        why: String,
    },
    /// A server of this node ended.
    #[error("{0}")]
    Server(String),
}

/// Checks what a node can check of its own options before it touches anything.
pub(crate) fn check(options: &Options) -> Result<(), NodeError> {
    let bad = |text: String| Err(NodeError::Options(text));
    let name = &options.name;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(plain) {
        return bad(format!(
            "node.name {name:?}: 1 to {MAX_NAME_BYTES} of the characters a-z, 0-9, '-' and '.' are allowed"
        ));
    }
    let s3 = options.s3.as_ref().map(|s3| ("node.s3.address", &s3.address));
    for (key, address) in [("node.address", &options.address), ("node.http", &options.http)].into_iter().chain(s3) {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) {
            return bad(format!("{key} {address:?}: host:port with a port from 1 to 65535 is expected"));
        }
    }
    if options.disks.is_empty() {
        return bad("node.disks is empty: a storage node needs at least one folder".to_owned());
    }
    for (at, disk) in options.disks.iter().enumerate() {
        if options.disks[..at].contains(disk) {
            return bad(format!("node.disks names {} twice", disk.display()));
        }
        if *disk == options.data_dir || options.data_dir.starts_with(disk) {
            return bad(format!(
                "node.data_dir {} lies in the disk {}: a lost disk would take the metadata along",
                options.data_dir.display(),
                disk.display()
            ));
        }
    }
    if let Some(s3) = &options.s3 {
        check_s3(s3)?;
    }
    if options.repair.in_flight == 0 {
        return bad("node.repair.in_flight is 0: nothing would ever be repaired".to_owned());
    }
    let rates = [
        &options.repair.rate_bytes_per_second,
        &options.scrub.rate_bytes_per_second,
        &options.metadata_scrub.rate_bytes_per_second,
    ];
    if rates.contains(&&0) {
        return bad("a rate of 0 bytes per second stops repair or scrub for ever; choose a rate above 0".to_owned());
    }
    if options.metadata_scrub.period.is_zero() {
        return bad("node.metadata_scrub.period is 0: it would read without end; choose a time, such as 6h".to_owned());
    }
    Ok(())
}

fn check_s3(s3: &S3Options) -> Result<(), NodeError> {
    let bad = |text: String| Err(NodeError::Options(text));
    let label = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if let Some(domain) = s3.domain.as_deref().filter(|domain| !domain.split('.').all(label)) {
        return bad(format!("node.s3.domain {domain:?}: a host name without port is expected, such as s3.example.com"));
    }
    if !label(&s3.region) {
        return bad(format!(
            "node.s3.region {:?}: letters, digits and hyphens are expected, such as us-east-1",
            s3.region
        ));
    }
    for (key, limit) in [
        ("max_connections", s3.max_connections),
        ("max_requests", s3.max_requests),
        ("max_requests_per_key", s3.max_requests_per_key),
    ] {
        if limit == 0 {
            return bad(format!("node.s3.{key} is 0: nobody could get in; leave `node.s3` out to have no door"));
        }
    }
    Ok(())
}
