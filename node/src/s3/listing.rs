//! Listings: of objects in their two forms, of uploads, of parts. Each page is of one applied index.

use s3s::dto::*;
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use super::attributes::STANDARD;
use super::buckets::{name, owner};
use super::checksums::{self, Fields, fill_checksums};
use super::conditions::timestamp;
use super::errors::error;
use super::limits::MAX_PAGE;
use super::multipart::{part_checksum, upload_id};
use super::objects::etag;
use super::store::Store;
use super::text::url_encode;
use super::tokens::{self, Listing};
use crate::gateway::{Entry, ListQuery, ObjectPage, UploadEntry, UploadQuery};
use crate::model::{MAX_KEY_BYTES, ObjectRecord, UploadRecord};

/// How many entries a page is to have: more than there may be are as many as there may be.
pub(super) fn limit(asked: Option<i32>, what: &str) -> S3Result<usize> {
    let Some(asked) = asked else { return Ok(MAX_PAGE) };
    usize::try_from(asked).map(|asked| asked.min(MAX_PAGE)).map_err(|_| {
        error(S3ErrorCode::InvalidArgument, format!("Argument {what} must be an integer between 0 and 2147483647"))
    })
}

/// How keys are written in the answer.
#[derive(Clone, Copy)]
struct Encoding {
    url: bool,
}

impl Encoding {
    fn of(asked: Option<&EncodingType>) -> S3Result<Self> {
        match asked.map(EncodingType::as_str) {
            None => Ok(Self { url: false }),
            Some(EncodingType::URL) => Ok(Self { url: true }),
            Some(_) => Err(error(S3ErrorCode::InvalidArgument, "Invalid Encoding Method specified in Request")),
        }
    }

    fn write(self, text: &str) -> String {
        if self.url { url_encode(text) } else { text.to_owned() }
    }

    fn optional(self, text: Option<&String>) -> Option<String> {
        text.map(|text| self.write(text))
    }
}

/// A text that no key can be longer than is no place in a listing either.
fn bounded(text: Option<&String>, what: &str) -> S3Result<String> {
    let text = text.cloned().unwrap_or_default();
    if text.len() > MAX_KEY_BYTES {
        return Err(error(S3ErrorCode::InvalidArgument, format!("{what} is longer than {MAX_KEY_BYTES} bytes")));
    }
    Ok(text)
}

async fn page(store: &Store, bucket: &str, query: ListQuery) -> S3Result<ObjectPage> {
    let bucket = name(bucket);
    if query.limit == 0 {
        // To the gateway no limit is all of a page; to S3 it is nothing of one.
        store.gateway.bucket(&bucket).await?;
        return Ok(ObjectPage::default());
    }
    Ok(store.gateway.list(&bucket, query).await?)
}

/// The entries of a page, as answers have them.
fn entries(page: &ObjectPage, encoding: Encoding, with_owner: bool) -> (Vec<Object>, Vec<CommonPrefix>) {
    let mut objects = Vec::new();
    let mut prefixes = Vec::new();
    for entry in &page.entries {
        match entry {
            Entry::Object(key, record) => objects.push(object(encoding.write(key), record, with_owner)),
            Entry::Prefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(encoding.write(prefix)) }),
        }
    }
    (objects, prefixes)
}

fn object(key: String, record: &ObjectRecord, with_owner: bool) -> Object {
    let checksum = record.attributes.checksum.as_ref();
    Object {
        key: Some(key),
        e_tag: Some(etag(record.etag)),
        last_modified: Some(timestamp(record.modified_ms)),
        size: i64::try_from(record.size_bytes).ok(),
        storage_class: Some(ObjectStorageClass::from_static(STANDARD)),
        owner: with_owner.then(owner),
        checksum_algorithm: checksum
            .map(|checksum| vec![ChecksumAlgorithm::from_static(checksums::name(checksum.algorithm))]),
        checksum_type: checksum.map(|checksum| checksums::kind_dto(checksum.kind)),
        ..Object::default()
    }
}

fn count(number: usize) -> Option<i32> {
    i32::try_from(number).ok()
}

pub(super) async fn list_objects(
    store: &Store,
    request: S3Request<ListObjectsInput>,
) -> S3Result<S3Response<ListObjectsOutput>> {
    let input = request.input;
    let encoding = Encoding::of(input.encoding_type.as_ref())?;
    let limit = limit(input.max_keys, "max-keys")?;
    let query = ListQuery {
        prefix: bounded(input.prefix.as_ref(), "prefix")?,
        delimiter: bounded(input.delimiter.as_ref(), "delimiter")?,
        after: bounded(input.marker.as_ref(), "marker")?,
        limit,
    };
    let page = page(store, &input.bucket, query).await?;
    let (objects, prefixes) = entries(&page, encoding, true);
    // Without a delimiter S3 leaves it to the client to take the last key; to tell it does no harm.
    let next = page.truncated.then(|| encoding.write(&page.next));
    Ok(S3Response::new(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(encoding.optional(input.prefix.as_ref()).unwrap_or_default()),
        marker: Some(encoding.optional(input.marker.as_ref()).unwrap_or_default()),
        max_keys: count(limit),
        is_truncated: Some(page.truncated),
        contents: Some(objects),
        common_prefixes: Some(prefixes),
        delimiter: encoding.optional(input.delimiter.as_ref().filter(|delimiter| !delimiter.is_empty())),
        next_marker: next,
        encoding_type: input.encoding_type,
        ..ListObjectsOutput::default()
    }))
}

