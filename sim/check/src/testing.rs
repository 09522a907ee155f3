//! Histories made by hand, for the rules' own tests.

use std::collections::BTreeMap;
use std::time::Duration;

use resilver_host::audit::{Fact, Fence, LeaderId, LogEntry, LogId, StepFact, Vote};
use resilver_strategies::chain::{Tip, seal};
use resilver_strategies::record::{Draft, RecordKind};
use resilver_strategies::types::{Action, Grade};

use crate::checker::Checker;
use crate::event::{Event, Happening, Stamped};
use crate::invariants::{Invariant, Violation};

/// A history being made up.
#[derive(Default)]
pub(crate) struct Story {
    at: Duration,
    events: Vec<Event>,
    pids: BTreeMap<(String, &'static str), u32>,
    tips: BTreeMap<String, Tip>,
}

impl Story {
    /// The machine's node begins.
    pub(crate) fn node(&mut self, machine: &str, pid: u32) -> &mut Self {
        self.process(machine, "node", pid)
    }

    /// The machine's agent begins.
    pub(crate) fn agent(&mut self, machine: &str, pid: u32) -> &mut Self {
        self.process(machine, "agent", pid)
    }

    fn process(&mut self, machine: &str, role: &'static str, pid: u32) -> &mut Self {
        self.pids.insert((machine.to_owned(), role), pid);
        self.kernel(Happening::ProcessStarted { machine: machine.to_owned(), role: role.to_owned(), pid })
    }

    /// The machine's process of this role ends.
    pub(crate) fn ends(&mut self, machine: &str, role: &'static str) -> &mut Self {
        let pid = self.pids[&(machine.to_owned(), role)];
        self.kernel(Happening::ProcessEnded { machine: machine.to_owned(), role: role.to_owned(), pid })
    }

    /// Time passes.
    pub(crate) fn later(&mut self, seconds: u64) -> &mut Self {
        self.at += Duration::from_secs(seconds);
        self
    }

    /// The simulator does something.
    pub(crate) fn kernel(&mut self, what: Happening) -> &mut Self {
        self.events.push(Event::Kernel { at: self.at, what });
        self
    }

    /// The machine's node states a fact.
    pub(crate) fn says(&mut self, machine: &str, fact: Fact) -> &mut Self {
        self.fact(machine, "node", fact)
    }

    /// The machine's agent states a fact.
    pub(crate) fn agent_says(&mut self, machine: &str, fact: Fact) -> &mut Self {
        self.fact(machine, "agent", fact)
    }

    fn fact(&mut self, machine: &str, role: &'static str, fact: Fact) -> &mut Self {
        let pid = self.pids[&(machine.to_owned(), role)];
        let stamped = Stamped { at: self.at, machine: machine.to_owned(), role: role.to_owned(), pid, fact };
        self.events.push(Event::Fact(stamped));
        self
    }

    /// The machine's agent writes a line and makes it durable.
    pub(crate) fn writes(&mut self, machine: &str, draft: Draft) -> &mut Self {
        let sequence = self.adds(machine, draft);
        self.agent_says(machine, Fact::JournalDurable { through: sequence })
    }

    /// The machine's agent writes a line. Its sequence.
    pub(crate) fn adds(&mut self, machine: &str, draft: Draft) -> u64 {
        let tip = self.tips.get(machine).cloned().unwrap_or_default();
        let wall_ms = 1_700_000_000_000 + u64::try_from(self.at.as_millis()).expect("small");
        let line = seal(&tip, wall_ms, draft);
        self.tips.insert(machine.to_owned(), line.tip());
        self.agent_says(machine, Fact::JournalLine { line: line.to_text() });
        line.sequence
    }

    /// The machine's agent reads its journal and finds all of it.
    pub(crate) fn opens_journal(&mut self, machine: &str) -> &mut Self {
        let Tip { next_sequence, hash } = self.tips.get(machine).cloned().unwrap_or_default();
        self.agent_says(machine, Fact::JournalOpened { next_sequence, hash, broken: false })
    }

