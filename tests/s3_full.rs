//! Full file systems under the S3 door: writes are refused with an error that says so, reads and deletes go on, and room that
//! comes back is used. Needs root, for mounts in a namespace of their own, and the Python that $RESILVER_S3_PYTHON names.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests are the outside world

#[path = "support/s3.rs"]
mod clients;
#[path = "support/lone.rs"]
mod lone;
#[path = "support/mounts.rs"]
mod mounts;

use std::path::PathBuf;

use clients::{Answer, Clients};
use lone::{Lone, Running, eventually, is_root};
use mounts::Mounts;

const WHY: &str = "mounting small file systems";
const MIB: usize = 1024 * 1024;
/// One node with three disks of `DISK_MIB` and metadata on `META_MIB`.
const DISKS: [&str; 3] = ["disk1", "disk2", "disk3"];
const DISK_MIB: u32 = 32;
const META_MIB: u32 = 96;
/// So much is left of a full metadata disk: enough for the deletes that make room.
const META_LEFT_BYTES: u64 = 2 * MIB as u64;
/// What HTTP calls a store without room (RFC 4918, 11.5); S3, whose room has no end, has no name for it.
const INSUFFICIENT_STORAGE: u64 = 507;

/// A node with a door, on small file systems of its own.
struct Full {
    lone: Lone,
    mounts: Mounts,
    clients: Clients,
    access: PathBuf,
    _running: Running,
}

impl Full {
    /// Founded, with bucket `kept` (1+1). None where this cannot be run.
    fn start() -> Option<Self> {
        let clients = Clients::find()?;
        if !is_root(WHY) {
            return None;
        }
        let lone = Lone::new("n1", DISKS.len(), &[]);
        let door = lone.open_s3("");
        // What is deleted is collected within seconds, not after the longest read of production.
        lone.configure("read_deadline: 2s");
        let disks = DISKS.map(|disk| lone.path(disk));
        let meta = lone.path("meta");
        let sizes: Vec<_> =
            disks.iter().map(|disk| (disk.as_path(), DISK_MIB)).chain([(meta.as_path(), META_MIB)]).collect();
        let mounts = Mounts::new(&sizes);
        let running = lone.start_as(&mounts.enter(&lone.command()));
        lone.found();
        lone.ok(&["bucket", "create", "kept", "--coding", "1+1"]);
        let access = lone.s3_access(&door);
        Some(Self { lone, mounts, clients, access, _running: running })
    }

    fn ask(&self, method: &str, target: &str) -> Answer {
        self.clients.one(&self.access, method, target, 0)
    }

    fn put(&self, key: &str, bytes: usize) -> Answer {
        self.clients.one(&self.access, "PUT", &format!("/kept/{key}"), bytes)
    }

    /// Reads, listings and deletes of what is there go on.
    fn expect_served(&self, key: &str, bytes: usize) {
        let got = self.ask("GET", &format!("/kept/{key}"));
        assert_eq!((got.status, got.bytes), (200, bytes as u64), "{got:?}");
        assert_eq!(self.ask("HEAD", &format!("/kept/{key}")).status, 200);
        let listed = self.ask("GET", &format!("/kept?list-type=2&prefix={key}"));
        assert!(listed.status == 200 && listed.text.contains(&format!("<Key>{key}</Key>")), "{listed:?}");
    }

    fn expect_deleted(&self, key: &str) {
        assert_eq!(self.ask("DELETE", &format!("/kept/{key}")).status, 204);
        assert_eq!(self.ask("GET", &format!("/kept/{key}")).code, "NoSuchKey");
    }

    fn expect_room_again(&self) {
        eventually("there is room again", || self.put("later", 1000).status == 200);
        self.expect_served("later", 1000);
    }
}

/// A refusal that says that there is no room: neither a crash nor a reason to try again at once.
fn expect_no_room(answer: &Answer) {
    assert_eq!((answer.status, answer.code.as_str()), (INSUFFICIENT_STORAGE, "InsufficientStorage"), "{answer:?}");
}

