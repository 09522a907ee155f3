//! The S3 door's task, watched by the node: one that ends by itself ends the process, which its agent sees.
//!
//! Must never: go on without it. A node that takes no clients and answers its agent looks healthy.

use std::any::Any;
use std::io;

use resilver_host::Listener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::NodeError;
use crate::s3::Door;

/// The door, at work.
pub(super) struct Opened {
    address: String,
    task: JoinHandle<io::Result<()>>,
}

impl Opened {
    pub(super) fn run(door: Door, listener: Box<dyn Listener>, stopping: watch::Receiver<bool>) -> Self {
        Self { address: door.configured().to_owned(), task: tokio::spawn(door.run(listener, stopping)) }
    }

    /// Resolves when it has ended; to be awaited once it was told to.
    pub(super) async fn finished(self) {
        // However it ended: the process ends too.
        let _ = self.task.await;
    }
}

/// Resolves when the door has ended without having been told to, and takes it away; never where there is none.
pub(super) async fn ended(door: &mut Option<Opened>) -> NodeError {
    let Some(opened) = door else { return std::future::pending().await };
    let ended = (&mut opened.task).await;
    let address = std::mem::take(&mut opened.address);
    *door = None;
    let why = match ended {
        Ok(Ok(())) => "nobody told it to".to_owned(),
        Ok(Err(error)) => format!("nobody can connect to it any more: {error}"),
        // Without the task's number: what a node dies of again and again is known by its words.
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => format!("it panicked: {}", said(panic.as_ref())),
            Err(cancelled) => cancelled.to_string(),
        },
    };
    NodeError::Door { address, why }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}

#[cfg(test)]
mod tests;
