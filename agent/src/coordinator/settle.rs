//! What a holder does with slots whose end it does not know: its predecessor's, and those of targets that fell silent.
//!
//! Invariants: an inherited slot stops blocking only once its target refuses the predecessor's fence, or cannot be
//! reached and counts as down; it is closed only after its target was seen well twice since then.

use std::collections::BTreeMap;
use std::time::Duration;

use resilver_proto::agent::RaiseFenceRequest;
use resilver_strategies::lease::{Slot, SlotBook};
use resilver_strategies::types::{Action, Fence};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::Status;

use super::holder::Desk;
use super::{CALL_DEADLINE, Coordinator, STEP_DEADLINE};
use crate::lease::{LeaseNotice, fence_from_wire, fence_to_wire};
use crate::links::agent_peer;
use crate::main_loop::Request;
use crate::sensors::stopped;
use crate::telemetry::Told;

/// How often open ends are looked at. Agents are asked how they are once a second: sooner there is nothing new.
const LOOK: Duration = Duration::from_secs(1);

/// How often in a row a target must be seen well before its slot is closed: the first look may be from before.
const WELL_LOOKS: u32 = 2;

/// A slot whose step should long have ended. Its agent asked for it and never came back.
const SLOT_PATIENCE: Duration = Duration::from_secs(2 * STEP_DEADLINE.as_secs());

/// A member's whole state is fetched under a slot, or it comes back as a learner: half an hour each by default, and its proof. Given up
/// sooner, another node would be restarted while this one's state is still being replaced.
const MEND_PATIENCE: Duration = Duration::from_secs(3 * 3600);

fn patience(action: Action) -> Duration {
    match action {
        Action::Resync | Action::InstallSnapshot | Action::RejoinLearner => MEND_PATIENCE,
        _ => SLOT_PATIENCE,
    }
}

impl Coordinator {
    /// Follows the lease until told to stop.
    pub(crate) async fn run(self, mut notices: mpsc::Receiver<LeaseNotice>, mut shutdown: watch::Receiver<bool>) {
        let mut well = BTreeMap::new();
        loop {
            let holding = self.desk_fence().is_some();
            tokio::select! {
                () = stopped(&mut shutdown) => return,
                notice = notices.recv() => match notice {
                    Some(notice) => self.noticed(notice).await,
                    None => return,
                },
                () = tokio::time::sleep(LOOK), if holding => self.settle(&mut well).await,
            }
        }
    }

    async fn noticed(&self, notice: LeaseNotice) {
        let told = match notice {
            LeaseNotice::Acquired { fence, slots } => {
                let told = Told::LeaseGained { fence: fence.to_string() };
                self.set_desk(Some(Desk { book: SlotBook::inherit(fence, slots), opened: BTreeMap::new() }));
                told
            }
            LeaseNotice::Lost { why } => {
                self.set_desk(None);
                Told::LeaseLost { why }
            }
        };
        // Only a stopping agent has dropped the receiver.
        let _ = self.setup.requests.send(Request::Tell { told, durable: None }).await;
        self.raise_fences().await;
    }

    async fn settle(&self, well: &mut BTreeMap<String, u32>) {
        self.give_up_forgotten();
        self.raise_fences().await;
        let targets = self.with_desk(|desk| desk.book.down()).unwrap_or_default();
        well.retain(|target, _| targets.contains(target));
        for target in targets {
            let looks = well.entry(target.clone()).or_default();
            *looks = if self.is_well(&target) { *looks + 1 } else { 0 };
            if *looks < WELL_LOOKS {
                continue;
            }
            let papers =
                |desk: &mut Desk| (desk.book.settled(&target), desk.book.ballot().clone(), desk.book.fence().clone());
            let Some((slots, ballot, fence)) = self.with_desk(papers) else { return };
            for slot in slots {
                // Also where it could not be done before: a predecessor that thaws now must find the gate shut.
                if slot.fence != fence && self.raise(&slot, &fence).await.is_err() {
                    continue;
                }
                if self.close(&ballot, &slot).await {
                    self.tell_closed(&slot, false, "its end is not known; the target is well and fenced").await;
                }
            }
        }
    }

    fn give_up_forgotten(&self) {
        let forgotten = self.with_desk(|desk| {
            let late = |(since, action): &(Instant, Action)| since.elapsed() > patience(*action);
            let forgotten: Vec<String> =
                desk.opened.iter().filter(|(_, opened)| late(opened)).map(|(target, _)| target.clone()).collect();
            desk.opened.retain(|_, opened| !late(opened));
            forgotten
        });
        for target in forgotten.into_iter().flatten() {
            self.counts_as_down(&target);
        }
    }

    /// From now on the predecessor's fence is refused where its step would take effect.
    async fn raise_fences(&self) {
        let unsettled = self.with_desk(|desk| (desk.book.unsettled(), desk.book.fence().clone()));
        let Some((slots, fence)) = unsettled else { return };
        for slot in slots {
            match self.raise(&slot, &fence).await {
                Ok(highest) => {
                    tracing::info!(target = slot.target, %highest, "the fence of an inherited slot's target is raised");
                    self.with_desk(|desk| desk.book.raised(&slot.target));
                }
                Err(status) => {
                    tracing::warn!(target = slot.target, %status, "an inherited slot's target counts as down");
                    self.counts_as_down(&slot.target);
                }
            }
        }
    }

    async fn raise(&self, slot: &Slot, fence: &Fence) -> Result<Fence, Status> {
        if slot.target == self.setup.own {
            let raised = self.setup.lease.raise_fence(fence.clone()).await;
            return raised.map_err(|error| Status::unavailable(error.to_string()));
        }
        let request = RaiseFenceRequest { fence: Some(fence_to_wire(fence)) };
        let call = |channel| async { agent_peer(channel).raise_fence(request).await };
        let answer = self.setup.links.agent(&slot.target)?.call(CALL_DEADLINE, call).await?;
        fence_from_wire(answer.into_inner().highest)
    }

    fn is_well(&self, target: &str) -> bool {
        if target == self.setup.own {
            return self.setup.view.borrow().node.phase() == "healthy";
        }
        self.setup.peers.is_well(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found on review: a slot was given up after ten minutes, and a mending may take half an hour.
    #[test]
    fn a_slot_outlasts_the_longest_step_that_is_done_under_it() {
        let policy = resilver_strategies::config::PolicyConfig::default();
        let proof = policy.recovery.proof_deadline;
        assert!(patience(Action::Resync) > policy.replicas.mend_deadline + proof);
        assert!(patience(Action::RejoinLearner) > policy.damage.rejoin_deadline + proof);
        // A minute to restart (the ladders' deadline), and then it has to serve.
        assert!(patience(Action::RestartNode) > Duration::from_secs(60) + proof);
    }
}
