//! What happens to a request before and after s3s: whether this node serves at all, whether there is room, what s3s does
//! not check of a signature, how the body is taken in, and that a long answer shows signs of life.
//!
//! Must never: look at content; let a request by that [`super::signing`] refuses.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use s3s::service::S3Service;
use s3s::{Body, HttpResponse, S3Error, S3ErrorCode, StdError};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Interval;

use super::access::{CALL, Call};
use super::connection::{Busy, Connection};
use super::intake::{Handling, Intake, Notes};
use super::limits::{Limits, MAX_HEADER_BYTES};
use super::names::Domain;
use super::objects::Partial;
use super::{Counts, checksums, errors, health, signing, text};
use crate::phase::PhaseCell;

/// How long a copy or a completion may take before the answer is begun without it: then its head says 200, and blanks
/// keep the connection alive until the body tells how it went. S3 does the same.
const ANSWER_AFTER: Duration = Duration::from_secs(15);

/// How often a blank is sent.
const BLANK_EVERY: Duration = Duration::from_secs(5);

/// What begins an XML answer, and therefore one that is begun early.
const XML_DECLARATION: &[u8] = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>";

/// All connections' way to the S3 service.
pub(super) struct Front {
    pub(super) service: OnceLock<S3Service>,
    pub(super) limits: Arc<Limits>,
    pub(super) phase: PhaseCell,
    pub(super) region: String,
    pub(super) domain: Option<Domain>,
    pub(super) counts: Arc<Counts>,
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
            let (status, text) = health::answer(&self.phase.get());
            let mut response = Response::new(Reply::new(Body::from(text), busy));
            *response.status_mut() = status;
            response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            return Ok(response);
        }
        let (answer, permit) = self.answer(&busy, request).await;
        self.counts.end(answer.status());
        let mut response = answer.map(|body| Reply { body, _permit: permit, _busy: busy });
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-amz-request-id", id);
        }
        response.headers_mut().insert(http::header::SERVER, HeaderValue::from_static("Resilver"));
        Ok(response)
    }

    async fn answer(
        self: &Arc<Self>,
        busy: &Busy,
        request: Request<Incoming>,
    ) -> (Response<AnyBody>, Option<OwnedSemaphorePermit>) {
        let handling = handling(request.method(), request.headers(), request.uri().query().unwrap_or_default());
        let notes = Notes::default();
        let signed_hash =
            request.headers().get("x-amz-content-sha256").and_then(|value| text::from_hex(value.to_str().ok()?));
        let long = may_take_long(request.method(), request.headers(), request.uri().query().unwrap_or_default());
        let admitted = self.admit(request.method(), request.headers(), request.uri());
        let (mut parts, body) = request.into_parts();
        // From here on the body is read on, or drained, whatever becomes of the request.
        let body = Intake::new(body, handling, notes.clone(), busy.clone());
        let (service, permit) = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => return (said(refused), None),
        };
        let call = Call::new(notes.clone());
        parts.extensions.insert(call.clone());
        let request = Request::from_parts(parts, Body::http_body(body));
        let mut answer: BoxFuture<'static, HttpResponse> = Box::pin(CALL.scope(call, async move {
            let answer = match service.call(request).await {
                Ok(answer) => answer,
                Err(failed) => {
                    let failed: StdError = failed.into();
                    tracing::warn!(error = %failed, operation = "s3", "an answer could not be made");
                    return plain_error(errors::error(S3ErrorCode::InternalError, "the answer could not be made"));
                }
            };
            explain(answer, &notes, signed_hash.as_deref())
        }));
        if !long {
            return (answer.await.map(AnyBody::Plain), Some(permit));
        }
        match tokio::time::timeout(ANSWER_AFTER, &mut answer).await {
            Ok(answer) => (answer.map(AnyBody::Plain), Some(permit)),
            Err(_) => (Begun::response(answer), Some(permit)),
        }
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
fn explain(mut answer: HttpResponse, notes: &Notes, signed_hash: Option<&[u8]>) -> HttpResponse {
    if answer.extensions().get::<Partial>().is_some() {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    if answer.status() != StatusCode::INTERNAL_SERVER_ERROR {
        return answer;
    }
    if let Some(fault) = notes.fault() {
        return plain_error(errors::of_fault(fault));
    }
    match (notes.digests(), signed_hash) {
        (Some(digests), Some(signed)) if digests.sha256 != signed => plain_error(errors::sha256_mismatch()),
        _ => answer,
    }
}

fn plain_error(failed: S3Error) -> HttpResponse {
    failed.to_http_response().unwrap_or_else(|_| {
        let mut response = HttpResponse::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

fn said(failed: S3Error) -> Response<AnyBody> {
    plain_error(failed).map(AnyBody::Plain)
}

/// The body of an answer, and what is taken as long as it is being sent.
pub(super) struct Reply {
    body: AnyBody,
    _permit: Option<OwnedSemaphorePermit>,
    _busy: Busy,
}

impl Reply {
    fn new(body: Body, busy: Busy) -> Self {
        Self { body: AnyBody::Plain(body), _permit: None, _busy: busy }
    }
}

enum AnyBody {
    Plain(Body),
    Begun(Begun),
}

/// An answer that was begun before it was known.
struct Begun {
    answer: Option<BoxFuture<'static, HttpResponse>>,
    blanks: Interval,
    begun: bool,
    /// The answer's body once it is known; behind, whether its first bytes were seen.
    body: Option<(Body, bool)>,
}

impl Begun {
    fn response(answer: BoxFuture<'static, HttpResponse>) -> Response<AnyBody> {
        let blanks = tokio::time::interval(BLANK_EVERY);
        let mut response =
            Response::new(AnyBody::Begun(Self { answer: Some(answer), blanks, begun: false, body: None }));
        response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        response
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        if !self.begun {
            self.begun = true;
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(XML_DECLARATION)))));
        }
        if let Some(answer) = &mut self.answer {
            match answer.as_mut().poll(cx) {
                Poll::Ready(answer) => {
                    self.answer = None;
                    self.body = Some((answer.into_body(), false));
                }
                Poll::Pending => {
                    return self.blanks.poll_tick(cx).map(|_| Some(Ok(Frame::data(Bytes::from_static(b"\n")))));
                }
            }
        }
        let Some((body, seen)) = &mut self.body else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
        let first = !std::mem::replace(seen, true);
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(|data| if first { without_declaration(data) } else { data }))))
    }
}

