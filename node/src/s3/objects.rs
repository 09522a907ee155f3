//! Objects put, read and deleted as a whole.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, StatusCode};
use s3s::dto::*;
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, StdError};

use super::access::call_of;
use super::attributes::{self, STANDARD, only_version, refuse_unhonoured};
use super::body::{self, Announced};
use super::buckets::name;
use super::checksums::{self, Fields, fill_checksums};
use super::conditions::{self, BadCondition, ReadConditions, Verdict, last_modified};
use super::errors::{self, custom, error, precondition_failed};
use super::limits::MAX_PAGE;
use super::ranges::{self, Span};
use super::store::Store;
use crate::gateway::{ByteRange, ContentStream, GatewayError, PutTarget};
use crate::model::{Attributes, ChecksumKind, Condition, MAX_PUT_BYTES, ObjectRecord, StoredChecksum};

/// An ETag as s3s writes it.
pub(super) fn etag(etag: crate::model::ETag) -> ETag {
    ETag::Strong(etag.to_string())
}

/// What a write demands.
pub(super) fn write_condition(
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<Condition> {
    conditions::of_write(if_match, if_none_match).map_err(|bad| match bad {
        BadCondition::Both => errors::not_implemented("If-Match beside If-None-Match"),
        BadCondition::Never => precondition_failed(),
    })
}

/// The failure of a write with a demand: one that wanted the object there, and found none, is told that.
pub(super) fn write_failed(failed: GatewayError, condition: Condition) -> S3Error {
    match (&failed, condition) {
        (GatewayError::Condition { at: None }, Condition::Present | Condition::ETag(_) | Condition::Version(_)) => {
            error(S3ErrorCode::NoSuchKey, "The specified key does not exist.")
        }
        _ => failed.into(),
    }
}

/// Refuses content that is longer than one request may bring.
pub(super) fn check_size(announced: &Announced) -> S3Result<()> {
    if announced.size_bytes > MAX_PUT_BYTES {
        return Err(error(
            S3ErrorCode::EntityTooLarge,
            format!(
                "Your proposed upload exceeds the maximum allowed size of {MAX_PUT_BYTES} bytes: upload it in parts"
            ),
        ));
    }
    Ok(())
}

pub(super) async fn put_object(
    store: &Store,
    request: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    refuse_unhonoured(&request.headers)?;
    let notes = call_of(&request.extensions)?.notes.clone();
    let announced = Announced::of(&request.headers)?;
    check_size(&announced)?;
    let input = request.input;
    let bucket = name(&input.bucket);
    let condition = write_condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let mut attributes = attributes::of_request(&request.headers, input.metadata)?;
    let (content, judge) = body::content(input.body, announced, None, request.trailing_headers, notes);
    let uploaded = store.gateway.upload(&bucket, Some(judge.size_bytes()), content).await;
    let uploaded = uploaded.map_err(|failed| judge.explain(failed))?;
    let digest = judge.check(uploaded.md5())?;
    attributes.checksum =
        digest.map(|(algorithm, value)| StoredChecksum { algorithm, kind: ChecksumKind::FullObject, value });
    let fields = Fields::stored(attributes.checksum.as_ref(), 0);
    let target = PutTarget { bucket, key: input.key, condition, attributes };
    let done = store.gateway.commit_put(uploaded, target).await.map_err(|failed| write_failed(failed, condition))?;
    let mut output = PutObjectOutput { e_tag: Some(etag(done.etag)), ..PutObjectOutput::default() };
    output.checksum_type = fields.kind.clone();
    fill_checksums!(output, fields);
    Ok(S3Response::new(output))
}

/// The error of a read whose condition does not hold.
fn judged(verdict: Verdict, record: &ObjectRecord) -> S3Result<()> {
    match verdict {
        Verdict::Go => Ok(()),
        Verdict::Failed => Err(precondition_failed()),
        Verdict::NotModified => {
            let mut unmodified = S3Error::new(S3ErrorCode::NotModified);
            // RFC 9110, section 15.4.5: what a 200 would have said to a cache.
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_str(&format!("\"{}\"", record.etag)) {
                headers.insert(http::header::ETAG, value);
            }
            let mut date = Vec::new();
            if last_modified(record.modified_ms).format(TimestampFormat::HttpDate, &mut date).is_ok()
                && let Ok(value) = HeaderValue::from_bytes(&date)
            {
                headers.insert(http::header::LAST_MODIFIED, value);
            }
            unmodified.set_headers(headers);
            Err(unmodified)
        }
    }
}

/// What a read is about.
struct Wanted {
    span: Span,
    /// Answered with 206 and `Content-Range`.
    partial: bool,
    /// How many parts the object has, when one was asked for.
    parts: Option<i32>,
}

fn wanted(record: &ObjectRecord, range: Option<Range>, part: Option<i32>) -> S3Result<Wanted> {
    let size = record.size_bytes;
    match (range, part) {
        (Some(_), Some(_)) => {
            Err(error(S3ErrorCode::InvalidRequest, "Cannot specify both Range header and partNumber query parameter"))
        }
        (None, None) => Ok(Wanted { span: Span::whole(size), partial: false, parts: None }),
        (Some(range), None) => {
            let span = ranges::resolve(range, size).map_err(|_| errors::invalid_range(size))?;
            Ok(Wanted { span, partial: true, parts: None })
        }
        (None, Some(part)) => {
            let number = part_number(part)?;
            let span = ranges::of_part(&record.parts, number, size).map_err(|_| {
                custom(
                    "InvalidPartNumber",
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    "The requested partnumber is not satisfiable",
                )
            })?;
            let parts = i32::try_from(record.parts.len()).ok().filter(|parts| *parts > 0);
            Ok(Wanted { span, partial: span.length > 0, parts })
        }
    }
}

/// A part number of a request.
pub(super) fn part_number(number: i32) -> S3Result<u16> {
    u16::try_from(number).ok().filter(|number| (1..=crate::model::MAX_PART_NUMBER).contains(number)).ok_or_else(|| {
        error(S3ErrorCode::InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive")
    })
}

/// The checksum of an object, when it was asked for and the answer has all of the object.
fn checksum_fields(record: &ObjectRecord, mode: Option<&ChecksumMode>, partial: bool) -> Fields {
    let asked = mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED) && !partial;
    Fields::stored(record.attributes.checksum.as_ref().filter(|_| asked), record.parts.len())
}

fn content_type(attributes: &Attributes) -> String {
    attributes.content_type.clone().unwrap_or_else(|| attributes::DEFAULT_CONTENT_TYPE.to_owned())
}

fn length(bytes: u64) -> Option<i64> {
    i64::try_from(bytes).ok()
}

pub(super) async fn get_object(
    store: &Store,
    request: S3Request<GetObjectInput>,
) -> S3Result<S3Response<GetObjectOutput>> {
    refuse_unhonoured(&request.headers)?;
    let input = request.input;
    only_version(input.version_id.as_deref())?;
    let bucket = name(&input.bucket);
    let record = store.gateway.head(&bucket, &input.key).await?;
    let asked = ReadConditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    judged(asked.judge_object(&record), &record)?;
    let wanted = wanted(&record, input.range, input.part_number)?;
    let fields = checksum_fields(&record, input.checksum_mode.as_ref(), wanted.partial);
    let attributes = record.attributes.clone();
    let mut output = GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        cache_control: attributes.cache_control.clone(),
        content_disposition: attributes.content_disposition.clone(),
        content_encoding: attributes.content_encoding.clone(),
        content_language: attributes.content_language.clone(),
        content_length: length(wanted.span.length),
        content_range: wanted.partial.then(|| wanted.span.content_range(record.size_bytes)),
        content_type: Some(content_type(&attributes)),
        e_tag: Some(etag(record.etag)),
        expires: attributes::expires(&attributes),
        last_modified: Some(last_modified(record.modified_ms)),
        metadata: attributes::user(&attributes),
        parts_count: wanted.parts,
        ..GetObjectOutput::default()
    };
    output.checksum_type = fields.kind.clone();
    fill_checksums!(output, fields);
    let stream = open(store, &bucket, &input.key, record, wanted.span)?;
    output.body = Some(StreamingBlob::new(Outgoing { stream, held: None, left: wanted.span.length }));
    Ok(S3Response::new(output))
}

