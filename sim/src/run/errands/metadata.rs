//! Errands about the metadata as a whole: a quorum that is lost for good, and undone; a backup, and what is restored from it.

use bytes::Bytes;
use resilver_proto::contract::meta_recovery_client::MetaRecoveryClient;
use resilver_proto::contract::node_control_client::NodeControlClient;
use resilver_proto::contract::restore_request::Of as Part;
use resilver_proto::contract::{
    BackupRequest, ObserveRequest, RecoverQuorumRequest, RestoreBegin, RestoreRequest, SetHostStateRequest,
    SurveyRequest, SurveyResponse, UndoRecoverQuorumRequest,
};
use resilver_proto::store::ReleaseCollectionRequest;
use resilver_proto::store::cluster_client::ClusterClient;

use super::{Person, Stop, in_time};
use crate::cluster::{CLUSTER_NAME, node_address};
use crate::plan::MACHINES;

/// Bytes of a backup in one message.
const CHUNK_BYTES: usize = 64 * 1024;
/// The epoch that a cluster is born with.
const FIRST_EPOCH: u64 = 1;

impl Person {
    /// Has the node that was forced be what it was.
    pub(super) async fn undo(&self) -> Result<String, Stop> {
        let seen = self.surveys().await?;
        let Some(forced) = seen.iter().find(|survey| !survey.forced_from.is_empty()) else {
            return match seen.iter().find(|survey| survey.undone_epoch > 0) {
                Some(survey) => Ok(format!("epoch {} is undone", survey.undone_epoch)),
                None => Err(Stop::Again("nobody goes on alone".to_owned())),
            };
        };
        let request = UndoRecoverQuorumRequest {
            confirm: CLUSTER_NAME.to_owned(),
            members: (1..=MACHINES).map(|number| node_address(&format!("n{number}"))).collect(),
            reason: "they were not gone".to_owned(),
        };
        let mut meta = MetaRecoveryClient::new(self.channel(&forced.node)?);
        let undone = meta.undo_recover_quorum(request).await?.into_inner();
        Ok(format!("{} is in epoch {} again, not in {}", forced.node, undone.epoch, undone.undone_epoch))
    }

    /// Takes a backup to himself.
    pub(super) async fn backup(&self, door: usize) -> Result<String, Stop> {
        let mut meta = MetaRecoveryClient::new(self.channel(&format!("n{door}"))?);
        let mut chunks = meta.backup(BackupRequest { local: false }).await?.into_inner();
        let mut kept = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            kept.extend_from_slice(&chunk.data);
        }
        let what = format!("{} bytes", kept.len());
        self.errands.with(|inner| inner.backup = Some(kept.into()));
        Ok(what)
    }

    /// Has the node go on from the backup unless another one has, and lets collection go on once all are back.
    pub(super) async fn restore(&self) -> Result<String, Stop> {
        let seen = self.surveys().await?;
        let leader = seen.iter().find(|survey| survey.epoch > FIRST_EPOCH && !survey.leader.is_empty());
        let Some(leader) = leader.map(|survey| survey.leader.clone()) else {
            let backup = self.errands.with(|inner| inner.backup.clone());
            let backup = backup.ok_or_else(|| Stop::Again("there is no backup".to_owned()))?;
            let begin = RestoreBegin {
                confirm: CLUSTER_NAME.to_owned(),
                members: (1..=MACHINES).map(|number| node_address(&format!("n{number}"))).collect(),
                reason: "all metadata is gone".to_owned(),
                gone: Vec::new(),
            };
            let pieces = backup.chunks(CHUNK_BYTES).map(|piece| Part::Data(Bytes::copy_from_slice(piece)));
            let parts = std::iter::once(Part::Begin(begin)).chain(pieces);
            let messages: Vec<RestoreRequest> = parts.map(|part| RestoreRequest { of: Some(part) }).collect();
            let mut meta = MetaRecoveryClient::new(self.channel(&self.errand.node)?);
            let reborn = meta.restore(futures_util::stream::iter(messages)).await?.into_inner();
            return Err(Stop::Again(format!("{} goes on from the backup in epoch {}", self.errand.node, reborn.epoch)));
        };
        for number in 1..=MACHINES {
            let node = format!("n{number}");
            let seen = in_time(NodeControlClient::new(self.channel(&node)?).observe(ObserveRequest {})).await?;
            if seen.phase != "healthy" {
                return Err(Stop::Again(format!("{node} is {}", seen.phase)));
            }
        }
        let channel = self.channel(&leader)?;
        in_time(ClusterClient::new(channel).release_collection(ReleaseCollectionRequest::default())).await?;
        Ok(format!("{leader} leads the epoch, and all are back"))
    }

    /// What every node that answers says of itself, beginning with the one that this person turns to first.
    pub(super) async fn surveys(&self) -> Result<Vec<SurveyResponse>, Stop> {
        let mut seen = Vec::new();
        for number in (0..MACHINES).map(|after| (self.errand.through - 1 + after) % MACHINES + 1) {
            let mut meta = MetaRecoveryClient::new(self.channel(&format!("n{number}"))?);
            // Who does not answer has nothing to say.
            seen.extend(in_time(meta.survey(SurveyRequest {})).await);
        }
        Ok(seen)
    }

    /// Asks all how far they are, has one that has most go on alone, and, once those that were lost have been brought back,
    /// gives them shards again and lets collection go on.
    pub(super) async fn recover_quorum(&self) -> Result<String, Stop> {
        let gone = &self.errand.gone;
        let seen = self.surveys().await?;
        let leader = seen.iter().find(|survey| survey.epoch > FIRST_EPOCH && !survey.leader.is_empty());
        let Some(leader) = leader.map(|survey| survey.leader.clone()) else {
            let survivors = seen.iter().filter(|survey| !gone.contains(&survey.node));
            let reach = |survey: &&SurveyResponse| (survey.epoch, survey.last_log_term, survey.last_log_index);
            // Of equals the first.
            let best = survivors.rev().max_by_key(reach);
            let best = best.ok_or_else(|| Stop::Again("nobody answers".to_owned()))?;
            let request = RecoverQuorumRequest {
                confirm: CLUSTER_NAME.to_owned(),
                gone: gone.clone(),
                members: (1..=MACHINES).map(|number| node_address(&format!("n{number}"))).collect(),
                reason: "their disks are gone".to_owned(),
            };
            let mut meta = MetaRecoveryClient::new(self.channel(&best.node)?);
            let reborn = meta.recover_quorum(request).await?.into_inner();
            return Err(Stop::Again(format!("{} goes on alone in epoch {}", best.node, reborn.epoch)));
        };
        let channel = self.channel(&leader)?;
        for node in gone {
            let seen = in_time(NodeControlClient::new(self.channel(node)?).observe(ObserveRequest {})).await?;
            if seen.phase != "healthy" {
                return Err(Stop::Again(format!("{node} is {}", seen.phase)));
            }
            let request = SetHostStateRequest {
                fence: None,
                node: node.clone(),
                state: "up".to_owned(),
                automatic: false,
                reason: "it is back".to_owned(),
            };
            in_time(NodeControlClient::new(channel.clone()).set_host_state(request)).await?;
        }
        in_time(ClusterClient::new(channel).release_collection(ReleaseCollectionRequest::default())).await?;
        Ok(format!("{leader} leads the epoch, and {} are back", gone.join(", ")))
    }
}
