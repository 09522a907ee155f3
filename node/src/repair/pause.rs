//! A person's pause of the queue: kept by every node, ended by whoever leads.
//!
//! Must never: look at wall time, or at how long another leader has measured: a pause may last longer than it was meant to,
//! and is never cut short by a clock. Nor hold the repair of an object that a person asks for by
//! name: that does not go through the queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::RepairParts;
use crate::meta::{Meta, Role};
use crate::model::Command;

/// Before looking again who leads, or proposing again what could not be proposed.
const AGAIN: Duration = Duration::from_secs(1);

/// Why the queue rests, if it does.
pub(super) fn lasts(meta: &Meta) -> Option<String> {
    meta.map().repair_pause.as_ref().map(|pause| format!("repair is paused by {}: {}", pause.owner, pause.reason))
}

/// Resolves once it does not.
pub(super) async fn ended(meta: &Meta) {
    // The map outlives whoever waits here.
    let _ = meta.map_changes().wait_for(|map| map.repair_pause.is_none()).await;
}

/// Ends pauses whose time is over, while this node leads.
pub(super) async fn run(parts: Arc<RepairParts>) {
    let mut maps = parts.meta.map_changes();
    let mut measured: Option<(u64, Instant)> = None;
    loop {
        let pause = maps.borrow_and_update().repair_pause.clone();
        measured = pause.map(|pause| match measured {
            Some((stamp, ends)) if stamp == pause.stamp => (stamp, ends),
            _ => (pause.stamp, Instant::now() + pause.length),
        });
        let Some((stamp, ends)) = measured else {
            if maps.changed().await.is_err() {
                return;
            }
            continue;
        };
        if Instant::now() < ends {
            tokio::select! {
                () = sleep_until(ends) => {}
                changed = maps.changed() => if changed.is_err() { return },
            }
            continue;
        }
        if parts.meta.status().role == Role::Leader {
            tracing::info!(operation = "repair", "a pause of repair is over");
            // What could not be said now is said again below.
            let _ = parts.meta.propose(Command::ResumeRepair { stamp: Some(stamp) }).await;
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            changed = maps.changed() => if changed.is_err() { return },
        }
    }
}
