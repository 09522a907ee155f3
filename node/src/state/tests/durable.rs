//! What survives a crash, what a snapshot carries, and what is refused at the door.

use super::*;

#[tokio::test]
async fn a_crash_takes_back_to_the_last_flush_and_no_further() {
    let mut story = Story::cluster().await;
    story.put("kept", object(1)).await;
    story.state.flush().await.unwrap();
    let flushed = story.index;
    assert_eq!(*story.state.durable_changes().borrow(), Some(flushed));
    story.put("lost", object(2)).await;
    let (host, path) = (story.host.clone(), story.path());
    let Story { dir, state, .. } = story;
    // Dropped without a close: what a kill leaves.
    drop(state);
    let state = State::open(&host, &path, OWNER).await.unwrap();
    assert_eq!(state.applied().unwrap().index, flushed);
    assert!(state.object(&"b".into(), "kept").await.unwrap().is_some());
    assert!(state.object(&"b".into(), "lost").await.unwrap().is_none());
    state.close().await;
    assert!(matches!(state.flush().await, Ok(())), "nothing to make durable");
    assert!(matches!(state.buckets().await, Err(StateError::Closed)));
    drop(dir);
}

#[tokio::test]
async fn a_snapshot_carries_everything_and_a_damaged_one_changes_nothing() {
    let mut story = Story::cluster().await;
    for version in 1..200 {
        story.put(&format!("k{version:04}"), object(version)).await;
    }
    let file = story.dir.path().join("snapshot");
    let head = story.state.export(&file, "s1".into()).await.unwrap();
    assert_eq!(head.applied, story.state.applied());
    assert_eq!(inspect(&story.host, &file).await.unwrap(), head);

    let mut other = Story::blank().await;
    other.run(Command::InitCluster { cluster: OWNER.cluster, name: "old".into() }).await;
    let whole = std::fs::read(&file).unwrap();
    for (place, damage) in [(0, "magic"), (40, "head"), (whole.len() / 2, "middle"), (whole.len() - 1, "trailer")] {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x10;
        std::fs::write(&file, &bytes).unwrap();
        let error = other.state.install(&file).await.unwrap_err();
        assert!(matches!(error, StateError::Snapshot { .. }), "{damage}: {error}");
    }
    for cut in [0, 10, 100, whole.len() - 1] {
        std::fs::write(&file, &whole[..cut]).unwrap();
        assert!(other.state.install(&file).await.is_err(), "cut to {cut}");
    }
    assert_eq!(other.state.map().name, "old");

    std::fs::write(&file, &whole).unwrap();
    other.state.install(&file).await.unwrap();
    assert_eq!(other.state.map(), story.state.map());
    assert_eq!(other.state.counts(), story.state.counts());
    assert_eq!(other.state.applied(), story.state.applied());
    assert_eq!(other.state.scan(None, 1000).await.unwrap(), story.state.scan(None, 1000).await.unwrap());
    assert_eq!(*other.state.durable_changes().borrow(), Some(story.index));
    // The counter of ids came along: nobody gets an id twice.
    other.index = story.index;
    other.sequence = 1000;
    assert_eq!(other.run(join("n3", 3, &[])).await, Outcome::Joined { raft_id: RaftId(3) });
}

#[tokio::test]
async fn a_damaged_database_is_told_from_one_of_a_later_release_and_from_another_members() {
    let mut story = Story::cluster().await;
    for version in 1..500 {
        story.put(&format!("k{version:04}"), object(version)).await;
    }
    story.state.flush().await.unwrap();
    story.state.close().await;
    let path = story.path();
    let whole = std::fs::read(&path).unwrap();
    let stranger = Owner { raft_id: RaftId(2), ..OWNER };
    assert!(matches!(State::open(&story.host, &path, stranger).await, Err(StateError::Foreign { .. })));

    for cut in [0, 17, whole.len() / 2] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = State::open(&story.host, &path, OWNER).await.err().expect("cut");
        assert!(error.is_damage(), "cut to {cut}: {error}");
    }
    std::fs::write(&path, vec![0xa5; whole.len()]).unwrap();
    assert!(State::open(&story.host, &path, OWNER).await.err().expect("garbage").is_damage());
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(State::open(&story.host, &path, OWNER).await, Err(StateError::Missing { .. })));

    // A byte in a page that holds records: found at open, before anything is built on it.
    let at = whole.windows(5).position(|bytes| bytes == b"k0250").expect("a key in the file");
    let mut bytes = whole.clone();
    bytes[at + 1] ^= 0xff;
    std::fs::write(&path, &bytes).unwrap();
    assert!(State::open(&story.host, &path, OWNER).await.err().expect("a flipped byte").is_damage());
    std::fs::write(&path, &whole).unwrap();
    State::open(&story.host, &path, OWNER).await.expect("the whole one opens").close().await;
}

#[tokio::test]
async fn what_a_build_before_the_first_release_wrote_is_refused_by_name_and_left_as_it_is() {
    for old in 1..FORMAT {
        refused_by_name(old).await;
    }
}

async fn refused_by_name(format: u16) {
    let mut story = Story::cluster().await;
    story.put("k", object(1)).await;
    let file = story.dir.path().join("snapshot");
    story.state.export(&file, "s1".into()).await.unwrap();
    story.state.close().await;
    {
        let database = redb::Database::open(story.path()).unwrap();
        let txn = database.begin_write().unwrap();
        txn.open_table(tables::LOCAL).unwrap().insert(KEY_FORMAT, format.to_le_bytes().as_slice()).unwrap();
        txn.commit().unwrap();
    }
    let old = std::fs::read(story.path()).unwrap();
    let error = State::open(&story.host, &story.path(), OWNER).await.err().expect("an old format");
    assert!(matches!(error, StateError::TooOld { found, known: FORMAT } if found == format), "{error}");
    assert!(!error.is_damage(), "it is as it was written: nobody is a lost voter for it");
    assert!(std::fs::read(story.path()).unwrap() == old, "nothing was changed");

    // The snapshot's magic, format and the checksum of both.
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[8..10].copy_from_slice(&format.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..10]);
    bytes[10..14].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&file, &bytes).unwrap();
    let error = inspect(&story.host, &file).await.expect_err("an old format");
    assert!(matches!(error, StateError::TooOld { found, known: FORMAT } if found == format), "{error}");
}
