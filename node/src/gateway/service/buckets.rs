//! Buckets: create, list, set, delete.

use resilver_proto::store::{
    self as wire, Bucket, CreateBucketRequest, DeleteBucketRequest, DeleteBucketResponse, ListBucketsRequest,
    ListBucketsResponse, SetBucketRequest, set_bucket_request,
};
use tonic::Status;

use super::StoreService;
use crate::gateway::{BucketChange, BucketSettings, RESERVED_PREFIX};
use crate::model::{BucketRecord, Coding, DEFAULT_REPAIR_PRIORITY};
use crate::types::BucketName;

/// A bucket of this name could not be listed through the S3 door.
const HEALTH: &str = "health";

impl StoreService {
    pub(super) async fn make_bucket(&self, request: CreateBucketRequest) -> Result<Bucket, Status> {
        let name = clients_bucket(request.bucket)?;
        if name.as_str() == HEALTH {
            return Err(Status::invalid_argument(format!(
                "{HEALTH:?} is the path that load balancers ask at the S3 door, and no name for a bucket: choose another"
            )));
        }
        let settings = BucketSettings {
            coding: request.coding.map(coding).transpose()?,
            quota_bytes: request.quota_bytes,
            repair_priority: request.repair_priority.map(priority).transpose()?.unwrap_or(DEFAULT_REPAIR_PRIORITY),
            // Whoever speaks gRPC is an operator, not a key.
            owner: String::new(),
        };
        let (bucket, warning) = self.gateway.create_bucket(&name, settings, request.if_absent).await?;
        self.bucket_message(&bucket, warning).await
    }

    pub(super) async fn all_buckets(&self, _: ListBucketsRequest) -> Result<ListBucketsResponse, Status> {
        let mut buckets = Vec::new();
        for bucket in self.gateway.list_buckets().await? {
            buckets.push(self.bucket_message(&bucket, None).await?);
        }
        Ok(ListBucketsResponse { buckets })
    }

    pub(super) async fn change_bucket(&self, request: SetBucketRequest) -> Result<Bucket, Status> {
        let name = clients_bucket(request.bucket)?;
        let change = BucketChange {
            coding: request.coding.map(coding).transpose()?,
            quota_bytes: request.quota.map(|quota| match quota {
                set_bucket_request::Quota::QuotaBytes(bytes) => Some(bytes),
                set_bucket_request::Quota::NoQuota(_) => None,
            }),
            repair_priority: request.repair_priority.map(priority).transpose()?,
        };
        let (bucket, warning) = self.gateway.set_bucket(&name, change).await?;
        self.bucket_message(&bucket, warning).await
    }

    pub(super) async fn remove_bucket(&self, request: DeleteBucketRequest) -> Result<DeleteBucketResponse, Status> {
        self.gateway.delete_bucket(&clients_bucket(request.bucket)?).await?;
        Ok(DeleteBucketResponse {})
    }

    async fn bucket_message(&self, bucket: &BucketRecord, warning: Option<String>) -> Result<Bucket, Status> {
        let usage = self.gateway.bucket_usage(&bucket.name).await?;
        Ok(Bucket {
            name: bucket.name.to_string(),
            coding: Some(coding_message(bucket.coding)),
            created_ms: bucket.created_ms,
            warning: warning.unwrap_or_default(),
            quota_bytes: bucket.quota_bytes,
            repair_priority: u32::from(bucket.repair_priority),
            owner: bucket.owner.clone(),
            objects: usage.objects,
            used_bytes: usage.bytes,
        })
    }
}

/// A name that clients may use: the product's own buckets are neither made, changed nor deleted from outside.
pub(super) fn clients_bucket(name: String) -> Result<BucketName, Status> {
    if name.starts_with(RESERVED_PREFIX) {
        return Err(Status::invalid_argument(format!(
            "bucket names that begin with {RESERVED_PREFIX:?} are reserved: choose another"
        )));
    }
    Ok(BucketName(name))
}

fn coding(message: wire::Coding) -> Result<Coding, Status> {
    match (u8::try_from(message.k), u8::try_from(message.m)) {
        (Ok(k), Ok(m)) => Ok(Coding { k, m }),
        _ => Err(Status::invalid_argument(format!("coding {}+{} is out of range", message.k, message.m))),
    }
}

fn priority(number: u32) -> Result<u8, Status> {
    u8::try_from(number).map_err(|_| {
        Status::invalid_argument(format!("repair priority {number} is not between 0 (first) and 255 (last)"))
    })
}

pub(super) fn coding_message(coding: Coding) -> wire::Coding {
    wire::Coding { k: u32::from(coding.k), m: u32::from(coding.m) }
}
