//! Objects uploaded in parts.
//!
//! Must never: complete an upload whose checksum is not what its client said, of the parts or of the whole.

use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::access::call_of;
use super::attributes::{self, refuse_unhonoured};
use super::body::{self, Announced};
use super::buckets::name;
use super::checksums::{self, Fields, fill_checksums};
use super::errors::{self, error};
use super::limits::MAX_PAGE;
use super::objects::{check_size, etag, part_number, write_condition, write_failed};
use super::store::Store;
use crate::gateway::{Complete, GatewayError, NewUpload, PartTarget};
use crate::model::{self, ChecksumKind, MAX_PART_NUMBER, ObjectRecord, StoredChecksum, UploadRecord};
use crate::types::{BucketName, UploadId};

/// An upload id of a request. One that is none names no upload.
pub(super) fn upload_id(text: &str) -> S3Result<UploadId> {
    text.parse().map_err(|_| {
        error(
            S3ErrorCode::NoSuchUpload,
            "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.",
        )
    })
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    error(S3ErrorCode::InvalidRequest, message)
}

fn kind(of: &ChecksumType) -> S3Result<ChecksumKind> {
    match of.as_str() {
        ChecksumType::FULL_OBJECT => Ok(ChecksumKind::FullObject),
        ChecksumType::COMPOSITE => Ok(ChecksumKind::Composite),
        _ => Err(invalid("Value for x-amz-checksum-type header is invalid.")),
    }
}

pub(super) async fn create_multipart_upload(
    store: &Store,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    refuse_unhonoured(&request.headers)?;
    let initiator = call_of(&request.extensions)?.key()?.id.clone();
    let input = request.input;
    let attributes = attributes::of_request(&request.headers, input.metadata)?;
    let asked = input.checksum_type.as_ref().map(kind).transpose()?;
    let checksum = match (&input.checksum_algorithm, asked) {
        (None, None) => None,
        (None, Some(_)) => {
            return Err(invalid(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            ));
        }
        (Some(algorithm), asked) => {
            let algorithm = checksums::by_name(algorithm.as_str())
                .ok_or_else(|| invalid("Checksum algorithm provided is unsupported."))?;
            let kind = checksums::kind_of_upload(algorithm, asked).ok_or_else(|| {
                invalid(format!(
                    "The {} checksum type cannot be used with the {} checksum algorithm.",
                    asked.map(checksums::kind_dto).as_ref().map_or("", ChecksumType::as_str),
                    checksums::name(algorithm)
                ))
            })?;
            Some((algorithm, kind))
        }
    };
    let new = NewUpload { bucket: name(&input.bucket), key: input.key, attributes, checksum, initiator };
    let upload = store.gateway.create_upload(new).await?;
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(upload.bucket.to_string()),
        key: Some(upload.key),
        upload_id: Some(upload.id.to_string()),
        checksum_algorithm: checksum.map(|(algorithm, _)| ChecksumAlgorithm::from_static(checksums::name(algorithm))),
        checksum_type: checksum.map(|(_, kind)| checksums::kind_dto(kind)),
        ..CreateMultipartUploadOutput::default()
    }))
}