/// The bytes of an object; `None` when there are none to read.
pub(super) fn open(
    store: &Store,
    bucket: &crate::types::BucketName,
    key: &str,
    record: ObjectRecord,
    span: Span,
) -> S3Result<Option<ContentStream>> {
    if span.length == 0 {
        return Ok(None);
    }
    let range = ByteRange { offset: span.offset, length: span.length };
    Ok(Some(store.gateway.read(bucket, key, record, range)?.stream))
}

/// Content on its way to a client. Always one piece behind: when the last checks of the gateway fail, the announced
/// length has not been sent yet, and the client sees a connection that broke instead of an answer that looks whole.
struct Outgoing {
    stream: Option<ContentStream>,
    held: Option<Bytes>,
    left: u64,
}

impl Stream for Outgoing {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let Some(stream) = &mut this.stream else {
                let last = this.held.take();
                this.left -= last.as_ref().map_or(0, |last| last.len() as u64).min(this.left);
                return Poll::Ready(last.map(Ok));
            };
            match ready!(Pin::new(stream).poll_next(cx)) {
                Some(Ok(piece)) => {
                    if let Some(before) = this.held.replace(piece) {
                        this.left -= (before.len() as u64).min(this.left);
                        return Poll::Ready(Some(Ok(before)));
                    }
                }
                Some(Err(failed)) => {
                    this.stream = None;
                    this.held = None;
                    return Poll::Ready(Some(Err(failed.into())));
                }
                None => this.stream = None,
            }
        }
    }
}

