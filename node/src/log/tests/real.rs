//! The same on a real disk: what the disk in memory takes for granted of files and folders.

use super::*;

#[tokio::test]
async fn a_log_lives_on_a_real_disk() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("meta/log");
    let host = resilver_host::real::host();
    let options = || LogOptions { segment_bytes: 64 << 10, ..options() };
    {
        let (log, recovered) = LogStore::open(&host, &dir, options()).await.unwrap();
        let (vote, voted) = VoteFile::open(&host, &dir).await.unwrap();
        assert!(recovered.created && voted.is_none());
        log.append(records(0, &[1000; 200])).await.unwrap();
        log.truncate(150).await.unwrap();
        log.append(records(150, &[3000; 10])).await.unwrap();
        log.purge(99, Bytes::from_static(b"note")).await.unwrap();
        vote.write(Bytes::from_static(b"term 9")).await.unwrap();
    }
    let (log, recovered) = LogStore::open(&host, &dir, options()).await.unwrap();
    let (_, voted) = VoteFile::open(&host, &dir).await.unwrap();
    assert_eq!(
        (log.first(), log.next(), log.note(), voted.as_deref()),
        (100, 160, "note".into(), Some(&b"term 9"[..]))
    );
    assert!(!recovered.created && !recovered.healed_header && recovered.strays == 0);
    let mut expected = records(100, &[1000; 50]);
    expected.extend(records(150, &[3000; 10]));
    assert_eq!(log.read(0..u64::MAX, u64::MAX).await.unwrap(), expected);

    log.reset(500, Bytes::from_static(b"snapshot")).await.unwrap();
    log.append(records(500, &[10; 3])).await.unwrap();
    let (log, recovered) = LogStore::open(&host, &dir, options()).await.unwrap();
    assert_eq!((log.first(), log.next(), recovered.segments), (500, 503, 1));
    assert_eq!(host.disk.list(&dir).await.unwrap().len(), 3, "header, vote and one segment");
}
