//! Planted bugs: mistakes that can be switched on, one at a time, in a build made with the feature `planted-bugs`, to
//! show that the simulator catches each. Without the feature [`bug`] is a constant `false` and nothing of them is left.
//!
//! Invariant: at most one is on, from the start of the process to its end.

use std::fmt;

/// The variable that plants a bug in a process of its own.
pub const VARIABLE: &str = "RESILVER_PLANTED_BUG";

/// A mistake that somebody could make. In brackets: which invariant must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// The log takes an unreadable record in its middle for a torn tail and cuts there. [`log_kept`, `committed_kept`]
    TruncateAtBadRecord,
    /// The log acknowledges an append that was not synced; its header, and the vote, neither. [`log_kept`, `never_back`
    /// after a power loss]
    AckBeforeLogSync,
    /// A disk acknowledges a shard whose bytes and name were not synced. [`shards_durable`]
    AckBeforeShardSync,
    /// A vote is acknowledged and kept in memory only. [`never_back`, `one_leader_per_term`]
    ForgetVote,
    /// The lease's holder opens a slot without judging the cluster as it is now. [`quorum_kept`]
    ActOnStaleView,
    /// An agent begins a disruptive step without asking the lease's holder. [`one_disruptive_step`]
    SkipLease,
    /// A host's gate lets a fence pass that was overtaken. [`fence_respected`]
    ReuseOldFence,
    /// A scrub calls a shard sound whose checksum did not hold. [`rot_is_seen`]
    TrustBadShard,
    /// A dead node is started again and again, with no wait and no limit. [`starts_bounded`]
    RestartInLoop,
    /// A shard that should be moved aside is deleted. [`moved_aside`]
    DeleteNotAside,
    /// A home that is back tells the metadata that it has what a stand-in kept for it, before it has it. [`homes_hold`]
    DropHintEarly,
    /// A voter that hears no leader stands for election without asking whether the others do. [`clients_unharmed`]
    StandUnasked,
    /// A lost voter comes back as the voter that it was, on an empty log. [`log_kept`, `committed_kept`, `never_back`]
    WipeAndVote,
    /// A rebuilt shard holds zeros, with checksums that fit them. [`oracle.lost`, or `heals` by the full verification]
    RebuildGarbage,
    /// A person's word takes a disk away whatever is left without it. [`enough_shards`, or `heals`]
    GiveUpLastCopy,
    /// Two such words at a time each count upon the disk that the other one takes. [`enough_shards`, or `heals`]
    GiveUpTwoAtOnce,
    /// Mending a member's state skips a record, and does not look at what came out. [`heals` by the comparison of all members]
    ResyncSkipsRecord,
    /// A member that goes on alone does so in the epoch in which the others are. [`heals`]
    KeepOldEpoch,
    /// A disk that is emptied is called empty once half of it is. [`drained_is_empty`]
    DrainGivesUpEarly,
    /// What an agent did to its node is called taken back without the node being asked. [`treated`, `heals`]
    CallItUndone,
    /// An agent holds the lease whatever ails its own host. [`treated`]
    IllHolder,
    /// A node goes on from a backup beside one that is silent, and may have done so itself. [`committed_kept`]
    RestoreBesideSilent,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 22] = [
        Bug::TruncateAtBadRecord,
        Bug::AckBeforeLogSync,
        Bug::AckBeforeShardSync,
        Bug::ForgetVote,
        Bug::ActOnStaleView,
        Bug::SkipLease,
        Bug::ReuseOldFence,
        Bug::TrustBadShard,
        Bug::RestartInLoop,
        Bug::DeleteNotAside,
        Bug::DropHintEarly,
        Bug::StandUnasked,
        Bug::WipeAndVote,
        Bug::RebuildGarbage,
        Bug::GiveUpLastCopy,
        Bug::GiveUpTwoAtOnce,
        Bug::ResyncSkipsRecord,
        Bug::KeepOldEpoch,
        Bug::DrainGivesUpEarly,
        Bug::CallItUndone,
        Bug::IllHolder,
        Bug::RestoreBesideSilent,
    ];

    /// Its name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Bug::TruncateAtBadRecord => "truncate-at-bad-record",
            Bug::AckBeforeLogSync => "ack-before-log-sync",
            Bug::AckBeforeShardSync => "ack-before-shard-sync",
            Bug::ForgetVote => "forget-vote",
            Bug::ActOnStaleView => "act-on-stale-view",
            Bug::SkipLease => "skip-lease",
            Bug::ReuseOldFence => "reuse-old-fence",
            Bug::TrustBadShard => "trust-bad-shard",
            Bug::RestartInLoop => "restart-in-loop",
            Bug::DeleteNotAside => "delete-not-aside",
            Bug::DropHintEarly => "drop-hint-early",
            Bug::StandUnasked => "stand-unasked",
            Bug::WipeAndVote => "wipe-and-vote",
            Bug::RebuildGarbage => "rebuild-garbage",
            Bug::GiveUpLastCopy => "give-up-last-copy",
            Bug::GiveUpTwoAtOnce => "give-up-two-at-once",
            Bug::ResyncSkipsRecord => "resync-skips-record",
            Bug::KeepOldEpoch => "keep-old-epoch",
            Bug::DrainGivesUpEarly => "drain-gives-up-early",
            Bug::CallItUndone => "call-it-undone",
            Bug::IllHolder => "ill-holder",
            Bug::RestoreBesideSilent => "restore-beside-silent",
        }
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No bug of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no planted bug is called {0}: one of {names} expected", names = Bug::ALL.map(Bug::as_str).join(", "))]
pub struct UnknownBug(pub String);

