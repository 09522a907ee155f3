//! Who may do what: keys, their grants, and which operation needs which.
//!
//! Owns: [`S3Auth`] (a key's secret) and [`S3Access`] (after the signature was found right, before anything is read of
//! the body).
//!
//! Invariants: an operation that is not in the table here is refused, whatever s3s can do with it; an anonymous request
//! is refused; what a copy reads needs its own grant ([`may_read`]).

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use http::StatusCode;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::errors::{custom, error, pause};
use super::intake::Notes;
use super::lenient::Verified;
use super::limits::{KeyPlace, Limits};
use super::{names, text};
use crate::gateway::Gateway;
use crate::model::{Grant, KeyRecord};
use crate::types::BucketName;

/// Whom everything here belongs to: there are keys, and no accounts.
pub(super) const OWNER: &str = "resilver";

tokio::task_local! {
    /// The call at work: [`S3Auth`] is told nothing else of the request.
    pub(super) static CALL: Arc<Call>;
}

/// What the door knows of one request while it is at work. In the request's extensions.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// Of its body.
    pub(super) notes: Notes,
    /// The key it is signed with, once that is known.
    key: OnceLock<KeyRecord>,
    /// Its place among the key's.
    place: OnceLock<KeyPlace>,
}

impl Call {
    pub(super) fn new(notes: Notes) -> Arc<Self> {
        Arc::new(Self { notes, ..Self::default() })
    }

    /// The key of a request that [`S3Access`] let pass.
    pub(super) fn key(&self) -> S3Result<&KeyRecord> {
        self.key.get().ok_or_else(denied)
    }
}

/// Of a request's extensions.
pub(super) fn call_of(extensions: &http::Extensions) -> S3Result<&Arc<Call>> {
    extensions.get::<Arc<Call>>().ok_or_else(denied)
}

fn denied() -> S3Error {
    error(S3ErrorCode::AccessDenied, "Access Denied")
}

/// What an operation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Any key: what it answers is cut to what the key may see.
    Key,
    /// A key that makes buckets.
    MakeBuckets,
    /// Any grant on the bucket.
    Any,
    Read,
    Write,
    Admin,
}

/// The operations of the door. What is missing here is refused.
fn need(operation: &str) -> Option<Need> {
    Some(match operation {
        "ListBuckets" => Need::Key,
        "CreateBucket" => Need::MakeBuckets,
        "HeadBucket"
        | "GetBucketLocation"
        | "GetBucketRequestPayment"
        | "GetBucketLogging"
        | "GetBucketNotificationConfiguration"
        | "GetBucketAccelerateConfiguration" => Need::Any,
        "GetObject"
        | "HeadObject"
        | "GetObjectAttributes"
        | "GetObjectTagging"
        | "GetObjectAcl"
        | "GetBucketAcl"
        | "GetBucketVersioning"
        | "ListObjects"
        | "ListObjectsV2"
        | "ListObjectVersions" => Need::Read,
        "PutObject"
        | "CopyObject"
        | "DeleteObject"
        | "DeleteObjects"
        | "CreateMultipartUpload"
        | "UploadPart"
        | "UploadPartCopy"
        | "CompleteMultipartUpload"
        | "AbortMultipartUpload"
        | "ListParts"
        | "ListMultipartUploads" => Need::Write,
        "DeleteBucket" => Need::Admin,
        other => absent(other).map(|_| Need::Any)?,
    })
}

