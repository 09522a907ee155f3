//! How a node knows who it is, gets into its cluster, and catches up.
//!
//! Invariant: a folder becomes a member's only by `cluster init` or by admission, never by being empty. A folder that
//! should hold a member's metadata and does not is a lost voter.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use resilver_host::Host;
use resilver_proto::internal::raft_server::RaftServer;
use resilver_proto::transport::MAX_MESSAGE_BYTES;
use tokio::sync::mpsc;

use super::NodeError;
use crate::control::{FoundRequest, JoinRound, Shared, ask_members, joining_disks};
use crate::disk::{DiskSet, Health, Owner, peek_superblock};
use crate::late::Late;
use crate::meta::identity::{Identity, Membership, Standing};
use crate::meta::{Meta, MetaError, MetaOptions, RaftService, Tuning};
use crate::model::{Command, Location, Outcome};
use crate::options::Options;
use crate::phase::Phase;
use crate::types::{ClusterId, Epoch, InstanceId, RaftId};

/// The founder's id in Raft. The counter of the state machine goes on from it.
const FOUNDER: RaftId = RaftId(1);

/// The first epoch of a cluster.
const FIRST_EPOCH: Epoch = Epoch(1);

/// How long a node waits before it asks the members again: they may be starting too.
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// The folder of the metadata inside the node's data folder.
fn meta_dir(options: &Options) -> PathBuf {
    options.data_dir.join("meta")
}

/// Who the data folder says we are, and why we are a lost voter if we are.
pub(crate) async fn identify(host: &Host, options: &Options) -> Result<(Identity, Option<String>), NodeError> {
    if let Some(identity) = Identity::load(host, &options.data_dir).await? {
        if identity.node.as_str() != options.name {
            return Err(NodeError::Options(format!(
                "node.name is {} but {} belongs to node {}: give back the old name, or use another folder",
                options.name,
                options.data_dir.display(),
                identity.node
            )));
        }
        return Ok((identity, None));
    }
    for path in &options.disks {
        let Ok(Some(stamp)) = peek_superblock(host, path).await else { continue };
        if stamp.node.as_str() == options.name && stamp.cluster.is_some() {
            let reason = format!(
                "{} holds no metadata, but disk {} says this node is a member: restore the metadata folder if it was \
                 only not mounted; if it is lost, the node has to be rejoined (it must not vote on an empty log)",
                options.data_dir.display(),
                path.display()
            );
            let identity = Identity::fresh(stamp.node, stamp.instance);
            return Ok((identity, Some(reason)));
        }
    }
    let mut rng = host.rand.fork("node.instance");
    Ok((Identity::fresh(options.name.as_str().into(), InstanceId::draw(&mut rng)), None))
}

/// Whose disks we open.
pub(crate) fn owner(identity: &Identity) -> Owner {
    let cluster = match &identity.standing {
        Standing::Member(member) => Some(member.cluster),
        Standing::Outside | Standing::Founding(_) => None,
    };
    Owner { node: identity.node.clone(), instance: identity.instance, cluster }
}

/// Gets the node into its cluster, however it has to, and starts its metadata.
pub(crate) async fn enter(
    shared: &Arc<Shared>,
    disks: &DiskSet,
    mut identity: Identity,
    mut found: mpsc::Receiver<FoundRequest>,
    raft: &Late<RaftServer<RaftService>>,
) -> Result<Meta, NodeError> {
    if let Standing::Member(member) = &identity.standing {
        let fresh = !member.started;
        return start(shared, &mut identity, fresh, raft).await;
    }
    if matches!(identity.standing, Standing::Founding(_)) {
        // The process ended in the middle of `cluster init`, before anybody could join: nothing in there was promised.
        crate::meta::move_aside(&shared.host, &meta_dir(&shared.options)).await?;
        identity.standing = Standing::Outside;
        identity.store(&shared.host, &shared.options.data_dir).await?;
    }
    let joining = !shared.options.join.is_empty();
    let hint = if joining { "asking the members under `join`" } else { "run `resilver cluster init`" };
    shared.phase.set(Phase::Waiting, format!("in no cluster yet: {hint}"));
    loop {
        tokio::select! {
            Some(request) = found.recv() => {
                match establish(shared, disks, &mut identity, &request.name, raft).await {
                    Ok((cluster, meta)) => {
                        let _ = request.answer.send(Ok(cluster));
                        return Ok(meta);
                    }
                    Err(error) => {
                        let _ = request.answer.send(Err(error.to_string()));
                        return Err(error);
                    }
                }
            }
            round = ask_members(shared, identity.instance, disks), if joining => match round {
                JoinRound::Admitted(answer) => {
                    let bad = |what: &str| NodeError::Refused(format!("an admission without a valid {what}"));
                    let member = Membership {
                        cluster: answer.cluster_id.parse().map_err(|_| bad("cluster id"))?,
                        epoch: Epoch(answer.epoch),
                        raft_id: RaftId(answer.raft_id),
                        cluster_name: answer.cluster_name,
                        started: false,
                    };
                    become_member(shared, disks, &mut identity, member).await?;
                    return start(shared, &mut identity, true, raft).await;
                }
                JoinRound::Refused(reason) => return Err(NodeError::Refused(reason)),
                JoinRound::Nobody(reason) => {
                    shared.phase.set(Phase::Waiting, format!("in no cluster yet: {reason}"));
                    tokio::time::sleep(ASK_AGAIN).await;
                }
            },
        }
    }
}

