//! What the harness needs to know of the cluster to aim at it and to count: who leads, who holds the lease, who acts.
//!
//! Must never: be asked for a verdict. The checker has a model of its own.

use std::collections::BTreeMap;

use resilver_host::audit::Fact;
use resilver_sim_check::{Event, Happening, Stamped};
use serde_json::Value;

use crate::outcome::Coverage;

/// An agent that has just written an intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    /// Its machine.
    pub(crate) machine: String,
    /// Its process.
    pub(crate) pid: u32,
}

/// What is known now.
#[derive(Default)]
pub(crate) struct Views {
    /// Raft ids by process.
    members: BTreeMap<u32, u64>,
    /// Machines by Raft id.
    machines: BTreeMap<u64, String>,
    /// The newest term with a leader, and its machine.
    leader: Option<(u64, String)>,
    /// Who holds the lease, by process.
    holders: BTreeMap<u32, String>,
    /// The newest membership, by its entry: members that catch up tell of older ones.
    voters: (u64, Vec<u64>),
    /// Machines whose agents, as holders of the lease, granted a slot in the last tick.
    pub(crate) grants: Vec<String>,
    /// Intents of the last tick.
    pub(crate) intents: Vec<Intent>,
    /// What is worth a line of the trace, of the last tick: who and what.
    pub(crate) notes: Vec<(String, String)>,
}

impl Views {
    /// The machine of Raft's leader.
    pub(crate) fn leader(&self) -> Option<&str> {
        self.leader.as_ref().map(|(_, machine)| machine.as_str())
    }

    /// Its term.
    pub(crate) fn term(&self) -> Option<u64> {
        self.leader.as_ref().map(|(term, _)| *term)
    }

    /// The machine whose agent holds the lease (the one that took it last, should two think so).
    pub(crate) fn holder(&self) -> Option<&str> {
        self.holders.values().next_back().map(String::as_str)
    }

    /// The newest member of Raft on a machine.
    pub(crate) fn member_on(&self, machine: &str) -> Option<u64> {
        self.machines.iter().rev().find(|(_, on)| *on == machine).map(|(id, _)| *id)
    }

    /// The machines of the voters.
    pub(crate) fn voters(&self) -> Vec<String> {
        self.voters.1.iter().filter_map(|id| self.machines.get(id).cloned()).collect()
    }

    /// Takes in what happened in a tick.
    pub(crate) fn take(&mut self, events: &[Event], coverage: &mut Coverage) {
        self.intents.clear();
        self.grants.clear();
        self.notes.clear();
        for event in events {
            match event {
                Event::Fact(stamped) => self.fact(stamped, coverage),
                Event::Kernel { what: Happening::ProcessEnded { pid, .. }, .. } => {
                    self.holders.remove(pid);
                }
                Event::Kernel { .. } => {}
            }
        }
    }

    fn fact(&mut self, stamped: &Stamped, coverage: &mut Coverage) {
        let Stamped { machine, pid, .. } = stamped;
        match &stamped.fact {
            Fact::MemberOpened { raft_id, voters, applied, .. } => {
                self.members.insert(*pid, *raft_id);
                self.machines.insert(*raft_id, machine.clone());
                self.vote_set(applied.map_or(0, |id| id.index), voters.last().into_iter().flatten());
            }
            Fact::Appended { entries } => {
                for (id, voters) in entries.iter().filter_map(|entry| Some((entry.id, entry.voters.as_ref()?))) {
                    self.vote_set(id.index, voters.last().into_iter().flatten());
                }
            }
            Fact::VoteStored { vote } if vote.committed && self.members.get(pid) == Some(&vote.leader.member) => {
                coverage.count("elections");
                self.say(stamped, format!("leads term {}", vote.leader.term));
                if self.leader.as_ref().is_none_or(|(term, _)| *term <= vote.leader.term) {
                    self.leader = Some((vote.leader.term, machine.clone()));
                }
            }
            Fact::LeaseAcquired { fence } => {
                coverage.count("leases");
                self.say(stamped, format!("holds the lease, round {}", fence.round));
                self.holders.clear();
                self.holders.insert(*pid, machine.clone());
            }
            Fact::LeaseLost => {
                self.holders.remove(pid);
                self.say(stamped, "holds the lease no more".to_owned());
            }
            Fact::SlotGranted { target, step, .. } => {
                self.grants.push(machine.clone());
                self.say(stamped, format!("grants a slot for {step} on {target}"));
            }
            Fact::StepBegan(step) => {
                coverage.count("steps");
                coverage.count(&format!("step.{}", step.action));
                self.say(stamped, format!("begins {} of {}", step.action, step.target));
            }
            Fact::StepEnded { step, result } => self.say(stamped, format!("step {step}: {result}")),
            Fact::ShardVerified { path, sound: false } => {
                coverage.count("bad_shards_seen");
                self.say(stamped, format!("bad shard {path}"));
            }
            Fact::SnapshotInstalled { .. } => coverage.count("snapshots_installed"),
            Fact::StateTampered => {
                coverage.count("fault.tampered");
                self.say(stamped, "was tampered with".to_owned());
            }
            Fact::StateMended => {
                coverage.count("states_mended");
                self.say(stamped, "was mended".to_owned());
            }
            Fact::Truncated { .. } => coverage.count("truncations"),
            Fact::JournalLine { line } => self.journal(stamped, line, coverage),
            _ => {}
        }
    }

    /// A line of an agent's journal: what it is about is in the line itself.
    fn journal(&mut self, stamped: &Stamped, line: &str, coverage: &mut Coverage) {
        let Ok(record) = serde_json::from_str::<Value>(line) else { return };
        let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let detail = |key: &str| {
            let details = record.get("details").and_then(|details| details.get(key));
            details.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let kind = text("kind");
        match kind.as_str() {
            "intent" => self.intents.push(Intent { machine: stamped.machine.clone(), pid: stamped.pid }),
            "opened" => {
                coverage.count("incidents");
                coverage.count(&format!("incident.{}", text("mode")));
            }
            "note" if detail("severity") == "emergency" => coverage.count("emergencies"),
            "resolved" => coverage.count("recoveries"),
            "escalated" => coverage.count("escalations"),
            "refused" => coverage.count("refusals"),
            "reconciled" => coverage.count("reconciliations"),
            _ => {}
        }
        // What a reader of a trace asks next: which guard refused, why a person was asked, what proved it.
        let why = [detail("guard"), text("guard"), detail("evidence"), detail("resolution")];
        let why: Vec<&str> = why.iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
        let about = format!("{} {} {}", text("action"), text("mode"), text("incident"));
        self.say(stamped, format!("journal: {kind} {about}: {}", why.join("; ")));
    }

    fn vote_set<'a>(&mut self, index: u64, voters: impl Iterator<Item = &'a u64>) {
        let voters: Vec<u64> = voters.copied().collect();
        if !voters.is_empty() && index >= self.voters.0 {
            self.voters = (index, voters);
        }
    }

    fn say(&mut self, stamped: &Stamped, what: String) {
        self.notes.push((format!("{}/{}", stamped.machine, stamped.role), what));
    }
}