/// What buckets and objects never have here, and the code that says so. Clients ask for these and go on when told.
fn absent(operation: &str) -> Option<S3Error> {
    use S3ErrorCode as C;
    let not_found = |code: C| {
        let mut error = S3Error::with_message(code, "There is none: it is not a feature of this store");
        // S3's status; s3s has another for some.
        error.set_status_code(StatusCode::NOT_FOUND);
        error
    };
    Some(match operation {
        "GetBucketPolicy" | "GetBucketPolicyStatus" => not_found(C::NoSuchBucketPolicy),
        "GetBucketCors" => not_found(C::NoSuchCORSConfiguration),
        "GetBucketLifecycleConfiguration" => not_found(C::NoSuchLifecycleConfiguration),
        "GetBucketTagging" => not_found(C::NoSuchTagSet),
        "GetBucketWebsite" => not_found(C::NoSuchWebsiteConfiguration),
        "GetBucketEncryption" => not_found(C::ServerSideEncryptionConfigurationNotFoundError),
        "GetBucketReplication" => not_found(C::ReplicationConfigurationNotFoundError),
        "GetBucketOwnershipControls" => not_found(C::OwnershipControlsNotFoundError),
        "GetObjectLockConfiguration" => not_found(C::ObjectLockConfigurationNotFoundError),
        "GetObjectLegalHold" | "GetObjectRetention" => not_found(C::NoSuchObjectLockConfiguration),
        "GetPublicAccessBlock" => custom(
            "NoSuchPublicAccessBlockConfiguration",
            StatusCode::NOT_FOUND,
            "There is none: nothing is public in this store",
        ),
        _ => return None,
    })
}

/// Parameters that name another operation than the one s3s would run: it falls back to the plain one where it does not
/// know them, and a `DELETE /bucket?new-feature` must not delete the bucket.
fn unknown_parameter(operation: &str, query: &str) -> Option<String> {
    if !matches!(operation, "CreateBucket" | "DeleteBucket" | "PutObject" | "DeleteObject" | "CopyObject") {
        return None;
    }
    text::query_pairs(query)
        .map(|(name, _)| name)
        .find(|name| !name.starts_with("X-Amz-") && !matches!(name.as_str(), "x-id" | "versionId"))
}

fn granted(key: &KeyRecord, bucket: &str) -> Grant {
    if key.admin {
        return Grant { read: true, write: true, admin: true };
    }
    key.grants.get(&BucketName::from(bucket)).copied().unwrap_or_default()
}

fn suffices(need: Need, key: &KeyRecord, bucket: Option<&str>) -> bool {
    let grant = bucket.map_or_else(Grant::default, |bucket| granted(key, bucket));
    match need {
        Need::Key => true,
        Need::MakeBuckets => key.admin,
        Need::Any => grant.read || grant.write || grant.admin,
        Need::Read => grant.read,
        Need::Write => grant.write,
        Need::Admin => grant.admin,
    }
}

/// Whether the key may see the bucket in a listing.
pub(super) fn may_see(key: &KeyRecord, bucket: &BucketName) -> bool {
    suffices(Need::Any, key, Some(bucket.as_str()))
}

/// For copies: whether the key may read their source.
pub(super) fn may_read(key: &KeyRecord, bucket: &str) -> S3Result<()> {
    if !names::allowed(bucket) || !suffices(Need::Read, key, Some(bucket)) {
        return Err(denied());
    }
    Ok(())
}

/// Whether the key counts as the bucket's owner.
pub(super) fn owns(key: &KeyRecord, bucket: &BucketName, owner: &str) -> bool {
    key.id == owner || granted(key, bucket.as_str()).admin
}

/// Hands out secrets, and judges what was signed with them.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) gateway: Gateway,
    pub(super) limits: Arc<Limits>,
}

impl Keys {
    async fn record(&self, id: &str) -> S3Result<KeyRecord> {
        let known = CALL.try_with(|call| call.key.get().filter(|key| key.id == id).cloned()).ok().flatten();
        if let Some(key) = known {
            return Ok(key);
        }
        let key = self.gateway.key(id).await?.ok_or_else(|| {
            error(S3ErrorCode::InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records.")
        })?;
        // Kept for the check that follows. The first stays: a request has one signature.
        let _ = CALL.try_with(|call| call.key.set(key.clone()));
        Ok(key)
    }
}

#[async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        Ok(self.record(access_key).await?.secret.into())
    }
}

