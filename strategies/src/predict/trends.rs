//! All series of an agent, and what is expected of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::config::TrendPolicy;
use super::fit::{Line, fit};
use super::samples::{Point, Samples};
use super::{Kind, Sample, SeriesId, in_words};
use crate::record::{Draft, RecordKind};
use crate::types::{Action, Grade, Mode, Moment, Now};

/// Series of one agent. A node with 24 disks has 75 of its own, and as many SMART counters and more fit.
pub const MAX_SERIES: usize = 256;

/// A trend is extrapolated this many times as long as it was watched; beyond that confidence falls in proportion. So what
/// swings by less than an eighth of what is left (a sawtooth, a daily wave) is never recorded, not even while it was only
/// seen rising.
pub const REACH: f64 = 4.0;

/// Predictions below this confidence are not shown: they would come and go with every sample.
const SHOWN_FROM: f64 = 0.3;

/// A series that was not fed for so many samples is of something that is gone.
const STALE_SAMPLES: u32 = 10;

/// What was told is told again only when it was not expected for so long in between.
const QUIET: Duration = Duration::from_secs(6 * 3600);

/// Nothing is expected later than in ten years: so slow a trend is no news, and its date no date.
const FARTHEST_SECS: f64 = 10.0 * 365.0 * 24.0 * 3600.0;

/// What is expected of a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Of what.
    pub kind: Kind,
    /// Of whom.
    pub subject: String,
    /// As last seen.
    pub value: f64,
    /// What it counts.
    pub unit: String,
    /// How much more (or less) in an hour.
    pub per_hour: f64,
    /// What it must not reach.
    pub end: f64,
    /// When it reaches it, wall time.
    pub expected_ms: u64,
    /// From the time of the last review.
    pub expected_in_ms: u64,
    /// 0 to 1.
    pub confidence: f64,
    /// Nearer than this with enough confidence it is recorded.
    pub horizon_ms: u64,
    /// Whether it is.
    pub within_horizon: bool,
    /// What it is judged by.
    pub evidence: String,
}

impl Prediction {
    /// The record of a prediction that crossed its horizon. Grade 0, always: it is no step, and calls for none.
    pub fn draft(&self, node: &str) -> Draft {
        let (mode, disk) = match self.kind {
            Kind::DiskFull => (Mode::ResourceExhaustion, Some(self.subject.as_str())),
            // Of the file systems with inodes one has the metadata, and is no disk.
            Kind::InodesFull => {
                (Mode::ResourceExhaustion, Some(self.subject.as_str()).filter(|name| *name != "metadata"))
            }
            Kind::MemoryLeak | Kind::DescriptorLeak => (Mode::ResourceExhaustion, None),
            Kind::LatencyDrift | Kind::CounterDrift => (Mode::DiskDegrading, self.subject.split('/').next()),
        };
        let mut draft = Draft::new(RecordKind::Note, Action::Alert)
            .with("node_id", node)
            .with("reason", mode.as_str())
            .with("prediction", self.kind.as_str())
            .with("subject", self.subject.as_str())
            .with("expected_ms", self.expected_ms)
            .with("confidence", (self.confidence * 100.0).round() / 100.0)
            .with("evidence", self.evidence.as_str());
        draft.grade = Some(Grade::OBSERVE);
        match disk {
            Some(disk) => draft.with("disk_id", disk),
            None => draft,
        }
    }
}

/// One series with what was told of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Series {
    samples: Samples,
    last: Sample,
    fed: Moment,
    /// When it was last expected, after it was told.
    told: Option<Moment>,
}

/// All series.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trends {
    policy: TrendPolicy,
    #[serde(with = "super::pairs")]
    series: BTreeMap<SeriesId, Series>,
    /// As of the last review: made anew with each.
    #[serde(skip)]
    predictions: Vec<Prediction>,
}

impl Trends {
    /// Knows nothing yet.
    pub fn new(policy: TrendPolicy) -> Trends {
        Trends { policy, series: BTreeMap::new(), predictions: Vec::new() }
    }

