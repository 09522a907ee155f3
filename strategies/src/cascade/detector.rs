//! Finds patterns among failures: see the module above for what makes a path.
//!
//! Failures are taken in the order in which they come in, which is the order in which the node noticed them; their age
//! only says when that was. A cascade that was found is *live* until nothing more happened on its place for its window;
//! until then everything there is part of it, and a pattern counts once. It stays known, and takes in what comes, until
//! [`Detector::end`]: its incident was closed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::active::{Actives, millis};
use super::place::MAX_PLACES;
use super::{CascadeStatus, Cascades, Failure, Found, HOUR, Pattern, PatternStatus, Place, RETENTION};
use crate::types::{FailureKind, Mode, Moment, Severity};

/// Failures remembered of one kind: a flood of one kind drives out none of another, and a match takes the newest.
pub const MAX_PER_KIND: usize = 128;
/// Times remembered that a pattern was found in an hour: they are told apart from 3 on by nothing.
const MAX_TIMES: usize = 64;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Event {
    /// Milliseconds of the agent's clock; negative before its start.
    at: i64,
    order: u64,
    subject: String,
    places: Vec<Place>,
}

impl Event {
    fn lies_on(&self, path: &Place) -> bool {
        self.places.iter().any(|place| place.lies_on(path))
    }
}

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Detector {
    patterns: Vec<Pattern>,
    /// Times within an hour that make an emergency.
    emergency_at: usize,
    events: BTreeMap<FailureKind, VecDeque<Event>>,
    active: Actives,
    /// When each pattern was found.
    times: Vec<VecDeque<i64>>,
    counts: BTreeMap<FailureKind, u64>,
    unknown: u64,
    order: u64,
    newest: i64,
}

impl Detector {
    /// A detector that has seen nothing.
    pub fn new(cascades: &Cascades) -> Self {
        let patterns = cascades.all();
        Self {
            times: vec![VecDeque::new(); patterns.len()],
            patterns,
            emergency_at: cascades.emergency_at as usize,
            events: BTreeMap::new(),
            active: Actives::default(),
            counts: BTreeMap::new(),
            unknown: 0,
            order: 0,
            newest: i64::MIN,
        }
    }

    /// Goes on by other patterns, with the failures seen so far. Cascades that are live are those of the old patterns: they are
    /// forgotten, unless nothing changed; how often a pattern was found is kept by its name.
    pub fn adopt(&mut self, cascades: &Cascades) {
        self.emergency_at = cascades.emergency_at as usize;
        let patterns = cascades.all();
        if patterns == self.patterns {
            return;
        }
        let times = |pattern: &Pattern| {
            let known = self.patterns.iter().position(|known| known.name == pattern.name);
            known.and_then(|index| self.times.get(index).cloned()).unwrap_or_default()
        };
        self.times = patterns.iter().map(times).collect();
        self.patterns = patterns;
        self.active = Actives::default();
    }

    /// Takes one failure and says which patterns it completes.
    pub fn observe(&mut self, now: Moment, failure: Failure) -> Vec<Found> {
        let Failure { kind, subject, mut places, age } = failure;
        *self.counts.entry(kind).or_default() += 1;
        self.expire(now);
        let now = millis(now.0);
        // An answer that took long makes its failures seem younger than those that came after them.
        let at = (now - millis(age)).max(self.newest);
        if now - at > millis(RETENTION) {
            return Vec::new();
        }
        self.newest = at;
        places.truncate(MAX_PLACES);
        let event = Event { at, order: self.order, subject, places };
        self.order += 1;
        let explained = self.active.explain(now, at, kind, &event.places);
        let found = (0..self.patterns.len())
            .filter_map(|index| self.completed(index, kind, &event, explained.as_deref()))
            .collect();
        let known = self.events.entry(kind).or_default();
        if known.len() >= MAX_PER_KIND {
            known.pop_front();
        }
        known.push_back(event);
        found
    }

    /// A failure of a kind that this agent does not know.
    pub fn unknown(&mut self) {
        self.unknown += 1;
    }

    fn completed(&mut self, index: usize, kind: FailureKind, last: &Event, only: Option<&str>) -> Option<Found> {
        let pattern = self.patterns.get(index)?;
        // Completed before this agent's life: that life has told it, or nobody was there to act.
        if pattern.kinds().next_back() != Some(kind) || last.at < 0 {
            return None;
        }
        let (place, trace) = self.paths(last).into_iter().find_map(|path| {
            let meant = only.is_none_or(|host| host == path.host);
            meant.then(|| self.trace(index, last, &path).map(|trace| (path, trace))).flatten()
        })?;
        if !self.active.takes(&place.host) {
            return None;
        }
        let began = trace.first().map_or(last.at, |(_, event)| event.at);
        let seen: Vec<String> = trace
            .iter()
            .map(|(kind, event)| format!("{kind} of {} after {} ms", event.subject, event.at - began))
            .collect();
        let pattern = pattern.clone();
        let times = self.times.get_mut(index)?;
        if times.len() >= MAX_TIMES {
            times.pop_front();
        }
        times.push_back(last.at);
        let times = times.len();
        self.active.begin(index, &pattern, &place, last.at);
        let within = format!("within {} s, {times} in the hour", pattern.window.as_secs());
        let evidence = format!("{} on {place}: {} ({within})", pattern.name, seen.join(", "));
        Some(Found {
            pattern: pattern.name,
            initial: pattern.initial,
            place,
            evidence,
            began: Moment(Duration::from_millis(u64::try_from(began).unwrap_or(0))),
            times,
            severity: severity(times, self.emergency_at),
        })
    }

