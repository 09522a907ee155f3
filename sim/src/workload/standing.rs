//! Which version of a key certainly is the present one, from what clients were told.
//!
//! Must never: guess. A write whose outcome is unknown may take effect at any later time, and of two writes under way
//! together nobody knows the order.

use std::collections::{BTreeMap, BTreeSet};

/// What a change of a key came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// This version was stored.
    Stored(String),
    /// It was deleted.
    Deleted,
    /// Certainly nothing was changed.
    Nothing,
    /// Nobody knows.
    Unknown,
}

#[derive(Default)]
struct Standing {
    under_way: u32,
    overlapped: bool,
    tangled: bool,
    version: Option<String>,
}

/// The standing of every key.
#[derive(Default)]
pub(crate) struct Standings(BTreeMap<String, Standing>);

impl Standings {
    /// A change of `key` is about to be sent.
    pub(crate) fn begin(&mut self, key: &str) {
        let standing = self.0.entry(key.to_owned()).or_default();
        standing.overlapped |= standing.under_way > 0;
        standing.under_way += 1;
    }

    /// It has ended.
    pub(crate) fn end(&mut self, key: &str, ended: Ended) {
        let Some(standing) = self.0.get_mut(key) else { return };
        standing.under_way = standing.under_way.saturating_sub(1);
        match ended {
            Ended::Stored(version) => standing.version = (!standing.overlapped).then_some(version),
            Ended::Deleted => standing.version = None,
            Ended::Unknown => standing.tangled = true,
            Ended::Nothing => {}
        }
        standing.overlapped &= standing.under_way > 0;
    }

    /// The versions that certainly are present.
    pub(crate) fn settled(&self) -> BTreeSet<String> {
        let settled = self.0.values().filter(|standing| standing.under_way == 0 && !standing.tangled);
        settled.filter_map(|standing| standing.version.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(standings: &mut Standings, key: &str, version: &str) {
        standings.begin(key);
        standings.end(key, Ended::Stored(version.to_owned()));
    }

    #[test]
    fn the_last_acknowledged_version_stands_until_somebody_may_have_changed_it() {
        let mut standings = Standings::default();
        stored(&mut standings, "a", "1");
        stored(&mut standings, "a", "2");
        assert_eq!(standings.settled(), BTreeSet::from(["2".to_owned()]));
        standings.begin("a");
        assert!(standings.settled().is_empty(), "a change is under way");
        standings.end("a", Ended::Nothing);
        assert_eq!(standings.settled(), BTreeSet::from(["2".to_owned()]));
        standings.begin("a");
        standings.end("a", Ended::Unknown);
        stored(&mut standings, "a", "3");
        assert!(standings.settled().is_empty(), "what nobody knows of may come later");
    }

    #[test]
    fn of_two_at_a_time_nobody_knows_which_came_last() {
        let mut standings = Standings::default();
        standings.begin("a");
        standings.begin("a");
        standings.end("a", Ended::Stored("1".to_owned()));
        standings.end("a", Ended::Stored("2".to_owned()));
        assert!(standings.settled().is_empty());
        stored(&mut standings, "a", "3");
        assert_eq!(standings.settled(), BTreeSet::from(["3".to_owned()]));
        standings.begin("a");
        standings.end("a", Ended::Deleted);
        assert!(standings.settled().is_empty());
    }
}
