//! The identity file.

use super::*;
use crate::disk::KnownDisk;
use crate::types::DiskId;

#[tokio::test]
async fn an_identity_comes_back_as_it_was_and_damage_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let host = host();
    assert_eq!(Identity::load(&host, dir.path()).await.unwrap(), None);
    let mut identity = identity(3);
    identity.disks.push(KnownDisk { path: "/mnt/disk1".into(), id: DiskId(u128::MAX), added: true, removed: false });
    identity.store(&host, dir.path()).await.unwrap();
    let plain = std::fs::read_to_string(dir.path().join("identity.json")).unwrap();
    assert!(!plain.contains("forced") && !plain.contains("undone"), "older releases read it: {plain}");
    assert_eq!(Identity::load(&host, dir.path()).await.unwrap(), Some(identity.clone()));
    identity.forced = Some(crate::meta::identity::Forced { label: "member-3".to_owned(), entry: 17 });
    identity.undone = crate::types::Epoch(4);
    identity.store(&host, dir.path()).await.unwrap();
    assert_eq!(Identity::load(&host, dir.path()).await.unwrap(), Some(identity));

    let path = dir.path().join("identity.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"raft_id\": 3", "\"raft_id\": 4")).unwrap();
    assert!(matches!(Identity::load(&host, dir.path()).await, Err(MetaError::Identity { .. })));
    std::fs::write(&path, text.replace("\"format\": 5", "\"format\": 9, \"more\": 1")).unwrap();
    assert!(matches!(Identity::load(&host, dir.path()).await, Err(MetaError::TooNew { found: 9, .. })));
    std::fs::write(&path, &text[..20]).unwrap();
    assert!(matches!(Identity::load(&host, dir.path()).await, Err(MetaError::Identity { .. })));
}
