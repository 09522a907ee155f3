//! The disk that hangs and fails on demand: what passes through it is what lies behind it, each fault befalls what it
//! should, and nobody hangs for longer than its process lives. Real mounts; needs root.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests are the outside world

#[path = "support/lone.rs"]
mod lone;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use lone::is_root;
use rustix::fs::{FallocateFlags, OFlags, fallocate, statvfs};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_resilver");

/// How long anything awaited may take before the test fails.
const LIMIT: Duration = Duration::from_secs(60);
/// How often what another process brings about is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// More requests at a time than the file system has threads.
const MANY: usize = 24;

const EIO: Option<i32> = Some(5);

/// A mounted file system, in a mount namespace of its own. Killed when dropped, or when this test is.
struct FaultFs {
    child: Child,
    dir: TempDir,
}

impl FaultFs {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["backing", "mount"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let child = start(dir.path(), "mount");
        let made = Self { child, dir };
        let until = Instant::now() + LIMIT;
        while UnixStream::connect(made.dir.path().join("control")).is_err() {
            assert!(Instant::now() < until, "not mounted");
            thread::sleep(LOOK);
        }
        made
    }

    /// A path on it, as seen from out here.
    fn path(&self, name: &str) -> PathBuf {
        let namespace = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        namespace.join(self.dir.path().strip_prefix("/").unwrap()).join("mount").join(name)
    }

    /// The same path behind it.
    fn behind(&self, name: &str) -> PathBuf {
        self.dir.path().join("backing").join(name)
    }

    /// Gives an order and returns the answer.
    fn order(&self, order: &str) -> String {
        let mut stream = UnixStream::connect(self.dir.path().join("control")).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        writeln!(stream, "{order}").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer
    }

    fn must(&self, order: &str) {
        let answer = self.order(order);
        assert!(answer.starts_with("ok "), "{order}: {answer}");
    }

    /// Waits until so many requests are held.
    fn await_held(&self, count: usize) {
        let until = Instant::now() + LIMIT;
        while !self.order("show").contains(&format!(" held={count} ")) {
            assert!(Instant::now() < until, "not {count} held: {}", self.order("show"));
            thread::sleep(LOOK);
        }
    }
}

impl Drop for FaultFs {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process dies with the thread that runs the test.
fn start(dir: &Path, mount: &str) -> Child {
    let [backing, mount, control] = ["backing", mount, "control"].map(|name| dir.join(name));
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "setpriv", "--pdeathsig", "KILL", BINARY, "fault-fs"])
        .args([backing, mount, control])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn read_and_write() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options
}

/// Content that differs from block to block.
fn content(len: usize) -> Vec<u8> {
    (0u32..).flat_map(|number| number.wrapping_mul(0x9E37_79B9).to_le_bytes()).take(len).collect()
}

