//! Full and read-only file systems under a real node: the cause and the next step are said, nothing acknowledged is lost,
//! and room that comes back is used. Needs root, for mounts in a namespace of their own.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests are the outside world

#[path = "support/lone.rs"]
mod lone;
#[path = "support/mounts.rs"]
mod mounts;

use resilver_proto::contract::node_control_client::NodeControlClient;
use resilver_proto::contract::{DiskRequest, DiskVerb, ObserveRequest};
use resilver_proto::transport::Profile;
use tonic::{Code, Status};

use lone::{Lone, Running, Said, eventually, is_root};
use mounts::Mounts;

const WHY: &str = "mounting small file systems";
const MIB: usize = 1024 * 1024;

fn content(seed: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at.wrapping_mul(31).wrapping_add(seed) % 251) as u8).collect()
}

/// A founded cluster of one node, with three disks of `mib` MiB each and metadata on 64, and bucket `kept` (1+1).
fn node_on_small_disks(mib: u32) -> (Lone, Mounts, Running) {
    let lone = Lone::new("n1", 3, &[]);
    let disks = ["disk1", "disk2", "disk3"].map(|disk| lone.path(disk));
    let meta = lone.path("meta");
    let sizes: Vec<_> = disks.iter().map(|disk| (disk.as_path(), mib)).chain([(meta.as_path(), 64)]).collect();
    let mounts = Mounts::new(&sizes);
    let running = lone.start_as(&mounts.enter(&lone.command()));
    lone.found();
    lone.ok(&["bucket", "create", "kept", "--coding", "1+1"]);
    (lone, mounts, running)
}

fn put(lone: &Lone, object: &str, content: &[u8]) -> Said {
    let from = lone.path("content");
    std::fs::write(&from, content).unwrap();
    lone.run(&["object", "put", object, from.to_str().unwrap()])
}

#[test]
fn full_disks_refuse_a_put_with_cause_and_next_step_and_keep_what_was_acknowledged() {
    if !is_root(WHY) {
        return;
    }
    // Phase 1: objects until the disks are full.
    let (lone, mounts, running) = node_on_small_disks(24);
    let mut kept = Vec::new();
    let refused = loop {
        let number = kept.len();
        assert!(number < 100, "100 objects of 1 MiB fit on disks of 24 MiB");
        let said = put(&lone, &format!("kept/{number}"), &content(number, MIB));
        match said.code {
            Some(0) => kept.push(number),
            _ => break said,
        }
    };
    assert!(kept.len() > 10, "only {} objects fit: {}", kept.len(), refused.stderr);
    // Phase 2: one message with cause and next step; not "unreachable", for the node is there.
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("full"), "{}", refused.stderr);
    assert!(refused.stderr.contains("free space") || refused.stderr.contains("next: "), "{}", refused.stderr);
    assert_eq!(refused.stderr.matches("error: ").count(), 1, "{}", refused.stderr);
    // An agent that gave one of them up would have its shards rebuilt where there is no room for them.
    let refused = given_up(&lone, "disk1").unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("do not fit elsewhere"), "{refused}");
    // Phase 3: to the last byte, which no reserve can prevent when others write there too.
    let fillers = ["disk1", "disk2", "disk3"].map(|disk| mounts.fill(&lone.path(disk)));
    assert_ne!(put(&lone, "kept/more", &content(1, 1000)).code, Some(0));
    for number in &kept {
        assert_eq!(lone.read(&format!("kept/{number}")), content(*number, MIB), "object {number}");
    }
    // Phase 4: a node on full disks starts, serves what it has, and takes more as soon as there is room.
    running.stop();
    let running = lone.start_as(&mounts.enter(&lone.command()));
    lone.await_phase("healthy");
    fillers.iter().for_each(|filler| std::fs::remove_file(filler).unwrap());
    lone.ok(&["object", "delete", "kept/0"]);
    lone.ok(&["object", "delete", "kept/1"]);
    eventually("there is room again", || put(&lone, "kept/later", &content(7, 1000)).code == Some(0));
    for number in &kept[2..] {
        assert_eq!(lone.read(&format!("kept/{number}")), content(*number, MIB), "object {number}");
    }
    running.stop();
}

#[test]
fn a_disk_is_given_up_by_an_agent_where_its_shards_have_room() {
    if !is_root(WHY) {
        return;
    }
    let (lone, _mounts, running) = node_on_small_disks(24);
    for number in 0..6 {
        assert_eq!(put(&lone, &format!("kept/{number}"), &content(number, MIB)).code, Some(0));
    }
    given_up(&lone, "disk1").unwrap();
    let homeless = || lone.status().and_then(|status| status["missing_shards"].as_u64());
    eventually("its shards are rebuilt", || homeless() == Some(0));
    for number in 0..6 {
        assert_eq!(lone.read(&format!("kept/{number}")), content(number, MIB), "object {number}");
    }
    // Asked once more it goes on, and nothing is on it any more.
    given_up(&lone, "disk1").unwrap();
    running.stop();
}

