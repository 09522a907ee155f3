//! Answers on their way out: what the person at the other end finds in an error, what XML cannot carry, and bodies that
//! show signs of life while the answer is not known yet.
//!
//! Must never: change what an answer says, only how it is written.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Response, StatusCode};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use s3s::{Body, HttpResponse, S3Error, StdError};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Interval;

use super::connection::Busy;

/// How often a blank is sent.
const BLANK_EVERY: Duration = Duration::from_secs(5);

/// What begins an XML answer, and therefore one that is begun early.
const XML_DECLARATION: &[u8] = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>";

/// How every error document ends.
const ERROR_END: &[u8] = b"</Error>";

/// Completes a document that was written as a whole: an error names its request, and the region when that was wrong (s3cmd
/// and others ask again there); a carriage return is written so that a reader of XML does not take it for a newline.
pub(super) fn finish(mut answer: HttpResponse, request: &str, region: &str) -> HttpResponse {
    let xml = answer.headers().get(http::header::CONTENT_TYPE).is_some_and(|kind| kind == "application/xml");
    let Some(text) = answer.body().bytes().filter(|text| xml && !text.is_empty()) else { return answer };
    let mut text = written_out(text);
    if let Some(head) = text.strip_suffix(ERROR_END).filter(|_| answer.status().as_u16() >= 400) {
        let wrong_region = contains(head, b"<Code>AuthorizationHeaderMalformed</Code>");
        let region = if wrong_region { format!("<Region>{region}</Region>") } else { String::new() };
        let tail = format!("{region}<RequestId>{request}</RequestId>");
        text = [head, tail.as_bytes(), ERROR_END].concat().into();
    }
    if answer.headers().contains_key(http::header::CONTENT_LENGTH) {
        answer.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    }
    *answer.body_mut() = Body::from(text);
    answer
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// XML 1.0 (section 2.11) has a reader turn a carriage return into a newline, so that a key with one would be another key;
/// other control characters may not stand in a document at all. S3 writes both as references.
fn written_out(text: Bytes) -> Bytes {
    let special = |byte: &u8| *byte < b' ' && !matches!(byte, b'\n' | b'\t');
    if !text.iter().any(special) {
        return text;
    }
    let mut out = Vec::with_capacity(text.len() + 64);
    for byte in &text {
        if special(byte) { out.extend_from_slice(format!("&#x{byte:x};").as_bytes()) } else { out.push(*byte) }
    }
    out.into()
}

/// An error as it is.
pub(super) fn plain_error(failed: S3Error) -> HttpResponse {
    failed.to_http_response().unwrap_or_else(|_| {
        let mut response = HttpResponse::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// The body of an answer, and what is taken as long as it is being sent.
pub(super) struct Reply {
    body: AnyBody,
    _permit: Option<OwnedSemaphorePermit>,
    _busy: Busy,
}

impl Reply {
    pub(super) fn new(body: AnyBody, permit: Option<OwnedSemaphorePermit>, busy: Busy) -> Self {
        Self { body, _permit: permit, _busy: busy }
    }
}

/// A body that is there, or one that is being waited for.
pub(super) enum AnyBody {
    Plain(Body),
    Begun(Begun),
}

/// An answer that was begun before it was known.
pub(super) struct Begun {
    answer: Option<BoxFuture<'static, HttpResponse>>,
    blanks: Interval,
    begun: bool,
    /// The answer's body once it is known; behind, whether its first bytes were seen.
    body: Option<(Body, bool)>,
}

impl Begun {
    /// The head of a 200, whose body brings what the answer turns out to be.
    pub(super) fn response(answer: BoxFuture<'static, HttpResponse>) -> Response<AnyBody> {
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
    use s3s::S3ErrorCode;

    use super::super::errors;
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

    fn finished(code: S3ErrorCode, message: &'static str) -> String {
        let answer = finish(plain_error(errors::error(code, message)), "r-1", "eu-1");
        String::from_utf8(answer.body().bytes().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn an_error_names_its_request_and_the_region_when_that_was_wrong() {
        let text = finished(S3ErrorCode::NoSuchKey, "gone");
        assert!(text.ends_with("<RequestId>r-1</RequestId></Error>") && !text.contains("Region"), "{text}");
        let text = finished(S3ErrorCode::AuthorizationHeaderMalformed, "wrong");
        assert!(text.ends_with("<Region>eu-1</Region><RequestId>r-1</RequestId></Error>"), "{text}");
    }

    #[test]
    fn what_xml_would_change_is_written_as_a_reference() {
        let text = finished(S3ErrorCode::NoSuchKey, "a\rb\nc\u{1}");
        assert!(text.contains("a&#xd;b\nc&#x1;"), "{text:?}");
    }
}
