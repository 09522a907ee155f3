//! `object put` and `object get`: bytes between a local file (or a pipe) and the cluster.
//!
//! Owns: the local end. Must never: overwrite a file unasked, leave half a file under its final name, or let an upload
//! whose source failed be committed.
//!
//! Invariants: memory does not grow with the object; the checksum of the whole content is compared at both ends.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use resilver_host::{File, FileKind, Host, OpenMode};
use resilver_proto::store::{
    GetRequest, GetResponse, ObjectInfo, PutBegin, PutRequest, PutResponse, get_response, put_request,
};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::context::Context;
use super::object::ObjectPath;
use crate::client::{Node, Nodes, is_silence};
use crate::exit::{Code, Failure};
use crate::output::{Format, bytes, write_stdout};

/// What is read and sent at once: the protocol's limit of a message's data.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Chunks on their way to the node: enough to keep it busy while the next is read.
const CHUNKS_IN_FLIGHT: usize = 4;
/// How often a download that broke off is continued at another node.
const CONTINUATIONS: u32 = 5;

#[derive(Serialize)]
struct Stored {
    bucket: String,
    key: String,
    version: String,
    size_bytes: u64,
    crc32c: String,
    shards_missing: u32,
}

/// `object put`.
pub(crate) async fn put(cx: &Context, object: ObjectPath, from: &str, if_absent: bool) -> Result<Code, Failure> {
    let source = Source::open(&cx.host, from).await?;
    let node = cx.nodes().await?.serving("put the object").await?;
    let begin = PutBegin {
        bucket: object.bucket.clone(),
        key: object.key.clone(),
        if_absent,
        if_version: String::new(),
        size_bytes: source.size().await?,
    };
    let (answer, crc) = upload(&node, begin, source).await?;
    if answer.crc32c != crc {
        return Err(Failure::failed(format!(
            "{object} was stored with checksum {:08x}, but what was read from {from} has {crc:08x}",
            answer.crc32c
        ))
        .next("put it again; if it happens again, test this machine's memory"));
    }
    if answer.shards_missing > 0 {
        cx.out.say(format!("{} shards wait to be rebuilt: `resilver repair status`", answer.shards_missing));
    }
    let stored = Stored {
        bucket: object.bucket,
        key: object.key,
        version: answer.version,
        size_bytes: answer.size_bytes,
        crc32c: format!("{crc:08x}"),
        shards_missing: answer.shards_missing,
    };
    cx.out.show(&stored, |stored| {
        let Stored { bucket, key, version, size_bytes, .. } = stored;
        format!("{bucket}/{key}: {} stored as version {version}\n", bytes(*size_bytes))
    })?;
    Ok(Code::Ok)
}

/// Streams `source` to the node. The end of the stream is what commits, so a source that fails must not end it: the
/// call is dropped first, which the node sees as a broken upload.
async fn upload(node: &Node, begin: PutBegin, source: Source) -> Result<(PutResponse, u32), Failure> {
    let (open, messages) = mpsc::channel(CHUNKS_IN_FLIGHT);
    let mut open = Some(open);
    let mut store = node.store();
    let feeding = feed(source, begin, open.clone());
    let call = store.put(ReceiverStream::new(messages));
    tokio::pin!(feeding, call);
    let mut crc = None;
    loop {
        tokio::select! {
            answer = &mut call => {
                let answer = answer.map_err(|status| Failure::from_status("put the object", &node.name, &status))?;
                let Some(crc) = crc else {
                    return Err(Failure::failed(format!("{} ended the upload before it was whole", node.name)));
                };
                return Ok((answer.into_inner(), crc));
            }
            fed = &mut feeding, if crc.is_none() => match fed? {
                Fed::Whole(sum) => {
                    crc = Some(sum);
                    open = None;
                }
                // The node stopped listening: its answer says why.
                Fed::Unheard => {
                    let status = call.await.err().unwrap_or_else(|| tonic::Status::aborted("it stopped listening"));
                    drop(open);
                    return Err(Failure::from_status("put the object", &node.name, &status));
                }
            },
        }
    }
}

enum Fed {
    /// All was handed over; the checksum of the content.
    Whole(u32),
    /// Nobody takes it any more.
    Unheard,
}

