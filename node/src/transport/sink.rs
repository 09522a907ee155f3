//! Writing one shard, block by block, to its home: straight into our own disk, or over the wire.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use resilver_proto::internal::{Block, PutShardRequest, PutShardResponse};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_stream::Stream;
use tonic::Status;

use super::home::RemoteHome;
use super::{BLOCKS_PER_MESSAGE, TransportError};
use crate::disk::ShardWriter;
use crate::types::{DiskId, ShardKey};

/// Messages on their way per sink. One being sent while the next is filled keeps the stream busy.
const MESSAGES_AHEAD: usize = 2;

/// One shard being written. Nothing stays of it unless [`BlockSink::finish`] succeeded: dropping it gives it up.
pub struct BlockSink {
    disk: DiskId,
    key: ShardKey,
    to: Target,
}

enum Target {
    Local(Box<ShardWriter>),
    Remote(Box<Remote>),
}

struct Remote {
    home: RemoteHome,
    messages: mpsc::Sender<Message>,
    answer: oneshot::Receiver<Result<PutShardResponse, Status>>,
    pending: Message,
}

/// Messages as the wire asks for them. It asks for one when the one before was written: until then that one's room is
/// taken.
struct Outgoing {
    messages: mpsc::Receiver<Message>,
    written: Vec<OwnedSemaphorePermit>,
}

impl Stream for Outgoing {
    type Item = PutShardRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PutShardRequest>> {
        self.written.clear();
        let message = std::task::ready!(self.messages.poll_recv(cx));
        Poll::Ready(message.map(|Message { request, room }| {
            self.written = room;
            request
        }))
    }
}

/// Blocks sent together, and the room they take in memory until they are on the wire.
#[derive(Default)]
struct Message {
    request: PutShardRequest,
    room: Vec<OwnedSemaphorePermit>,
}

impl BlockSink {
    pub(super) fn local(disk: DiskId, key: ShardKey, writer: ShardWriter) -> Self {
        Self { disk, key, to: Target::Local(Box::new(writer)) }
    }

    /// `begin` is sent together with the first blocks. The call runs in a task of its own: its answer, and its failure,
    /// are picked up where the writer waits anyway.
    pub(super) fn remote(disk: DiskId, key: ShardKey, home: RemoteHome, begin: PutShardRequest) -> Self {
        let (messages, outgoing) = mpsc::channel(MESSAGES_AHEAD);
        let (answered, answer) = oneshot::channel();
        let mut client = home.client();
        tokio::spawn(async move {
            let outgoing = Outgoing { messages: outgoing, written: Vec::new() };
            let mut answered = answered;
            let result = tokio::select! {
                result = client.put(outgoing) => result.map(tonic::Response::into_inner),
                // The sink is gone: dropping the call resets the stream at the home.
                () = answered.closed() => return,
            };
            let _ = answered.send(result);
        });
        Self {
            disk,
            key,
            to: Target::Remote(Box::new(Remote {
                home,
                messages,
                answer,
                pending: Message { request: begin, room: Vec::new() },
            })),
        }
    }

    /// Writes the next block. `crc` is the CRC32C of `data`; the home checks it again just before its disk. `room` is given
    /// back when the block is in memory here no more.
    ///
    /// # Errors
    /// When the home failed; the sink is of no use then.
    pub async fn block(
        &mut self,
        data: Bytes,
        crc: u32,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<(), TransportError> {
        match &mut self.to {
            Target::Local(writer) => {
                writer.block(data, crc).await.map_err(|error| TransportError::from_disk(&error, self.disk, self.key))
            }
            Target::Remote(remote) => {
                remote.pending.room.extend(room);
                remote.pending.request.blocks.push(Block { data, crc32c: crc });
                if remote.pending.request.blocks.len() < BLOCKS_PER_MESSAGE {
                    return Ok(());
                }
                remote.flush(self.disk, self.key).await
            }
        }
    }

    /// Sends on what was held back to be sent together with the blocks that follow.
    ///
    /// # Errors
    /// As of [`BlockSink::block`].
    pub async fn flush(&mut self) -> Result<(), TransportError> {
        match &mut self.to {
            Target::Remote(remote) if !remote.pending.request.blocks.is_empty() => {
                remote.flush(self.disk, self.key).await
            }
            Target::Local(_) | Target::Remote(_) => Ok(()),
        }
    }

    /// Makes the shard durable under its final name. Answers its size on disk in bytes.
    ///
    /// # Errors
    /// When it could not be made durable; whether it exists is then unknown, and an orphan at worst.
    pub async fn finish(self) -> Result<u64, TransportError> {
        let (disk, key) = (self.disk, self.key);
        match self.to {
            Target::Local(writer) => {
                (*writer).finish().await.map_err(|error| TransportError::from_disk(&error, disk, key))
            }
            Target::Remote(mut remote) => {
                remote.pending.request.last = true;
                remote.flush(disk, key).await?;
                let answer = (&mut remote.answer).await;
                remote.settle(answer, disk, key).map(|answer| answer.bytes)
            }
        }
    }

    /// Gives the shard up and removes what was written. Best effort: a restart of the home removes it otherwise.
    pub async fn abort(self) {
        if let Target::Local(writer) = self.to {
            (*writer).abort().await;
        }
    }
}

impl Remote {
    async fn flush(&mut self, disk: DiskId, key: ShardKey) -> Result<(), TransportError> {
        let message = std::mem::take(&mut self.pending);
        if self.messages.send(message).await.is_ok() {
            return Ok(());
        }
        // The call ended early: its status says why.
        let answer = (&mut self.answer).await;
        self.settle(answer, disk, key)?;
        let detail = "the home ended the upload early".to_owned();
        Err(TransportError::Unreachable { node: self.home.node.clone(), detail })
    }

    fn settle(
        &self,
        answer: Result<Result<PutShardResponse, Status>, oneshot::error::RecvError>,
        disk: DiskId,
        key: ShardKey,
    ) -> Result<PutShardResponse, TransportError> {
        let answer = answer.unwrap_or_else(|_| Err(Status::cancelled("the call was dropped")));
        self.home.account(answer.as_ref().err());
        answer.map_err(|status| TransportError::from_status(&status, &self.home.node, disk, key))
    }
}