impl ByteStream for Outgoing {
    fn remaining_length(&self) -> RemainingLength {
        usize::try_from(self.left).map_or_else(|_| RemainingLength::unknown(), RemainingLength::new_exact)
    }
}

/// In the extensions of an answer: it is about a part of an object. s3s says 200 to every `HEAD`; [`super::front`] mends it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Partial;

pub(super) async fn head_object(
    store: &Store,
    request: S3Request<HeadObjectInput>,
) -> S3Result<S3Response<HeadObjectOutput>> {
    refuse_unhonoured(&request.headers)?;
    let input = request.input;
    only_version(input.version_id.as_deref())?;
    let record = store.gateway.head(&name(&input.bucket), &input.key).await?;
    let asked = ReadConditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    judged(asked.judge_object(&record), &record)?;
    let wanted = wanted(&record, input.range, input.part_number)?;
    let fields = checksum_fields(&record, input.checksum_mode.as_ref(), wanted.partial);
    let attributes = &record.attributes;
    let mut output = HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        cache_control: input.response_cache_control.or(attributes.cache_control.clone()),
        content_disposition: input.response_content_disposition.or(attributes.content_disposition.clone()),
        content_encoding: input.response_content_encoding.or(attributes.content_encoding.clone()),
        content_language: input.response_content_language.or(attributes.content_language.clone()),
        content_length: length(wanted.span.length),
        content_range: wanted.partial.then(|| wanted.span.content_range(record.size_bytes)),
        content_type: input.response_content_type.or_else(|| Some(content_type(attributes))),
        e_tag: Some(etag(record.etag)),
        expires: input.response_expires.or_else(|| attributes::expires(attributes)),
        last_modified: Some(last_modified(record.modified_ms)),
        metadata: attributes::user(attributes),
        parts_count: wanted.parts,
        ..HeadObjectOutput::default()
    };
    output.checksum_type = fields.kind.clone();
    fill_checksums!(output, fields);
    let mut response = S3Response::new(output);
    if wanted.partial {
        response.extensions.insert(Partial);
    }
    Ok(response)
}

