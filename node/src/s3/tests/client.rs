//! A client of the tests' own: it signs as S3 wants it, and can do each thing wrong that a real one never does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::s3::text::{hex, url_encode};

pub(super) fn sha256(data: &[u8]) -> String {
    hex(&Sha256::digest(data))
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(data).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

/// `YYYYMMDDTHHMMSSZ`.
pub(super) fn amz_date(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to civil date, after Howard Hinnant.
    let z = days as i64 + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[derive(Clone)]
pub(super) struct Client {
    pub(super) address: SocketAddr,
    pub(super) id: String,
    pub(super) secret: String,
    pub(super) region: String,
    /// Its clock.
    pub(super) now: SystemTime,
}

/// A request before it is signed.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: &'static str,
    /// Decoded.
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// What `x-amz-content-sha256` says; the body's hash when nothing else is set.
    pub(super) hash: Option<String>,
    /// Headers that the signature leaves out.
    pub(super) unsigned: Vec<String>,
}

impl Request {
    pub(super) fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Vec::new(),
            hash: None,
            unsigned: Vec::new(),
        }
    }

    pub(super) fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    pub(super) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(super) fn hash(mut self, hash: &str) -> Self {
        self.hash = Some(hash.to_owned());
        self
    }

    fn canonical_query(&self, more: &[(String, String)]) -> String {
        let encode = |text: &str| url_encode(text).replace('/', "%2F");
        let mut pairs: Vec<_> =
            self.query.iter().chain(more).map(|(name, value)| (encode(name), encode(value))).collect();
        pairs.sort();
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
    }
}

/// What a signature of a request is made of; needed to sign its chunks.
pub(super) struct Seal {
    pub(super) signature: String,
    pub(super) date: String,
    pub(super) scope: String,
    pub(super) key: Vec<u8>,
}

impl Seal {
    /// The signature of the next chunk, or of the trailer.
    pub(super) fn next(&mut self, algorithm: &str, hashes: &[String]) -> String {
        let text = format!("{algorithm}\n{}\n{}\n{}\n{}", self.date, self.scope, self.signature, hashes.join("\n"));
        self.signature = hex(&hmac(&self.key, text.as_bytes()));
        self.signature.clone()
    }
}

#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
    /// The connection ended before the announced length.
    pub(super) broken: bool,
}

impl Response {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The text of the first element of this name.
    pub(super) fn element(&self, name: &str) -> Option<String> {
        self.elements(name).into_iter().next()
    }

    pub(super) fn elements(&self, name: &str) -> Vec<String> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let text = self.text();
        let of = |part: &str| part.split_once(&close).map(|(text, _)| unescape(text));
        text.split(&open).skip(1).filter_map(of).collect()
    }

    pub(super) fn code(&self) -> String {
        self.element("Code").unwrap_or_default()
    }

    #[track_caller]
    pub(super) fn ok(self) -> Self {
        assert!(self.status < 300, "{} {}", self.status, self.text());
        self
    }

    #[track_caller]
    pub(super) fn refused(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{}", self.text());
        self
    }

    pub(super) fn etag(&self) -> String {
        self.headers.get("etag").cloned().unwrap_or_default()
    }
}

fn unescape(text: &str) -> String {
    let named = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    named.iter().fold(text.to_owned(), |text, (entity, plain)| text.replace(entity, plain))
}

impl Client {
    fn key(&self, day: &str) -> Vec<u8> {
        let key = hmac(format!("AWS4{}", self.secret).as_bytes(), day.as_bytes());
        let key = hmac(&key, self.region.as_bytes());
        hmac(&hmac(&key, b"s3"), b"aws4_request")
    }

    /// The bytes of a request's head, signed in its headers.
    pub(super) fn head(&self, request: &Request) -> (String, Seal) {
        let date = amz_date(self.now);
        let day = &date[..8];
        let hash = request.hash.clone().unwrap_or_else(|| sha256(&request.body));
        let mut headers = request.headers.clone();
        let has = |headers: &[(String, String)], name: &str| headers.iter().any(|(header, _)| header == name);
        if !has(&headers, "host") {
            headers.push(("host".to_owned(), self.address.to_string()));
        }
        headers.push(("x-amz-date".to_owned(), date.clone()));
        headers.push(("x-amz-content-sha256".to_owned(), hash.clone()));
        let mut signed: Vec<(String, String)> = headers
            .iter()
            .filter(|(name, _)| !request.unsigned.contains(name))
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        signed.sort();
        let names = signed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
        let lines: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let query = request.canonical_query(&[]);
        let path = url_encode(&request.path);
        let canonical = format!("{}\n{path}\n{query}\n{lines}\n{names}\n{hash}", request.method);
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let key = self.key(day);
        let signature = hex(&hmac(&key, text.as_bytes()));
        headers.push((
            "authorization".to_owned(),
            format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", self.id),
        ));
        if !has(&headers, "content-length") && !has(&headers, "transfer-encoding") {
            headers.push(("content-length".to_owned(), request.body.len().to_string()));
        }
        let target = if query.is_empty() { path } else { format!("{path}?{query}") };
        let mut head = format!("{} {target} HTTP/1.1\r\n", request.method);
        for (name, value) in &headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        (head, Seal { signature, date, scope, key })
    }

