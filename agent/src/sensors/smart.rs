//! What the disks say of themselves: `smartctl`'s word on each of the node's disks, read once per `interval`.
//!
//! Owns: when a sample is another one, and when it is too old. Must never: open a device, decide what follows, or take
//! silence for health: what cannot be read, told apart or dated is unknown, and says why.
//!
//! Invariants: disks are looked at one after the other, each within a deadline; a file that was rewritten while it was read is
//! no sample; what is handed on is bounded.

mod device;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use resilver_host::Host;
use resilver_strategies::api::{Input, Observation, SmartFact, SmartVerdict};
use resilver_strategies::config::SmartPolicy;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::source::{Read, Source, Unread};
use super::stopped;
use crate::health::{HealthDesk, SmartView};
use crate::options::{SmartSource, smart_limits};
use crate::state::View;
use crate::telemetry::Telemetry;
use resilver_smart::Verdict;

/// Disks that are looked at; a node has fewer.
const MAX_DISKS: usize = 256;

/// Reasons that are handed on, and characters of each: the weightiest come first, and people read them in one line.
const MAX_REASONS: usize = 6;
const MAX_REASON_CHARS: usize = 200;

/// Reads what the disks say of themselves.
pub(crate) struct SmartSensor {
    /// The machine.
    pub(crate) host: Host,
    /// Where to look.
    pub(crate) options: SmartSource,
    /// What counters mean, and for how long they are believed.
    pub(crate) policy: SmartPolicy,
    /// How often.
    pub(crate) interval: Duration,
    /// Where outputs of a command are kept while they are read.
    pub(crate) dir: PathBuf,
    /// Which disks the node has.
    pub(crate) view: watch::Receiver<View>,
    /// Told for scores, trends and people.
    pub(crate) health: Arc<HealthDesk>,
    /// Told for metrics.
    pub(crate) telemetry: Arc<Telemetry>,
    /// Where facts go.
    pub(crate) out: mpsc::Sender<Input>,
}

/// What is remembered of a disk's samples, to see that they stand still.
#[derive(Clone, Copy, Debug)]
struct Last {
    sampled_ms: u64,
    /// When this sample was first seen.
    first: Instant,
}

impl SmartSensor {
    /// Looks until it is told to stop.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            () = stopped(&mut shutdown) => {}
            () = self.look_on() => {}
        }
    }

    async fn look_on(&self) {
        let source = self.source();
        let mut last = BTreeMap::new();
        let mut known = BTreeMap::new();
        // Before its node has told of its disks there is nothing to look at.
        let told = |view: &View| view.node.fact.as_ref().is_some_and(|fact| !fact.disks.is_empty());
        let mut view = self.view.clone();
        // Only a stopping agent has dropped the sender.
        if view.wait_for(told).await.is_err() {
            return;
        }
        let mut turn = interval(self.interval);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            self.disks_now(&mut known);
            last.retain(|disk, _| known.contains_key(disk));
            for (disk, path) in &known {
                let view = self.look(&source, disk, path, &mut last).await;
                self.tell(view).await;
            }
        }
    }

    fn source(&self) -> Source<'_> {
        Source::new(&self.host, &self.options, self.dir.clone(), self.policy.command_deadline)
    }

    /// The node's disks; those it told of last while it does not say.
    fn disks_now(&self, known: &mut BTreeMap<String, PathBuf>) {
        let view = self.view.borrow();
        let Some(fact) = view.node.fact.as_ref().filter(|fact| !fact.disks.is_empty()) else { return };
        let there = fact.disks.iter().take(MAX_DISKS);
        let now: BTreeMap<String, PathBuf> = there.map(|disk| (disk.disk.clone(), PathBuf::from(&disk.path))).collect();
        for gone in known.keys().filter(|disk| !now.contains_key(*disk)) {
            self.telemetry.smart(gone, SmartVerdict::Unknown);
        }
        *known = now;
    }

    async fn look(&self, source: &Source<'_>, disk: &str, path: &Path, last: &mut BTreeMap<String, Last>) -> SmartView {
        let stale = (self.interval * self.policy.stale_intervals).max(self.policy.stale_at_least);
        let mut view = SmartView::unknown(disk, path, stale);
        let read = match source.read(path).await {
            Ok(read) => read,
            Err(Unread { source, why }) => {
                view.source = source;
                view.reasons = vec![shortened(&why)];
                return view;
            }
        };
        view.source.clone_from(&read.source);
        if let Some(why) = self.too_old(disk, &read, stale, last) {
            view.reasons = vec![shortened(&why)];
            return view;
        }
        let (sampled_ms, limits) = (read.sampled_ms, smart_limits(&self.policy));
        // A long output takes milliseconds to parse, and the loop has heartbeats to send.
        let (report, judgement) = self
            .host
            .blocking(move || {
                let report = resilver_smart::parse(&read.output);
                let judgement = limits.judge(&report);
                (report, judgement)
            })
            .await;
        view.verdict = match judgement.verdict {
            Verdict::Unknown => SmartVerdict::Unknown,
            Verdict::Ok => SmartVerdict::Ok,
            Verdict::Degrading => SmartVerdict::Degrading,
            Verdict::Failing => SmartVerdict::Failing,
        };
        view.reasons = judgement.reasons.iter().take(MAX_REASONS).map(|reason| shortened(reason)).collect();
        view.counters = report.counters.known().into_iter().collect();
        view.drifting = report.drifting();
        view.sampled_ms = Some(sampled_ms);
        (view.model, view.serial) = (report.model, report.serial);
        view
    }

    /// Why a sample says nothing about now. By its date, and by how long it has stood still here: a clock may be wrong, and
    /// what nobody writes any more must not be believed for ever.
    fn too_old(&self, disk: &str, read: &Read, stale: Duration, last: &mut BTreeMap<String, Last>) -> Option<String> {
        let seen = Instant::now();
        let fresh = Last { sampled_ms: read.sampled_ms, first: seen };
        let known = last.entry(disk.to_owned()).or_insert(fresh);
        if known.sampled_ms != read.sampled_ms {
            *known = fresh;
        }
        let age = Duration::from_millis(self.host.clock.now().as_millis().saturating_sub(read.sampled_ms));
        let still = seen.duration_since(known.first);
        let old = age.max(still);
        (old > stale).then(|| {
            let (old, stale) = (old.as_secs(), stale.as_secs());
            format!("the last sample is {old} s old, and counts for {stale} s: does what writes it still run?")
        })
    }

    async fn tell(&self, view: SmartView) {
        self.telemetry.smart(&view.disk, view.verdict);
        let fact = SmartFact {
            disk: view.disk.clone(),
            verdict: view.verdict,
            reasons: view.reasons.clone(),
            counters: view.counters.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            sampled_ms: view.sampled_ms,
            source: view.source.clone(),
            good_for_ms: u64::try_from(view.good_for.as_millis()).unwrap_or(u64::MAX),
        };
        self.health.smart(view);
        // Only a stopping agent has dropped the receiver.
        let _ = self.out.send(Input::Observed(Observation::Smart(fact))).await;
    }
}

fn shortened(reason: &str) -> String {
    reason.chars().take(MAX_REASON_CHARS).collect()
}

#[cfg(test)]
mod tests;