#[test]
fn what_passes_through_is_what_lies_behind() {
    if !is_root("mounting a file system") {
        return;
    }
    let disk = FaultFs::mount();

    // A shard as the node writes one: exclusively, synced, renamed, its folder synced.
    let data = content(3 * 1024 * 1024 + 17);
    fs::create_dir_all(disk.path("shards/ab")).unwrap();
    let file = read_and_write().create_new(true).mode(0o600).open(disk.path("draft")).unwrap();
    file.write_all_at(&data, 0).unwrap();
    file.sync_data().unwrap();
    let again = read_and_write().create_new(true).open(disk.path("draft")).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    fs::rename(disk.path("draft"), disk.path("shards/ab/shard")).unwrap();
    File::open(disk.path("shards/ab")).unwrap().sync_all().unwrap();
    assert!(!disk.behind("draft").exists());
    assert!(fs::read(disk.behind("shards/ab/shard")).unwrap() == data);
    assert!(fs::read(disk.path("shards/ab/shard")).unwrap() == data);
    assert_eq!(fs::metadata(disk.behind("shards/ab/shard")).unwrap().permissions().mode() & 0o777, 0o600);

    // Nothing is answered from a cache: what changes behind it shows, past the kernel's pages and names.
    read_and_write().open(disk.behind("shards/ab/shard")).unwrap().write_all_at(b"flip", 70_000).unwrap();
    let mut read = [0; 4];
    file.read_exact_at(&mut read, 70_000).unwrap();
    assert_eq!(&read, b"flip");
    let direct =
        read_and_write().custom_flags(OFlags::DIRECT.bits() as i32).open(disk.path("shards/ab/shard")).unwrap();
    direct.read_exact_at(&mut read, 70_000).unwrap();
    assert_eq!(&read, b"flip");
    fs::write(disk.behind("new"), "there").unwrap();
    assert_eq!(fs::read_to_string(disk.path("new")).unwrap(), "there");

    // Lengths and room.
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 8 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), data.len() as u64);
    assert!(fs::metadata(disk.behind("shards/ab/shard")).unwrap().blocks() * 512 >= 8 << 20, "not reserved");
    file.set_len(1000).unwrap();
    assert_eq!(fs::metadata(disk.behind("shards/ab/shard")).unwrap().len(), 1000);
    let (through, behind) = (statvfs(disk.path("")).unwrap(), statvfs(disk.behind("")).unwrap());
    assert_eq!((through.f_blocks, through.f_frsize), (behind.f_blocks, behind.f_frsize));
    assert!(through.f_bavail.abs_diff(behind.f_bavail) * through.f_frsize < 1 << 30, "room is measured, not made up");

    // Folders that move take what is in them along; names that are gone are gone, and what is open stays.
    fs::rename(disk.path("shards"), disk.path("aside")).unwrap();
    assert_eq!(fs::metadata(disk.path("aside/ab/shard")).unwrap().len(), 1000);
    assert_eq!(file.metadata().unwrap().len(), 1000);
    fs::rename(disk.path("new"), disk.path("aside/ab/shard")).unwrap();
    assert_eq!(fs::read_to_string(disk.path("aside/ab/shard")).unwrap(), "there");
    assert_eq!(file.metadata().unwrap().len(), 1000, "replaced, but open");
    fs::remove_file(disk.path("aside/ab/shard")).unwrap();
    let gone = fs::metadata(disk.path("aside/ab/shard")).unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    assert_eq!(fs::remove_dir(disk.path("aside")).unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);

    // A folder of more entries than one answer holds.
    for number in 0..500 {
        fs::write(disk.path(&format!("aside/a-rather-long-name-of-a-file-{number:03}")), "").unwrap();
    }
    let mut listed: Vec<_> =
        fs::read_dir(disk.path("aside")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    listed.sort();
    assert_eq!(listed.len(), 501);
    assert_eq!((listed[0].to_str(), listed[500].to_str()), (Some("a-rather-long-name-of-a-file-000"), Some("ab")));
}

#[test]
fn what_hangs_hangs_until_it_is_cleared_and_holds_nothing_else_up() {
    if !is_root("mounting a file system") {
        return;
    }
    let disk = FaultFs::mount();
    fs::write(disk.path("old"), "content").unwrap();
    let open = read_and_write().create(true).truncate(false).open(disk.path("open")).unwrap();

    // Purpose: everything that reaches the device waits, more of it than the file system has threads.
    disk.must("hang");
    let (tell, told) = mpsc::channel();
    let mut waiting = Vec::new();
    let mut ask = |work: Box<dyn FnOnce() -> io::Result<()> + Send>| {
        let tell = tell.clone();
        waiting.push(thread::spawn(move || tell.send(work().map_err(|error| error.to_string())).unwrap()));
    };
    for number in 0..MANY {
        let old = disk.path("old");
        ask(Box::new(move || match fs::read(old)? {
            read if read == b"content" => Ok(()),
            other => Err(io::Error::other(format!("{number}: {other:?}"))),
        }));
    }
    ask(Box::new(move || open.write_all_at(b"written", 0).and_then(|()| open.sync_data())));
    let new = disk.path("new");
    ask(Box::new(move || fs::write(new, "made")));
    disk.await_held(MANY + 2);
    assert!(told.try_recv().is_err(), "something did not hang");
    assert!(!disk.behind("new").exists() && fs::read(disk.behind("open")).unwrap().is_empty(), "nothing was done yet");

    // Purpose: what a system answers from its memory is answered all the same.
    assert_eq!(fs::metadata(disk.path("old")).unwrap().len(), 7);
    assert!(statvfs(disk.path("")).unwrap().f_blocks > 0);

    // Purpose: all of it is done once the disk is well again.
    disk.must("clear");
    for _ in 0..MANY + 2 {
        assert_eq!(told.recv_timeout(LIMIT).unwrap(), Ok(()));
    }
    for thread in waiting {
        thread.join().unwrap();
    }
    assert_eq!(fs::read(disk.behind("open")).unwrap(), b"written");
    assert_eq!(fs::read(disk.behind("new")).unwrap(), b"made");
}

