//! How much uploads may hold in memory on this node, together: what was read of a client and has not gone to a home's disk
//! or onto the wire.
//!
//! A slow home holds up its upload's blocks, and an upload begins its next extents while the last are being synced: without
//! a common bound, 64 uploads took more than a gigabyte. A slow client holds next to nothing, so it is bytes that are
//! counted, not uploads.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::GatewayError;

/// Coded bytes under way to their homes. A node of this product is to stay below 400 MiB under 64 uploads; a quarter
/// of a second of what two cores code keeps every disk busy. On the wire each block is held once more, as the message that
/// it is sent in.
const MAX_SENDING_BYTES: usize = 48 * 1024 * 1024;

/// The memory that uploads share. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Sending {
    free: Arc<Semaphore>,
}

impl Sending {
    pub(super) fn new() -> Self {
        Self { free: Arc::new(Semaphore::new(MAX_SENDING_BYTES)) }
    }

    /// Room for so many bytes, until what is answered (or all it was split into) is dropped. Waits its turn; homes that
    /// stall are given up, so that it comes.
    pub(super) async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, GatewayError> {
        let bytes = u32::try_from(bytes.min(MAX_SENDING_BYTES)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let stopping = |_| GatewayError::GivenUp("this node is stopping: put the object again".to_owned());
        self.free.clone().acquire_many_owned(bytes).await.map_err(stopping)
    }

    /// Whether room is getting scarce: then nothing may be held back to be sent together with what follows, because what
    /// follows may be waiting for that very room.
    pub(super) fn is_scarce(&self) -> bool {
        self.free.available_permits() < MAX_SENDING_BYTES / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_dropped_makes_room_for_who_waits() {
        let sending = Sending::new();
        let mut held = sending.room(MAX_SENDING_BYTES - 10).await.unwrap();
        assert!(sending.is_scarce());
        let waiting = tokio::spawn({
            let sending = sending.clone();
            async move { sending.room(20).await.unwrap().num_permits() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held.split(10));
        assert_eq!(waiting.await.unwrap(), 20);
        drop(held);
        assert!(!sending.is_scarce());
    }
}