    /// An intent with the step that it is of, begun.
    pub(crate) fn begins(&mut self, machine: &str, step: StepFact) -> &mut Self {
        self.writes(machine, draft_of(RecordKind::Intent, &step));
        self.agent_says(machine, Fact::StepBegan(step))
    }

    /// The step ends, with its outcome written.
    pub(crate) fn ends_step(&mut self, machine: &str, step: StepFact) -> &mut Self {
        self.agent_says(machine, Fact::StepEnded { step: step.step, result: "done" });
        self.writes(machine, draft_of(RecordKind::Outcome, &step))
    }

    /// What was told since the last time.
    pub(crate) fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// How a rule judges the whole of it.
    pub(crate) fn judged_by(&mut self, rule: impl Invariant + 'static) -> Result<(), Violation> {
        let mut checker = Checker::of(vec![Box::new(rule)]);
        self.take().iter().try_for_each(|event| checker.observe(event))?;
        checker.finish()
    }

    /// A rule finds nothing wrong.
    #[track_caller]
    pub(crate) fn passes(&mut self, rule: impl Invariant + 'static) {
        self.judged_by(rule).expect("nothing is wrong with this history");
    }

    /// A rule finds this wrong.
    #[track_caller]
    pub(crate) fn breaks(&mut self, rule: impl Invariant + 'static, what: &str) {
        let violation = self.judged_by(rule).expect_err("this history breaks the rule");
        assert!(violation.what.contains(what), "{violation}");
    }
}

pub(crate) fn leader(term: u64, member: u64) -> LeaderId {
    LeaderId { term, member }
}

pub(crate) fn id(term: u64, member: u64, index: u64) -> LogId {
    LogId { leader: leader(term, member), index }
}

pub(crate) fn entry(id: LogId) -> LogEntry {
    LogEntry { id, crc: u32::try_from(id.index * 100 + id.leader.term).expect("small"), voters: None }
}

pub(crate) fn appended(ids: &[LogId]) -> Fact {
    Fact::Appended { entries: ids.iter().copied().map(entry).collect() }
}

pub(crate) fn vote(term: u64, member: u64, committed: bool) -> Vote {
    Vote { leader: leader(term, member), committed }
}

pub(crate) fn voted(term: u64, member: u64, committed: bool) -> Fact {
    Fact::VoteStored { vote: vote(term, member, committed) }
}

/// A member of a cluster of three.
pub(crate) fn opened(raft_id: u64, vote: Option<Vote>, last_log: Option<LogId>) -> Fact {
    let voters = vec![[1, 2, 3].into_iter().collect()];
    let applied = Some(id(0, 0, 0));
    Fact::MemberOpened { cluster: "c".to_owned(), raft_id, vote, last_log: last_log.max(applied), applied, voters }
}

pub(crate) fn fence(round: u64, holder: &str) -> Fence {
    Fence { epoch: 1, round, holder: holder.to_owned() }
}

/// A restart of the target, by an operator.
pub(crate) fn restart(step: u64, target: &str, fence: Option<Fence>) -> StepFact {
    let (action, target) = ("restart_node".to_owned(), target.to_owned());
    StepFact { step, action, target, disruptive: true, fence, incident: None }
}

/// A start of a dead node.
pub(crate) fn start(step: u64, target: &str) -> StepFact {
    let (action, target) = ("start_node".to_owned(), target.to_owned());
    StepFact { step, action, incident: Some(format!("{target}-1")), target, disruptive: false, fence: None }
}

/// A line about a step.
pub(crate) fn draft_of(kind: RecordKind, step: &StepFact) -> Draft {
    let known = |action: &&Action| action.as_str() == step.action;
    let mut draft = Draft::new(kind, *Action::ALL.iter().find(known).expect("an action"));
    draft.step = Some(step.step);
    draft.grade = Some(if step.disruptive { Grade::RESTART } else { Grade::RELIEVE });
    draft.with("node_id", step.target.as_str())
}
