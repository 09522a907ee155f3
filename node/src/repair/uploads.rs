//! Collects what uploads in parts leave behind, on the leader: uploads that nobody goes on with, what completed ones
//! became, and the parts of those that went with their bucket.
//!
//! Must never: change anything but by a committed command; end an upload by wall time alone. An upload may be left for
//! longer than any leader leads, so its age is what the wall clocks of gateways and leader say; a clock that jumps ahead
//! must not end uploads at work, so the leader must also have had it under its own eyes, by its monotonic clock, for
//! [`WATCHED`] without a part coming.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::RepairParts;
use crate::meta::{MetaError, Role};
use crate::model::{Command, Outcome, UploadRecord};
use crate::types::UploadId;

/// Uploads read at a time.
const PAGE: usize = 256;

/// Uploads watched at most. Others are watched once some of these have ended: they only take room.
const MAX_WATCHED: usize = 65_536;

/// How long the leader itself must have seen an upload left alone before it ends it, if it may be left for longer than
/// that at all.
const WATCHED: Duration = Duration::from_secs(3600);

/// How long a completed upload is remembered: a client that lost the answer repeats within minutes.
const COMPLETED_KEEP: Duration = Duration::from_secs(3600);

/// Rounds come this often, or four times within the time that an upload may be left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// Uploads whose leftover parts are dropped in one round.
const LEFTOVERS: usize = 64;

/// What the leader has seen of an upload.
#[derive(Clone, Copy)]
struct Watch {
    since: Instant,
    completed: bool,
    /// The newest part by then: another one begins the watch anew. Only asked for when the upload seems due.
    newest_ms: Option<u64>,
}

/// Collects for ever, while this node leads.
pub(super) async fn run(parts: Arc<RepairParts>) {
    let pause = (parts.abandoned_uploads_after / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    let mut watched = BTreeMap::new();
    loop {
        sleep(pause).await;
        if parts.meta.status().role != Role::Leader {
            watched.clear();
        } else if let Err(error) = round(&parts, &mut watched).await {
            tracing::debug!(%error, "abandoned uploads wait for the next round");
        }
    }
}

async fn round(parts: &RepairParts, watched: &mut BTreeMap<UploadId, Watch>) -> Result<(), MetaError> {
    for (bucket, upload) in parts.meta.leftovers(LEFTOVERS).await? {
        loop {
            let now_ms = parts.host.clock.now().as_millis();
            let command = Command::DropParts { bucket: bucket.clone(), upload, now_ms };
            if !matches!(parts.meta.propose(command).await?, Outcome::Dropped { more: true }) {
                break;
            }
        }
    }
    let mut still = BTreeMap::new();
    let mut after: Option<UploadRecord> = None;
    loop {
        let page = parts.meta.scan_uploads(after.as_ref(), PAGE).await?;
        for upload in &page {
            if still.len() < MAX_WATCHED
                && let Some(watch) = look(parts, upload, watched.get(&upload.id).copied()).await?
            {
                still.insert(upload.id, watch);
            }
        }
        let full = page.len() == PAGE;
        after = page.into_iter().next_back();
        if !full {
            break;
        }
    }
    *watched = still;
    Ok(())
}

/// Ends or forgets an upload whose time has come; else how long it has been watched.
async fn look(parts: &RepairParts, upload: &UploadRecord, watch: Option<Watch>) -> Result<Option<Watch>, MetaError> {
    let completed = upload.completed.is_some();
    let now = Instant::now();
    let fresh = Watch { since: now, completed, newest_ms: None };
    let watch = watch.filter(|watch| watch.completed == completed).unwrap_or(fresh);
    let (bucket, key) = (upload.bucket.clone(), upload.key.clone());
    if completed {
        if now - watch.since < COMPLETED_KEEP {
            return Ok(Some(watch));
        }
        parts.meta.propose(Command::ForgetUpload { bucket, key, upload: upload.id }).await?;
        return Ok(None);
    }
    let now_ms = parts.host.clock.now().as_millis();
    let after = parts.abandoned_uploads_after;
    let left_alone = |since_ms: u64| Duration::from_millis(now_ms.saturating_sub(since_ms)) >= after;
    if !left_alone(upload.created_ms) {
        return Ok(Some(watch));
    }
    let newest_ms = parts.meta.newest_part_ms(&upload.bucket, upload.id).await?;
    if watch.newest_ms != newest_ms {
        return Ok(Some(Watch { newest_ms, ..fresh }));
    }
    if now - watch.since < WATCHED.min(after) || !newest_ms.is_none_or(left_alone) {
        return Ok(Some(watch));
    }
    tracing::info!(
        bucket = %upload.bucket, key = upload.key, upload = %upload.id, created_ms = upload.created_ms,
        "an upload that nobody went on with is aborted"
    );
    parts.meta.propose(Command::AbortUpload { bucket, key, upload: upload.id, now_ms }).await?;
    Ok(None)
}
