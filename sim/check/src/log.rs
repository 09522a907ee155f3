//! What is known of one member's log from the facts it stated.
//!
//! A crash may swallow the fact of an append that had become durable. So a log may hold entries that nobody told of:
//! they are [`Held::Unknown`], and rules treat them kindly.

use std::collections::BTreeMap;

use resilver_host::audit::{LogId, Voters};

/// What a log holds at one index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// This entry.
    Is(LogId),
    /// Nothing: the log ends before.
    Nothing,
    /// It was purged, or lies in a snapshot: the state machine has it.
    Purged,
    /// Something that no fact told of.
    Unknown,
}

/// A member's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    entries: BTreeMap<u64, LogId>,
    memberships: BTreeMap<u64, Voters>,
    /// The last one purged, or put in place by a snapshot.
    purged: Option<LogId>,
    last: Option<LogId>,
}

impl Log {
    /// The last entry, purged ones included.
    pub fn last(&self) -> Option<LogId> {
        self.last
    }

    /// What it holds at `index`.
    pub fn at(&self, index: u64) -> Held {
        match self.entries.get(&index) {
            Some(id) => Held::Is(*id),
            None if self.purged.is_some_and(|purged| index <= purged.index) => Held::Purged,
            None if self.last.is_none_or(|last| index > last.index) => Held::Nothing,
            None => Held::Unknown,
        }
    }

    /// Whether it may hold this entry, as far as is known.
    pub fn may_hold(&self, id: LogId) -> bool {
        match self.at(id.index) {
            Held::Is(held) => held == id,
            Held::Nothing => false,
            Held::Purged | Held::Unknown => true,
        }
    }

    /// The known entries from `index` on.
    pub fn from(&self, index: u64) -> impl Iterator<Item = LogId> + '_ {
        self.entries.range(index..).map(|(_, id)| *id)
    }

    /// The membership in force: the last one in the log, committed or not. With its index.
    pub fn voters(&self) -> Option<(u64, &Voters)> {
        self.memberships.last_key_value().map(|(index, voters)| (*index, voters))
    }

    /// An entry was added behind the end.
    pub fn append(&mut self, id: LogId, voters: Option<&Voters>) {
        self.entries.insert(id.index, id);
        if let Some(voters) = voters {
            self.memberships.insert(id.index, voters.clone());
        }
        self.last = Some(id);
    }

    /// Entries from `from` on are gone.
    pub fn truncate(&mut self, from: u64) {
        self.entries.split_off(&from);
        self.memberships.split_off(&from);
        self.last = self.entries.last_key_value().map(|(_, id)| *id).or(self.purged);
    }

    /// Entries up to `through` are gone from here, not from the state machine.
    pub fn purge(&mut self, through: LogId) {
        self.entries = self.entries.split_off(&(through.index + 1));
        self.purged = self.purged.max(Some(through));
        if self.last.is_none_or(|last| last.index < through.index) {
            self.last = Some(through);
        }
    }

    /// The membership that a state has which reaches to `index`.
    pub fn state_voters(&mut self, index: u64, voters: &Voters) {
        if !voters.is_empty() {
            self.memberships.retain(|at, _| *at > index);
            self.memberships.insert(index, voters.clone());
        }
    }

    /// The member read its files anew, and they end here.
    pub fn reopen(&mut self, last: Option<LogId>) {
        let Some(last) = last else {
            *self = Log::default();
            return;
        };
        self.entries.split_off(&(last.index + 1));
        self.memberships.split_off(&(last.index + 1));
        if self.purged.is_none_or(|purged| purged.index < last.index) {
            self.entries.insert(last.index, last);
        }
        self.last = Some(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::id;

    #[test]
    fn a_log_knows_what_it_was_told_and_what_it_was_not() {
        let mut log = Log::default();
        for index in 0..5 {
            log.append(id(1, 1, index), None);
        }
        log.purge(id(1, 1, 1));
        log.truncate(4);
        assert_eq!((log.at(1), log.at(3), log.at(4)), (Held::Purged, Held::Is(id(1, 1, 3)), Held::Nothing));
        log.reopen(Some(id(2, 1, 9)));
        assert_eq!((log.at(6), log.at(9), log.at(10)), (Held::Unknown, Held::Is(id(2, 1, 9)), Held::Nothing));
        assert!(log.may_hold(id(2, 1, 7)) && !log.may_hold(id(3, 1, 9)));
    }

    #[test]
    fn the_membership_in_force_is_the_last_one_in_the_log() {
        let voters = |ids: &[u64]| vec![ids.iter().copied().collect()];
        let mut log = Log::default();
        log.append(id(1, 1, 0), Some(&voters(&[1])));
        log.append(id(1, 1, 1), Some(&voters(&[1, 2])));
        assert_eq!(log.voters(), Some((1, &voters(&[1, 2]))));
        log.truncate(1);
        assert_eq!(log.voters(), Some((0, &voters(&[1]))));
        log.state_voters(7, &voters(&[2, 3]));
        assert_eq!(log.voters(), Some((7, &voters(&[2, 3]))));
    }
}