async fn feed(mut source: Source, begin: PutBegin, to: Option<mpsc::Sender<PutRequest>>) -> Result<Fed, Failure> {
    let Some(to) = to else { return Ok(Fed::Unheard) };
    let message = |of| PutRequest { of: Some(of) };
    if to.send(message(put_request::Of::Begin(begin))).await.is_err() {
        return Ok(Fed::Unheard);
    }
    let mut crc = 0;
    loop {
        let chunk = source.next().await?;
        if chunk.is_empty() {
            return Ok(Fed::Whole(crc));
        }
        crc = crc32c::crc32c_append(crc, &chunk);
        if to.send(message(put_request::Of::Data(chunk))).await.is_err() {
            return Ok(Fed::Unheard);
        }
    }
}

/// Where an upload comes from.
enum Source {
    File { file: Arc<dyn File>, offset: u64, name: String },
    Stdin { host: Host },
}

impl Source {
    async fn open(host: &Host, from: &str) -> Result<Source, Failure> {
        if from == "-" {
            return Ok(Source::Stdin { host: host.clone() });
        }
        let failed = |error: io::Error| Failure::failed(format!("cannot read {from}: {error}"));
        let path = Path::new(from);
        if host.disk.metadata(path).await.map_err(failed)?.kind == FileKind::Dir {
            return Err(Failure::usage(format!("{from} is a folder")).next("put its files one by one"));
        }
        let file = host.disk.open(path, OpenMode::Read).await.map_err(failed)?;
        Ok(Source::File { file, offset: 0, name: from.to_owned() })
    }

    /// How much it will be, when that is known before: the node then refuses an upload that ended early.
    async fn size(&self) -> Result<Option<u64>, Failure> {
        match self {
            Source::Stdin { .. } => Ok(None),
            Source::File { file, name, .. } => {
                let len = file.len().await.map_err(|error| Failure::failed(format!("cannot read {name}: {error}")))?;
                // A pipe or a device has a name and no length.
                Ok((len > 0).then_some(len))
            }
        }
    }

    /// The next bytes; none at the end.
    async fn next(&mut self) -> Result<Bytes, Failure> {
        match self {
            Source::File { file, offset, name } => {
                let failed = |error: io::Error| Failure::failed(format!("cannot read {name}: {error}"));
                let chunk = file.read_at(*offset, CHUNK_BYTES).await.map_err(failed)?;
                *offset += chunk.len() as u64;
                Ok(chunk)
            }
            // Off the loop: a pipe may be silent for long, and the connection's keepalive must go on.
            Source::Stdin { host } => host
                .blocking(|| {
                    let mut chunk = Vec::new();
                    io::stdin().lock().take(CHUNK_BYTES as u64).read_to_end(&mut chunk).map(|_| Bytes::from(chunk))
                })
                .await
                .map_err(|error| Failure::failed(format!("cannot read standard input: {error}"))),
        }
    }
}

#[derive(Serialize)]
struct Fetched {
    bucket: String,
    key: String,
    version: String,
    size_bytes: u64,
    file: String,
}

/// `object get`.
pub(crate) async fn get(cx: &Context, object: ObjectPath, to: &str, force: bool) -> Result<Code, Failure> {
    if to == "-" {
        if cx.out.format() == Format::Json {
            return Err(Failure::usage("the content and a JSON document cannot both go to standard output")
                .next("name a file, or leave --json out"));
        }
        let mut sink = Sink::Stdout { host: cx.host.clone() };
        download(&cx.nodes().await?, &object, &mut sink).await?;
        return Ok(Code::Ok);
    }
    let path = PathBuf::from(to);
    refuse_existing(&cx.host, &path, force).await?;
    let part = part_of(&path, cx.host.proc.own().pid);
    let failed = |error: io::Error| Failure::failed(format!("cannot write {}: {error}", part.display()));
    let nodes = cx.nodes().await?;
    let file = cx.host.disk.open(&part, OpenMode::CreateNew).await.map_err(failed)?;
    let mut sink = Sink::File { file: file.clone(), offset: 0, path: part.clone() };
    let finished = async {
        let info = download(&nodes, &object, &mut sink).await?;
        file.sync().await.map_err(failed)?;
        // Somebody may have made the file meanwhile.
        refuse_existing(&cx.host, &path, force).await?;
        cx.host.disk.rename(&part, &path).await.map_err(failed)?;
        Ok(info)
    }
    .await;
    let info = match finished {
        Ok(info) => info,
        Err(failure) => {
            // What is left is half a file that nobody asked for.
            let _ = cx.host.disk.remove_file(&part).await;
            return Err(failure);
        }
    };
    let fetched = Fetched {
        bucket: object.bucket,
        key: object.key,
        version: info.version,
        size_bytes: info.size_bytes,
        file: to.to_owned(),
    };
    cx.out.show(&fetched, |fetched| {
        format!("{}/{}: {} written to {}\n", fetched.bucket, fetched.key, bytes(fetched.size_bytes), fetched.file)
    })?;
    Ok(Code::Ok)
}

