//! Shards whose bytes could not be read: is it they, or their disk?
//!
//! An error of a read says nothing by itself. It may pass; the whole disk may fail, and the canary not know it yet. A shard
//! is called unreadable only when it fails again and again while the disk serves, each time by a probe of the canary that
//! began after the read had failed ([`super::reader::verify`]). Who waits for a shard does not wait for that: the shard is
//! put in doubt, and looked at in the background.
//!
//! Owns: the shards in doubt, and the count of probes. Must never: convict a shard on the word of a probe that began before
//! its read failed; grow without bound.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

use super::Health;
use super::core::{Core, lock};
use super::error::DiskError;
use super::io::within;
use crate::types::ShardKey;

/// Shards in doubt at a time. Far more than rot brings about; of a disk that fails as a whole nobody needs to know them all,
/// and what finds no place is found again by the next read, or the scrub.
const MAX_DOUBTED: usize = 256;

/// See the module.
pub(super) struct Doubts {
    shards: Mutex<BTreeSet<ShardKey>>,
    more: Notify,
    /// Probes of the canary that have begun.
    begun: AtomicU64,
    /// The last one that ended.
    ended: watch::Sender<Probed>,
}

/// A probe that ended, judged.
#[derive(Clone, Copy, Debug, Default)]
struct Probed {
    number: u64,
    fine: bool,
}

impl Default for Doubts {
    fn default() -> Self {
        let ended = watch::Sender::new(Probed::default());
        Self { shards: Mutex::default(), more: Notify::new(), begun: AtomicU64::new(0), ended }
    }
}

impl Doubts {
    /// A shard could not be read.
    pub(super) fn add(&self, key: ShardKey) {
        let mut shards = lock(&self.shards);
        if shards.len() < MAX_DOUBTED && shards.insert(key) {
            self.more.notify_one();
        }
    }

    /// Takes one that is in doubt, once there is one. For one caller at a time.
    pub(super) async fn next(&self) -> ShardKey {
        loop {
            if let Some(key) = lock(&self.shards).pop_first() {
                return key;
            }
            self.more.notified().await;
        }
    }

    /// A probe begins: its number.
    pub(super) fn probe_begins(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// It ended, and the disk was judged by it.
    pub(super) fn probe_ended(&self, number: u64, fine: bool) {
        self.ended.send_replace(Probed { number, fine });
    }
}

impl Core {
    /// Puts the shard in doubt if this says that its bytes cannot be read.
    pub(super) fn doubting<T>(&self, key: ShardKey, read: Result<T, DiskError>) -> Result<T, DiskError> {
        if read.as_ref().is_err_and(DiskError::is_unreadable) {
            self.doubts.add(key);
        }
        read
    }

    /// Whether the disk serves, by a probe that begins only now. `false` also when that cannot be told.
    pub(super) async fn serves_now(&self) -> bool {
        let (mut ended, mut health) = (self.doubts.ended.subscribe(), self.health.subscribe());
        let begun = self.doubts.begun.load(Ordering::Relaxed);
        self.io.doubt.notify_one();
        let told = async {
            tokio::select! {
                // The senders are in this very core.
                Ok(probed) = ended.wait_for(|probed| probed.number > begun) => probed.fine,
                _ = health.wait_for(|report| report.health != Health::Ok) => false,
            }
        };
        let fine = within(self.io.patience.hanging_ticks, told).await.unwrap_or(false);
        // One good probe does not make a disk well that failed a moment ago.
        fine && self.report().health == Health::Ok
    }
}