impl std::str::FromStr for Bug {
    type Err = UnknownBug;
    fn from_str(text: &str) -> Result<Self, UnknownBug> {
        Bug::ALL.into_iter().find(|bug| bug.as_str() == text).ok_or_else(|| UnknownBug(text.to_owned()))
    }
}

/// Whether this mistake is to be made.
#[inline]
#[must_use]
pub fn bug(bug: Bug) -> bool {
    #[cfg(feature = "planted-bugs")]
    return planted::which() == Some(bug);
    #[cfg(not(feature = "planted-bugs"))]
    {
        let _ = bug;
        false
    }
}

#[cfg(feature = "planted-bugs")]
pub use planted::plant;

#[cfg(feature = "planted-bugs")]
mod planted {
    use std::sync::OnceLock;

    use super::{Bug, VARIABLE};

    /// Status when a bug cannot be planted: an error of the harness. A misspelt one would test nothing.
    const HARNESS_ERROR: i32 = 70;

    static PLANTED: OnceLock<Option<Bug>> = OnceLock::new();

    /// Plants a bug, or none, for the whole life of this process, whatever its environment says.
    ///
    /// # Panics
    /// When something was planted before, or asked for.
    pub fn plant(bug: Option<Bug>) {
        assert!(PLANTED.set(bug).is_ok(), "a bug is planted before anything else is done, and once");
    }

    pub(super) fn which() -> Option<Bug> {
        *PLANTED.get_or_init(|| {
            let text = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty())?;
            match text.parse() {
                Ok(bug) => Some(bug),
                Err(unknown) => {
                    eprintln!("{VARIABLE}: {unknown}");
                    std::process::exit(HARNESS_ERROR);
                }
            }
        })
    }
}

/// Damage to a member that no disk fault makes: records that are not what the log's entries made of them, a database that takes
/// long (its calls are the synchronous face of a disk, which no simulated disk can make wait), and a part in Raft that no sound
/// Raft plays.
#[cfg(feature = "planted-bugs")]
pub mod damage {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::time::Duration;

