//! The one task that owns the engine and the journal.
//!
//! Owns: the order of things. Inputs go into the engine one by one; what it commands is done in order, and a durable
//! record is on disk before the command after it begins.
//!
//! Must never: decide, or wait for anything but the journal. Steps, proofs and slots run as tasks and come back as
//! inputs.
//!
//! Invariants: with a journal that cannot be synced only steps of grade 0 and 1 begin, everything else is refused with
//! the guard `intent_first`, and the lease is given up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use resilver_host::Supervisor;
use resilver_host::planted::{Bug, bug};
use resilver_strategies::api::{Command, IncidentId, Input, Observation, OperatorCommand, Step, StepResult};
use resilver_strategies::engine::Engine;
use resilver_strategies::record::{Draft, RecordKind};
use resilver_strategies::types::{Action, Fence, Grade, GuardName};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::approvals::{self, Tokens};
use crate::coordinator::{Coordinator, HELD_BY};
use crate::executors::{Executors, chain};
use crate::flight::Recorder;
use crate::journal::Journal;
use crate::lease::LeaseHandle;
use crate::sensors::stopped;
use crate::state::{JournalView, View};
use crate::telemetry::{Telemetry, Told};
use crate::timebase::Timebase;

/// The engine's pace while something is open or under way.
const BUSY_TICK: Duration = Duration::from_millis(100);
/// The engine's pace otherwise: sensors bring an input at least every second anyway.
const IDLE_TICK: Duration = Duration::from_secs(1);

/// How long the journal may take to become durable before the agent restrains itself.
const SYNC_PATIENCE: Duration = Duration::from_secs(2);
/// The pause between two tries within that time.
const SYNC_PAUSE: Duration = Duration::from_millis(50);
/// How long a lost journal may hold up each further record: it must not slow the cure of grade 1.
const LOST_PATIENCE: Duration = Duration::from_millis(50);

/// What whoever asked for something that has to be on disk is told when it is not.
const NOT_DURABLE: &str = "the journal cannot be made durable";

/// How an approval was answered: what was approved, or which guard refused it and why; or it was taken, and that may not be on
/// disk.
pub(crate) type Approved = Result<Result<String, (GuardName, String)>, String>;

/// What may be asked of the engine. Answered as people and programs read it.
pub(crate) enum Question {
    /// Its state.
    Status,
    /// All incidents it knows.
    Incidents,
    /// One incident with its rule and its guards; null when it is not known.
    Explain(IncidentId),
    /// What it would do now.
    Plan,
    /// What it knows of cascades.
    Cascades,
}

/// What others ask of the main loop.
pub(crate) enum Request {
    /// A person paused or resumed.
    Operator {
        /// What.
        command: OperatorCommand,
        /// It is in force; whether that is on disk, or why not.
        done: oneshot::Sender<Result<(), String>>,
    },
    /// The holder of the lease ordered a restart of this host's node; the fence was admitted.
    Restart {
        /// Who.
        owner: String,
        /// Why.
        reason: String,
        /// Under which fence.
        fence: Fence,
        /// Admitted as the start of a node that does not run.
        dead: bool,
        /// Whether it was verified, and how it went.
        done: oneshot::Sender<(bool, String)>,
    },
    /// A person gave a token.
    Approve {
        /// Who.
        owner: String,
        /// For which incident.
        incident: IncidentId,
        /// The token, as it was given.
        token: String,
        /// How it was answered.
        done: oneshot::Sender<Approved>,
    },
    /// A look at the engine.
    Look {
        /// At what.
        question: Question,
        /// What is seen.
        answer: oneshot::Sender<Value>,
    },
    /// Something to write down.
    Tell {
        /// What.
        told: Told,
        /// It is on disk, or why not; `None`: nobody waits for it.
        durable: Option<oneshot::Sender<Result<(), String>>>,
    },
}

/// What the main loop is made of.
pub(crate) struct MainLoop {
    pub(crate) engine: Engine,
    pub(crate) journal: Journal,
    pub(crate) executors: Executors,
    pub(crate) coordinator: Coordinator,
    pub(crate) lease: LeaseHandle,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) time: Timebase,
    pub(crate) inputs: mpsc::Receiver<Input>,
    /// The other end of `inputs`, for what the loop itself brings about.
    pub(crate) input: mpsc::Sender<Input>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) view: watch::Sender<View>,
    /// Who waits for the end of an ordered restart, by its fence.
    pub(crate) waiting: BTreeMap<Fence, oneshot::Sender<(bool, String)>>,
    /// Tokens with which a person may approve a step.
    pub(crate) tokens: Tokens,
    /// Who waits for the answer to an approval: the loop takes one at a time.
    pub(crate) answer_to: Option<oneshot::Sender<Approved>>,
    /// What the engine is told, for later; `None`: nothing is kept.
    pub(crate) recorder: Option<Recorder>,
    pub(crate) lost: bool,
    pub(crate) eligible: Option<bool>,
    pub(crate) slots: JoinSet<()>,
    /// Told of every turn, from here alone: it ends an agent whose loop hangs.
    pub(crate) supervisor: Arc<dyn Supervisor>,
}

