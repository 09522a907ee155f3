//! The disk of the seam against the real file system.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use bytes::Bytes;
use resilver_host::disk::{read_file, replace_file, replace_private_file};
use resilver_host::{FileKind, OpenMode, real};

#[tokio::test]
async fn what_is_written_is_read_back_at_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let host = real::host();
    let path = dir.path().join("file");

    let file = host.disk.open(&path, OpenMode::CreateNew).await.unwrap();
    // Larger than any pipe or page: `write_at` must not stop half way.
    let data = Bytes::from((0..3_000_001_u32).map(|n| n as u8).collect::<Vec<_>>());
    file.write_at(10, data.clone()).await.unwrap();
    file.sync().await.unwrap();
    assert_eq!(file.len().await.unwrap(), 10 + data.len() as u64);
    assert_eq!(file.read_at(0, 10).await.unwrap(), Bytes::from_static(&[0; 10]));
    assert_eq!(file.read_at(10, data.len()).await.unwrap(), data);
    assert_eq!(file.read_at(10, data.len() + 500).await.unwrap(), data, "fewer only at the end");
    assert!(file.read_at(1 << 40, 1).await.unwrap().is_empty(), "past the end is empty, not an error");

    file.drop_cache().await.unwrap();
    assert_eq!(file.read_at(10, data.len()).await.unwrap(), data);

    file.set_len(12).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 12);
    file.set_len(20).await.unwrap();
    assert_eq!(file.read_at(12, 100).await.unwrap(), Bytes::from_static(&[0; 8]), "grown with zeros");
    assert_eq!(host.disk.metadata(&path).await.unwrap().len_bytes, 20);
}

#[tokio::test]
async fn each_mode_opens_what_it_says_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let disk = real::host().disk;
    let path = dir.path().join("file");
    let kind = async |mode| disk.open(&path, mode).await.err().map(|error| error.kind());

    assert_eq!(kind(OpenMode::Read).await, Some(ErrorKind::NotFound));
    assert_eq!(kind(OpenMode::Write).await, Some(ErrorKind::NotFound));
    let file = disk.open(&path, OpenMode::CreateNew).await.unwrap();
    file.write_at(0, Bytes::from_static(b"content")).await.unwrap();
    assert_eq!(kind(OpenMode::CreateNew).await, Some(ErrorKind::AlreadyExists));

    let opened = disk.open(&path, OpenMode::Create).await.unwrap();
    assert_eq!(opened.len().await.unwrap(), 7, "opened as it is, not cut");
    let reader = disk.open(&path, OpenMode::Read).await.unwrap();
    reader.write_at(0, Bytes::from_static(b"x")).await.expect_err("read only");
    assert_eq!(reader.read_at(0, 7).await.unwrap(), Bytes::from_static(b"content"));
}

#[tokio::test]
async fn reserving_room_keeps_the_visible_length_unless_it_shall_grow() {
    let dir = tempfile::tempdir().unwrap();
    let disk = real::host().disk;
    let path = dir.path().join("file");
    let file = disk.open(&path, OpenMode::CreateNew).await.unwrap();
    file.write_at(0, Bytes::from_static(b"visible")).await.unwrap();

    file.allocate(1 << 20, false).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 7);
    let reserved_bytes = std::fs::metadata(&path).unwrap().blocks() * 512;
    assert!(reserved_bytes >= 1 << 20, "{reserved_bytes} bytes are reserved");

    file.allocate(1 << 20, true).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 1 << 20);
    file.allocate(100, true).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 1 << 20, "never shortens");
    file.allocate(0, true).await.unwrap();
    assert_eq!(file.read_at(0, 9).await.unwrap(), Bytes::from_static(b"visible\0\0"));
}

