//! The door's limits, each with its reason, and the counting of requests.
//!
//! Must never: make a request wait for a place. One that does not fit is told so at once (503 `SlowDown`): clients retry
//! with a pause, and elsewhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Entries of a page, of parts of a page, and keys of one multi-delete: S3's figure.
pub(super) const MAX_PAGE: usize = 1000;

/// The longest XML body: a multi-delete of 1000 keys of 1024 bytes, every byte written as an entity of six.
pub(super) const MAX_XML_BYTES: usize = 8 * 1024 * 1024;

/// Headers of a request, names and values: room for S3's 2 KiB of user metadata and everything else a client sends.
pub(super) const MAX_HEADER_BYTES: usize = 16 * 1024;

/// What a refused client is asked to wait before it tries again, in seconds.
pub(super) const RETRY_AFTER_SECONDS: &str = "1";

/// Counts requests at work, on the node and per access key.
pub(super) struct Limits {
    requests: Arc<Semaphore>,
    per_key: usize,
    by_key: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Limits {
    pub(super) fn new(requests: usize, per_key: usize) -> Self {
        Self { requests: Arc::new(Semaphore::new(requests)), per_key, by_key: Arc::default() }
    }

    /// A place for a request, until dropped.
    pub(super) fn request(&self) -> Option<OwnedSemaphorePermit> {
        self.requests.clone().try_acquire_owned().ok()
    }

    /// A place for a request signed with this key, until dropped. To be asked only once the signature is known to be
    /// right: or anybody could use up another's places.
    pub(super) fn key(&self, id: &str) -> Option<KeyPlace> {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = by_key.entry(id.to_owned()).or_default();
        if *taken >= self.per_key {
            return None;
        }
        *taken += 1;
        Some(KeyPlace { id: id.to_owned(), by_key: self.by_key.clone() })
    }
}

/// One of a key's places.
#[derive(Debug)]
pub(super) struct KeyPlace {
    id: String,
    by_key: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Drop for KeyPlace {
    fn drop(&mut self) {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = by_key.get_mut(&self.id) {
            *taken -= 1;
            if *taken == 0 {
                by_key.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_leaves_room_for_others_and_gives_its_places_back() {
        let limits = Limits::new(10, 2);
        let first = limits.key("a").unwrap();
        let _second = limits.key("a").unwrap();
        assert!(limits.key("a").is_none());
        assert!(limits.key("b").is_some());
        drop(first);
        assert!(limits.key("a").is_some());
        assert_eq!(limits.by_key.lock().unwrap().len(), 1, "keys without requests are forgotten");
    }

    #[test]
    fn the_node_takes_so_many_and_no_more() {
        let limits = Limits::new(1, 10);
        let only = limits.request().unwrap();
        assert!(limits.request().is_none());
        drop(only);
        assert!(limits.request().is_some());
    }
}
