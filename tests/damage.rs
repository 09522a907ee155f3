//! Damaged and newer files under a real node: it says which file and what to do, ends or waits as documented, and changes
//! none of them.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests are the outside world

#[path = "support/lone.rs"]
mod lone;

use std::path::{Path, PathBuf};

use lone::{Lone, eventually, files_below};
use redb::{ReadableDatabase, TableDefinition};

/// Long enough for two stripes, so that a flip in the middle hits content.
const CONTENT_BYTES: usize = 300_000;

/// A format that no release of ours will have soon.
const NEWER: u8 = 99;

/// Distance of the two slots in `header` and `vote` (docs/formats.md).
const SLOT_BYTES: usize = 4096;

fn content() -> Vec<u8> {
    (0..CONTENT_BYTES).map(|at| (at % 251) as u8).collect()
}

fn change(path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    how(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn garbage(path: &Path) {
    change(path, |bytes| bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at % 7) as u8 ^ 0xA5));
}

fn truncated(path: &Path, to: usize) {
    change(path, |bytes| bytes.truncate(to));
}

#[test]
fn lost_metadata_makes_a_lost_voter_that_says_so_and_changes_nothing() {
    let lone = Lone::founded(&content());
    let whole = lone.evidence();
    let log = lone.path("meta/log");
    let segment = log.join("segment-0000000000000000");
    let database = lone.path("meta/state.redb");
    type Damage<'a> = (&'a str, &'a Path, &'a dyn Fn(&Path));
    let header = log.join("header");
    let vote = log.join("vote");
    let damages: [Damage<'_>; 11] = [
        ("garbage in the segment", &segment, &garbage),
        // Behind the head and in the midst of the first records, all of which were synced.
        ("a truncated segment", &segment, &|path| truncated(path, SLOT_BYTES + 40)),
        ("an empty segment", &segment, &|path| truncated(path, 0)),
        ("no segment", &segment, &|path| std::fs::remove_file(path).unwrap()),
        ("garbage in the header", &header, &garbage),
        ("an empty header", &header, &|path| truncated(path, 0)),
        ("garbage in the vote", &vote, &garbage),
        ("an empty vote", &vote, &|path| truncated(path, 0)),
        ("garbage in the database", &database, &garbage),
        ("a truncated database", &database, &|path| change(path, |bytes| bytes.truncate(bytes.len() / 2))),
        ("an empty database", &database, &|path| truncated(path, 0)),
    ];
    for (what, path, damage) in damages {
        damage(path);
        let before = lone.evidence();
        let running = lone.start();
        let detail = lone.await_phase("lost_voter");
        let named = path.file_name().unwrap().to_str().unwrap();
        assert!(detail.contains(named), "{what}: the file is not named: {detail}");
        assert!(detail.contains("rejoin"), "{what}: no next step: {detail}");
        let status = lone.run(&["node", "status", "n1"]);
        assert_eq!(status.code, Some(3), "{what}: {}", status.stderr);
        assert!(status.stdout.contains("lost_voter"), "{what}: {}", status.stdout);
        let put = lone.run(&["bucket", "create", "another"]);
        assert_eq!(put.code, Some(4), "{what}: a lost voter serves nobody: {}", put.stderr);
        let ended = running.stop();
        assert_eq!(ended.code, Some(0), "{what}: a lost voter ends when asked: {}", ended.stderr);
        unchanged(what, &lone, &before);
        lone.restore(&whole);
    }
    // What was damaged came back, and with it everything that was acknowledged.
    let running = lone.start();
    lone.await_phase("healthy");
    assert_eq!(lone.read("kept/object"), content());
    running.stop();
}

#[test]
fn a_newer_format_is_refused_and_kept() {
    let lone = Lone::founded(&content());
    let whole = lone.evidence();
    let log = lone.path("meta/log");
    for (what, path) in [
        ("the log's header", log.join("header")),
        ("the vote", log.join("vote")),
        ("the log's segment", log.join("segment-0000000000000000")),
        ("the identity", lone.path("meta/identity.json")),
        ("the database", lone.path("meta/state.redb")),
        ("a disk", lone.path("disk1/resilver-disk")),
    ] {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("redb") => newer_database(&path),
            Some("json") => change(&path, |bytes| {
                let text = String::from_utf8(bytes.clone()).unwrap();
                let (before, after) = text.split_once("\"format\": ").unwrap();
                let after = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
                *bytes = format!("{before}\"format\": {NEWER}{after}").into_bytes();
            }),
            _ if path.ends_with("resilver-disk") => newer_superblock(&path),
            _ => change(&path, |bytes| newer_prefixes(bytes)),
        }
        let before = lone.evidence();
        let said = lone.start().ended();
        assert_eq!(said.code, Some(1), "{what}: {}", said.stderr);
        let error = said.stderr.lines().filter(|line| line.starts_with("error: ")).collect::<Vec<_>>();
        assert_eq!(error.len(), 1, "{what}: one message: {}", said.stderr);
        assert!(error[0].contains(&format!("format {NEWER}")), "{what}: {}", said.stderr);
        let named = path.file_name().unwrap().to_str().unwrap();
        assert!(error[0].contains(named) || error[0].contains("disk1"), "{what}: the file is not named: {}", error[0]);
        let next = ["run the release that wrote it", "start the newer version", "upgrade this node"];
        assert!(next.iter().any(|step| error[0].contains(step)), "{what}: no next step: {}", error[0]);
        unchanged(what, &lone, &before);
        lone.restore(&whole);
    }
    let running = lone.start();
    lone.await_phase("healthy");
    assert_eq!(lone.read("kept/object"), content());
    running.stop();
}

