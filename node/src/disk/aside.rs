//! What was moved aside: shards that were found corrupt, or whose version was given up. Renamed, kept for a while, then
//! removed; never removed straight away, because the finding or the decision may have been wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use resilver_host::FileKind;
use resilver_host::audit::{self, Fact};
use resilver_host::planted::{Bug, bug};
use tokio::time::Instant;

use super::core::{ASIDE, Core, lock};
use super::error::DiskError;
use super::shard_file::file_name;
use crate::types::ShardKey;

/// The longest reason kept in a file's name, which the file system limits to 255 bytes.
const WHY_CHARS: usize = 32;

/// Moves shards aside and makes it durable. How many there were.
pub(super) async fn move_all(core: &Core, keys: &[ShardKey], why: &str) -> Result<u64, DiskError> {
    core.admit(true)?;
    let why = label(why);
    let aside = core.io.root.join(ASIDE);
    let mut touched = BTreeSet::new();
    let mut moved = 0;
    for key in keys {
        let bytes = match core.shard_length(*key).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            // It may be moved all the same. Its bytes count as used until the disk is counted anew.
            Err(error) if error.is_unreadable() => 0,
            Err(error) => return Err(error),
        };
        let name = free_name(core, &why, *key).await?;
        let path = core.shard_path(*key);
        let moving = match bug(Bug::DeleteNotAside) {
            false => core.io.rename(&path, &aside.join(&name)).await,
            true => core.io.remove_file(&path).await,
        };
        match moving {
            Ok(()) => {}
            // Somebody else was faster, or the folder is gone: then the canary will say so.
            Err(error) if error.is_not_found() => {
                core.io.doubt.notify_one();
                continue;
            }
            Err(error) => return Err(error),
        }
        core.removed(bytes);
        core.touch(*key);
        lock(&core.aside_since).insert(name, Instant::now());
        touched.insert(core.shard_folder(*key));
        moved += 1;
    }
    if moved > 0 {
        // The new names first: after a crash a shard may be in both places, never in neither.
        core.io.sync_dir(&aside).await?;
        for folder in touched {
            core.io.sync_dir(&folder).await?;
        }
    }
    Ok(moved)
}

/// A name under `aside/` that nothing has: numbers begin again with each process.
async fn free_name(core: &Core, why: &str, key: ShardKey) -> Result<String, DiskError> {
    loop {
        let name = format!("{why}-{}.{}", file_name(key), core.next_serial());
        match core.io.metadata(&core.io.root.join(ASIDE).join(&name)).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => return Ok(name),
            Err(error) => return Err(error),
        }
    }
}

/// A reason as part of a file name.
fn label(why: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let label: String = why.chars().take(WHY_CHARS).map(clean).collect();
    if label.is_empty() { "unnamed".to_owned() } else { label }
}

/// Under which reason shards of versions that were given up by the metadata go aside. No decision of this node's: every
/// member applied it, and nobody can ever read them again.
pub(crate) const REPLACED: &str = "replaced";

/// Removes what the metadata gave up, however short it has been aside: for a disk that has no room left. What was found
/// corrupt, or judged an orphan here, stays its time, since that finding may have been wrong.
pub(super) async fn purge_replaced(core: &Core) -> Result<u64, DiskError> {
    let given_up = format!("{REPLACED}-");
    let names = names(core).await?.into_iter().filter(|name| name.starts_with(&given_up)).collect();
    remove(core, names).await
}

/// Removes what has been aside long enough. Ages are monotonic and begin when this process first sees a file: a restart
/// only ever keeps it longer, and a wall clock that jumps removes nothing.
pub(super) async fn purge(core: &Core, older_than: Duration) -> Result<u64, DiskError> {
    let due = due(core, names(core).await?, older_than);
    remove(core, due).await
}

async fn names(core: &Core) -> Result<BTreeSet<String>, DiskError> {
    core.admit(true)?;
    let entries = match core.io.list(&core.io.root.join(ASIDE)).await {
        Err(error) if error.is_not_found() => return Err(core.lost_folder()),
        result => result?,
    };
    Ok(entries.into_iter().filter(|entry| entry.kind == FileKind::File).map(|entry| entry.name).collect())
}

async fn remove(core: &Core, names: Vec<String>) -> Result<u64, DiskError> {
    let removed = names.len() as u64;
    for name in names {
        audit::state(|| Fact::AsidePurged { shard: shard_of(&name).to_owned() });
        core.io.remove_file(&core.io.root.join(ASIDE).join(&name)).await?;
        lock(&core.aside_since).remove(&name);
    }
    // Not synced: what a crash brings back is purged again.
    Ok(removed)
}

/// The shard that `WHY-SHARD.N` was.
fn shard_of(name: &str) -> &str {
    let shard = name.split_once('-').map_or(name, |(_, shard)| shard);
    shard.rsplit_once('.').map_or(shard, |(shard, _)| shard)
}

fn due(core: &Core, names: BTreeSet<String>, older_than: Duration) -> Vec<String> {
    let now = Instant::now();
    let mut since = lock(&core.aside_since);
    since.retain(|name, _| names.contains(name));
    names.into_iter().filter(|name| now - *since.entry(name.clone()).or_insert(now) >= older_than).collect()
}
