//! Operations on buckets, and what clients ask of buckets and objects that is the same for all of them.

use s3s::dto::*;
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use super::access::{OWNER, call_of, may_see, owns};
use super::attributes::{only_version, refuse_unhonoured};
use super::conditions::timestamp;
use super::errors::error;
use super::store::Store;
use crate::gateway::{BucketSettings, GatewayError};
use crate::types;

/// The region whose location is written as nothing at all.
const FIRST_REGION: &str = "us-east-1";

/// The most buckets of one page.
const MAX_BUCKETS: usize = 10_000;

/// Whom everything belongs to, as answers say it.
pub(super) fn owner() -> Owner {
    Owner { display_name: Some(OWNER.to_owned()), id: Some(OWNER.to_owned()) }
}

pub(super) fn name(bucket: &str) -> types::BucketName {
    types::BucketName::from(bucket)
}

pub(super) async fn create_bucket(
    store: &Store,
    request: S3Request<CreateBucketInput>,
) -> S3Result<S3Response<CreateBucketOutput>> {
    refuse_unhonoured(&request.headers)?;
    let key = call_of(&request.extensions)?.key()?.clone();
    let input = request.input;
    let constraint = input.create_bucket_configuration.and_then(|configuration| configuration.location_constraint);
    if let Some(constraint) = constraint.filter(|constraint| !constraint.as_str().is_empty())
        && constraint.as_str() != store.region
    {
        return Err(error(
            S3ErrorCode::InvalidLocationConstraint,
            format!("The specified location-constraint is not valid: this cluster is {:?}", store.region),
        ));
    }
    let bucket = name(&input.bucket);
    let settings = BucketSettings { owner: key.id.clone(), ..BucketSettings::default() };
    match store.gateway.create_bucket(&bucket, settings, false).await {
        Ok(_) => {
            let location = Some(format!("/{bucket}"));
            Ok(S3Response::new(CreateBucketOutput { location }))
        }
        Err(GatewayError::BucketExists(_)) => {
            let record = store.gateway.bucket(&bucket).await?;
            Err(if owns(&key, &bucket, &record.owner) {
                error(
                    S3ErrorCode::BucketAlreadyOwnedByYou,
                    "Your previous request to create the named bucket succeeded and you already own it.",
                )
            } else {
                error(S3ErrorCode::BucketAlreadyExists, "The requested bucket name is not available.")
            })
        }
        Err(failed) => Err(failed.into()),
    }
}

pub(super) async fn head_bucket(
    store: &Store,
    request: S3Request<HeadBucketInput>,
) -> S3Result<S3Response<HeadBucketOutput>> {
    store.gateway.bucket(&name(&request.input.bucket)).await?;
    let bucket_region = Some(store.region.clone());
    Ok(S3Response::new(HeadBucketOutput { bucket_region, ..HeadBucketOutput::default() }))
}

pub(super) async fn list_buckets(
    store: &Store,
    request: S3Request<ListBucketsInput>,
) -> S3Result<S3Response<ListBucketsOutput>> {
    let key = call_of(&request.extensions)?.key()?;
    let ListBucketsInput { prefix, continuation_token, max_buckets, bucket_region, .. } = request.input;
    let limit = match max_buckets {
        None => MAX_BUCKETS,
        Some(limit) => usize::try_from(limit)
            .ok()
            .filter(|limit| (1..=MAX_BUCKETS).contains(limit))
            .ok_or_else(|| error(S3ErrorCode::InvalidArgument, "max-buckets must be between 1 and 10000"))?,
    };
    let begins = prefix.clone().unwrap_or_default();
    let after = continuation_token.unwrap_or_default();
    let mut buckets: Vec<Bucket> = Vec::new();
    let mut next = None;
    for record in store.gateway.list_buckets().await? {
        let bucket = record.name.as_str();
        let elsewhere = bucket_region.as_ref().is_some_and(|region| *region != store.region);
        if !may_see(key, &record.name) || !bucket.starts_with(&begins) || bucket <= after.as_str() || elsewhere {
            continue;
        }
        if buckets.len() == limit {
            next = buckets.last().and_then(|last| last.name.clone());
            break;
        }
        buckets.push(Bucket {
            name: Some(bucket.to_owned()),
            creation_date: Some(timestamp(record.created_ms)),
            bucket_region: Some(store.region.clone()),
        });
    }
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(buckets),
        continuation_token: next,
        owner: Some(owner()),
        prefix,
    }))
}

