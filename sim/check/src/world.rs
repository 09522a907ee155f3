//! The cluster as the events tell it: which processes run, who is a member, what each member has durably.
//!
//! Rules look at the world as it was *before* the event that they judge; then the world takes the event in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use resilver_host::audit::{Fact, LogId, Vote, Voters};

use crate::event::{Event, Happening, Stamped};
use crate::log::Log;

/// Names a member of Raft, over all its lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberId {
    /// The cluster.
    pub cluster: String,
    /// Its Raft id there. Never used twice.
    pub raft_id: u64,
}

impl std::fmt::Display for MemberId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "member {}", self.raft_id)
    }
}

/// What is known of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it was seen last.
    pub machine: String,
    /// The process that it is.
    pub pid: u32,
    /// The last vote that is durable.
    pub vote: Option<Vote>,
    /// Its log.
    pub log: Log,
    /// A truncation from here on is under way.
    pub truncating: Option<u64>,
    /// What it applied last, in this life.
    pub applied: Option<LogId>,
    /// How far its state would survive a crash.
    pub durable_applied: Option<u64>,
    /// The highest index it said is committed, in any life.
    pub committed: Option<u64>,
}

/// A process that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    role: String,
    frozen_since: Option<Duration>,
}

/// The cluster.
#[derive(Clone, Debug, Default)]
pub struct World {
    now: Duration,
    processes: BTreeMap<(String, u32), Process>,
    members: BTreeMap<MemberId, Member>,
    /// Which member a process is.
    of_process: BTreeMap<(String, u32), MemberId>,
    /// When a member's process ended; removed when it runs again.
    down_since: BTreeMap<MemberId, Duration>,
    cut: BTreeMap<(String, String), Duration>,
    machines: BTreeSet<String>,
    faults_ever: bool,
}

impl World {
    /// The present.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Whether any fault was injected so far.
    pub fn faults_ever(&self) -> bool {
        self.faults_ever
    }

    /// All members ever seen.
    pub fn members(&self) -> impl Iterator<Item = (&MemberId, &Member)> {
        self.members.iter()
    }

    /// What is known of a member.
    pub fn member(&self, id: &MemberId) -> Option<&Member> {
        self.members.get(id)
    }

    /// The member that stated a fact about Raft: its process opened it.
    pub fn member_of(&self, stamped: &Stamped) -> Option<(&MemberId, &Member)> {
        let id = self.of_process.get(&(stamped.machine.clone(), stamped.pid))?;
        Some((id, self.members.get(id)?))
    }

    /// Whether a process runs, frozen or not.
    pub fn runs(&self, machine: &str, pid: u32) -> bool {
        self.processes.contains_key(&(machine.to_owned(), pid))
    }

    /// Whether a process of this role runs on the machine, and is not frozen.
    pub fn is_up(&self, machine: &str, role: &str) -> bool {
        let up = |((of, _), process): (&(String, u32), &Process)| {
            of == machine && process.role == role && process.frozen_since.is_none()
        };
        self.processes.iter().any(up)
    }

    /// Since when a member cannot take part: its process does not run, stands still, or reaches nobody. `None`: it can.
    pub fn down_since(&self, id: &MemberId) -> Option<Duration> {
        let member = self.members.get(id)?;
        let process = (member.machine.clone(), member.pid);
        let frozen = self.processes.get(&process).and_then(|process| process.frozen_since);
        [self.down_since.get(id).copied(), frozen, self.cut_off_since(&member.machine)].into_iter().flatten().min()
    }

