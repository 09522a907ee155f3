//! Where what is left of a member's metadata goes when it comes back as another one.
//!
//! Owns: the place, and the judgement whether it can be used. Must never: keep a node from starting: a place that cannot be used is told
//! then, and refused only when it is needed, before anything was changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use resilver_host::Host;
use resilver_host::disk::create_dir_durably;
use tokio::time::timeout;

use crate::meta::ASIDE;
use crate::options::Options;

/// How long the place may take to be looked at: it may be a share of a server that is gone.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);

/// The folder of one member that is to be put aside: nobody else's, and none that was there before.
pub(super) fn folder(options: &Options, label: &str) -> PathBuf {
    shelf(options).join(label)
}

fn shelf(options: &Options) -> PathBuf {
    match &options.aside {
        // Nodes of one host may be told of one folder.
        Some(dir) => dir.join(&options.name),
        None => options.data_dir.join(ASIDE),
    }
}

/// Has a place that cannot be used told, while the node starts. Beside that, so that it waits for nothing.
pub(super) fn tell(host: &Host, options: &Options) {
    if options.aside.is_none() {
        return;
    }
    let (host, options) = (host.clone(), options.clone());
    tokio::spawn(async move {
        if let Err(why) = check(&host, &options).await {
            tracing::warn!(node = %options.name, %why, operation = "start", "as a lost voter, this node could not be brought back");
        }
    });
}

/// Whether files of the metadata folder can be renamed to there, which is made where it is missing.
///
/// # Errors
/// Why not, and what next.
pub(super) async fn check(host: &Host, options: &Options) -> Result<(), String> {
    // Beside the metadata it is made with the first that goes there.
    let Some(dir) = &options.aside else { return Ok(()) };
    let looked = timeout(LOOK_DEADLINE, look(host, options, dir)).await;
    looked.unwrap_or_else(|_| {
        Err(format!("recovery.dir {} did not answer within {} s", dir.display(), LOOK_DEADLINE.as_secs()))
    })
}

async fn look(host: &Host, options: &Options, dir: &Path) -> Result<(), String> {
    let shelf = shelf(options);
    let made = create_dir_durably(&*host.disk, &shelf).await;
    made.map_err(|error| format!("recovery.dir: {} cannot be made: {error}", shelf.display()))?;
    let device = async |path: &Path| {
        let found = host.disk.device(path).await;
        found.map_err(|error| format!("{} cannot be looked at: {error}", path.display()))
    };
    if device(&shelf).await? == device(&options.data_dir).await? {
        return Ok(());
    }
    Err(format!(
        "recovery.dir {} is not on the file system of {}, and what is moved aside is renamed, never copied: mount it, name a folder \
         of that file system, or leave it out, and start the node again",
        dir.display(),
        options.data_dir.display()
    ))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn options(folder: &Path, aside: Option<PathBuf>) -> Options {
        let value = serde_json::json!({
            "name": "n1", "address": "127.0.0.1:1", "http": "127.0.0.1:2", "data_dir": folder, "disks": [folder.join("d")],
        });
        let mut options: Options = serde_json::from_value(value).unwrap();
        options.aside = aside;
        options
    }

    #[tokio::test]
    async fn a_place_on_another_file_system_is_told_and_not_used() {
        let host = resilver_host::real::host();
        let home = tempfile::tempdir().unwrap();
        let beside = options(home.path(), None);
        assert_eq!(folder(&beside, "member-2-1"), home.path().join("aside/member-2-1"));
        assert_eq!(check(&host, &beside).await, Ok(()));

        let own = options(home.path(), Some(home.path().join("kept")));
        assert_eq!(folder(&own, "member-2-1"), home.path().join("kept/n1/member-2-1"));
        assert_eq!(check(&host, &own).await, Ok(()));
        assert!(home.path().join("kept/n1").is_dir(), "it is made");

        // A file system of its own on every Linux.
        let other = tempfile::tempdir_in("/dev/shm").unwrap();
        let why = check(&host, &options(home.path(), Some(other.path().to_owned()))).await.unwrap_err();
        assert!(why.contains("is not on the file system of"), "{why}");

        std::fs::write(home.path().join("file"), b"").unwrap();
        let why = check(&host, &options(home.path(), Some(home.path().join("file")))).await.unwrap_err();
        assert!(why.contains("cannot be made"), "{why}");
    }
}
