//! One story per way in which a device fails.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::ErrorKind;

use bytes::Bytes;
use common::*;
use resilver_host::OpenMode;
use resilver_sim_disk::{Damage, DeviceFault, Filter, Times};

#[test]
fn read_errors_strike_their_paths_as_often_as_they_shall() {
    run(async {
        let (system, disk) = machine(1, ROOMY);
        let sick = durable(&*disk, "/data/shard-1", b"one").await;
        let well = durable(&*disk, "/data/shard-2", b"two").await;

        let on = Filter::Containing("shard-1".to_owned());
        system.fault(path("/data"), DeviceFault::read_error(on, Times::Next(2)));
        assert_eq!(code(sick.read_at(0, 3).await), EIO);
        assert_eq!(&well.read_at(0, 3).await.unwrap()[..], b"two");
        assert_eq!(sick.len().await.unwrap(), 3, "the length is not asked of the disk");
        assert_eq!(code(sick.read_at(0, 3).await), EIO);
        assert_eq!(&sick.read_at(0, 3).await.unwrap()[..], b"one", "twice, then never again");

        system.fault(path("/data"), DeviceFault::read_error(Filter::Under(path("/data").into()), Times::Always));
        for _ in 0..5 {
            assert_eq!(code(well.read_at(0, 3).await), EIO);
            assert_eq!(code(disk.list(path("/data")).await), EIO);
        }
        durable(&*disk, "/elsewhere", b"another device").await.read_at(0, 1).await.unwrap();
        system.mend(path("/data"));
        assert_eq!(&well.read_at(0, 3).await.unwrap()[..], b"two");
    });
}

#[test]
fn a_failed_write_changes_nothing() {
    run(async {
        let (system, disk) = machine(1, ROOMY);
        let file = durable(&*disk, "/data/file", b"before").await;
        system.fault(path("/data"), DeviceFault::write_error(Filter::Any, Times::Always));
        assert_eq!(code(file.write_at(0, Bytes::from_static(b"after")).await), EIO);
        assert_eq!(code(file.set_len(1).await), EIO);
        assert_eq!(code(file.allocate(1 << 20, true).await), EIO);
        assert_eq!(code(disk.open(path("/data/new"), OpenMode::CreateNew).await), EIO);
        assert_eq!(code(disk.rename(path("/data/file"), path("/data/moved")).await), EIO);
        assert_eq!(code(disk.remove_file(path("/data/file")).await), EIO);
        assert_eq!(code(disk.create_dir_all(path("/data/folder")).await), EIO);
        assert_eq!(&file.read_at(0, 9).await.unwrap()[..], b"before");
        assert_eq!(names(&*disk, "/data").await, ["file"]);
        disk.open(path("/data/file"), OpenMode::Create).await.expect("nothing to create, nothing to write");
    });
}

#[test]
fn after_a_failed_sync_no_later_sync_brings_the_data_back() {
    run(async {
        let (system, disk) = machine(1, ROOMY);
        let file = durable(&*disk, "/data/file", b"old old old").await;
        file.write_at(0, Bytes::from_static(b"new")).await.unwrap();
        system.fault(path("/data"), DeviceFault::sync_error(Filter::Any, Times::Next(1)));
        assert_eq!(code(file.sync().await), EIO);

        // The trap: the retry succeeds, and what was written is still to be seen.
        file.sync().await.unwrap();
        assert_eq!(&file.read_at(0, 11).await.unwrap()[..], b"new old old");
        file.write_at(4, Bytes::from_static(b"NEW")).await.unwrap();
        file.sync().await.unwrap();
        assert_eq!(&system.synced_content(path("/data/file")).unwrap()[..], b"old NEW old");

        system.power_loss();
        assert_eq!(&system.content(path("/data/file")).unwrap()[..], b"old NEW old");
    });
}

#[test]
fn a_folder_whose_sync_failed_can_be_synced_later() {
    run(async {
        let (system, disk) = machine(3, ROOMY);
        create(&*disk, "/data/file").await;
        system.fault(path("/data"), DeviceFault::sync_error(Filter::Any, Times::Next(1)));
        assert_eq!(code(disk.sync_dir(path("/data")).await), EIO);
        disk.sync_dir(path("/data")).await.unwrap();
        system.power_loss();
        assert_eq!(names(&*disk, "/data").await, ["file"]);
    });
}

