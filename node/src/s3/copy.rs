//! Copies, whole and of parts: the content is read here and put here, as if a client did both.
//!
//! Owns: what is taken along of the source. Must never: read what the key may not read ([`may_read`]).

use http::HeaderMap;
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::access::{Call, call_of, may_read};
use super::attributes::{self, only_version, refuse_unhonoured};
use super::body::{self, Announced, Judge};
use super::buckets::name;
use super::checksums::{self, Fields, fill_checksums};
use super::conditions::{ReadConditions, Verdict, timestamp};
use super::errors::{self, error, precondition_failed};
use super::intake::Notes;
use super::multipart::upload_id;
use super::objects::{self, etag, part_number, write_condition};
use super::ranges::{self, Span};
use super::store::Store;
use crate::gateway::{GatewayError, PartTarget, PutTarget, Uploaded};
use crate::model::{ChecksumAlgorithm, ChecksumKind, MAX_PART_BYTES, MAX_PUT_BYTES, ObjectRecord, StoredChecksum};
use crate::types::{BucketName, UploadId};

/// What a copy reads.
struct Source {
    bucket: BucketName,
    key: String,
    record: ObjectRecord,
}

/// Finds the source of a copy and judges the conditions on it.
async fn source(store: &Store, call: &Call, from: &CopySource, asked: ReadConditions) -> S3Result<Source> {
    let CopySource::Bucket { bucket, key, version_id } = from else {
        return Err(errors::not_implemented("copying from an access point"));
    };
    may_read(call.key()?, bucket)?;
    only_version(version_id.as_deref())?;
    let (bucket, key) = (name(bucket), key.to_string());
    let record = store.gateway.head(&bucket, &key).await?;
    match asked.judge_object(&record) {
        Verdict::Go => Ok(Source { bucket, key, record }),
        // To a copy, "you have it" is no answer.
        Verdict::Failed | Verdict::NotModified => Err(precondition_failed()),
    }
}

/// Where what is copied is put.
enum To<'a> {
    Bucket(&'a BucketName),
    Part(&'a BucketName, &'a str, UploadId),
}

/// Reads a part of the source and puts it beside the object it will belong to.
async fn transfer(
    store: &Store,
    from: Source,
    span: Span,
    to: To<'_>,
    algorithm: Option<ChecksumAlgorithm>,
) -> S3Result<(Uploaded, Judge)> {
    let stream = objects::open(store, &from.bucket, &from.key, from.record, span)?;
    let announced = Announced { size_bytes: span.length, ..Announced::default() };
    let (content, judge) = body::content(stream.map(StreamingBlob::wrap), announced, algorithm, None, Notes::default());
    let size = Some(span.length);
    let uploaded = match to {
        To::Bucket(bucket) => store.gateway.upload(bucket, size, content).await,
        To::Part(bucket, key, upload) => store.gateway.upload_part(bucket, key, upload, size, content).await,
    };
    Ok((uploaded.map_err(unreadable)?, judge))
}

/// It was not the client's body that broke off.
fn unreadable(failed: GatewayError) -> S3Error {
    match failed {
        GatewayError::Body(why) | GatewayError::BadRequest(why) => {
            errors::pause(S3ErrorCode::ServiceUnavailable, format!("the source of the copy could not be read: {why}"))
        }
        other => other.into(),
    }
}

fn is_replace(directive: Option<&str>, header: &str) -> S3Result<bool> {
    match directive {
        None | Some("COPY") => Ok(false),
        Some("REPLACE") => Ok(true),
        Some(_) => Err(error(
            S3ErrorCode::InvalidArgument,
            format!("Unknown directive in {header}: COPY and REPLACE are known"),
        )),
    }
}

/// The algorithm a copy asks for.
fn asked_algorithm(asked: Option<&s3s::dto::ChecksumAlgorithm>) -> S3Result<Option<ChecksumAlgorithm>> {
    let Some(asked) = asked else { return Ok(None) };
    let known = checksums::by_name(asked.as_str());
    known.map(Some).ok_or_else(|| error(S3ErrorCode::InvalidRequest, "Checksum algorithm provided is unsupported."))
}