pub(super) async fn delete_bucket(
    store: &Store,
    request: S3Request<DeleteBucketInput>,
) -> S3Result<S3Response<DeleteBucketOutput>> {
    store.gateway.delete_bucket(&name(&request.input.bucket)).await?;
    Ok(S3Response::with_status(DeleteBucketOutput::default(), http::StatusCode::NO_CONTENT))
}

pub(super) async fn get_bucket_location(
    store: &Store,
    request: S3Request<GetBucketLocationInput>,
) -> S3Result<S3Response<GetBucketLocationOutput>> {
    store.gateway.bucket(&name(&request.input.bucket)).await?;
    let named = (store.region != FIRST_REGION).then(|| BucketLocationConstraint::from(store.region.clone()));
    Ok(S3Response::new(GetBucketLocationOutput { location_constraint: named }))
}

pub(super) async fn get_bucket_versioning(
    store: &Store,
    request: S3Request<GetBucketVersioningInput>,
) -> S3Result<S3Response<GetBucketVersioningOutput>> {
    store.gateway.bucket(&name(&request.input.bucket)).await?;
    Ok(S3Response::new(GetBucketVersioningOutput::default()))
}

/// The one grant there is, in the words of access control lists.
fn full_control() -> Vec<Grant> {
    vec![Grant {
        grantee: Some(Grantee {
            display_name: Some(OWNER.to_owned()),
            email_address: None,
            id: Some(OWNER.to_owned()),
            type_: Type::from_static(Type::CANONICAL_USER),
            uri: None,
        }),
        permission: Some(Permission::from_static(Permission::FULL_CONTROL)),
    }]
}

pub(super) async fn get_bucket_acl(
    store: &Store,
    request: S3Request<GetBucketAclInput>,
) -> S3Result<S3Response<GetBucketAclOutput>> {
    store.gateway.bucket(&name(&request.input.bucket)).await?;
    Ok(S3Response::new(GetBucketAclOutput { grants: Some(full_control()), owner: Some(owner()) }))
}

pub(super) async fn get_object_acl(
    store: &Store,
    request: S3Request<GetObjectAclInput>,
) -> S3Result<S3Response<GetObjectAclOutput>> {
    let input = request.input;
    only_version(input.version_id.as_deref())?;
    store.gateway.head(&name(&input.bucket), &input.key).await?;
    Ok(S3Response::new(GetObjectAclOutput {
        grants: Some(full_control()),
        owner: Some(owner()),
        ..GetObjectAclOutput::default()
    }))
}

pub(super) async fn get_object_tagging(
    store: &Store,
    request: S3Request<GetObjectTaggingInput>,
) -> S3Result<S3Response<GetObjectTaggingOutput>> {
    let input = request.input;
    only_version(input.version_id.as_deref())?;
    store.gateway.head(&name(&input.bucket), &input.key).await?;
    Ok(S3Response::new(GetObjectTaggingOutput { tag_set: Vec::new(), version_id: None }))
}

pub(super) async fn get_bucket_request_payment(
    store: &Store,
    request: S3Request<GetBucketRequestPaymentInput>,
) -> S3Result<S3Response<GetBucketRequestPaymentOutput>> {
    store.gateway.bucket(&name(&request.input.bucket)).await?;
    let payer = Some(Payer::from_static(Payer::BUCKET_OWNER));
    Ok(S3Response::new(GetBucketRequestPaymentOutput { payer }))
}

pub(super) async fn get_bucket_logging(
    store: &Store,
    request: S3Request<GetBucketLoggingInput>,
) -> S3Result<S3Response<GetBucketLoggingOutput>> {
    store.gateway.bucket(&name(&request.input.bucket)).await?;
    Ok(S3Response::new(GetBucketLoggingOutput::default()))
}

pub(super) async fn get_bucket_notification_configuration(
    store: &Store,
    request: S3Request<GetBucketNotificationConfigurationInput>,
) -> S3Result<S3Response<GetBucketNotificationConfigurationOutput>> {
    store.gateway.bucket(&name(&request.input.bucket)).await?;
    Ok(S3Response::new(GetBucketNotificationConfigurationOutput::default()))
}

pub(super) async fn get_bucket_accelerate_configuration(
    store: &Store,
    request: S3Request<GetBucketAccelerateConfigurationInput>,
) -> S3Result<S3Response<GetBucketAccelerateConfigurationOutput>> {
    store.gateway.bucket(&name(&request.input.bucket)).await?;
    Ok(S3Response::new(GetBucketAccelerateConfigurationOutput::default()))
}
