//! The engine: what has been seen goes in, what is to be done comes out.
//!
//! Owns: facts, incidents, the pause, the ledger of what was done. Must never: know a clock, a channel or a file; begin
//! a step whose intent it did not hand out before it.
//!
//! Invariants (each has a property test): no two disruptive steps of this host at once; no step begins during a pause;
//! every `Execute` comes after its own durable intent; every slot that was asked for is closed once; all queues are
//! bounded.
//!
//! One call is one turn: the input changes the facts, the detectors read them (`detect/`), every open incident moves as
//! far as it can (`decide.rs` says what, `drive.rs` does it).

mod again;
mod age;
mod approval;
mod cascades;
mod checkpoint;
mod decide;
mod detect;
mod drive;
mod explain;
mod facts;
mod guards;
mod hosts;
mod idle;
mod incidents;
mod jitter;
mod ladder;
mod ledger;
mod lines;
mod modes;
mod operator;
mod pause;
mod peers;
mod plan;
mod present;
mod proving;
mod records;
mod resume;
mod sense;
mod slots;
mod watching;

pub use approval::{APPROVAL_LASTS, ApprovalView, MAX_WRONG, OFFER_LASTS};
pub use checkpoint::BadCheckpoint;
pub use explain::Explanation;
pub use incidents::{Event, IncidentState, IncidentView, MAX_OPEN, MAX_RECENT, StepView};
pub use ladder::{Effect, Otherwise, Rung, Shows, ladder};
pub(crate) use ladder::{is_undo, leaves};
pub use modes::{ModeStatus, modes, status as mode_status};
pub use pause::{MAX_PAUSE, Pause};
pub(crate) use peers::is_cut_off;
pub use plan::{Plan, PlanEntry};
pub use watching::Partial;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{
    Command, Decide, IncidentId, Input, NodeFact, Observation, PeerFact, SilenceFact, SmartFact, Step, StepId, Subject,
};
use crate::cascade::{Detector, QuorumWatch};
use crate::config::PolicyConfig;
use crate::liveness::{Judgement, Liveness};
use crate::record::RecordKind;
use crate::storm::StormBrake;
use crate::types::{Action, GuardName, Mode, Moment, Now};

use detect::process_crash::{Planned, Reading};
use detect::resource_exhaustion::Of;
use detect::{Symptom, Watches, data_corruption, disk_degrading, disk_failure, process_crash};
use facts::{Facts, Life};
use incidents::{Book, Incident};
use ledger::Ledger;
use operator::OperatorStep;
use peers::Peers;

/// How often the same refusal is written again.
pub(crate) const REFUSED_EVERY: Duration = Duration::from_secs(60);

/// Numbers of steps that one record takes in advance.
const RESERVED_STEPS: u64 = 64;

/// Whose engine, under which policy.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The node this agent sits beside.
    pub node: String,
    /// This host's failure domain.
    pub domain: String,
    /// The figures.
    pub policy: PolicyConfig,
}

/// The decision core of one agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Engine {
    node: String,
    policy: PolicyConfig,
    began: Option<Moment>,
    facts: Facts,
    liveness: Liveness,
    falls: hosts::Falls,
    incidents: Book,
    disks: disk_failure::Watch,
    degrading: disk_degrading::Watch,
    findings: data_corruption::Watch,
    peers: Peers,
    /// Whom the sensors ask, when that is not everybody.
    #[serde(default)]
    asked: Option<Partial>,
    watches: Watches,
    /// When lines of a pattern were written down last.
    lines: BTreeMap<String, Moment>,
    /// What lines said lately, by mode.
    #[serde(default)]
    heard: lines::Heard,
    cascades: Detector,
    quorum: QuorumWatch,
    #[serde(with = "pause::whole")]
    pause: Option<Pause>,
    /// How long the cluster is known.
    age: age::Age,
    ledger: Ledger,
    storm: StormBrake,
    operator: Option<OperatorStep>,
    planned: Planned,
    /// The lease, as far as this agent has a part in it.
    lease: hosts::Lease,
    /// The present, as of the last input.
    now: Moment,
    /// The last crash that was recovered: a late word of it is no new one.
    answered: Option<Life>,
    hung: bool,
    next_id: u64,
    /// Numbers below this one are taken, as the journal knows.
    reserved: u64,
    /// Empty between two inputs.
    #[serde(skip)]
    out: Vec<Command>,
}

