//! Reading a run of blocks of one shard from its home. Every block is checked here, wherever it came from.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use resilver_proto::internal::{Block, GetShardResponse};
use tokio::time::Instant;
use tonic::Streaming;

use super::TransportError;
use super::gather::Gathered;
use super::home::RemoteHome;
use crate::disk::ShardReader;
use crate::types::{DiskId, ShardKey};

/// Blocks of one shard, in order.
pub struct BlockStream {
    disk: DiskId,
    key: ShardKey,
    next: u32,
    from: Source,
    crc_time: Duration,
}

enum Source {
    Local {
        reader: Box<ShardReader>,
        end: u32,
    },
    Remote {
        home: RemoteHome,
        messages: Box<Streaming<GetShardResponse>>,
        arrived: VecDeque<Block>,
    },
    /// All of it is here, up to what ended it.
    Gathered {
        arrived: VecDeque<Block>,
        failure: Option<TransportError>,
    },
}

impl BlockStream {
    pub(super) fn local(disk: DiskId, key: ShardKey, reader: ShardReader, first: u32, end: u32) -> Self {
        let from = Source::Local { reader: Box::new(reader), end };
        Self { disk, key, next: first, from, crc_time: Duration::ZERO }
    }

    pub(super) fn remote(
        disk: DiskId,
        key: ShardKey,
        home: RemoteHome,
        messages: Streaming<GetShardResponse>,
        first: u32,
    ) -> Self {
        let from = Source::Remote { home, messages: Box::new(messages), arrived: VecDeque::new() };
        Self { disk, key, next: first, from, crc_time: Duration::ZERO }
    }

    pub(super) fn gathered(disk: DiskId, key: ShardKey, gathered: Gathered, first: u32) -> Self {
        let from = Source::Gathered { arrived: gathered.blocks.into(), failure: gathered.failure };
        Self { disk, key, next: first, from, crc_time: Duration::ZERO }
    }

    /// How long checking CRCs took so far, for the benchmark.
    pub fn crc_time(&self) -> Duration {
        self.crc_time
    }

    /// The next block; `None` after the last that was asked for.
    ///
    /// # Errors
    /// When the home fails or a block is not what was written. The stream is of no use then.
    pub async fn next(&mut self) -> Result<Option<Bytes>, TransportError> {
        let (data, crc) = match &mut self.from {
            // The reader has just checked the block it read: once is enough on one machine.
            Source::Local { reader, end } => {
                if self.next >= *end {
                    return Ok(None);
                }
                let read = reader.block(self.next).await;
                let (data, _) = read.map_err(|error| TransportError::from_disk(&error, self.disk, self.key))?;
                self.next += 1;
                return Ok(Some(data));
            }
            Source::Gathered { arrived, failure } => match (arrived.pop_front(), failure.take()) {
                (Some(block), later) => {
                    *failure = later;
                    (block.data, block.crc32c)
                }
                (None, Some(error)) => return Err(error),
                (None, None) => return Ok(None),
            },
            Source::Remote { home, messages, arrived } => loop {
                if let Some(block) = arrived.pop_front() {
                    break (block.data, block.crc32c);
                }
                match messages.message().await {
                    Ok(Some(message)) => arrived.extend(message.blocks),
                    Ok(None) => return Ok(None),
                    Err(status) => {
                        home.account(Some(&status));
                        return Err(TransportError::from_status(&status, &home.node, self.disk, self.key));
                    }
                }
            },
        };
        let began = Instant::now();
        let got = crc32c::crc32c(&data);
        self.crc_time += began.elapsed();
        if got != crc {
            let detail = format!("block {} arrived with crc {got:08x}, sent with {crc:08x}", self.next);
            return Err(TransportError::Corrupt { key: self.key, disk: self.disk, detail });
        }
        self.next += 1;
        Ok(Some(data))
    }
}
