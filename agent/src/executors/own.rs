//! Steps about the own node as a whole: its mode, what it has under way, its replica of the metadata, its vote.
//!
//! Must never: do to another node what a step says of this one. What a step needs beside its subject is in [`Step::with`].

use std::time::Duration;

use resilver_host::planted::{Bug, bug};
use resilver_proto::contract::scope::Of;
use resilver_proto::contract::{
    CancelOperationRequest, Progress, ReclaimRequest, RejoinRequest, ReplayLogsRequest, RestoreSnapshotRequest, Scope,
    SetModeRequest, SetVotingRequest, SyncMissingEntriesRequest, ThrottleRequest,
};
use resilver_proto::locks::BreakRequest;
use resilver_strategies::api::{Step, StepResult};
use tokio::time::sleep;
use tonic::{Code, Status, Streaming};

use super::Tools;
use super::node::{VERB_DEADLINE, follow, said, step_down, trigger_election, wire};
use crate::links::{Link, locks, node_control, node_recovery, replica_repair};
use crate::sensors::observe;

/// How long giving room back may take: a snapshot of the whole state, and compacting its database.
const RECLAIM_DEADLINE: Duration = Duration::from_secs(300);

/// The longest silence of a node that comes back: it may have a whole state to fetch, and says nothing meanwhile.
const REJOIN_SILENCE: Duration = Duration::from_secs(600);

/// The word of a node that has another id in Raft: from then on it is another member, whatever becomes of its process.
const TAKEN_BACK: &str = "rejoined";

/// Elections that one alignment brings about at most. Each is above every term that the voters have said; a term that is
/// farther away after so many is being raised by somebody.
const MAX_ELECTIONS: u32 = 8;

/// Before the term is looked at again: an election takes about a second.
const TERM_LOOK: Duration = Duration::from_millis(500);

/// Sets the own node's mode, or whether it stands for election.
pub(super) async fn set_mode(tools: &Tools, step: &Step, reason: &str) -> Result<String, Status> {
    if bug(Bug::CallItUndone) && matches!(step.with.as_str(), "read_write" | "standing") {
        return Ok(format!("→ {}", step.with));
    }
    let fence = wire(step.fence.as_ref());
    let request = SetModeRequest { fence, mode: step.with.clone(), reason: reason.to_owned(), automatic: true };
    let call = |channel| async { node_control(channel).set_mode(request).await };
    let before = tools.links.node.call(VERB_DEADLINE, call).await?.into_inner().before;
    Ok(format!("{before} → {}", step.with))
}

/// Has scrub and repair rest on the own node (`on`), or go on (`off`).
pub(super) async fn throttle(tools: &Tools, step: &Step, reason: &str) -> Result<String, Status> {
    let on = match step.with.as_str() {
        "on" => true,
        "off" => false,
        other => return Err(Status::invalid_argument(format!("{other:?} is neither on nor off"))),
    };
    let request = ThrottleRequest { on, reason: reason.to_owned() };
    let call = |channel| async { node_control(channel).throttle(request).await };
    let answer = tools.links.node.call(VERB_DEADLINE, call).await?.into_inner();
    let until = if on { format!(" for {} s at most", answer.ends_ms / 1000) } else { String::new() };
    Ok(format!("background work: {} → {}{until}", rests(answer.before), rests(on)))
}

fn rests(on: bool) -> &'static str {
    if on { "rests" } else { "goes on" }
}

/// Has the node give back what it holds and does not need; without a word, room.
pub(super) async fn reclaim(tools: &Tools, step: &Step) -> Result<String, Status> {
    let what = if step.with.is_empty() { "space".to_owned() } else { step.with.clone() };
    let request = ReclaimRequest { what, fence: wire(step.fence.as_ref()) };
    if step.with == "connections" {
        // The agent's own ways are among those that may lead nowhere.
        tools.links.redial();
    }
    let call = |channel| async { node_control(channel).reclaim(request).await };
    let answer = tools.links.node.call(RECLAIM_DEADLINE, call).await?.into_inner();
    Ok(format!("{} bytes of metadata's files; {}", answer.freed_bytes, answer.detail))
}