/// The engine's state, for people and machines.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EngineStatus {
    /// The node.
    pub node: String,
    /// By how much policy times are divided.
    pub factor: f64,
    /// The process, in words.
    pub process: String,
    /// The node's phase as of its last answer; empty: none yet, or it does not answer.
    pub phase: String,
    /// Age of the node's last answer; `None`: none yet.
    pub heartbeat_age_ms: Option<u64>,
    /// Heartbeats missed in a row.
    pub missed: u32,
    /// The pause in force.
    pub pause: Option<Pause>,
    /// Open incidents, escalated ones among them.
    pub open: usize,
    /// Incidents that wait for a person.
    pub escalated: usize,
    /// Steps under way.
    pub steps: Vec<Step>,
    /// The storm brake is on.
    pub storm: bool,
    /// Its numbers.
    pub storm_evidence: String,
    /// Hosts that are not heard, with the verdict on each and its numbers.
    pub silent: BTreeMap<String, Judgement>,
    /// How many of the others are asked, when not all are; of the rest nothing is known here. `None`: all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
    /// Why a step would not be taken now, one reason each; empty: nothing holds the agent back.
    pub held_back: Vec<String>,
    /// The agent may hold the lease: its own host has no open incident.
    pub may_hold_lease: bool,
    /// All modes, and which are acted on.
    pub modes: Vec<ModeStatus>,
}

impl Engine {
    /// An engine that has seen nothing. Its first input is [`Input::Started`].
    pub fn new(options: EngineOptions) -> Self {
        let EngineOptions { node, domain, policy } = options;
        let storm = StormBrake::new(&policy.storm, policy.scaled(policy.storm.window));
        let liveness = Liveness::new(&node, &domain, &policy);
        let cascades = Detector::new(&policy.cascades);
        let watches = Watches::new(&policy);
        Self {
            node,
            policy,
            began: None,
            facts: Facts::default(),
            liveness,
            falls: hosts::Falls::default(),
            incidents: Book::default(),
            disks: disk_failure::Watch::default(),
            degrading: disk_degrading::Watch::default(),
            findings: data_corruption::Watch::default(),
            peers: Peers::default(),
            asked: None,
            watches,
            lines: BTreeMap::new(),
            heard: lines::Heard::default(),
            cascades,
            quorum: QuorumWatch::default(),
            pause: None,
            age: age::Age::default(),
            ledger: Ledger::default(),
            storm,
            operator: None,
            planned: Planned::No,
            lease: hosts::Lease::default(),
            now: Moment::default(),
            answered: None,
            hung: false,
            next_id: 1,
            reserved: 0,
            out: Vec::new(),
        }
    }