impl MainLoop {
    /// Turns until told to stop. The node goes on.
    pub(crate) async fn run(mut self, started: Input, mut shutdown: watch::Receiver<bool>) {
        self.take(started).await;
        let mut last_tick = Instant::now();
        loop {
            self.supervisor.turned();
            // Counted from the last tick, not from the last input: a chatty sensor must not hold time back.
            let pace = if self.busy() { BUSY_TICK } else { IDLE_TICK };
            tokio::select! {
                biased;
                () = stopped(&mut shutdown) => break,
                Some(input) = self.inputs.recv() => {
                    self.take(input).await;
                }
                Some(request) = self.requests.recv() => self.serve(request).await,
                Some(_) = self.slots.join_next() => {}
                () = sleep_until(last_tick + pace) => {
                    last_tick = Instant::now();
                    self.take(Input::Tick).await;
                }
            }
        }
        self.supervisor.stopping();
        self.tell(&Told::Stopped, true).await;
    }

    /// The first word of this life.
    pub(crate) async fn begin(&mut self, told: &Told) {
        self.tell(told, true).await;
    }

    fn busy(&mut self) -> bool {
        self.executors.busy() || self.view.borrow().open > 0 || !self.waiting.is_empty()
    }

    async fn serve(&mut self, request: Request) {
        match request {
            Request::Operator { command, done } => {
                let durable = self.take(Input::Operator(command)).await;
                // Whoever asked may have stopped waiting.
                let _ = done.send(if durable { Ok(()) } else { Err(NOT_DURABLE.to_owned()) });
            }
            // One lease, one fence: a start, which needs no slot, may be asked for while another order is under way.
            Request::Restart { owner, fence, dead, done, .. } if self.waiting.contains_key(&fence) => {
                let action = if dead { Action::StartNode } else { Action::RestartNode };
                let why = "another person's order for this node is under way".to_owned();
                let told = Told::OrderRefused {
                    guard: GuardName::OneAtATime,
                    target: self.coordinator.own().to_owned(),
                    step: action.as_str().to_owned(),
                    fence: Some(fence.to_string()),
                    operator: owner,
                    why: why.clone(),
                };
                self.tell(&told, false).await;
                // Whoever asked may have stopped waiting.
                let _ = done.send((false, format!("{HELD_BY}{}: {why}", GuardName::OneAtATime)));
            }
            Request::Restart { owner, reason, fence, dead, done } => {
                self.waiting.insert(fence.clone(), done);
                self.take(Input::Operator(OperatorCommand::RestartNode { owner, reason, fence, dead })).await;
            }
            // An agent that is killed now would have forgotten who approved; and nothing that needs it can begin.
            Request::Approve { owner, incident, token, done } if self.lost => {
                let why = "the journal cannot be synced: an approval is taken when it can be written down".to_owned();
                // What a person wrote names an incident only where it is one: ids count on from the journal's.
                let incident = self.engine.explain(self.time.now(), &incident).map(|known| known.incident.id);
                let token_sha256 = approvals::hash(&token);
                let guard = GuardName::IntentFirst;
                self.tell(&Told::ApprovalRefused { guard, owner, incident, token_sha256, why: why.clone() }, true)
                    .await;
                // Whoever asked may have stopped waiting.
                let _ = done.send(Ok(Err((guard, why))));
            }
            Request::Approve { owner, incident, token, done } => {
                self.answer_to = Some(done);
                let token_sha256 = approvals::hash(&token);
                self.take(Input::Operator(OperatorCommand::Approve { owner, incident, token_sha256 })).await;
            }
            Request::Look { question, answer } => {
                // As above.
                let _ = answer.send(self.answer(&question));
            }
            Request::Tell { told, durable } => {
                let written = self.tell(&told, durable.is_some()).await;
                let result = if written { Ok(()) } else { Err(NOT_DURABLE.to_owned()) };
                if let Some(durable) = durable {
                    // As above.
                    let _ = durable.send(result);
                }
                let fence = match told {
                    Told::LeaseGained { fence } => fence.parse().ok(),
                    Told::LeaseLost { .. } => None,
                    _ => return,
                };
                self.telemetry.lease_held.set(fence.is_some().into());
                // The engine looks after other hosts for as long as it is held.
                self.take(Input::Lease { fence }).await;
            }
        }
    }

