//! Locks between nodes: one has it at a time, whoever dies with it is waited out or proven dead, and what is still sent
//! under its token does nothing.

use std::time::Duration;

use resilver_proto::common::Fence;
use resilver_proto::locks::locks_client::LocksClient;
use resilver_proto::locks::{AcquireRequest, BreakRequest, ListRequest, ReleaseRequest};
use resilver_proto::transport::Profile;
use tonic::Code;
use tonic::transport::Channel;

use super::{Cluster, Settings, bucket, until};
use crate::failures::FailureKind;
use crate::gateway::{BucketChange, GatewayError};
use crate::locks::health::Health;
use crate::locks::{LockGuard, Terms};
use crate::model::{Command, LockPath, Outcome, Refusal};
use crate::types::LockToken;

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(3000);

/// Long enough to be renewed on a machine that is shared and stands still for seconds, and short enough to wait for.
const LEASE: Duration = Duration::from_secs(8);

fn path(name: &str) -> LockPath {
    LockPath::parse(name).unwrap()
}

fn terms(lease: Duration) -> Terms {
    Terms { lease, attempt: Duration::from_secs(60) }
}

/// What a holder does under its lock.
fn work(lock: &LockPath, token: LockToken) -> Command {
    let bucket = bucket();
    let command = Command::SetBucket { bucket, coding: None, quota_bytes: None, repair_priority: Some(7) };
    Command::UnderLock { path: lock.clone(), token, command: Box::new(command) }
}

/// Whether a change was made. On a machine that is shared the lock or the metadata may be late: then the same change is
/// made again.
fn made<T>(changed: Result<T, GatewayError>) -> bool {
    match changed {
        Ok(_) => true,
        Err(GatewayError::Locked(text) | GatewayError::Meta(text) | GatewayError::Unknown(text)) => {
            tracing::debug!(text, "late");
            false
        }
        Err(other) => panic!("{other:?}"),
    }
}

impl Cluster {
    async fn hold(&self, at: usize, lock: &LockPath, lease: Duration) -> LockGuard {
        self.node(at).locks.hold(lock, "a test", terms(lease)).await.unwrap()
    }

    fn locks(&self, at: usize) -> LocksClient<Channel> {
        let peers = &self.node(at).peers;
        LocksClient::new(peers.channel(&self.addresses[at], Profile::Bulk).unwrap())
    }

