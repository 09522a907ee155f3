//! What is written to a segment and not known to be durable.
//!
//! Owns: when a sync is believed. Linux tells a failed sync once: it marks the pages clean, and the next sync of the same
//! file answers well although the bytes never reached the disk. So they are kept here until a sync has answered well for
//! them, and are written again after one that has not: that makes the pages dirty, and the next sync has to write them.
//!
//! Must never: begin a sync while the answer to another one is due. It would take the other's error for itself, or leave it to
//! nobody; and what is written again beside a sync under way may be marked clean by its failure.
//!
//! Invariants: bounded by whoever writes. They are written at the same place, with the same bytes: a reader sees no
//! difference, no line comes twice, none is behind a hole, and a disk whose syncs fail often does not turn the journal's
//! segments over. Any call may be dropped half way: the answer to a sync under way is waited for by the next one.

use std::io;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use resilver_host::File;

/// The last bytes of a segment.
#[derive(Default)]
pub(super) struct Unsynced {
    bytes: Vec<u8>,
    /// A sync did not answer well for them: they are written again before the next one.
    in_doubt: bool,
    under_way: Option<UnderWay>,
}

/// A sync that was begun, with what is written again before it.
struct UnderWay {
    /// For how many of the bytes, from the first, it answers.
    covers: usize,
    answer: BoxFuture<'static, io::Result<()>>,
}

impl Unsynced {
    /// The end of a segment that somebody else wrote.
    pub(super) fn in_doubt(bytes: Vec<u8>) -> Unsynced {
        Unsynced { in_doubt: !bytes.is_empty(), bytes, under_way: None }
    }

    /// How many bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// These were written behind the others.
    pub(super) fn wrote(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
    }

    /// Makes all of them durable; `file` is `len_bytes` long. Whether there was anything to do.
    pub(super) async fn sync(&mut self, file: &Arc<dyn File>, len_bytes: u64) -> io::Result<bool> {
        let mut done = false;
        loop {
            if let Some(under_way) = &mut self.under_way {
                let (answer, covers) = ((&mut under_way.answer).await, under_way.covers);
                self.under_way = None;
                if let Err(error) = answer {
                    self.in_doubt = true;
                    return Err(error);
                }
                self.bytes.drain(..covers);
                done = true;
            }
            if self.bytes.is_empty() {
                return Ok(done);
            }
            // One piece of work, so that a slow disk comes to its end however often whoever waits gives up.
            let again = mem::take(&mut self.in_doubt).then(|| Bytes::copy_from_slice(&self.bytes));
            let (file, from) = (file.clone(), len_bytes - self.bytes.len() as u64);
            let answer = Box::pin(async move {
                if let Some(bytes) = again {
                    file.write_at(from, bytes).await?;
                }
                file.sync().await
            });
            self.under_way = Some(UnderWay { covers: self.bytes.len(), answer });
        }
    }
}