    /// Whether all that has to be on disk of what came of it is there.
    async fn take(&mut self, input: Input) -> bool {
        if let Input::Observed(observation) = &input {
            self.observe(observation);
        }
        // The hour in which a pattern counts slides on by itself.
        let idle = matches!(input, Input::Tick);
        let now = self.time.now();
        let kept = self.recorder.as_mut().and_then(|recorder| recorder.note(&self.engine, now, &input));
        let commands = self.engine.handle(now, input);
        if let Some(recorder) = &mut self.recorder {
            recorder.keep(now, kept, &commands);
        }
        let decided = !commands.is_empty();
        if decided || idle {
            self.telemetry.cascades(&self.engine.cascades(self.time.now()));
        }
        let mut durable = true;
        for command in commands {
            durable &= self.act(command, durable).await;
        }
        if self.lost {
            self.flush(true).await;
        }
        self.show(decided);
        durable
    }

    fn observe(&self, observation: &Observation) {
        self.coordinator.observe(observation);
        if let Observation::HeartbeatMissed { .. } = observation {
            self.telemetry.heartbeats_missed.inc();
        }
        self.view.send_modify(|view| view.node.observe(observation));
        if let Observation::Process(_) = observation {
            self.telemetry.node_up.set(self.view.borrow().node.alive().into());
        }
    }

    /// Whether it is on disk, when it is a record that has to be. `durable`: whether those before it are.
    async fn act(&mut self, command: Command, durable: bool) -> bool {
        match command {
            Command::Record { draft, durable: needed } => {
                let is_intent = draft.kind == RecordKind::Intent;
                if let Some(over) = draft.incident.as_ref().filter(|_| draft.kind == RecordKind::Resolved) {
                    self.tokens.forget(over);
                }
                let written = self.record(*draft, needed).await;
                if is_intent && needed {
                    resilver_host::fault::point("agent.after_intent");
                }
                return written || !needed;
            }
            Command::TakeSlot(step) => self.take_slot(step),
            Command::Execute(step) => self.execute(step).await,
            Command::Prove { incident, proof, deadline } => self.executors.prove(incident, proof, deadline),
            Command::CloseSlot { step, verified, detail } => self.close_slot(step, verified, detail),
            Command::OfferApproval { incident, .. } => {
                let token_sha256 = self.tokens.draw(&incident);
                self.bring(Input::Offered { incident, token_sha256 });
            }
            Command::Answer { incident, result } => {
                if result.is_ok() {
                    self.tokens.forget(&incident);
                }
                if let Some(waiting) = self.answer_to.take() {
                    let answer = if durable || result.is_err() { Ok(result) } else { Err(NOT_DURABLE.to_owned()) };
                    // Whoever asked may have stopped waiting.
                    let _ = waiting.send(answer);
                }
            }
        }
        true
    }

    async fn execute(&mut self, step: Step) {
        if self.lost && step.grade > Grade::RELIEVE {
            let evidence = "the journal cannot be synced: only grade 1 until it can".to_owned();
            let result = StepResult::Refused { guard: GuardName::IntentFirst, evidence };
            self.bring(Input::Finished { step: step.id, result });
            return;
        }
        self.executors.execute(step);
    }

    fn take_slot(&mut self, step: Step) {
        let (coordinator, input) = (self.coordinator.clone(), self.input.clone());
        self.slots.spawn(async move {
            let reply = coordinator.take_slot(&step).await;
            // Only a stopping agent has dropped the receiver.
            let _ = input.send(Input::Slot { step: step.id, reply }).await;
        });
    }

    fn close_slot(&mut self, step: Step, verified: bool, detail: String) {
        if step.incident.is_none()
            && let Some(waiting) = step.fence.as_ref().and_then(|fence| self.waiting.remove(fence))
        {
            // The holder closes the slot when it hears this.
            let _ = waiting.send((verified, detail));
            return;
        }
        // A person's start has none; what an agent that ended left of one must not close the slot of another step.
        if step.incident.is_none() && !step.disruptive {
            return;
        }
        let coordinator = self.coordinator.clone();
        self.slots.spawn(async move { coordinator.give_slot_back(&step, verified).await });
    }

