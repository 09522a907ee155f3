//! The gRPC service: locks for clients and operators, and breaking one.
//!
//! Owns: what a client may ask, and the judgement whether a lock may be broken. Must never: let a client speak for a
//! node's process (its locks would be broken when that process ends, and it may live on); break a lock without a proof
//! that its owner is dead, unless a person answers for it.

use std::time::Duration;

use resilver_proto::locks::locks_server::{Locks as Service, LocksServer};
use resilver_proto::locks::{
    AcquireRequest, AcquireResponse, BreakRequest, BreakResponse, ListRequest, ListResponse, Lock, Owner,
    ReleaseRequest, ReleaseResponse, RenewRequest, RenewResponse,
};
use resilver_proto::transport::MAX_MESSAGE_BYTES;
use tonic::{Request, Response, Status};

use super::guard::Claim;
use super::{Announced, LockError, Locks, Proof, owner_is_dead};
use crate::meta::MetaError;
use crate::mode::{ModeCell, Wants};
use crate::model::{
    Command, LockOwner, LockPath, LockRecord, MAX_LEASE, MAX_LOCK_LABEL_BYTES, MIN_LEASE, Outcome, Refusal,
};
use crate::peers::{Peers, who_is_there};
use crate::types::{Fence, LockToken, NodeName};

/// The longest that one call waits in a queue. Whoever wants to wait longer asks again, behind those who came meanwhile.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The longest reason for a break: a line in a log.
const MAX_REASON_BYTES: usize = 512;

/// The service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LockService {
    locks: Locks,
    peers: Peers,
    own: NodeName,
    mode: ModeCell,
}

impl LockService {
    /// Over what this node knows of locks. Clients take none of a node whose mode lets them change nothing.
    pub(crate) fn new(locks: Locks, peers: Peers, mode: ModeCell) -> Self {
        let own = locks.node().clone();
        Self { locks, peers, own, mode }
    }

