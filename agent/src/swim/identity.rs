//! Who an agent is among agents: its node's name, where it listens, and which of its lives this is.
//!
//! Owns: the count of lives, in a file of the agent's folder. Must never: come back with a life that others know as
//! over: they would not listen to it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use resilver_host::Host;
use resilver_host::disk::{read_file, replace_file};
use serde::{Deserialize, Serialize};

/// Where the number of the present life is kept, in the agent's folder.
const LIFE_FILE: &str = "gossip.life";
/// A number and a line's end.
const MAX_LIFE_FILE_BYTES: u64 = 64;
/// Within one life an agent that was declared down renews itself by counting on: so many times before the next life.
const RENEWALS: u64 = 1 << 24;

/// An agent, as the others know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Its node's name. Shared: the protocol asks every member for it whenever it looks one up.
    #[serde(with = "shared")]
    pub(super) name: Arc<str>,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Which of its lives: the greater one is the later.
    pub(super) life: u64,
}

impl foca::Identity for Identity {
    type Addr = Arc<str>;

    fn renew(&self) -> Option<Identity> {
        Some(Identity { life: self.life.saturating_add(1), ..self.clone() })
    }

    fn addr(&self) -> Arc<str> {
        self.name.clone()
    }

    fn win_addr_conflict(&self, adversary: &Identity) -> bool {
        self.life > adversary.life
    }
}

/// A shared text travels like any other.
mod shared {
    use super::{Arc, Deserialize};

    pub(super) fn serialize<S: serde::Serializer>(text: &Arc<str>, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(from).map(Arc::from)
    }
}

/// Begins a life: later than the one before, by the file; and by the clock where the file was lost with the host's disk.
///
/// # Errors
/// When the number cannot be kept.
pub(super) async fn begin_life(host: &Host, dir: &Path) -> std::io::Result<u64> {
    let path = dir.join(LIFE_FILE);
    let before = match read_file(&*host.disk, &path, MAX_LIFE_FILE_BYTES).await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().parse().unwrap_or(0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let life = (host.clock.now().as_millis() / 1000).max(before + 1);
    replace_file(&*host.disk, &path, Bytes::from(format!("{life}\n"))).await?;
    Ok(life.saturating_mul(RENEWALS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_life_is_later_than_the_one_before_renewals_included() {
        let host = resilver_host::real::host();
        let dir = tempfile::tempdir().expect("a folder");
        let first = begin_life(&host, dir.path()).await.expect("kept");
        // A clock far ahead once must not make the next life an earlier one.
        let ahead = first / RENEWALS + 1_000_000;
        replace_file(&*host.disk, &dir.path().join(LIFE_FILE), Bytes::from(format!("{ahead}\n"))).await.expect("kept");
        let second = begin_life(&host, dir.path()).await.expect("kept");
        assert_eq!(second, (ahead + 1) * RENEWALS);
        let address = "127.0.0.1:1".parse().expect("an address");
        let identity = Identity { name: "n1".into(), address, life: first };
        let renewed = foca::Identity::renew(&identity).expect("it may renew");
        assert!(foca::Identity::win_addr_conflict(&renewed, &identity) && renewed.life < second);
    }
}
