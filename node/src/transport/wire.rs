//! Between the node's own words and the messages of `Shards`.

use resilver_proto::internal;
use tonic::Status;

use crate::disk::{ShardHead, ShardVerdict};
use crate::model::Coding;
use crate::types::{DiskId, Epoch, ExtentIndex, ShardIndex, ShardKey, Version};

pub(super) fn disk(text: &str) -> Result<DiskId, Status> {
    text.parse().map_err(|_| Status::invalid_argument(format!("{text:?} is no disk id")))
}

pub(super) fn version(text: &str) -> Result<Version, Status> {
    text.parse().map_err(|_| Status::invalid_argument(format!("{text:?} is no version")))
}

pub(super) fn to_id(key: ShardKey) -> internal::ShardId {
    internal::ShardId { version: key.version.to_string(), extent: key.extent.0, shard: u32::from(key.shard.0) }
}

pub(super) fn from_id(id: Option<&internal::ShardId>) -> Result<ShardKey, Status> {
    let id = id.ok_or_else(|| Status::invalid_argument("the call names no shard"))?;
    Ok(ShardKey {
        version: version(&id.version)?,
        extent: ExtentIndex(id.extent),
        shard: ShardIndex(small(id.shard, "shard")?),
    })
}

pub(super) fn to_head(head: &ShardHead) -> internal::ShardHead {
    internal::ShardHead {
        id: Some(to_id(head.key)),
        k: u32::from(head.coding.k),
        m: u32::from(head.coding.m),
        codec: u32::from(head.codec),
        block_bytes: head.block_bytes,
        extent_bytes: head.extent_bytes,
        epoch: head.epoch.0,
    }
}

pub(super) fn from_head(head: &internal::ShardHead) -> Result<ShardHead, Status> {
    Ok(ShardHead {
        key: from_id(head.id.as_ref())?,
        coding: Coding { k: small(head.k, "k")?, m: small(head.m, "m")? },
        codec: u16::try_from(head.codec).map_err(|_| Status::invalid_argument("codec out of range"))?,
        block_bytes: head.block_bytes,
        extent_bytes: head.extent_bytes,
        epoch: Epoch(head.epoch),
    })
}

fn small(number: u32, what: &str) -> Result<u8, Status> {
    u8::try_from(number).map_err(|_| Status::invalid_argument(format!("{what} {number} is out of range")))
}

pub(super) fn to_verdict(verdict: &ShardVerdict) -> internal::VerifyShardResponse {
    match verdict {
        ShardVerdict::Ok { bytes, crc } => internal::VerifyShardResponse {
            state: "ok".to_owned(),
            crc_expected: *crc,
            crc_got: *crc,
            detail: String::new(),
            bytes: *bytes,
        },
        ShardVerdict::Corrupt { expected, got, detail } => internal::VerifyShardResponse {
            state: "corrupt".to_owned(),
            crc_expected: *expected,
            crc_got: *got,
            detail: detail.clone(),
            bytes: 0,
        },
        ShardVerdict::Missing => internal::VerifyShardResponse { state: "missing".to_owned(), ..Default::default() },
    }
}

pub(super) fn from_verdict(answer: internal::VerifyShardResponse) -> ShardVerdict {
    match answer.state.as_str() {
        "ok" => ShardVerdict::Ok { bytes: answer.bytes, crc: answer.crc_got },
        "missing" => ShardVerdict::Missing,
        // An unknown word is never taken for ok.
        _ => ShardVerdict::Corrupt { expected: answer.crc_expected, got: answer.crc_got, detail: answer.detail },
    }
}
