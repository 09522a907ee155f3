//! The content of a put on its way from s3s to the gateway: announced lengths and checksums are found, computed, compared.
//!
//! Must never: let content be committed whose length, hash, MD5 or checksum is not what its client said. The gateway
//! holds shards that nobody has seen until [`Content::check`] passed; what fails leaves an orphan for the collector.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, TrailingHeaders};

use super::checksums::{self, Hasher};
use super::errors::{self, error};
use super::intake::Notes;
use super::text;
use crate::gateway::GatewayError;
use crate::model::ChecksumAlgorithm;

/// What a client announced of its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Announced {
    /// Bytes of content, framing not counted.
    pub(super) size_bytes: u64,
    /// `Content-MD5`.
    pub(super) md5: Option<[u8; 16]>,
    /// A checksum, and where its value is.
    pub(super) checksum: Option<(ChecksumAlgorithm, Value)>,
}

/// Where the value of a checksum is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// In a header: here it is.
    Header(Vec<u8>),
    /// It comes behind the content.
    Trailer,
}

impl Announced {
    /// Of the headers of a put.
    pub(super) fn of(headers: &HeaderMap) -> S3Result<Self> {
        Ok(Self { size_bytes: size(headers)?, md5: content_md5(headers)?, checksum: checksum(headers)? })
    }
}

fn ascii<'a>(headers: &'a HeaderMap, name: &str) -> S3Result<Option<&'a str>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let bad = |_| error(S3ErrorCode::InvalidRequest, format!("the header {name} is no text"));
    Ok(Some(value.to_str().map_err(bad)?.trim()))
}

fn size(headers: &HeaderMap) -> S3Result<u64> {
    // A chunked body's own length says nothing of its content.
    let text = match ascii(headers, "x-amz-decoded-content-length")? {
        Some(text) => Some(text),
        None => ascii(headers, "content-length")?,
    };
    let text = text
        .ok_or_else(|| error(S3ErrorCode::MissingContentLength, "You must provide the Content-Length HTTP header."))?;
    text.parse().map_err(|_| error(S3ErrorCode::InvalidArgument, "the announced length of the content is no number"))
}

/// `Content-MD5` of a request.
pub(super) fn content_md5(headers: &HeaderMap) -> S3Result<Option<[u8; 16]>> {
    let Some(text) = ascii(headers, "content-md5")? else { return Ok(None) };
    let digest = text::from_base64(text).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    digest.map(Some).ok_or_else(|| error(S3ErrorCode::InvalidDigest, "The Content-MD5 you specified was invalid."))
}

/// The checksum that a request announces in a header or for its trailer.
pub(super) fn checksum(headers: &HeaderMap) -> S3Result<Option<(ChecksumAlgorithm, Value)>> {
    let invalid = |message: String| Err(error(S3ErrorCode::InvalidRequest, message));
    let mut found = None;
    for algorithm in checksums::ALL {
        let name = checksums::header(algorithm);
        if let Some(text) = ascii(headers, name)? {
            let Some(digest) = checksums::parse(algorithm, text) else {
                return invalid(format!("Value for {name} header is invalid."));
            };
            if found.replace((algorithm, Value::Header(digest))).is_some() {
                return invalid(
                    "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.".to_owned(),
                );
            }
        }
    }
    for trailer in ascii(headers, "x-amz-trailer")?.into_iter().flat_map(|names| names.split(',')) {
        let trailer = trailer.trim().to_ascii_lowercase();
        let Some(algorithm) = checksums::ALL.into_iter().find(|algorithm| checksums::header(*algorithm) == trailer)
        else {
            return invalid("The value specified in the x-amz-trailer header is not supported".to_owned());
        };
        if found.replace((algorithm, Value::Trailer)).is_some() {
            return invalid(
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.".to_owned(),
            );
        }
    }
    if let Some(asked) = ascii(headers, "x-amz-sdk-checksum-algorithm")?.filter(|asked| !asked.is_empty()) {
        let Some(asked) = checksums::by_name(asked) else {
            return invalid("Value for x-amz-sdk-checksum-algorithm header is invalid.".to_owned());
        };
        match &found {
            Some((algorithm, _)) if *algorithm == asked => {}
            Some(_) => return invalid("Value for x-amz-sdk-checksum-algorithm header is invalid.".to_owned()),
            None => {
                return invalid(
                    "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer \
                     headers were found."
                        .to_owned(),
                );
            }
        }
    }
    Ok(found)
}

/// The content, as the gateway reads it.
pub(super) struct Content {
    stream: Option<StreamingBlob>,
    hasher: Option<Hasher>,
    seen: Arc<Mutex<Seen>>,
}

/// What was seen of the content when it had passed.
#[derive(Debug, Default)]
struct Seen {
    digest: Option<Vec<u8>>,
    error: Option<String>,
}

