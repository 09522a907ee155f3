//! What opening accepts, refuses, and leaves alone.

use std::fs;

use proptest::prelude::*;

use super::super::superblock::{Superblock, Unreadable};
use super::*;
use crate::types::DiskId;

async fn open(paths: &[&Path], owner: &Owner, known: &[KnownDisk]) -> Result<(DiskSet, Vec<KnownDisk>), DiskError> {
    let paths: Vec<PathBuf> = paths.iter().map(|path| (*path).to_owned()).collect();
    DiskSet::open(&resilver_host::real::host(), &paths, owner, known, Patience::default()).await
}

async fn refused(paths: &[&Path], owner: &Owner, known: &[KnownDisk]) -> DiskError {
    open(paths, owner, known).await.err().expect("opening must be refused")
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn superblock() -> Superblock {
    Superblock {
        disk: DiskId(0xD),
        node: "n1".into(),
        instance: InstanceId(0x11),
        cluster: Some(CLUSTER),
        epoch: Epoch(4),
        created_ms: 1_700_000_000_000,
    }
}

/// Gives a folder a superblock line with a right checksum.
fn stamp(folder: &Path, line: &str) {
    let text = format!("{line}\ncrc32c {:08x}\n", crc32c::crc32c(line.as_bytes()));
    fs::write(folder.join(SUPERBLOCK_FILE), text).unwrap();
}

#[tokio::test]
async fn new_folders_become_disks_and_are_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let (there, absent) = (folder.path().join("there"), folder.path().join("not/yet/there"));
    fs::create_dir_all(there.join("lost+found")).unwrap();
    let (set, known) = open(&[&there, &absent], &owner(), &[]).await.unwrap();
    let ids: Vec<DiskId> = set.volumes().iter().map(|volume| volume.id()).collect();
    assert_ne!(ids[0], ids[1]);
    assert_eq!(known.iter().map(|disk| disk.id).collect::<Vec<_>>(), ids);
    assert!(set.volumes().iter().all(|volume| volume.status().health == Health::Ok));
    assert_eq!(names(&there.join("shards")).len(), 256);
    assert_eq!(set.volume(ids[1]).unwrap().path(), absent);

    // With what is known or without: a superblock says itself whose it is.
    for known in [known.as_slice(), &[]] {
        let (again, still_known) = open(&[&there, &absent], &owner(), known).await.unwrap();
        assert_eq!(again.volumes().iter().map(|volume| volume.id()).collect::<Vec<_>>(), ids);
        assert_eq!(still_known.len(), 2);
    }
    // And known disks survive a trip through a file.
    let text = serde_json::to_string(&known).unwrap();
    assert!(text.contains(&ids[0].to_string()), "{text}");
    assert_eq!(serde_json::from_str::<Vec<KnownDisk>>(&text).unwrap(), known);
}

#[tokio::test]
async fn disks_of_others_are_refused_and_nothing_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, fresh) = (folder.path().join("disk"), folder.path().join("fresh"));
    fs::create_dir(&fresh).unwrap();
    open(&[&disk], &owner(), &[]).await.unwrap();
    let before = fs::read(disk.join(SUPERBLOCK_FILE)).unwrap();

    let elsewhere = Owner { cluster: Some(ClusterId(0xC2)), ..owner() };
    let error = refused(&[&fresh, &disk], &elsewhere, &[]).await;
    assert!(matches!(error, DiskError::ForeignCluster { found: CLUSTER, ours: ClusterId(0xC2), .. }), "{error}");

    // The same name, but a new data folder: not the same node.
    let reborn = Owner { instance: InstanceId(0x22), ..owner() };
    let error = refused(&[&fresh, &disk], &reborn, &[]).await;
    assert!(matches!(error, DiskError::ForeignNode { .. }), "{error}");

    assert_eq!(fs::read(disk.join(SUPERBLOCK_FILE)).unwrap(), before);
    assert_eq!(names(&fresh), Vec::<String>::new(), "decide first, write after");
}

