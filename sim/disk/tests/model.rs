//! Random programs against a model of what a power loss may leave.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bytes::Bytes;
use common::*;
use proptest::prelude::*;
use resilver_host::OpenMode;
use resilver_sim_disk::{DeviceFault, FileSystem, Filter, Times};

/// So many times the usual number of cases.
fn config(times: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases * times, failure_persistence: None, ..usual }
}

#[derive(Clone, Debug)]
enum FileStep {
    Write { offset: u64, byte: u8, len: usize },
    SetLen(u64),
    Allocate { len: u64, grow: bool },
    Sync,
    FailedSync,
}

fn file_step() -> impl Strategy<Value = FileStep> {
    prop_oneof![
        6 => (0_u64..9000, 1_u8.., prop_oneof![1_usize..700, 4000_usize..6000])
            .prop_map(|(offset, byte, len)| FileStep::Write { offset, byte, len }),
        2 => (0_u64..12_000).prop_map(FileStep::SetLen),
        1 => (0_u64..12_000, any::<bool>()).prop_map(|(len, grow)| FileStep::Allocate { len, grow }),
        2 => Just(FileStep::Sync),
        1 => Just(FileStep::FailedSync),
    ]
}

/// What may be on the disk.
#[derive(Default)]
struct FileModel {
    visible: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<FileStep>,
}

impl FileModel {
    fn apply(content: &mut Vec<u8>, step: &FileStep) {
        match *step {
            FileStep::Write { offset, byte, len } => {
                let end = offset as usize + len;
                content.resize(content.len().max(end), 0);
                content[offset as usize..end].fill(byte);
            }
            FileStep::SetLen(len) => content.resize(len as usize, 0),
            FileStep::Allocate { len, grow: true } => content.resize(content.len().max(len as usize), 0),
            _ => {}
        }
    }

    fn step(&mut self, step: &FileStep) {
        match step {
            FileStep::Sync => {
                for step in self.unsynced.drain(..) {
                    Self::apply(&mut self.durable, &step);
                }
            }
            FileStep::FailedSync => self.unsynced.clear(),
            step => {
                Self::apply(&mut self.visible, step);
                self.unsynced.push(step.clone());
            }
        }
    }

    fn check(&self, left: &[u8]) -> Result<(), TestCaseError> {
        let mut replayed = self.durable.clone();
        let mut lens = BTreeSet::from([replayed.len()]);
        let mut cut = usize::MAX;
        for step in &self.unsynced {
            Self::apply(&mut replayed, step);
            lens.insert(replayed.len());
            if let FileStep::SetLen(len) = step {
                cut = cut.min(*len as usize);
            }
        }
        let (shortest, longest) = (*lens.first().unwrap(), *lens.last().unwrap());
        prop_assert!((shortest..=longest).contains(&left.len()), "{} is not in {lens:?}", left.len());
        for (at, found) in left.iter().enumerate() {
            let old = self.durable.get(at) == Some(found);
            let zero = *found == 0 && (at >= self.durable.len() || at >= cut);
            let new = self.unsynced.iter().any(|step| match step {
                FileStep::Write { offset, byte, len } => {
                    byte == found && (*offset as usize..*offset as usize + len).contains(&at)
                }
                _ => false,
            });
            prop_assert!(old || zero || new, "byte {at} is {found}");
        }
        Ok(())
    }
}

async fn do_file_steps(system: &FileSystem, steps: &[FileStep], model: &mut FileModel) {
    let disk = system.disk(std::sync::Arc::new(resilver_sim_disk::NoDelay));
    let file = disk.open(path("/data/file"), OpenMode::Create).await.unwrap();
    disk.sync_dir(path("/data")).await.unwrap();
    for step in steps {
        match step {
            FileStep::Write { offset, byte, len } => file.write_at(*offset, vec![*byte; *len].into()).await.unwrap(),
            FileStep::SetLen(len) => file.set_len(*len).await.unwrap(),
            FileStep::Allocate { len, grow } => file.allocate(*len, *grow).await.unwrap(),
            FileStep::Sync => file.sync().await.unwrap(),
            FileStep::FailedSync => {
                system.fault(path("/data"), DeviceFault::sync_error(Filter::Any, Times::Next(1)));
                file.sync().await.unwrap_err();
            }
        }
        model.step(step);
        let seen = file.read_at(0, usize::MAX).await.unwrap();
        assert_eq!(seen, model.visible, "after {step:?}");
        assert_eq!(file.len().await.unwrap(), model.visible.len() as u64);
        let space = disk.space(path("/data")).await.unwrap();
        assert!(space.total_bytes - space.available_bytes <= 12 * 4096, "at most the pages ever touched");
    }
}

proptest! {
    #![proptest_config(config(1))]

    #[test]
    fn synced_bytes_are_exact_and_each_unsynced_one_is_old_or_new(
        seed in any::<u64>(),
        lives in prop::collection::vec(prop::collection::vec(file_step(), 0..12), 1..4),
    ) {
        let (system, _) = machine(seed, ROOMY);
        let mut model = FileModel::default();
        for steps in lives {
            run(do_file_steps(&system, &steps, &mut model));
            prop_assert_eq!(&system.synced_content(path("/data/file")).unwrap()[..], &model.durable[..]);
            let twin = system.fork(1);
            let other = system.fork(1);
            system.power_loss();
            let left = system.content(path("/data/file")).unwrap();
            model.check(&left)?;
            if model.unsynced.is_empty() {
                prop_assert_eq!(&left[..], &model.durable[..]);
            }
            twin.power_loss();
            other.power_loss();
            prop_assert_eq!(twin.content(path("/data/file")), other.content(path("/data/file")), "one seed, one result");
            model = FileModel { visible: left.to_vec(), durable: left.to_vec(), unsynced: Vec::new() };
        }
    }
}

