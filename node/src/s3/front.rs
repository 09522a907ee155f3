//! What happens to a request before and after s3s: whether this node serves at all, whether there is room, what s3s does
//! not check of a signature, how the body is taken in, and that a long answer shows signs of life.
//!
//! Must never: look at content; let a request by that [`super::signing`] refuses.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use s3s::service::S3Service;
use s3s::{Body, HttpResponse, S3Error, S3ErrorCode, StdError};
use tokio::sync::OwnedSemaphorePermit;

use super::access::{CALL, Call};
use super::answer::{AnyBody, Begun, Reply, finish, plain_error};
use super::connection::{Busy, Connection};
use super::intake::{Handling, Intake, Notes};
use super::limits::{Limits, MAX_HEADER_BYTES, MAX_XML_BYTES};
use super::names::Domain;
use super::objects::Partial;
use super::{Counts, checksums, errors, health, signing, text};
use crate::mode::Wants;
use crate::phase::PhaseCell;

/// How long a copy or a completion may take before the answer is begun without it: then its head says 200, and blanks
/// keep the connection alive until the body tells how it went. S3 does the same.
const ANSWER_AFTER: Duration = Duration::from_secs(15);

/// All connections' way to the S3 service.
pub(super) struct Front {
    pub(super) service: OnceLock<S3Service>,
    pub(super) limits: Arc<Limits>,
    pub(super) phase: PhaseCell,
    pub(super) region: String,
    pub(super) domain: Option<Domain>,
    pub(super) counts: Arc<Counts>,
    /// Where it is reached from this host, once it listens.
    pub(super) listens: OnceLock<String>,
}

impl Front {
    /// Answers one request.
    pub(super) async fn call(
        self: Arc<Self>,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> Result<Response<Reply>, Infallible> {
        let busy = connection.busy();
        let id = self.counts.begin();
        if self.is_health(&request) {
            let (status, text) = health::answer(&self.phase);
            let mut response = Response::new(Reply::new(AnyBody::Plain(Body::from(text)), None, busy));
            *response.status_mut() = status;
            response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            return Ok(response);
        }
        let (answer, permit) = self.answer(&id, &busy, request).await;
        self.counts.end(answer.status());
        let mut response = answer.map(|body| Reply::new(body, permit, busy));
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-amz-request-id", id);
        }
        response.headers_mut().insert(http::header::SERVER, HeaderValue::from_static("Resilver"));
        Ok(response)
    }

    async fn answer(
        self: &Arc<Self>,
        id: &str,
        busy: &Busy,
        request: Request<Incoming>,
    ) -> (Response<AnyBody>, Option<OwnedSemaphorePermit>) {
        let query = request.uri().query().unwrap_or_default();
        let handling = handling(request.method(), request.headers(), query);
        let long = may_take_long(request.method(), request.headers(), query);
        let admitted = self.admit(request.method(), request.headers(), request.uri());
        let notes = Notes::default();
        let (mut parts, body) = request.into_parts();
        join_repeated(&mut parts.headers);
        // From here on the body is read on, or drained, whatever becomes of the request.
        let body = Intake::new(body, handling, notes.clone(), busy.clone());
        let call = Call::new(notes.clone());
        parts.extensions.insert(call.clone());
        let request = Request::from_parts(parts, Body::http_body(body));
        let (mut answer, permit) = match admitted {
            Ok((service, permit)) => {
                let (front, id, notes) = (self.clone(), id.to_owned(), notes.clone());
                let answer =
                    Box::pin(CALL.scope(call, async move {
                        finish(served(&service, request, &notes).await, &id, &front.region)
                    }));
                (awaited(answer, long).await, Some(permit))
            }
            Err(refused) => (finish(plain_error(refused), id, &self.region).map(AnyBody::Plain), None),
        };
        if handling.waits_for_continue && !notes.asked_for() {
            // The client may send its body all the same, and what it sends must not be taken for its next request.
            answer.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        (answer, permit)
    }

    fn admit(
        &self,
        method: &Method,
        headers: &HeaderMap,
        uri: &http::Uri,
    ) -> Result<(S3Service, OwnedSemaphorePermit), S3Error> {
        let service = self.service.get().filter(|_| *self.phase.serving().borrow());
        let Some(service) = service else {
            let state = self.phase.get();
            return Err(errors::pause(
                S3ErrorCode::ServiceUnavailable,
                format!("this node is {}: {}; ask another node, or wait", state.phase.as_str(), state.detail),
            ));
        };
        let wants = if matches!(*method, Method::GET | Method::HEAD) { Wants::Read } else { Wants::Write };
        self.phase.mode().admit(wants).map_err(|why| errors::pause(S3ErrorCode::ServiceUnavailable, why))?;
        let header_bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if header_bytes > MAX_HEADER_BYTES {
            return Err(errors::error(
                S3ErrorCode::RequestHeaderSectionTooLarge,
                format!("Your request header section exceeds the maximum allowed size of {MAX_HEADER_BYTES} bytes"),
            ));
        }
        let form = headers.get(http::header::CONTENT_TYPE).is_some_and(|value| {
            value.as_bytes().to_ascii_lowercase().trim_ascii_start().starts_with(b"multipart/form-data")
        });
        if *method == Method::POST && form {
            // s3s would hold the whole file in memory, and read it before it asks who sends it.
            return Err(errors::not_implemented("uploading by an HTML form"));
        }
        signing::check(headers, uri, &self.region)?;
        let permit = self.limits.request().ok_or_else(|| {
            errors::pause(S3ErrorCode::SlowDown, "too many requests are at work on this node: reduce your request rate")
        })?;
        Ok((service.clone(), permit))
    }

    /// `GET /health`, without signature. Not when the host names a bucket: that is an object called `health`.
    fn is_health(&self, request: &Request<Incoming>) -> bool {
        let host = request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok());
        matches!(*request.method(), Method::GET | Method::HEAD)
            && request.uri().path() == health::PATH
            && self.domain.as_ref().zip(host).is_none_or(|(domain, host)| domain.bucket(host).is_none())
    }
}

