//! Server-sent events: every journal record as it is written, and on request those since a sequence.
//!
//! Invariants: no record is told twice or out of order on one connection; a listener that is too slow, or comes back
//! with `Last-Event-ID`, is given from the journal what it missed. Memory per listener is one page.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event as SseEvent, KeepAlive};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Deserialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Api;
use crate::journal::{JournalReader, sequence_of};
use crate::telemetry::Event;

/// Records read from the journal at a time for one listener.
const PAGE: usize = 100;

#[derive(Deserialize)]
pub(super) struct EventsQuery {
    /// Begin after this sequence; absent: with the next record.
    after: Option<u64>,
}

/// `GET /api/v1/events`.
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<SseEvent, Infallible>>> {
    let came_back = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    // Subscribed before the journal is read: nothing falls between the two.
    let live = api.telemetry.subscribe();
    let after = came_back.or(query.after);
    let follower = Follower {
        live,
        journal: api.journal.clone(),
        sent: after,
        backlog: VecDeque::new(),
        reading: after.is_some(),
    };
    let stream = unfold(follower, |mut follower| async move {
        let (sequence, text) = follower.next().await?;
        let event = SseEvent::default().event("record").id(sequence.to_string()).data(text);
        Some((Ok(event), follower))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

struct Follower {
    live: broadcast::Receiver<Event>,
    journal: JournalReader,
    /// The last sequence that was sent, or asked to begin after.
    sent: Option<u64>,
    backlog: VecDeque<String>,
    /// The journal may hold more than was sent.
    reading: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<(u64, String)> {
        loop {
            while let Some(text) = self.backlog.pop_front() {
                if let Some(sequence) = sequence_of(&text) {
                    self.sent = Some(sequence);
                    return Some((sequence, text));
                }
            }
            if self.reading {
                self.read().await?;
                continue;
            }
            match self.live.recv().await {
                Ok(event) if self.sent.is_none_or(|sent| event.sequence > sent) => {
                    self.sent = Some(event.sequence);
                    return Some((event.sequence, event.text.to_string()));
                }
                Ok(_) => {}
                // Too slow: the journal has what was missed.
                Err(RecvError::Lagged(_)) => self.reading = self.sent.is_some(),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    async fn read(&mut self) -> Option<()> {
        match self.journal.page(self.sent.unwrap_or(0), PAGE).await {
            Ok(page) => {
                self.reading = page.len() == PAGE;
                self.backlog = page.into();
                Some(())
            }
            Err(error) => {
                tracing::warn!(%error, "a listener's records cannot be read");
                None
            }
        }
    }
}
