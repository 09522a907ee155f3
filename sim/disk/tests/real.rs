//! The same random program on the real host's disk and on the simulated one: every answer must be the same.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use common::{ROOMY, machine, run};
use proptest::prelude::*;
use resilver_host::{BlockingFile, Disk, File, FileKind, OpenMode, real};

#[derive(Clone, Debug)]
enum Step {
    Open(PathBuf, OpenMode),
    OpenBlocking(PathBuf, OpenMode),
    Read { offset: u64, len: usize },
    Write { offset: u64, byte: u8, len: usize },
    SetLen(u64),
    Allocate(u64, bool),
    Sync,
    DropCache,
    Metadata(PathBuf),
    Rename(PathBuf, PathBuf),
    RemoveFile(PathBuf),
    RemoveDir(PathBuf),
    CreateDirAll(PathBuf),
    SyncDir(PathBuf),
    List(PathBuf),
    Space(PathBuf),
}

fn deep_path() -> impl Strategy<Value = PathBuf> {
    let name = || prop_oneof![8 => Just("a"), 8 => Just("b"), 2 => Just("c")];
    let above = prop_oneof![18 => name(), 1 => Just(".")];
    (prop::collection::vec(above, 0..3), name()).prop_map(|(above, name)| above.iter().chain([&name]).collect())
}

fn mode() -> impl Strategy<Value = OpenMode> {
    prop_oneof![
        1 => Just(OpenMode::Read),
        1 => Just(OpenMode::Write),
        3 => Just(OpenMode::Create),
        1 => Just(OpenMode::CreateNew),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    // Between these lies the longest file, which differs from one file system to the next.
    let place = || prop_oneof![10 => 0_u64..10_000, 1 => Just(u64::MAX)];
    let far = prop_oneof![10 => place(), 1 => Just(1 << 62)];
    prop_oneof![
        6 => (deep_path(), mode()).prop_map(|(path, mode)| Step::Open(path, mode)),
        2 => (deep_path(), mode()).prop_map(|(path, mode)| Step::OpenBlocking(path, mode)),
        3 => (far, 0_usize..9000).prop_map(|(offset, len)| Step::Read { offset, len }),
        4 => (place(), any::<u8>(), 0_usize..9000)
            .prop_map(|(offset, byte, len)| Step::Write { offset, byte, len }),
        2 => place().prop_map(Step::SetLen),
        1 => (place(), any::<bool>()).prop_map(|(len, grow)| Step::Allocate(len, grow)),
        1 => Just(Step::Sync),
        1 => Just(Step::DropCache),
        2 => deep_path().prop_map(Step::Metadata),
        6 => (deep_path(), deep_path()).prop_map(|(from, to)| Step::Rename(from, to)),
        3 => deep_path().prop_map(Step::RemoveFile),
        3 => deep_path().prop_map(Step::RemoveDir),
        5 => deep_path().prop_map(Step::CreateDirAll),
        1 => deep_path().prop_map(Step::SyncDir),
        2 => deep_path().prop_map(Step::List),
        1 => deep_path().prop_map(Step::Space),
    ]
}

/// A process's view of one of the two.
struct Side {
    root: PathBuf,
    disk: Arc<dyn Disk>,
    open: Option<Arc<dyn File>>,
    blocking: Option<Box<dyn BlockingFile>>,
}

/// An answer in words. Of an error: its kind and number, which is all that callers judge it by.
fn told<T: Debug>(result: io::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?} {:?}", error.kind(), error.raw_os_error()),
    }
}

impl Side {
    fn new(root: &Path, disk: Arc<dyn Disk>) -> Self {
        Self { root: root.to_owned(), disk, open: None, blocking: None }
    }

    async fn step(&mut self, step: &Step) -> String {
        let at = |path: &PathBuf| self.root.join(path);
        match step {
            Step::Open(path, mode) => {
                let opened = self.disk.open(&at(path), *mode).await;
                let told = told(opened.as_ref().map(|_| ()).map_err(copy));
                self.open = opened.ok().or(self.open.take());
                told
            }
            Step::OpenBlocking(path, mode) => {
                let opened = self.disk.open_blocking(&at(path), *mode);
                let told = told(opened.as_ref().map(|_| ()).map_err(copy));
                self.blocking = opened.ok().or(self.blocking.take());
                told
            }
            Step::Metadata(path) => told(self.disk.metadata(&at(path)).await.map(|found| match found.kind {
                FileKind::File => found.len_bytes,
                _ => u64::MAX,
            })),
            Step::Rename(from, to) => told(self.disk.rename(&at(from), &at(to)).await),
            Step::RemoveFile(path) => told(self.disk.remove_file(&at(path)).await),
            Step::RemoveDir(path) => told(self.disk.remove_dir(&at(path)).await),
            Step::CreateDirAll(path) => told(self.disk.create_dir_all(&at(path)).await),
            Step::SyncDir(path) => told(self.disk.sync_dir(&at(path)).await),
            Step::List(path) => told(self.disk.list(&at(path)).await),
            Step::Space(path) => told(self.disk.space(&at(path)).await.map(|_| ())),
            step => format!("{} / {}", self.file_step(step).await, self.blocking_step(step)),
        }
    }

    async fn file_step(&self, step: &Step) -> String {
        let Some(file) = &self.open else { return String::new() };
        let told = match *step {
            Step::Read { offset, len } => told(file.read_at(offset, len).await),
            Step::Write { offset, byte, len } => told(file.write_at(offset, vec![byte; len].into()).await),
            Step::SetLen(len) => told(file.set_len(len).await),
            Step::Allocate(len, grow) => told(file.allocate(len, grow).await),
            Step::Sync => told(file.sync().await),
            _ => told(file.drop_cache().await),
        };
        format!("{told} {}", file.len().await.unwrap())
    }

    fn blocking_step(&self, step: &Step) -> String {
        let Some(file) = &self.blocking else { return String::new() };
        let told = match *step {
            Step::Read { offset, len } => {
                let mut buffer = vec![0; len];
                told(file.read_exact_at(offset, &mut buffer).map(|()| Bytes::from(buffer)))
            }
            Step::Write { offset, byte, len } => told(file.write_all_at(offset, &vec![byte; len])),
            Step::SetLen(len) => told(file.set_len(len)),
            Step::Sync => told(file.sync()),
            _ => String::new(),
        };
        format!("{told} {}", file.len().unwrap())
    }

    /// Reading a folder as a file: the real one opens it and fails at the read, the simulated one at once.
    async fn would_open_folder(&self, step: &Step) -> bool {
        let (Step::Open(path, OpenMode::Read) | Step::OpenBlocking(path, OpenMode::Read)) = step else { return false };
        self.disk.metadata(&self.root.join(path)).await.is_ok_and(|found| found.kind == FileKind::Dir)
    }
}

fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_simulated_disk_answers_as_the_real_one(steps in prop::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let (system, disk) = machine(1, ROOMY);
        run(async {
            let mut real = Side::new(folder.path(), real::host().disk);
            let mut simulated = Side::new(Path::new("/data"), disk);
            for (number, step) in steps.iter().enumerate() {
                if real.would_open_folder(step).await {
                    continue;
                }
                let (expected, found) = (real.step(step).await, simulated.step(step).await);
                prop_assert_eq!(expected, found, "step {} of {:?}", number, steps);
            }
            for (file, _) in system.files(Path::new("/data")) {
                let below = file.strip_prefix("/data").unwrap();
                let expected = std::fs::read(folder.path().join(below)).unwrap();
                prop_assert_eq!(system.content(&file).unwrap(), expected, "{}", below.display());
            }
            Ok(())
        })?;
    }
}
