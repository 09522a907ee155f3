//! What this member has stored, read back while it is in use: the log and both copies of its header and of the vote, and the
//! database's pages. All of it is read and checked at a start; between two starts only what happens to be asked for would be.
//!
//! What is found is not acted on here. The member ends, as it does when openraft comes upon the same bytes, and the next open
//! judges: one place tells a torn tail, a lost voter and a sound folder apart, by a second reading past all memory, and does it before
//! Raft votes again; from there on everything is the lost voter's way (`service/rejoin.rs`). A bit that flipped on the way from
//! the disk costs a restart and no more. Nothing is ever cut off, or written over.
//!
//! Must never: end a member that the others cannot do without, nor two at once. What rotted was agreed upon, and is in memory or on the
//! others: to go on with it harms nobody, while a majority that is gone harms everybody. So it asks the other voters first ([`super::spare`]),
//! for as long as they are too few, hands leadership over, and says meanwhile what it found. (A page that the database itself came upon ends it at once: it
//! cannot go on.) Read past the last synced position: see [`crate::log`].

use std::time::Duration;

use resilver_proto::internal::Stored;
use tokio::sync::watch;

use super::{Meta, MetaError};
use crate::log::Damage as LogDamage;
use crate::phase::Damage;
use crate::state::StateError;

/// How long after a pass that found something the next one begins while the others cannot do without this member: one that comes back
/// is seen a minute and a pass later, and so is that a finding went away (its part of the log was purged).
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// What a pass came to.
enum Pass {
    Sound,
    /// What is wrong, and where.
    Damaged(String),
    /// Part of it could not be read, which says nothing of what is there.
    Unread,
    /// The member ends.
    Cut,
}

/// Reads everything back, again and again, until `stop` or until something is found and the member may end: then `failed` says
/// why.
pub(super) async fn run(meta: Meta, failed: watch::Sender<Option<String>>, stop: watch::Receiver<bool>) {
    let period = meta.inner.tuning.scrub_period;
    let mut scrub = Scrub { meta, stop, read_bytes: 0 };
    let mut wait = period;
    loop {
        let pass = match scrub.rest(wait).await {
            true => scrub.pass().await,
            false => return,
        };
        if let Some(found) = scrub.found_by_the_engine() {
            tracing::error!(%found, operation = "metadata scrub", "the database came upon rot: this member ends");
            scrub.meta.inner.elections.stored.set(Stored::Ends);
            failed.send_replace(Some(found));
            return;
        }
        wait = period;
        match pass {
            Pass::Cut => return,
            Pass::Sound => {
                tracing::debug!(bytes = scrub.read_bytes, operation = "metadata scrub", "all of it is sound");
                scrub.meta.inner.elections.stored.set(Stored::Sound);
                scrub.meta.inner.rot.send_replace(None);
            }
            Pass::Unread if scrub.meta.inner.rot.borrow().is_some() => wait = ASK_AGAIN.min(period),
            Pass::Unread => {}
            Pass::Damaged(found) if scrub.may_end().await => {
                tracing::error!(%found, operation = "metadata scrub", "what is stored rots: this member ends");
                failed.send_replace(Some(format!("what is stored rots: {found}")));
                return;
            }
            Pass::Damaged(found) => {
                wait = ASK_AGAIN.min(period);
                if scrub.meta.inner.rot.borrow().as_ref() != Some(&found) {
                    tracing::error!(
                        %found, operation = "metadata scrub",
                        "what is stored rots; this member goes on, because the other voters that answer are no majority without it"
                    );
                }
                scrub.meta.inner.rot.send_replace(Some(found));
            }
        }
    }
}

struct Scrub {
    meta: Meta,
    stop: watch::Receiver<bool>,
    read_bytes: u64,
}

impl Scrub {
    /// Waits; whether to go on: the member ends otherwise. Ends early when the database comes upon rot by itself. Nothing is
    /// read or written meanwhile, so that nothing is cut off half way.
    async fn rest(&mut self, time: Duration) -> bool {
        let mut found = self.meta.inner.state.damage_changes();
        let by_the_engine = async {
            // An error means that the database is gone: nothing is found any more.
            if found.wait_for(Option::is_some).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = self.stop.wait_for(|stop| *stop) => false,
            () = by_the_engine => true,
            () = tokio::time::sleep(time) => true,
        }
    }

    fn found_by_the_engine(&self) -> Option<String> {
        self.meta.inner.state.damage_changes().borrow().clone()
    }

    /// Whether the others are enough without this member, which then does not lead any more.
    async fn may_end(&self) -> bool {
        if !self.meta.inner.elections.may_end().await {
            return false;
        }
        if let Err(error) = self.meta.inner.hand_over(None).await {
            // An election without its help takes a second longer.
            tracing::warn!(%error, operation = "metadata scrub", "leadership could not be handed over");
        }
        true
    }

    async fn pass(&mut self) -> Pass {
        self.read_bytes = 0;
        if self.found_by_the_engine().is_some() {
            return Pass::Cut;
        }
        let mut unread = false;
        for part in [Part::Slots, Part::Log, Part::Database] {
            match self.part(part).await {
                Ok(true) => {}
                Ok(false) => return Pass::Cut,
                Err(MetaError::LostVoter { what, where_, .. }) => return Pass::Damaged(format!("{what} ({where_})")),
                // Of the disk, or of a member that ends anyway. Reading goes on with the next pass.
                Err(error) => {
                    unread = true;
                    tracing::warn!(%error, operation = "metadata scrub", "could not be read back");
                }
            }
        }
        if unread { Pass::Unread } else { Pass::Sound }
    }

    /// Reads one part; whether to go on.
    async fn part(&mut self, part: Part) -> Result<bool, MetaError> {
        let inner = self.meta.inner.clone();
        match part {
            Part::Slots => {
                let mended = inner.elections.log.reread_slots(&*inner.room.host.disk).await?;
                mended.iter().for_each(tell_mended);
                Ok(true)
            }
            Part::Log => {
                let mut from = 0;
                while let Some(read) = inner.elections.log.reread(from).await? {
                    from = read.segment + 1;
                    if !self.spent(read.bytes).await {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Part::Database => {
                let mut from = 0;
                while let Some(bytes) = inner.state.reread(from).await.map_err(lost_database)? {
                    from += bytes;
                    if !self.spent(bytes).await {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }

    /// Rests until so many bytes more are within the rate; whether to go on.
    async fn spent(&mut self, bytes: u64) -> bool {
        self.read_bytes += bytes;
        let rate = self.meta.inner.tuning.scrub_bytes_per_second.max(1);
        self.rest(Duration::from_secs_f64(bytes as f64 / rate as f64)).await && self.found_by_the_engine().is_none()
    }
}

#[derive(Clone, Copy)]
enum Part {
    Slots,
    Log,
    Database,
}

fn tell_mended(damage: &LogDamage) {
    tracing::warn!(%damage, operation = "metadata scrub", "one copy of two rotted, and was written anew from the other");
}

fn lost_database(error: StateError) -> MetaError {
    match &error {
        StateError::Missing { path } => MetaError::lost(Damage::Database, error.to_string(), path.display()),
        StateError::Corrupt { .. } => MetaError::lost(Damage::Database, error.to_string(), "state.redb"),
        _ => error.into(),
    }
}
