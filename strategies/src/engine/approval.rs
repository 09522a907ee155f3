//! Approvals: one person's word for one step of one incident, to the subject that was shown.
//!
//! Owns: what is offered, to be approved until when, and what a token that comes back is worth. The agent draws the token (the
//! engine has no randomness) and tells the engine its hash; the token itself is in no input and in no record.
//!
//! Must never: let one approval begin two steps; take one for a plan that has changed since it was offered.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{Command, IncidentId, Subject};
use crate::chain::rfc3339;
use crate::engine::Engine;
use crate::engine::decide::Move;
use crate::engine::guards;
use crate::engine::incidents::Incident;
use crate::engine::ladder::Rung;
use crate::record::{GuardResult, RecordKind};
use crate::types::{Action, Authority, Grade, GuardName, Moment, Now};

/// How long an offer stands: somebody is paged, gets up and reads. Not scaled: people are not faster in tests.
pub const OFFER_LASTS: Duration = Duration::from_secs(3600);
/// How long a given approval waits for the other guards. Afterwards the evidence is no longer what the person saw.
pub const APPROVAL_LASTS: Duration = Duration::from_secs(600);
/// Wrong tokens until an offer is withdrawn and made anew: tokens are copied, not guessed.
pub const MAX_WRONG: u32 = 5;
/// How long the agent may take to draw a token.
const TOKEN_DEADLINE: Duration = Duration::from_secs(5);
/// Tokens of one incident that are remembered as spent, to say why they are refused.
const MAX_SPENT: usize = 8;

/// What would be done, and why: what a person's word is for. It changes when anything of it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Matter {
    rung: usize,
    attempt: u32,
    action: Action,
    grade: Grade,
    subject: Subject,
    with: String,
    evidence: String,
}

impl Matter {
    fn of(incident: &Incident, rung: &Rung, subject: Subject, with: String) -> Matter {
        Matter {
            rung: incident.rung,
            attempt: incident.attempt,
            action: rung.action,
            grade: rung.grade,
            subject,
            with,
            evidence: incident.evidence.clone(),
        }
    }
}

/// Where an incident stands with a person's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Approval {
    /// The agent was asked to draw a token.
    Asked { matter: Matter, since: Moment },
    /// It can be approved.
    Offered { matter: Matter, hash: String, until: Moment, expires_ms: u64, wrong: u32 },
    /// It was.
    Given { matter: Matter, hash: String, by: String, until: Moment },
}

/// An offer, for people. The token is the agent's to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApprovalView {
    /// What would be done.
    pub action: Action,
    /// To what, in words: of a full node the disk that would be emptied.
    pub of: String,
    /// How invasive.
    pub grade: Grade,
    /// Until when it can be approved; of a given one: absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Who approved it; the step has not begun yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given_by: Option<String>,
}

impl fmt::Display for ApprovalView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (action, grade) = (format!("{} of {}", self.action, self.of), self.grade.0);
        match (&self.given_by, self.expires_ms) {
            (Some(by), _) => write!(f, "{action} (grade {grade}) was approved by {by}, and has not begun yet"),
            (None, Some(until)) => {
                write!(f, "{action} (grade {grade}) waits for a person's word until {}", rfc3339(until))
            }
            (None, None) => write!(f, "{action} (grade {grade})"),
        }
    }
}

impl Incident {
    /// For people.
    pub(crate) fn approval_view(&self) -> Option<ApprovalView> {
        let (matter, expires_ms, given_by) = match self.approval.as_ref()? {
            Approval::Asked { .. } => return None,
            Approval::Offered { matter, expires_ms, .. } => (matter, Some(*expires_ms), None),
            Approval::Given { matter, by, .. } => (matter, None, Some(by.clone())),
        };
        let of = matter.subject.to_string();
        Some(ApprovalView { action: matter.action, of, grade: matter.grade, expires_ms, given_by })
    }

    /// The token is worth nothing any more, for this reason.
    fn spend(&mut self, why: &str) {
        let hash = match self.approval.take() {
            Some(Approval::Offered { hash, .. } | Approval::Given { hash, .. }) => hash,
            _ => return,
        };
        if self.spent.len() >= MAX_SPENT {
            self.spent.remove(0);
        }
        self.spent.push((hash, why.to_owned()));
    }

    /// The approved step begins.
    pub(crate) fn use_approval(&mut self) {
        if matches!(self.approval, Some(Approval::Given { .. })) {
            self.spend("it was used: an approval is for one step");
        }
    }
}