    /// As a tonic service, with the message limits of this product.
    pub(crate) fn into_server(self) -> LocksServer<Self> {
        LocksServer::new(self).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    async fn propose(&self, command: Command) -> Result<Outcome, Status> {
        match self.locks.meta().propose(command).await.map_err(LockError::Meta)? {
            Outcome::Refused(refusal) => Err(LockError::Refused(refusal).into()),
            outcome => Ok(outcome),
        }
    }

    /// The lock as of now, if it is held under this token.
    async fn held_under(&self, path: &LockPath, token: LockToken) -> Result<LockRecord, Status> {
        self.locks.meta().barrier().await.map_err(LockError::Meta)?;
        let table = self.locks.meta().locks();
        let lost = || LockError::Refused(Refusal::LockLost { path: path.clone(), token });
        Ok(table.held_under(path, token).cloned().ok_or_else(lost)?)
    }

    /// Whether the owner of a lock that was just read is dead; if not, what was found.
    async fn proof(&self, owner: &LockOwner) -> Result<Proof, String> {
        let map = self.locks.meta().map();
        let presence = if owner.node == self.own {
            Some(Announced { node: self.own.clone(), life: self.locks.life() })
        } else {
            match map.nodes.get(&owner.node) {
                Some(node) => {
                    let there = who_is_there(&self.peers, &node.address).await;
                    there.map(|(node, life)| Announced { node, life })
                }
                None => None,
            }
        };
        owner_is_dead(&map, owner, presence.as_ref()).ok_or_else(|| match presence {
            _ if owner.node.as_str().is_empty() => "its owner is a client, of whose death no node can tell".to_owned(),
            Some(said) if said.life == owner.life => format!("its process on {} lives", owner.node),
            Some(said) => format!("node {} answers in the place of {}", said.node, owner.node),
            None => format!("node {} does not answer, and may be at work all the same", owner.node),
        })
    }
}

#[tonic::async_trait]
impl Service for LockService {
    async fn acquire(&self, request: Request<AcquireRequest>) -> Result<Response<AcquireResponse>, Status> {
        self.mode.admit(Wants::Write).map_err(Status::unavailable)?;
        let request = request.into_inner();
        let path = path_of(&request.path)?;
        let lease = lease_of(request.lease_ms)?;
        let owner = clients_owner(&request.life, &request.label)?;
        let wait = Duration::from_millis(request.wait_ms).min(MAX_WAIT);
        let token = if wait.is_zero() {
            let command = Command::AcquireLock { path: path.clone(), owner: owner.clone(), lease, queue: false };
            match self.propose(command).await? {
                Outcome::Locked { token } => token,
                other => return Err(LockError::unexpected(&path, other).into()),
            }
        } else {
            // A caller that hangs up while it waits leaves the queue.
            let claim = Claim::new(&self.locks, &path, &owner);
            let mut queued = false;
            match tokio::time::timeout(wait, self.locks.attempt(&path, &owner, lease, &mut queued)).await {
                Ok(granted) => {
                    let granted = granted?;
                    claim.hand_over();
                    granted.token
                }
                Err(_) => return Err(LockError::late(&path, wait, queued, self.locks.who_has(&path)).into()),
            }
        };
        let owner = Some(owner_message(&owner));
        Ok(Response::new(AcquireResponse { token: token.0, owner, lease_ms: millis(lease) }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let RenewRequest { path, owner, token } = request.into_inner();
        let (path, owner, token) = (path_of(&path)?, asking(owner)?, LockToken(token));
        self.propose(Command::RenewLock { path: path.clone(), owner, token }).await?;
        let lease = self.locks.meta().locks().held_under(&path, token).map(|record| record.holder.lease);
        Ok(Response::new(RenewResponse { lease_ms: millis(lease.unwrap_or_default()) }))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        let ReleaseRequest { path, owner, token } = request.into_inner();
        let (path, owner, token) = (path_of(&path)?, asking(owner)?, LockToken(token));
        self.propose(Command::ReleaseLock { path, owner, token }).await?;
        Ok(Response::new(ReleaseResponse {}))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        self.locks.meta().barrier().await.map_err(LockError::Meta)?;
        let table = self.locks.meta().locks();
        let locks = table.locks.values().map(|record| Lock {
            path: record.path.to_string(),
            owner: Some(owner_message(&record.holder.owner)),
            token: record.holder.token.0,
            lease_ms: millis(record.holder.lease),
            queue: record.queue.iter().map(|waiter| owner_message(&waiter.owner)).collect(),
        });
        Ok(Response::new(ListResponse { locks: locks.collect() }))
    }

    async fn r#break(&self, request: Request<BreakRequest>) -> Result<Response<BreakResponse>, Status> {
        let BreakRequest { path, token, reason, operator, fence } = request.into_inner();
        let (path, token, fence) = (path_of(&path)?, LockToken(token), fence.map(Fence::from));
        if reason.is_empty() || reason.len() > MAX_REASON_BYTES {
            let said = format!("a lock is broken for a reason of 1 to {MAX_REASON_BYTES} bytes: say it");
            return Err(Status::invalid_argument(said));
        }
        // First the lock, then its owner: an answer from before could be older than the owner.
        let record = self.held_under(&path, token).await?;
        let proof = match self.proof(&record.holder.owner).await {
            Ok(proof) => proof.to_string(),
            Err(_) if !operator.is_empty() => String::new(),
            Err(found) => {
                return Err(Status::failed_precondition(format!(
                    "lock {path} of {} is not broken: its owner is not proven dead ({found}); it ends by itself {} s \
                     after it was renewed last; if you know that the owner does nothing any more, an operator says so: \
                     `resilver lock break {path} --confirm={path}`",
                    record.holder.owner,
                    record.holder.lease.as_secs()
                )));
            }
        };
        let command = Command::BreakLock { path: path.clone(), token, reason: reason.clone(), fence };
        let Outcome::Broken { token: now } = self.propose(command).await? else {
            return Err(Status::internal(format!("breaking lock {path} had an answer that does not fit")));
        };
        tracing::warn!(%path, %token, owner = %record.holder.owner, reason, proof, operator, "a lock was broken");
        Ok(Response::new(BreakResponse { token: now.0, proof }))
    }
}

fn path_of(path: &str) -> Result<LockPath, Status> {
    LockPath::parse(path).map_err(|bad| Status::invalid_argument(bad.to_string()))
}

fn lease_of(lease_ms: u64) -> Result<Duration, Status> {
    let lease = Duration::from_millis(lease_ms);
    if (MIN_LEASE..=MAX_LEASE).contains(&lease) {
        return Ok(lease);
    }
    let (least, most) = (MIN_LEASE.as_secs(), MAX_LEASE.as_secs());
    Err(Status::invalid_argument(format!("a lease is {least} to {most} s, not {lease_ms} ms")))
}

/// The owner that a client is.
fn clients_owner(life: &str, label: &str) -> Result<LockOwner, Status> {
    if label.is_empty() || label.len() > MAX_LOCK_LABEL_BYTES || label.chars().any(char::is_control) {
        return Err(Status::invalid_argument(format!(
            "the label of a lock's owner is 1 to {MAX_LOCK_LABEL_BYTES} bytes that can be printed: say who it is"
        )));
    }
    let life = life.parse().map_err(|bad| Status::invalid_argument(format!("life: {bad}")))?;
    Ok(LockOwner { node: NodeName(String::new()), life, label: label.to_owned() })
}

/// The owner that asks to renew or release: nobody does that for a node's process.
fn asking(owner: Option<Owner>) -> Result<LockOwner, Status> {
    let owner = owner.ok_or_else(|| Status::invalid_argument("the request names no owner"))?;
    if !owner.node.is_empty() {
        return Err(Status::permission_denied(format!(
            "this lock is held by a process of node {}, which gives it back itself; `resilver lock break` takes it away",
            owner.node
        )));
    }
    clients_owner(&owner.life, &owner.label)
}

fn owner_message(owner: &LockOwner) -> Owner {
    Owner { node: owner.node.to_string(), life: owner.life.to_string(), label: owner.label.clone() }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<LockError> for Status {
    fn from(error: LockError) -> Self {
        let message = error.to_string();
        match error {
            LockError::TimedOut { .. } => Self::aborted(message),
            LockError::Meta(MetaError::Unknown { .. }) => Self::deadline_exceeded(message),
            LockError::Silent { .. } | LockError::Unhealthy { .. } | LockError::Meta(_) => Self::unavailable(message),
            LockError::Refused(Refusal::LockQueueFull(_) | Refusal::TooManyLocks) => Self::resource_exhausted(message),
            LockError::Refused(_) => Self::failed_precondition(message),
            LockError::Unexpected { .. } => Self::internal(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_speaks_for_itself_and_not_for_a_node() {
        let life = "0123456789abcdef0123456789abcdef";
        let owner = clients_owner(life, "alice").unwrap();
        assert_eq!(owner.node.as_str(), "");
        assert_eq!(asking(Some(owner_message(&owner))).unwrap(), owner);
        let stolen = Owner { node: "n1".into(), ..owner_message(&owner) };
        assert_eq!(asking(Some(stolen)).unwrap_err().code(), tonic::Code::PermissionDenied);
        for (life, label) in [("", "alice"), (life, ""), (life, "a\nb"), (life, &"x".repeat(65))] {
            assert_eq!(clients_owner(life, label).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
        assert!(asking(None).is_err());
    }

    #[test]
    fn a_lease_has_its_bounds() {
        assert_eq!(lease_of(1000).unwrap(), MIN_LEASE);
        assert_eq!(lease_of(3_600_000).unwrap(), MAX_LEASE);
        for bad in [0, 999, 3_600_001, u64::MAX] {
            assert_eq!(lease_of(bad).unwrap_err().code(), tonic::Code::InvalidArgument, "{bad}");
        }
    }
}
