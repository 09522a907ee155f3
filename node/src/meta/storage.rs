//! Opening what a member keeps: log, vote, database, snapshots.
//!
//! Owns: the judgement whether a folder is fresh, whole, or a lost voter, and the way of a lost member's files aside. Must
//! never: make an empty file where a member had a full one; delete any. Invariant: the identity names a membership only
//! after everything was made here; so a missing part beside such an identity was lost, not never there.

use std::path::{Path, PathBuf};

use openraft::Vote;
use resilver_host::Host;
use resilver_host::disk::create_dir_durably;

use super::identity::{self, Identity, Membership};
use super::log_store::{InOrder, decode_note};
use super::machine::note_of;
use super::raft::Node;
use super::wire::WireError;
use super::{MetaError, wire};
use crate::log::{LogOptions, LogStore, VoteFile};
use crate::phase::Damage;
use crate::state::{Owner, State, StateError};
use crate::steps::{Step, Steps};

/// Everything a member keeps, open.
pub(super) struct Storage {
    pub(super) log: LogStore,
    pub(super) vote_file: VoteFile,
    pub(super) vote: Option<Vote<Node>>,
    pub(super) state: State,
}

/// Where everything lies within the metadata folder.
pub(super) struct Layout {
    /// Log and vote.
    log: PathBuf,
    pub(super) database: PathBuf,
    pub(super) snapshots: PathBuf,
}

impl Layout {
    pub(super) fn of(dir: &Path) -> Self {
        Self { log: dir.join("log"), database: dir.join("state.redb"), snapshots: dir.join("snapshots") }
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }
}

/// Where what is left of lost members is kept, within the metadata folder, until a person removes it.
pub(crate) const ASIDE: &str = "aside";

/// Moves everything that a member kept into `aside`, a folder of its own on the same file system. Nothing is copied, so
/// it needs no room. Cut off and repeated it moves the rest: the identity goes last, so that until then the folder still
/// says whose it was.
pub(crate) async fn move_aside(host: &Host, dir: &Path, aside: &Path) -> Result<(), MetaError> {
    let layout = Layout::of(dir);
    create_dir_durably(&*host.disk, aside).await.map_err(MetaError::io("creating", aside))?;
    for path in [layout.log, layout.database, layout.snapshots, dir.join(identity::FILE)] {
        let Some(name) = path.file_name() else { continue };
        match host.disk.rename(&path, &aside.join(name)).await {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(MetaError::io("moving aside", &path)(error)),
        }
        // The new name first: after a crash a file may have both, never neither.
        host.disk.sync_dir(aside).await.map_err(MetaError::io("syncing", aside))?;
        host.disk.sync_dir(dir).await.map_err(MetaError::io("syncing", dir))?;
    }
    Ok(())
}

/// Puts a member's files in their place from another folder, where nothing is in it. The identity comes last, and only when the
/// others are there for good: from it on, a missing one is a lost voter. Cut off and repeated it moves the rest.
pub(super) async fn move_in(host: &Host, dir: &Path, from: &Path) -> Result<(), MetaError> {
    let layout = Layout::of(dir);
    for paths in [vec![layout.log, layout.database, layout.snapshots], vec![dir.join(identity::FILE)]] {
        for path in paths {
            let Some(name) = path.file_name() else { continue };
            match host.disk.rename(&from.join(name), &path).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(MetaError::io("moving into place", &path)(error));
                }
                _ => {}
            }
        }
        host.disk.sync_dir(dir).await.map_err(MetaError::io("syncing", dir))?;
        host.disk.sync_dir(from).await.map_err(MetaError::io("syncing", from))?;
    }
    Ok(())
}

/// Makes the empty folder of a member that was just admitted, for the next start.
pub(crate) async fn make(host: &Host, dir: &Path, identity: &Identity) -> Result<(), MetaError> {
    let (storage, _) = open(host, dir, identity).await?;
    storage.state.close().await;
    Ok(())
}

/// Opens what `identity` names a member of, or makes it when this folder never was a member. The identity is stored
/// last.
pub(super) async fn open(host: &Host, dir: &Path, identity: &Identity) -> Result<(Storage, Membership), MetaError> {
    open_telling(host, dir, identity, &Steps::default()).await
}

/// The same, telling how far it is.
pub(super) async fn open_telling(
    host: &Host,
    dir: &Path,
    identity: &Identity,
    steps: &Steps,
) -> Result<(Storage, Membership), MetaError> {
    let Some(member) = identity.member.clone() else { return Err(MetaError::NotMember) };
    let stored = Identity::load(host, dir).await?;
    let known = stored.as_ref().and_then(|stored| stored.member.clone());
    check_same(dir, stored.as_ref(), identity, known.as_ref(), &member)?;
    let layout = Layout::of(dir);
    let owner = Owner { cluster: member.cluster, raft_id: member.raft_id };
    let storage = if known.is_some() {
        reopen(host, &layout, owner, steps).await?
    } else {
        let storage = create(host, dir, &layout, owner).await?;
        identity.store(host, dir).await?;
        storage
    };
    Ok((storage, member))
}