/// Asks the node to have no more to do with a disk, as its agent does.
fn given_up(lone: &Lone, folder: &str) -> Result<(), Status> {
    let asked = async {
        let host = resilver_host::real::host();
        let channel = resilver_proto::transport::channel(&host.net, &lone.address, Profile::Bulk).unwrap();
        let mut node = NodeControlClient::new(channel);
        let disks = node.observe(ObserveRequest {}).await?.into_inner().disks;
        let path = lone.path(folder).display().to_string();
        let disk_id = disks.into_iter().find(|disk| disk.path == path).expect("the node has this disk").disk_id;
        let verb = DiskVerb::Out.into();
        node.disk(DiskRequest { fence: None, disk_id, verb, automatic: true, reason: "a test".to_owned() }).await?;
        Ok(())
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(asked)
}

#[test]
fn a_full_metadata_disk_ends_the_node_with_its_cause_and_loses_nothing() {
    if !is_root(WHY) {
        return;
    }
    // Phase 1: the metadata's file system fills up while objects are put.
    let (lone, mounts, running) = node_on_small_disks(64);
    let meta = lone.path("meta");
    assert_eq!(put(&lone, "kept/before", &content(1, 1000)).code, Some(0));
    let filler = mounts.fill(&meta);
    let mut kept = vec!["before".to_owned()];
    for number in 0..200 {
        if put(&lone, &format!("kept/{number}"), &content(1, 1000)).code != Some(0) {
            break;
        }
        kept.push(number.to_string());
    }
    running.stop();
    // Phase 2: on a full metadata disk it does not start, and says why.
    let said = lone.start_as(&mounts.enter(&lone.command())).ended();
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.stderr.contains("No space left"), "{}", said.stderr);
    assert!(said.stderr.contains("meta"), "the folder is not named: {}", said.stderr);
    assert!(said.stderr.contains("\n next: free space"), "{}", said.stderr);
    // Phase 3: with room, all that was acknowledged is there.
    std::fs::remove_file(filler).unwrap();
    let running = lone.start_as(&mounts.enter(&lone.command()));
    lone.await_phase("healthy");
    for object in kept {
        assert_eq!(lone.read(&format!("kept/{object}")), content(1, 1000), "{object}");
    }
    running.stop();
}

#[test]
fn a_read_only_disk_is_named_and_the_others_serve() {
    if !is_root(WHY) {
        return;
    }
    let (lone, mounts, running) = node_on_small_disks(64);
    let before = content(3, MIB);
    assert_eq!(put(&lone, "kept/before", &before).code, Some(0));
    // Phase 1: the kernel mounts a disk read-only under the node.
    let disk = lone.path("disk1");
    mounts.remount(&disk, "ro");
    eventually("the disk is known to be read-only", || {
        let status = lone.run(&["disk", "status", "n1", "--wide"]);
        status.code == Some(3) && status.stdout.contains("ead-only")
    });
    // Phase 2: what is on it is read, what is new goes elsewhere, and it is all the same after a start.
    assert_eq!(lone.read("kept/before"), before);
    eventually("a put goes to the other disks", || put(&lone, "kept/during", &before).code == Some(0));
    running.stop();
    let running = lone.start_as(&mounts.enter(&lone.command()));
    lone.await_phase("healthy");
    assert_eq!(lone.read("kept/before"), before);
    assert_eq!(lone.read("kept/during"), before);
    // Phase 3: writable again, it is taken back.
    mounts.remount(&disk, "rw");
    eventually("the disk is well again", || lone.run(&["disk", "status", "n1"]).code == Some(0));
    running.stop();
}

#[test]
fn a_node_is_not_made_on_read_only_folders() {
    if !is_root(WHY) {
        return;
    }
    for (folder, named) in [("disk1", "cannot be made a disk"), ("meta", "ead-only")] {
        let lone = Lone::new("n1", 1, &[]);
        let path = lone.path(folder);
        let mounts = Mounts::new(&[(&path, 16)]);
        mounts.remount(&path, "ro");
        let said = lone.start_as(&mounts.enter(&lone.command())).ended();
        assert_eq!(said.code, Some(1), "{folder}: {}", said.stderr);
        assert!(said.stderr.contains(named) && said.stderr.contains(folder), "{folder}: {}", said.stderr);
        assert!(said.stderr.contains("\n next: "), "{folder}: {}", said.stderr);
        assert_eq!(said.stderr.matches("error: ").count(), 1, "{folder}: {}", said.stderr);
    }
}
