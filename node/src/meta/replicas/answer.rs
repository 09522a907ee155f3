//! What other members ask about this one's state.
//!
//! Must never: answer for another moment than the one asked about. One that is not kept (any more) is an error, and whoever
//! compares begins anew.

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use resilver_host::OpenMode;
use resilver_proto::internal::{
    Checkpoint as CheckpointMessage, DigestsRequest, DigestsResponse, RecordsRequest, RecordsResponse, StateChunk,
    StateRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::side::{PAGE, digest_of, record_message, stretch_of};
use crate::meta::{Inner, RaftService};
use crate::state::{Held, Range, StateError, fold, root};

/// How long an entry that was committed elsewhere may take to be applied here, before the question is refused.
const WAIT: Duration = Duration::from_secs(8);
/// Bytes of a file in one message.
const CHUNK_BYTES: usize = 256 * 1024;
/// Messages waiting for the wire.
const MESSAGES_IN_FLIGHT: usize = 4;

pub(in crate::meta) type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn failed(error: StateError) -> Status {
    Status::unavailable(error.to_string())
}

impl RaftService {
    pub(in crate::meta) async fn answer_digests(&self, request: DigestsRequest) -> Result<DigestsResponse, Status> {
        let held = self.inner.kept_moment(request.checkpoint).await?;
        let leaves = self.inner.state.leaves(&held, request.stored).await.map_err(failed)?;
        let ranges = fold(&leaves, request.level, &stretch_of(request.stretch));
        let root = Range { start: Vec::new(), sum: root(&leaves) };
        Ok(DigestsResponse {
            index: held.applied.index,
            applied: held.applied.note.into(),
            root: Some(digest_of(&root)),
            ranges: ranges.iter().map(digest_of).collect(),
        })
    }

    pub(in crate::meta) async fn answer_records(
        &self,
        request: RecordsRequest,
    ) -> Result<Messages<RecordsResponse>, Status> {
        let held = self.inner.kept_moment(request.checkpoint).await?;
        let (pages, stream) = mpsc::channel(MESSAGES_IN_FLIGHT);
        let state = self.inner.state.clone();
        let mut stretch = stretch_of(request.stretch);
        tokio::spawn(async move {
            loop {
                let page = state.records(&held, stretch.clone(), request.values, PAGE).await.map_err(failed);
                let (page, next) = match page {
                    Ok((found, next)) => {
                        (Ok(RecordsResponse { records: found.into_iter().map(record_message).collect() }), next)
                    }
                    Err(status) => (Err(status), None),
                };
                // Whoever asked may have gone away.
                if pages.send(page).await.is_err() {
                    return;
                }
                match next {
                    Some(next) => stretch.0 = next,
                    None => return,
                }
            }
        });
        Ok(Box::pin(ReceiverStream::new(stream)))
    }

    pub(in crate::meta) async fn answer_state(&self, request: StateRequest) -> Result<Messages<StateChunk>, Status> {
        let held = self.inner.kept_moment(request.checkpoint).await?;
        let path = self.inner.snapshots.incoming();
        let exported = self.inner.state.export_moment(&held, &path).await.map_err(failed);
        let (chunks, stream) = mpsc::channel(MESSAGES_IN_FLIGHT);
        let (inner, host) = (self.inner.clone(), self.inner.links.host.clone());
        tokio::spawn(async move {
            let read = async {
                exported?;
                let unread = |error: std::io::Error| Status::unavailable(format!("reading the state: {error}"));
                let file = host.disk.open(&path, OpenMode::Read).await.map_err(unread)?;
                let mut offset = 0;
                loop {
                    let data = file.read_at(offset, CHUNK_BYTES).await.map_err(unread)?;
                    offset += data.len() as u64;
                    let last = data.len() < CHUNK_BYTES;
                    if chunks.send(Ok(StateChunk { data })).await.is_err() || last {
                        return Ok(());
                    }
                }
            };
            if let Err(status) = read.await {
                let _ = chunks.send(Err(status)).await;
            }
            inner.snapshots.discard(&path).await;
        });
        Ok(Box::pin(ReceiverStream::new(stream)))
    }
}

impl Inner {
    /// The moment, once this member has applied so far.
    async fn kept_moment(&self, checkpoint: Option<CheckpointMessage>) -> Result<Held, Status> {
        let checkpoint = checkpoint.ok_or_else(|| Status::invalid_argument("a checkpoint is missing"))?;
        let id = <[u8; 16]>::try_from(checkpoint.id.as_ref())
            .map(u128::from_be_bytes)
            .map_err(|_| Status::invalid_argument("a checkpoint's id has 16 bytes"))?;
        match tokio::time::timeout(WAIT, self.state.will_hold(id, Some(checkpoint.index))).await {
            Ok(Some(held)) => Ok(held),
            Ok(None) => Err(Status::failed_precondition("it does not keep this moment")),
            Err(_) => {
                let at = self.state.applied().map_or(0, |applied| applied.index);
                Err(Status::unavailable(format!("it has applied up to entry {at}, and not yet {}", checkpoint.index)))
            }
        }
    }
}
