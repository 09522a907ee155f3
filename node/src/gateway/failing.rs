//! Uploads and reads of keys that fail on the server's side, told to the node's record of failures with their path.
//!
//! Must never: tell of what the client did, or name a place that the operation did not wait for.

use std::future::Future;

use super::{Gateway, GatewayError};
use crate::failures::{Failures, Place, places_of_metadata};
use crate::types::BucketName;

impl Gateway {
    pub(super) fn failures(&self) -> &Failures {
        self.inner.shards.peers().failures()
    }

    /// Does a part of an upload into this bucket; tells when it fails on the server's side.
    pub(super) async fn noting<T>(
        &self,
        bucket: &BucketName,
        part: impl Future<Output = Result<T, GatewayError>>,
    ) -> Result<T, GatewayError> {
        let done = part.await;
        if let Some(error) = done.as_ref().err().filter(|error| error.is_servers()) {
            let places = match error {
                GatewayError::TooFewHomes { failed, .. } => failed.iter().copied().map(Place::Disk).collect(),
                // No shard was asked for: it waited for metadata, or for nobody.
                GatewayError::Meta(_) | GatewayError::Unknown(_) => self.metadata_places(),
                _ => Vec::new(),
            };
            self.failures().upload_failure(bucket.as_str(), places);
        }
        done
    }

    pub(super) fn metadata_places(&self) -> Vec<Place> {
        places_of_metadata(&self.inner.meta, self.inner.shards.peers())
    }
}
