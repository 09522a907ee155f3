//! MD5 of a body, beside its way to the disks.
//!
//! A task of its own: MD5 takes longer than everything else that is computed of a byte here, and has to go through the
//! bytes in order; in line it would be the slowest part of a put.

use bytes::Bytes;
use md5::{Digest as _, Md5};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::GatewayError;

/// Pieces (stripes: 256 KiB of 4+2) that may wait for it: they are held anyway until their homes have them. More
/// would be memory beyond what uploads share ([`super::sending`]).
const PIECES_AHEAD: usize = 2;

/// An MD5 being computed. Dropped, it ends.
pub(super) struct Digest {
    pieces: mpsc::Sender<Bytes>,
    task: JoinHandle<[u8; 16]>,
}

impl Digest {
    pub(super) fn start() -> Self {
        let (pieces, mut arriving) = mpsc::channel::<Bytes>(PIECES_AHEAD);
        let task = tokio::spawn(async move {
            let mut md5 = Md5::new();
            while let Some(piece) = arriving.recv().await {
                md5.update(&piece);
            }
            md5.finalize().into()
        });
        Self { pieces, task }
    }

    /// The next piece. Waits when too many wait already.
    pub(super) async fn update(&self, piece: Bytes) {
        // The task ends only after its channel does, or with the process: `finish` tells.
        let _ = self.pieces.send(piece).await;
    }

    /// The digest of all pieces.
    pub(super) async fn finish(self) -> Result<[u8; 16], GatewayError> {
        drop(self.pieces);
        self.task.await.map_err(|_| GatewayError::GivenUp("this node is stopping: put the object again".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_count_as_one_content() {
        let empty = Digest::start().finish().await.unwrap();
        assert_eq!(u128::from_be_bytes(empty), 0xd41d_8cd9_8f00_b204_e980_0998_ecf8_427e);
        let digest = Digest::start();
        for piece in ["message", "", " ", "digest"] {
            digest.update(Bytes::from_static(piece.as_bytes())).await;
        }
        let whole: [u8; 16] = Md5::digest(b"message digest").into();
        assert_eq!(digest.finish().await.unwrap(), whole);
    }
}
