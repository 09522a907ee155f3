//! What a node answers about the shards on its disks.

use std::pin::Pin;
use std::sync::Arc;

use resilver_proto::internal::shards_server::{Shards, ShardsServer};
use resilver_proto::internal::{
    Block, DiscardRequest, DiscardResponse, GetManyRequest, GetManyResponse, GetShardRequest, GetShardResponse,
    PutShardRequest, PutShardResponse, RebuildShardRequest, RebuildShardResponse, ReportShardRequest,
    ReportShardResponse, ShardHead, ShardRunAnswer, VerifyShardRequest, VerifyShardResponse,
};
use resilver_proto::transport::MAX_MESSAGE_BYTES;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::error::disk_status;
use super::gather::{GATHERED_BLOCKS, Gatherer};
use super::{BLOCKS_PER_MESSAGE, UPLOAD_IDLE_DEADLINE, wire};
use crate::disk::{DiskSet, Purpose, ShardReader, ShardWriter, Volume};
use crate::meta::Meta;
use crate::model::DiskState;
use crate::repair::{Board, Force, FoundBy, Rebuilder, Suspect, SuspectKind};
use crate::types::{BucketName, DiskId, ShardIndex};

/// Blocks of one message, as blocks are counted.
const MESSAGE_BLOCKS: u32 = BLOCKS_PER_MESSAGE as u32;

/// Messages read ahead of the network, per stream: the disk works while the wire does.
const MESSAGES_AHEAD: usize = 2;

/// The gRPC service over this node's disks.
pub struct ShardService {
    meta: Meta,
    disks: Arc<DiskSet>,
    board: Board,
    rebuilder: Rebuilder,
}

impl ShardService {
    /// Serves `disks`.
    pub fn new(meta: Meta, disks: Arc<DiskSet>, board: Board, rebuilder: Rebuilder) -> Self {
        Self { meta, disks, board, rebuilder }
    }

    /// As a tonic service, with the message limits of this product.
    pub fn into_server(self) -> ShardsServer<Self> {
        ShardsServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn volume(&self, disk: DiskId, writes: bool) -> Result<Arc<Volume>, Status> {
        let volume = self
            .disks
            .volume(disk)
            .ok_or_else(|| Status::failed_precondition(format!("disk {disk} is not in this node")))?;
        let map = self.meta.map();
        match map.disk_state(disk) {
            Some(DiskState::Up) => Ok(volume),
            Some(_) if !writes && map.readable_at_need(disk) => Ok(volume),
            Some(state) => {
                Err(Status::failed_precondition(format!("disk {disk} is {} in the cluster map", state.as_str())))
            }
            None => Err(Status::failed_precondition(format!("the cluster map has no disk {disk}"))),
        }
    }

    /// Writes what arrives until `last`. Any other end gives the shard up.
    async fn receive(
        writer: &mut ShardWriter,
        first: PutShardRequest,
        stream: &mut Streaming<PutShardRequest>,
    ) -> Result<(), Status> {
        let mut message = first;
        loop {
            for Block { data, crc32c } in message.blocks {
                writer.block(data, crc32c).await.map_err(|error| disk_status(&error))?;
            }
            if message.last {
                return Ok(());
            }
            let next = timeout(UPLOAD_IDLE_DEADLINE, stream.message())
                .await
                .map_err(|_| Status::aborted("the upload of a shard stalled and was given up"))??;
            message = next.ok_or_else(|| Status::cancelled("the upload of a shard was given up"))?;
        }
    }
}

#[tonic::async_trait]
impl Shards for ShardService {
    async fn put(&self, request: Request<Streaming<PutShardRequest>>) -> Result<Response<PutShardResponse>, Status> {
        let mut stream = request.into_inner();
        let mut first =
            stream.message().await?.ok_or_else(|| Status::invalid_argument("a shard's upload begins with its head"))?;
        self.meta.check_envelope(first.envelope.as_ref())?;
        let volume = self.volume(wire::disk(&first.disk_id)?, true)?;
        let head =
            first.begin.take().ok_or_else(|| Status::invalid_argument("a shard's upload begins with its head"))?;
        let head = wire::from_head(&head)?;
        let writer = volume.create_shard(head).map_err(|error| disk_status(&error))?;
        let mut writer = writer.for_client();
        match Self::receive(&mut writer, first, &mut stream).await {
            Ok(()) => {
                let bytes = writer.finish().await.map_err(|error| disk_status(&error))?;
                Ok(Response::new(PutShardResponse { bytes }))
            }
            Err(status) => {
                writer.abort().await;
                Err(status)
            }
        }
    }