#[test]
fn a_disk_without_room_takes_what_fits_and_says_so() {
    run(async {
        let (system, disk) = machine(1, 10 * 4096);
        let space = disk.space(path("/data")).await.unwrap();
        assert_eq!((space.total_bytes, space.available_bytes), (40_960, 40_960));

        let file = create(&*disk, "/data/file").await;
        file.allocate(8 * 4096, false).await.unwrap();
        assert_eq!(disk.space(path("/data")).await.unwrap().available_bytes, 2 * 4096);
        assert_eq!(code(file.allocate(11 * 4096, false).await), ENOSPC);
        let other = create(&*disk, "/data/other").await;
        let error = other.write_at(100, vec![7; 3 * 4096].into()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert_eq!(other.len().await.unwrap(), 2 * 4096, "what found room is there");
        file.write_at(0, vec![1; 8 * 4096].into()).await.expect("its room was reserved");
        assert_eq!(code(disk.open(path("/data/third"), OpenMode::Create).await), ENOSPC);

        // Removed but open: the room comes back with the last handle.
        disk.remove_file(path("/data/other")).await.unwrap();
        assert_eq!(disk.space(path("/data")).await.unwrap().available_bytes, 0);
        assert_eq!(other.read_at(100, 1).await.unwrap()[0], 7, "an open file outlives its name");
        drop(other);
        assert_eq!(disk.space(path("/data")).await.unwrap().available_bytes, 2 * 4096);
        file.set_len(5).await.unwrap();
        assert_eq!(disk.space(path("/data")).await.unwrap().available_bytes, 9 * 4096, "a cut gives room back");

        system.fault(path("/data"), DeviceFault::Full);
        assert_eq!(disk.space(path("/data")).await.unwrap().available_bytes, 0);
        file.write_at(0, Bytes::from_static(b"over what is there")).await.expect("needs no new room");
        assert_eq!(code(file.write_at(5000, Bytes::from_static(b"x")).await), ENOSPC);
        assert_eq!(code(disk.create_dir_all(path("/data/folder")).await), ENOSPC);
        system.mend(path("/data"));
        file.write_at(5000, Bytes::from_static(b"x")).await.unwrap();
    });
}

#[test]
fn a_crowded_disk_has_the_room_that_is_left_until_it_is_mended() {
    run(async {
        let (system, disk) = machine(1, 100 * 4096);
        let file = create(&*disk, "/data/file").await;
        file.allocate(8 * 4096, false).await.unwrap();
        system.fault(path("/data"), DeviceFault::Crowded { permille: 900 });
        assert_eq!(disk.space(path("/data")).await.unwrap().available_bytes, 2 * 4096);
        assert_eq!(code(file.allocate(11 * 4096, false).await), ENOSPC);
        file.allocate(10 * 4096, false).await.expect("what is left may be used");
        system.mend(path("/data"));
        assert_eq!(disk.space(path("/data")).await.unwrap().available_bytes, 90 * 4096);
    });
}

#[test]
fn no_file_grows_beyond_what_a_file_system_can_hold() {
    run(async {
        let (_, disk) = machine(1, ROOMY);
        let file = create(&*disk, "/data/file").await;
        let error = file.write_at(1 << 44, Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        assert_eq!(file.set_len(1 << 44).await.unwrap_err().kind(), ErrorKind::FileTooLarge);
        file.set_len(1 << 43).await.expect("a hole costs nothing");
        file.write_at((1 << 43) - 1, Bytes::from_static(b"x")).await.unwrap();
        let long = "n".repeat(256);
        let error = disk.open(&path("/data").join(long), OpenMode::Create).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidFilename);
    });
}

#[test]
fn a_vanished_disk_answers_nothing_and_returns_with_its_content() {
    run(async {
        let (system, disk) = machine(1, ROOMY);
        let file = durable(&*disk, "/data/file", b"kept").await;
        system.fault(path("/data"), DeviceFault::Vanished);
        assert_eq!(code(file.read_at(0, 1).await), EIO);
        assert_eq!(code(file.write_at(0, Bytes::from_static(b"x")).await), EIO);
        assert_eq!(code(disk.metadata(path("/data/file")).await), ENODEV);
        assert_eq!(code(disk.open(path("/data/file"), OpenMode::Read).await), ENODEV);
        assert_eq!(code(disk.open_blocking(path("/data/file"), OpenMode::Read)), ENODEV);
        assert_eq!(code(disk.space(path("/data")).await), ENODEV);
        assert_eq!(names(&*disk, "/").await, ["data"], "the folder above is another disk's");
        system.mend(path("/data"));
        assert_eq!(&file.read_at(0, 9).await.unwrap()[..], b"kept");
    });
}

#[test]
fn a_read_only_disk_can_be_read_and_clean_files_synced() {
    run(async {
        let (system, disk) = machine(1, ROOMY);
        let clean = durable(&*disk, "/data/clean", b"kept").await;
        let dirty = durable(&*disk, "/data/dirty", b"old").await;
        dirty.write_at(0, Bytes::from_static(b"new")).await.unwrap();
        system.fault(path("/data"), DeviceFault::ReadOnly);
        assert_eq!(&clean.read_at(0, 9).await.unwrap()[..], b"kept");
        clean.drop_cache().await.unwrap();
        disk.sync_dir(path("/data")).await.unwrap();
        let error = clean.write_at(0, Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
        assert_eq!(code(disk.open(path("/data/clean"), OpenMode::Write).await), EROFS);
        assert_eq!(code(disk.open(path("/data/new"), OpenMode::Create).await), EROFS);
        disk.open(path("/data/clean"), OpenMode::Read).await.unwrap();
        disk.create_dir_all(path("/data")).await.expect("it is there");
        assert_eq!(code(dirty.sync().await), EROFS);
        system.mend(path("/data"));
        dirty.sync().await.unwrap();
        system.power_loss();
        assert_eq!(&system.content(path("/data/dirty")).unwrap()[..], b"old", "a failed sync is a failed sync");
    });
}

#[test]
fn a_flipped_bit_stays_until_it_is_written_over() {
    run(async {
        let (system, disk) = machine(5, ROOMY);
        let file = durable(&*disk, "/data/file", &[0; 2000]).await;
        let Some(Damage::Rot { offset, bit, .. }) = system.rot(path("/data"), &Filter::Any) else { panic!("no rot") };
        let rotten = file.read_at(0, 2000).await.unwrap();
        let expected: Vec<u8> = (0..2000).map(|at| if at == offset { 1 << bit } else { 0 }).collect();
        assert_eq!(rotten, expected, "one bit, seen at once");
        system.mend(path("/data"));
        system.power_loss();
        assert_eq!(system.content(path("/data/file")).unwrap(), expected);

        let file = disk.open(path("/data/file"), OpenMode::Write).await.unwrap();
        file.write_at(0, vec![0; 2000].into()).await.unwrap();
        file.sync().await.unwrap();
        assert_eq!(system.content(path("/data/file")).unwrap(), vec![0; 2000]);
        assert_eq!(system.damage().len(), 1);
        assert_eq!(system.rot(path("/data"), &Filter::Containing("absent".to_owned())), None);
    });
}

#[test]
fn rot_under_unsynced_bytes_is_not_seen_before_they_are_lost() {
    run(async {
        let (system, disk) = machine(5, ROOMY);
        let file = durable(&*disk, "/data/file", b"a").await;
        file.write_at(0, Bytes::from_static(b"b")).await.unwrap();
        system.flip_bit(path("/data/file"), 0..1).unwrap();
        assert_eq!(&file.read_at(0, 1).await.unwrap()[..], b"b");
        assert_ne!(&system.synced_content(path("/data/file")).unwrap()[..], b"a");
        file.sync().await.unwrap();
        assert_eq!(&system.synced_content(path("/data/file")).unwrap()[..], b"b");
        assert_eq!(system.flip_bit(path("/data/file"), 1..9), None, "nothing is there");

        // The same of bytes that a failed sync left in memory only.
        file.write_at(0, Bytes::from_static(b"c")).await.unwrap();
        system.fault(path("/data"), DeviceFault::sync_error(Filter::Any, Times::Next(1)));
        file.sync().await.unwrap_err();
        system.flip_bit(path("/data/file"), 0..1).unwrap();
        assert_eq!(&file.read_at(0, 1).await.unwrap()[..], b"c");
    });
}

#[test]
fn a_misdirected_write_hurts_exactly_one_other_place() {
    let mut elsewhere = 0;
    for seed in 0..100 {
        run(async {
            let (system, disk) = machine(seed, ROOMY);
            let victim = durable(&*disk, "/data/victim", &[1; 4096]).await;
            let file = durable(&*disk, "/data/file", &[2; 4096]).await;
            system.misdirect_next_write(path("/data"), Filter::Path("/data/file".into()));
            victim.write_at(0, vec![1; 10].into()).await.unwrap();
            file.write_at(1024, vec![9; 512].into()).await.expect("the disk says that all is well");
            file.sync().await.unwrap();

            let damage = system.damage();
            let [Damage::Misdirected { landed: Some((landed, at)), .. }] = &damage[..] else { panic!("{damage:?}") };
            assert_eq!(at % 512, 0);
            assert!((landed, *at) != (&path("/data/file").to_owned(), 1024), "seed {seed}");
            elsewhere += usize::from(landed == path("/data/victim"));
            for (name, byte) in [("/data/victim", 1), ("/data/file", 2)] {
                let mut expected = vec![byte; 4096];
                if landed == path(name) {
                    expected[*at as usize..*at as usize + 512].fill(9);
                }
                assert_eq!(system.content(path(name)).unwrap(), expected, "seed {seed}");
                assert_eq!(system.synced_content(path(name)).unwrap(), expected, "seed {seed}");
            }
            file.write_at(1024, vec![9; 512].into()).await.unwrap();
            assert_eq!(&file.read_at(1024, 512).await.unwrap()[..], [9; 512], "only the next write went astray");
        });
    }
    assert!((10..90).contains(&elsewhere), "{elsewhere} of 100 landed in the other file");
}

#[test]
fn a_misdirected_append_leaves_a_hole_of_the_right_length() {
    run(async {
        let (system, disk) = machine(1, ROOMY);
        let file = create(&*disk, "/data/file").await;
        system.misdirect_next_write(path("/data"), Filter::Any);
        file.write_at(0, vec![9; 100].into()).await.unwrap();
        assert_eq!(&file.read_at(0, 200).await.unwrap()[..], [0; 100], "there was no other place");
    });
}

#[test]
fn a_replaced_disk_is_empty_and_what_was_open_is_stale() {
    run(async {
        let (system, disk) = machine(1, ROOMY);
        let file = durable(&*disk, "/data/file", b"gone").await;
        let other = durable(&*disk, "/other", b"stays").await;
        system.wipe(path("/data"));
        assert_eq!(code(file.read_at(0, 1).await), ESTALE);
        assert!(names(&*disk, "/data").await.is_empty());
        let space = disk.space(path("/data")).await.unwrap();
        assert_eq!(space.available_bytes, space.total_bytes);
        durable(&*disk, "/data/file", b"new").await;
        drop(file);
        assert_eq!(&other.read_at(0, 9).await.unwrap()[..], b"stays");

        system.wipe(path("/"));
        assert_eq!(names(&*disk, "/").await, ["data"]);
        assert_eq!(&system.content(path("/data/file")).unwrap()[..], b"new");
    });
}

#[test]
fn a_mount_is_a_place_that_cannot_be_moved_or_left_by_a_rename() {
    run(async {
        let (_, disk) = machine(1, ROOMY);
        durable(&*disk, "/file", b"x").await;
        let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(disk.rename(path("/file"), path("/data/file")).await), ErrorKind::CrossesDevices);
        assert_eq!(kind(disk.remove_dir(path("/data")).await), ErrorKind::ResourceBusy);
        assert_eq!(kind(disk.rename(path("/data"), path("/moved")).await), ErrorKind::ResourceBusy);
        assert_eq!(kind(disk.remove_dir(path("/")).await), ErrorKind::ResourceBusy);
    });
}

#[test]
fn faults_and_damage_read_well_in_a_trace() {
    let (system, _) = machine(1, ROOMY);
    let faults = [
        DeviceFault::read_error(Filter::Under("/data/shards".into()), Times::Next(3)),
        DeviceFault::sync_error(Filter::Any, Times::Always),
        DeviceFault::Slow { factor: 20 },
        DeviceFault::ReadOnly,
    ];
    for fault in faults {
        system.fault(path("/data"), fault);
    }
    let told: Vec<_> = system.faults(path("/data")).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["read error on /data/shards/**, 3 times", "sync error on every path, always", "20 times slower", "read-only"]
    );
    assert_eq!(system.devices(), [path("/"), path("/data")]);
    let rot = Damage::Rot { file: "/data/x".into(), offset: 7, bit: 2 };
    assert_eq!(rot.to_string(), "bit 2 of byte 7 of /data/x flipped");
}
