//! How a member goes on in a new epoch: from a backup, or alone when its quorum is lost for good; and how the latter is undone.
//!
//! Owns: the order of it. Must never: begin before everything that is needed was read and verified; delete what was there.
//! Invariant: the new is whole before what was there is touched; and that lies aside, whole, before the new is in its place.

use std::collections::BTreeSet;
use std::path::Path;

use tonic::Status;

use super::membership::meta_dir;
use crate::control::{ForceOrder, Reborn, RestoreOrder, Shared, UndoOrder};
use crate::meta::identity::Identity;
use crate::meta::rebirth::{Birth, export_all, give_birth, passing};
use crate::meta::undo::{UndoError, Undone, undo};
use crate::meta::{Meta, MetaError};
use crate::types::{Epoch, NodeName};

fn failed(error: &MetaError) -> Status {
    Status::unavailable(format!("{error}; nothing was changed, or the next start ends what was begun"))
}

/// From a file that was read to its end. Who the node is from now on.
pub(super) async fn restore(
    shared: &Shared,
    identity: &Identity,
    order: &RestoreOrder,
) -> Result<(Identity, Reborn), Status> {
    let label = format!("before-restore-{}", shared.host.clock.now().as_millis());
    // What is left of a member that lost its metadata is nothing to go back to.
    let wish = Wish { gone: BTreeSet::new(), reason: &order.reason, above: order.above, undoable: false };
    let outcome = reborn(shared, identity, wish, &order.from, &label).await;
    remove(shared, &order.from).await;
    outcome.map_err(|error| failed(&error))
}

/// From what this member has. Its Raft is stopped for it, and does not start again in this process.
pub(super) async fn force(shared: &Shared, meta: &Meta, order: &ForceOrder) -> Result<Reborn, Status> {
    meta.shutdown().await;
    let dir = meta_dir(&shared.options);
    let identity = match Identity::load(&shared.host, &dir).await {
        Ok(Some(identity)) => identity,
        Ok(None) => return Err(Status::unavailable(format!("{} has no identity", dir.display()))),
        Err(error) => return Err(failed(&error)),
    };
    let path = passing(&dir, "recovery");
    let exported = export_all(&shared.host, &dir, &identity, &path).await;
    if let Err(error) = exported {
        remove(shared, &path).await;
        return Err(failed(&error));
    }
    let was = identity.member.as_ref().map(|member| format!("member-{}-epoch-{}", member.raft_id, member.epoch.0));
    let label = format!("{}-{}", was.unwrap_or_default(), shared.host.clock.now().as_millis());
    let wish = Wish { gone: order.gone.clone(), reason: &order.reason, above: order.above, undoable: true };
    let outcome = reborn(shared, &identity, wish, &path, &label).await;
    remove(shared, &path).await;
    let (_, reborn) = outcome.map_err(|error| failed(&error))?;
    Ok(reborn)
}

/// Back to what this member was before it went on alone. Its Raft is stopped for it, and does not start again in this process.
pub(super) async fn take_back(shared: &Shared, meta: &Meta, order: &UndoOrder) -> Result<Undone, Status> {
    meta.shutdown().await;
    let dir = meta_dir(&shared.options);
    let identity = match Identity::load(&shared.host, &dir).await {
        Ok(Some(identity)) => identity,
        Ok(None) => return Err(Status::unavailable(format!("{} has no identity", dir.display()))),
        Err(error) => return Err(failed(&error)),
    };
    let undone =
        undo(&shared.host, &dir, &identity, shared.host.clock.now().as_millis()).await.map_err(
            |error| match error {
                UndoError::Refused(why) => Status::failed_precondition(format!("{why}; nothing was changed")),
                UndoError::Meta(error) => failed(&error),
            },
        )?;
    tracing::warn!(node = %shared.name, ?undone, order.reason, operation = "undo", "a forced epoch is undone");
    Ok(undone)
}

/// What is wanted of the new epoch.
struct Wish<'a> {
    gone: BTreeSet<NodeName>,
    reason: &'a str,
    /// The latest epoch that anybody who was asked knows of.
    above: Epoch,
    undoable: bool,
}

/// The new in the place of what is there, which goes aside.
async fn reborn(
    shared: &Shared,
    identity: &Identity,
    wish: Wish<'_>,
    from: &Path,
    label: &str,
) -> Result<(Identity, Reborn), MetaError> {
    let Wish { gone, reason, above, undoable } = wish;
    let dir = meta_dir(&shared.options);
    let reaches = crate::state::describe(&shared.host, from).await?.applied;
    // What this node ever was, and what its disks have seen, counts as well: an old backup's epoch was followed by others.
    let known = identity.member.as_ref().map_or(Epoch::default(), |member| member.epoch);
    let stamped = shared.disks.get().map_or(Epoch::default(), |disks| disks.highest_epoch());
    let birth = Birth {
        identity: identity.clone(),
        address: shared.options.address.clone(),
        above: above.max(known).max(stamped).max(identity.undone),
        gone,
        reason: reason.to_owned(),
        undoable,
    };
    let (identity, aside) = give_birth(&shared.host, &dir, birth, from, label).await?;
    let Some(member) = identity.member.clone() else { return Err(MetaError::NotMember) };
    let reborn = Reborn {
        cluster_id: member.cluster.to_string(),
        epoch: member.epoch.0,
        raft_id: member.raft_id,
        reaches,
        aside: aside.display().to_string(),
    };
    tracing::warn!(node = %shared.name, ?reborn, reason, operation = "rebirth", "this node is the only voter of a new epoch");
    Ok((identity, reborn))
}

async fn remove(shared: &Shared, path: &Path) {
    if let Err(error) = shared.host.disk.remove_file(path).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "a passing state file could not be removed");
    }
}
