//! Whether the others can do without this member, which found that what it has stored of the metadata rots.
//!
//! Owns: what this member says of itself to whoever asks. Must never: let two members end that count on each other, as members
//! do whose disks rot alike, or that were away together: that would cost the quorum. So what a member found it says from then on;
//! what it decides it says *before* it asks for the last time; and whoever has decided counts as gone. Of two that both decided,
//! the later one asks after the other has said so, and goes on. Of two that only found something, the one with the lower number ends
//! first: the other one takes it for gone, and is not taken for gone by it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI32, Ordering};

use resilver_proto::internal::Stored;
use tokio::task::JoinSet;

use super::election::{Elections, question};
use super::raft::Node;
use crate::types::RaftId;

/// What a member found of its own metadata.
#[derive(Debug, Default)]
pub(super) struct Found(AtomicI32);

impl Found {
    pub(super) fn get(&self) -> Stored {
        Stored::try_from(self.0.load(Ordering::SeqCst)).unwrap_or_default()
    }

    pub(super) fn set(&self, stored: Stored) {
        self.0.store(stored.into(), Ordering::SeqCst);
    }
}

/// Whether a member that says this of itself can be counted on by `own`, which wants to end.
fn stays(own: Node, member: Node, stored: Stored) -> bool {
    match stored {
        Stored::Sound => true,
        Stored::Rots => member > own,
        Stored::Ends => false,
    }
}

impl Elections {
    /// Whether this member, which rots, may end: then it has said so, and nobody counts on it any more.
    pub(super) async fn may_end(&self) -> bool {
        self.stored.set(Stored::Rots);
        if !self.others_suffice().await {
            return false;
        }
        self.stored.set(Stored::Ends);
        let still = self.others_suffice().await;
        if !still {
            self.stored.set(Stored::Rots);
        }
        still
    }

    /// Whether the other voters that answer, and stay, are a majority without this member. Not when it votes alone.
    /// Asking is the question of an election, which changes nothing: whoever refuses is there as well.
    async fn others_suffice(&self) -> bool {
        let Ok(standing) = self.standing().await else { return false };
        let own = self.own();
        let mut asked = JoinSet::new();
        for (member, address) in standing.addresses.iter().filter(|(member, _)| **member != own) {
            let (links, member, deadline) = (self.links.clone(), *member, self.tuning.election_max);
            let address = links.address(RaftId(member)).unwrap_or_else(|| address.clone());
            // As one without a log: this one's may be what cannot be read.
            asked.spawn(async move { (member, question(&links, RaftId(member), &address, None, deadline).await) });
        }
        let answers = asked.join_all().await.into_iter();
        let counted =
            answers.filter(|(member, answer)| answer.as_ref().is_ok_and(|answer| stays(own, *member, answer.stored())));
        let there: BTreeSet<Node> = counted.map(|(member, _)| member).collect();
        standing.quorums.iter().all(|voters| voters.intersection(&there).count() > voters.len() / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two members at any two of the moments of [`Elections::may_end`]: what each asks last, it asks after it has said that it ends.
    #[test]
    fn of_two_members_that_rot_never_both_count_on_the_other() {
        assert!(stays(1, 2, Stored::Sound) && stays(2, 1, Stored::Sound));
        for (first, second) in [(1, 2), (2, 1)] {
            // Whoever has said so first is gone to the other one, whichever it is.
            assert!(!stays(second, first, Stored::Ends), "{second} counts on {first}");
            // Where both have found something, and none has decided, one of them may.
            assert_ne!(stays(second, first, Stored::Rots), stays(first, second, Stored::Rots));
        }
    }
}