#[tokio::test]
async fn folders_that_are_no_disks_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (file, full) = (folder.path().join("file"), folder.path().join("full"));
    fs::write(&file, "x").unwrap();
    fs::create_dir(&full).unwrap();
    fs::write(full.join("thesis.tex"), "x").unwrap();
    assert!(matches!(refused(&[&file], &owner(), &[]).await, DiskError::NotAFolder { .. }));
    let error = refused(&[&full], &owner(), &[]).await;
    assert!(matches!(&error, DiskError::NotEmpty { first, .. } if first == "thesis.tex"), "{error}");
    assert_eq!(names(&full), ["thesis.tex"]);
    // /proc takes no folders, not even from root.
    assert!(matches!(refused(&[Path::new("/proc/resilver")], &owner(), &[]).await, DiskError::NotWritable { .. }));
}

#[tokio::test]
async fn one_disk_under_two_paths_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, link) = (folder.path().join("disk"), folder.path().join("link"));
    fs::create_dir(&disk).unwrap();
    std::os::unix::fs::symlink(&disk, &link).unwrap();
    let slash = PathBuf::from(format!("{}/", disk.display()));
    // Told apart by nothing but a slash; by a link while it is new; and once it is a disk.
    assert!(matches!(refused(&[&disk, &slash], &owner(), &[]).await, DiskError::Duplicate { .. }));
    assert!(matches!(refused(&[&disk, &link], &owner(), &[]).await, DiskError::Duplicate { .. }));
    assert!(matches!(refused(&[&link, &disk], &owner(), &[]).await, DiskError::Duplicate { .. }));
}

#[tokio::test]
async fn a_newer_format_is_refused_and_a_damaged_superblock_is_no_newer_format() {
    let folder = tempfile::tempdir().unwrap();
    stamp(folder.path(), r#"{"format":7,"shape":"nobody knows yet"}"#);
    let error = refused(&[folder.path()], &owner(), &[]).await;
    assert!(matches!(error, DiskError::TooNew { found: 7, .. }), "{error}");
    assert!(error.to_string().contains("upgrade this node"));

    fs::write(folder.path().join(SUPERBLOCK_FILE), "{\"format\":7}\ncrc32c 00000000\n").unwrap();
    let error = refused(&[folder.path()], &owner(), &[]).await;
    assert!(matches!(error, DiskError::SuperblockDamaged { .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_superblock_fails_its_disk_and_not_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("1"), folder.path().join("2"));
    let (_, known) = open(&[&one, &two], &owner(), &[]).await.unwrap();
    for garbage in [b"".as_slice(), b"\xFF\xFE", &[b'x'; 100_000]] {
        fs::write(one.join(SUPERBLOCK_FILE), garbage).unwrap();
        let (set, still_known) = open(&[&one, &two], &owner(), &known).await.unwrap();
        let status: Vec<VolumeStatus> = set.volumes().iter().map(|volume| volume.status()).collect();
        assert_eq!((status[0].id, status[0].health), (known[0].id, Health::Error));
        assert!(status[0].reason.contains("damaged"), "{}", status[0].reason);
        assert_eq!(status[1].health, Health::Ok);
        assert_eq!(still_known, known);
        assert_eq!(fs::read(one.join(SUPERBLOCK_FILE)).unwrap(), garbage, "evidence is kept");
    }
}

#[tokio::test]
async fn a_known_disk_without_a_superblock_is_gone_and_never_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("1"), folder.path().join("2"));
    let (_, known) = open(&[&one, &two], &owner(), &[]).await.unwrap();
    fs::remove_dir_all(&one).unwrap();
    for there in [false, true] {
        if there {
            fs::create_dir(&one).unwrap(); // the mount point without its disk
        }
        let (set, still_known) = open(&[&one, &two], &owner(), &known).await.unwrap();
        assert_eq!(still_known, known);
        let gone = set.volume(known[0].id).unwrap();
        assert_eq!(gone.status().health, Health::Gone);
        assert_eq!(set.volume(known[1].id).unwrap().status().health, Health::Ok);
        assert!(matches!(gone.create_shard(head(1, 100, 10)), Err(DiskError::Gone { .. })));
        assert!(matches!(gone.open_shard(key(1), Purpose::Client).await, Err(DiskError::Gone { .. })));
        assert!(matches!(gone.list_shards().await, Err(DiskError::Gone { .. })));
        set.stamp(CLUSTER, Epoch(2)).await.unwrap();
        assert_eq!(one.exists(), there);
        assert!(!there || names(&one).is_empty(), "nothing is written under an unmounted mount point");
    }
}

#[tokio::test]
async fn disks_may_change_places() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("1"), folder.path().join("2"));
    let (_, known) = open(&[&one, &two], &owner(), &[]).await.unwrap();
    fs::rename(&one, folder.path().join("x")).unwrap();
    fs::rename(&two, &one).unwrap();
    // Disk 2 stands in the place of disk 1, which is away: the empty place is disk 1's, not a new disk's.
    fs::create_dir(&two).unwrap();
    let (set, _) = open(&[&one, &two], &owner(), &known).await.unwrap();
    assert_eq!(set.volume(known[1].id).unwrap().path(), one);
    let lost = set.volume(known[0].id).unwrap().status();
    assert_eq!((lost.path.as_path(), lost.health), (two.as_path(), Health::Gone));
    // And with disk 1 in the place of disk 2 all is well.
    fs::remove_dir(&two).unwrap();
    fs::rename(folder.path().join("x"), &two).unwrap();
    let (set, known_now) = open(&[&one, &two], &owner(), &known).await.unwrap();
    assert!(set.volumes().iter().all(|volume| volume.status().health == Health::Ok));
    assert_eq!(known_now[0], KnownDisk { path: one, id: known[1].id, added: false, removed: false });
}

