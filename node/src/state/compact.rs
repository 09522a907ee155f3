//! Room that the database's file has and does not need, given back.
//!
//! Must never: begin while anybody holds a moment of the state ([`super::views`], a snapshot that is being written): it waits for
//! nobody, and says that the database is in use. Waiting would hold up everybody who comes after it, behind the longest reader.

use std::sync::TryLockError;

use redb::CompactionError;

use super::{State, StateError};

impl State {
    /// Gives room back that the database's file has and does not need; whether there was any. Holds up reading and applying
    /// meanwhile, by some seconds for each gigabyte. What was applied is durable then.
    ///
    /// # Errors
    /// [`StateError::Busy`] when somebody reads or applies just then; when the database fails.
    pub(crate) async fn compact(&self) -> Result<bool, StateError> {
        self.flush().await?;
        let inner = self.inner.clone();
        self.inner
            .host
            .blocking(move || {
                let mut database = match inner.database.try_write() {
                    Ok(database) => database,
                    Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                    Err(TryLockError::WouldBlock) => {
                        return Err(StateError::Busy("somebody reads or applies just now".to_owned()));
                    }
                };
                let database = database.as_mut().ok_or(StateError::Closed)?;
                database.compact().map_err(|error| match error {
                    CompactionError::Storage(error) => error.into(),
                    busy => StateError::Busy(busy.to_string()),
                })
            })
            .await
    }
}
