//! How a node gets into a cluster: by founding it, or by asking its members.

use std::time::Duration;

use resilver_proto::store::cluster_client::ClusterClient;
use resilver_proto::store::{JoinDisk, JoinRequest, JoinResponse};
use tokio::sync::oneshot;
use tonic::Code;

use super::Shared;
use crate::disk::DiskSet;
use crate::model::JoiningDisk;
use crate::peers::Profile;
use crate::types::{ClusterId, InstanceId};

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
pub(crate) fn joining_disks(disks: &DiskSet) -> Vec<JoiningDisk> {
    disks
        .volumes()
        .iter()
        .map(|volume| {
            let status = volume.status();
            JoiningDisk { id: status.id, path: status.path.display().to_string(), capacity_bytes: status.total_bytes }
        })
        .collect()
}

/// Asks each configured member once.
pub(crate) async fn ask_members(shared: &Shared, instance: InstanceId, disks: &DiskSet) -> JoinRound {
    let request = JoinRequest {
        node: shared.name.to_string(),
        instance: instance.to_string(),
        address: shared.options.address.clone(),
        datacenter: shared.options.location.datacenter.clone(),
        rack: shared.options.location.rack.clone(),
        disks: joining_disks(disks)
            .into_iter()
            .map(|disk| JoinDisk { disk_id: disk.id.to_string(), path: disk.path, capacity_bytes: disk.capacity_bytes })
            .collect(),
    };
    let mut last = "no member is configured under `join`".to_owned();
    for address in shared.options.join.iter().filter(|address| **address != shared.options.address) {
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
