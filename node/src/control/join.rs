//! How a node gets into a cluster: by founding it, or by asking its members, for the first time or again.

use std::time::Duration;

use resilver_proto::store::cluster_client::ClusterClient;
use resilver_proto::store::{JoinDisk, JoinRequest, JoinResponse, LostMember, StatusRequest};
use tokio::sync::oneshot;
use tonic::Code;

use super::Shared;
use crate::disk::DiskSet;
use crate::model::{Command, JoiningDisk, Location};
use crate::options::Options;
use crate::peers::Profile;
use crate::types::{ClusterId, Epoch, InstanceId, RaftId};

/// How long one member may take to answer a join: the proposal may have to wait for an election.
const JOIN_DEADLINE: Duration = Duration::from_secs(12);

/// A request of `cluster init`, with whom to tell.
pub(crate) struct FoundRequest {
    /// The cluster's name.
    pub(crate) name: String,
    /// The new cluster's id, or why not.
    pub(crate) answer: oneshot::Sender<Result<ClusterId, String>>,
}

/// What one round of asking came to.
pub(crate) enum JoinRound {
    /// In.
    Admitted(JoinResponse),
    /// A member said no, and will say no again until an operator does something.
    Refused(String),
    /// Nobody could answer; ask again.
    Nobody(String),
}

/// The disks this node brings, as a join says it.
fn joining_disks(disks: &DiskSet) -> Vec<JoiningDisk> {
    disks
        .volumes()
        .iter()
        .map(|volume| {
            let status = volume.status();
            JoiningDisk { id: status.id, path: status.path.display().to_string(), capacity_bytes: status.total_bytes }
        })
        .collect()
}

/// The command by which this node says who it is, where it stands, and which disks it has.
pub(crate) fn own_join(shared: &Shared, disks: &DiskSet, instance: InstanceId, raft_id: Option<RaftId>) -> Command {
    Command::JoinNode {
        name: shared.name.clone(),
        instance,
        address: shared.options.address.clone(),
        location: location(&shared.options),
        disks: joining_disks(disks),
        raft_id,
    }
}

/// Where this node stands.
pub(crate) fn location(options: &Options) -> Location {
    Location { datacenter: options.location.datacenter.clone(), rack: options.location.rack.clone() }
}

/// What this node asks of the members. `lost`: it was one already, and comes back as another.
pub(crate) fn join_request(
    shared: &Shared,
    instance: InstanceId,
    disks: &DiskSet,
    lost: Option<LostMember>,
) -> JoinRequest {
    JoinRequest {
        node: shared.name.to_string(),
        instance: instance.to_string(),
        address: shared.options.address.clone(),
        datacenter: shared.options.location.datacenter.clone(),
        rack: shared.options.location.rack.clone(),
        disks: joining_disks(disks)
            .into_iter()
            .map(|disk| JoinDisk { disk_id: disk.id.to_string(), path: disk.path, capacity_bytes: disk.capacity_bytes })
            .collect(),
        lost,
    }
}

/// Asks each member once, until one lets this node in.
pub(crate) async fn ask_members(shared: &Shared, members: &[String], request: &JoinRequest) -> JoinRound {
    let mut last = "no member is configured under `join`".to_owned();
    for address in members.iter().filter(|address| **address != shared.options.address) {
        let mut client = match shared.peers.channel(address, Profile::Control) {
            Ok(channel) => ClusterClient::new(channel),
            Err(error) => return JoinRound::Refused(error.to_string()),
        };
        match tokio::time::timeout(JOIN_DEADLINE, client.join(request.clone())).await {
            Ok(Ok(answer)) => return JoinRound::Admitted(answer.into_inner()),
            Ok(Err(status)) if matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument) => {
                return JoinRound::Refused(format!("{address} refuses: {}", status.message()));
            }
            // Its own words may be ours, from its own asking: they would go round in circles.
            Ok(Err(status)) => last = format!("{address} cannot let anybody in yet ({})", status.code()),
            Err(_) => {
                shared.peers.drop_channel(address, Profile::Control);
                last = format!("{address} did not answer within {} s", JOIN_DEADLINE.as_secs());
            }
        }
    }
    JoinRound::Nobody(last)
}

/// What the others know this node as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nobody answered.
    Silence,
    /// The cluster is in this epoch, and has no such node.
    Unknown(Epoch),
    /// This member, in this epoch.
    Member(RaftId, Epoch),
}

/// Asks for it; of several answers the one of the latest epoch counts.
pub(crate) async fn ask_who_we_are(shared: &Shared, members: &[String]) -> Known {
    let mut known = Known::Silence;
    for address in members.iter().filter(|address| **address != shared.options.address) {
        let Ok(channel) = shared.peers.channel(address, Profile::Control) else { continue };
        let mut client = ClusterClient::new(channel);
        let asked = client.status(StatusRequest { local: false });
        let Ok(Ok(answer)) = tokio::time::timeout(JOIN_DEADLINE, asked).await else { continue };
        let answer = answer.into_inner();
        if answer.cluster_id.is_empty() {
            continue;
        }
        let epoch = Epoch(answer.epoch);
        let own = answer.nodes.iter().find(|node| node.node == shared.name.as_str() && node.raft_id > 0);
        let said = own.map_or(Known::Unknown(epoch), |own| Known::Member(RaftId(own.raft_id), epoch));
        known = match (known, said) {
            (Known::Unknown(before) | Known::Member(_, before), _) if before > epoch => known,
            // Of one epoch the one that is further has the later id.
            (Known::Member(id, before), Known::Member(other, _)) if before == epoch && id > other => known,
            (Known::Member(_, before), Known::Unknown(_)) if before == epoch => known,
            _ => said,
        };
    }
    known
}