pub(super) async fn get_object_attributes(
    store: &Store,
    request: S3Request<GetObjectAttributesInput>,
) -> S3Result<S3Response<GetObjectAttributesOutput>> {
    refuse_unhonoured(&request.headers)?;
    let input = request.input;
    only_version(input.version_id.as_deref())?;
    let record = store.gateway.head(&name(&input.bucket), &input.key).await?;
    // Named in one header, behind commas, or in several.
    let names: Vec<&str> =
        input.object_attributes.iter().flat_map(|names| names.as_str().split(',')).map(str::trim).collect();
    let known = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"];
    if names.is_empty() || names.iter().any(|name| !known.contains(name)) {
        return Err(error(S3ErrorCode::InvalidArgument, "Invalid attribute name specified."));
    }
    let asks = |name: &str| names.contains(&name);
    let stored = record.attributes.checksum.as_ref();
    let mut output =
        GetObjectAttributesOutput { last_modified: Some(last_modified(record.modified_ms)), ..Default::default() };
    if asks("ETag") {
        output.e_tag = Some(etag(record.etag));
    }
    if asks("ObjectSize") {
        output.object_size = length(record.size_bytes);
    }
    if asks("StorageClass") {
        output.storage_class = Some(StorageClass::from_static(STANDARD));
    }
    if asks("Checksum") && stored.is_some() {
        let fields = Fields::stored(stored, record.parts.len());
        let mut checksum = Checksum { checksum_type: fields.kind.clone(), ..Checksum::default() };
        fill_checksums!(checksum, fields);
        output.checksum = Some(checksum);
    }
    if asks("ObjectParts") && !record.parts.is_empty() {
        output.object_parts = Some(object_parts(&record, input.part_number_marker, input.max_parts)?);
    }
    Ok(S3Response::new(output))
}

fn object_parts(record: &ObjectRecord, marker: Option<i32>, limit: Option<i32>) -> S3Result<GetObjectAttributesParts> {
    let after = usize::try_from(marker.unwrap_or(0)).unwrap_or(0);
    let limit = super::listing::limit(limit, "max-parts")?;
    let algorithm = record.attributes.checksum.as_ref().map(|checksum| checksum.algorithm);
    let all = record.parts.len();
    let parts: Vec<ObjectPart> = (1i32..)
        .zip(&record.parts)
        .skip(after)
        .take(limit)
        .map(|(number, part)| {
            let mut shown =
                ObjectPart { part_number: Some(number), size: length(part.size_bytes), ..ObjectPart::default() };
            fill_checksums!(shown, Fields::digest(algorithm.zip(part.checksum.as_deref())));
            shown
        })
        .collect();
    let next = after.min(all) + parts.len();
    Ok(GetObjectAttributesParts {
        is_truncated: Some(next < all),
        max_parts: i32::try_from(limit).ok(),
        next_part_number_marker: i32::try_from(next).ok(),
        part_number_marker: i32::try_from(after).ok(),
        // Without checksums S3 tells how many parts there are, and no more.
        parts: algorithm.is_some().then_some(parts),
        total_parts_count: i32::try_from(all).ok(),
    })
}

pub(super) async fn delete_object(
    store: &Store,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    refuse_unhonoured(&request.headers)?;
    let input = request.input;
    if let Some(version) = input.version_id.as_deref().filter(|version| *version != "null") {
        // Deleting what is not there goes well, as everywhere in S3.
        tracing::debug!(version, operation = "s3", "a version that never was is deleted");
        return Ok(S3Response::with_status(DeleteObjectOutput::default(), StatusCode::NO_CONTENT));
    }
    if input.if_match_last_modified_time.is_some() || input.if_match_size.is_some() {
        return Err(errors::not_implemented("a delete on condition of time or size"));
    }
    let condition = write_condition(input.if_match.as_ref(), None)?;
    let bucket = name(&input.bucket);
    match store.gateway.delete(&bucket, &input.key, condition).await {
        Ok(_) => {}
        Err(failed) => return Err(write_failed(failed, condition)),
    }
    Ok(S3Response::with_status(DeleteObjectOutput::default(), StatusCode::NO_CONTENT))
}

