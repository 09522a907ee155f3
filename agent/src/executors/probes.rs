//! Probes over several members: whether they have one metadata, one leader, and one time.
//!
//! Must never: count a member that did not answer as one that agrees.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use resilver_proto::agent::{PingRequest, PingResponse};
use resilver_proto::contract::{ObserveRequest, ObserveResponse};
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::Tools;
use super::node::said;
use crate::links::{PeerLink, agent_peer, node_control};
use crate::sensors::{clock_offset, compare, observe};

/// Between two comparisons of one proof: they are to be of two entries.
const BETWEEN: Duration = Duration::from_secs(1);

/// Observers that have to agree on a leader, where there are as many.
const OBSERVERS: usize = 3;

pub(super) fn not_yet(why: impl Into<String>) -> Status {
    Status::unavailable(why.into())
}

/// The own member is the majority's twice, at two entries of the log, each time by digests made anew from what is stored.
pub(super) async fn replica_equal(tools: &Tools) -> Result<String, Status> {
    let shown = replica_equal_twice(tools).await;
    if shown.is_err() {
        // Every member reads all of its records for a comparison: not again at once.
        sleep(BETWEEN).await;
    }
    shown
}

async fn replica_equal_twice(tools: &Tools) -> Result<String, Status> {
    let first = right_at(tools).await?;
    sleep(BETWEEN).await;
    let second = right_at(tools).await?;
    if second <= first {
        return Err(not_yet(format!("compared twice at entry {first}: nothing was applied in between")));
    }
    Ok(format!("its stored records come to the majority's digest at entries {first} and {second}"))
}

async fn right_at(tools: &Tools) -> Result<u64, Status> {
    let compared = compare(&tools.links, true).await.map_err(|status| not_yet(said(&status)))?;
    let own = compared.members.iter().find(|member| member.node == tools.own);
    match own.map(|own| own.verdict.as_str()) {
        Some("right") => Ok(compared.index),
        Some(verdict) => Err(not_yet(format!("at entry {} this member is {verdict}", compared.index))),
        None => Err(not_yet(format!("at entry {} this member was not asked", compared.index))),
    }
}

/// What one other member says.
pub(super) struct Word {
    agent: Result<PingResponse, Status>,
    pub(super) node: Result<ObserveResponse, Status>,
}

async fn ask(tools: &Tools, link: &PeerLink) -> Word {
    let request = PingRequest { from: tools.own.clone() };
    let ping = |channel| async { agent_peer(channel).ping(request).await };
    let look = |channel| async { node_control(channel).observe(ObserveRequest {}).await };
    let (agent, node) = tokio::join!(link.agent.call(tools.deadline, ping), link.node.call(tools.deadline, look));
    Word { agent: agent.map(tonic::Response::into_inner), node: node.map(tonic::Response::into_inner) }
}

pub(super) async fn ask_all(tools: &Tools) -> BTreeMap<String, Word> {
    let asked = tools.links.peers.iter().map(async |(name, link)| (name.clone(), ask(tools, link).await));
    join_all(asked).await.into_iter().collect()
}

/// The hosts answer directly, both ways; all who answer name one leader for one term; and the hosts have applied what was
/// committed when this began.
pub(super) async fn one_leader(tools: &Tools, hosts: &[String]) -> Result<String, Status> {
    let own = observe(&tools.links, tools.deadline).await?;
    let words = ask_all(tools).await;
    for host in hosts.iter().filter(|host| **host != tools.own) {
        let word = words.get(host).ok_or_else(|| not_yet(format!("{host} is not in this agent's configuration")))?;
        let agent = word.agent.as_ref().map_err(|status| not_yet(format!("the agent of {host}: {}", said(status))))?;
        word.node.as_ref().map_err(|status| not_yet(format!("the node of {host}: {}", said(status))))?;
        if agent.silent.iter().any(|silent| silent.node == tools.own) {
            return Err(not_yet(format!("{host} does not hear this host")));
        }
    }
    let answers = || {
        std::iter::once((&tools.own, &own)).chain(words.iter().filter_map(|(name, word)| {
            let seen = word.node.as_ref().ok()?;
            Some((name, seen))
        }))
    };
    let voters = own.nodes.iter().filter(|node| matches!(node.role.as_str(), "leader" | "voter")).count();
    let (leader, term, observers) = agreed(answers(), voters)?;
    let committed = answers().filter_map(|(_, seen)| seen.raft.as_ref()).map(|raft| raft.committed).max().unwrap_or(0);
    for host in hosts {
        applied_up_to(tools, host, committed).await?;
    }
    Ok(format!("{leader} leads in term {term} by {observers} observers; applied everywhere up to entry {committed}"))
}

