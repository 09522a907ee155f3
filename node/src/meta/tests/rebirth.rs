//! A member goes on in a new epoch from what another one had, however it is cut off on the way.

use std::collections::BTreeSet;

use super::*;
use crate::meta::rebirth::{Birth, export_all, finish, give_birth};
use crate::meta::undo::{UndoError, undo};
use crate::types::Epoch;

fn birth(address: &str) -> Birth {
    Birth {
        identity: identity(1),
        address: address.to_owned(),
        above: Epoch(0),
        gone: BTreeSet::new(),
        reason: "test".to_owned(),
        undoable: true,
    }
}

async fn goes_on(dir: &Path, address: &str, identity: Identity) -> Meta {
    let options = MetaOptions { dir: dir.join("n1"), identity, address: address.to_owned(), tuning: Tuning::default() };
    let host = host();
    Meta::start(&host, options, Peers::new(host.net.clone())).await.unwrap()
}

/// Every file and folder below, relative, with what is in it.
fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut due = vec![dir.to_path_buf()];
    while let Some(path) = due.pop() {
        for entry in std::fs::read_dir(&path).unwrap() {
            let entry = entry.unwrap().path();
            match entry.is_dir() {
                true => due.push(entry),
                false => found.push((entry.strip_prefix(dir).unwrap().to_owned(), std::fs::read(&entry).unwrap())),
            }
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in tree(from) {
        std::fs::create_dir_all(to.join(&path).parent().unwrap()).unwrap();
        std::fs::write(to.join(path), bytes).unwrap();
    }
}

/// A lone member with ten objects, stopped.
async fn lone(dir: &Path) -> String {
    let mut members = cluster(dir, 1, &Tuning::default()).await;
    for version in 1..=10 {
        members[0].meta.propose(put(&format!("k{version}"), version)).await.unwrap();
    }
    let member = members.remove(0);
    let address = member.address.clone();
    member.stop().await;
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn it_has_everything_under_another_id_and_nobody_of_the_old_epoch_reaches_it() {
    let dir = tempfile::tempdir().unwrap();
    let address = lone(dir.path()).await;
    let (host, folder, file) = (host(), dir.path().join("n1"), dir.path().join("state"));
    let before = tree(&folder);
    let stored = Identity::load(&host, &folder).await.unwrap().unwrap();
    export_all(&host, &folder, &stored, &file).await.unwrap();
    let changed = |path: &Path| !before.iter().any(|(known, _)| known == path);
    assert!(tree(&folder).iter().all(|(path, _)| !changed(path)), "nothing is left of the copy");

    let (reborn, aside) = give_birth(&host, &folder, birth(&address), &file, "old").await.unwrap();
    let member = reborn.member.clone().unwrap();
    assert_eq!((member.epoch, member.raft_id), (Epoch(2), RaftId(2)));
    let kept = |name: &str| before.iter().find(|(path, _)| path == Path::new(name)).unwrap().1.clone();
    assert_eq!(std::fs::read(aside.join("identity.json")).unwrap(), kept("identity.json"));
    let meta = goes_on(dir.path(), &address, reborn).await;
    meta.barrier().await.unwrap();
    assert_eq!(meta.counts().objects, 10);
    assert_eq!((meta.map().epoch, meta.map().collection_held), (Epoch(2), true));
    meta.propose(put("after", 11)).await.unwrap();
    let old = Envelope { epoch: 1, ..meta.envelope(RaftId(2)) };
    assert!(meta.check_envelope(Some(&old)).is_err());
    let later = Envelope { epoch: 3, ..meta.envelope(RaftId(2)) };
    assert!(meta.check_envelope(Some(&later)).is_err());
    assert_eq!(meta.left_behind().await, Epoch(3), "it heard that it is not the last");
    meta.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_state_does_not_get_an_epoch_that_was() {
    let dir = tempfile::tempdir().unwrap();
    let address = lone(dir.path()).await;
    let (host, folder, file) = (host(), dir.path().join("n1"), dir.path().join("state"));
    let stored = Identity::load(&host, &folder).await.unwrap().unwrap();
    export_all(&host, &folder, &stored, &file).await.unwrap();
    let later = Birth { above: Epoch(7), ..birth(&address) };
    let (reborn, _) = give_birth(&host, &folder, later, &file, "old").await.unwrap();
    assert_eq!(reborn.member.unwrap().epoch, Epoch(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_between_any_two_moves_the_next_start_ends_what_was_begun() {
    let dir = tempfile::tempdir().unwrap();
    let address = lone(dir.path()).await;
    let (host, folder, file) = (host(), dir.path().join("n1"), dir.path().join("state"));
    let stored = Identity::load(&host, &folder).await.unwrap().unwrap();
    export_all(&host, &folder, &stored, &file).await.unwrap();
    give_birth(&host, &folder, birth(&address), &file, "old").await.unwrap();
    let done = tree(&folder);

    // How it was before the first move: the newborn is whole, and what it replaces is in its place.
    let begun = dir.path().join("begun");
    copy(&folder, &begun);
    let newborn = begun.join("newborn");
    std::fs::create_dir_all(&newborn).unwrap();
    let names = ["log", "state.redb", "snapshots", "identity.json"];
    let there = |path: &Path| path.exists();
    for name in names {
        if there(&begun.join(name)) {
            std::fs::rename(begun.join(name), newborn.join(name)).unwrap();
        }
        if there(&begun.join("aside/old").join(name)) {
            std::fs::rename(begun.join("aside/old").join(name), begun.join(name)).unwrap();
        }
    }
    std::fs::write(newborn.join("replaces"), "old").unwrap();
    // The moves, in order: out, the note that they are all out, in.
    type Move<'a> = Box<dyn Fn(&Path) + 'a>;
    let moved = |from: PathBuf, to: PathBuf| -> Move<'_> {
        Box::new(move |root: &Path| {
            if root.join(&from).exists() {
                std::fs::create_dir_all(root.join(&to).parent().unwrap()).unwrap();
                std::fs::rename(root.join(&from), root.join(&to)).unwrap();
            }
        })
    };
    let mut moves: Vec<Move<'_>> = names.map(|name| moved(name.into(), Path::new("aside/old").join(name))).into();
    moves.push(Box::new(|root: &Path| std::fs::remove_file(root.join("newborn/replaces")).unwrap()));
    moves.extend(names.map(|name| moved(Path::new("newborn").join(name), name.into())));
    for count in 0..=moves.len() {
        let cut = dir.path().join(format!("cut{count}"));
        copy(&begun, &cut);
        moves[..count].iter().for_each(|step| step(&cut));
        finish(&host, &cut).await.unwrap();
        finish(&host, &cut).await.unwrap();
        assert_eq!(tree(&cut), done, "after {count} moves");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_epoch_is_undone_and_the_member_is_what_it_was_with_what_came_since_aside() {
    let dir = tempfile::tempdir().unwrap();
    let address = lone(dir.path()).await;
    let (host, folder, file) = (host(), dir.path().join("n1"), dir.path().join("state"));
    let stored = Identity::load(&host, &folder).await.unwrap().unwrap();
    export_all(&host, &folder, &stored, &file).await.unwrap();
    let (forced, _) = give_birth(&host, &folder, birth(&address), &file, "old").await.unwrap();
    let meta = goes_on(dir.path(), &address, forced.clone()).await;
    meta.propose(put("after", 11)).await.unwrap();
    meta.shutdown().await;

    // Begun, and cut off before what was there moves: nothing is begun.
    let cut = dir.path().join("cut");
    copy(&folder, &cut);
    std::fs::write(cut.join("aside/old/replaces"), "undone").unwrap();
    finish(&host, &cut).await.unwrap();
    assert_eq!(Identity::load(&host, &cut).await.unwrap(), Some(forced.clone()));
    // Cut off behind it, the next start ends it.
    std::fs::rename(cut.join("aside/old"), cut.join("newborn")).unwrap();
    finish(&host, &cut).await.unwrap();
    assert_eq!(Identity::load(&host, &cut).await.unwrap(), Some(stored.clone()));
    assert!(cut.join("aside/undone/state.redb").exists(), "what was forced is kept");

    let undone = undo(&host, &folder, &forced, 7).await.unwrap();
    assert!(undone.epoch == Epoch(2) && undone.entries > 0, "{undone:?}");
    assert!(undone.aside.join("state.redb").exists());
    let back = Identity::load(&host, &folder).await.unwrap().unwrap();
    assert_eq!((&back.member, back.undone), (&stored.member, Epoch(2)));
    let again = undo(&host, &folder, &back, 8).await;
    assert!(matches!(&again, Err(UndoError::Refused(why)) if why.contains("undone already")), "{again:?}");
    let meta = goes_on(dir.path(), &address, back.clone()).await;
    meta.barrier().await.unwrap();
    assert_eq!((meta.counts().objects, meta.map().epoch, meta.map().collection_held), (10, Epoch(1), false));
    meta.shutdown().await;

    // Forced once more: the number of the epoch that was undone is not given again.
    export_all(&host, &folder, &back, &file).await.unwrap();
    let once_more = Birth { above: back.undone, identity: back.clone(), ..birth(&address) };
    let (forced, _) = give_birth(&host, &folder, once_more, &file, "again").await.unwrap();
    assert_eq!(forced.member.clone().unwrap().epoch, Epoch(3));
    // What was there is not whole any more: it does not take the place of what is.
    std::fs::write(folder.join("aside/again/state.redb"), "rot").unwrap();
    let refused = undo(&host, &folder, &forced, 9).await;
    assert!(matches!(&refused, Err(UndoError::Refused(why)) if why.contains("cannot come back")), "{refused:?}");
    assert_eq!(Identity::load(&host, &folder).await.unwrap(), Some(forced));
}
