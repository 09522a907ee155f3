//! Seeks the proof that an incident is over, and gives it up.
//!
//! Must never: take the end of a step for a proof; go on with one for something that has changed meanwhile.

use std::time::Duration;

use crate::api::{Command, IncidentId, ProcessFact, Proof, StepResult};
use crate::engine::Engine;
use crate::engine::decide::Present;
use crate::engine::drive::ANSWER_MARGIN;
use crate::engine::incidents::{Flight, Incident, IncidentState};
use crate::engine::ladder::{self, Effect, Rung};
use crate::engine::present::is_watched;
use crate::record::{PROVEN, RecordKind};
use crate::types::{Action, Mode, Moment, Now};

/// How often a proof that did not hold is sought again: a start is waited for closely, data is read back seldom.
const PROVE_AGAIN: Duration = Duration::from_millis(100);
const PROVE_DATA_AGAIN: Duration = Duration::from_secs(5);
/// Proofs of data in vain before the step is tried again.
const DATA_PROOFS: u32 = 5;

impl Engine {
    pub(crate) fn prove(&self, now: Now, incident: &mut Incident, deadline: Duration) {
        if incident.state != IncidentState::Escalated {
            incident.state = IncidentState::Verifying;
        }
        incident.flight = Flight::Proving { asked: None, next: now.mono, until: now.mono + deadline, tries: 0 };
    }

    pub(crate) fn proving(
        &mut self,
        now: Now,
        incident: &mut Incident,
        asked: Option<Moment>,
        next: Moment,
        until: Moment,
        tries: u32,
    ) {
        if incident.mode == Mode::ProcessCrash {
            self.take_back(now, incident);
            if self.ended_again(now, incident) || incident.flight == Flight::Idle {
                return;
            }
            match self.present(now.mono, incident) {
                Present::Over(why) => return self.close(now, incident, &why),
                Present::Beyond(why) if incident.state != IncidentState::Escalated => {
                    return self.escalate(now, incident, &why);
                }
                _ => {}
            }
        }
        if incident.mode == Mode::HostDown && self.hosts_moved(now, incident) {
            return;
        }
        if (is_watched(incident.mode) || self.is_of_disk_in_service(incident)) && self.watch_moved(now, incident) {
            return;
        }
        // A proof may take a floor's time, however little is left.
        let left = until.since(now.mono).max(self.proof_floor(incident));
        match asked {
            None if now.mono >= next => {
                incident.flight = Flight::Proving { asked: Some(now.mono), next, until, tries: tries + 1 };
                let proof = self.proof(incident);
                self.out.push(Command::Prove { incident: incident.id.clone(), proof, deadline: left });
            }
            Some(asked) if now.mono.since(asked) >= self.proof_deadline(incident) + ANSWER_MARGIN => {
                self.proof_failed(now, incident, "no answer from the proof");
            }
            _ => {}
        }
    }

    /// What is to be proven well fell ill again, or has something on it that is to be taken back first.
    fn watch_moved(&mut self, now: Now, incident: &mut Incident) -> bool {
        match self.present(now.mono, incident) {
            Present::Over(why) => self.close(now, incident, &why),
            Present::Ill | Present::Undo => {
                incident.event(now, "the proof is put off: things have changed");
                incident.flight = Flight::Idle;
                if incident.state == IncidentState::Verifying {
                    incident.state = IncidentState::Recovering;
                }
            }
            _ => return false,
        }
        true
    }

    /// The process whose service is being proven ended, in a new life: that attempt failed.
    pub(crate) fn ended_again(&mut self, now: Now, incident: &mut Incident) -> bool {
        let Some(ProcessFact::Exited { pid, start_ticks, exit, last_error, .. }) = self.facts.process().cloned() else {
            return false;
        };
        let life = Some((pid, start_ticks));
        if life == incident.life {
            return false;
        }
        incident.life = life;
        incident.signature = crate::engine::detect::process_crash::signature(&exit, &last_error);
        incident.initial = false;
        incident.event(now, format!("process {pid} ended again: {exit} {last_error}"));
        self.attempt_failed(now, incident);
        true
    }