/// `cluster init`: this node becomes the only voter of a new cluster.
async fn establish(
    shared: &Arc<Shared>,
    disks: &DiskSet,
    identity: &mut Identity,
    name: &str,
    raft: &Late<RaftServer<RaftService>>,
) -> Result<(ClusterId, Meta), NodeError> {
    let mut rng = shared.host.rand.fork("cluster.id");
    let cluster = ClusterId::draw(&mut rng);
    let member =
        Membership { cluster, epoch: FIRST_EPOCH, raft_id: FOUNDER, cluster_name: name.to_owned(), started: false };
    identity.standing = Standing::Founding(member.clone());
    identity.store(&shared.host, &shared.options.data_dir).await?;
    let meta = start_as(shared, identity, member.clone(), true, raft).await?;
    meta.found().await?;
    expect_done(meta.propose(Command::InitCluster { cluster, name: name.to_owned() }).await?)?;
    let options = &shared.options;
    expect_done(
        meta.propose(Command::JoinNode {
            name: shared.name.clone(),
            instance: identity.instance,
            address: options.address.clone(),
            location: location(options),
            disks: joining_disks(disks),
            raft_id: Some(FOUNDER),
        })
        .await?,
    )?;
    become_member(shared, disks, identity, Membership { started: true, ..member }).await?;
    Ok((cluster, meta))
}

fn expect_done(outcome: Outcome) -> Result<(), NodeError> {
    match outcome {
        Outcome::Refused(refusal) => Err(NodeError::Refused(refusal.to_string())),
        _ => Ok(()),
    }
}

fn location(options: &Options) -> Location {
    Location { datacenter: options.location.datacenter.clone(), rack: options.location.rack.clone() }
}

/// Writes down that we are a member: first on the disks, then in the identity, so that a crash in between leaves a node
/// that asks again.
async fn become_member(
    shared: &Shared,
    disks: &DiskSet,
    identity: &mut Identity,
    member: Membership,
) -> Result<(), NodeError> {
    disks.stamp(member.cluster, member.epoch).await?;
    identity.standing = Standing::Member(member);
    identity.store(&shared.host, &shared.options.data_dir).await?;
    Ok(())
}

async fn start(
    shared: &Arc<Shared>,
    identity: &mut Identity,
    fresh: bool,
    raft: &Late<RaftServer<RaftService>>,
) -> Result<Meta, NodeError> {
    let Standing::Member(member) = identity.standing.clone() else {
        return Err(NodeError::Refused("this node is in no cluster".to_owned()));
    };
    let meta = start_as(shared, identity, member.clone(), fresh, raft).await?;
    if fresh {
        identity.standing = Standing::Member(Membership { started: true, ..member });
        identity.store(&shared.host, &shared.options.data_dir).await?;
    }
    Ok(meta)
}

async fn start_as(
    shared: &Arc<Shared>,
    identity: &Identity,
    member: Membership,
    fresh: bool,
    raft: &Late<RaftServer<RaftService>>,
) -> Result<Meta, NodeError> {
    let options = MetaOptions {
        dir: meta_dir(&shared.options),
        node: identity.node.clone(),
        member,
        address: shared.options.address.clone(),
        fresh,
        tuning: Tuning::default(),
    };
    match Meta::start(&shared.host, options, shared.peers.clone()).await {
        Ok(meta) => {
            raft.fill(
                RaftServer::new(meta.raft_service())
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES),
            );
            Ok(meta)
        }
        Err(error @ MetaError::LostVoter { .. }) => Err(NodeError::LostVoter(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// Waits until everything that was committed when we asked is applied here, and the map knows us as we are now.
pub(crate) async fn catch_up(shared: &Shared, disks: &DiskSet, meta: &Meta) {
    loop {
        match meta.barrier().await {
            Ok(_) if known_as_we_are(shared, disks, meta) => return,
            Ok(_) => introduce(shared, disks, meta).await,
            Err(error) => {
                shared.phase.set(Phase::Recovering, format!("no answer from a quorum yet: {error}"));
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }
}

fn known_as_we_are(shared: &Shared, disks: &DiskSet, meta: &Meta) -> bool {
    let map = meta.map();
    let disks_known = disks.volumes().iter().all(|volume| map.disks.contains_key(&volume.id()));
    map.nodes.get(&shared.name).is_some_and(|node| {
        node.address == shared.options.address && node.location == location(&shared.options) && disks_known
    })
}

/// A changed address, location or a new disk: the map is brought up to date by joining again as the same instance.
async fn introduce(shared: &Shared, disks: &DiskSet, meta: &Meta) {
    let Some(instance) = meta.map().nodes.get(&shared.name).map(|node| node.instance) else {
        // A learner that has not received its own admission yet: the next barrier brings it.
        tokio::time::sleep(ASK_AGAIN).await;
        return;
    };
    let command = Command::JoinNode {
        name: shared.name.clone(),
        instance,
        address: shared.options.address.clone(),
        location: location(&shared.options),
        disks: joining_disks(disks),
        raft_id: None,
    };
    match meta.propose(command).await {
        Ok(Outcome::Refused(refusal)) => {
            shared.phase.set(Phase::Recovering, format!("the cluster does not take our disks or address: {refusal}"));
            tokio::time::sleep(ASK_AGAIN).await;
        }
        Ok(_) => {}
        Err(error) => {
            shared.phase.set(Phase::Recovering, format!("the cluster could not be told our address: {error}"));
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

/// Waits until at least one disk has answered its canary: a node without a disk serves nobody.
pub(crate) async fn one_disk_answers(disks: &DiskSet) {
    let volumes = disks.volumes();
    let answers = volumes.iter().map(|volume| {
        let mut health = volume.health_changes();
        Box::pin(async move {
            // A canary that is gone will never answer: the others decide.
            if health.wait_for(|health| *health == Health::Ok).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    });
    futures_util::future::select_all(answers).await;
}
