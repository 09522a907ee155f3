//! Reading records back while others append, truncate and purge.
//!
//! Must never: wait for the writer, or return bytes whose checksum it did not check.
//!
//! Invariant: all records of one answer were in the log together. A read looks at the state, lets go of it, reads the
//! disk, and starts over when the log was cut meanwhile; what fails its checksum while nothing was cut is damage.

use std::ops::Range;

use bytes::Bytes;

use super::Record;
use super::error::{Damage, LogError};
use super::recent::Budget;
use super::record::{Chain, payloads, unjudged};
use super::state::{Run, Shared, Step, Unindexed};

/// The records of `range` that the log has, up to `max_bytes` of payload, but at least one if there is any.
pub(super) async fn read(shared: &Shared, range: Range<u64>, max_bytes: u64) -> Result<Vec<Record>, LogError> {
    loop {
        if let Some(records) = attempt(shared, &range, max_bytes).await? {
            return Ok(records);
        }
    }
}

/// `None` when the log was cut meanwhile.
async fn attempt(shared: &Shared, range: &Range<u64>, max_bytes: u64) -> Result<Option<Vec<Record>>, LogError> {
    let (generation, mut index, end) = {
        let state = shared.lock();
        (state.generation, range.start.max(state.header.first), range.end.min(state.header.next))
    };
    let mut records = Vec::new();
    let mut left = max_bytes;
    while index < end {
        let step = {
            let state = shared.lock();
            if state.generation != generation {
                return Ok(None);
            }
            state.step(index, end, Budget { bytes: left, at_least_one: records.is_empty() })
        };
        let payloads = match step {
            Step::Full => break,
            Step::Recent(payloads) => payloads,
            Step::Load(unindexed) => {
                let loaded = load(shared, unindexed).await;
                settle(shared, generation, loaded)?;
                continue;
            }
            Step::Fetch(run) => match settle(shared, generation, fetch(&run).await)? {
                Some(payloads) => payloads,
                None => return Ok(None),
            },
        };
        for payload in payloads {
            left = left.saturating_sub(payload.len() as u64);
            records.push(Record { index, payload });
            index += 1;
        }
    }
    Ok(Some(records))
}

/// An error counts only if what was read had not been given up meanwhile.
pub(super) fn settle<T>(shared: &Shared, generation: u64, done: Result<T, LogError>) -> Result<Option<T>, LogError> {
    match done {
        Ok(value) => Ok(Some(value)),
        Err(_) if shared.lock().generation != generation => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads where the records of a segment lie.
pub(super) async fn load(shared: &Shared, unindexed: Unindexed) -> Result<(), LogError> {
    let (entries, _) = unindexed.segment.scan(unindexed.count, unindexed.end, &mut unjudged).await?;
    shared.lock().index(&unindexed, entries);
    Ok(())
}

/// Reads a run of records in one go and checks each.
async fn fetch(run: &Run) -> Result<Vec<Bytes>, LogError> {
    let (Some(first), Some(last)) = (run.entries.first(), run.entries.last()) else { return Ok(Vec::new()) };
    let base = u64::from(first.offset);
    let bytes = run.segment.read(base, last.end()).await?;
    let mut chain =
        Chain { path: &run.segment.path, bytes: &bytes, base, offset: base, index: run.first, chain: run.chain };
    for expected in &run.entries {
        let index = chain.index;
        let entry = chain.step()?;
        if entry != *expected {
            let what = format!("record {index}");
            let (expected, got) = (format!("{expected:?}"), format!("{entry:?}"));
            return Err(Damage::new(&run.segment.path, u64::from(entry.offset), what, expected, got).into());
        }
    }
    Ok(payloads(&bytes, base, &run.entries))
}