#[tokio::test]
async fn a_file_is_replaced_whole() {
    let dir = tempfile::tempdir().unwrap();
    let disk = real::host().disk;
    let path = dir.path().join("identity.json");

    replace_file(&*disk, &path, Bytes::from_static(b"a long first version")).await.unwrap();
    // A leftover of a crash in the middle of an earlier replacement.
    std::fs::write(dir.path().join("identity.json.tmp"), vec![7; 1000]).unwrap();
    replace_file(&*disk, &path, Bytes::from_static(b"second")).await.unwrap();

    assert_eq!(read_file(&*disk, &path, 100).await.unwrap(), Bytes::from_static(b"second"));
    let names: Vec<_> = disk.list(dir.path()).await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["identity.json"]);
    assert_eq!(read_file(&*disk, &path, 5).await.unwrap_err().kind(), ErrorKind::InvalidData);

    let nowhere = dir.path().join("absent/identity.json");
    assert_eq!(replace_file(&*disk, &nowhere, Bytes::new()).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn folders_are_made_synced_listed_and_files_renamed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = real::host().disk;
    let deep = dir.path().join("a/b/c");
    disk.create_dir_all(&deep).await.unwrap();
    disk.create_dir_all(&deep).await.unwrap();
    disk.sync_dir(&deep).await.unwrap();

    for name in ["zebra", "Ant", "mole"] {
        disk.open(&deep.join(name), OpenMode::CreateNew).await.unwrap();
    }
    disk.create_dir_all(&deep.join("folder")).await.unwrap();
    std::os::unix::fs::symlink("/", deep.join("link")).unwrap();
    let listed = disk.list(&deep).await.unwrap();
    let found: Vec<_> = listed.iter().map(|entry| (entry.name.as_str(), entry.kind)).collect();
    assert_eq!(
        found,
        [
            ("Ant", FileKind::File),
            ("folder", FileKind::Dir),
            ("link", FileKind::Other),
            ("mole", FileKind::File),
            ("zebra", FileKind::File),
        ]
    );

    disk.rename(&deep.join("zebra"), &deep.join("mole")).await.unwrap();
    disk.remove_file(&deep.join("Ant")).await.unwrap();
    assert_eq!(disk.remove_file(&deep.join("Ant")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.metadata(&deep.join("zebra")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.metadata(&deep).await.unwrap().kind, FileKind::Dir);

    let absent = dir.path().join("absent");
    assert_eq!(disk.sync_dir(&absent).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.sync_dir(&deep.join("mole")).await.unwrap_err().kind(), ErrorKind::NotADirectory);
    assert_eq!(disk.list(&absent).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.space(&absent).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn the_room_of_a_file_system_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let space = real::host().disk.space(dir.path()).await.unwrap();
    assert!(space.total_bytes > 0);
    assert!(space.available_bytes <= space.total_bytes);
}

#[test]
fn the_synchronous_face_reads_exactly_or_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let disk = real::host().disk;
    let path = dir.path().join("redb");
    assert_eq!(disk.open_blocking(&path, OpenMode::Write).unwrap_err().kind(), ErrorKind::NotFound);

    let file = disk.open_blocking(&path, OpenMode::Create).unwrap();
    file.set_len(8).unwrap();
    file.write_all_at(4, b"page").unwrap();
    file.sync().unwrap();
    assert_eq!(file.len().unwrap(), 8);
    let mut page = [0; 6];
    file.read_exact_at(2, &mut page).unwrap();
    assert_eq!(&page, b"\0\0page");
    assert_eq!(file.read_exact_at(4, &mut page).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(disk.open_blocking(&path, OpenMode::CreateNew).unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[tokio::test]
async fn a_secret_is_readable_for_nobody_else_and_replaced_whole() {
    let dir = tempfile::tempdir().unwrap();
    let disk = real::host().disk;
    let path = dir.path().join("secret.json");
    // A crash left a temporary file that everybody may read.
    std::fs::write(dir.path().join("secret.json.tmp"), "half").unwrap();

    for content in ["first and long", "second"] {
        replace_private_file(&*disk, &path, Bytes::from_static(content.as_bytes())).await.unwrap();
        assert_eq!(read_file(&*disk, &path, 100).await.unwrap(), content.as_bytes());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
}