    /// The target of a presigned request: path and query.
    pub(super) fn presigned(&self, request: &Request, expires: &str) -> String {
        let date = amz_date(self.now);
        let scope = format!("{}/{}/s3/aws4_request", &date[..8], self.region);
        let more = [
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256".to_owned()),
            ("X-Amz-Credential", format!("{}/{scope}", self.id)),
            ("X-Amz-Date", date.clone()),
            ("X-Amz-Expires", expires.to_owned()),
            ("X-Amz-SignedHeaders", "host".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let query = request.canonical_query(&more);
        let path = url_encode(&request.path);
        let canonical = format!("{}\n{path}\n{query}\nhost:{}\n\nhost\nUNSIGNED-PAYLOAD", request.method, self.address);
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let signature = hex(&hmac(&self.key(&date[..8]), text.as_bytes()));
        format!("{path}?{query}&X-Amz-Signature={signature}")
    }

    pub(super) async fn send(&self, request: Request) -> Response {
        let (head, _) = self.head(&request);
        self.raw(head.as_bytes(), &request.body).await
    }

    /// Sends a body in chunks, signed or not, with the trailer behind.
    pub(super) async fn send_chunked(
        &self,
        request: Request,
        signed: bool,
        chunk: usize,
        trailer: Option<(&str, &str)>,
    ) -> Response {
        let content = request.body.clone();
        let hash = match (signed, trailer) {
            (true, None) => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            (true, Some(_)) => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            (false, _) => "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        };
        let mut request = request.hash(hash).header("transfer-encoding", "chunked");
        request = request.header("content-encoding", "aws-chunked");
        if !request.headers.iter().any(|(name, _)| name == "x-amz-decoded-content-length") {
            request = request.header("x-amz-decoded-content-length", content.len());
        }
        if let Some((name, _)) = trailer {
            request = request.header("x-amz-trailer", name);
        }
        let (head, mut seal) = self.head(&request);
        let mut framed = Vec::new();
        let empty = sha256(b"");
        for part in content.chunks(chunk.max(1)).chain([&[][..]]) {
            let signature = seal.next("AWS4-HMAC-SHA256-PAYLOAD", &[empty.clone(), sha256(part)]);
            let extension = if signed { format!(";chunk-signature={signature}") } else { String::new() };
            framed.extend_from_slice(format!("{:x}{extension}\r\n", part.len()).as_bytes());
            framed.extend_from_slice(part);
            if !part.is_empty() {
                framed.extend_from_slice(b"\r\n");
            }
        }
        if let Some((name, value)) = trailer {
            framed.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
            if signed {
                let line = format!("{name}:{value}\n");
                let signature = seal.next("AWS4-HMAC-SHA256-TRAILER", &[sha256(line.as_bytes())]);
                framed.extend_from_slice(format!("x-amz-trailer-signature:{signature}\r\n").as_bytes());
            }
        }
        framed.extend_from_slice(b"\r\n");
        // Over HTTP's own chunks, as a client does that streams.
        let mut body = Vec::new();
        for part in framed.chunks(10_000) {
            body.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            body.extend_from_slice(part);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        self.raw(head.as_bytes(), &body).await
    }

    /// Sends bytes and reads one answer.
    pub(super) async fn raw(&self, head: &[u8], body: &[u8]) -> Response {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let (head, body) = (head.to_vec(), body.to_vec());
        let sending = tokio::spawn(async move {
            // A server that has refused may not read on.
            let _ = writer.write_all(&head).await;
            let _ = writer.write_all(&body).await;
            writer
        });
        let is_head = false;
        let response = read_response(&mut reader, is_head).await;
        sending.abort();
        response
    }

    /// As [`Client::send`], for `HEAD`: the answer has no body, whatever its head says.
    pub(super) async fn send_head(&self, request: Request) -> Response {
        let (head, _) = self.head(&request);
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        read_response(&mut stream, true).await
    }

    /// Sends the first bytes of a request and cuts the connection.
    pub(super) async fn cut(&self, request: &Request, body_bytes: usize) {
        let (head, _) = self.head(request);
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&request.body[..body_bytes]).await.unwrap();
        stream.flush().await.unwrap();
        // What was sent arrives; then nothing more.
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(stream);
    }
}

async fn read_response<R: tokio::io::AsyncRead + Unpin>(reader: &mut R, is_head: bool) -> Response {
    let mut data = Vec::new();
    let reading = async {
        let mut buffer = vec![0; 65536];
        loop {
            if let Some(response) = parse(&data, is_head, false) {
                return response;
            }
            match reader.read(&mut buffer).await {
                Ok(read) if read > 0 => data.extend_from_slice(&buffer[..read]),
                _ => return parse(&data, is_head, true).expect("an answer"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading).await.expect("an answer in time")
}

fn parse(data: &[u8], is_head: bool, ended: bool) -> Option<Response> {
    let end = data.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&data[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    if status == 100 {
        return parse(&data[end + 4..], is_head, ended);
    }
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let rest = &data[end + 4..];
    let none = is_head || status == 204 || status == 304;
    if headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") && !none {
        let mut body = Vec::new();
        let mut rest = rest;
        while let Some(line) = rest.windows(2).position(|two| two == b"\r\n") {
            let len = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
            if len == 0 {
                return Some(Response { status, headers, body, broken: false });
            }
            let Some(chunk) = rest.get(line + 2..line + 2 + len) else { break };
            body.extend_from_slice(chunk);
            rest = rest.get(line + 4 + len..).unwrap_or_default();
        }
        return ended.then_some(Response { status, headers, body, broken: true });
    }
    let length =
        if none { 0 } else { headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0) };
    if rest.len() < length && !ended {
        return None;
    }
    let body = rest[..length.min(rest.len())].to_vec();
    Some(Response { status, broken: body.len() < length, headers, body })
}
