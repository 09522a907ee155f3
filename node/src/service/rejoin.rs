//! How a lost voter comes back: as a learner, under an id in Raft that has promised nothing yet.
//!
//! Owns: the order of it. Must never: start Raft on what is left, or touch it before the cluster has given the node another
//! id, or where there is no room for what comes in its place; delete any of it. Invariant: cut off anywhere, the node is a lost voter still, and doing it again ends the same.

use std::sync::Arc;

use rand::RngCore;
use resilver_host::planted::{Bug, bug};
use resilver_proto::internal::raft_server::RaftServer;
use resilver_proto::store::LostMember;
use tonic::Status;

use super::aside;
use super::membership::{self, meta_dir};
use super::{NodeError, Orders};
use crate::control::{JoinRound, Known, RejoinOrder, Rejoined, Shared, ask_members, ask_who_we_are, join_request};
use crate::disk::DiskSet;
use crate::late::Late;
use crate::meta::identity::Identity;
use crate::meta::{Meta, RaftService, Role, make_member, move_aside, room_beside};
use crate::phase::Phase;

/// Answers the agent and does nothing else, until somebody orders the node to come back and it does.
///
/// # Errors
/// When it is a member again and cannot go on as one: the process ends, and the next start goes on.
pub(super) async fn stay_lost(
    shared: &Arc<Shared>,
    disks: &DiskSet,
    mut identity: Identity,
    mut reason: String,
    orders: &mut Orders,
    raft: &Late<RaftServer<RaftService>>,
) -> Result<Meta, NodeError> {
    tracing::error!(node = %shared.name, %reason, operation = "start", "this node is a lost voter");
    loop {
        shared.phase.set(Phase::LostVoter, reason.clone());
        let order = tokio::select! {
            Some(order) = orders.rejoin.recv() => order,
            Some(request) = orders.found.recv() => {
                let why = "this node is a lost voter of a cluster: it founds no other one";
                let _ = request.answer.send(Err(why.to_owned()));
                continue;
            }
            Some(order) = orders.restore.recv() => {
                match membership::restored(shared, disks, &identity, order, raft).await? {
                    Some(meta) => return Ok(meta),
                    None => continue,
                }
            }
            // Nobody is left to order anything.
            else => return std::future::pending().await,
        };
        tracing::info!(node = %shared.name, reason = order.reason, operation = "rejoin", "this node is to come back");
        let (renewed, rejoined) = match come_back(shared, disks, &identity, &order).await {
            Ok(back) => back,
            Err(status) => {
                tracing::warn!(node = %shared.name, error = status.message(), operation = "rejoin", "it stays lost");
                // Whoever asked may have given up.
                let _ = order.answer.send(Err(status));
                continue;
            }
        };
        match membership::start(shared, disks, renewed.clone(), raft).await {
            Ok(meta) => {
                let _ = order.answer.send(Ok(rejoined));
                return Ok(meta);
            }
            Err(NodeError::LostVoter(again)) => {
                let _ = order.answer.send(Err(Status::data_loss(again.clone())));
                (identity, reason) = (renewed, again);
            }
            Err(error) => {
                let _ = order.answer.send(Err(Status::unavailable(error.to_string())));
                return Err(error);
            }
        }
    }
}

/// Whether a member that serves may go that way. Asked before its Raft is stopped: what is refused here costs it nothing.
pub(super) async fn may_leave(shared: &Shared, meta: &Meta, order: &RejoinOrder) -> Result<(), Status> {
    if !order.left_behind && !order.gives_up {
        // Of the time when it was a lost voter.
        return Err(Status::failed_precondition("this node is back already"));
    }
    if order.gives_up && meta.status().role == Role::Leader {
        return Err(Status::failed_precondition("this node leads by now: nothing was changed"));
    }
    has_room(shared).await
}

async fn has_room(shared: &Shared) -> Result<(), Status> {
    let refused = |why: String| Status::failed_precondition(format!("{why}; nothing was changed"));
    aside::check(&shared.host, &shared.options).await.map_err(refused)?;
    match room_beside(&shared.host, &meta_dir(&shared.options)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(too_little)) => Err(refused(format!("{too_little}, then try again"))),
        Err(error) => Err(Status::unavailable(format!("{error}; nothing was changed"))),
    }
}

