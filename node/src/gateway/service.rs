//! The `Store` service: the gateway's answers as gRPC messages. Decides nothing but whether this node serves at all.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use resilver_proto::store::store_server::{Store, StoreServer};
use resilver_proto::store::{
    self as wire, Bucket, CreateBucketRequest, DeleteRequest, DeleteResponse, GetRequest, GetResponse, HeadRequest,
    ListBucketsRequest, ListBucketsResponse, ListRequest, ListResponse, ObjectInfo, PutBegin, PutRequest, PutResponse,
    RepairRequest, RepairResponse, VerifyRequest, VerifyResponse, get_response, put_request,
};
use resilver_proto::transport::MAX_MESSAGE_BYTES;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::{ByteRange, Gateway, PutOptions, RESERVED_PREFIX, ShardState};
use crate::meta::Meta;
use crate::model::{BucketRecord, Coding, Condition, ObjectRecord};
use crate::types::{BucketName, Version};

/// The gRPC service in front of a [`Gateway`].
pub struct StoreService {
    gateway: Gateway,
    meta: Meta,
    serving: watch::Receiver<bool>,
}

impl StoreService {
    /// Answers while `serving` is true; refuses with `UNAVAILABLE` otherwise: isolation until verified.
    pub fn new(gateway: Gateway, meta: Meta, serving: watch::Receiver<bool>) -> Self {
        Self { gateway, meta, serving }
    }

    /// As a tonic service, with the message limits of this product.
    pub fn into_server(self) -> StoreServer<Self> {
        StoreServer::new(self).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn serving(&self) -> Result<(), Status> {
        if *self.serving.borrow() {
            return Ok(());
        }
        Err(Status::unavailable(
            "starting: this node serves no client before it is verified; ask another node, or wait",
        ))
    }
}

#[tonic::async_trait]
impl Store for StoreService {
    async fn create_bucket(&self, request: Request<CreateBucketRequest>) -> Result<Response<Bucket>, Status> {
        self.serving()?;
        let request = request.into_inner();
        if request.bucket.starts_with(RESERVED_PREFIX) {
            return Err(Status::invalid_argument(format!(
                "bucket names that begin with {RESERVED_PREFIX:?} are reserved: choose another"
            )));
        }
        let coding = request.coding.map(coding).transpose()?;
        let (bucket, warning) =
            self.gateway.create_bucket(&BucketName(request.bucket), coding, request.if_absent).await?;
        Ok(Response::new(bucket_message(&bucket, warning)))
    }

    async fn list_buckets(&self, _: Request<ListBucketsRequest>) -> Result<Response<ListBucketsResponse>, Status> {
        self.serving()?;
        let buckets = self.gateway.list_buckets().await?;
        let buckets = buckets.iter().map(|bucket| bucket_message(bucket, None)).collect();
        Ok(Response::new(ListBucketsResponse { buckets }))
    }

    async fn put(&self, request: Request<Streaming<PutRequest>>) -> Result<Response<PutResponse>, Status> {
        self.serving()?;
        let mut stream = request.into_inner();
        let first = stream.message().await?.and_then(|message| message.of);
        let Some(put_request::Of::Begin(begin)) = first else {
            return Err(Status::invalid_argument("the first message of a put is `begin`"));
        };
        let options = put_options(begin)?;
        let body = stream.map(|message| match message?.of {
            Some(put_request::Of::Data(data)) => Ok(data),
            Some(put_request::Of::Begin(_)) => Err(Status::invalid_argument("`begin` came twice")),
            None => Ok(Bytes::new()),
        });
        let done =
            self.gateway.put(options, body.map(|part| part.map_err(|status| status.message().to_owned()))).await?;
        Ok(Response::new(PutResponse {
            version: done.version.to_string(),
            size_bytes: done.size_bytes,
            crc32c: done.crc32c,
            shards_missing: count(done.shards_missing),
        }))
    }

    type GetStream = Pin<Box<dyn Stream<Item = Result<GetResponse, Status>> + Send>>;

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        self.serving()?;
        let request = request.into_inner();
        let bucket = BucketName(request.bucket);
        let range = ByteRange { offset: request.offset, length: request.length };
        let content = self.gateway.get(&bucket, &request.key, range).await?;
        let head = object_message(&bucket, &request.key, &content.record);
        let head = Ok(GetResponse { of: Some(get_response::Of::Head(head)) });
        let data = content
            .stream
            .map(|piece| Ok(GetResponse { of: Some(get_response::Of::Data(piece.map_err(Status::from)?)) }));
        Ok(Response::new(Box::pin(futures_util::stream::iter([head]).chain(data))))
    }