#[test]
fn one_full_disk_is_nobodys_trouble_and_all_of_them_refuse_puts_only() {
    let Some(full) = Full::start() else { return };
    assert_eq!(full.put("before", MIB).status, 200);
    // Phase 1: one disk of three fills up to its last byte. What is put goes to the others.
    let mut fillers = vec![full.mounts.fill(&full.lone.path(DISKS[0]))];
    eventually("a put goes to the other disks", || full.put("during", MIB).status == 200);
    full.expect_served("during", MIB);
    // Phase 2: all of them.
    fillers.extend(DISKS[1..].iter().map(|disk| full.mounts.fill(&full.lone.path(disk))));
    expect_no_room(&full.put("refused", MIB));
    assert_eq!(full.ask("GET", "/kept/refused").code, "NoSuchKey");
    full.expect_served("before", MIB);
    full.expect_served("during", MIB);
    full.expect_deleted("during");
    // Phase 3: room comes back.
    fillers.iter().for_each(|filler| std::fs::remove_file(filler).unwrap());
    full.expect_room_again();
    full.expect_served("before", MIB);
}

#[test]
fn a_cluster_full_of_objects_takes_more_when_some_are_deleted() {
    let Some(full) = Full::start() else { return };
    // Phase 1: objects until the disks are full.
    let mut kept = Vec::new();
    let refused = loop {
        let key = format!("k{:03}", kept.len());
        assert!(kept.len() < 100, "100 objects of 1 MiB fit on disks of {DISK_MIB} MiB");
        let answer = full.put(&key, MIB);
        if answer.status != 200 {
            break answer;
        }
        kept.push(key);
    };
    expect_no_room(&refused);
    assert!(kept.len() > 20, "only {} objects fit", kept.len());
    // Phase 2: parts are refused like objects, and an upload that is aborted leaves nothing.
    let created = full.ask("POST", "/kept/upload?uploads");
    if created.status == 200 {
        let id = created.text.split("<UploadId>").nth(1).unwrap().split('<').next().unwrap().to_owned();
        // What the refused put left on the way is removed behind it: one part may find room in that, not all of them.
        let mut answers = (1..=DISKS.len()).map(|part| {
            let target = format!("/kept/upload?partNumber={part}&uploadId={id}");
            full.clients.one(&full.access, "PUT", &target, MIB)
        });
        expect_no_room(&answers.find(|answer| answer.status != 200).expect("parts go on as long as there is room"));
        assert_eq!(full.ask("DELETE", &format!("/kept/upload?uploadId={id}")).status, 204);
    } else {
        expect_no_room(&created);
    }
    // Phase 3: deletes work, make room when the longest read is over, and what stayed is whole.
    for key in &kept[..5] {
        full.expect_deleted(key);
    }
    eventually("the deleted objects' room is used", || full.put("more", 2 * MIB).status == 200);
    full.expect_served("more", 2 * MIB);
    full.expect_served(kept.last().unwrap(), MIB);
}

#[test]
fn a_full_metadata_disk_refuses_writes_and_serves_reads_and_deletes() {
    let Some(full) = Full::start() else { return };
    assert_eq!(full.put("before", MIB).status, 200);
    assert_eq!(full.put("deleted", MIB).status, 200);
    // Phase 1: the metadata's file system is all but full, with plenty of room for objects.
    let filler = full.mounts.fill_but(&full.lone.path("meta"), META_LEFT_BYTES);
    let mut refused = None;
    eventually("a put is refused", || {
        let answer = full.put("refused", 1000);
        let over = answer.status != 200;
        refused = Some(answer);
        over
    });
    expect_no_room(&refused.unwrap());
    expect_no_room(&full.ask("PUT", "/another-bucket"));
    expect_no_room(&full.ask("POST", "/kept/upload?uploads"));
    // Phase 2: what is there is read, listed and deleted, and the node stays.
    full.expect_served("before", MIB);
    full.expect_deleted("deleted");
    full.lone.await_phase("healthy");
    // Phase 3: room comes back.
    std::fs::remove_file(filler).unwrap();
    full.expect_room_again();
    full.expect_served("before", MIB);
}