/// Of a member whose epoch is over (another one was forced without it), or that gives its membership up. Its Raft is stopped, and does
/// not start again in this process: the next one goes on as the learner that it is then, or as the member that it was, if nobody took it.
pub(super) async fn leave_epoch(shared: &Shared, disks: &DiskSet, meta: &Meta, order: RejoinOrder) -> NodeError {
    let leaves = if order.gives_up { "giving its membership up" } else { "leaving an epoch that is over" };
    shared.phase.set(Phase::Recovering, leaves);
    meta.shutdown().await;
    let dir = meta_dir(&shared.options);
    let outcome = async {
        let unread = |error: crate::meta::MetaError| Status::unavailable(error.to_string());
        let identity = Identity::load(&shared.host, &dir).await.map_err(unread)?;
        let identity = identity.ok_or_else(|| Status::unavailable(format!("{} has no identity", dir.display())))?;
        let (renewed, rejoined) = come_back(shared, disks, &identity, &order).await?;
        make_member(&shared.host, &dir, &renewed).await.map_err(unread)?;
        Ok(rejoined)
    };
    let outcome: Result<Rejoined, Status> = outcome.await;
    let ended = match &outcome {
        Ok(Rejoined { was, is, .. }) => format!("it was member {was} and is member {is}"),
        Err(status) => format!("{leaves} failed: {}", status.message()),
    };
    // Whoever asked may have given up.
    let _ = order.answer.send(outcome);
    NodeError::Reborn(ended)
}

