//! The control socket: one order a line, one line of answer to each.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::gate::Gate;
use super::rules::Order;

/// How long an order may take to be answered. Clearing does first what was held: with real syncs, some seconds.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Why an order is not in force.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nobody is there, or goes away.
    #[error("the fault file system does not answer at {path}")]
    Io {
        /// The control socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It does not say that the order is in force.
    #[error("the fault file system at {path} answered {order:?} with {answer:?}")]
    Refused {
        /// The control socket.
        path: PathBuf,
        /// What was ordered.
        order: String,
        /// What it said.
        answer: String,
    },
}

/// Orders a fault file system something: in force when this returns. What is answered.
///
/// # Errors
/// When it is not there or does not answer in time.
pub async fn tell(control: &Path, order: Order) -> Result<String, ControlError> {
    let asking = async {
        let mut stream = UnixStream::connect(control).await?;
        stream.write_all(format!("{order}\n").as_bytes()).await?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await?;
        Ok(answer)
    };
    let answered = tokio::time::timeout(ANSWER_TIME, asking).await.unwrap_or_else(|late| Err(late.into()));
    let answer = answered.map_err(|source| ControlError::Io { path: control.to_owned(), source })?;
    if answer.starts_with("ok ") {
        Ok(answer.trim_end().to_owned())
    } else {
        Err(ControlError::Refused { path: control.to_owned(), order: order.to_string(), answer })
    }
}

/// Takes orders, from as many as come, for ever.
pub(super) async fn serve(listener: UnixListener, gate: Arc<Gate>) -> io::Error {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let gate = Arc::clone(&gate);
                // Who goes away in the middle of a line has no interest in an answer.
                tokio::spawn(async move { take(stream, gate).await });
            }
            Err(error) => return error,
        }
    }
}

async fn take(stream: UnixStream, gate: Arc<Gate>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match line.parse::<Order>() {
            // Off the event loop: clearing does what was held, and that may take its time.
            Ok(order) => {
                let gate = Arc::clone(&gate);
                tokio::task::spawn_blocking(move || gate.order(order)).await.map_err(io::Error::other)?
            }
            Err(error) => format!("error {error}"),
        };
        write.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}