    /// Goes on by other figures, with what was seen so far.
    pub fn adopt(&mut self, policy: TrendPolicy) {
        self.policy = policy;
    }

    /// A sample. Beyond [`MAX_SERIES`] a new series is not begun: the known ones are worth more than the newest.
    pub fn feed(&mut self, now: Moment, id: SeriesId, sample: Sample) {
        if !self.series.contains_key(&id) && self.series.len() >= MAX_SERIES {
            return;
        }
        let samples = Samples::new(self.policy.sample_every);
        let series = self.series.entry(id).or_insert(Series { samples, last: sample, fed: now, told: None });
        series.samples.push(now, sample.value);
        (series.last, series.fed) = (sample, now);
    }

    /// Begins a series anew: what it was about is another one now (a process that was restarted).
    pub fn forget(&mut self, id: &SeriesId) {
        self.series.remove(id);
    }

    /// What a series used to be, by its middle value; `None` before it has `points`.
    pub fn usual(&self, id: &SeriesId, points: usize) -> Option<f64> {
        self.series.get(id).filter(|series| series.samples.len() >= points).and_then(|series| series.samples.median())
    }

    /// Looks at all series anew; answers what is to be recorded now.
    pub fn review(&mut self, now: Now) -> Vec<Prediction> {
        let stale = self.policy.sample_every * STALE_SAMPLES;
        self.series.retain(|_, series| now.mono.since(series.fed) <= stale);
        self.predictions.clear();
        let mut told = Vec::new();
        for (id, series) in &mut self.series {
            let prediction = predict(&self.policy, id, series, now);
            if let Some(prediction) = prediction.filter(|prediction| prediction.confidence >= SHOWN_FROM) {
                if prediction.within_horizon {
                    if series.told.is_none() {
                        told.push(prediction.clone());
                    }
                    series.told = Some(now.mono);
                }
                self.predictions.push(prediction);
            }
            if series.told.is_some_and(|at| now.mono.since(at) >= QUIET) {
                series.told = None;
            }
        }
        self.predictions.sort_by_key(|prediction| prediction.expected_ms);
        told
    }

    /// What is expected by the last review, the nearest first.
    pub fn predictions(&self) -> &[Prediction] {
        &self.predictions
    }
}

fn predict(policy: &TrendPolicy, id: &SeriesId, series: &Series, now: Now) -> Option<Prediction> {
    let points: Vec<Point> = series.samples.points().collect();
    let line = fit(&points)?;
    let Sample { value, end } = series.last;
    let left_secs = seconds_left(id.kind, &line, end)?;
    // How much of the way ahead was watched, at the reach that is allowed.
    let seen = (REACH * line.span_secs / left_secs.max(f64::MIN_POSITIVE)).min(1.0);
    let confidence = line.quality * seen;
    let left = Duration::from_secs_f64(left_secs);
    let horizon = policy.horizon(id.kind);
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Some(Prediction {
        kind: id.kind,
        subject: id.subject.clone(),
        value,
        unit: id.kind.unit().to_owned(),
        per_hour: line.slope * 3600.0,
        end,
        expected_ms: now.wall_ms.saturating_add(millis(left)),
        expected_in_ms: millis(left),
        confidence,
        horizon_ms: millis(horizon),
        within_horizon: left <= horizon && confidence >= policy.confidence,
        evidence: format!(
            "{:+.3e} an hour over {} ({} points), {:.3e} {} now, {:.3e} is the end, in {} at this pace",
            line.slope * 3600.0,
            in_words(Duration::from_secs_f64(line.span_secs)),
            line.points,
            value,
            id.kind.unit(),
            end,
            in_words(left),
        ),
    })
}

/// Until the line reaches the end; 0 when it has; `None` when it goes the other way, or takes for ever.
fn seconds_left(kind: Kind, line: &Line, end: f64) -> Option<f64> {
    let toward = if kind.falls() { -line.slope } else { line.slope };
    let left = if kind.falls() { line.level - end } else { end - line.level };
    let seconds = (left / toward).max(0.0);
    (toward > 0.0 && seconds <= FARTHEST_SECS).then_some(seconds)
}