fn check_same(
    dir: &Path,
    stored: Option<&Identity>,
    wanted: &Identity,
    known: Option<&Membership>,
    member: &Membership,
) -> Result<(), MetaError> {
    let foreign = |found: String, expected: String| MetaError::Foreign { path: dir.to_path_buf(), found, expected };
    if let Some(stored) = stored.filter(|stored| stored.instance != wanted.instance) {
        return Err(foreign(format!("data folder {}", stored.instance), format!("data folder {}", wanted.instance)));
    }
    let name = |m: &Membership| Owner { cluster: m.cluster, raft_id: m.raft_id }.to_string();
    match known {
        Some(known) if known.cluster != member.cluster || known.raft_id != member.raft_id => {
            Err(foreign(name(known), name(member)))
        }
        _ => Ok(()),
    }
}

/// A first start. What an earlier first start left behind, cut off before its end, is empty and taken up again.
async fn create(host: &Host, dir: &Path, layout: &Layout, owner: Owner) -> Result<Storage, MetaError> {
    create_dir_durably(&*host.disk, dir).await.map_err(MetaError::io("creating", dir))?;
    let (log, _) = LogStore::open(host, &layout.log, LogOptions { create: true, ..LogOptions::default() }).await?;
    let (vote_file, vote) = open_vote(host, layout).await?;
    if log.next() != 0 || vote.is_some_and(|vote| vote != Vote::default()) {
        return Err(MetaError::lost(
            Damage::Absent,
            "a member's log or vote without the identity it belongs to",
            dir.display(),
        ));
    }
    let state = match State::create(host, &layout.database, owner).await {
        // Cut off while it was being made, or made for an admission that came to nothing: there is nothing in it.
        Err(error) if error.is_damage() => {
            let removed = host.disk.remove_file(&layout.database).await;
            removed.map_err(MetaError::io("removing", &layout.database))?;
            State::create(host, &layout.database, owner).await?
        }
        state => state?,
    };
    host.disk.sync_dir(dir).await.map_err(MetaError::io("syncing", dir))?;
    Ok(Storage { log, vote_file, vote, state })
}

/// A later start: everything must be there and fit together.
async fn reopen(host: &Host, layout: &Layout, owner: Owner, steps: &Steps) -> Result<Storage, MetaError> {
    // One after the other: opening a database may write to it, and beside a log that is lost nothing may be changed.
    let reading = steps.begin(Step::Log);
    let options = LogOptions { create: false, ..LogOptions::default() };
    let (log, _) = {
        let (counter, mut order) = (reading.counter(), InOrder::default());
        let mut judge = |index: u64, payload: &[u8]| order.judge(index, payload);
        LogStore::open_judged(host, &layout.log, options, &counter, &mut judge).await?
    };
    drop(reading);
    let (vote_file, vote) = open_vote(host, layout).await?;
    let verifying = steps.begin(Step::Database);
    let state = State::open_counted(host, &layout.database, owner, verifying.counter()).await;
    let state = state.map_err(|error| lost_state(error, layout))?;
    drop(verifying);
    if let Err(error) = check_fit(&log, &state, layout) {
        state.close().await;
        return Err(error);
    }
    Ok(Storage { log, vote_file, vote, state })
}

async fn open_vote(host: &Host, layout: &Layout) -> Result<(VoteFile, Option<Vote<Node>>), MetaError> {
    let (file, bytes) = VoteFile::open(host, &layout.log).await?;
    let vote = bytes.as_deref().map(wire::decode).transpose();
    let vote = vote.map_err(|error| unread("the vote", Damage::Vote, &error, layout))?;
    Ok((file, vote))
}

/// What lies in the log and cannot be decoded: of another format, or damaged.
fn unread(what: &str, damage: Damage, error: &WireError, layout: &Layout) -> MetaError {
    let known = u32::from(wire::WIRE_FORMAT);
    let whole = || format!("the log {}", layout.log.display());
    match *error {
        WireError::Format { found } if u32::from(found) < known => {
            MetaError::TooOld { what: whole(), found: found.into(), known }
        }
        WireError::Format { found } => MetaError::TooNew { what: whole(), found: found.into(), known },
        _ => MetaError::lost(damage, format!("{what} cannot be read: {error}"), layout.log.display()),
    }
}

fn lost_state(error: StateError, layout: &Layout) -> MetaError {
    if let StateError::TooNew { found, known } = error {
        let what = format!("the metadata database {}", layout.database.display());
        return MetaError::TooNew { what, found: found.into(), known: known.into() };
    }
    if let StateError::TooOld { found, known } = error {
        let what = format!("the metadata database {}", layout.database.display());
        return MetaError::TooOld { what, found: found.into(), known: known.into() };
    }
    match error.is_damage() {
        true => MetaError::lost(Damage::Database, error.to_string(), layout.database.display()),
        false => error.into(),
    }
}

/// The database must reach to where the log begins: what lies between them is nowhere.
fn check_fit(log: &LogStore, state: &State, layout: &Layout) -> Result<(), MetaError> {
    decode_note(&log.note()).map_err(|error| unread("what was purged", Damage::Log, &error, layout))?;
    let applied = state.applied();
    note_of(applied.as_ref())?;
    let next = applied.map_or(0, |applied| applied.index + 1);
    if next < log.first() {
        let what = format!("the database ends before entry {next}, the log begins at entry {}", log.first());
        return Err(MetaError::lost(Damage::Database, what, layout.database.display()));
    }
    Ok(())
}