    /// The places that a cascade ending with this failure could be on: hosts before disks, so that a disk is only named
    /// where one of its failures is.
    fn paths(&self, last: &Event) -> Vec<Place> {
        let hosts: BTreeSet<&str> = last.places.iter().map(|place| place.host.as_str()).collect();
        let told = self.events.values().flatten().chain([last]).flat_map(|event| &event.places);
        let disks: BTreeSet<Place> =
            told.filter(|place| place.disk.is_some() && hosts.contains(place.host.as_str())).cloned().collect();
        hosts.into_iter().map(Place::host).chain(disks).collect()
    }

    /// The failures of a pattern that ends with this one, oldest first. Of each stage the newest that fits: if any choice
    /// fits into the window, that one does.
    fn trace<'a>(&'a self, index: usize, last: &'a Event, path: &Place) -> Option<Vec<(FailureKind, &'a Event)>> {
        let pattern = self.patterns.get(index)?;
        if !last.lies_on(path) || self.active.has(&path.host, index) {
            return None;
        }
        let oldest = last.at - millis(pattern.window);
        let mut kinds = pattern.kinds().rev();
        let mut trace = vec![(kinds.next()?, last)];
        let mut before = last.order;
        for kind in kinds {
            let fits = |event: &&Event| event.order < before && event.at >= oldest && event.lies_on(path);
            let event = self.events.get(&kind)?.iter().rev().find(fits)?;
            before = event.order;
            trace.push((kind, event));
        }
        trace.reverse();
        Some(trace)
    }

    /// The cascade on this host is over.
    pub fn end(&mut self, host: &str) {
        self.active.end(host);
    }

    /// A cascade whose incident an earlier life of the agent left open. What happened meanwhile is not known: it counts
    /// as live from now.
    pub fn resume(&mut self, now: Moment, place: Place, pattern: Option<&str>) {
        let index = self.patterns.iter().position(|known| Some(known.name.as_str()) == pattern);
        // A pattern that was taken out of the configuration meanwhile: the longest window is the careful one.
        let longest = || self.patterns.iter().enumerate().max_by_key(|(_, known)| known.window).map(|(index, _)| index);
        if let Some(index) = index.or_else(longest).filter(|_| self.active.takes(&place.host)) {
            self.active.begin(index, &self.patterns[index], &place, millis(now.0));
        }
    }

    /// A time that an earlier life of the agent found the pattern.
    pub fn restore(&mut self, now: Moment, pattern: &str, age: Duration) {
        let Some(index) = self.patterns.iter().position(|known| known.name == pattern) else { return };
        if age < HOUR && self.times[index].len() < MAX_TIMES {
            self.times[index].push_back(millis(now.0) - millis(age));
        }
    }

    /// The cascade that this place is part of, while it is live, and whether it causes what the mode names.
    pub fn over(&self, now: Moment, place: &Place, mode: Mode) -> Option<&str> {
        self.active.over(millis(now.0), place, mode)
    }

    /// What began the cascade on this host, and its place.
    pub fn root(&self, host: &str) -> Option<(FailureKind, &Place)> {
        self.active.get(host).map(|active| (active.initial, &active.place))
    }

    /// For how long nothing more has to happen on this host until its cascade counts as ended.
    pub fn quiet_in(&self, now: Moment, host: &str) -> Duration {
        Duration::from_millis(u64::try_from(self.active.quiet_in(millis(now.0), host)).unwrap_or(0))
    }

    /// Why disruptive steps are to wait: the places where a cascade is live.
    pub fn brake(&self, now: Moment) -> Option<String> {
        let live = self.active.live(millis(now.0));
        (!live.is_empty()).then(|| format!("a cascade is under way on {}", live.join(", ")))
    }

    /// Failures remembered.
    pub fn remembered(&self) -> usize {
        self.events.values().map(VecDeque::len).sum()
    }

    /// Cascades that are not over.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// For people and machines.
    pub fn status(&self, now: Moment) -> CascadeStatus {
        let now = millis(now.0);
        let patterns = self.patterns.iter().zip(&self.times).map(|(pattern, times)| {
            let in_hour = times.iter().filter(|at| now - **at < millis(HOUR)).count();
            let last = times.back().filter(|_| in_hour > 0).map(|at| u64::try_from(now - at).unwrap_or(0));
            PatternStatus {
                name: pattern.name.clone(),
                initial: pattern.initial,
                then: pattern.then.clone(),
                window_ms: u64::try_from(pattern.window.as_millis()).unwrap_or(u64::MAX),
                in_hour,
                last_age_ms: last,
                severity: (in_hour > 0).then(|| severity(in_hour, self.emergency_at)),
            }
        });
        CascadeStatus {
            total_events: self.counts.values().sum::<u64>() + self.unknown,
            by_type: self.counts.clone(),
            unknown_events: self.unknown,
            patterns: patterns.collect(),
        }
    }

    fn expire(&mut self, now: Moment) {
        let now = millis(now.0);
        for events in self.events.values_mut() {
            while events.front().is_some_and(|event| now - event.at > millis(RETENTION)) {
                events.pop_front();
            }
        }
        for times in &mut self.times {
            while times.front().is_some_and(|at| now - at >= millis(HOUR)) {
                times.pop_front();
            }
        }
    }
}

fn severity(times: usize, emergency_at: usize) -> Severity {
    if times >= emergency_at { Severity::Emergency } else { Severity::Critical }
}