pub(super) async fn upload_part(
    store: &Store,
    request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    refuse_unhonoured(&request.headers)?;
    let notes = call_of(&request.extensions)?.notes.clone();
    let announced = Announced::of(&request.headers)?;
    check_size(&announced)?;
    let input = request.input;
    let part = part_number(input.part_number)?;
    let upload = upload_id(&input.upload_id)?;
    let bucket = name(&input.bucket);
    let record = store.gateway.upload_record(&bucket, &input.key, upload).await?;
    let expected = record.checksum.map(|(algorithm, _)| algorithm);
    if let (Some(expected), Some((brought, _))) = (expected, &announced.checksum)
        && expected != *brought
    {
        return Err(invalid(format!(
            "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
            checksums::name(expected),
            checksums::name(*brought)
        )));
    }
    let (content, judge) = body::content(input.body, announced, expected, request.trailing_headers, notes);
    let size = Some(judge.size_bytes());
    let uploaded = store.gateway.upload_part(&bucket, &input.key, upload, size, content).await;
    let uploaded = uploaded.map_err(|failed| judge.explain(failed))?;
    let digest = judge.check(uploaded.md5())?;
    let fields = Fields::digest(digest.as_ref().map(|(algorithm, digest)| (*algorithm, digest.as_slice())));
    // What an upload without checksums gets of them is compared, and not kept.
    let checksum = digest.map(|(_, digest)| digest).filter(|_| expected.is_some());
    let target = PartTarget { bucket, key: input.key, upload, part, checksum };
    let done = store.gateway.commit_part(uploaded, target).await?;
    let mut output = UploadPartOutput { e_tag: Some(etag(done.etag)), ..UploadPartOutput::default() };
    fill_checksums!(output, fields);
    Ok(S3Response::new(output))
}

/// A part as the client names it when it completes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    number: u16,
    etag: model::ETag,
    /// Its checksum, by the algorithm of the upload.
    checksum: Option<String>,
}

fn named(parts: Vec<CompletedPart>, algorithm: Option<model::ChecksumAlgorithm>) -> S3Result<Vec<Named>> {
    if parts.is_empty() || parts.len() > usize::from(MAX_PART_NUMBER) {
        return Err(error(
            S3ErrorCode::MalformedXML,
            "The XML you provided was not well-formed or did not validate against our published schema: 1 to 10000 parts are expected",
        ));
    }
    let mut named: Vec<Named> = Vec::with_capacity(parts.len());
    for part in parts {
        let malformed = || error(S3ErrorCode::MalformedXML, "a part needs PartNumber and ETag");
        let number = part_number(part.part_number.ok_or_else(malformed)?)?;
        if named.last().is_some_and(|last| last.number >= number) {
            return Err(error(
                S3ErrorCode::InvalidPartOrder,
                "The list of parts was not in ascending order. Parts must be ordered by part number.",
            ));
        }
        let tag = part.e_tag.ok_or_else(malformed)?;
        let etag = tag.value().trim_matches('"').parse().map_err(|_| invalid_part(number))?;
        let checksum = algorithm.and_then(|algorithm| match algorithm {
            model::ChecksumAlgorithm::Crc32 => part.checksum_crc32,
            model::ChecksumAlgorithm::Crc32c => part.checksum_crc32c,
            model::ChecksumAlgorithm::Crc64Nvme => part.checksum_crc64nvme,
            model::ChecksumAlgorithm::Sha1 => part.checksum_sha1,
            model::ChecksumAlgorithm::Sha256 => part.checksum_sha256,
        });
        named.push(Named { number, etag, checksum });
    }
    Ok(named)
}

fn invalid_part(number: u16) -> S3Error {
    GatewayError::InvalidPart { number }.into()
}

/// The recorded parts that the client names, in its order.
async fn recorded(
    store: &Store,
    bucket: &BucketName,
    key: &str,
    upload: UploadId,
    named: &[Named],
) -> S3Result<Vec<ObjectRecord>> {
    let mut found = Vec::with_capacity(named.len());
    let mut wanted = named.iter().peekable();
    let mut after = 0;
    while wanted.peek().is_some() {
        let page = store.gateway.list_parts(bucket, key, upload, after, MAX_PAGE).await?;
        for (number, part) in page.parts {
            after = number;
            match wanted.peek() {
                Some(named) if named.number == number => {
                    if part.etag != named.etag {
                        return Err(invalid_part(number));
                    }
                    wanted.next();
                    found.push(part);
                }
                Some(named) if named.number < number => return Err(invalid_part(named.number)),
                _ => {}
            }
        }
        if !page.truncated {
            break;
        }
    }
    match wanted.peek() {
        Some(missing) => Err(invalid_part(missing.number)),
        None => Ok(found),
    }
}

