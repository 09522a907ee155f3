//! `resource_exhaustion`: room, inodes, memory, descriptors or cores run out on this host, or are about to.
//!
//! Never: takes what was not read for plenty, or for none; does more than clean up and pause because of a prediction; restarts
//! anything, not even a process that leaks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::HostFact;
use crate::config::{PolicyConfig, ResourcePolicy};
use crate::engine::detect::State;
use crate::engine::detect::held::Held;
use crate::engine::facts::Life;
use crate::predict::{Kind, Prediction, Sample, SeriesId, TrendPolicy, Trends, in_words};
use crate::types::{Moment, Now};

/// Looks that must agree.
const LOOKS: u32 = 2;
/// How often trends are looked at anew.
const REVIEW_EVERY: Duration = Duration::from_secs(60);

/// What runs out: each asks for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// Room or inodes of a volume.
    Room,
    /// Memory or descriptors.
    Memory,
    /// Cores.
    Cores,
}

/// One of them over time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Watched {
    over: Held,
    full: Held,
    back: Held,
    /// It was over its threshold for long enough, and has not been back for long enough since: only what was the matter has to pass.
    #[serde(default)]
    was: bool,
    worst: String,
}

impl Watched {
    fn look(&mut self, now: Moment, readings: &[Reading<'_>], policy: &ResourcePolicy) {
        let gap = policy.good_for;
        self.over.look(now, readings.iter().any(|reading| reading.used >= reading.limit), gap);
        self.full.look(now, readings.iter().any(|reading| reading.used >= reading.full), gap);
        let back = |reading: &Reading<'_>| reading.used + policy.back <= reading.limit;
        self.back.look(now, readings.iter().all(back), gap);
        if let Some(worst) = readings.iter().max_by_key(|reading| reading.used.saturating_sub(reading.limit)) {
            self.worst = format!("{} {} {} per mille, limit {}", worst.what, worst.name, worst.used, worst.limit);
        }
    }
}

struct Reading<'a> {
    what: &'static str,
    name: &'a str,
    used: u32,
    limit: u32,
    full: u32,
}

/// The disk that a person is asked about stays the one it was until another is fuller by so much, per mille: disks of a node fill
/// evenly, and an approval must not grow stale because of a tenth of a percent.
const FULLER_BY: u32 = 10;

/// What was seen of the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Watch {
    room: Watched,
    memory: Watched,
    cores: Watched,
    at: Option<Moment>,
    trends: Trends,
    reviewed: Option<Moment>,
    /// Room or inodes that are expected to run out soon, in words.
    predicted: Option<String>,
    /// The same of memory or descriptors of the node's process.
    #[serde(default)]
    leaking: Option<String>,
    /// The process that the trends of its memory and descriptors are about.
    #[serde(default)]
    process: Option<Life>,
    fullest: Option<String>,
}

fn used(left: u64, total: u64) -> Option<u32> {
    let share = (total > 0).then(|| u128::from(total.saturating_sub(left)) * 1000 / u128::from(total))?;
    u32::try_from(share).ok()
}

impl Watch {
    pub(crate) fn new(trends: TrendPolicy) -> Self {
        let watched = Watched::default;
        Self {
            room: watched(),
            memory: watched(),
            cores: watched(),
            at: None,
            trends: Trends::new(trends),
            reviewed: None,
            predicted: None,
            leaking: None,
            process: None,
            fullest: None,
        }
    }

    /// Goes on by other figures.
    pub(crate) fn adopt(&mut self, trends: TrendPolicy) {
        self.trends.adopt(trends);
    }

