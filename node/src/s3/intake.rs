//! The body of a request on its way from hyper to s3s.
//!
//! Owns: patience with the sender; the framing of `aws-chunked` ([`super::frames`]); what went wrong, in [`Notes`],
//! because s3s tells no more than that something did; reading on what nobody wanted, so that the answer arrives.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use s3s::StdError;
use s3s::crypto::{Checksum, Md5, Sha256};

use super::checksums::Hasher;
use super::connection::Busy;
use super::frames::{BadFrame, Framer};
use super::patience::{PAUSE, Patience};
use crate::model::ChecksumAlgorithm;

/// What is read on of a body that was refused, so that the client gets to reading its answer instead of dying of a
/// connection reset. More than this, and the connection is closed: the client has to be stopped somehow.
const DRAIN_BYTES: u64 = 16 * 1024 * 1024;

/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// What went wrong with a body before s3s saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection broke, or ended before the announced length.
    Broken,
    /// Nothing came for too long.
    TooSlow,
    /// Its framing is wrong.
    Frame(BadFrame),
}

/// Digests of a small body, for requests that s3s reads as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digests {
    pub(super) md5: [u8; 16],
    pub(super) sha256: [u8; 32],
    /// By the algorithm that the headers announce.
    pub(super) checksum: Option<Vec<u8>>,
}

/// What is known of a body beside its bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    fault: Option<Fault>,
    digests: Option<Digests>,
    asked_for: bool,
    taken: u64,
}

impl Notes {
    /// Whether anybody asked for the body: only then was a client that waits for leave given it.
    pub(super) fn asked_for(&self) -> bool {
        self.lock().asked_for
    }

    /// What went wrong, if anything.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.lock().fault
    }

    /// How many bytes of it came in.
    pub(super) fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// The digests, when they were asked for and the body has ended.
    pub(super) fn digests(&self) -> Option<Digests> {
        self.lock().digests.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a body is to be taken in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Handling {
    /// It is `aws-chunked`: with signed chunks, or not.
    pub(super) chunks_signed: Option<bool>,
    /// It is small, and its digests will be asked for.
    pub(super) digest: bool,
    /// The checksum that is announced for it.
    pub(super) checksum: Option<ChecksumAlgorithm>,
    /// The client waits for `100 Continue`, which hyper sends when the body is first asked for.
    pub(super) waits_for_continue: bool,
}

/// The body.
pub(super) struct Intake {
    /// Gone once it is being drained.
    inner: Option<Incoming>,
    framer: Option<Framer>,
    ready: VecDeque<Bytes>,
    digest: Option<(Md5, Sha256, Option<Hasher>)>,
    patience: Patience,
    notes: Notes,
    busy: Busy,
    /// The client waits for leave to send.
    untouched: bool,
    ended: bool,
}

impl Intake {
    pub(super) fn new(inner: Incoming, handling: Handling, notes: Notes, busy: Busy) -> Self {
        Self {
            // A framed body of no bytes lacks its end.
            ended: inner.is_end_stream() && handling.chunks_signed.is_none(),
            inner: Some(inner),
            framer: handling.chunks_signed.map(Framer::new),
            ready: VecDeque::new(),
            digest: handling.digest.then(|| (Md5::new(), Sha256::new(), handling.checksum.map(Hasher::new))),
            patience: Patience::new(),
            notes,
            busy,
            untouched: handling.waits_for_continue,
        }
    }

    fn fail(&mut self, fault: Fault, source: StdError) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        self.ended = true;
        self.notes.lock().fault.get_or_insert(fault);
        Poll::Ready(Some(Err(source)))
    }

    fn note_digests(&mut self) {
        if let Some((md5, sha256, hasher)) = self.digest.take() {
            let checksum = hasher.map(Hasher::finish);
            self.notes.lock().digests = Some(Digests { md5: md5.finalize(), sha256: sha256.finalize(), checksum });
        }
    }
}

impl Body for Intake {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let this = &mut *self;
        loop {
            if let Some(piece) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let Some(inner) = this.inner.as_mut().filter(|_| !this.ended) else { return Poll::Ready(None) };
            if std::mem::take(&mut this.untouched) {
                this.notes.lock().asked_for = true;
            }
            match Pin::new(inner).poll_frame(cx) {
                Poll::Pending if this.patience.poll_out(cx).is_ready() => {
                    let slow = format!("the client sent nothing for {} s, or all too little", PAUSE.as_secs());
                    return this.fail(Fault::TooSlow, slow.into());
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) if this.framer.as_ref().is_some_and(|framer| !framer.ended()) => {
                    return this.fail(Fault::Frame(BadFrame::NoEnd), BadFrame::NoEnd.into());
                }
                Poll::Ready(None) => {
                    this.ended = true;
                    this.note_digests();
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(error))) => return this.fail(Fault::Broken, error.into()),
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers of HTTP itself are none of S3's.
                    let Ok(data) = frame.into_data() else { continue };
                    this.patience.moved(data.len());
                    this.notes.lock().taken += data.len() as u64;
                    if let Some((md5, sha256, hasher)) = &mut this.digest {
                        md5.update(&data);
                        sha256.update(&data);
                        if let Some(hasher) = hasher {
                            hasher.update(&data);
                        }
                    }
                    match &mut this.framer {
                        None => this.ready.push_back(data),
                        Some(framer) => {
                            if let Err(bad) = framer.feed(data, &mut this.ready) {
                                this.ready.clear();
                                return this.fail(Fault::Frame(bad), bad.into());
                            }
                        }
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.ready.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.inner, &self.framer) {
            (Some(inner), None) => inner.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl Drop for Intake {
    /// A client in the middle of sending does not read: if the connection were closed on it, its answer would be lost.
    fn drop(&mut self) {
        // Whoever compares the hash asks for no more once it has the announced length.
        self.note_digests();
        // One that waits for leave to send has not begun: hyper closes the connection behind the answer.
        if self.ended || self.untouched {
            return;
        }
        if let (Some(inner), Ok(runtime)) = (self.inner.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(drain(inner, self.busy.clone()));
        }
    }
}

async fn drain(mut inner: Incoming, _busy: Busy) {
    let all = async {
        let mut left = DRAIN_BYTES;
        while let Some(Ok(frame)) = http_body_util::BodyExt::frame(&mut inner).await {
            left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
            if left == 0 {
                break;
            }
        }
    };
    // What is not read by then is cut off with the connection.
    let _ = tokio::time::timeout(DRAIN_TIME, all).await;
}