/// Ends an operation of a client. One that has ended by itself is what was wanted.
pub(super) async fn cancel_operation(tools: &Tools, step: &Step, reason: &str) -> Result<String, Status> {
    let request = CancelOperationRequest { operation: step.with.clone(), reason: reason.to_owned() };
    let call = |channel| async { node_control(channel).cancel_operation(request).await };
    match tools.links.node.call(VERB_DEADLINE, call).await {
        Ok(answer) => {
            let ended = answer.into_inner().operation.unwrap_or_default();
            Ok(format!("{} of {} ended after {} ms", ended.what, ended.subject, ended.age_ms))
        }
        Err(status) if status.code() == Code::NotFound => Ok(format!("{} has ended by itself", step.with)),
        Err(status) => Err(status),
    }
}

/// Takes a lock from an owner that the node proves dead, or that a person says may lose it.
pub(super) async fn break_lock(tools: &Tools, step: &Step, reason: &str) -> Result<String, Status> {
    let wrong = || Status::invalid_argument(format!("{:?} is no PATH#TOKEN", step.with));
    let (path, token) = step.with.rsplit_once('#').ok_or_else(wrong)?;
    let token = token.parse().map_err(|_| wrong())?;
    // The lease's own, where this agent holds it and the step needed no slot. Nobody else needs one: the node takes no
    // agent's word for the owner's death, and the token is that of the owner alone.
    let fence = match &step.fence {
        Some(fence) => Some(fence.clone()),
        None => tools.lease.fence().await,
    };
    let request = BreakRequest {
        path: path.to_owned(),
        token,
        reason: reason.to_owned(),
        operator: step.approved_by.clone(),
        fence: wire(fence.as_ref()),
    };
    let call = |channel| async { locks(channel).r#break(request).await };
    let answer = tools.links.node.call(VERB_DEADLINE, call).await?.into_inner();
    Ok(format!("{path} was broken: {}", answer.proof))
}

/// Brings the own member's state up to the majority's, by the records that differ; what cannot be told by the state is looked
/// for in the own log first.
pub(super) async fn resync(tools: &Tools, step: &Step) -> Result<String, Status> {
    let fence = wire(step.fence.as_ref());
    if step.with == "replay" {
        let request = ReplayLogsRequest { from_index: 0, fence };
        let call = |channel| async { node_recovery(channel).replay_logs(request).await };
        return follow(tools.links.node.call(VERB_DEADLINE, call).await?.into_inner()).await;
    }
    let request = SyncMissingEntriesRequest { scope: Some(Scope { of: Some(Of::Metadata(true)) }), fence };
    let call = |channel| async { replica_repair(channel).sync_missing_entries(request).await };
    follow(tools.links.node.call(VERB_DEADLINE, call).await?.into_inner()).await
}

/// Replaces the own member's state by that of one that is right.
pub(super) async fn install_snapshot(tools: &Tools, step: &Step) -> Result<String, Status> {
    let request = RestoreSnapshotRequest { snapshot: String::new(), fence: wire(step.fence.as_ref()) };
    let call = |channel| async { node_recovery(channel).restore_snapshot(request).await };
    follow(tools.links.node.call(VERB_DEADLINE, call).await?.into_inner()).await
}

/// Brings a lost voter back as a learner. Ends when its node serves again.
pub(super) async fn rejoin(tools: &Tools, step: &Step, reason: &str) -> StepResult {
    let members = tools.links.peers.values().map(|peer| peer.node.address()).collect();
    let request = RejoinRequest { fence: wire(step.fence.as_ref()), members, reason: reason.to_owned() };
    let call = |channel| async { node_recovery(channel).rejoin(request).await };
    match tools.links.node.call(VERB_DEADLINE, call).await {
        Ok(stream) => come_back(stream.into_inner()).await,
        Err(status) => StepResult::Failed { error: said(&status) },
    }
}

/// Its progress is in words: phases, and no counts.
async fn come_back(mut stream: Streaming<Progress>) -> StepResult {
    let (mut told, mut taken, mut kept) = (Vec::new(), false, None);
    let outcome = loop {
        let next = tokio::time::timeout(REJOIN_SILENCE, stream.message()).await;
        let silent = |_| Status::deadline_exceeded(format!("no word for {} s", REJOIN_SILENCE.as_secs()));
        let progress = match next.map_err(silent).flatten() {
            Ok(Some(progress)) => progress,
            // A member that gave its membership up goes on in another process, which is started as any that ended is.
            _ if taken => break Ok(format!("{}; its process ends, and the next one is the learner", told.join("; "))),
            Ok(None) => break Err(Status::unavailable("the stream ended before the node served again")),
            Err(status) => break Err(status),
        };
        taken |= progress.phase == TAKEN_BACK;
        kept = kept.or(Some(progress.backup_path).filter(|path| !path.is_empty()));
        if told.last() != Some(&progress.message) {
            told.push(progress.message);
        }
        if progress.finished {
            break Ok(told.join("; "));
        }
    };
    match outcome {
        Ok(detail) => StepResult::Done { detail, backup: kept },
        Err(status) => {
            let kept = kept.map(|path| format!("; what was left is kept in {path}")).unwrap_or_default();
            StepResult::Failed { error: format!("{}{kept}", said(&status)) }
        }
    }
}

/// Gives the own node's vote away, or asks for it back.
pub(super) async fn set_voting(
    tools: &Tools,
    step: &Step,
    node: &str,
    votes: bool,
    reason: &str,
) -> Result<String, Status> {
    let request = SetVotingRequest {
        fence: wire(step.fence.as_ref()),
        node: node.to_owned(),
        votes,
        automatic: true,
        reason: reason.to_owned(),
    };
    let call = |channel| async { node_control(channel).set_voting(request).await };
    let door = if votes { &tools.links.node } else { door_of_another(tools, step.attempt).await };
    let answer = door.call(VERB_DEADLINE, call).await?.into_inner();
    let may = |votes: bool| if votes { "may vote" } else { "has no vote" };
    Ok(format!("{node}: {} → {}", may(answer.before), may(answer.after)))
}

/// The leader's node, or another one where the own node names none. A node judges who votes by the newest map, and one that is to
/// give its vote up because it lags would come to that too late. `attempt`: each later one asks somebody else.
async fn door_of_another(tools: &Tools, attempt: u32) -> &Link {
    let leader = observe(&tools.links, tools.deadline).await.ok().and_then(|seen| seen.raft).map(|raft| raft.leader);
    let named = leader.and_then(|leader| tools.links.peers.get(&leader));
    let doors: Vec<&Link> = named.into_iter().chain(tools.links.peers.values()).map(|peer| &peer.node).collect();
    let turn = (attempt.saturating_sub(1) as usize).checked_rem(doors.len());
    turn.map_or(&tools.links.node, |turn| doors[turn])
}

/// Has elections held until the term is above the one that is named. A leader hands over, whose successor's term is later; a
/// follower stands. Whoever was elected has the best log of those that voted: nothing is lost by it.
pub(super) async fn align_term(tools: &Tools, step: &Step) -> Result<String, Status> {
    let above: u64 = step.with.parse().map_err(|_| Status::invalid_argument(format!("{:?} is no term", step.with)))?;
    let mut refused = String::new();
    for held in 0..=MAX_ELECTIONS {
        let seen = observe(&tools.links, tools.deadline).await?;
        let raft = seen.raft.ok_or_else(|| Status::unavailable("Raft is not running"))?;
        if raft.term > above && !raft.leader.is_empty() {
            return Ok(format!("{} leads in term {}, after {held} elections", raft.leader, raft.term));
        }
        if held == MAX_ELECTIONS {
            break;
        }
        let tried = match raft.role.as_str() {
            "leader" => step_down(tools, step).await,
            _ => trigger_election(tools, step).await,
        };
        match tried {
            Ok(_) => refused.clear(),
            // Somebody else stands, or nobody took over: it shows at the next look.
            Err(status) if status.code() == Code::Unavailable => refused = format!("; the last try: {}", said(&status)),
            Err(status) => return Err(status),
        }
        sleep(TERM_LOOK).await;
    }
    Err(Status::aborted(format!("the term is not above {above} after {MAX_ELECTIONS} elections{refused}")))
}
