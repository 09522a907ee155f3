//! The one door for telemetry: what happens is told once, and becomes a log line, a metric, a journal record and an
//! event for those who listen. So the names cannot drift apart.
//!
//! Owns: metrics, and the broadcast of records. Must never: block, or grow with the number of incidents (labels are
//! modes, actions, guards, peers, own disks and patterns of cascades, nothing else).

use std::sync::Arc;

use prometheus::{Encoder, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use resilver_strategies::api::{IncidentId, SmartVerdict, SwimState};
use resilver_strategies::cascade::CascadeStatus;
use resilver_strategies::chain::Line;
use resilver_strategies::record::{Draft, GuardResult, PROVEN, RecordKind};
use resilver_strategies::types::{Action, GuardName, Severity};
use tokio::sync::broadcast;

use crate::swim::SwimView;

/// Records a slow listener may lag behind before it misses some; it then reads them from the journal by sequence.
const EVENT_BACKLOG: usize = 256;

/// A journal line on its way to listeners.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Its sequence: what a listener that comes back asks after.
    pub(crate) sequence: u64,
    /// The line, as it is stored.
    pub(crate) text: Arc<str>,
}

/// Something the agent itself tells, besides the engine's drafts.
pub(crate) enum Told {
    /// The agent began.
    Started {
        /// Its process id.
        pid: u32,
        /// The policy's factor: whatever runs with one says so.
        factor: f64,
    },
    /// The agent ends; its node goes on.
    Stopped,
    /// The lease is held from now on.
    LeaseGained {
        /// Under which fence.
        fence: String,
    },
    /// The lease is held no longer.
    LeaseLost {
        /// Why.
        why: String,
    },
    /// A slot was opened for a disruptive step: the intent, before the step is ordered.
    SlotOpened {
        /// The node it is done to.
        target: String,
        /// Which step.
        step: String,
        /// Under which fence.
        fence: String,
        /// Who asked: an operator's name, or an incident.
        asked_by: String,
    },
    /// The slot was closed.
    SlotClosed {
        /// The node it was for.
        target: String,
        /// Which step.
        step: String,
        /// Whether the step was verified.
        verified: bool,
        /// How it went.
        detail: String,
    },
    /// A node that does not run is to be started by its agent, for a person. No slot is needed.
    StartOrdered {
        /// The node.
        target: String,
        /// Under which fence.
        fence: String,
        /// Who asked.
        operator: String,
    },
    /// A step that a person asked for was refused: by the lease's holder, for want of one, or here, where it would have
    /// taken effect (its fence is old, or another one runs).
    OrderRefused {
        /// By which guard.
        guard: GuardName,
        /// The node it would have been done to.
        target: String,
        /// Which action.
        step: String,
        /// The fence it came with; `None`: none was given to it.
        fence: Option<String>,
        /// Who asked for it.
        operator: String,
        /// What stands against it.
        why: String,
    },
    /// A person's approval was refused before it was judged.
    ApprovalRefused {
        /// By which guard.
        guard: GuardName,
        /// Who gave it.
        owner: String,
        /// For which incident; `None`: none of that name is known.
        incident: Option<IncidentId>,
        /// Of its token, the hash.
        token_sha256: String,
        /// What stands against it.
        why: String,
    },
    /// The journal cannot be made durable: grade 1 only, and no lease.
    JournalLost {
        /// Why.
        why: String,
    },
    /// The journal is durable again.
    JournalBack,
    /// A command that cannot be undone was confirmed by a person: that is an approval.
    Confirmed {
        /// Who.
        owner: String,
        /// Which command.
        verb: String,
        /// What it is about, as the person wrote it.
        name: String,
    },
    /// Something is expected, or has been in poor health for a while. The words are the core's.
    Foreseen(Box<Draft>),
}