    /// Since when every other machine is out of a machine's reach, one way or the other.
    fn cut_off_since(&self, machine: &str) -> Option<Duration> {
        let mut others = self.machines.iter().filter(|other| *other != machine).peekable();
        others.peek()?;
        let cut = |other: &String| {
            let there = self.cut.get(&(machine.to_owned(), other.clone()));
            let back = self.cut.get(&(other.clone(), machine.to_owned()));
            there.into_iter().chain(back).min().copied()
        };
        others.map(cut).collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// The newest membership that any member of the cluster knows of.
    pub fn voters(&self) -> Option<(String, Voters)> {
        let known = self.members.iter().filter_map(|(id, member)| Some((id, member.log.voters()?)));
        // The later epoch is the later name.
        let (id, (_, voters)) = known.max_by_key(|(id, (index, _))| (&id.cluster, *index))?;
        Some((id.cluster.clone(), voters.clone()))
    }

    /// Takes an event in.
    pub fn take(&mut self, event: &Event) {
        self.now = event.at();
        match event {
            Event::Fact(stamped) => self.fact(stamped),
            Event::Kernel { at, what } => self.happening(*at, what),
        }
    }

    fn happening(&mut self, at: Duration, what: &Happening) {
        match what {
            Happening::FaultsOn | Happening::Fault { .. } | Happening::PowerLost { .. } => self.faults_ever = true,
            Happening::Rotted { .. } | Happening::Wiped { .. } | Happening::ClockJumped { .. } => {
                self.faults_ever = true;
            }
            Happening::FaultsOff
            | Happening::PowerBack { .. }
            | Happening::FileRemoved { .. }
            | Happening::NotDurable { .. } => {}
            Happening::ProcessStarted { machine, role, pid } => {
                self.machines.insert(machine.clone());
                let process = Process { role: role.clone(), frozen_since: None };
                self.processes.insert((machine.clone(), *pid), process);
            }
            Happening::ProcessEnded { machine, pid, .. } => {
                let process = (machine.clone(), *pid);
                self.processes.remove(&process);
                if let Some(member) = self.of_process.remove(&process) {
                    self.down_since.insert(member, at);
                }
            }
            Happening::Frozen { machine, pid } => {
                self.faults_ever = true;
                if let Some(process) = self.processes.get_mut(&(machine.clone(), *pid)) {
                    process.frozen_since.get_or_insert(at);
                }
            }
            Happening::Thawed { machine, pid } => {
                if let Some(process) = self.processes.get_mut(&(machine.clone(), *pid)) {
                    process.frozen_since = None;
                }
            }
            Happening::Cut { from, to } => {
                self.faults_ever = true;
                self.cut.entry((from.clone(), to.clone())).or_insert(at);
            }
            Happening::Mended { from, to } => {
                self.cut.remove(&(from.clone(), to.clone()));
            }
        }
    }

    fn fact(&mut self, stamped: &Stamped) {
        let process = (stamped.machine.clone(), stamped.pid);
        if let Fact::MemberOpened { cluster, raft_id, vote, last_log, applied, voters } = &stamped.fact {
            let id = MemberId { cluster: cluster.clone(), raft_id: *raft_id };
            self.of_process.retain(|_, member| *member != id);
            let known = self.members.remove(&id);
            let durable_applied = applied.map(|id| id.index);
            let committed = durable_applied.max(known.as_ref().and_then(|known| known.committed));
            let mut log = known.map_or_else(Log::default, |known| known.log);
            log.reopen(*last_log);
            if let Some(applied) = applied {
                log.state_voters(applied.index, voters);
            }
            let member = Member {
                machine: stamped.machine.clone(),
                pid: stamped.pid,
                vote: *vote,
                log,
                truncating: None,
                applied: *applied,
                durable_applied,
                committed,
            };
            self.down_since.remove(&id);
            self.of_process.insert(process, id.clone());
            self.members.insert(id, member);
            return;
        }
        let Some(member) = self.of_process.get(&process).and_then(|id| self.members.get_mut(id)) else { return };
        match &stamped.fact {
            Fact::VoteStored { vote } => member.vote = Some(*vote),
            Fact::Appended { entries } => {
                entries.iter().for_each(|entry| member.log.append(entry.id, entry.voters.as_ref()));
            }
            Fact::Truncating { from } => member.truncating = Some(*from),
            Fact::Truncated { from } => {
                member.log.truncate(*from);
                member.truncating = None;
            }
            Fact::Purged { through } => member.log.purge(*through),
            Fact::Committed { id } => member.committed = member.committed.max(Some(id.index)),
            Fact::Applied { id, .. } => {
                member.applied = Some(*id);
                member.committed = member.committed.max(Some(id.index));
            }
            Fact::StateDurable { applied } => member.durable_applied = member.durable_applied.max(*applied),
            Fact::SnapshotInstalled { id, voters, .. } => {
                member.applied = *id;
                member.durable_applied = member.durable_applied.max(id.map(|id| id.index));
                member.committed = member.committed.max(id.map(|id| id.index));
                if let Some(id) = id {
                    member.log.state_voters(id.index, voters);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, opened};

    #[test]
    fn a_member_is_down_when_its_process_is_gone_still_or_out_of_reach() {
        let mut story = Story::default();
        let one = MemberId { cluster: "c".to_owned(), raft_id: 1 };
        let mut world = World::default();
        let tell = |story: &mut Story, world: &mut World| {
            story.take().iter().for_each(|event| world.take(event));
        };
        story.node("n1", 1).node("n2", 2).says("n1", opened(1, None, None));
        tell(&mut story, &mut world);
        assert_eq!(world.down_since(&one), None);
        story.later(5).kernel(Happening::Frozen { machine: "n1".to_owned(), pid: 1 });
        tell(&mut story, &mut world);
        assert_eq!(world.down_since(&one), Some(Duration::from_secs(5)));
        story.kernel(Happening::Thawed { machine: "n1".to_owned(), pid: 1 });
        story.later(1).kernel(Happening::Cut { from: "n2".to_owned(), to: "n1".to_owned() });
        tell(&mut story, &mut world);
        assert_eq!(world.down_since(&one), Some(Duration::from_secs(6)));
        story.kernel(Happening::Mended { from: "n2".to_owned(), to: "n1".to_owned() });
        story.later(1).kernel(Happening::ProcessEnded { machine: "n1".to_owned(), role: "node".to_owned(), pid: 1 });
        tell(&mut story, &mut world);
        assert_eq!(world.down_since(&one), Some(Duration::from_secs(7)));
        assert!(!world.is_up("n1", "node") && world.is_up("n2", "node"));
    }
}