    /// Takes one input and says what follows. Pure: the same state, time and input give the same commands.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Command> {
        self.began.get_or_insert(now.mono);
        self.now = now.mono;
        self.liveness.pulse(now.mono);
        self.expire_pause(now);
        // Not with every look at a host: what is judged are seconds, and all hosts at once.
        let look = matches!(input, Input::Tick | Input::Lease { .. } | Input::Observed(Observation::Heartbeat(_)));
        match input {
            Input::Started { next_sequence, open, paused, unfinished, history, cascades, high_term, observed } => {
                self.watches.terms.restore(high_term);
                self.next_id = self.next_id.max(next_sequence);
                self.remember_cascades(now, &cascades);
                if let Some((cluster, seen)) = observed {
                    self.age.restore(cluster, seen);
                }
                for incident in open.into_iter().take(MAX_OPEN) {
                    self.take_over(now, incident, &history);
                }
                self.ledger.restore(now.mono, history);
                self.pause = paused.map(|(owner, reason, left)| Pause::new(now, owner, reason, left));
                unfinished.iter().for_each(|step| self.take_over_operator(now, step));
            }
            Input::Observed(observation) => self.observe(now, &observation),
            Input::Tick => {}
            Input::Finished { step, result } => {
                if !self.operator_finished(now, step, &result) {
                    self.finished(now, step, result);
                }
                self.read_process(now);
            }
            Input::Proved { incident, result } => {
                if !self.operator_proved(now, &incident, &result) {
                    self.proved(now, &incident, result);
                }
            }
            Input::Slot { step, reply } => self.slot(now, step, reply),
            Input::Operator(command) => self.operate(now, command),
            Input::Offered { incident, token_sha256 } => self.offered(now, &incident, token_sha256),
            Input::Lease { fence } => self.lease.set(now.mono, fence),
        }
        self.storm.judge(now.mono);
        if look {
            self.read_hosts(now);
        }
        self.storm.hold(self.cascades.brake(now.mono).or_else(|| self.freeze()));
        self.advance(now);
        self.advance_operator(now);
        std::mem::take(&mut self.out)
    }

    /// Whether this agent may hold the lease: not while its own host is ill, nor while its node takes no part in the cluster (it
    /// lost its vote, or was removed): through such a node the map is neither read nor changed. What is known of another host (that
    /// it is down, a cascade that begins there) is no reason: all that see it would give the lease up, and nobody could take it. Nor
    /// is a disk that is only watched: it may be so for years, on every host of a cluster that ages.
    pub fn may_hold_lease(&self) -> bool {
        let takes_part = self.facts.phase() != "lost_voter";
        let clock = !self.watches.clock.is_far(&self.policy.clock);
        takes_part && clock && self.incidents.open.values().all(|incident| self.is_harmless(incident))
    }

    /// Whether an incident is no reason to give the lease up.
    fn is_harmless(&self, incident: &Incident) -> bool {
        let elsewhere = incident.subject.node().is_some_and(|node| node != self.node);
        match incident.mode {
            // What all agents see: all would give the lease up, and nobody could take it.
            Mode::HostDown | Mode::QuorumLoss => true,
            Mode::DiskDegrading => incident.rung < ladder::EVACUATION || elsewhere,
            // Somebody has to put one after the other; not one of the two.
            Mode::SplitBrain => !self.watches.leaders.claims(&self.node),
            Mode::NetworkPartition => !self.watches.partition.minority(&self.policy).0,
            // A client's stuck lock is seen on every node, and hinders no agent.
            Mode::Deadlock => !self.watches.deadlock.is_of_process(&self.policy.deadlock),
            // Disks of a cluster fill up together, and load comes to all its hosts; that hinders no agent. No memory does.
            Mode::ResourceExhaustion => !self.watches.resources.is_full(Of::Memory, &self.policy.resources),
            // Told from 50 ms on; given up from 500 ms on, above.
            Mode::ClockSkew => true,
            _ => elsewhere,
        }
    }

    /// Without a quorum nothing is taken away anywhere.
    fn freeze(&self) -> Option<String> {
        let lost = |incident: &&Incident| incident.mode == Mode::QuorumLoss;
        self.incidents.open.values().find(lost).map(|incident| format!("the metadata has no quorum ({})", incident.id))
    }

    /// How long ago each disruptive step on this node was begun, within the hour that the lease's holder counts, milliseconds: for a
    /// holder that did not grant them itself.
    pub fn disrupted(&self, now: Now) -> Vec<u64> {
        let ages = self.ledger.disrupted(now.mono, self.policy.scaled(crate::coordinator::HOUR));
        ages.into_iter().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)).collect()
    }

    /// Whom this agent does not hear, for other agents; `None`: it cannot say.
    pub fn silences(&self, now: Now) -> Option<Vec<SilenceFact>> {
        self.liveness.silences(now.mono)
    }

    /// The engine's state.
    pub fn status(&self, now: Now) -> EngineStatus {
        let open = &self.incidents.open;
        let (storm, storm_evidence) = self.storm.state(now.mono);
        let steps = self.steps_under_way();
        EngineStatus {
            node: self.node.clone(),
            factor: self.policy.factor,
            process: self.facts.process().map_or_else(|| "unknown".to_owned(), explain::process),
            phase: self.facts.phase().to_owned(),
            heartbeat_age_ms: self
                .facts
                .heartbeat_age(now.mono)
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            missed: self.facts.missed,
            pause: self.pause.clone(),
            open: open.len(),
            escalated: open.values().filter(|incident| incident.state == IncidentState::Escalated).count(),
            steps,
            storm,
            storm_evidence,
            silent: self.silent(now.mono),
            partial: self.partial(),
            held_back: self.held_back(now.mono),
            may_hold_lease: self.may_hold_lease(),
            modes: modes(),
        }
    }

    /// Steps that are asked for or under way, an operator's among them.
    pub fn steps_under_way(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = self.incidents.open.values().filter_map(Incident::step).cloned().collect();
        steps.extend(self.operator.as_ref().map(|operator| operator.step.clone()));
        steps
    }

    /// How many incidents are open, those that wait for a person among them.
    pub fn open_incidents(&self) -> usize {
        self.incidents.open.len()
    }

    /// All known incidents: open ones oldest first, then closed ones newest first.
    pub fn incidents(&self) -> Vec<IncidentView> {
        let ids = self.incidents.ids();
        let open = ids.iter().filter_map(|id| self.incidents.open.get(id));
        open.chain(self.incidents.recent.iter().rev()).map(Incident::view).collect()
    }

    /// The pause in force.
    pub fn pause(&self) -> Option<&Pause> {
        self.pause.as_ref()
    }

    /// The policy the engine decides by.
    pub fn policy(&self) -> &PolicyConfig {
        &self.policy
    }

    fn observe(&mut self, now: Now, observation: &Observation) {
        self.facts.observe(now.mono, observation);
        match observation {
            Observation::Heartbeat(fact) => {
                self.read_age(now, fact);
                self.read_heartbeat(now, fact);
                self.read_quorum(now, fact);
            }
            Observation::Peer(fact) => {
                self.liveness.observe(now.mono, fact);
                self.storm.observe(now.mono, &fact.node, ill(fact));
                self.quorum.peer(now.mono, fact);
            }
            Observation::Watch(fact) => self.watch(fact),
            Observation::Failures { events } => self.read_failures(now, events),
            Observation::Smart(fact) => self.read_smart(now, fact),
            Observation::Process(_)
            | Observation::HeartbeatMissed { .. }
            | Observation::Host(_)
            | Observation::Canary(_)
            | Observation::Replicas(_)
            | Observation::ProcessState(_)
            | Observation::LogMatch(_) => {}
        }
        self.sense(now, observation);
        let of_process = matches!(
            observation,
            Observation::Process(_) | Observation::Heartbeat(_) | Observation::HeartbeatMissed { .. }
        );
        if of_process {
            self.read_process(now);
        }
    }

    fn read_heartbeat(&mut self, now: Now, fact: &NodeFact) {
        let node = self.node.clone();
        // It answers: the restart that failed has left it alive, and an end from now on is no part of that restart.
        if let Planned::Failed(life) = self.planned
            && (self.facts.running() == Some(life) || fact.pid == life.0)
        {
            self.planned = Planned::No;
        }
        for symptom in self.disks.observe(now.mono, &node, fact, &self.policy) {
            self.see(now, symptom);
        }
        self.degrading.heartbeat(now.mono, fact, &self.policy.smart);
        let room = self.incidents.room();
        let found = self.findings.observe(now.mono, fact, room, &self.policy);
        for (disk, evidence) in found.many {
            let scan = data_corruption::scan(&disk, &node, &evidence);
            self.note(RecordKind::Escalated, Action::Alert, Mode::DataCorruption, &scan.subject, &evidence);
            self.see(now, scan);
        }
        for (disk, evidence) in found.condemned {
            self.disks.condemn(&disk, evidence);
        }
        for evidence in found.nameless {
            let subject = Subject::Node(node.clone());
            self.note(RecordKind::Note, Action::Skip, Mode::DataCorruption, &subject, &evidence);
        }
        for symptom in found.symptoms {
            self.see(now, symptom);
        }
    }

    /// What is not known opens nothing, and closes nothing. A disk that the node does not have, or that is out of service, is
    /// nobody's incident.
    fn read_smart(&mut self, now: Now, fact: &SmartFact) {
        let in_service = self.facts.disk(&fact.disk).is_some_and(|disk| disk.state != "out");
        let Some(symptom) = self.degrading.smart(now.mono, &self.node, fact, &self.policy.smart).filter(|_| in_service)
        else {
            return;
        };
        let evidence = symptom.evidence.clone();
        let worse = self.incidents.about(symptom.mode, &symptom.subject).is_some_and(|known| {
            let worse = self.degrading.is_worse(&fact.disk);
            if worse {
                known.event(now, format!("worse: {evidence}"));
            }
            worse
        });
        if worse {
            self.note(RecordKind::Note, Action::Alert, symptom.mode, &symptom.subject, &evidence);
        }
        self.see(now, symptom);
    }

    fn read_process(&mut self, now: Now) {
        let node = self.node.clone();
        let reading = process_crash::read(&node, &self.facts, &self.policy, self.planned);
        let ill = matches!(reading, Reading::Dead(_) | Reading::Hung { .. });
        self.storm.observe(now.mono, &node, ill);
        let hung = matches!(reading, Reading::Hung { .. });
        match reading {
            Reading::Dead(symptom) if symptom.life.is_some() && symptom.life == self.answered => {}
            Reading::Dead(symptom) => self.see(now, *symptom),
            Reading::Hung { evidence } if !self.hung => {
                let subject = Subject::Node(node);
                let draft = self
                    .draft(RecordKind::Refused, Action::StartNode)
                    .about(&subject)
                    .with("reason", Mode::ProcessCrash.as_str())
                    .with("guard", GuardName::Corroborated.as_str())
                    .with("evidence", evidence);
                self.record(draft, false);
            }
            Reading::Hung { .. } | Reading::Fine | Reading::Deliberate { .. } => {}
        }
        self.hung = hung;
    }

    /// A symptom: opens an incident, or belongs to one that is open.
    fn see(&mut self, now: Now, symptom: Symptom) {
        self.see_as(now, symptom, None);
    }

    /// `goes_on`: the incident of another agent that this one is.
    fn see_as(&mut self, now: Now, symptom: Symptom, goes_on: Option<IncidentId>) {
        if let Some(known) = self.incidents.about(symptom.mode, &symptom.subject) {
            // The first words of a crash that the journal only knew as open.
            if known.life.is_none() {
                known.life = symptom.life;
                known.signature = known.signature.take().or(symptom.signature);
            }
            return;
        }
        if self.incidents.room() == 0 {
            return;
        }
        let id = match goes_on.filter(|id| !self.incidents.open.contains_key(id)) {
            Some(id) => id,
            None => self.next_incident(),
        };
        let mut incident = Incident::open(id, now, symptom);
        if let Some(line) = self.heard.told(now.mono, incident.mode) {
            incident.event(now, line);
        }
        // What hangs is written down before anything is done about it: a restart takes it away.
        let hangs = (incident.mode == Mode::Deadlock)
            .then(|| self.watches.deadlock.dump(now.mono, self.facts.node(), &self.policy.deadlock));
        if let Some(hangs) = &hangs {
            incident.event(now, hangs.as_str());
        }
        self.fold_new(now, &mut incident);
        // Where the ladder begins with an alert, this is it.
        let alert = self.rung(&incident).is_some_and(|rung| rung.action == Action::Alert);
        let action = if alert { Action::Alert } else { Action::Skip };
        let mut draft = self
            .draft_about(RecordKind::Opened, action, &incident)
            .with("evidence", format!("{}: {}", incident.detected_by, incident.evidence));
        if incident.initial {
            draft = draft.with("initial", true);
        }
        if let Some(hangs) = hangs {
            draft = draft.with("hangs", hangs);
        }
        if let Some(cascade) = &incident.folded_under {
            draft = draft.with("folded_under", cascade.0.as_str());
        }
        self.record(draft, true);
        self.incidents.put(incident);
    }

    fn note(&mut self, kind: RecordKind, action: Action, mode: Mode, subject: &Subject, evidence: &str) {
        let mut draft =
            self.draft(kind, action).about(subject).with("reason", mode.as_str()).with("evidence", evidence);
        draft.mode = Some(mode);
        self.record(draft, true);
    }

    fn next_step(&mut self) -> StepId {
        let id = StepId(self.next_id);
        self.next_id += 1;
        id
    }

    /// A slot that is asked for is not written down, and may be asked for every second: numbers are taken in advance, or the agent's
    /// next life would use them again.
    fn reserve(&mut self, step: StepId) {
        if step.0 < self.reserved {
            return;
        }
        self.reserved = step.0 + RESERVED_STEPS;
        let why =
            format!("step numbers below {} are taken: slots that are asked for are not written down", self.reserved);
        let mut draft = self.draft(RecordKind::Note, Action::Skip).with("evidence", why);
        draft.step = Some(self.reserved - 1);
        self.record(draft.about(&Subject::Node(self.node.clone())), true);
    }

    fn planned(&self) -> Planned {
        self.planned
    }
}

impl Decide for Engine {
    fn handle(&mut self, now: Now, input: Input) -> Vec<Command> {
        Engine::handle(self, now, input)
    }
}

/// Its own agent says that the node is dead; or it does not hear the node, or is silent itself, and the node did not answer us either.
fn ill(fact: &PeerFact) -> bool {
    fact.node_alive == Some(false) || fact.node_answers == Some(false)
}