    /// Takes a look at the host. `process`: the node's, while it runs.
    pub(crate) fn observe(&mut self, now: Now, fact: &HostFact, process: Option<Life>, policy: &PolicyConfig) {
        self.feed(now.mono, fact, process);
        let figures = &policy.resources;
        let reading =
            |what, name, used: Option<u32>, limit, full| used.map(|used| Reading { what, name, used, limit, full });
        let mut room = Vec::new();
        let mut fullest = None;
        for volume in &fact.volumes {
            let space = used(volume.available_bytes, volume.total_bytes);
            if let Some(space) = space.filter(|space| *space >= figures.disk_full && volume.name != "metadata") {
                let was = self.fullest.as_deref() == Some(volume.name.as_str());
                let counts = space + if was { FULLER_BY } else { 0 };
                fullest = fullest.max(Some((counts, was, volume.name.clone())));
            }
            room.extend(reading("room used of", &volume.name, space, figures.disk, figures.disk_full));
            let inodes = used(volume.inodes_free, volume.inodes_total);
            room.extend(reading("inodes used of", &volume.name, inodes, figures.inodes, figures.inodes_full));
        }
        self.fullest = fullest.map(|(_, _, name)| name);
        let memory =
            fact.memory_available_bytes.zip(fact.memory_total_bytes).and_then(|(left, total)| used(left, total));
        let open = fact.node_descriptors.zip(fact.node_descriptors_limit);
        let open = open.and_then(|(open, limit)| used(limit.saturating_sub(open), limit));
        let mut kept: Vec<Reading<'_>> =
            reading("memory", "used", memory, figures.memory, figures.memory_full).into_iter().collect();
        kept.extend(reading("descriptors", "used", open, figures.descriptors, figures.descriptors_full));
        // A kernel without PSI tells nobody's waiting: then what the cores did has to stand in.
        let (what, name, share, limit) = match fact.cpu_pressure_per_mille {
            Some(waiting) => ("time waiting for", "a core", Some(waiting), figures.cpu_pressure),
            None => ("busy time of", "all cores (this kernel tells no PSI)", fact.cpu_per_mille, figures.cpu_busy),
        };
        let cores = reading(what, name, share, limit, u32::MAX);
        // What was not read now says nothing: neither that it is over, nor that it is back.
        if !room.is_empty() {
            self.room.look(now.mono, &room, figures);
        }
        if !kept.is_empty() {
            self.memory.look(now.mono, &kept, figures);
        }
        if let Some(cores) = cores {
            self.cores.look(now.mono, &[cores], figures);
        }
        self.at = Some(now.mono);
        self.review(now, policy);
        self.room.was |= self.predicted.is_some();
        self.memory.was |= self.leaking.is_some();
        for of in [Of::Room, Of::Memory, Of::Cores] {
            let over = self.lasts(of, figures);
            let watched = self.of_mut(of);
            watched.was = over || (watched.was && !watched.back.lasts(figures.back_for, LOOKS));
        }
    }

    /// What is to be extrapolated. The process first: beyond [`MAX_SERIES`](crate::predict::MAX_SERIES) no new series is begun.
    #[expect(clippy::cast_precision_loss, reason = "trends of bytes and counts")]
    fn feed(&mut self, now: Moment, fact: &HostFact, process: Option<Life>) {
        let of_process = |kind| SeriesId { kind, subject: "the node's process".to_owned() };
        let (memory, descriptors) = (of_process(Kind::MemoryLeak), of_process(Kind::DescriptorLeak));
        if self.process != process {
            self.trends.forget(&memory);
            self.trends.forget(&descriptors);
            self.process = process;
        }
        // What it has, and what is left for it: others need memory, too.
        if let (Some(has), Some(left)) = (fact.node_resident_bytes, fact.memory_available_bytes) {
            self.trends.feed(now, memory, Sample { value: has as f64, end: has.saturating_add(left) as f64 });
        }
        if let (Some(open), Some(limit)) = (fact.node_descriptors, fact.node_descriptors_limit) {
            self.trends.feed(now, descriptors, Sample { value: open as f64, end: limit as f64 });
        }
        for volume in &fact.volumes {
            let mut feed = |kind, left: u64| {
                let id = SeriesId { kind, subject: volume.name.clone() };
                self.trends.feed(now, id, Sample { value: left as f64, end: 0.0 });
            };
            feed(Kind::DiskFull, volume.available_bytes);
            if volume.inodes_total > 0 {
                feed(Kind::InodesFull, volume.inodes_free);
            }
        }
    }

