//! Facts: what node and agent say they have done, for a checker that sees the whole cluster. Compiled to nothing
//! without the feature `audit`, which only the simulator sets.
//!
//! Owns: the words in which a fact is told. Must never: be read by the code that states it; change what it does.
//!
//! Invariants: a fact is stated after what it tells of has come true (for "durable": after the sync), unless its own
//! comment says that it is stated before. A crash may swallow a fact that came true, never the other way round. Facts
//! carry no time and no process: the listener knows both.

use std::collections::BTreeSet;

use serde::Serialize;

/// Who leads, as openraft has it: a term may be won again by a member with a higher id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LeaderId {
    /// The term.
    pub term: u64,
    /// The member's Raft id.
    pub member: u64,
}

/// Names an entry of the log: whose, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LogId {
    /// The leader that made it.
    pub leader: LeaderId,
    /// Its place.
    pub index: u64,
}

/// What a member has voted, or knows to be elected. Ordered: a later one is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Vote {
    /// For whom.
    pub leader: LeaderId,
    /// A majority has voted so.
    pub committed: bool,
}

/// Who votes: one set, two while the membership changes. A majority of each is needed.
pub type Voters = Vec<BTreeSet<u64>>;

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogEntry {
    /// Which.
    pub id: LogId,
    /// CRC32C of what is stored.
    pub crc: u32,
    /// The membership, if it carries one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voters: Option<Voters>,
}

/// A fence, as the agents' lease hands them out. Ordered: a later one is greater.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fence {
    /// The cluster's epoch.
    pub epoch: u64,
    /// The ballot's round.
    pub round: u64,
    /// The agent that holds.
    pub holder: String,
}

/// A step, as the agent that does it knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepFact {
    /// Its number on this agent.
    pub step: u64,
    /// What is done, as the journal calls it.
    pub action: String,
    /// The node it is done to.
    pub target: String,
    /// Whether it can take away something being served.
    pub disruptive: bool,
    /// Under which fence.
    pub fence: Option<Fence>,
    /// Of which incident; `None`: an operator asked for it.
    pub incident: Option<String>,
}

/// Something that has come true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "fact")]
pub enum Fact {
    /// A member of Raft opened its files. Every later fact of this process about Raft is this member's.
    MemberOpened {
        /// The cluster and its epoch: with those of another epoch this member has nothing to do.
        cluster: String,
        /// The member.
        raft_id: u64,
        /// Its vote, as read.
        vote: Option<Vote>,
        /// The last entry that it has, purged ones included, as read.
        last_log: Option<LogId>,
        /// The last entry applied, as read.
        applied: Option<LogId>,
        /// The membership as of the last entry applied.
        voters: Voters,
    },
    /// A vote is durable. Committed and for the member itself: it was elected.
    VoteStored {
        /// The vote.
        vote: Vote,
    },
    /// Entries are durable behind the log's end.
    Appended {
        /// In order.
        entries: Vec<LogEntry>,
    },
    /// Entries from here on are about to be dropped. Stated before.
    Truncating {
        /// The first of them.
        from: u64,
    },
    /// They are gone, durably.
    Truncated {
        /// The first of them.
        from: u64,
    },
    /// Entries up to this one are dropped: the state machine holds them durably.
    Purged {
        /// The last of them.
        through: LogId,
    },
    /// Everything up to here is committed, as this member knows.
    Committed {
        /// The last entry.
        id: LogId,
    },
    /// Everything up to here is applied.
    Applied {
        /// The last entry.
        id: LogId,
        /// Over all replicated tables.
        digest: u32,
    },
    /// The state machine would survive a crash up to here.
    StateDurable {
        /// The last index; `None`: nothing was applied yet.
        applied: Option<u64>,
    },
    /// Records slipped in that no entry of the log wrote: a fault of the simulator's.
    StateTampered,
    /// The state was made like the majority's, durably.
    StateMended,
    /// A snapshot took the state's place, durably.
    SnapshotInstalled {
        /// The last entry in it; `None`: it is empty.
        id: Option<LogId>,
        /// Over all replicated tables.
        digest: u32,
        /// The membership in it.
        voters: Voters,
    },
    /// An upload in parts becomes an object. Stated before: within the transaction that applies it.
    ObjectCompleted {
        /// The object's version.
        version: String,
        /// Its extents, as their shards' files are named, without the shard.
        extents: Vec<String>,
    },
    /// A revision of the cluster's map was applied. Stated before: within the transaction that applies it.
    DisksGivenUp {
        /// Which.
        revision: u64,
        /// All disks that a person had given up or detached, by node and folder, unless another disk is in use there.
        disks: Vec<(String, String)>,
    },
    /// A disk that is emptied is called empty.
    DiskDrained {
        /// Which.
        disk: String,
        /// Shards that have their home there all the same, by the records as applied where it is said.
        left: u64,
    },
    /// A shard, durable by now, is about to get its name. Stated before.
    ShardWritten {
        /// Its file.
        path: String,
    },
    /// A shard is durable under its name, and who sent it is about to be told so. Stated before.
    ShardKept {
        /// Its file.
        path: String,
    },
    /// The metadata is about to be told that a shard is in this file. Stated before.
    HomeRecorded {
        /// The file.
        path: String,
    },
    /// What was moved aside is about to be removed for good. Stated before.
    AsidePurged {
        /// The shard's name.
        shard: String,
    },
    /// A shard is about to be read whole. Stated before.
    ShardVerifying {
        /// Its file.
        path: String,
    },
    /// It was read and judged.
    ShardVerified {
        /// Its file.
        path: String,
        /// Whether every block matched its checksum.
        sound: bool,
    },
    /// An agent read its journal and goes on behind it.
    JournalOpened {
        /// The sequence of the next line.
        next_sequence: u64,
        /// The hash of the last line.
        hash: String,
        /// Whether the chain was found broken (and that was told).
        broken: bool,
    },
    /// A line was added; not durable yet.
    JournalLine {
        /// As it is stored.
        line: String,
    },
    /// The journal is durable up to here.
    JournalDurable {
        /// The last sequence.
        through: u64,
    },
    /// The agent holds the lease.
    LeaseAcquired {
        /// Under this fence.
        fence: Fence,
    },
    /// It does not any more, or does not know.
    LeaseLost,
    /// The holder let a disruptive step begin: its slot is open at a majority.
    SlotGranted {
        /// The node it is done to.
        target: String,
        /// Its name.
        step: String,
        /// Under which fence.
        fence: Fence,
    },
    /// The holder counts the target of an open slot as down: its slot holds nobody back any more.
    TargetDown {
        /// The node.
        target: String,
    },
    /// The gate of this host let a fence pass, or was raised to it; lower ones are refused from now on.
    FencePassed {
        /// The fence.
        fence: Fence,
    },
    /// The gate refused a fence.
    FenceRefused {
        /// The fence.
        fence: Fence,
    },
    /// A step is about to take effect: it has passed the gate. Stated before.
    StepBegan(StepFact),
    /// A step ended, whatever came of it.
    StepEnded {
        /// Its number.
        step: u64,
        /// `done`, `failed` or `refused`.
        result: &'static str,
    },
}