/// s3s's answer, with the true reason where it only knows that something failed.
async fn served(service: &S3Service, request: Request<Body>, notes: &Notes) -> HttpResponse {
    let xml = *request.method() == Method::POST;
    let signed_hash =
        request.headers().get("x-amz-content-sha256").and_then(|value| text::from_hex(value.to_str().ok()?));
    match service.call(request).await {
        Ok(answer) => explain(answer, notes, signed_hash.as_deref(), xml),
        Err(failed) => {
            let failed: StdError = failed.into();
            tracing::warn!(error = %failed, operation = "s3", "an answer could not be made");
            plain_error(errors::error(S3ErrorCode::InternalError, "the answer could not be made"))
        }
    }
}

/// The answer, begun before it is known if that takes too long.
async fn awaited(mut answer: BoxFuture<'static, HttpResponse>, long: bool) -> Response<AnyBody> {
    if !long {
        return answer.await.map(AnyBody::Plain);
    }
    match tokio::time::timeout(ANSWER_AFTER, &mut answer).await {
        Ok(answer) => answer.map(AnyBody::Plain),
        Err(_) => Begun::response(answer),
    }
}

/// User metadata may come in several headers of one name: they mean one, joined by commas (RFC 9110, section 5.3), and that
/// is what their signature covers. s3s refuses them.
fn join_repeated(headers: &mut HeaderMap) {
    let repeated: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-amz-meta-") && headers.get_all(*name).iter().nth(1).is_some())
        .cloned()
        .collect();
    for name in repeated {
        let values: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
        // What is joined of values is a value.
        if let Ok(joined) = HeaderValue::from_bytes(&values.join(&b","[..])) {
            headers.insert(name, joined);
        }
    }
}

/// How the body of a request is to be taken in.
fn handling(method: &Method, headers: &HeaderMap, query: &str) -> Handling {
    let chunks_signed = match headers.get("x-amz-content-sha256").map(HeaderValue::as_bytes) {
        Some(b"STREAMING-UNSIGNED-PAYLOAD-TRAILER") => Some(false),
        Some(hash) if hash.starts_with(b"STREAMING-") => Some(true),
        _ => None,
    };
    let waits_for_continue =
        headers.get(http::header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    // What s3s reads as a whole: all POSTs, and settings of buckets.
    let has = |name: &str| text::query_pairs(query).any(|(key, _)| key == name);
    let digest = *method == Method::POST || (*method == Method::PUT && !has("uploadId") && content_is_small(headers));
    let checksum = checksums::ALL.into_iter().find(|algorithm| headers.contains_key(checksums::header(*algorithm)));
    Handling { chunks_signed, digest, checksum, waits_for_continue }
}

/// So small that its digests cost nothing. Only the body of a bucket's creation needs them among all PUTs.
fn content_is_small(headers: &HeaderMap) -> bool {
    const SMALL: u64 = 1024;
    let length = headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    length.is_some_and(|length| length <= SMALL)
}

/// Requests that move much data, or commit much, without sending or being sent any.
fn may_take_long(method: &Method, headers: &HeaderMap, query: &str) -> bool {
    match *method {
        Method::PUT => headers.contains_key("x-amz-copy-source"),
        Method::POST => text::query_pairs(query).any(|(name, _)| name == "uploadId"),
        _ => false,
    }
}

/// Puts the true reason in the place of s3s's "internal error", where a body failed while s3s read it as a whole.
fn explain(mut answer: HttpResponse, notes: &Notes, signed_hash: Option<&[u8]>, xml: bool) -> HttpResponse {
    if answer.extensions().get::<Partial>().is_some() {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    if answer.status() != StatusCode::INTERNAL_SERVER_ERROR {
        return answer;
    }
    if let Some(fault) = notes.fault() {
        return plain_error(errors::of_fault(fault));
    }
    if xml && notes.taken() > MAX_XML_BYTES as u64 {
        return plain_error(errors::error(
            S3ErrorCode::MaxMessageLengthExceeded,
            format!("Your request was too big: the document has more than {MAX_XML_BYTES} bytes"),
        ));
    }
    match (notes.digests(), signed_hash) {
        (Some(digests), Some(signed)) if digests.sha256 != signed => plain_error(errors::sha256_mismatch()),
        _ => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_taken_in_as_they_travel() {
        let of = |hash: &str| {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static("x-amz-content-sha256"),
                HeaderValue::from_str(hash).unwrap(),
            )]);
            handling(&Method::PUT, &headers, "").chunks_signed
        };
        assert_eq!(of("STREAMING-UNSIGNED-PAYLOAD-TRAILER"), Some(false));
        assert_eq!(of("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), Some(true));
        assert_eq!(of("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"), Some(true));
        assert_eq!(of("UNSIGNED-PAYLOAD"), None);
    }

    #[test]
    fn metadata_in_several_headers_is_one() {
        let mut headers = HeaderMap::new();
        for value in ["one", "two,three", ""] {
            headers.append("x-amz-meta-a", value.parse().unwrap());
        }
        headers.append("x-amz-meta-b", "alone".parse().unwrap());
        join_repeated(&mut headers);
        let all: Vec<_> = headers.get_all("x-amz-meta-a").iter().collect();
        assert_eq!(all, ["one,two,three,"]);
        assert_eq!(headers["x-amz-meta-b"], "alone");
    }
}
