//! The cascades that were found and whose incidents are not over: one per host.
//!
//! Owns: which failures they explain, and when they were last heard of. Must never: find one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Pattern, Place};
use crate::types::{FailureKind, Mode};

/// Cascades at a time: one per host, and with more hosts than this in one the cluster has another name for it.
pub const MAX_ACTIVE: usize = 32;

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Active {
    pub(super) place: Place,
    pub(super) initial: FailureKind,
    kinds: BTreeSet<FailureKind>,
    /// Patterns found since it was last quiet.
    found: BTreeSet<usize>,
    /// The longest of their windows, in milliseconds.
    window: i64,
    /// Its newest failure, on the agent's clock in milliseconds.
    last: i64,
    /// The newest failure of its kinds on its place, also after it had been quiet.
    heard: i64,
}

impl Active {
    fn live(&self, now: i64) -> bool {
        now - self.last < self.window
    }
}

/// All of them, by host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Actives {
    hosts: BTreeMap<String, Active>,
}

impl Actives {
    /// A failure came in: the host of the live cascade that explains it. What one explains is made no part of another.
    pub(super) fn explain(&mut self, now: i64, at: i64, kind: FailureKind, places: &[Place]) -> Option<String> {
        let mut explained = None;
        for (host, active) in &mut self.hosts {
            let here = places.iter().any(|place| place.host == *host && place.meets(&active.place));
            if !here || !active.kinds.contains(&kind) {
                continue;
            }
            active.heard = active.heard.max(at);
            if active.live(now) {
                active.last = active.last.max(at);
                explained.get_or_insert_with(|| host.clone());
            } else {
                // It was quiet: what comes now is a cascade of its own, if it is one at all.
                active.found.clear();
            }
        }
        explained
    }

    /// Whether the pattern was found on this host since it was last quiet: it counts once.
    pub(super) fn has(&self, host: &str, pattern: usize) -> bool {
        self.hosts.get(host).is_some_and(|active| active.found.contains(&pattern))
    }

    /// Whether what is found on this host can be kept: it has a cascade, or there is room for one.
    pub(super) fn takes(&self, host: &str) -> bool {
        self.hosts.contains_key(host) || self.hosts.len() < MAX_ACTIVE
    }

    /// A pattern was found at this place, its last failure then.
    pub(super) fn begin(&mut self, index: usize, pattern: &Pattern, place: &Place, last: i64) {
        let active = self.hosts.entry(place.host.clone()).or_insert_with(|| Active {
            place: place.clone(),
            initial: pattern.initial,
            kinds: BTreeSet::new(),
            found: BTreeSet::new(),
            window: 0,
            last,
            heard: last,
        });
        if active.place != *place {
            // Two of its disks: what they have in common is the host. Then every word of it counts.
            active.place.disk = None;
        }
        active.kinds.extend(pattern.kinds());
        active.found.insert(index);
        active.window = active.window.max(millis(pattern.window));
        active.last = active.last.max(last);
        active.heard = active.heard.max(last);
    }

    pub(super) fn end(&mut self, host: &str) {
        self.hosts.remove(host);
    }

    pub(super) fn get(&self, host: &str) -> Option<&Active> {
        self.hosts.get(host)
    }

    /// The host whose live cascade causes incidents of this mode at this place.
    pub(super) fn over(&self, now: i64, place: &Place, mode: Mode) -> Option<&str> {
        let (host, active) = self.hosts.get_key_value(&place.host)?;
        let causes = active.kinds.iter().any(|kind| kind.causes().contains(&mode));
        (causes && active.live(now) && place.meets(&active.place)).then_some(host.as_str())
    }

    /// Milliseconds in which nothing more has to happen on this host until it counts as quiet.
    pub(super) fn quiet_in(&self, now: i64, host: &str) -> i64 {
        self.hosts.get(host).map_or(0, |active| (active.heard + active.window - now).max(0))
    }

    /// The places of those that are live.
    pub(super) fn live(&self, now: i64) -> Vec<String> {
        self.hosts.values().filter(|active| active.live(now)).map(|active| active.place.to_string()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }
}

pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2)
}
