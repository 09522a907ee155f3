//! How a node knows who it is, gets into its cluster, and catches up.
//!
//! Invariant: a folder becomes a member's only by `cluster init` or by admission, never by being empty. A folder that
//! should hold a member's metadata and does not is a lost voter.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use resilver_host::Host;
use resilver_proto::internal::raft_server::RaftServer;
use resilver_proto::store::cluster_client::ClusterClient;
use resilver_proto::store::{JoinResponse, StatusRequest};
use resilver_proto::transport::MAX_MESSAGE_BYTES;
use tonic::Status;

use super::{NodeError, Orders, rebirth};
use crate::control::{
    JoinRound, Known, RestoreOrder, Shared, ask_members, ask_who_we_are, join_request, location, others, own_join,
};
use crate::disk::{DiskSet, Health, Owner, owner_on};
use crate::late::Late;
use crate::meta::identity::{Identity, Membership};
use crate::meta::rebirth::is_born;
use crate::meta::{FIRST_EPOCH, FIRST_RAFT_ID, Meta, MetaError, MetaOptions, RaftService, Tuning};
use crate::model::{Command, HostState, MarkedBy, Outcome, Refusal};
use crate::options::Options;
use crate::peers::Profile;
use crate::phase::Phase;
use crate::types::{ClusterId, Epoch, InstanceId, RaftId};

/// How long a node waits before it asks the members again: they may be starting too.
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// A member that heard from no leader for so long asks the others whether it is one still. Longer than elections take.
const ASK_OTHERS: Duration = Duration::from_secs(5);

/// How long after the start a mark that this member is away counts as one of the time when it was: longer than whoever ordered it waited, and
/// than a conviction takes.
const LATE_MARK: Duration = Duration::from_secs(30);

/// How long one of them may take to say so. It needs nobody else for that.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);

/// The folder of the metadata: the node's data folder.
pub(crate) fn meta_dir(options: &Options) -> PathBuf {
    options.data_dir.clone()
}

/// Who the data folder says we are, and why we are a lost voter if we are.
pub(crate) async fn identify(host: &Host, options: &Options) -> Result<(Identity, Option<String>), NodeError> {
    let unread = match Identity::load(host, &meta_dir(options)).await {
        Ok(Some(identity)) if identity.node.as_str() != options.name => {
            return Err(NodeError::Options(format!(
                "node.name is {} but {} belongs to node {}: give back the old name, or use another folder",
                options.name,
                options.data_dir.display(),
                identity.node
            )));
        }
        Ok(Some(identity)) => return Ok((identity, None)),
        Ok(None) => None,
        // The disks may still say who this is.
        Err(error @ MetaError::Identity { .. }) => Some(error),
        Err(error) => return Err(error.into()),
    };
    for path in &options.disks {
        let Some(stamp) = owner_on(host, path).await else { continue };
        if stamp.node.as_str() == options.name && stamp.cluster.is_some() {
            let missing = match &unread {
                Some(error) => error.to_string(),
                None => format!("{} holds no metadata", options.data_dir.display()),
            };
            let reason = format!(
                "{missing}; disk {} says that this node is a member: bring the metadata folder back if it was only not \
                 mounted; if it is lost, `resilver node rejoin {}` (it must not vote on an empty log)",
                path.display(),
                options.name
            );
            let identity = Identity::new(stamp.node, stamp.instance);
            return Ok((identity, Some(reason)));
        }
    }
    if let Some(error) = unread {
        return Err(error.into());
    }
    let mut rng = host.rand.fork("node.instance");
    Ok((Identity::draw(options.name.as_str().into(), &mut rng), None))
}

/// Whose disks we open.
pub(crate) fn owner(identity: &Identity) -> Owner {
    Owner {
        node: identity.node.clone(),
        instance: identity.instance,
        cluster: identity.member.as_ref().map(|member| member.cluster),
    }
}