impl Engine {
    pub(crate) fn matter(&self, incident: &Incident, rung: &Rung) -> Matter {
        Matter::of(incident, rung, self.step_subject(incident, rung), self.with_of(incident, rung))
    }

    /// Who approved just this step.
    pub(crate) fn approved_by<'a>(&self, now: Moment, incident: &'a Incident, rung: &Rung) -> Option<&'a str> {
        match &incident.approval {
            Some(Approval::Given { matter, by, until, .. })
                if now < *until && *matter == self.matter(incident, rung) =>
            {
                Some(by)
            }
            _ => None,
        }
    }

    /// A step that only authority holds back: told once, and offered where a person may approve it.
    pub(crate) fn held_by_authority(
        &mut self,
        now: Now,
        incident: &mut Incident,
        rung: &Rung,
        guards: &[GuardResult],
        held: &GuardResult,
    ) {
        let matter = self.matter(incident, rung);
        if incident.told.as_ref() != Some(&matter) {
            incident.told = Some(matter.clone());
            self.record_would_have(now, incident, rung, guards, held);
        }
        let (authority, _) = self.authority_for(incident, rung);
        let alone = guards.iter().filter(|result| !result.passed).count() == 1;
        if authority == Authority::Approve && alone {
            self.offer(now, incident, rung, matter);
        }
    }

    pub(crate) fn authority_for(&self, incident: &Incident, rung: &Rung) -> (Authority, &'static str) {
        guards::authority_for(&self.policy, incident.mode, rung, self.age.known_for())
    }

    fn record_would_have(
        &mut self,
        now: Now,
        incident: &mut Incident,
        rung: &Rung,
        guards: &[GuardResult],
        held: &GuardResult,
    ) {
        incident.event(now, format!("{} held by {}: {}", rung.action, held.guard, held.evidence));
        let resolution = match self.authority_for(incident, rung).0 {
            Authority::Observe => "only observed",
            Authority::Approve => "waits for an approval",
            Authority::Shadow | Authority::Auto => "would have",
        };
        let mut draft = self
            .draft_about(RecordKind::Refused, rung.action, incident)
            .with("guard", held.guard.as_str())
            .with("evidence", held.evidence.as_str())
            .with("to", rung.does)
            .with("resolution", resolution);
        draft.grade = Some(rung.grade);
        draft.guards = guards.to_vec();
        self.record(draft, false);
    }

    fn offer(&mut self, now: Now, incident: &mut Incident, rung: &Rung, matter: Matter) {
        match &incident.approval {
            Some(Approval::Asked { matter: asked, since })
                if *asked == matter && now.mono.since(*since) < TOKEN_DEADLINE =>
            {
                return;
            }
            Some(Approval::Offered { matter: offered, until, .. }) if *offered == matter => {
                if now.mono < *until {
                    return;
                }
                incident.event(now, "the offered approval expired; it is offered anew");
                incident.spend("it has expired");
            }
            Some(Approval::Given { matter: given, .. }) if *given == matter => {
                incident.event(now, "the approval expired before the step could begin; it is offered anew");
                incident.spend("it was used, and expired before the step could begin");
            }
            Some(_) => incident.spend("the plan changed since it was offered"),
            None => {}
        }
        incident.approval = Some(Approval::Asked { matter, since: now.mono });
        self.out.push(Command::OfferApproval {
            incident: incident.id.clone(),
            action: rung.action,
            grade: rung.grade,
            does: rung.does.to_owned(),
            lasts: OFFER_LASTS,
        });
    }

    /// The agent has drawn a token.
    pub(crate) fn offered(&mut self, now: Now, id: &IncidentId, hash: String) {
        let Some(mut incident) = self.incidents.open.remove(id) else { return };
        if let Some(Approval::Asked { matter, .. }) = incident.approval.clone() {
            let lasts = u64::try_from(OFFER_LASTS.as_millis()).unwrap_or(u64::MAX);
            let expires_ms = now.wall_ms.saturating_add(lasts);
            let what = format!("{} of {} may be approved by a person", matter.action, matter.subject);
            incident.event(now, what.as_str());
            let mut draft = self
                .draft_about(RecordKind::Note, Action::Approve, &incident)
                .with("evidence", what)
                .with("to", matter.action.as_str())
                .with("expires_ms", expires_ms)
                .with("token_sha256", hash.as_str());
            draft.grade = Some(matter.grade);
            self.record(draft, false);
            let until = now.mono + OFFER_LASTS;
            incident.approval = Some(Approval::Offered { matter, hash, until, expires_ms, wrong: 0 });
        }
        self.incidents.put(incident);
    }

    /// A person gave a token: by its hash.
    pub(crate) fn approve(&mut self, now: Now, owner: &str, id: &IncidentId, hash: &str) {
        let Some(mut incident) = self.incidents.open.remove(id) else {
            let why = format!("no incident {id} is open here: there is nothing to approve");
            let mut draft = self
                .draft(RecordKind::Refused, Action::Approve)
                .about(&Subject::Node(self.node.clone()))
                .with("guard", GuardName::Authority.as_str())
                .with("evidence", why.as_str())
                .with("owner", owner)
                .with("token_sha256", hash);
            // What a person wrote names an incident only where it is one: ids count on from the journal's.
            draft.incident = self.incidents.find(id).map(|known| known.id.clone());
            self.record(draft, true);
            return self.answer(id, Err((GuardName::Authority, why)));
        };
        let result = self.judge_token(now, &mut incident, owner, hash);
        let mut draft = match &result {
            Ok(what) => {
                incident.event(now, format!("{owner} {what}"));
                self.draft_about(RecordKind::Note, Action::Approve, &incident).with("evidence", what.as_str())
            }
            Err(why) => {
                incident.event(now, format!("an approval by {owner} was refused: {why}"));
                self.draft_about(RecordKind::Refused, Action::Approve, &incident)
                    .with("guard", GuardName::Authority.as_str())
                    .with("evidence", why.as_str())
            }
        };
        draft = draft.with("owner", owner).with("token_sha256", hash);
        self.record(draft, true);
        self.incidents.put(incident);
        self.answer(id, result.map_err(|why| (GuardName::Authority, why)));
    }

    fn answer(&mut self, incident: &IncidentId, result: Result<String, (GuardName, String)>) {
        self.out.push(Command::Answer { incident: incident.clone(), result });
    }

    fn judge_token(&self, now: Now, incident: &mut Incident, owner: &str, given: &str) -> Result<String, String> {
        if let Some((_, why)) = incident.spent.iter().find(|(hash, _)| hash == given) {
            return Err(format!("this token is worth nothing any more: {why}"));
        }
        let (matter, hash, until) = match &incident.approval {
            Some(Approval::Offered { matter, hash, until, .. }) => (matter.clone(), hash.clone(), *until),
            Some(Approval::Given { by, hash, .. }) if hash == given => {
                return Err(format!("this token was used by {by}: an approval is for one step"));
            }
            Some(Approval::Given { by, .. }) => return Err(format!("{by} approved it already")),
            Some(Approval::Asked { .. }) | None => {
                return Err("nothing of it waits for an approval now: `resilver plan` shows what comes next".to_owned());
            }
        };
        if hash != given {
            return Err(self.wrong_token(now, incident));
        }
        if now.mono >= until {
            incident.spend("it has expired");
            return Err("this token has expired: read the incident again, it is offered anew".to_owned());
        }
        if self.next_matter(now.mono, incident).as_ref() != Some(&matter) {
            incident.spend("the plan changed since it was offered");
            return Err(
                "this token is stale: the plan changed since it was offered; read the incident again".to_owned()
            );
        }
        let what = format!("approved {} of {} (grade {})", matter.action, matter.subject, matter.grade.0);
        let until = now.mono + APPROVAL_LASTS;
        incident.approval = Some(Approval::Given { matter, hash, by: owner.to_owned(), until });
        // The evidence is judged at once, not after a wait.
        incident.refused = None;
        Ok(what)
    }

    fn wrong_token(&self, now: Now, incident: &mut Incident) -> String {
        let Some(Approval::Offered { wrong, .. }) = &mut incident.approval else { return "no token fits".to_owned() };
        *wrong += 1;
        if *wrong < MAX_WRONG {
            return "this is not the token of what is offered: `resilver incident show` has it".to_owned();
        }
        incident.event(now, "too many wrong tokens: the offer is withdrawn and made anew");
        incident.spend("it was withdrawn after too many wrong ones");
        "too many wrong tokens: the offer is withdrawn and made anew".to_owned()
    }

    /// What would be done now, if it is held.
    fn next_matter(&self, now: Moment, incident: &Incident) -> Option<Matter> {
        match self.next_move(now, incident) {
            Move::Held { rung, .. } | Move::Later { rung, .. } => Some(self.matter(incident, &rung)),
            _ => None,
        }
    }
}
