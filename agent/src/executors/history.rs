//! Probes of what members remember: one history in one epoch, a log that comes to what is stored, reads that agree.
//!
//! Must never: change anything; count a member that did not answer as one that agrees.

use std::time::Duration;

use futures_util::future::join_all;
use resilver_proto::contract::{ObserveResponse, ReplayJournalRequest};
use resilver_proto::internal::{Envelope, PreVoteRequest};
use resilver_proto::store::{ListBucketsRequest, ListRequest, ObjectInfo};
use tokio::time::sleep;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::Tools;
use super::node::{VERB_DEADLINE, follow, said};
use super::probes::{ask_all, not_yet, one_leader, replica_equal};
use crate::links::{Link, meta_recovery, raft, store};
use crate::sensors::{compare, observe};

/// Buckets of which a sample is read, and objects of each.
const SAMPLED_BUCKETS: usize = 4;
const SAMPLED_OBJECTS: u32 = 64;
/// Between two nodes somebody may write: so often they are read before they count as different.
const SAMPLE_TRIES: u32 = 3;
/// Between two tries.
const BETWEEN: Duration = Duration::from_millis(200);

/// One leader for one term ([`one_leader`]); all who answer in one epoch, and a word of an older one refused by each; and the digests of
/// all who answer, made anew from what they have stored, equal at one entry: their logs were the same up to it.
pub(super) async fn one_history(tools: &Tools, hosts: &[String]) -> Result<String, Status> {
    let leader = one_leader(tools, hosts).await?;
    let own = observe(&tools.links, tools.deadline).await?;
    let others = ask_all(tools).await;
    let answered = others.into_iter().filter_map(|(name, word)| Some((name, word.node.ok()?)));
    let answered: Vec<(String, ObserveResponse)> = answered.collect();
    if let Some((name, seen)) = answered.iter().find(|(_, seen)| seen.epoch != own.epoch) {
        return Err(not_yet(format!("{name} is in epoch {}, this node in epoch {}", seen.epoch, own.epoch)));
    }
    let refused = old_epoch_refused(tools, &own, &answered).await?;
    let equal = digests_equal(tools).await?;
    Ok(format!("{leader}; {refused}; {equal}"))
}

/// Each node that answers is asked a question as of the epoch before. It changes nothing wherever it is answered.
async fn old_epoch_refused(
    tools: &Tools,
    own: &ObserveResponse,
    others: &[(String, ObserveResponse)],
) -> Result<String, Status> {
    let epoch = own.epoch;
    let Some(before) = epoch.checked_sub(1).filter(|before| *before > 0) else {
        return Ok(format!("all in epoch {epoch}, the first"));
    };
    let ask = async |name: &str, link: &Link, seen: &ObserveResponse| {
        let target = seen.raft.as_ref().map_or(0, |raft| raft.id);
        let cluster_id = own.cluster_id.clone();
        let envelope = Some(Envelope { cluster_id, epoch: before, target, sender: 0 });
        let request = PreVoteRequest { envelope, last_log: Vec::new().into() };
        let call = |channel| async { raft(channel).pre_vote(request).await };
        match link.call(tools.deadline, call).await {
            Err(status) if status.code() == Code::FailedPrecondition => Ok(()),
            Err(status) => Err(not_yet(format!("{name}, asked as of epoch {before}: {}", said(&status)))),
            Ok(_) => Err(Status::aborted(format!("{name} answers a question of epoch {before}, which is over"))),
        }
    };
    ask(&tools.own, &tools.links.node, own).await?;
    let asked = others.iter().filter_map(|(name, seen)| Some((name, &tools.links.peers.get(name)?.node, seen)));
    let answers = join_all(asked.map(|(name, link, seen)| ask(name, link, seen))).await;
    answers.into_iter().collect::<Result<Vec<()>, Status>>()?;
    Ok(format!("all in epoch {epoch}, and epoch {before} refused by {}", others.len() + 1))
}

async fn digests_equal(tools: &Tools) -> Result<String, Status> {
    let compared = compare(&tools.links, true).await.map_err(|status| not_yet(said(&status)))?;
    let mut digests = compared.members.iter().filter(|member| !member.digest.is_empty());
    let Some(first) = digests.next() else { return Err(not_yet("nobody has a digest")) };
    let mut equal = 1;
    for other in digests {
        if other.digest != first.digest {
            let (one, other) = (&first.node, &other.node);
            return Err(not_yet(format!("at entry {} {one} and {other} have different digests", compared.index)));
        }
        equal += 1;
    }
    Ok(format!("{equal} digests from stored records equal at entry {}", compared.index))
}

/// [`replica_equal`], and the own log, replayed on a copy from its checkpoint, comes to what is stored. A member that has no checkpoint
/// yet, or no room for a copy, says so: then the digests are what there is.
pub(super) async fn log_replays(tools: &Tools) -> Result<String, Status> {
    let equal = replica_equal(tools).await?;
    let request = ReplayJournalRequest { from_sequence: 0 };
    let call = |channel| async { meta_recovery(channel).replay_journal(request).await };
    let replayed = match tools.links.node.call(VERB_DEADLINE, call).await {
        Ok(stream) => follow(stream.into_inner()).await,
        Err(status) => Err(status),
    };
    match replayed {
        Ok(told) => Ok(format!("{equal}; its log was replayed: {told}")),
        Err(status) if matches!(status.code(), Code::FailedPrecondition | Code::Unimplemented) => {
            Ok(format!("{equal}; its log could not be replayed: {}", status.message()))
        }
        Err(status) => Err(status),
    }
}

/// [`replica_equal`], and what the own node answers to readers is what another member answers.
pub(super) async fn reads_equal(tools: &Tools) -> Result<String, Status> {
    let equal = replica_equal(tools).await?;
    let others = ask_all(tools).await;
    let healthy = others.iter().filter(|(_, word)| word.node.as_ref().is_ok_and(|seen| seen.phase == "healthy"));
    let Some((other, link)) = healthy.filter_map(|(name, _)| Some((name, tools.links.peers.get(name)?))).next() else {
        return Err(not_yet("no other node serves that reads could be compared with"));
    };
    let mut differs = String::new();
    for _ in 0..SAMPLE_TRIES {
        let (own, theirs) = tokio::join!(sample(tools, &tools.links.node), sample(tools, &link.node));
        let (own, theirs) = (own?, theirs?);
        match own.iter().zip(&theirs).find(|(one, other)| one != other) {
            None if own.len() == theirs.len() => {
                return Ok(format!("{equal}; {} objects read the same through {other}", own.len()));
            }
            Some((one, _)) => differs = format!("{}/{} reads otherwise through {other}", one.bucket, one.key),
            None => differs = format!("{} objects here, {} through {other}", own.len(), theirs.len()),
        }
        sleep(BETWEEN).await;
    }
    Err(not_yet(differs))
}

async fn sample(tools: &Tools, link: &Link) -> Result<Vec<ObjectInfo>, Status> {
    let unread = |status: Status| not_yet(said(&status));
    let list = |channel: Channel| async { store(channel).list_buckets(ListBucketsRequest {}).await };
    let buckets = link.call(tools.deadline, list).await.map_err(unread)?.into_inner().buckets;
    let mut sampled = Vec::new();
    for bucket in buckets.into_iter().take(SAMPLED_BUCKETS) {
        let request = ListRequest { bucket: bucket.name, limit: SAMPLED_OBJECTS, ..ListRequest::default() };
        let list = |channel: Channel| async { store(channel).list(request).await };
        sampled.extend(link.call(tools.deadline, list).await.map_err(unread)?.into_inner().objects);
    }
    Ok(sampled)
}