    /// Whether `lock` is refused to whoever shows this token.
    async fn overtaken(&self, at: usize, lock: &LockPath, token: LockToken) -> bool {
        let outcome = self.node(at).meta.propose(work(lock, token)).await.unwrap();
        outcome == Outcome::Refused(Refusal::LockLost { path: lock.clone(), token })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_dies_with_a_lock_is_waited_out_and_does_nothing_more_under_its_token() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let lock = path("story/one");
    // The leader itself, so that another has to measure its lease.
    let dying = cluster.hold(0, &lock, LEASE).await;
    let token = dying.token();
    assert!(dying.may_be_held());
    assert!(matches!(cluster.node(0).meta.propose(work(&lock, token)).await.unwrap(), Outcome::Bucket(_)));

    // Two contend. Both wait, and are renewed in the queue while the holder renews its lease.
    let contend = |at: usize| {
        let (locks, lock) = (cluster.node(at).locks.clone(), lock.clone());
        tokio::spawn(async move { locks.hold(&lock, "a contender", terms(LEASE)).await })
    };
    let first = contend(1);
    until("the first contender is in the queue", async || {
        cluster.node(0).meta.locks().get(&lock).is_some_and(|record| record.queue.len() == 1)
    })
    .await;
    let second = contend(2);
    tokio::time::sleep(LEASE + Duration::from_secs(2)).await;
    assert!(dying.may_be_held(), "it was renewed");
    assert!(!first.is_finished() && !second.is_finished(), "one at a time");

    dying.die();
    cluster.stop(0).await;
    let first = first.await.unwrap().unwrap();
    assert!(first.token() > token, "{} after {token}", first.token());
    assert!(!second.is_finished());
    assert!(cluster.overtaken(1, &lock, token).await, "what the dead owner sent last comes too late");
    assert!(matches!(cluster.node(2).meta.propose(work(&lock, first.token())).await.unwrap(), Outcome::Bucket(_)));

    // Given back, it goes to the next at once.
    let before = first.token();
    first.release().await.unwrap();
    let second = second.await.unwrap().unwrap();
    assert!(second.token() > before);
    assert!(cluster.overtaken(2, &lock, before).await);
    // A guard that is only dropped gives its lock back, too.
    drop(second);
    until("it is free", async || cluster.node(1).meta.locks().get(&lock).is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_broken_only_when_its_owner_is_proven_dead_or_an_operator_answers_for_it() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let lock = path("story/two");
    let holder = cluster.hold(1, &lock, FOR_EVER).await;
    let token = holder.token();
    let waiting = {
        let (locks, lock) = (cluster.node(2).locks.clone(), lock.clone());
        tokio::spawn(async move { locks.hold(&lock, "a contender", terms(FOR_EVER)).await })
    };
    let fence = Some(Fence { epoch: 1, round: 3, holder: "n1".to_owned() });
    let request = BreakRequest {
        path: lock.to_string(),
        token: token.0,
        reason: "it is in the way".to_owned(),
        operator: String::new(),
        fence,
    };

    // Alive.
    let refused = cluster.locks(0).r#break(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("its process on n2 lives"), "{refused}");
    // Nor without a fence: an agent's word alone is none, whether it holds the lease or not.
    let unfenced = cluster.locks(0).r#break(BreakRequest { fence: None, ..request.clone() }).await.unwrap_err();
    assert!(unfenced.message().contains("its process on n2 lives"), "{unfenced}");
    // Without a reason or the right token nothing is even looked at.
    for (bad, code) in [
        (BreakRequest { reason: String::new(), ..request.clone() }, Code::InvalidArgument),
        (BreakRequest { path: "no lock".to_owned(), ..request.clone() }, Code::InvalidArgument),
        (BreakRequest { token: token.0 + 1, ..request.clone() }, Code::FailedPrecondition),
    ] {
        assert_eq!(cluster.locks(0).r#break(bad).await.unwrap_err().code(), code);
    }

    // Silent, which proves nothing.
    holder.die();
    cluster.stop(1).await;
    let refused = cluster.locks(0).r#break(request.clone()).await.unwrap_err();
    assert!(refused.message().contains("node n2 does not answer"), "{refused}");
    assert!(refused.message().contains("--confirm=story/two"), "{refused}");
    assert!(!waiting.is_finished());

    // Started again: the process that held it is certainly gone.
    cluster.restart(1).await;
    let broken = async || cluster.locks(0).r#break(request.clone()).await;
    let mut answer = None;
    until("its node answers as another process", async || {
        answer = broken().await.ok();
        answer.is_some()
    })
    .await;
    let answer = answer.unwrap().into_inner();
    assert!(answer.token > token.0 && answer.proof.starts_with("n2 was started again since"), "{answer:?}");
    let next = waiting.await.unwrap().unwrap();
    assert!(next.token().0 > answer.token);
    assert!(cluster.overtaken(1, &lock, token).await);

    // A living owner's, on the word of an operator.
    let confirmed = BreakRequest { token: next.token().0, operator: "alice".to_owned(), fence: None, ..request };
    let answer = cluster.locks(0).r#break(confirmed).await.unwrap().into_inner();
    assert_eq!(answer.proof, "", "nothing was proven");
    assert!(cluster.overtaken(2, &lock, next.token()).await);
    assert!(matches!(next.release().await, Err(crate::locks::LockError::Refused(Refusal::LockLost { .. }))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_configuration_waits_its_turn_and_says_what_keeps_it() {
    let cluster = Cluster::start(3, Settings::default()).await;
    let lock = path("config/bucket/test");
    let gateway = &cluster.node(0).gateway;
    let change = |priority| BucketChange { repair_priority: Some(priority), ..BucketChange::default() };
    gateway.set_bucket(&bucket(), change(1)).await.unwrap();

    // Another operator's change is under way, and does not end.
    let other = cluster.hold(1, &lock, FOR_EVER).await;
    let mut said = String::new();
    until("the path is unhealthy", async || {
        match gateway.set_bucket(&bucket(), change(2)).await.unwrap_err() {
            GatewayError::Locked(text) => said = text,
            // On a machine that is shared the metadata may be late, too.
            GatewayError::Meta(text) => tracing::debug!(text, "late"),
            other => panic!("{other:?}"),
        }
        let (figures, _, _) = cluster.node(0).locks.figures();
        figures.iter().any(|figure| figure.path == lock.as_str() && figure.health == Health::Unhealthy)
    })
    .await;
    assert!(said.contains("a test #1 on n2 has it") && said.contains("nothing was changed"), "{said}");
    let (_, retries, timeouts) = cluster.node(0).locks.figures();
    assert!(retries >= 2 && timeouts >= 3, "{retries} {timeouts}");
    let counts = cluster.node(0).peers.failures().counts();
    let told = counts.into_iter().find(|(kind, _)| *kind == FailureKind::LockTimeout);
    assert!(told.is_some_and(|(_, times)| times >= 3), "what cascades are read from: {told:?}");

    // Whoever comes next is not kept waiting for the same: no attempt of it times out, and none is repeated.
    until("it is refused unasked", async || {
        let (_, retries, timeouts) = cluster.node(0).locks.figures();
        said = match gateway.set_bucket(&bucket(), change(3)).await.unwrap_err() {
            GatewayError::Locked(text) => text,
            GatewayError::Meta(_) => return false,
            other => panic!("{other:?}"),
        };
        // One that comes late enough is let through, and waits: then it is the turn of the next.
        let (_, retries_after, timeouts_after) = cluster.node(0).locks.figures();
        (retries, timeouts) == (retries_after, timeouts_after)
    })
    .await;
    assert!(said.contains("attempts at it timed out; the next one is let through"), "{said}");
    assert_eq!(gateway.bucket(&bucket()).await.unwrap().repair_priority, 1);
    // Other buckets are none of its business.
    gateway.create_bucket(&"another".into(), crate::gateway::BucketSettings::default(), false).await.unwrap();

    other.release().await.unwrap();
    until("a probe goes through", async || made(gateway.set_bucket(&bucket(), change(4)).await)).await;
    assert_eq!(gateway.bucket(&bucket()).await.unwrap().repair_priority, 4);

    // Side by side on all nodes, each has its turn.
    let (nodes, name) = (&cluster, &bucket());
    let changes = (0..9).map(|n: u8| async move {
        let gateway = &nodes.node(usize::from(n % 3)).gateway;
        until("each has its turn", async || made(gateway.set_bucket(name, change(10 + n)).await)).await;
    });
    futures_util::future::join_all(changes).await;
    until("all is given back", async || cluster.node(0).meta.locks().locks.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_holds_a_lock_over_any_node_and_loses_its_place_when_it_hangs_up() {
    let cluster = Cluster::start(3, Settings::default()).await;
    let ask = |life: u8, wait_ms| AcquireRequest {
        path: "client/lock".to_owned(),
        label: format!("client {life}"),
        life: format!("{life:032x}"),
        lease_ms: 600_000,
        wait_ms,
    };
    let had = cluster.locks(0).acquire(ask(1, 0)).await.unwrap().into_inner();
    let again = cluster.locks(1).acquire(ask(1, 0)).await.unwrap().into_inner();
    assert_eq!(again, had, "the same question has the same answer, wherever it is put");
    let held = cluster.locks(1).acquire(ask(2, 0)).await.unwrap_err();
    assert_eq!(held.code(), Code::FailedPrecondition);
    assert!(held.message().contains("held by client 1"), "{held}");

    // Waits, and hangs up.
    let mut waiting = cluster.locks(2);
    let gone = tokio::spawn(async move { waiting.acquire(ask(2, 60_000)).await });
    let queue = async || {
        let listed = cluster.locks(1).list(ListRequest {}).await.unwrap().into_inner().locks;
        listed.first().map_or(0, |lock| lock.queue.len())
    };
    until("it is in the queue", async || queue().await == 1).await;
    gone.abort();
    until("it is not any more", async || queue().await == 0).await;

    let late = cluster.locks(2).acquire(ask(3, 5000)).await.unwrap_err();
    assert_eq!(late.code(), Code::Aborted, "{late}");
    let release = ReleaseRequest { path: "client/lock".to_owned(), owner: had.owner.clone(), token: had.token };
    cluster.locks(1).release(release.clone()).await.unwrap();
    let twice = cluster.locks(1).release(release).await.unwrap_err();
    assert_eq!(twice.code(), Code::FailedPrecondition, "{twice}");
    until("nobody holds it", async || {
        cluster.locks(0).list(ListRequest {}).await.unwrap().into_inner().locks.is_empty()
    })
    .await;
}