pub(super) async fn list_objects_v2(
    store: &Store,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let input = request.input;
    let encoding = Encoding::of(input.encoding_type.as_ref())?;
    let limit = limit(input.max_keys, "max-keys")?;
    let prefix = bounded(input.prefix.as_ref(), "prefix")?;
    let delimiter = bounded(input.delimiter.as_ref(), "delimiter")?;
    let listing = Listing { bucket: &input.bucket, prefix: &prefix, delimiter: &delimiter };
    let after = match &input.continuation_token {
        Some(token) => tokens::read(listing, token)
            .ok_or_else(|| error(S3ErrorCode::InvalidArgument, "The continuation token provided is incorrect"))?,
        None => bounded(input.start_after.as_ref(), "start-after")?,
    };
    let query = ListQuery { prefix: prefix.clone(), delimiter: delimiter.clone(), after, limit };
    let page = page(store, &input.bucket, query).await?;
    let (objects, prefixes) = entries(&page, encoding, input.fetch_owner.unwrap_or(false));
    let next = page.truncated.then(|| tokens::token(listing, &page.next));
    Ok(S3Response::new(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(encoding.optional(input.prefix.as_ref()).unwrap_or_default()),
        max_keys: count(limit),
        key_count: count(objects.len() + prefixes.len()),
        continuation_token: input.continuation_token,
        is_truncated: Some(page.truncated),
        next_continuation_token: next,
        contents: Some(objects),
        common_prefixes: Some(prefixes),
        delimiter: encoding.optional(input.delimiter.as_ref().filter(|delimiter| !delimiter.is_empty())),
        encoding_type: input.encoding_type,
        start_after: encoding.optional(input.start_after.as_ref()),
        ..ListObjectsV2Output::default()
    }))
}

/// Every object as its own only version, as S3 shows a bucket that never had versioning.
pub(super) async fn list_object_versions(
    store: &Store,
    request: S3Request<ListObjectVersionsInput>,
) -> S3Result<S3Response<ListObjectVersionsOutput>> {
    let input = request.input;
    let encoding = Encoding::of(input.encoding_type.as_ref())?;
    let limit = limit(input.max_keys, "max-keys")?;
    if input.version_id_marker.is_some() && input.key_marker.is_none() {
        return Err(error(
            S3ErrorCode::InvalidArgument,
            "A version-id marker cannot be specified without a key marker.",
        ));
    }
    let query = ListQuery {
        prefix: bounded(input.prefix.as_ref(), "prefix")?,
        delimiter: bounded(input.delimiter.as_ref(), "delimiter")?,
        after: bounded(input.key_marker.as_ref(), "key-marker")?,
        limit,
    };
    let page = page(store, &input.bucket, query).await?;
    let (objects, prefixes) = entries(&page, encoding, true);
    let versions = objects
        .into_iter()
        .map(|object| ObjectVersion {
            e_tag: object.e_tag,
            is_latest: Some(true),
            key: object.key,
            last_modified: object.last_modified,
            owner: object.owner,
            size: object.size,
            storage_class: Some(ObjectVersionStorageClass::from_static(STANDARD)),
            version_id: Some("null".to_owned()),
            ..ObjectVersion::default()
        })
        .collect();
    Ok(S3Response::new(ListObjectVersionsOutput {
        name: Some(input.bucket),
        prefix: Some(encoding.optional(input.prefix.as_ref()).unwrap_or_default()),
        key_marker: Some(encoding.optional(input.key_marker.as_ref()).unwrap_or_default()),
        version_id_marker: Some(input.version_id_marker.unwrap_or_default()),
        max_keys: count(limit),
        is_truncated: Some(page.truncated),
        versions: Some(versions),
        common_prefixes: Some(prefixes),
        delimiter: encoding.optional(input.delimiter.as_ref().filter(|delimiter| !delimiter.is_empty())),
        next_key_marker: page.truncated.then(|| encoding.write(&page.next)),
        next_version_id_marker: page.truncated.then(|| "null".to_owned()),
        encoding_type: input.encoding_type,
        ..ListObjectVersionsOutput::default()
    }))
}

fn initiator(upload: &UploadRecord) -> Initiator {
    Initiator { display_name: Some(upload.initiator.clone()), id: Some(upload.initiator.clone()) }
}