    /// An input that the loop itself brings about: behind those that wait already, never inside the present one.
    fn bring(&mut self, input: Input) {
        let sender = self.input.clone();
        self.slots.spawn(async move {
            // Only a stopping agent has dropped the receiver.
            let _ = sender.send(input).await;
        });
    }

    async fn tell(&mut self, told: &Told, durable: bool) -> bool {
        self.record(told.draft(), durable).await
    }

    /// Writes a record. Whether it is as durable as it was asked to be.
    async fn record(&mut self, draft: Draft, durable: bool) -> bool {
        let line = self.journal.append(self.time.when(), draft);
        let kept = line.is_some();
        let written = self.flush(durable).await;
        if let Some(line) = line {
            self.telemetry.recorded(&line);
        }
        kept && written
    }

    async fn flush(&mut self, durable: bool) -> bool {
        let patience = if self.lost { LOST_PATIENCE } else { SYNC_PATIENCE };
        let until = Instant::now() + patience;
        let why = loop {
            match timeout_at(until, self.journal.flush(durable)).await {
                Ok(Ok(())) => {
                    if self.lost && durable {
                        self.journal_back();
                    }
                    return true;
                }
                Ok(Err(error)) if Instant::now() + SYNC_PAUSE >= until => break chain(&error),
                Ok(Err(_)) => sleep(SYNC_PAUSE).await,
                Err(_) => break format!("no answer of the disk within {} ms", patience.as_millis()),
            }
        };
        if !self.lost {
            self.journal_lost(why);
        }
        false
    }

    fn journal_lost(&mut self, why: String) {
        self.lost = true;
        self.telemetry.journal_lost.set(1);
        tracing::error!(why, "the journal cannot be synced: grade 1 only, and no lease");
        let line = self.journal.append(self.time.when(), Told::JournalLost { why }.draft());
        if let Some(line) = line {
            self.telemetry.recorded(&line);
        }
    }

    fn journal_back(&mut self) {
        self.lost = false;
        self.telemetry.journal_lost.set(0);
        let line = self.journal.append(self.time.when(), Told::JournalBack.draft());
        if let Some(line) = line {
            self.telemetry.recorded(&line);
        }
    }

    /// Shows the present to the API and to peers, and tells the lease whether this agent may hold it.
    fn show(&mut self, decided: bool) {
        // Only a decision opens or closes an incident.
        let open = decided.then(|| self.engine.open_incidents());
        let journal = JournalView { next_sequence: self.journal.next_sequence(), lost: self.lost };
        let silent = self.engine.silences(self.time.now());
        let heard = self.engine.heard(self.time.now());
        let disrupted = self.engine.disrupted(self.time.now());
        self.view.send_modify(|view| {
            view.silent = silent;
            view.heard = heard;
            view.disrupted = disrupted;
            view.beat = Instant::now();
            view.journal = journal;
            view.paused = self.engine.pause().cloned();
            view.open = open.unwrap_or(view.open);
        });
        if let Some(open) = open {
            self.telemetry.incidents_open.set(i64::try_from(open).unwrap_or(i64::MAX));
        }
        let eligible = (self.engine.may_hold_lease() || bug(Bug::IllHolder)) && !self.lost;
        if self.eligible.replace(eligible) != Some(eligible) {
            self.lease.set_eligible(eligible);
        }
    }

    /// Whoever reads what would be done may approve it: the token stands beside it.
    fn with_token(&self, id: &IncidentId, mut known: Value) -> Value {
        let offered = known.pointer_mut("/incident/approval").and_then(Value::as_object_mut);
        if let (Some(offered), Some(token)) =
            (offered.filter(|offer| offer.contains_key("expires_ms")), self.tokens.of(id))
        {
            offered.insert("token".to_owned(), Value::from(token));
        }
        known
    }

    fn answer(&self, question: &Question) -> Value {
        let now = self.time.now();
        let answer = match question {
            Question::Status => serde_json::to_value(self.engine.status(now)),
            Question::Incidents => serde_json::to_value(self.engine.incidents()),
            Question::Explain(id) => {
                serde_json::to_value(self.engine.explain(now, id)).map(|known| self.with_token(id, known))
            }
            Question::Plan => serde_json::to_value(self.engine.plan(now)),
            Question::Cascades => serde_json::to_value(self.engine.cascades(now)),
        };
        answer.expect("texts, numbers and maps with text keys always serialize")
    }
}
