//! Room that the database's file has and does not need, given back.
//!
//! Must never: begin while anybody holds a moment of the state ([`super::views`], a snapshot that is being written): it waits for
//! nobody, and says that the database is in use.

use std::sync::PoisonError;

use redb::CompactionError;

use super::{State, StateError};

impl State {
    /// Gives room back that the database's file has and does not need; whether there was any. Holds up reading and applying
    /// meanwhile, by some seconds for each gigabyte. What was applied is durable then.
    ///
    /// # Errors
    /// When somebody reads just then, or the database fails.
    pub(crate) async fn compact(&self) -> Result<bool, StateError> {
        self.flush().await?;
        let inner = self.inner.clone();
        self.inner
            .host
            .blocking(move || {
                let mut database = inner.database.write().unwrap_or_else(PoisonError::into_inner);
                let database = database.as_mut().ok_or(StateError::Closed)?;
                database.compact().map_err(|error| match error {
                    CompactionError::Storage(error) => error.into(),
                    busy => StateError::Busy(busy.to_string()),
                })
            })
            .await
    }
}