#[test]
fn a_damaged_shard_is_read_around_and_repaired() {
    let lone = Lone::founded(&content());
    let shard = &lone.shards()[0];
    let sound = std::fs::read(shard).unwrap();
    type Damage<'a> = (&'a str, &'a dyn Fn(&Path));
    let damages: [Damage<'_>; 5] = [
        ("flipped bytes", &|path| {
            change(path, |bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0xA5;
            })
        }),
        ("garbage", &garbage),
        ("a truncated file", &|path| change(path, |bytes| bytes.truncate(bytes.len() / 2))),
        ("an empty file", &|path| truncated(path, 0)),
        ("a header of another shard", &|path| change(path, |bytes| bytes[14] ^= 1)),
    ];
    for (what, damage) in damages {
        damage(shard);
        let running = lone.start();
        lone.await_phase("healthy");
        assert_eq!(lone.read("kept/object"), content(), "{what}");
        eventually(&format!("{what}: the shard is as it was written"), || {
            std::fs::read(shard).is_ok_and(|bytes| bytes == sound)
        });
        let verdict = lone.ok(&["object", "verify", "kept/object"]);
        assert!(!verdict.contains("CORRUPT"), "{what}: {verdict}");
        running.stop();
    }
    let aside = lone.shards_aside();
    assert_eq!(aside.len(), damages.len(), "what was replaced is kept aside: {aside:?}");
}

#[test]
fn a_shard_of_a_newer_format_is_kept_and_read_around() {
    let lone = Lone::founded(&content());
    let shard = lone.shards()[0].clone();
    change(&shard, |bytes| {
        bytes[8] = NEWER;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        // A later format may well have files of another length.
        bytes.extend_from_slice(b"something new");
    });
    let newer = std::fs::read(&shard).unwrap();
    let running = lone.start();
    lone.await_phase("healthy");
    assert_eq!(lone.read("kept/object"), content());
    let verdict = lone.run(&["object", "verify", "kept/object"]);
    assert_eq!(verdict.code, Some(3), "{}{}", verdict.stdout, verdict.stderr);
    assert!(verdict.stdout.contains(&format!("format {NEWER}")), "{}", verdict.stdout);
    let repair = lone.run(&["object", "repair", "kept/object"]);
    assert_ne!(repair.code, Some(0), "{}", repair.stdout);
    running.stop();
    assert_eq!(std::fs::read(&shard).unwrap(), newer, "a newer shard was overwritten");
    assert!(lone.shards_aside().is_empty(), "a newer shard was moved aside");
}

impl Lone {
    fn shards_aside(&self) -> Vec<PathBuf> {
        ["disk1/aside", "disk2/aside"].iter().flat_map(|aside| files_below(&self.path(aside)).into_keys()).collect()
    }
}

fn unchanged(what: &str, lone: &Lone, before: &std::collections::BTreeMap<PathBuf, Vec<u8>>) {
    let after = lone.evidence();
    let changed: Vec<_> = before
        .iter()
        .filter(|(path, bytes)| after.get(*path) != Some(bytes))
        .map(|(path, _)| path)
        .chain(after.keys().filter(|path| !before.contains_key(*path)))
        .collect();
    assert!(changed.is_empty(), "{what}: changed: {changed:?}");
}

/// Gives every sound prefix of a log file (16 bytes: magic, format, CRC) a newer format, checksum included.
fn newer_prefixes(bytes: &mut [u8]) {
    for at in [0, SLOT_BYTES] {
        let Some(prefix) = bytes.get_mut(at..at + 16).filter(|prefix| prefix.starts_with(b"RSLV")) else { continue };
        prefix[8] = NEWER;
        let crc = crc32c::crc32c(&prefix[..12]);
        prefix[12..].copy_from_slice(&crc.to_le_bytes());
    }
}

fn newer_superblock(path: &Path) {
    change(path, |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        let (line, _) = text.split_once('\n').unwrap();
        let line = line.replacen("\"format\":1", &format!("\"format\":{NEWER}"), 1);
        *bytes = format!("{line}\ncrc32c {:08x}\n", crc32c::crc32c(line.as_bytes())).into_bytes();
    });
}

fn newer_database(path: &Path) {
    const LOCAL: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("local");
    let database = redb::Database::open(path).unwrap();
    let known = database.begin_read().unwrap().open_table(LOCAL).unwrap().get(&b"format"[..]).unwrap().is_some();
    assert!(known, "the format lies elsewhere by now: this test has to follow");
    let txn = database.begin_write().unwrap();
    txn.open_table(LOCAL).unwrap().insert(&b"format"[..], &[NEWER, 0][..]).unwrap();
    txn.commit().unwrap();
}