    fn review(&mut self, now: Now, policy: &PolicyConfig) {
        if self.reviewed.is_some_and(|at| now.mono.since(at) < REVIEW_EVERY) {
            return;
        }
        self.reviewed = Some(now.mono);
        self.trends.review(now);
        let within = u64::try_from(policy.resources.predicted_within.as_millis()).unwrap_or(u64::MAX);
        let sure = |expected: &&Prediction| {
            expected.expected_in_ms <= within && expected.confidence >= policy.trends.confidence
        };
        let first = |kinds: [Kind; 2]| {
            let mut expected = self.trends.predictions().iter().filter(sure);
            expected.find(|expected| kinds.contains(&expected.kind)).map(told)
        };
        (self.predicted, self.leaking) =
            (first([Kind::DiskFull, Kind::InodesFull]), first([Kind::MemoryLeak, Kind::DescriptorLeak]));
    }

    fn of(&self, of: Of) -> &Watched {
        match of {
            Of::Room => &self.room,
            Of::Memory => &self.memory,
            Of::Cores => &self.cores,
        }
    }

    fn of_mut(&mut self, of: Of) -> &mut Watched {
        match of {
            Of::Room => &mut self.room,
            Of::Memory => &mut self.memory,
            Of::Cores => &mut self.cores,
        }
    }

    /// Over its threshold for long enough; of room and memory, also when it is expected to be soon.
    pub(crate) fn is_over(&self, of: Of, policy: &ResourcePolicy) -> bool {
        let expected = match of {
            Of::Room => self.predicted.is_some(),
            Of::Memory => self.leaking.is_some(),
            Of::Cores => false,
        };
        self.lasts(of, policy) || expected
    }

    fn lasts(&self, of: Of, policy: &ResourcePolicy) -> bool {
        let time = if of == Of::Cores { policy.cpu_confirm_after } else { policy.confirm_after };
        self.of(of).over.lasts(time, LOOKS)
    }

    /// As good as gone, for long enough.
    pub(crate) fn is_full(&self, of: Of, policy: &ResourcePolicy) -> bool {
        self.of(of).full.lasts(policy.confirm_after, LOOKS)
    }

    /// The same, by a look that still counts.
    pub(crate) fn is_full_now(&self, now: Moment, of: Of, policy: &ResourcePolicy) -> bool {
        self.at.is_some_and(|at| now.since(at) <= policy.good_for) && self.is_full(of, policy)
    }

    /// A disk without room.
    pub(crate) fn fullest(&self) -> Option<&str> {
        self.fullest.as_deref()
    }

    pub(crate) fn state(&self, now: Moment, policy: &ResourcePolicy, back_for: Duration) -> State {
        if self.at.is_none_or(|at| now.since(at) > policy.good_for) {
            return State::Unknown("a fresh look at the host");
        }
        let over: Vec<&str> = [Of::Room, Of::Memory, Of::Cores]
            .into_iter()
            .filter(|of| self.lasts(*of, policy))
            .map(|of| self.of(of).worst.as_str())
            .chain(self.predicted.as_deref())
            .chain(self.leaking.as_deref())
            .collect();
        if !over.is_empty() {
            return State::Ill(over.join("; "));
        }
        // What was not the matter need not pass: a disk that has room again takes writes, however busy the cores are.
        let back = |watched: &Watched| !watched.was || watched.back.lasts(back_for, LOOKS);
        match back(&self.room) && back(&self.memory) && back(&self.cores) {
            true => State::Well,
            false => State::Unknown("five points under every threshold for long enough"),
        }
    }
}

/// What is expected, in words.
fn told(expected: &Prediction) -> String {
    let Prediction { kind, subject, .. } = expected;
    let time = in_words(Duration::from_millis(expected.expected_in_ms));
    match kind {
        Kind::InodesFull => format!("the inodes of {subject} are expected to be used up in {time}"),
        Kind::MemoryLeak => {
            format!("{subject} is expected to have no memory left in {time}: it grows ({})", expected.evidence)
        }
        Kind::DescriptorLeak => {
            format!(
                "{subject} is expected to have no descriptors left in {time}: it keeps them ({})",
                expected.evidence
            )
        }
        _ => format!("{subject} is expected to be full in {time}"),
    }
}