async fn refuse_existing(host: &Host, path: &Path, force: bool) -> Result<(), Failure> {
    match host.disk.metadata(path).await {
        Ok(found) if found.kind == FileKind::Dir => {
            Err(Failure::usage(format!("{} is a folder", path.display())).next("name a file in it"))
        }
        Ok(_) if !force => Err(Failure::failed(format!("{} exists already; nothing was written", path.display()))
            .next("name another file, or replace it with --force")),
        _ => Ok(()),
    }
}

/// A name beside the final one, on the same file system, that no other download uses.
fn part_of(path: &Path, pid: u32) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.{pid}.part"))
}

/// Where a download goes.
enum Sink {
    File { file: Arc<dyn File>, offset: u64, path: PathBuf },
    Stdout { host: Host },
}

impl Sink {
    async fn write(&mut self, data: Bytes) -> Result<(), Failure> {
        match self {
            Sink::File { file, offset, path } => {
                let len = data.len() as u64;
                file.write_at(*offset, data)
                    .await
                    .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
                *offset += len;
                Ok(())
            }
            // Off the loop: the reader of the pipe may take its time.
            Sink::Stdout { host } => host.blocking(move || write_stdout(&data)).await,
        }
    }
}

/// Fetches all of an object. A node that dies on the way is replaced by another, which goes on where it stopped: a
/// version never changes.
async fn download(nodes: &Nodes, object: &ObjectPath, sink: &mut Sink) -> Result<ObjectInfo, Failure> {
    let mut info: Option<ObjectInfo> = None;
    let (mut got, mut crc) = (0_u64, 0_u32);
    let mut continued = 0;
    loop {
        let mut stream = begin(nodes, object, got).await?;
        let broken = loop {
            match stream.message().await {
                Ok(Some(GetResponse { of: Some(get_response::Of::Head(head)) })) => match &info {
                    Some(first) if first.version != head.version => {
                        return Err(
                            Failure::failed(format!("{object} was replaced while it was read")).next("get it again")
                        );
                    }
                    _ => info = Some(head),
                },
                Ok(Some(GetResponse { of: Some(get_response::Of::Data(data)) })) => {
                    crc = crc32c::crc32c_append(crc, &data);
                    got += data.len() as u64;
                    sink.write(data).await?;
                }
                Ok(Some(GetResponse { of: None })) => {}
                Ok(None) => break None,
                Err(status) => break Some(status),
            }
        };
        match (broken, &info) {
            (None, Some(info)) => return check(object, info, got, crc).map(|()| info.clone()),
            (None, None) => return Err(Failure::failed(format!("{object}: the node sent nothing"))),
            (Some(status), _) if is_silence(&status) && continued < CONTINUATIONS => {
                continued += 1;
                tracing::warn!(%object, %status, got, "the download broke off, going on at another node");
            }
            (Some(status), _) => return Err(Failure::from_status("get the object", "the node", &status)),
        }
    }
}

async fn begin(nodes: &Nodes, object: &ObjectPath, offset: u64) -> Result<Streaming<GetResponse>, Failure> {
    nodes
        .ask("get the object", async |node: Node| {
            let (bucket, key) = (object.bucket.clone(), object.key.clone());
            node.store().get(GetRequest { bucket, key, offset, length: 0 }).await
        })
        .await
}

/// The last look before the content counts as fetched.
fn check(object: &ObjectPath, info: &ObjectInfo, got: u64, crc: u32) -> Result<(), Failure> {
    if got != info.size_bytes {
        return Err(
            Failure::failed(format!("{object}: {got} bytes arrived of {}", info.size_bytes)).next("get it again")
        );
    }
    if crc != info.crc32c {
        return Err(Failure::failed(format!(
            "{object}: what arrived has checksum {crc:08x}, what was stored has {:08x}",
            info.crc32c
        ))
        .next(format!("look at its shards: `resilver object verify {object}`")));
    }
    Ok(())
}
