//! A member that lost what it promised or stored never starts Raft again.

use super::*;

/// A stopped single member with something in its log.
async fn stopped(dir: &Path) -> PathBuf {
    let mut members = cluster(dir, 1, &Tuning::default()).await;
    members[0].meta.propose(put("k", 1)).await.unwrap();
    members.remove(0).stop().await
}

async fn start(dir: &Path, identity: Identity) -> Result<Meta, MetaError> {
    let host = host();
    let options =
        MetaOptions { dir: dir.to_path_buf(), identity, address: "127.0.0.1:1".into(), tuning: Tuning::default() };
    Meta::start(&host, options, Peers::new(host.net.clone())).await
}

async fn assert_lost(dir: &Path, how: &str) {
    match start(dir, identity(1)).await {
        Err(MetaError::LostVoter { .. }) => {}
        Err(error) => panic!("{how}: {error}"),
        Ok(_) => panic!("{how}: started"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_gone_is_a_lost_voter_and_nothing_is_made_in_its_place() {
    for part in ["log", "log/vote", "log/header", "state.redb"] {
        let dir = tempfile::tempdir().unwrap();
        let meta = stopped(dir.path()).await;
        let path = meta.join(part);
        if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }.unwrap();
        assert_lost(&meta, part).await;
        assert!(!path.join("header").exists() && !path.is_file(), "{part} was made anew");
    }
    let dir = tempfile::tempdir().unwrap();
    let meta = stopped(dir.path()).await;
    for entry in std::fs::read_dir(meta.join("log")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_lost(&meta, "an empty log folder").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_part_is_a_lost_voter() {
    for part in ["log/vote", "log/header", "state.redb"] {
        let dir = tempfile::tempdir().unwrap();
        let meta = stopped(dir.path()).await;
        let path = meta.join(part);
        let len = std::fs::metadata(&path).unwrap().len();
        std::fs::write(&path, vec![0x5a; usize::try_from(len).unwrap()]).unwrap();
        assert_lost(&meta, part).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_older_than_the_log_is_a_lost_voter() {
    let dir = tempfile::tempdir().unwrap();
    let tuning = Tuning { snapshot_after: 20, keep_entries: 0, ..Tuning::default() };
    let mut members = cluster(dir.path(), 1, &tuning).await;
    let founder = members.remove(0);
    let meta = founder.stop().await;
    let old = std::fs::read(meta.join("state.redb")).unwrap();
    let founder = Member::start(dir.path(), 1, tuning).await;
    for version in 1..100 {
        founder.meta.propose(put("k", version)).await.unwrap();
    }
    founder.until("a snapshot", |status| status.snapshot.is_some_and(|index| index > 20)).await;
    founder.stop().await;
    std::fs::write(meta.join("state.redb"), old).unwrap();
    assert_lost(&meta, "an old database").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_somebody_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let meta = stopped(dir.path()).await;
    assert!(matches!(start(&meta, identity(2)).await, Err(MetaError::Foreign { .. })));
    let mut other = identity(1);
    other.member.as_mut().unwrap().cluster = ClusterId(9);
    assert!(matches!(start(&meta, other).await, Err(MetaError::Foreign { .. })));
    let mut nobody = identity(1);
    nobody.member = None;
    assert!(matches!(start(&meta, nobody).await, Err(MetaError::NotMember)));
    std::fs::remove_file(meta.join("identity.json")).unwrap();
    assert_lost(&meta, "a log without its identity").await;
}

/// Every part says for itself that a build before the first release wrote it: none is taken for damaged.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_format_1_is_refused_as_too_old_and_is_no_lost_voter() {
    let dir = tempfile::tempdir().unwrap();
    let meta = stopped(dir.path()).await;
    let too_old = |result: Result<Meta, MetaError>, what: &str| match result {
        Err(error @ MetaError::TooOld { found: 1, known: 5, .. }) => {
            assert!(error.to_string().contains(what) && error.to_string().contains("put them again"), "{error}");
        }
        Err(error) => panic!("{what}: {error}"),
        Ok(_) => panic!("{what}: started"),
    };
    // The vote in the log's folder: a format byte, then the vote.
    let (file, vote) = crate::log::VoteFile::open(&host(), &meta.join("log")).await.unwrap();
    let vote = vote.expect("it was founded");
    let mut old = vote.to_vec();
    old[0] = 1;
    file.write(old.into()).await.unwrap();
    too_old(start(&meta, identity(1)).await, "log");
    file.write(vote).await.unwrap();
    drop(file);

    let path = meta.join("identity.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"format\": 5", "\"format\": 1")).unwrap();
    too_old(start(&meta, identity(1)).await, "identity.json");
    std::fs::write(&path, text).unwrap();
    start(&meta, identity(1)).await.unwrap().shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_was_cut_off_is_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let meta = dir.path().join("n1");
    start(&meta, identity(1)).await.unwrap().shutdown().await;
    std::fs::remove_file(meta.join("identity.json")).unwrap();
    std::fs::write(meta.join("state.redb"), b"half made").unwrap();
    start(&meta, identity(1)).await.unwrap().shutdown().await;
    assert!(Identity::load(&host(), &meta).await.unwrap().unwrap().member.is_some());
}