/// The one leader and term that all name, with how many they are.
fn agreed<'a>(
    answers: impl Iterator<Item = (&'a String, &'a ObserveResponse)>,
    voters: usize,
) -> Result<(String, u64, usize), Status> {
    let mut named: Option<(String, u64)> = None;
    let mut observers = 0;
    for (name, seen) in answers {
        let raft = seen.raft.as_ref().ok_or_else(|| not_yet(format!("Raft is not running on {name}")))?;
        if raft.leader.is_empty() {
            return Err(not_yet(format!("{name} knows no leader")));
        }
        let now = (raft.leader.clone(), raft.term);
        match &named {
            Some(before) if *before != now => {
                return Err(not_yet(format!(
                    "{name} names {} in term {}, others {} in term {}",
                    now.0, now.1, before.0, before.1
                )));
            }
            _ => named = Some(now),
        }
        observers += 1;
    }
    let need = OBSERVERS.min(voters.max(1));
    match named {
        Some((leader, term)) if observers >= need => Ok((leader, term, observers)),
        _ => Err(not_yet(format!("{observers} observers answered, {need} are needed"))),
    }
}

async fn applied_up_to(tools: &Tools, host: &str, committed: u64) -> Result<(), Status> {
    let seen = if host == tools.own {
        observe(&tools.links, tools.deadline).await?
    } else {
        let link = tools.links.peers.get(host).ok_or_else(|| not_yet(format!("{host} is not configured")))?;
        ask(tools, link).await.node.map_err(|status| not_yet(format!("the node of {host}: {}", said(&status))))?
    };
    match seen.raft.map_or(0, |raft| raft.applied) {
        applied if applied >= committed => Ok(()),
        applied => Err(not_yet(format!("{host} has applied {applied} of {committed} entries"))),
    }
}

/// Asked anew, more than half of the peers find the own clock within the limit, beyond the error of the question.
pub(super) async fn clock_agrees(tools: &Tools, within_ms: u64) -> Result<String, Status> {
    let asked = tools.links.peers.iter().map(async |(name, link)| {
        let (began, wall_ms) = (Instant::now(), tools.clock.now().as_millis());
        let request = PingRequest { from: tools.own.clone() };
        let ping = |channel| async { agent_peer(channel).ping(request).await };
        let answer = link.agent.call(tools.deadline, ping).await.ok()?;
        Some((name, clock_offset(wall_ms, answer.into_inner().wall_ms, began.elapsed())))
    });
    let answers: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
    let near = |(offset, error): (i64, u64)| offset.unsigned_abs() <= within_ms.saturating_add(error);
    let agree = answers.iter().filter(|(_, found)| near(*found)).count();
    let told: Vec<String> =
        answers.iter().map(|(name, (offset, error))| format!("{name} {offset:+} ms ± {error}")).collect();
    let told = told.join(", ");
    match agree * 2 > tools.links.peers.len() {
        true => Ok(format!("{agree} of {} peers agree: {told}", tools.links.peers.len())),
        false => Err(not_yet(format!("{agree} of {} peers agree: {told}", tools.links.peers.len()))),
    }
}

#[cfg(test)]
mod tests {
    use resilver_proto::contract::RaftState;

    use super::*;

    fn seen(leader: &str, term: u64) -> ObserveResponse {
        let raft = RaftState { leader: leader.into(), term, ..RaftState::default() };
        ObserveResponse { raft: Some(raft), ..ObserveResponse::default() }
    }

    fn verdict(words: &[(&str, u64)], voters: usize) -> Result<(String, u64, usize), String> {
        let answers: Vec<(String, ObserveResponse)> =
            words.iter().enumerate().map(|(at, (leader, term))| (format!("n{at}"), seen(leader, *term))).collect();
        agreed(answers.iter().map(|(name, seen)| (name, seen)), voters).map_err(|status| status.message().to_owned())
    }

    #[test]
    fn all_who_answer_name_one_leader_for_one_term_or_it_is_not_shown() {
        assert_eq!(verdict(&[("n1", 4), ("n1", 4), ("n1", 4)], 3), Ok(("n1".to_owned(), 4, 3)));
        assert_eq!(verdict(&[("n1", 4)], 1), Ok(("n1".to_owned(), 4, 1)));
        assert!(verdict(&[("n1", 4), ("n1", 4)], 3).unwrap_err().contains("3 are needed"));
        assert!(verdict(&[("n1", 4), ("n2", 4), ("n1", 4)], 3).unwrap_err().contains("names n2"));
        assert!(verdict(&[("n1", 4), ("n1", 5), ("n1", 4)], 3).unwrap_err().contains("term 5"));
        assert!(verdict(&[("n1", 4), ("", 4), ("n1", 4)], 3).unwrap_err().contains("knows no leader"));
    }
}