#[test]
fn each_error_arrives_as_one_where_it_was_ordered() {
    if !is_root("mounting a file system") {
        return;
    }
    let disk = FaultFs::mount();
    fs::create_dir(disk.path("folder")).unwrap();
    let file = read_and_write().create(true).truncate(false).open(disk.path("file")).unwrap();
    file.write_all_at(b"1234", 0).unwrap();
    let code = |result: io::Result<()>| result.err().map(|error| error.raw_os_error());
    let reading = || code(file.read_exact_at(&mut [0; 4], 0));
    let writing = || code(file.write_all_at(b"5678", 0));
    let syncing = || code(file.sync_data());
    let naming =
        || code(fs::write(disk.path("draft"), "").and_then(|()| fs::rename(disk.path("draft"), disk.path("named"))));
    let folder = || code(File::open(disk.path("folder")).unwrap().sync_all());

    let all = || [reading(), writing(), syncing(), folder(), naming()];
    assert_eq!(all(), [None; 5]);
    disk.must("read_eio");
    assert_eq!(all(), [Some(EIO), None, None, None, None]);
    disk.must("clear");
    disk.must("write_eio");
    assert_eq!(all(), [None, Some(EIO), None, None, Some(EIO)]);
    assert!(!disk.behind("draft").exists());
    disk.must("clear");
    disk.must("sync_eio");
    assert_eq!(all(), [None, None, Some(EIO), Some(EIO), None]);
    disk.must("clear");
    assert_eq!(all(), [None; 5]);

    disk.must("slow 200");
    let begun = Instant::now();
    assert_eq!(syncing(), None);
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert!(disk.order("explode").starts_with("error \"explode\" is no order"));
}

#[test]
fn nobody_hangs_longer_than_the_process_lives() {
    if !is_root("mounting a file system") {
        return;
    }
    let mut disk = FaultFs::mount();
    fs::write(disk.path("file"), "content").unwrap();
    let file = read_and_write().open(disk.path("file")).unwrap();
    disk.must("hang");
    let (tell, told) = mpsc::channel();
    let reading = file.try_clone().unwrap();
    let waiting = thread::spawn(move || tell.send(reading.read_exact_at(&mut [0; 4], 0)).unwrap());
    disk.await_held(1);
    disk.child.kill().unwrap();
    disk.child.wait().unwrap();
    const ENOTCONN: i32 = 107;
    const ECONNABORTED: i32 = 103;
    let aborted = told.recv_timeout(LIMIT).unwrap().unwrap_err();
    assert!(matches!(aborted.raw_os_error(), Some(ECONNABORTED | ENOTCONN)), "{aborted}");
    assert_eq!(file.read_exact_at(&mut [0; 4], 0).unwrap_err().raw_os_error(), Some(ENOTCONN));
    waiting.join().unwrap();
}

#[test]
fn it_ends_when_it_is_asked_to_and_refuses_to_show_itself() {
    if !is_root("mounting a file system") {
        return;
    }
    let mut disk = FaultFs::mount();
    fs::write(disk.path("file"), "content").unwrap();
    let pid = rustix::process::Pid::from_child(&disk.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(disk.child.wait().unwrap().success());
    assert!(!disk.dir.path().join("control").exists());

    fs::create_dir(disk.behind("inner")).unwrap();
    let refused = start(disk.dir.path(), "backing/inner").wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("cannot be mounted within the folder that it shows"), "{said}");
}