pub(super) async fn copy_object(
    store: &Store,
    request: S3Request<CopyObjectInput>,
) -> S3Result<S3Response<CopyObjectOutput>> {
    refuse_unhonoured(&request.headers)?;
    let call = call_of(&request.extensions)?.clone();
    let input = request.input;
    // No object here has tags: taking them along is no work, and replacing them was refused with the header.
    is_replace(input.tagging_directive.as_ref().map(TaggingDirective::as_str), "x-amz-tagging-directive")?;
    let replace =
        is_replace(input.metadata_directive.as_ref().map(MetadataDirective::as_str), "x-amz-metadata-directive")?;
    let algorithm = asked_algorithm(input.checksum_algorithm.as_ref())?;
    let condition = write_condition(
        etag_condition(&request.headers, &http::header::IF_MATCH)?.as_ref(),
        etag_condition(&request.headers, &http::header::IF_NONE_MATCH)?.as_ref(),
    )?;
    let asked = ReadConditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    let from = source(store, &call, &input.copy_source, asked).await?;
    let bucket = name(&input.bucket);
    if !replace && algorithm.is_none() && from.bucket == bucket && from.key == input.key {
        return Err(error(
            S3ErrorCode::InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's \
             metadata, storage class, website redirect location or encryption attributes.",
        ));
    }
    let size = from.record.size_bytes;
    if size > MAX_PUT_BYTES {
        return Err(error(
            S3ErrorCode::InvalidRequest,
            format!(
                "The specified copy source is larger than the maximum allowable size for a copy source: {MAX_PUT_BYTES}"
            ),
        ));
    }
    let mut attributes = if replace {
        attributes::of_request(&request.headers, input.metadata)?
    } else {
        from.record.attributes.clone()
    };
    // One that covered parts covers none any more: the copy is put as a whole.
    let kept = from.record.attributes.checksum.as_ref().map(|checksum| checksum.algorithm);
    let (uploaded, judge) = transfer(store, from, Span::whole(size), To::Bucket(&bucket), algorithm.or(kept)).await?;
    attributes.checksum = judge.check(uploaded.md5())?.map(|(algorithm, value)| StoredChecksum {
        algorithm,
        kind: ChecksumKind::FullObject,
        value,
    });
    let fields = Fields::stored(attributes.checksum.as_ref(), 0);
    let target = PutTarget { bucket, key: input.key, condition, attributes };
    let done = store.gateway.commit_put(uploaded, target).await;
    let done = done.map_err(|failed| objects::write_failed(failed, condition))?;
    let mut result = CopyObjectResult {
        e_tag: Some(etag(done.etag)),
        last_modified: Some(timestamp(done.modified_ms)),
        ..CopyObjectResult::default()
    };
    result.checksum_type = fields.kind.clone();
    fill_checksums!(result, fields);
    Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() }))
}

/// Conditions on the target of a copy, which s3s does not read.
fn etag_condition(headers: &HeaderMap, name: &http::HeaderName) -> S3Result<Option<ETagCondition>> {
    let Some(value) = headers.get(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    let parsed = ETagCondition::parse_http_header(value.as_bytes());
    parsed.map(Some).map_err(|_| error(S3ErrorCode::InvalidArgument, format!("invalid header: {name}")))
}

pub(super) async fn upload_part_copy(
    store: &Store,
    request: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    refuse_unhonoured(&request.headers)?;
    let call = call_of(&request.extensions)?.clone();
    let input = request.input;
    let part = part_number(input.part_number)?;
    let upload = upload_id(&input.upload_id)?;
    let bucket = name(&input.bucket);
    let record = store.gateway.upload_record(&bucket, &input.key, upload).await?;
    let asked = ReadConditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    let from = source(store, &call, &input.copy_source, asked).await?;
    let size = from.record.size_bytes;
    let span = match input.copy_source_range.as_deref().filter(|range| !range.is_empty()) {
        None => Span::whole(size),
        Some(range) => ranges::resolve_copy(range, size).map_err(|_| {
            let code = if ranges::is_ignored(range) { S3ErrorCode::InvalidArgument } else { S3ErrorCode::InvalidRange };
            error(
                code,
                format!(
                    "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the \
                     zero-based offsets of the first and last bytes to copy, within the source of {size} bytes"
                ),
            )
        })?,
    };
    if span.length > MAX_PART_BYTES {
        return Err(error(
            S3ErrorCode::InvalidRequest,
            format!(
                "The specified copy source is larger than the maximum allowable size for a copy source: {MAX_PART_BYTES}"
            ),
        ));
    }
    let algorithm = record.checksum.map(|(algorithm, _)| algorithm);
    let to = To::Part(&bucket, &input.key, upload);
    let (uploaded, judge) = transfer(store, from, span, to, algorithm).await?;
    let digest = judge.check(uploaded.md5())?;
    let fields = Fields::digest(digest.as_ref().map(|(algorithm, digest)| (*algorithm, digest.as_slice())));
    let target = PartTarget { bucket, key: input.key, upload, part, checksum: digest.map(|(_, digest)| digest) };
    let done = store.gateway.commit_part(uploaded, target).await?;
    let mut result = CopyPartResult {
        e_tag: Some(etag(done.etag)),
        last_modified: Some(timestamp(done.modified_ms)),
        ..CopyPartResult::default()
    };
    fill_checksums!(result, fields);
    Ok(S3Response::new(UploadPartCopyOutput { copy_part_result: Some(result), ..UploadPartCopyOutput::default() }))
}