impl Told {
    /// The journal's words for it.
    pub(crate) fn draft(&self) -> Draft {
        let note = |action, what: &str| Draft::new(RecordKind::Note, action).with("evidence", what);
        match self {
            Told::Started { pid, factor } => {
                note(Action::Skip, "agent started").with("pid", *pid).with("factor", *factor)
            }
            Told::Stopped => note(Action::Skip, "agent stopped; the node goes on"),
            Told::LeaseGained { fence } => note(Action::Skip, "lease gained").with("fence", fence.as_str()),
            Told::LeaseLost { why } => note(Action::Skip, "lease given up or lost").with("resolution", why.as_str()),
            Told::SlotOpened { target, step, fence, asked_by } => note(Action::Approve, "slot opened")
                .with("node_id", target.as_str())
                .with("to", step.as_str())
                .with("fence", fence.as_str())
                .with("from", asked_by.as_str()),
            Told::SlotClosed { target, step, verified, detail } => note(Action::Approve, "slot closed")
                .with("node_id", target.as_str())
                .with("to", step.as_str())
                .with("verified", *verified)
                .with("resolution", detail.as_str()),
            Told::StartOrdered { target, fence, operator } => note(Action::Approve, "start ordered, no slot needed")
                .with("node_id", target.as_str())
                .with("to", Action::StartNode.as_str())
                .with("fence", fence.as_str())
                .with("from", operator.as_str()),
            Told::OrderRefused { guard, target, step, fence, operator, why } => {
                let action = Action::ALL.iter().copied().find(|action| action.as_str() == step).unwrap_or(Action::Skip);
                let mut draft = refused(action, *guard, why)
                    .with("node_id", target.as_str())
                    .with("to", step.as_str())
                    .with("from", operator.as_str());
                if let Some(fence) = fence {
                    draft = draft.with("fence", fence.as_str());
                }
                draft
            }
            Told::JournalLost { why } => {
                note(Action::Alert, "the journal cannot be synced: grade 1 only").with("resolution", why.as_str())
            }
            Told::JournalBack => note(Action::Alert, "the journal is durable again"),
            Told::Confirmed { owner, verb, name } => note(Action::Approve, "a person confirmed a command by its name")
                .with("owner", owner.as_str())
                .with("to", verb.as_str())
                .with("confirmed", name.as_str()),
            Told::ApprovalRefused { guard, owner, incident, token_sha256, why } => {
                let mut draft = refused(Action::Approve, *guard, why)
                    .with("owner", owner.as_str())
                    .with("token_sha256", token_sha256.as_str());
                draft.incident.clone_from(incident);
                draft
            }
            Told::Foreseen(draft) => (**draft).clone(),
        }
    }
}

/// A refusal by one guard, which is counted as one, too.
fn refused(action: Action, guard: GuardName, why: &str) -> Draft {
    let mut draft = Draft::new(RecordKind::Refused, action).with("guard", guard.as_str()).with("evidence", why);
    draft.guards = vec![GuardResult { guard, passed: false, evidence: why.to_owned() }];
    draft
}

/// Counters, gauges and listeners.
pub(crate) struct Telemetry {
    registry: Registry,
    records: IntCounterVec,
    refusals: IntCounterVec,
    incidents: IntCounterVec,
    resolved: IntCounterVec,
    recovery_seconds: prometheus::HistogramVec,
    peer_up: IntGaugeVec,
    gossip: IntCounterVec,
    gossip_members: IntGaugeVec,
    cascades: IntCounterVec,
    cascades_critical: IntGaugeVec,
    health_score: IntGaugeVec,
    disk_smart: GaugeVec,
    /// Incidents that are open now.
    pub(crate) incidents_open: IntGauge,
    /// Whether the node's process runs.
    pub(crate) node_up: IntGauge,
    /// Heartbeats without an answer.
    pub(crate) heartbeats_missed: IntCounter,
    /// Whether this agent holds the lease.
    pub(crate) lease_held: IntGauge,
    /// Whether the journal cannot be synced.
    pub(crate) journal_lost: IntGauge,
    events: broadcast::Sender<Event>,
}