    type GetStream = Pin<Box<dyn Stream<Item = Result<GetShardResponse, Status>> + Send>>;

    async fn get(&self, request: Request<GetShardRequest>) -> Result<Response<Self::GetStream>, Status> {
        let request = request.into_inner();
        self.meta.check_envelope(request.envelope.as_ref())?;
        let key = wire::from_id(request.id.as_ref())?;
        let volume = self.volume(wire::disk(&request.disk_id)?, false)?;
        let purpose = if request.background { Purpose::Background } else { Purpose::Client };
        let reader = volume.open_shard(key, purpose).await.map_err(|error| disk_status(&error))?;
        let mut run = Run::of(reader, request.first_block, request.blocks);
        // What fits into one message is not worth a task and a channel: half of what a small object's shards cost.
        if run.end - run.next <= MESSAGE_BLOCKS {
            let (message, failure) = run.message().await;
            let message = message.map(Ok).into_iter().chain(failure.map(Err));
            return Ok(Response::new(Box::pin(tokio_stream::iter(message.collect::<Vec<_>>()))));
        }
        let (messages, outgoing) = mpsc::channel(MESSAGES_AHEAD);
        tokio::spawn(run.send(messages));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn get_many(&self, request: Request<GetManyRequest>) -> Result<Response<GetManyResponse>, Status> {
        let request = request.into_inner();
        self.meta.check_envelope(request.envelope.as_ref())?;
        let blocks: usize = request.runs.iter().map(|run| run.blocks as usize).sum();
        if blocks > GATHERED_BLOCKS || request.runs.iter().any(|run| !Gatherer::takes(run.blocks)) {
            return Err(Status::invalid_argument(format!(
                "runs of {blocks} blocks were asked for at once; a call may be for {GATHERED_BLOCKS}, and a run for \
                 {BLOCKS_PER_MESSAGE}"
            )));
        }
        let volume = self.volume(wire::disk(&request.disk_id)?, false)?;
        let keys: Vec<_> = request.runs.iter().map(|run| wire::from_id(run.id.as_ref())).collect::<Result<_, _>>()?;
        let readers = volume.open_shards(&keys).await.map_err(|error| disk_status(&error))?;
        let mut answers = Vec::with_capacity(keys.len());
        for (run, reader) in request.runs.iter().zip(readers) {
            answers.push(match reader {
                Ok(reader) => {
                    let (message, failure) = Run::of(reader, run.first_block, run.blocks).message().await;
                    let blocks = message.map(|message| message.blocks).unwrap_or_default();
                    ShardRunAnswer { blocks, ..failure.as_ref().map(refusal).unwrap_or_default() }
                }
                Err(error) => refusal(&disk_status(&error)),
            });
        }
        Ok(Response::new(GetManyResponse { answers }))
    }

    async fn verify(&self, request: Request<VerifyShardRequest>) -> Result<Response<VerifyShardResponse>, Status> {
        let request = request.into_inner();
        self.meta.check_envelope(request.envelope.as_ref())?;
        let key = wire::from_id(request.id.as_ref())?;
        let volume = self.volume(wire::disk(&request.disk_id)?, false)?;
        let verdict = volume.verify_shard(key).await.map_err(|error| disk_status(&error))?;
        Ok(Response::new(wire::to_verdict(&verdict)))
    }

    async fn discard(&self, request: Request<DiscardRequest>) -> Result<Response<DiscardResponse>, Status> {
        let request = request.into_inner();
        self.meta.check_envelope(request.envelope.as_ref())?;
        let version = wire::version(&request.version)?;
        let volume = self.volume(wire::disk(&request.disk_id)?, false)?;
        if !crate::repair::is_forbidden(&self.meta, version)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?
        {
            return Err(Status::failed_precondition(format!("version {version} was not forbidden: its shards stay")));
        }
        let keys = request.shards.iter().map(|id| wire::from_id(Some(id))).collect::<Result<Vec<_>, _>>()?;
        if let Some(key) = keys.iter().find(|key| key.version != version) {
            return Err(Status::invalid_argument(format!("shard {key} is not of version {version}")));
        }
        let discarded =
            volume.move_all_aside(&keys, crate::disk::REPLACED).await.map_err(|error| disk_status(&error))?;
        Ok(Response::new(DiscardResponse { discarded }))
    }

    async fn report(&self, request: Request<ReportShardRequest>) -> Result<Response<ReportShardResponse>, Status> {
        let request = request.into_inner();
        self.meta.check_envelope(request.envelope.as_ref())?;
        let suspect = Suspect {
            bucket: BucketName(request.bucket),
            key: request.key,
            shard: wire::from_id(request.id.as_ref())?,
            disk: wire::disk(&request.disk_id)?,
            kind: SuspectKind::parse(&request.kind),
            found_by: FoundBy::parse(&request.found_by),
            detail: request.why,
        };
        self.board.suspect(&self.meta, suspect).await;
        Ok(Response::new(ReportShardResponse {}))
    }

    async fn rebuild(&self, request: Request<RebuildShardRequest>) -> Result<Response<RebuildShardResponse>, Status> {
        let request = request.into_inner();
        self.meta.check_envelope(request.envelope.as_ref())?;
        let key = wire::from_id(request.id.as_ref())?;
        let disk = wire::disk(&request.disk_id)?;
        self.volume(disk, true)?;
        let bucket = BucketName(request.bucket);
        if let Some(force) = request.force {
            let distrust =
                force.distrust.iter().filter_map(|shard| u8::try_from(*shard).ok().map(ShardIndex)).collect();
            let force = Force { crc: force.crc32c, distrust };
            let report = self.rebuilder.force_here(&bucket, &request.key, key, disk, &force).await;
            return Ok(Response::new(report.into()));
        }
        let report = match request.stand_in {
            true => self.rebuilder.stand_in_at(&bucket, &request.key, key, disk).await,
            false => self.rebuilder.rebuild_here(&bucket, &request.key, key, disk).await,
        };
        Ok(Response::new(report.into()))
    }
}

/// Blocks that are read to be sent.
struct Run {
    reader: ShardReader,
    /// Until it is sent: in the first message only.
    head: Option<ShardHead>,
    next: u32,
    end: u32,
}

/// What ended a run, in an answer of several.
fn refusal(status: &Status) -> ShardRunAnswer {
    ShardRunAnswer { blocks: Vec::new(), code: status.code() as u32, detail: status.message().to_owned() }
}

impl Run {
    /// So many blocks from `first` on, as far as there are; 0: to the end.
    fn of(reader: ShardReader, first: u32, blocks: u32) -> Self {
        let total = reader.blocks();
        let first = first.min(total);
        let end = if blocks == 0 { total } else { first.saturating_add(blocks).min(total) };
        Self { head: Some(wire::to_head(reader.head())), reader, next: first, end }
    }

