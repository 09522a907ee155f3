//! Which members that were slow have kept up for long enough to vote again. Pure but for the time it is told.
//!
//! Owns: since when each has kept up. Must never: count a time in which it was not looked at. A person's mark is none of its
//! business.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{ClusterMap, MarkedBy, NodeRecord};
use crate::types::{NodeName, RaftId};

/// Looks further apart than this prove nothing of what was between them.
const LOOK_GAP: Duration = Duration::from_secs(5);

/// Since when each has kept up, and when that was looked at last.
#[derive(Debug)]
pub(super) struct Proven {
    /// How long a member keeps up before it may vote again.
    kept_up: Duration,
    since: BTreeMap<NodeName, (RaftId, Instant)>,
    looked: Option<Instant>,
}

impl Proven {
    /// Nothing is known yet.
    pub(super) fn new(kept_up: Duration) -> Self {
        Self { kept_up, since: BTreeMap::new(), looked: None }
    }

    /// Nothing is known any more.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.kept_up);
    }

    /// Whether any member is being watched.
    pub(super) fn is_empty(&self) -> bool {
        self.since.is_empty()
    }

    /// Looks, and names a member whose mark is to be taken back.
    pub(super) fn due(&mut self, now: Instant, map: &ClusterMap, ready: impl Fn(RaftId) -> bool) -> Option<NodeName> {
        let gap = self.looked.replace(now).is_none_or(|before| now - before > LOOK_GAP);
        let is_slow = |node: &&NodeRecord| node.no_vote.as_ref().is_some_and(|mark| mark.by == MarkedBy::Automatic);
        let before = std::mem::take(&mut self.since);
        for node in map.nodes.values().filter(is_slow) {
            let known = before.get(&node.name).filter(|(id, _)| !gap && *id == node.raft_id && ready(node.raft_id));
            let since = known.map_or(now, |(_, since)| *since);
            self.since.insert(node.name.clone(), (node.raft_id, since));
        }
        let kept_up = |(_, (id, since)): &(&NodeName, &(RaftId, Instant))| ready(*id) && now - *since >= self.kept_up;
        self.since.iter().find(kept_up).map(|(name, _)| name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::membership::tests::map;
    use crate::model::Mark;

    const MINUTE: Duration = Duration::from_secs(60);

    fn slow(by: MarkedBy) -> ClusterMap {
        let mut map = map(&[""; 3]);
        map.nodes.get_mut(&"n2".into()).unwrap().no_vote = Some(Mark { by, reason: "slow".to_owned() });
        map
    }

    /// When the mark is due, looked at each second; `behind`: the seconds in which it was not caught up.
    fn due(map: &ClusterMap, behind: &[u64], seconds: u64) -> Option<u64> {
        let (mut proven, begun) = (Proven::new(MINUTE), Instant::now());
        (0..seconds).find(|second| {
            let ready = |id: RaftId| id == RaftId(2) && !behind.contains(second);
            proven.due(begun + Duration::from_secs(*second), map, ready).is_some()
        })
    }

    #[test]
    fn a_member_that_was_slow_votes_again_once_it_kept_up_for_a_minute() {
        assert_eq!(due(&slow(MarkedBy::Automatic), &[], 100), Some(60));
        assert_eq!(due(&slow(MarkedBy::Automatic), &[0, 1, 2], 100), Some(62));
        assert_eq!(due(&slow(MarkedBy::Automatic), &[30], 100), Some(90), "falling behind once begins it anew");
        assert_eq!(due(&slow(MarkedBy::Automatic), &[30, 60, 90], 100), None);
        assert_eq!(due(&slow(MarkedBy::Operator), &[], 100), None, "a person's word is a person's to take back");
        assert_eq!(due(&map(&[""; 3]), &[], 100), None);
    }

    #[test]
    fn what_nobody_looked_at_proves_nothing() {
        let (map, mut proven, begun) = (slow(MarkedBy::Automatic), Proven::new(MINUTE), Instant::now());
        let at = |second| begun + Duration::from_secs(second);
        assert_eq!(proven.due(at(0), &map, |_| true), None);
        assert_eq!(proven.due(at(61), &map, |_| true), None, "it was not looked at in between");
        let due = (62..=121).find(|second| proven.due(at(*second), &map, |_| true).is_some());
        assert_eq!(due, Some(121));
        proven.clear();
        assert_eq!(proven.due(at(122), &map, |_| true), None, "another led meanwhile");
    }
}