pub(super) async fn delete_objects(
    store: &Store,
    request: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    refuse_unhonoured(&request.headers)?;
    check_digests(&request)?;
    let input = request.input;
    let bucket = name(&input.bucket);
    let objects = input.delete.objects;
    if objects.is_empty() || objects.len() > MAX_PAGE {
        return Err(error(
            S3ErrorCode::MalformedXML,
            "The XML you provided was not well-formed or did not validate: 1 to 1000 keys are expected",
        ));
    }
    let mut deleted = Vec::new();
    let mut failed = Vec::new();
    let mut keys = Vec::new();
    for object in objects {
        let refused = if let Err(bad) = crate::gateway::check_key(&object.key) {
            Some(bad.into())
        } else if object.size.is_some() || object.last_modified_time.is_some() {
            Some(errors::not_implemented("a delete on condition of time or size"))
        } else if object.version_id.as_deref().is_some_and(|version| version != "null") {
            deleted.push(DeletedObject { key: Some(object.key), version_id: object.version_id, ..Default::default() });
            continue;
        } else if let Some(tag) = &object.e_tag {
            delete_one(store, &bucket, &object.key, tag).await.err()
        } else {
            keys.push(object.key);
            continue;
        };
        match refused {
            None => deleted.push(DeletedObject { key: Some(object.key), ..Default::default() }),
            Some(refused) => failed.push(said(object.key, &refused)),
        }
    }
    // One commit for all that demand nothing.
    if keys.is_empty() {
        store.gateway.bucket(&bucket).await?;
    } else {
        store.gateway.delete_many(&bucket, keys.clone()).await?;
    }
    deleted.extend(keys.into_iter().map(|key| DeletedObject { key: Some(key), ..Default::default() }));
    let quiet = input.delete.quiet.unwrap_or(false);
    Ok(S3Response::new(DeleteObjectsOutput {
        deleted: (!quiet).then_some(deleted),
        errors: Some(failed),
        ..DeleteObjectsOutput::default()
    }))
}

async fn delete_one(store: &Store, bucket: &crate::types::BucketName, key: &str, tag: &ETag) -> S3Result<()> {
    let condition = write_condition(Some(&ETagCondition::ETag(tag.clone())), None)?;
    store.gateway.delete(bucket, key, condition).await.map_err(|failed| write_failed(failed, condition))?;
    Ok(())
}

fn said(key: String, refused: &S3Error) -> Error {
    Error {
        code: Some(refused.code().as_str().to_owned()),
        key: Some(key),
        message: refused.message().map(str::to_owned),
        ..Error::default()
    }
}

/// `Content-MD5` or checksum of a multi-delete: s3s reads its body as a whole and compares neither.
fn check_digests<T>(request: &S3Request<T>) -> S3Result<()> {
    let md5 = body::content_md5(&request.headers)?;
    let checksum = body::checksum(&request.headers)?;
    if md5.is_none() && checksum.is_none() {
        return Err(error(S3ErrorCode::InvalidRequest, "Missing required header for this request: Content-MD5"));
    }
    let Some(digests) = call_of(&request.extensions)?.notes.digests() else {
        return Err(error(S3ErrorCode::InternalError, "the body was not read to its end"));
    };
    if md5.is_some_and(|announced| announced != digests.md5) {
        return Err(error(S3ErrorCode::BadDigest, "The Content-MD5 you specified did not match what we received."));
    }
    match checksum {
        Some((algorithm, body::Value::Header(value))) if digests.checksum.as_ref() != Some(&value) => Err(error(
            S3ErrorCode::BadDigest,
            format!("The {} you specified did not match the calculated checksum.", checksums::name(algorithm)),
        )),
        _ => Ok(()),
    }
}