fn algorithm(upload: &UploadRecord) -> Option<ChecksumAlgorithm> {
    upload.checksum.map(|(algorithm, _)| ChecksumAlgorithm::from_static(checksums::name(algorithm)))
}

fn kind(upload: &UploadRecord) -> Option<ChecksumType> {
    upload.checksum.map(|(_, kind)| checksums::kind_dto(kind))
}

pub(super) async fn list_multipart_uploads(
    store: &Store,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let input = request.input;
    let encoding = Encoding::of(input.encoding_type.as_ref())?;
    let limit = limit(input.max_uploads, "max-uploads")?;
    let after_key = bounded(input.key_marker.as_ref(), "key-marker")?;
    // Without a key, the id beside it says nothing: S3 passes over it.
    let after_upload = match input.upload_id_marker.as_deref().filter(|id| !id.is_empty() && !after_key.is_empty()) {
        None => None,
        Some(id) => Some(id.parse().map_err(|_| error(S3ErrorCode::InvalidArgument, "Invalid uploadId marker"))?),
    };
    let query = UploadQuery {
        prefix: bounded(input.prefix.as_ref(), "prefix")?,
        delimiter: bounded(input.delimiter.as_ref(), "delimiter")?,
        after_key,
        after_upload,
        limit: limit.max(1),
    };
    let page = store.gateway.list_uploads(&name(&input.bucket), query).await?;
    let mut uploads = Vec::new();
    let mut prefixes = Vec::new();
    // Asked for none, S3 shows none.
    for entry in page.entries.iter().take(limit) {
        match entry {
            UploadEntry::Prefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(encoding.write(prefix)) }),
            UploadEntry::Upload(upload) => uploads.push(MultipartUpload {
                key: Some(encoding.write(&upload.key)),
                upload_id: Some(upload.id.to_string()),
                initiated: Some(timestamp(upload.created_ms)),
                initiator: Some(initiator(upload)),
                owner: Some(owner()),
                storage_class: Some(StorageClass::from_static(STANDARD)),
                checksum_algorithm: algorithm(upload),
                checksum_type: kind(upload),
            }),
        }
    }
    let truncated = page.truncated && limit > 0;
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        prefix: Some(encoding.optional(input.prefix.as_ref()).unwrap_or_default()),
        delimiter: encoding.optional(input.delimiter.as_ref().filter(|delimiter| !delimiter.is_empty())),
        key_marker: Some(encoding.optional(input.key_marker.as_ref()).unwrap_or_default()),
        upload_id_marker: Some(input.upload_id_marker.unwrap_or_default()),
        max_uploads: count(limit),
        is_truncated: Some(truncated),
        next_key_marker: truncated.then(|| encoding.write(&page.next_key)),
        next_upload_id_marker: truncated.then(|| page.next_upload.map(|id| id.to_string()).unwrap_or_default()),
        uploads: Some(uploads),
        common_prefixes: Some(prefixes),
        encoding_type: input.encoding_type,
        ..ListMultipartUploadsOutput::default()
    }))
}

pub(super) async fn list_parts(
    store: &Store,
    request: S3Request<ListPartsInput>,
) -> S3Result<S3Response<ListPartsOutput>> {
    let input = request.input;
    let limit = limit(input.max_parts, "max-parts")?;
    let marker = input.part_number_marker.unwrap_or(0);
    let invalid = |_| {
        error(S3ErrorCode::InvalidArgument, "Argument part-number-marker must be an integer between 0 and 2147483647")
    };
    let after = u32::try_from(marker).map_err(invalid)?;
    // Above all numbers there are, nothing comes.
    let after = u16::try_from(after).unwrap_or(u16::MAX);
    let upload = upload_id(&input.upload_id)?;
    let page = store.gateway.list_parts(&name(&input.bucket), &input.key, upload, after, limit.max(1)).await?;
    let upload = &page.upload;
    let parts: Vec<Part> = page
        .parts
        .iter()
        .take(limit)
        .map(|(number, record)| {
            let mut part = Part {
                part_number: Some(i32::from(*number)),
                e_tag: Some(etag(record.etag)),
                last_modified: Some(timestamp(record.modified_ms)),
                size: i64::try_from(record.size_bytes).ok(),
                ..Part::default()
            };
            let digest = part_checksum(record);
            let checksum = upload.checksum.map(|(algorithm, _)| algorithm).zip(digest.as_deref());
            fill_checksums!(part, Fields::digest(checksum));
            part
        })
        .collect();
    let truncated = page.truncated && limit > 0;
    let last = parts.last().and_then(|part| part.part_number);
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        part_number_marker: Some(marker),
        next_part_number_marker: last.or(Some(0)),
        max_parts: count(limit),
        is_truncated: Some(truncated),
        initiator: Some(initiator(upload)),
        owner: Some(owner()),
        storage_class: Some(StorageClass::from_static(STANDARD)),
        checksum_algorithm: algorithm(upload),
        checksum_type: kind(upload),
        parts: Some(parts),
        ..ListPartsOutput::default()
    }))
}