#[tokio::test]
async fn a_disk_taken_out_of_the_configuration_stays_known() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("1"), folder.path().join("2"));
    let (_, known) = open(&[&one, &two], &owner(), &[]).await.unwrap();
    let (set, still_known) = open(&[&two], &owner(), &known).await.unwrap();
    assert_eq!(set.volumes().len(), 1);
    assert!(still_known.contains(&known[0]));
}

#[tokio::test]
async fn joining_is_stamped_and_another_cluster_refused() {
    let folder = tempfile::tempdir().unwrap();
    let single = Owner { cluster: None, ..owner() };
    let (set, _) = open(&[folder.path()], &single, &[]).await.unwrap();
    set.stamp(CLUSTER, Epoch(3)).await.unwrap();
    let read = || Superblock::decode(&fs::read(folder.path().join(SUPERBLOCK_FILE)).unwrap()).unwrap();
    assert_eq!((read().cluster, read().epoch), (Some(CLUSTER), Epoch(3)));
    assert!(matches!(set.stamp(ClusterId(0xC2), Epoch(3)).await, Err(DiskError::ForeignCluster { .. })));
    // Joining was interrupted before the identity was written: the disk is still this data folder's.
    open(&[folder.path()], &single, &[]).await.unwrap();
    assert_eq!(read().cluster, Some(CLUSTER));
}

#[tokio::test]
async fn an_interrupted_birth_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing but the superblock; and nothing but its temporary file.
    fs::write(folder.path().join(SUPERBLOCK_FILE), superblock().encode()).unwrap();
    let (set, _) = open(&[folder.path()], &owner(), &[]).await.unwrap();
    assert_eq!(set.volumes()[0].status().health, Health::Ok);
    write(&set.volumes()[0], head(1, 100, 10)).await;
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("resilver-disk.tmp"), "half a super").unwrap();
    open(&[other.path()], &owner(), &[]).await.unwrap();
}

proptest! {
    /// Whatever byte flips, wherever the file is cut: damaged; never a newer format or somebody else's disk.
    #[test]
    fn damage_to_a_superblock_is_never_taken_for_anything_else(at: prop::sample::Index, flip in 1_u8..=255, cut: bool) {
        let whole = superblock().encode();
        prop_assert_eq!(Superblock::decode(&whole), Ok(superblock()));
        let mut bytes = whole.to_vec();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
        prop_assert!(matches!(Superblock::decode(&bytes), Err(Unreadable::Damaged(_))));
    }
}