    async fn head(&self, request: Request<HeadRequest>) -> Result<Response<ObjectInfo>, Status> {
        self.serving()?;
        let request = request.into_inner();
        let bucket = BucketName(request.bucket);
        let record = self.gateway.head(&bucket, &request.key).await?;
        Ok(Response::new(object_message(&bucket, &request.key, &record)))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        self.serving()?;
        let request = request.into_inner();
        let if_version = optional_version(&request.if_version)?;
        let existed = self.gateway.delete(&BucketName(request.bucket), &request.key, if_version).await?;
        Ok(Response::new(DeleteResponse { existed }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        self.serving()?;
        let request = request.into_inner();
        let bucket = BucketName(request.bucket);
        let page = self.gateway.list(&bucket, &request.prefix, &request.after, request.limit as usize).await?;
        let objects = page.objects.iter().map(|(key, record)| object_message(&bucket, key, record)).collect();
        Ok(Response::new(ListResponse { objects, truncated: page.truncated, applied_index: page.applied }))
    }

    async fn verify(&self, request: Request<VerifyRequest>) -> Result<Response<VerifyResponse>, Status> {
        self.serving()?;
        let request = request.into_inner();
        let bucket = BucketName(request.bucket);
        let verdict = self.gateway.verify(&bucket, &request.key).await?;
        Ok(Response::new(VerifyResponse {
            object: Some(object_message(&bucket, &request.key, &verdict.record)),
            shards: verdict.shards.iter().map(shard_message).collect(),
            recoverable: verdict.recoverable,
            intact: verdict.intact,
        }))
    }

    async fn repair(&self, request: Request<RepairRequest>) -> Result<Response<RepairResponse>, Status> {
        self.serving()?;
        let request = request.into_inner();
        let repair = self.gateway.repair(&BucketName(request.bucket), &request.key).await?;
        let map = self.meta.map();
        let shards = repair.shards.into_iter().map(|shard| wire::RepairedShard {
            extent: shard.extent.0,
            shard: u32::from(shard.shard.0),
            rebuilt_from: shard.report.rebuilt_from.iter().map(|from| u32::from(from.0)).collect(),
            placed_on: shard.disk.map(|disk| disk.to_string()).unwrap_or_default(),
            node: shard
                .node
                .or_else(|| shard.disk.and_then(|disk| map.node_of_disk(disk)).map(|node| node.name.clone()))
                .map(|node| node.0)
                .unwrap_or_default(),
            state: shard.report.state.as_str().to_owned(),
            detail: shard.report.detail,
        });
        Ok(Response::new(RepairResponse { shards: shards.collect(), intact: repair.intact }))
    }
}

fn put_options(begin: PutBegin) -> Result<PutOptions, Status> {
    let condition = match (begin.if_absent, optional_version(&begin.if_version)?) {
        (false, None) => Condition::None,
        (true, None) => Condition::Absent,
        (false, Some(version)) => Condition::Version(version),
        (true, Some(_)) => return Err(Status::invalid_argument("if_absent and if_version exclude each other")),
    };
    Ok(PutOptions { bucket: BucketName(begin.bucket), key: begin.key, condition, size_bytes: begin.size_bytes })
}

fn optional_version(text: &str) -> Result<Option<Version>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let version = text.parse().map_err(|_| Status::invalid_argument(format!("{text:?} is no version")))?;
    Ok(Some(version))
}

fn coding(message: wire::Coding) -> Result<Coding, Status> {
    match (u8::try_from(message.k), u8::try_from(message.m)) {
        (Ok(k), Ok(m)) => Ok(Coding { k, m }),
        _ => Err(Status::invalid_argument(format!("coding {}+{} is out of range", message.k, message.m))),
    }
}

fn coding_message(coding: Coding) -> wire::Coding {
    wire::Coding { k: u32::from(coding.k), m: u32::from(coding.m) }
}

fn bucket_message(bucket: &BucketRecord, warning: Option<String>) -> Bucket {
    Bucket {
        name: bucket.name.to_string(),
        coding: Some(coding_message(bucket.coding)),
        created_ms: bucket.created_ms,
        warning: warning.unwrap_or_default(),
    }
}

fn object_message(bucket: &BucketName, key: &str, record: &ObjectRecord) -> ObjectInfo {
    ObjectInfo {
        bucket: bucket.to_string(),
        key: key.to_owned(),
        version: record.version.to_string(),
        size_bytes: record.size_bytes,
        crc32c: record.crc32c,
        modified_ms: record.modified_ms,
        coding: Some(coding_message(record.coding)),
        extents: count(record.extents.len()),
        shards_missing: count(record.missing_shards()),
    }
}

fn shard_message(check: &super::ShardCheck) -> wire::ShardStatus {
    let (crc_expected, crc_got, detail) = match &check.state {
        ShardState::Ok { bytes, crc } => (*crc, *crc, format!("{bytes} bytes read back")),
        ShardState::Corrupt { expected, got, detail } => (*expected, *got, detail.clone()),
        ShardState::Missing(detail) | ShardState::Unreachable(detail) => (0, 0, detail.clone()),
    };
    wire::ShardStatus {
        extent: check.extent.0,
        shard: u32::from(check.shard.0),
        disk_id: check.disk.to_string(),
        node: check.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        state: check.state.as_str().to_owned(),
        crc_expected,
        crc_got,
        detail,
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
