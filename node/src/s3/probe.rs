//! Whether the door answers: asked by its own node as any client would, over a connection of its own.
//!
//! Must never: look at the door from inside. What is in doubt is just what a client meets: the port, the accepting, the
//! answering. Nor take a refusal by a limit, or by the node's mode, for silence: who says no is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use resilver_host::Net;
use resilver_proto::web::{self, CallError};
use tokio::time::Instant;

use super::{Door, health};

/// How long the door may take for one word. Less than the 5 s that an agent waits for the canary, so that what it is told
/// names the door.
const DEADLINE: Duration = Duration::from_secs(4);

/// The door does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the S3 door at {address} does not answer: {why}")]
pub(crate) struct Silent {
    address: String,
    why: String,
}

/// Where a listener is reached from its own host: one that takes every address has none to connect to.
pub(super) fn address(listens: &SocketAddr) -> String {
    let ip = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    // A link-local address is none without its scope.
    let mut reached = *listens;
    reached.set_ip(ip);
    reached.to_string()
}

impl Door {
    /// Asks the door how the node is. That the node does not serve is an answer: the door works.
    ///
    /// # Errors
    /// When no answer came that a client could use.
    pub(crate) async fn answers(&self, net: &Arc<dyn Net>) -> Result<(), Silent> {
        let silent = |address: &str, why: String| Silent { address: address.to_owned(), why };
        let Some(address) = self.front.listens.get() else {
            return Err(silent(self.configured(), "it has not begun to listen".to_owned()));
        };
        let refused = || self.counts().refused.load(Ordering::Relaxed);
        let before = refused();
        let began = Instant::now();
        let mut asked = ask(net, address, DEADLINE).await;
        // At its limit the door closes an idle connection for a new one, and this one may be it: once more.
        if matches!(asked, Err(CallError::Broken { .. })) && refused() == before {
            asked = ask(net, address, DEADLINE.saturating_sub(began.elapsed())).await;
        }
        // A host without IPv6 has no ::1 to connect to, and what listens on all addresses there is reached by IPv4.
        if let (Err(CallError::Unreachable { .. }), Some(port)) = (&asked, address.strip_prefix("[::1]:")) {
            asked =
                ask(net, &format!("{}:{port}", Ipv4Addr::LOCALHOST), DEADLINE.saturating_sub(began.elapsed())).await;
        }
        match asked {
            Ok(200 | 503) => Ok(()),
            Ok(status) => Err(silent(address, format!("its {} says {status}, which it never does", health::PATH))),
            // As many connections are at work as may be, and it says so to all others: it is full, and it is there.
            Err(_) if refused() > before => Ok(()),
            Err(error) => Err(silent(address, why(error))),
        }
    }
}

async fn ask(net: &Arc<dyn Net>, address: &str, within: Duration) -> Result<u16, CallError> {
    web::call(net, address, health::PATH, None, within).await.map(|(status, _)| status)
}

fn why(error: CallError) -> String {
    match error {
        CallError::Unreachable { source, .. } => source.to_string(),
        CallError::Broken { reason, .. } => format!("the connection broke: {reason}"),
        CallError::TimedOut { after, .. } => format!("nothing came within {} ms", after.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_on_all_addresses_is_asked_on_the_hosts_own() {
        let of = |listens: &str| address(&listens.parse().unwrap());
        assert_eq!(of("0.0.0.0:7404"), "127.0.0.1:7404");
        assert_eq!(of("[::]:7404"), "[::1]:7404");
        assert_eq!(of("10.0.0.1:7404"), "10.0.0.1:7404");
        assert_eq!(of("[fe80::1%3]:7404"), "[fe80::1%3]:7404");
    }
}