    /// The next message, and what ended it early. Good blocks before a bad one are worth sending: the reader goes on from
    /// where this home fails. `None`: no block was good.
    async fn message(&mut self) -> (Option<GetShardResponse>, Option<Status>) {
        let upto = self.end.min(self.next + MESSAGE_BLOCKS);
        let mut blocks = Vec::with_capacity(BLOCKS_PER_MESSAGE);
        let mut failure = None;
        while self.next < upto {
            match self.reader.block(self.next).await {
                Ok((data, crc32c)) => blocks.push(Block { data, crc32c }),
                Err(error) => {
                    failure = Some(disk_status(&error));
                    break;
                }
            }
            self.next += 1;
        }
        let message = (!blocks.is_empty()).then(|| GetShardResponse { head: self.head.take(), blocks });
        (message, failure)
    }

    /// Reads a message ahead of the wire. Ends when the reader at the other side is gone.
    async fn send(mut self, messages: mpsc::Sender<Result<GetShardResponse, Status>>) {
        while self.next < self.end {
            let (message, failure) = self.message().await;
            if let Some(message) = message
                && messages.send(Ok(message)).await.is_err()
            {
                return;
            }
            if let Some(status) = failure {
                // Nobody is there to be told when this fails.
                let _ = messages.send(Err(status)).await;
                return;
            }
        }
    }
}