/// What the client says of the whole: as text, the way it stands in a header.
struct Whole {
    checksum: Option<(model::ChecksumAlgorithm, String)>,
    kind: Option<ChecksumKind>,
    size_bytes: Option<u64>,
}

fn whole(input: &CompleteMultipartUploadInput) -> S3Result<Whole> {
    let brought = [
        (model::ChecksumAlgorithm::Crc32, &input.checksum_crc32),
        (model::ChecksumAlgorithm::Crc32c, &input.checksum_crc32c),
        (model::ChecksumAlgorithm::Crc64Nvme, &input.checksum_crc64nvme),
        (model::ChecksumAlgorithm::Sha1, &input.checksum_sha1),
        (model::ChecksumAlgorithm::Sha256, &input.checksum_sha256),
    ];
    let mut brought = brought.into_iter().filter_map(|(algorithm, text)| Some((algorithm, text.clone()?)));
    let checksum = brought.next();
    if brought.next().is_some() {
        return Err(invalid("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."));
    }
    let size_bytes = match input.mpu_object_size {
        None => None,
        Some(size) => {
            Some(u64::try_from(size).map_err(|_| invalid("Value for x-amz-mp-object-size header is invalid."))?)
        }
    };
    Ok(Whole { checksum, kind: input.checksum_type.as_ref().map(kind).transpose()?, size_bytes })
}

/// The checksum of the object, out of those of its parts; compared with everything the client says.
fn checksum_of(
    upload: &UploadRecord,
    named: &[Named],
    parts: &[ObjectRecord],
    part_checksums: &[Option<Vec<u8>>],
    whole: &Whole,
) -> S3Result<Option<StoredChecksum>> {
    let size: u64 = parts.iter().map(|part| part.size_bytes).sum();
    if whole.size_bytes.is_some_and(|announced| announced != size) {
        return Err(invalid(format!(
            "The provided 'x-amz-mp-object-size' header does not match what was computed: {size}"
        )));
    }
    let Some((algorithm, kind)) = upload.checksum else { return Ok(None) };
    if whole.kind.is_some_and(|said| said != kind) {
        return Err(invalid("The upload was created using another checksum type than the complete request names."));
    }
    for (named, checksum) in named.iter().zip(part_checksums) {
        let recorded = checksum.as_deref().map(super::text::base64);
        if named.checksum.is_some() && named.checksum != recorded {
            return Err(invalid_part(named.number));
        }
    }
    let parts: Vec<(Option<Vec<u8>>, u64)> =
        part_checksums.iter().cloned().zip(parts).map(|(checksum, part)| (checksum, part.size_bytes)).collect();
    let computed = checksums::of_parts(algorithm, kind, &parts);
    if let Some((brought, said)) = &whole.checksum {
        let shown = computed.as_ref().map(|computed| checksums::shown(computed, parts.len()));
        // S3 takes a composite one without the number behind, too.
        let fits = shown.is_some_and(|shown| {
            *said == shown || shown.strip_prefix(said.as_str()).is_some_and(|rest| rest.starts_with('-'))
        });
        if *brought != algorithm || !fits {
            return Err(error(
                S3ErrorCode::BadDigest,
                format!("The {} you specified did not match the calculated checksum.", checksums::name(*brought)),
            ));
        }
    }
    Ok(computed)
}