/// Gets the node into its cluster, however it has to, and starts its metadata.
pub(crate) async fn enter(
    shared: &Arc<Shared>,
    disks: &DiskSet,
    mut identity: Identity,
    orders: &mut Orders,
    raft: &Late<RaftServer<RaftService>>,
) -> Result<Meta, NodeError> {
    if let Some(member) = identity.member.clone() {
        let meta = start(shared, disks, identity.clone(), raft).await?;
        if member.raft_id == FIRST_RAFT_ID && meta.map().cluster.is_none() && meta.status().last_log <= 1 {
            // The process ended in the middle of `cluster init`, before anybody could join: the rest is done now.
            establish(shared, disks, &identity, &member, &meta).await?;
        }
        return Ok(meta);
    }
    let joining = !shared.options.join.is_empty();
    let hint = if joining { "asking the members under `join`" } else { "run `resilver cluster init`" };
    shared.phase.set(Phase::Waiting, format!("in no cluster yet: {hint}"));
    loop {
        tokio::select! {
            Some(request) = orders.found.recv() => {
                let mut rng = shared.host.rand.fork("cluster.id");
                let member = Membership {
                    cluster: ClusterId::draw(&mut rng),
                    epoch: FIRST_EPOCH,
                    raft_id: FIRST_RAFT_ID,
                    cluster_name: request.name,
                };
                identity = identity.as_member(member.clone());
                let founded = async {
                    let meta = start(shared, disks, identity.clone(), raft).await?;
                    establish(shared, disks, &identity, &member, &meta).await?;
                    Ok::<_, NodeError>(meta)
                };
                let founded = founded.await;
                // Whoever asked may have given up; what was founded stays founded.
                let _ = request.answer.send(founded.as_ref().map(|_| member.cluster).map_err(ToString::to_string));
                return founded;
            }
            Some(order) = orders.restore.recv() => {
                if let Some(meta) = restored(shared, disks, &identity, order, raft).await? {
                    return Ok(meta);
                }
            }
            round = ask(shared, disks, identity.instance), if joining => match round {
                JoinRound::Admitted(answer) => {
                    identity = identity.as_member(membership(answer)?);
                    return start(shared, disks, identity, raft).await;
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

/// Goes on from a backup. `None`: nothing was changed, and the node stays what it is.
pub(super) async fn restored(
    shared: &Arc<Shared>,
    disks: &DiskSet,
    identity: &Identity,
    order: RestoreOrder,
    raft: &Late<RaftServer<RaftService>>,
) -> Result<Option<Meta>, NodeError> {
    match rebirth::restore(shared, identity, &order).await {
        Ok((renewed, reborn)) => {
            let started = start(shared, disks, renewed, raft).await;
            // Whoever asked may have given up; what was restored stays restored.
            let answer = started.as_ref().map(|_| reborn).map_err(|error| Status::unavailable(error.to_string()));
            let _ = order.answer.send(answer);
            started.map(Some)
        }
        // Born, and not in its place: the next start ends that, and until then nobody else goes on beside it.
        Err(status) if is_born(&shared.host, &meta_dir(&shared.options)).await => {
            let ended = format!("it goes on from a backup once it starts again: {}", status.message());
            std::mem::forget(order.one);
            let _ = order.answer.send(Err(status));
            Err(NodeError::Reborn(ended))
        }
        Err(status) => {
            let _ = order.answer.send(Err(status));
            Ok(None)
        }
    }
}

async fn ask(shared: &Shared, disks: &DiskSet, instance: InstanceId) -> JoinRound {
    ask_members(shared, &shared.options.join, &join_request(shared, instance, disks, None)).await
}

/// What an admission makes of this node.
pub(super) fn membership(answer: JoinResponse) -> Result<Membership, NodeError> {
    let cluster = answer.cluster_id.parse();
    Ok(Membership {
        cluster: cluster.map_err(|_| NodeError::Refused("an admission without a valid cluster id".to_owned()))?,
        epoch: Epoch(answer.epoch),
        raft_id: RaftId(answer.raft_id),
        cluster_name: answer.cluster_name,
    })
}

/// `cluster init`: this node becomes the only voter of a new cluster. Every part of it may be done again.
async fn establish(
    shared: &Arc<Shared>,
    disks: &DiskSet,
    identity: &Identity,
    member: &Membership,
    meta: &Meta,
) -> Result<(), NodeError> {
    meta.found().await?;
    let init = Command::InitCluster { cluster: member.cluster, name: member.cluster_name.clone() };
    match meta.propose(init).await? {
        Outcome::Refused(refusal) if refusal != Refusal::ClusterExists => {
            return Err(NodeError::Refused(refusal.to_string()));
        }
        _ => {}
    }
    let join = own_join(shared, disks, identity.instance, Some(member.raft_id));
    match meta.propose(join).await? {
        Outcome::Refused(refusal) => Err(NodeError::Refused(refusal.to_string())),
        _ => Ok(()),
    }
}

/// Stamps the disks, then starts the metadata, which writes the identity last: a crash in between leaves a node that asks
/// to be let in again and is answered the same.
pub(super) async fn start(
    shared: &Arc<Shared>,
    disks: &DiskSet,
    identity: Identity,
    raft: &Late<RaftServer<RaftService>>,
) -> Result<Meta, NodeError> {
    if let Some(member) = &identity.member {
        disks.take_back(identity.undone, member.epoch).await;
        disks.stamp(member.cluster, member.epoch).await?;
    }
    let options = MetaOptions {
        dir: meta_dir(&shared.options),
        identity,
        address: shared.options.address.clone(),
        tuning: Tuning {
            scrub_period: shared.options.metadata_scrub.period,
            scrub_bytes_per_second: shared.options.metadata_scrub.rate_bytes_per_second,
            ..Tuning::default()
        },
    };
    shared.phase.set(Phase::Recovering, "reading and checking what this member has");
    match Meta::start_telling(&shared.host, options, shared.peers.clone(), &shared.steps).await {
        Ok(meta) => {
            meta.stands_while(shared.phase.mode().changes());
            raft.fill(
                RaftServer::new(meta.raft_service())
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES),
            );
            Ok(meta)
        }
        Err(error @ MetaError::LostVoter { damage, .. }) => {
            shared.phase.damaged(damage);
            Err(NodeError::LostVoter(error.to_string()))
        }
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

/// A member that is none any more, and why.
pub(crate) enum Dropped {
    /// The node was removed from the cluster.
    Removed,
    /// The node has another id by now: it gave this one up, and was cut off before it had written that down.
    Replaced(RaftId),
}

/// Resolves once this member is known to have been dropped from its cluster: by the map that is applied here, or, since nobody
/// sends entries to a member that was dropped, by what others say.
pub(crate) async fn until_dropped(shared: &Shared, meta: &Meta) -> Dropped {
    let mut maps = meta.map_changes();
    loop {
        if maps.borrow_and_update().removed.contains_key(&meta.raft_id()) {
            return Dropped::Removed;
        }
        tokio::select! {
            changed = maps.changed() => if changed.is_err() { return std::future::pending().await },
            () = tokio::time::sleep(ASK_OTHERS) => {
                let silent = meta.silent_for().await.is_none_or(|silent| silent > ASK_OTHERS);
                if silent && others_removed(shared, meta).await {
                    return Dropped::Removed;
                }
                if silent && let Some(id) = others_replaced(shared, meta).await {
                    return Dropped::Replaced(id);
                }
            }
        }
    }
}

/// The later id that others know this node by, in this very epoch.
async fn others_replaced(shared: &Shared, meta: &Meta) -> Option<RaftId> {
    let (_, _, own_epoch) = meta.cluster();
    let mut others: Vec<String> = meta.map().nodes.values().map(|node| node.address.clone()).collect();
    others.extend(shared.options.join.iter().cloned());
    match ask_who_we_are(shared, &others).await {
        Known::Member(id, epoch) if epoch == own_epoch && id > meta.raft_id() => Some(id),
        _ => None,
    }
}

/// Whether another member of this cluster has this one among those that were removed.
async fn others_removed(shared: &Shared, meta: &Meta) -> bool {
    let (cluster, own) = (meta.cluster().0.to_string(), meta.raft_id().0);
    let map = meta.map();
    let mut others: Vec<&String> = map.nodes.values().map(|node| &node.address).collect();
    others.extend(&shared.options.join);
    others.retain(|address| **address != shared.options.address);
    for address in others {
        let Ok(channel) = shared.peers.channel(address, Profile::Control) else { continue };
        let mut client = ClusterClient::new(channel);
        let asked = client.status(StatusRequest { local: true });
        let Ok(Ok(answer)) = tokio::time::timeout(ANSWER_DEADLINE, asked).await else { continue };
        let answer = answer.into_inner();
        if answer.cluster_id == cluster && answer.removed.iter().any(|removed| removed.raft_id == own) {
            return true;
        }
    }
    false
}

/// Resolves once a member says that the epoch in which this one was left behind was undone, and nobody says that it is in it.
pub(super) async fn until_undone(shared: &Shared, meta: &Meta, epoch: Epoch) {
    let cluster = meta.cluster().0.to_string();
    loop {
        tokio::time::sleep(ASK_OTHERS).await;
        let mut asked: Vec<String> = meta.map().nodes.values().map(|node| node.address.clone()).collect();
        asked
            .extend(shared.options.join.iter().filter(|address| !asked.contains(address)).cloned().collect::<Vec<_>>());
        let seen = others(shared, &asked).await;
        let of_ours = || seen.iter().map(|(_, seen)| seen).filter(|seen| seen.cluster_id == cluster);
        if of_ours().any(|seen| seen.undone_epoch >= epoch.0) && !of_ours().any(|seen| seen.epoch >= epoch.0) {
            return;
        }
    }
}

/// What was ordered while this member was away may be committed once it is back, and enough to commit it again: that it is marked down then
/// nobody else takes back where its own agent holds the lease. For a while after the start it refutes such a mark, once: a host that others
/// convict again and again is not to argue with them.
pub(super) async fn refute_late_mark(shared: Arc<Shared>, disks: Arc<DiskSet>, meta: Meta) {
    let waiting = async {
        let mut maps = meta.map_changes();
        while !is_believed_away(&shared, &meta) {
            // A map that cannot change any more belongs to a node that ends.
            if maps.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    if tokio::time::timeout(LATE_MARK, waiting).await.is_err() {
        return;
    }
    let Some(instance) = meta.map().nodes.get(&shared.name).map(|node| node.instance) else { return };
    let outcome = meta.propose(own_join(&shared, &disks, instance, None)).await;
    tracing::warn!(node = %shared.name, ?outcome, operation = "refute", "this node was marked down after it had come back, and says that it is here");
}

fn is_believed_away(shared: &Shared, meta: &Meta) -> bool {
    let map = meta.map();
    map.nodes
        .get(&shared.name)
        .is_some_and(|node| node.state == HostState::Down && node.marked_by == MarkedBy::Automatic)
}

fn known_as_we_are(shared: &Shared, disks: &DiskSet, meta: &Meta) -> bool {
    let map = meta.map();
    let disks_known = disks.volumes().iter().all(|volume| map.disks.contains_key(&volume.id()));
    map.nodes.get(&shared.name).is_some_and(|node| {
        let as_configured = node.address == shared.options.address && node.location == location(&shared.options);
        // That we were convicted while we were away is refuted by saying that we are here.
        as_configured && disks_known && !is_believed_away(shared, meta)
    })
}

/// A changed address, location or a new disk, or a mark that we are away: the map is brought up to date by joining again as the same instance.
async fn introduce(shared: &Shared, disks: &DiskSet, meta: &Meta) {
    let Some(instance) = meta.map().nodes.get(&shared.name).map(|node| node.instance) else {
        // A learner that has not received its own admission yet: the next barrier brings it.
        tokio::time::sleep(ASK_AGAIN).await;
        return;
    };
    match meta.propose(own_join(shared, disks, instance, None)).await {
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
    if volumes.is_empty() {
        // Every one of them was removed: one that is added is looked for with the next start.
        std::future::pending::<()>().await;
    }
    let answers = volumes.iter().map(|volume| {
        let mut health = volume.health_changes();
        Box::pin(async move {
            // A canary that is gone will never answer: the others decide.
            if health.wait_for(|report| report.health == Health::Ok).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    });
    futures_util::future::select_all(answers).await;
}
