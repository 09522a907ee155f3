//! Probes of what members remember: one history in one epoch, a log that comes to what is stored, reads that agree.
//!
//! Must never: change anything; count a member that did not answer as one that agrees.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use resilver_proto::contract::{ObserveResponse, ReplayJournalRequest};
use resilver_proto::internal::{Envelope, PreVoteRequest};
use resilver_proto::store::{ListBucketsRequest, ListRequest, ObjectInfo};
use resilver_strategies::api::{ReplicaFact, ReplicasFact};
use resilver_strategies::lease::majority;
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
/// While two nodes are read somebody may write: what differs has to do so, in the same way, this often.
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
    let voters = own.nodes.iter().filter(|node| matches!(node.role.as_str(), "leader" | "voter")).count();
    let equal = digests_equal(tools, majority(voters)).await?;
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

async fn digests_equal(tools: &Tools, need: usize) -> Result<String, Status> {
    let compared = compare(&tools.links, true).await.map_err(|status| not_yet(said(&status)))?;
    let equal = all_equal(&compared, need).map_err(not_yet)?;
    Ok(format!("{equal} digests from stored records equal at entry {}", compared.index))
}

/// How many digests there are, when they are all the same.
fn all_equal(compared: &ReplicasFact, need: usize) -> Result<usize, String> {
    let digests: Vec<&ReplicaFact> = compared.members.iter().filter(|member| !member.digest.is_empty()).collect();
    let index = compared.index;
    let differs = digests.iter().find(|other| other.digest != digests[0].digest);
    match differs {
        Some(other) => Err(format!("at entry {index} {} and {} have different digests", digests[0].node, other.node)),
        None if digests.len() < need => {
            Err(format!("at entry {index} {} members have a digest, {need} are needed", digests.len()))
        }
        None => Ok(digests.len()),
    }
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
    let mut differs = Differences::default();
    let mut read = 0;
    for again in 0..SAMPLE_TRIES {
        if again > 0 {
            sleep(BETWEEN).await;
        }
        let (own, theirs) = tokio::join!(sample(tools, &tools.links.node), sample(tools, &link.node));
        let (own, theirs) = (own?, theirs?);
        read = own.len();
        let now = differences(own, theirs);
        // What is written meanwhile differs once, and then otherwise.
        differs =
            if again == 0 { now } else { differs.into_iter().filter(|(at, both)| now.get(at) == Some(both)).collect() };
        if differs.is_empty() {
            return Ok(format!("{equal}; {read} objects read the same through {other}"));
        }
    }
    let (bucket, key) = differs.keys().next().cloned().unwrap_or_default();
    Err(not_yet(format!("{} of {read} objects read otherwise through {other}: {bucket}/{key}", differs.len())))
}

/// What of an object one reads, and the other.
type Differences = BTreeMap<(String, String), (Option<ObjectInfo>, Option<ObjectInfo>)>;

fn differences(own: Vec<ObjectInfo>, theirs: Vec<ObjectInfo>) -> Differences {
    let name = |object: &ObjectInfo| (object.bucket.clone(), object.key.clone());
    let mut all = Differences::new();
    for object in own {
        let both = all.entry(name(&object)).or_default();
        both.0 = Some(object);
    }
    for object in theirs {
        let both = all.entry(name(&object)).or_default();
        both.1 = Some(object);
    }
    all.retain(|_, (own, theirs)| own != theirs);
    all
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

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(digests: &[&str]) -> ReplicasFact {
        let member = |(number, digest): (usize, &&str)| ReplicaFact {
            node: format!("n{number}"),
            digest: (*digest).to_owned(),
            ..ReplicaFact::default()
        };
        ReplicasFact { index: 9, members: digests.iter().enumerate().map(member).collect() }
    }

    #[test]
    fn who_has_no_digest_agrees_with_nobody() {
        assert_eq!(all_equal(&compared(&["a", "a", "a"]), 2), Ok(3));
        assert_eq!(all_equal(&compared(&["a", "", "a"]), 2), Ok(2));
        assert!(all_equal(&compared(&["a", "", ""]), 2).unwrap_err().contains("2 are needed"));
        assert!(all_equal(&compared(&["a", "a", "b"]), 2).unwrap_err().contains("n0 and n2 have different digests"));
        assert!(all_equal(&compared(&[]), 1).is_err());
    }

    #[test]
    fn what_reads_otherwise_is_named_with_both_sides() {
        let object = |key: &str, version: &str| ObjectInfo {
            bucket: "b".into(),
            key: key.into(),
            version: version.into(),
            ..ObjectInfo::default()
        };
        let same = vec![object("k1", "1"), object("k2", "1")];
        assert!(differences(same.clone(), same.clone()).is_empty());
        let told = differences(same, vec![object("k1", "1"), object("k2", "2"), object("k3", "1")]);
        let names: Vec<&str> = told.keys().map(|(_, key)| key.as_str()).collect();
        assert_eq!(names, ["k2", "k3"]);
        assert!(told.values().all(|(own, theirs)| own != theirs));
    }
}