/// Judges the content once the gateway has read it.
pub(super) struct Judge {
    announced: Announced,
    algorithm: Option<ChecksumAlgorithm>,
    trailers: Option<TrailingHeaders>,
    notes: Notes,
    seen: Arc<Mutex<Seen>>,
}

/// Content and the one who will judge it. `compute` asks for a checksum that the client did not bring.
pub(super) fn content(
    stream: Option<StreamingBlob>,
    announced: Announced,
    compute: Option<ChecksumAlgorithm>,
    trailers: Option<TrailingHeaders>,
    notes: Notes,
) -> (Content, Judge) {
    let seen = Arc::<Mutex<Seen>>::default();
    let algorithm = announced.checksum.as_ref().map(|(algorithm, _)| *algorithm).or(compute);
    let content = Content { stream, hasher: algorithm.map(Hasher::new), seen: seen.clone() };
    (content, Judge { announced, algorithm, trailers, notes, seen })
}

impl Content {
    fn finish(&mut self) {
        if let Some(hasher) = self.hasher.take() {
            self.note(|seen| seen.digest = Some(hasher.finish()));
        }
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Stream for Content {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else {
            // Content that has no stream, being empty, has a digest all the same.
            this.finish();
            return Poll::Ready(None);
        };
        match ready!(Pin::new(stream).poll_next(cx)) {
            Some(Ok(data)) => {
                if let Some(hasher) = &mut this.hasher {
                    hasher.update(&data);
                }
                Poll::Ready(Some(Ok(data)))
            }
            Some(Err(failed)) => {
                (this.stream, this.hasher) = (None, None);
                this.note(|seen| seen.error = Some(failed.to_string()));
                Poll::Ready(Some(Err(failed)))
            }
            None => {
                this.stream = None;
                this.finish();
                Poll::Ready(None)
            }
        }
    }
}

impl Judge {
    /// The announced length.
    pub(super) fn size_bytes(&self) -> u64 {
        self.announced.size_bytes
    }

    /// The precise reason why the gateway could not read the content to its end.
    pub(super) fn explain(&self, failed: GatewayError) -> S3Error {
        if !matches!(failed, GatewayError::Body(_) | GatewayError::Size { .. }) {
            return failed.into();
        }
        if let Some(fault) = self.notes.fault() {
            return errors::of_fault(fault);
        }
        let said = self.seen.lock().unwrap_or_else(PoisonError::into_inner).error.clone();
        said.map_or_else(|| failed.into(), |said| of_stream(&said))
    }

    /// Compares what was announced with what came. The checksum to keep, if there is one.
    pub(super) fn check(&self, md5: [u8; 16]) -> S3Result<Option<(ChecksumAlgorithm, Vec<u8>)>> {
        if self.announced.md5.is_some_and(|announced| announced != md5) {
            return Err(error(S3ErrorCode::BadDigest, "The Content-MD5 you specified did not match what we received."));
        }
        let Some(algorithm) = self.algorithm else { return Ok(None) };
        let digest = self.seen.lock().unwrap_or_else(PoisonError::into_inner).digest.clone();
        let Some(digest) = digest else {
            return Err(error(S3ErrorCode::InternalError, "the content was not read to its end"));
        };
        let announced = match &self.announced.checksum {
            None => None,
            Some((_, Value::Header(value))) => Some(value.clone()),
            Some((_, Value::Trailer)) => Some(self.trailer(algorithm)?),
        };
        if announced.is_some_and(|announced| announced != digest) {
            return Err(error(
                S3ErrorCode::BadDigest,
                format!("The {} you specified did not match the calculated checksum.", checksums::name(algorithm)),
            ));
        }
        Ok(Some((algorithm, digest)))
    }

    fn trailer(&self, algorithm: ChecksumAlgorithm) -> S3Result<Vec<u8>> {
        let name = checksums::header(algorithm);
        let text = self.trailers.as_ref().and_then(|trailers| {
            trailers.read(|headers| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned))
        });
        // s3s takes a body whose trailer never came for a whole one.
        let text = text.flatten().ok_or_else(|| {
            errors::custom(
                "MalformedTrailerError",
                http::StatusCode::BAD_REQUEST,
                format!("the trailer {name} was announced and did not come"),
            )
        })?;
        checksums::parse(algorithm, text.trim())
            .ok_or_else(|| error(S3ErrorCode::InvalidRequest, format!("Value for {name} trailing header is invalid.")))
    }
}

/// What s3s says of a body, in codes. Its error types are its own; their names are not, and a test holds this true.
fn of_stream(said: &str) -> S3Error {
    if said.contains("Sha256Mismatch") {
        errors::sha256_mismatch()
    } else if said.contains("SignatureMismatch") {
        error(S3ErrorCode::SignatureDoesNotMatch, "The signature of a chunk does not match its content.")
    } else {
        error(
            S3ErrorCode::IncompleteBody,
            format!("You did not provide the number of bytes specified by the Content-Length HTTP header: {said}"),
        )
    }
}
