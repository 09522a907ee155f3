//! The steps of a node's start: which one it is at, how far that is, and what each took.
//!
//! Owns: the record, for `node status`, metrics and benchmarks. Must never: decide anything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A step of a start, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Disks are opened, and what is on them is counted.
    Folders,
    /// The log is read, every record's checksum with it.
    Log,
    /// Every page of the database is verified.
    Database,
    /// The snapshot is read to its end.
    Snapshot,
    /// Raft finds its place in the log.
    Raft,
    /// What the log has, and what the others have committed meanwhile, is applied.
    CatchUp,
    /// A disk answers its canary.
    Canary,
}

impl Step {
    /// The name in tables, metrics and the contract.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Step::Folders => "folders",
            Step::Log => "log",
            Step::Database => "database",
            Step::Snapshot => "snapshot",
            Step::Raft => "raft",
            Step::CatchUp => "catch_up",
            Step::Canary => "canary",
        }
    }

    /// What is counted of it; empty: nothing is.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Step::Log | Step::CatchUp => "entries",
            Step::Database => "bytes",
            Step::Folders | Step::Snapshot | Step::Raft | Step::Canary => "",
        }
    }
}

/// How much of something is done.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    done: AtomicU64,
    total: AtomicU64,
}

impl Counter {
    /// There is so much of it.
    pub(crate) fn expect(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// So much more is done.
    pub(crate) fn add(&self, done: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
    }
}

/// One step as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StepState {
    pub(crate) step: Step,
    /// In the step's unit; at most `total` where that is known.
    pub(crate) done: u64,
    /// 0: not known.
    pub(crate) total: u64,
    /// So far, or in all.
    pub(crate) took: Duration,
    pub(crate) finished: bool,
}

struct Record {
    step: Step,
    counter: Arc<Counter>,
    began: Instant,
    took: Option<Duration>,
}

/// All steps of one start. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Steps(Arc<Mutex<Vec<Record>>>);

/// A step that is under way until this is dropped.
pub(crate) struct UnderWay {
    steps: Steps,
    at: usize,
    counter: Arc<Counter>,
}

impl Steps {
    /// Begins a step.
    pub(crate) fn begin(&self, step: Step) -> UnderWay {
        let counter = Arc::new(Counter::default());
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.push(Record { step, counter: counter.clone(), began: Instant::now(), took: None });
        UnderWay { steps: self.clone(), at: records.len() - 1, counter }
    }

    /// All that were begun, in order.
    pub(crate) fn now(&self) -> Vec<StepState> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.iter().map(Record::state).collect()
    }
}

impl Record {
    fn state(&self) -> StepState {
        let total = self.counter.total.load(Ordering::Relaxed);
        let done = self.counter.done.load(Ordering::Relaxed);
        StepState {
            step: self.step,
            done: if total == 0 { done } else { done.min(total) },
            total,
            took: self.took.unwrap_or_else(|| self.began.elapsed()),
            finished: self.took.is_some(),
        }
    }
}

impl StepState {
    /// For people: `log 350000 of 1000000 entries`.
    pub(crate) fn words(&self) -> String {
        let (name, unit) = (self.step.as_str(), self.step.unit());
        match self.total {
            0 => name.to_owned(),
            total => format!("{name} {} of {total} {unit}", self.done),
        }
    }
}

impl UnderWay {
    /// What is counted.
    pub(crate) fn counter(&self) -> Arc<Counter> {
        self.counter.clone()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut records = self.steps.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = records.get_mut(self.at) {
            let took = record.began.elapsed();
            record.took = Some(took);
            tracing::info!(
                step = record.step.as_str(),
                took_ms = took.as_millis() as u64,
                operation = "start",
                "a step of the start"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_step_says_how_far_it_is_and_what_it_took() {
        let steps = Steps::default();
        let log = steps.begin(Step::Log);
        log.counter().expect(10);
        log.counter().add(4);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(steps.now()[0].words(), "log 4 of 10 entries");
        drop(log);
        tokio::time::advance(Duration::from_secs(5)).await;
        let _raft = steps.begin(Step::Raft);
        let now = steps.now();
        assert_eq!((now[0].took, now[0].finished), (Duration::from_secs(2), true));
        assert_eq!((now[1].words(), now[1].finished), ("raft".to_owned(), false));
    }
}