/// The declaration was sent: a second one in the middle is no XML.
fn without_declaration(data: Bytes) -> Bytes {
    match (data.starts_with(b"<?xml"), data.windows(2).position(|pair| pair == b"?>")) {
        (true, Some(end)) => data.slice(end + 2..),
        _ => data,
    }
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        match &mut self.body {
            AnyBody::Plain(body) => Pin::new(body).poll_frame(cx),
            AnyBody::Begun(begun) => begun.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            AnyBody::Plain(body) => body.is_end_stream(),
            AnyBody::Begun(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            AnyBody::Plain(body) => body.size_hint(),
            AnyBody::Begun(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_was_begun_early_is_one_xml_document() {
        let late = async {
            tokio::time::sleep(Duration::from_secs(12)).await;
            plain_error(errors::error(S3ErrorCode::NoSuchKey, "gone"))
        };
        let AnyBody::Begun(mut begun) = Begun::response(Box::pin(late)).into_body() else { unreachable!() };
        let mut text = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| begun.poll(cx)).await {
            text.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.matches("<?xml").count(), 1, "{text}");
        assert!(text.starts_with("<?xml") && text.contains("<Code>NoSuchKey</Code>"), "{text}");
        assert!(text.matches('\n').count() >= 2, "signs of life: {text:?}");
    }

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
}