pub(super) async fn complete_multipart_upload(
    store: &Store,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    refuse_unhonoured(&request.headers)?;
    let input = request.input;
    let whole = whole(&input)?;
    let condition = write_condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let id = upload_id(&input.upload_id)?;
    let bucket = name(&input.bucket);
    let upload = match store.gateway.upload_record(&bucket, &input.key, id).await {
        Ok(upload) => Some(upload),
        // Perhaps this is the repetition of a complete that went well: it is answered as it was then.
        Err(GatewayError::NoUpload) => None,
        Err(failed) => return Err(failed.into()),
    };
    let parts = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
    let algorithm = upload.as_ref().and_then(|upload| upload.checksum).map(|(algorithm, _)| algorithm);
    let named = named(parts, algorithm)?;
    let checksum = match &upload {
        Some(upload) if upload.checksum.is_some() || whole.size_bytes.is_some() => {
            let parts = recorded(store, &bucket, &input.key, id, &named).await?;
            let digests: Vec<Option<Vec<u8>>> = parts.iter().map(part_checksum).collect();
            checksum_of(upload, &named, &parts, &digests, &whole)?
        }
        _ => None,
    };
    let count = named.len();
    let complete = Complete {
        bucket: bucket.clone(),
        key: input.key.clone(),
        upload: id,
        parts: named.into_iter().map(|part| (part.number, part.etag)).collect(),
        checksum,
        condition,
    };
    let done = store.gateway.complete_upload(complete).await.map_err(|failed| write_failed(failed, condition))?;
    let fields = Fields::stored(done.record_checksum.as_ref(), count);
    let mut output = CompleteMultipartUploadOutput {
        location: Some(format!("/{bucket}/{}", super::text::url_encode(&input.key))),
        bucket: Some(bucket.to_string()),
        key: Some(input.key),
        e_tag: Some(etag(done.etag)),
        ..CompleteMultipartUploadOutput::default()
    };
    output.checksum_type = fields.kind.clone();
    fill_checksums!(output, fields);
    Ok(S3Response::new(output))
}

/// The checksum recorded of a part: it is kept where that of an object put as a whole is.
pub(super) fn part_checksum(part: &ObjectRecord) -> Option<Vec<u8>> {
    part.attributes.checksum.as_ref().map(|checksum| checksum.value.clone())
}

pub(super) async fn abort_multipart_upload(
    store: &Store,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let input = request.input;
    if input.if_match_initiated_time.is_some() {
        return Err(errors::not_implemented("an abort on condition of time"));
    }
    let upload = upload_id(&input.upload_id)?;
    store.gateway.abort_upload(&name(&input.bucket), &input.key, upload).await?;
    Ok(S3Response::with_status(AbortMultipartUploadOutput::default(), http::StatusCode::NO_CONTENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MD5: &str = "5d41402abc4b2a76b9719d911017c592";

    fn part(number: Option<i32>, etag: Option<&str>) -> CompletedPart {
        CompletedPart {
            part_number: number,
            e_tag: etag.map(|etag| ETag::Strong(etag.to_owned())),
            ..CompletedPart::default()
        }
    }

    fn code(parts: Vec<CompletedPart>) -> Option<S3ErrorCode> {
        named(parts, None).err().map(|error| error.code().clone())
    }

    #[test]
    fn parts_are_named_in_order_with_number_and_tag() {
        let good = |number| part(Some(number), Some(MD5));
        assert_eq!(code(vec![good(1), good(5), good(10_000)]), None);
        assert_eq!(code(vec![]), Some(S3ErrorCode::MalformedXML));
        assert_eq!(code(vec![good(2), good(1)]), Some(S3ErrorCode::InvalidPartOrder));
        assert_eq!(code(vec![good(1), good(1)]), Some(S3ErrorCode::InvalidPartOrder));
        assert_eq!(code(vec![good(0)]), Some(S3ErrorCode::InvalidArgument));
        assert_eq!(code(vec![good(10_001)]), Some(S3ErrorCode::InvalidArgument));
        assert_eq!(code(vec![part(None, Some(MD5))]), Some(S3ErrorCode::MalformedXML));
        assert_eq!(code(vec![part(Some(1), None)]), Some(S3ErrorCode::MalformedXML));
        assert_eq!(code(vec![part(Some(1), Some("no tag"))]), Some(S3ErrorCode::InvalidPart));
    }

    #[test]
    fn an_upload_id_that_is_none_names_no_upload() {
        for id in ["", "x", "../../etc/passwd", "00"] {
            assert_eq!(upload_id(id).unwrap_err().code(), &S3ErrorCode::NoSuchUpload, "{id:?}");
        }
    }
}