impl Telemetry {
    /// Telemetry of its own registry: nothing is global.
    pub(crate) fn new() -> Telemetry {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels).expect("names and labels are constants");
            registry.register(Box::new(counters.clone())).expect("each name is registered once");
            counters
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect("names are constants");
            registry.register(Box::new(gauge.clone())).expect("each name is registered once");
            gauge
        };
        let records = counters("resilver_journal_records_total", "Journal records", &["kind", "action"]);
        let refusals = counters("resilver_guard_refusals_total", "Steps held back", &["guard"]);
        let incidents = counters("resilver_incidents_total", "Incidents opened", &["mode"]);
        let resolved = counters("resilver_incidents_resolved_total", "Incidents whose proof held", &["mode"]);
        let seconds = prometheus::HistogramOpts::new("resilver_recovery_seconds", "From opened to proven")
            .buckets(vec![0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0]);
        let recovery_seconds = prometheus::HistogramVec::new(seconds, &["mode"]).expect("names are constants");
        registry.register(Box::new(recovery_seconds.clone())).expect("each name is registered once");
        let peer_up = IntGaugeVec::new(Opts::new("resilver_peer_up", "Whether a peer's agent answers"), &["peer"])
            .expect("names and labels are constants");
        registry.register(Box::new(peer_up.clone())).expect("each name is registered once");
        let gossip =
            counters("resilver_gossip_datagrams_total", "Datagrams of gossip: in, out, or why dropped", &["result"]);
        let members = Opts::new("resilver_gossip_members", "Other agents by their state in gossip");
        let gossip_members = IntGaugeVec::new(members, &["state"]).expect("names and labels are constants");
        registry.register(Box::new(gossip_members.clone())).expect("each name is registered once");
        let cascades = counters(
            "resilver_cascading_failure_patterns_total",
            "Cascades found, by the failure that began them",
            &["initial"],
        );
        let name = "resilver_cascading_failure_critical";
        let help = "1 from the third time a cascade's pattern was found in an hour";
        let cascades_critical =
            IntGaugeVec::new(Opts::new(name, help), &["pattern"]).expect("names and labels are constants");
        registry.register(Box::new(cascades_critical.clone())).expect("each name is registered once");
        let health_score = IntGaugeVec::new(
            Opts::new("resilver_health_score", "0 to 100, of the node and of the cluster as its agent sees them"),
            &["scope"],
        )
        .expect("names and labels are constants");
        registry.register(Box::new(health_score.clone())).expect("each name is registered once");
        let disk_smart = GaugeVec::new(
            Opts::new("resilver_disk_smart_verdict", "1 ok, 0.5 degrading, 0 failing; no series where it is unknown"),
            &["disk"],
        )
        .expect("names and labels are constants");
        registry.register(Box::new(disk_smart.clone())).expect("each name is registered once");
        let missed = IntCounter::new("resilver_heartbeats_missed_total", "Heartbeats of the node without an answer")
            .expect("names are constants");
        registry.register(Box::new(missed.clone())).expect("each name is registered once");
        Telemetry {
            records,
            refusals,
            incidents,
            resolved,
            recovery_seconds,
            peer_up,
            gossip,
            gossip_members,
            cascades,
            cascades_critical,
            health_score,
            disk_smart,
            incidents_open: gauge("resilver_incidents_open", "Incidents open now"),
            node_up: gauge("resilver_node_up", "Whether the node's process runs"),
            heartbeats_missed: missed,
            lease_held: gauge("resilver_lease_held", "Whether this agent holds the coordinator lease"),
            journal_lost: gauge("resilver_journal_lost", "Whether the journal cannot be synced"),
            events: broadcast::channel(EVENT_BACKLOG).0,
            registry,
        }
    }

    /// A line entered the journal: log, count, tell.
    pub(crate) fn recorded(&self, line: &Line) {
        let draft = &line.draft;
        let kind = kind_name(draft.kind);
        self.records.with_label_values(&[kind, draft.action.as_str()]).inc();
        let mode = draft.mode.map_or("none", |mode| mode.as_str());
        // Only the record that counts a cascade has a pattern in it.
        if let Some(initial) = draft.text("initial_failure").filter(|_| draft.text("pattern").is_some()) {
            self.cascades.with_label_values(&[initial]).inc();
        }
        match draft.kind {
            RecordKind::Opened => self.incidents.with_label_values(&[mode]).inc(),
            // One that was handed over, or that ended by itself, is no recovery.
            RecordKind::Resolved if draft.text("resolution").is_some_and(|how| how.starts_with(PROVEN)) => {
                self.resolved.with_label_values(&[mode]).inc();
                if let Some(millis) = draft.duration_ms {
                    self.recovery_seconds.with_label_values(&[mode]).observe(millis as f64 / 1000.0);
                }
            }
            RecordKind::Refused => {
                for guard in draft.guards.iter().filter(|guard| !guard.passed) {
                    self.refusals.with_label_values(&[guard.guard.as_str()]).inc();
                }
            }
            _ => {}
        }
        log(line, kind, mode);
        // Nobody listening is the usual case.
        let _ = self.events.send(Event { sequence: line.sequence, text: Arc::from(line.to_text()) });
    }

    /// How cascades stand. Every pattern has its series from the start: a rate needs one to begin with.
    pub(crate) fn cascades(&self, status: &CascadeStatus) {
        for pattern in &status.patterns {
            self.cascades.with_label_values(&[pattern.initial.as_str()]);
            let critical = pattern.severity == Some(Severity::Emergency);
            self.cascades_critical.with_label_values(&[pattern.name.as_str()]).set(critical.into());
        }
    }

    /// Whether a peer's agent answered.
    pub(crate) fn peer(&self, name: &str, answers: bool) {
        self.peer_up.with_label_values(&[name]).set(answers.into());
    }

    /// A peer is asked no more: it has no series, for any figure would be a verdict.
    pub(crate) fn forget_peer(&self, name: &str) {
        // An error says that it had none.
        let _ = self.peer_up.remove_label_values(&[name]);
    }

    /// A datagram of gossip: `in`, `out`, or why it was dropped.
    pub(crate) fn gossip(&self, result: &str) {
        self.gossip.with_label_values(&[result]).inc();
    }

    /// How the other agents are, by gossip.
    pub(crate) fn gossip_members(&self, view: &SwimView) {
        for state in SwimState::ALL {
            let count = view.values().filter(|known| *known == state).count();
            self.gossip_members.with_label_values(&[state.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A score, of `node` or `cluster`.
    pub(crate) fn health(&self, scope: &str, score: u8) {
        self.health_score.with_label_values(&[scope]).set(score.into());
    }

    /// What an own disk's counters come to. One of which nothing is known has no series: any figure would be a verdict.
    pub(crate) fn smart(&self, disk: &str, verdict: SmartVerdict) {
        let value = match verdict {
            SmartVerdict::Ok => 1.0,
            SmartVerdict::Degrading => 0.5,
            SmartVerdict::Failing => 0.0,
            SmartVerdict::Unknown => {
                // An error says that it had none.
                let _ = self.disk_smart.remove_label_values(&[disk]);
                return;
            }
        };
        self.disk_smart.with_label_values(&[disk]).set(value);
    }

    /// A listener from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// All metrics in Prometheus' text format.
    pub(crate) fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "the metrics cannot be rendered");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

fn log(line: &Line, kind: &str, mode: &str) {
    let draft = &line.draft;
    let incident = draft.incident.as_ref().map_or("", |incident| incident.0.as_str());
    let details = serde_json::Value::from_iter(draft.details.clone()).to_string();
    let action = draft.action.as_str();
    let (sequence, operation) = (line.sequence, draft.step);
    if matches!(draft.kind, RecordKind::Opened | RecordKind::Escalated | RecordKind::Refused) {
        tracing::warn!(sequence, incident, operation, mode, action, details, "{kind}");
    } else {
        tracing::info!(sequence, incident, operation, mode, action, details, "{kind}");
    }
}

fn kind_name(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Intent => "intent",
        RecordKind::Outcome => "outcome",
        RecordKind::Reconciled => "reconciled",
        RecordKind::Refused => "refused",
        RecordKind::Opened => "opened",
        RecordKind::Resolved => "resolved",
        RecordKind::Escalated => "escalated",
        RecordKind::Note => "note",
    }
}

#[cfg(test)]
mod tests {
    use resilver_strategies::cascade::{Cascades, Detector};
    use resilver_strategies::chain::{Tip, seal};
    use resilver_strategies::types::{Mode, Moment};

    use super::*;

    #[test]
    fn only_what_was_proven_is_a_recovery() {
        let telemetry = Telemetry::new();
        let ended = |how: String| {
            let mut resolved = Draft::new(RecordKind::Resolved, Action::Skip).with("resolution", how);
            (resolved.mode, resolved.duration_ms) = (Some(Mode::HostDown), Some(1_000));
            telemetry.recorded(&seal(&Tip::default(), 0, resolved));
        };
        let counts = |line: &str| telemetry.render().lines().any(|found| found == line);
        ended("handed over: the holder of the lease goes on".to_owned());
        assert!(!counts(r#"resilver_incidents_resolved_total{mode="host_down"} 1"#), "{}", telemetry.render());
        ended(format!("{PROVEN}it serves"));
        assert!(counts(r#"resilver_incidents_resolved_total{mode="host_down"} 1"#), "{}", telemetry.render());
        assert!(counts(r#"resilver_recovery_seconds_count{mode="host_down"} 1"#), "{}", telemetry.render());
    }

    #[test]
    fn a_cascade_is_counted_once_and_its_flag_stands_for_as_long_as_it_is_an_emergency() {
        let telemetry = Telemetry::new();
        let mut status = Detector::new(&Cascades::default()).status(Moment::default());
        telemetry.cascades(&status);
        let shows = |line: &str| assert!(telemetry.render().lines().any(|found| found == line), "{line}");
        shows(r#"resilver_cascading_failure_patterns_total{initial="lock_timeout"} 0"#);
        shows(r#"resilver_cascading_failure_critical{pattern="peer_locks_keys"} 0"#);

        let mut alert = Draft::new(RecordKind::Opened, Action::Alert)
            .with("pattern", "peer_locks_keys")
            .with("initial_failure", "peer_unreachable");
        alert.mode = Some(Mode::CascadingFailure);
        telemetry.recorded(&seal(&Tip::default(), 0, alert));
        // What is written of it besides counts nothing.
        telemetry.recorded(&seal(&Tip::default(), 0, Draft::new(RecordKind::Escalated, Action::Alert)));
        shows(r#"resilver_cascading_failure_patterns_total{initial="peer_unreachable"} 1"#);

        status.patterns[0].severity = Some(Severity::Emergency);
        telemetry.cascades(&status);
        shows(r#"resilver_cascading_failure_critical{pattern="peer_locks_keys"} 1"#);
        status.patterns[0].severity = None;
        telemetry.cascades(&status);
        shows(r#"resilver_cascading_failure_critical{pattern="peer_locks_keys"} 0"#);
    }
}
