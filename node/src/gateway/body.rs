//! The body of an upload, cut into blocks without copying where the client's chunks allow it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::time::timeout;

use super::GatewayError;

/// How long a client may pause within its upload. A client that died without a word must not hold memory and homes.
const CLIENT_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);

/// A body that is read ahead as far as it is asked to.
pub(super) struct Body<S> {
    stream: S,
    chunks: VecDeque<Bytes>,
    buffered: u64,
    ended: bool,
}

impl<S, E> Body<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    pub(super) fn new(stream: S) -> Self {
        Self { stream, chunks: VecDeque::new(), buffered: 0, ended: false }
    }

    /// Reads on until `want` bytes are here or the body ended; answers how many are here.
    pub(super) async fn fill(&mut self, want: u64) -> Result<u64, GatewayError> {
        while self.buffered < want && !self.ended {
            match timeout(CLIENT_DEADLINE, self.stream.next()).await {
                Err(_) => return Err(GatewayError::Body(format!("the client sent nothing for {CLIENT_DEADLINE:?}"))),
                Ok(None) => self.ended = true,
                Ok(Some(Err(error))) => return Err(GatewayError::Body(error.to_string())),
                Ok(Some(Ok(chunk))) if chunk.is_empty() => {}
                Ok(Some(Ok(chunk))) => {
                    self.buffered += chunk.len() as u64;
                    self.chunks.push_back(chunk);
                }
            }
        }
        Ok(self.buffered)
    }

    /// The next `len` buffered bytes as one piece; fewer when fewer are buffered.
    pub(super) fn take(&mut self, len: usize) -> Bytes {
        if let Some(front) = self.chunks.front_mut()
            && front.len() > len
        {
            self.buffered -= len as u64;
            return front.split_to(len);
        }
        let mut piece = self.chunks.pop_front().unwrap_or_default();
        if piece.len() < len && !self.chunks.is_empty() {
            let mut joined = BytesMut::with_capacity(len);
            joined.extend_from_slice(&piece);
            while joined.len() < len
                && let Some(mut chunk) = self.chunks.pop_front()
            {
                let part = chunk.split_to(chunk.len().min(len - joined.len()));
                joined.extend_from_slice(&part);
                if !chunk.is_empty() {
                    self.chunks.push_front(chunk);
                }
            }
            piece = joined.freeze();
        }
        self.buffered -= piece.len() as u64;
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_join_and_split_chunks_and_lose_nothing() {
        let content: Vec<u8> = (0..1000u32).map(|n| n as u8).collect();
        for (chunk, piece) in [(1, 7), (7, 1), (100, 100), (64, 100), (1000, 33), (33, 1000)] {
            let chunks: Vec<Result<Bytes, std::io::Error>> =
                content.chunks(chunk).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
            let mut body = Body::new(futures_util::stream::iter(chunks));
            let mut back = Vec::new();
            loop {
                body.fill(piece as u64).await.unwrap();
                let part = body.take(piece);
                if part.is_empty() {
                    break;
                }
                back.extend_from_slice(&part);
            }
            assert_eq!(back, content, "chunks of {chunk}, pieces of {piece}");
            assert_eq!(body.buffered, 0);
        }
    }

    #[tokio::test]
    async fn fill_reads_no_further_than_asked() {
        let chunks: Vec<Result<Bytes, std::io::Error>> =
            (0..10).map(|_| Ok(Bytes::from_static(b"ten bytes!"))).collect();
        let mut body = Body::new(futures_util::stream::iter(chunks));
        assert_eq!(body.fill(25).await.unwrap(), 30);
        assert_eq!(body.fill(1).await.unwrap(), 30);
        assert_eq!(body.fill(1000).await.unwrap(), 100);
    }
}