    /// What is done to records.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Tampering {
        /// There are more.
        Inserted,
        /// Some are gone.
        Removed,
        /// Some say something else.
        Changed,
    }

    /// Something that happens to records.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Slip {
        /// What.
        pub how: Tampering,
        /// To how many.
        pub records: u32,
        /// The digests that are kept in step with every change know of it, as they would of an entry that was applied wrongly;
        /// else it is done behind their back, as rot is.
        pub in_step: bool,
    }

    thread_local! {
        static WISHES: RefCell<BTreeMap<u64, Slip>> = const { RefCell::new(BTreeMap::new()) };
        static SLOW: RefCell<BTreeMap<u64, Duration>> = const { RefCell::new(BTreeMap::new()) };
        static ASTRAY: RefCell<BTreeMap<u64, Duration>> = const { RefCell::new(BTreeMap::new()) };
        static DELUDED: RefCell<BTreeMap<u64, u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// The next time that the member of this id applies anything, this happens.
    pub fn wish(member: u64, slip: Slip) {
        WISHES.with_borrow_mut(|wishes| wishes.insert(member, slip));
    }

    /// From now on each batch of entries takes the member of this id so long; zero: no longer than usual.
    pub fn slow(member: u64, batch: Duration) {
        SLOW.with_borrow_mut(|slow| slow.insert(member, batch));
    }

    /// From now on the member of this id takes no leader's word, and stands for election so often without asking whether anybody
    /// would have it, and without hearing who would; `None`: no longer.
    pub fn lead_astray(member: u64, every: Option<Duration>) {
        ASTRAY.with_borrow_mut(|astray| match every {
            Some(every) => astray.insert(member, every),
            None => astray.remove(&member),
        });
    }

    /// From now on the member of this id, which leads this term, tells none that it leads, and whoever asks that it leads still,
    /// with a quorum's word; `None`: no longer. A restart ends it, too: it is in its memory.
    pub fn delude(member: u64, term: Option<u64>) {
        DELUDED.with_borrow_mut(|deluded| match term {
            Some(term) => deluded.insert(member, term),
            None => deluded.remove(&member),
        });
    }

    /// No more damage is done.
    pub fn clear() {
        WISHES.take();
        SLOW.take();
        ASTRAY.take();
        DELUDED.take();
    }

    /// How often this member stands without asking.
    #[must_use]
    pub fn astray(member: u64) -> Option<Duration> {
        ASTRAY.with_borrow(|astray| astray.get(&member).copied())
    }

    /// The term that this member takes itself for the leader of.
    #[must_use]
    pub fn deluded(member: u64) -> Option<u64> {
        DELUDED.with_borrow(|deluded| deluded.get(&member).copied())
    }

    /// What is to happen at this member, now.
    #[must_use]
    pub fn due(member: u64) -> Option<Slip> {
        WISHES.with_borrow_mut(|wishes| wishes.remove(&member))
    }

    /// What a batch of entries takes this member on top of what it does.
    #[must_use]
    pub fn slowness(member: u64) -> Duration {
        SLOW.with_borrow(|slow| slow.get(&member).copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_is_found_by_its_name_and_no_other_is() {
        for bug in Bug::ALL {
            assert_eq!(bug.to_string().parse(), Ok(bug));
        }
        let unknown = "forget-votes".parse::<Bug>().expect_err("no such bug");
        assert!(unknown.to_string().contains("forget-vote,"), "{unknown}");
    }

    #[cfg(feature = "planted-bugs")]
    #[test]
    fn the_planted_bug_is_on_and_no_other() {
        plant(Some(Bug::ForgetVote));
        let on: Vec<Bug> = Bug::ALL.into_iter().filter(|known| bug(*known)).collect();
        assert_eq!(on, [Bug::ForgetVote]);
    }

    #[cfg(not(feature = "planted-bugs"))]
    #[test]
    fn without_the_feature_nothing_is_planted() {
        assert!(!Bug::ALL.into_iter().any(bug));
    }
}