#[derive(Clone, Debug)]
enum DirStep {
    Create(usize, u8),
    Remove(usize, u8),
    Rename { from: (usize, u8), to: (usize, u8) },
    SyncDir(usize),
}

const FOLDERS: [&str; 3] = ["/data/a", "/data/b", "/data/c"];

fn dir_step() -> impl Strategy<Value = DirStep> {
    let spot = || (0_usize..FOLDERS.len(), 0_u8..4);
    prop_oneof![
        4 => spot().prop_map(|(folder, name)| DirStep::Create(folder, name)),
        2 => spot().prop_map(|(folder, name)| DirStep::Remove(folder, name)),
        4 => (spot(), spot()).prop_map(|(from, to)| DirStep::Rename { from, to }),
        2 => (0..FOLDERS.len()).prop_map(DirStep::SyncDir),
    ]
}

/// The entries of a folder: name to the file's number.
type Entries = BTreeMap<String, u64>;

/// The folders as they are seen, and each as it was since it was last synced.
struct DirModel {
    seen: [Entries; 3],
    history: [Vec<Entries>; 3],
}

impl DirModel {
    fn new() -> Self {
        Self { seen: Default::default(), history: std::array::from_fn(|_| vec![Entries::new()]) }
    }

    fn note(&mut self) {
        for (history, seen) in self.history.iter_mut().zip(&self.seen) {
            if history.last() != Some(seen) {
                history.push(seen.clone());
            }
        }
    }
}

fn spot((folder, name): (usize, u8)) -> PathBuf {
    path(FOLDERS[folder]).join(name.to_string())
}

async fn do_dir_steps(system: &FileSystem, steps: &[DirStep]) -> DirModel {
    let disk = system.disk(std::sync::Arc::new(resilver_sim_disk::NoDelay));
    for folder in FOLDERS {
        disk.create_dir_all(path(folder)).await.unwrap();
    }
    disk.sync_dir(path("/data")).await.unwrap();
    let mut model = DirModel::new();
    for (number, step) in (1_u64..).zip(steps) {
        match *step {
            DirStep::Create(folder, name) => {
                let Ok(file) = disk.open(&spot((folder, name)), OpenMode::CreateNew).await else { continue };
                file.write_at(0, Bytes::copy_from_slice(&number.to_be_bytes())).await.unwrap();
                file.sync().await.unwrap();
                model.seen[folder].insert(name.to_string(), number);
            }
            DirStep::Remove(folder, name) => {
                let removed = disk.remove_file(&spot((folder, name))).await.is_ok();
                assert_eq!(removed, model.seen[folder].remove(&name.to_string()).is_some());
            }
            DirStep::Rename { from, to } => {
                let renamed = disk.rename(&spot(from), &spot(to)).await.is_ok();
                let moved = model.seen[from.0].remove(&from.1.to_string());
                assert_eq!(renamed, moved.is_some());
                if let Some(moved) = moved {
                    model.seen[to.0].insert(to.1.to_string(), moved);
                }
            }
            DirStep::SyncDir(folder) => {
                disk.sync_dir(path(FOLDERS[folder])).await.unwrap();
                model.history[folder] = vec![model.seen[folder].clone()];
            }
        }
        model.note();
    }
    model
}

fn entries(system: &FileSystem, folder: &str) -> Entries {
    let files = system.files(path(folder)).into_iter();
    let number = |file: &PathBuf| u64::from_be_bytes(system.content(file).unwrap()[..].try_into().unwrap());
    files.map(|(file, _)| (file.file_name().unwrap().to_str().unwrap().to_owned(), number(&file))).collect()
}

proptest! {
    #![proptest_config(config(6))]

    #[test]
    fn each_folder_is_as_it_was_at_some_moment_since_its_sync(
        seed in any::<u64>(),
        steps in prop::collection::vec(dir_step(), 0..30),
    ) {
        let (system, _) = machine(seed, ROOMY);
        let model = run(do_dir_steps(&system, &steps));
        for (folder, seen) in FOLDERS.iter().zip(&model.seen) {
            prop_assert_eq!(&entries(&system, folder), seen);
        }
        let twin = system.fork(9);
        let other = system.fork(9);
        twin.power_loss();
        other.power_loss();
        prop_assert_eq!(twin.files(path("/")), other.files(path("/")), "one seed, one result");

        system.power_loss();
        let mut found = BTreeSet::new();
        for (folder, history) in FOLDERS.iter().zip(&model.history) {
            let left = entries(&system, folder);
            // A rename that one side needed may have brought more of the other's steps with it, never fewer.
            prop_assert!(history.contains(&left), "{folder}: {left:?} is none of {history:?}");
            found.extend(left.into_values());
        }
        // What stood in synced folders, was not removed or replaced since, is somewhere.
        let kept: BTreeSet<u64> = model.history.iter().flat_map(|history| history[0].values().copied()).collect();
        let there: BTreeSet<u64> = model.seen.iter().flat_map(|seen| seen.values().copied()).collect();
        for number in kept.intersection(&there) {
            prop_assert!(found.contains(number), "file {number} is lost");
        }
    }
}