    /// A proof ended.
    pub(crate) fn proved(&mut self, now: Now, id: &IncidentId, result: StepResult) {
        let Some(mut incident) = self.incidents.open.remove(id) else { return };
        if let Flight::Proving { asked: Some(_), until, tries, .. } = incident.flight {
            match result {
                // The node serves, and meanwhile the disk's canary says that it is ill again.
                StepResult::Done { .. }
                    if self.is_of_disk_in_service(&incident) && self.present(now.mono, &incident) == Present::Ill =>
                {
                    self.proof_failed(now, &mut incident, "the disk fell ill again meanwhile");
                }
                StepResult::Done { detail, .. } => self.close(now, &mut incident, &format!("{PROVEN}{detail}")),
                StepResult::Failed { error: why } | StepResult::Refused { evidence: why, .. } => {
                    let data = Self::reads_data(incident.mode);
                    // Everything a host held is rebuilt in the background: that takes as long as it takes.
                    let in_vain = data && incident.mode != Mode::HostDown && tries >= DATA_PROOFS;
                    if now.mono >= until || in_vain {
                        self.proof_failed(now, &mut incident, &why);
                    } else {
                        if tries == 1 {
                            incident.event(now, format!("not proven yet: {why}"));
                        }
                        let next = now.mono + if data { PROVE_DATA_AGAIN } else { PROVE_AGAIN };
                        incident.flight = Flight::Proving { asked: None, next, until, tries };
                    }
                }
            }
        }
        self.incidents.put(incident);
    }

    fn proof_failed(&mut self, now: Now, incident: &mut Incident, why: &str) {
        incident.event(now, format!("not proven: {why}"));
        incident.mended = false;
        incident.unproven = true;
        incident.in_vain = incident.in_vain.saturating_add(1);
        self.attempt_failed(now, incident);
        if incident.state == IncidentState::Escalated {
            incident.not_before = now.mono + self.look_again();
        } else if incident.mode == Mode::ProcessCrash && self.facts.running().is_some() {
            let fresh = self.facts.heartbeat_age(now.mono).is_some_and(|age| age <= self.policy.fresh_within());
            let answers = fresh && self.facts.node_now().is_some_and(|fact| fact.raft.is_some());
            if answers && self.rung(incident).is_some() {
                // It answers, and its copy does not come up: that can be mended. Told at once, all the same.
                if incident.rung == 0 {
                    let why = format!("the process runs, but does not serve: {why}");
                    let draft =
                        self.draft_about(RecordKind::Note, Action::Alert, incident).with("evidence", why.as_str());
                    self.record(draft, true);
                    if incident.attempt == 0 {
                        self.record_skip(incident, "start_node: it was started by somebody else");
                    }
                    self.next_rung(now, incident, &why);
                }
                return;
            }
            self.escalate(now, incident, &format!("the process runs, but does not serve: {why}"));
        }
    }

    pub(crate) fn proof_deadline(&self, incident: &Incident) -> Duration {
        let of = |rung: &Rung| match rung.effect {
            Effect::Proof { deadline } => Some(deadline),
            _ => None,
        };
        match incident.mode {
            Mode::HostDown => return self.policy.deadline(self.policy.host.rebuild_deadline),
            Mode::DiskFailure | Mode::DiskDegrading if self.proof(incident) == Proof::Serves => {
                return self.policy.deadline(self.policy.recovery.proof_deadline);
            }
            mode if is_watched(mode) => return self.policy.deadline(self.policy.recovery.proof_deadline),
            Mode::DataCorruption => {
                return self.rung(incident).as_ref().and_then(of).unwrap_or(crate::config::DEADLINE_FLOOR);
            }
            _ => {}
        }
        ladder::ladder(incident.mode, &self.policy).iter().rev().find_map(of).unwrap_or(crate::config::DEADLINE_FLOOR)
    }

    fn proof_floor(&self, incident: &Incident) -> Duration {
        self.proof_deadline(incident).min(crate::config::DEADLINE_FLOOR)
    }
}