/// A fact that is made up before it comes true, because what it tells of is given away in between.
#[must_use]
pub struct Prepared(#[cfg(feature = "audit")] Fact);

impl Prepared {
    /// It has come true.
    pub fn state(self) {
        #[cfg(feature = "audit")]
        state(|| self.0);
    }
}

/// States a fact.
#[inline]
pub fn state(fact: impl FnOnce() -> Fact) {
    #[cfg(feature = "audit")]
    heard::tell(fact);
    #[cfg(not(feature = "audit"))]
    let _ = fact;
}

/// Makes up a fact that is about to come true.
#[inline]
pub fn prepare(fact: impl FnOnce() -> Fact) -> Prepared {
    #[cfg(feature = "audit")]
    return Prepared(fact());
    #[cfg(not(feature = "audit"))]
    {
        let _ = fact;
        Prepared()
    }
}

#[cfg(feature = "audit")]
pub use heard::{listen, unlisten};

#[cfg(feature = "audit")]
mod heard {
    use std::cell::RefCell;

    use super::Fact;

    /// Who listens. It must not state facts itself.
    type Sink = Box<dyn FnMut(Fact)>;

    thread_local! {
        static SINK: RefCell<Option<Sink>> = const { RefCell::new(None) };
    }

    /// From now on, hears what is stated on this thread.
    pub fn listen(sink: Sink) {
        SINK.with(|heard| *heard.borrow_mut() = Some(sink));
    }

    /// Nobody hears what is stated on this thread any more. Whoever listened, back.
    pub fn unlisten() -> Option<Sink> {
        SINK.with(|heard| heard.borrow_mut().take())
    }

    pub(super) fn tell(fact: impl FnOnce() -> Fact) {
        let listening = SINK.with(|heard| heard.borrow().is_some());
        if listening {
            let fact = fact();
            SINK.with(|heard| heard.borrow_mut().as_mut().map(|sink| sink(fact)));
        }
    }
}

#[cfg(all(test, feature = "audit"))]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn facts_reach_who_listens_and_nobody_else() {
        state(|| unreachable!("nobody listens: the fact is not even made up"));
        let heard = Rc::new(RefCell::new(Vec::new()));
        let sink = heard.clone();
        listen(Box::new(move |fact| sink.borrow_mut().push(fact)));
        let prepared = prepare(|| Fact::LeaseLost);
        state(|| Fact::Truncated { from: 7 });
        prepared.state();
        assert!(unlisten().is_some());
        state(|| unreachable!("as above"));
        assert_eq!(*heard.borrow(), [Fact::Truncated { from: 7 }, Fact::LeaseLost]);
    }

    #[test]
    fn later_votes_and_fences_are_greater() {
        let vote = |term, member, committed| Vote { leader: LeaderId { term, member }, committed };
        assert!(vote(2, 1, false) > vote(1, 9, true));
        assert!(vote(2, 3, false) > vote(2, 1, true));
        assert!(vote(2, 1, true) > vote(2, 1, false));
        let fence = |epoch, round, holder: &str| Fence { epoch, round, holder: holder.to_owned() };
        assert!(fence(2, 1, "a") > fence(1, 9, "z"));
        assert!(fence(1, 2, "b") > fence(1, 2, "a"));
    }
}
