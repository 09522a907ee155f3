//! One door: its kept connections, and one request over one of them.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, Method, Request, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use resilver_host::Net;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Content, S3Error, Said};

/// Connections kept for later. More are made when more requests are under way; those are closed after use.
const MAX_IDLE: usize = 256;

/// The longest answer that is taken whole: a page of a listing, an error.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A connection: closed when dropped, also with a request under way.
#[derive(Debug)]
struct Line {
    sender: SendRequest<Body>,
    task: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One door of the cluster.
pub(super) struct Door {
    net: Arc<dyn Net>,
    address: String,
    idle: Mutex<Vec<Line>>,
}

/// A request that was signed.
pub(super) struct Signed {
    pub(super) method: Method,
    /// With the signature.
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Door {
    pub(super) fn new(net: Arc<dyn Net>, address: String) -> Self {
        Self { net, address, idle: Mutex::default() }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request and awaits the answer's head. An answer that is no success is read whole and is an error.
    pub(super) async fn call(
        self: &Arc<Self>,
        signed: Signed,
        content: Content,
        deadline: Duration,
    ) -> Result<Reply, S3Error> {
        let until = Instant::now() + deadline;
        let request = self.request(signed, content)?;
        let (line, answer) = self.send(request, until).await?;
        let (head, body) = answer.into_parts();
        let reply = Reply {
            door: self.clone(),
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            line: Some(line),
            until,
        };
        match reply.status {
            200..=299 => Ok(reply),
            _ => Err(reply.refusal().await),
        }
    }

    fn request(&self, signed: Signed, content: Content) -> Result<Request<Body>, S3Error> {
        let mut request = Request::builder()
            .method(signed.method)
            .uri(signed.path)
            .header(header::HOST, &self.address)
            .header(header::CONTENT_LENGTH, content.len_bytes());
        for (name, value) in signed.headers {
            request = request.header(name, value);
        }
        request.body(body_of(content)).map_err(|error| self.unreachable(error.to_string()))
    }

    /// Sends over a kept connection, or a new one when that has been closed meanwhile and took nothing of the request.
    async fn send(
        &self,
        mut request: Request<Body>,
        until: Instant,
    ) -> Result<(Line, http::Response<Incoming>), S3Error> {
        loop {
            let (mut line, kept) = match self.take_idle() {
                Some(line) => (line, true),
                None => (self.connect(until).await?, false),
            };
            match tokio::time::timeout_at(until, line.sender.ready()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) if kept => continue,
                Ok(Err(error)) => return Err(self.unreachable(error.to_string())),
                Err(_) => return Err(self.unreachable("no free connection in time".to_owned())),
            }
            match tokio::time::timeout_at(until, line.sender.try_send_request(request)).await {
                Ok(Ok(answer)) => return Ok((line, answer)),
                Ok(Err(mut error)) => match error.take_message() {
                    Some(unsent) if kept => request = unsent,
                    Some(_) => return Err(self.unreachable(error.into_error().to_string())),
                    None => return Err(self.broken(error.into_error().to_string())),
                },
                Err(_) => return Err(self.broken("no answer in time".to_owned())),
            }
        }
    }

    fn take_idle(&self) -> Option<Line> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|line| !line.sender.is_closed())
    }

    fn keep(&self, line: Line) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE && !line.sender.is_closed() {
            idle.push(line);
        }
    }

    async fn connect(&self, until: Instant) -> Result<Line, S3Error> {
        let connecting = async {
            let stream = self.net.connect(&self.address).await.map_err(|error| error.to_string())?;
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
            // How it ends is told to whoever has a request on it.
            let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
            Ok(Line { sender, task })
        };
        let connected = tokio::time::timeout_at(until, connecting).await;
        connected.unwrap_or_else(|_| Err("no connection in time".to_owned())).map_err(|why| self.unreachable(why))
    }

    fn unreachable(&self, why: String) -> S3Error {
        S3Error::Unreachable { address: self.address.clone(), why }
    }

    pub(super) fn broken(&self, why: String) -> S3Error {
        S3Error::Broken { address: self.address.clone(), why }
    }

    pub(super) fn odd(&self, why: impl std::fmt::Display) -> S3Error {
        S3Error::Odd { address: self.address.clone(), why: why.to_string() }
    }
}

fn body_of(content: Content) -> Body {
    match content {
        Content::Whole(bytes) => Full::new(bytes).boxed_unsync(),
        Content::Repeated { piece, len_bytes } => {
            // An empty piece would never fill anything: what is announced and not sent is the door's to refuse.
            let left = if piece.is_empty() { 0 } else { len_bytes };
            let pieces = stream::unfold(left, move |left| {
                let len = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
                let next = (left > 0).then(|| (Ok(Frame::data(piece.slice(..len))), left - len as u64));
                async move { next }
            });
            StreamBody::new(pieces).boxed_unsync()
        }
    }
}

/// An answer whose body is still to be read.
pub struct Reply {
    door: Arc<Door>,
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    body: Incoming,
    line: Option<Line>,
    until: Instant,
}

impl Reply {
    /// A header's value, when there is one and it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The object's ETag, without its quotes.
    pub fn etag(&self) -> Option<String> {
        self.header("etag").map(|etag| etag.trim_matches('"').to_owned())
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// [`S3Error::Broken`] when it ends too early or too late.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, S3Error> {
        loop {
            match tokio::time::timeout_at(self.until, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Ok(None) => {
                    if let Some(line) = self.line.take() {
                        self.door.keep(line);
                    }
                    return Ok(None);
                }
                Ok(Some(Err(error))) => return Err(self.door.broken(error.to_string())),
                Err(_) => return Err(self.door.broken("its answer did not end in time".to_owned())),
            }
        }
    }

    /// The whole body, if it is a short one.
    ///
    /// # Errors
    /// As [`Reply::piece`], and when it is long.
    pub async fn whole(mut self) -> Result<Bytes, S3Error> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.piece().await? {
            if whole.len() + piece.len() > MAX_ANSWER_BYTES {
                return Err(self.door.odd(format!("more than {MAX_ANSWER_BYTES} bytes")));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    async fn refusal(self) -> S3Error {
        let status = self.status;
        let text = match self.whole().await {
            Ok(body) => String::from_utf8_lossy(&body).into_owned(),
            Err(error) => return error,
        };
        let said = said(status, &text);
        if (400..500).contains(&status) { S3Error::Refused(said) } else { S3Error::Failed(said) }
    }
}

/// What an error document says. It is small and flat: its two fields are found by their names.
pub(super) fn said(status: u16, text: &str) -> Said {
    let field = |name: &str| {
        let from = text.find(&format!("<{name}>"))? + name.len() + 2;
        let len = text[from..].find(&format!("</{name}>"))?;
        Some(text[from..from + len].to_owned())
    };
    Said { status, code: field("Code").unwrap_or_default(), message: field("Message").unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_document_is_read() {
        let text = "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>";
        assert_eq!(said(404, text).to_string(), "404 NoSuchKey: no such key");
        assert_eq!(said(503, "<html>").code, "");
    }

    #[tokio::test]
    async fn a_repeated_piece_makes_the_length_asked_for() {
        let piece = Bytes::from_static(b"abc");
        let whole = |len_bytes| body_of(Content::Repeated { piece: piece.clone(), len_bytes }).collect();
        assert_eq!(whole(7).await.unwrap().to_bytes(), "abcabca");
        assert_eq!(whole(0).await.unwrap().to_bytes(), "");
    }
}
