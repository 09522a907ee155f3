//! Objects: put, get, head, delete, list, verify, repair.

use bytes::Bytes;
use futures_util::StreamExt;
use resilver_proto::store::{
    self as wire, DeleteRequest, DeleteResponse, GetRequest, GetResponse, HeadRequest, ListRequest, ListResponse,
    ObjectInfo, PutBegin, PutRequest, PutResponse, RepairRequest, RepairResponse, VerifyRequest, VerifyResponse,
    get_response, put_request,
};
use tonic::{Status, Streaming};

use super::buckets::{clients_bucket, coding_message};
use super::{GetStream, StoreService, count};
use crate::gateway::{ByteRange, Entry, ListQuery, PutOptions, ShardCheck, ShardState};
use crate::model::{Condition, ObjectRecord, UPLOADS_BUCKET};
use crate::types::{BucketName, Version};

impl StoreService {
    pub(super) async fn put_object(&self, mut stream: Streaming<PutRequest>) -> Result<PutResponse, Status> {
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
        Ok(PutResponse {
            version: done.version.to_string(),
            size_bytes: done.size_bytes,
            crc32c: done.crc32c,
            shards_missing: count(done.shards_missing),
        })
    }

    pub(super) async fn get_object(&self, request: GetRequest) -> Result<GetStream, Status> {
        let bucket = BucketName(request.bucket);
        let range = ByteRange { offset: request.offset, length: request.length };
        let content = self.gateway.get(&bucket, &request.key, range).await?;
        let head = object_message(&bucket, &request.key, &content.record);
        let head = Ok(GetResponse { of: Some(get_response::Of::Head(head)) });
        let data = content
            .stream
            .map(|piece| Ok(GetResponse { of: Some(get_response::Of::Data(piece.map_err(Status::from)?)) }));
        Ok(Box::pin(futures_util::stream::iter([head]).chain(data)))
    }

    pub(super) async fn head_object(&self, request: HeadRequest) -> Result<ObjectInfo, Status> {
        let bucket = BucketName(request.bucket);
        let record = self.gateway.head(&bucket, &request.key).await?;
        Ok(object_message(&bucket, &request.key, &record))
    }

    pub(super) async fn delete_object(&self, request: DeleteRequest) -> Result<DeleteResponse, Status> {
        let condition = optional_version(&request.if_version)?.map_or(Condition::None, Condition::Version);
        let existed = self.gateway.delete(&clients_bucket(request.bucket)?, &request.key, condition).await?;
        Ok(DeleteResponse { existed })
    }

    pub(super) async fn list_objects(&self, request: ListRequest) -> Result<ListResponse, Status> {
        let bucket = BucketName(request.bucket);
        let query = ListQuery {
            prefix: request.prefix,
            delimiter: String::new(),
            after: request.after,
            limit: request.limit as usize,
        };
        let page = match bucket.as_str() {
            UPLOADS_BUCKET => self.gateway.list_parts_of_all(query).await?,
            _ => self.gateway.list(&bucket, query).await?,
        };
        let objects = page.entries.iter().filter_map(|entry| match entry {
            Entry::Object(key, record) => Some(object_message(&bucket, key, record)),
            // Without a delimiter there are none.
            Entry::Prefix(_) => None,
        });
        Ok(ListResponse { objects: objects.collect(), truncated: page.truncated, applied_index: page.applied })
    }

    pub(super) async fn verify_object(&self, request: VerifyRequest) -> Result<VerifyResponse, Status> {
        let bucket = BucketName(request.bucket);
        let verdict = match request.full {
            true => self.gateway.verify_fully(&bucket, &request.key).await?,
            false => self.gateway.verify(&bucket, &request.key).await?,
        };
        Ok(VerifyResponse {
            object: Some(object_message(&bucket, &request.key, &verdict.record)),
            shards: verdict.shards.iter().map(shard_message).collect(),
            recoverable: verdict.recoverable,
            intact: verdict.intact,
        })
    }

    pub(super) async fn repair_object(&self, request: RepairRequest) -> Result<RepairResponse, Status> {
        let bucket = BucketName(request.bucket);
        let repair = match request.full {
            true => self.gateway.repair_fully(&bucket, &request.key).await?,
            false => self.gateway.repair(&bucket, &request.key).await?,
        };
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
        Ok(RepairResponse { shards: shards.collect(), intact: repair.intact })
    }
}

fn put_options(begin: PutBegin) -> Result<PutOptions, Status> {
    let condition = match (begin.if_absent, optional_version(&begin.if_version)?) {
        (false, None) => Condition::None,
        (true, None) => Condition::Absent,
        (false, Some(version)) => Condition::Version(version),
        (true, Some(_)) => return Err(Status::invalid_argument("if_absent and if_version exclude each other")),
    };
    Ok(PutOptions { bucket: clients_bucket(begin.bucket)?, key: begin.key, condition, size_bytes: begin.size_bytes })
}

fn optional_version(text: &str) -> Result<Option<Version>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let version = text.parse().map_err(|_| Status::invalid_argument(format!("{text:?} is no version")))?;
    Ok(Some(version))
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

fn shard_message(check: &ShardCheck) -> wire::ShardStatus {
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
        bytes: match check.state {
            ShardState::Ok { bytes, .. } => bytes,
            _ => 0,
        },
    }
}