/// Room first, then another id, then the old files aside. Who the node is from now on.
async fn come_back(
    shared: &Shared,
    disks: &DiskSet,
    identity: &Identity,
    order: &RejoinOrder,
) -> Result<(Identity, Rejoined), Status> {
    let mut members = order.members.clone();
    members.extend(shared.options.join.iter().filter(|address| !order.members.contains(address)).cloned());
    members.retain(|address| *address != shared.options.address);
    if members.is_empty() {
        return Err(Status::failed_precondition(
            "no other member is known: what a lone node lost can only come from a backup; nothing was changed",
        ));
    }
    // Before anything is asked for: a member whose new state finds no room has given its membership up for nothing.
    has_room(shared).await?;
    let before = identity.member.as_ref().map(|member| member.raft_id);
    // The disks were stamped by every epoch that this node was in, whatever became of its folder. One that was undone is none.
    let stamped = Some(disks.highest_epoch()).filter(|epoch| *epoch != identity.undone).unwrap_or_default();
    let own = identity.member.as_ref().map(|member| member.epoch).unwrap_or_default().max(stamped);
    let lost = match (ask_who_we_are(shared, &members).await, before) {
        (Known::Silence, None) => {
            return Err(Status::unavailable(
                "no member that answers knows this node: nothing was changed; see `resilver status`",
            ));
        }
        // Their status may be silent for want of a leader: what this folder says is asked, and judged there.
        (Known::Silence, Some(id)) => Some(id),
        // The epoch that this folder is of is over: its ids mean nothing any more.
        (Known::Member(known, epoch), _) if epoch > own => Some(known),
        // Ids only rise: this folder may be older than the last admission.
        (Known::Member(known, _), before) => Some(before.map_or(known, |id| id.max(known))),
        // In that later epoch the node is none of theirs: it joins as a new one. In its own it was one, and whoever does not
        // know that is only behind: a plain join would be answered with the id that it had.
        (Known::Unknown(epoch), _) if epoch > own => None,
        (Known::Unknown(_), _) => {
            return Err(Status::failed_precondition(format!(
                "the members that answered know no node {} in epoch {}: ask again when they have caught up; if it was removed from \
                 the cluster, empty its data folder and its disks, and it joins as a new node; nothing was changed",
                shared.name, own.0
            )));
        }
    };
    let was = lost.or(before).unwrap_or_default();
    let mut draws = shared.host.rand.fork("rejoin.attempt");
    let attempt = format!("{:016x}{:016x}", draws.next_u64(), draws.next_u64());
    let lost = lost.map(|id| LostMember { raft_id: id.0, fence: order.fence.clone().map(Into::into), attempt });
    let request = join_request(shared, identity.instance, disks, lost);
    let answer = match ask_members(shared, &members, &request).await {
        JoinRound::Admitted(answer) => answer,
        JoinRound::Refused(reason) => {
            return Err(Status::failed_precondition(format!("{reason}; nothing was changed")));
        }
        JoinRound::Nobody(reason) => {
            return Err(Status::unavailable(format!(
                "no quorum of the metadata said that it took this node back: {reason}; nothing was changed here"
            )));
        }
    };
    let mut member = membership::membership(answer).map_err(|error| Status::internal(error.to_string()))?;
    if bug(Bug::WipeAndVote) {
        member.raft_id = was;
    }
    if own > member.epoch || (order.left_behind && own == member.epoch) {
        return Err(Status::failed_precondition(format!(
            "the members that answered are in epoch {}, and this node knows of a later one: name those of the latest; \
             nothing was changed here",
            member.epoch.0
        )));
    }
    if identity.member.as_ref().is_some_and(|before| before.cluster != member.cluster) {
        return Err(Status::failed_precondition(format!(
            "the members that answered are of another cluster, {}: nothing was changed here",
            member.cluster
        )));
    }
    let label = format!("member-{was}-{}", shared.host.clock.now().as_millis());
    let aside = aside::folder(&shared.options, &label);
    let moved = move_aside(&shared.host, &meta_dir(&shared.options), &aside).await;
    moved.map_err(|error| Status::unavailable(format!("{error}: free the disk, then try again")))?;
    let rejoined = Rejoined { was, is: member.raft_id, aside: aside.display().to_string() };
    tracing::info!(node = %shared.name, ?rejoined, operation = "rejoin", "what was left is aside");
    Ok((identity.as_member(member), rejoined))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::Ordering;

    use tokio::sync::oneshot;
    use tonic::Code;

    use super::*;
    use crate::meta::FIRST_EPOCH;
    use crate::meta::identity::Membership;
    use crate::service::Node;
    use crate::testing::faults::Faults;
    use crate::types::{ClusterId, RaftId};

    /// An address where nobody answers, and none of a well-known service.
    async fn nobodys(host: &resilver_host::Host) -> String {
        host.net.bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
    }

    fn content(folder: &Path, of: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                content(&path, of);
            } else {
                of.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
    }

    /// Found on review: on a full metadata volume the old copy was moved aside before the new one found no room.
    #[tokio::test]
    async fn without_room_for_a_new_state_nothing_is_asked_for_and_nothing_is_moved() {
        let (host, faults) = Faults::host();
        let folder = tempfile::tempdir().unwrap();
        let (address, member) = (nobodys(&host).await, nobodys(&host).await);
        let options = serde_json::json!({
            "name": "n1", "address": address, "http": nobodys(&host).await,
            "data_dir": folder.path().join("meta"), "disks": [folder.path().join("disk")], "join": [member],
        });
        let node = Node::open(host, serde_json::from_value(options).unwrap()).await.unwrap();
        let mut identity = node.identity.clone();
        identity.member = Some(Membership {
            cluster: ClusterId(1),
            epoch: FIRST_EPOCH,
            raft_id: RaftId(2),
            cluster_name: "test".to_owned(),
        });
        let meta = folder.path().join("meta");
        std::fs::create_dir_all(meta.join("log")).unwrap();
        std::fs::create_dir_all(meta.join("snapshots")).unwrap();
        std::fs::write(meta.join("log/header"), b"rotten").unwrap();
        std::fs::write(meta.join("state.redb"), vec![1; 3_000_000]).unwrap();
        std::fs::write(meta.join("snapshots/1.snapshot"), vec![1; 5_000_000]).unwrap();
        let mut before = BTreeMap::new();
        content(&meta, &mut before);

        let (answer, _answered) = oneshot::channel();
        let order = RejoinOrder {
            fence: None,
            members: vec![],
            left_behind: false,
            gives_up: false,
            reason: "a test".to_owned(),
            answer,
        };
        faults.available.store(9_999_999, Ordering::SeqCst);
        let refused = come_back(&node.shared, &node.disks, &identity, &order).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        let total = node.shared.host.disk.space(&meta).await.unwrap().total_bytes;
        let needed = 10_000_000 + (64 << 20).min(total / 20);
        for told in ["9999999 bytes are free", &format!("{needed} are needed"), "nothing was changed"] {
            assert!(refused.message().contains(told), "{told}: {}", refused.message());
        }
        let mut after = BTreeMap::new();
        content(&meta, &mut after);
        assert_eq!(before, after);

        // With room it goes on, to members of whom none answers here.
        faults.available.store(needed, Ordering::SeqCst);
        let unanswered = come_back(&node.shared, &node.disks, &identity, &order).await.unwrap_err();
        assert!(
            unanswered.message().contains("no quorum of the metadata said that it took this node back"),
            "{unanswered}"
        );
    }
}