#[async_trait]
impl S3Access for Keys {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let signed = cx.credentials().map(|credentials| credentials.access_key.clone());
        let verified = cx.extensions_mut().get::<Verified>().map(|verified| verified.0.clone());
        let id = signed.or(verified).ok_or_else(denied)?;
        let operation = cx.s3_op().name().to_owned();
        let bucket = cx.s3_path().get_bucket_name().map(str::to_owned);
        let query = cx.uri().query().unwrap_or_default().to_owned();
        for header in ["x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"] {
            // Who names an owner wants to be refused when it is another.
            if cx.headers().get(header).is_some_and(|owner| owner.as_bytes() != OWNER.as_bytes()) {
                return Err(denied());
            }
        }
        let key = self.record(&id).await?;
        let call = call_of(cx.extensions_mut())?.clone();
        let Some(need) = need(&operation) else {
            return Err(error(S3ErrorCode::NotImplemented, format!("{operation} is not implemented here")));
        };
        if !suffices(need, &key, bucket.as_deref()) {
            return Err(denied());
        }
        if let Some(parameter) = unknown_parameter(&operation, &query) {
            return Err(error(
                S3ErrorCode::NotImplemented,
                format!("the parameter {parameter:?} names no operation that is implemented here"),
            ));
        }
        let place = self.limits.key(&id).ok_or_else(|| {
            pause(
                S3ErrorCode::SlowDown,
                "too many requests of this access key are at work on this node: reduce their rate",
            )
        })?;
        let _ = call.key.set(key);
        let _ = call.place.set(place);
        if let Some(answer) = absent(&operation) {
            if let Some(bucket) = bucket {
                self.gateway.bucket(&BucketName(bucket)).await?;
            }
            return Err(answer);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(admin: bool, grants: &[(&str, Grant)]) -> KeyRecord {
        KeyRecord {
            id: "RSKEY".to_owned(),
            secret: String::new(),
            label: String::new(),
            created_ms: 0,
            admin,
            grants: grants.iter().map(|(bucket, grant)| (BucketName::from(*bucket), *grant)).collect(),
        }
    }

    fn may(key: &KeyRecord, operation: &str, bucket: &str) -> bool {
        need(operation).is_some_and(|need| suffices(need, key, Some(bucket)))
    }

    #[test]
    fn a_key_does_what_it_was_granted_and_no_more() {
        let reader = key(false, &[("photos", Grant { read: true, ..Grant::default() })]);
        assert!(may(&reader, "GetObject", "photos") && may(&reader, "ListObjectsV2", "photos"));
        assert!(may(&reader, "HeadBucket", "photos") && may(&reader, "ListBuckets", "photos"));
        for refused in ["PutObject", "DeleteObject", "DeleteBucket", "CreateBucket", "CreateMultipartUpload"] {
            assert!(!may(&reader, refused, "photos"), "{refused}");
        }
        assert!(!may(&reader, "GetObject", "other") && !may(&reader, "HeadBucket", "other"));
        let writer = key(false, &[("photos", Grant { write: true, ..Grant::default() })]);
        assert!(may(&writer, "PutObject", "photos") && !may(&writer, "GetObject", "photos"));
        let admin = key(true, &[]);
        assert!(may(&admin, "CreateBucket", "new") && may(&admin, "DeleteBucket", "photos"));
    }

    #[test]
    fn an_operation_nobody_thought_of_is_refused() {
        let admin = key(true, &[]);
        for unknown in ["PutBucketPolicy", "PutObjectAcl", "RestoreObject", "PostObject", "Whatever", ""] {
            assert!(!may(&admin, unknown, "photos"), "{unknown}");
        }
    }

    #[test]
    fn a_copy_reads_only_what_its_key_may_read() {
        let key = key(true, &[]);
        assert!(may_read(&key, "photos").is_ok());
        assert!(may_read(&key, "resilver.uploads").is_err(), "not even for an admin");
    }

    #[test]
    fn a_parameter_nobody_knows_changes_nothing() {
        assert_eq!(unknown_parameter("DeleteBucket", "new-feature"), Some("new-feature".to_owned()));
        assert_eq!(unknown_parameter("PutObject", "x-id=PutObject&X-Amz-Date=1&versionId=null"), None);
        assert_eq!(unknown_parameter("ListObjects", "prefix=a"), None);
    }
}
