//! What is stored: objects made from a seed, or the files of a folder. Contents are never kept in memory as a whole: a
//! generated object is made again from its seed when it is needed.

use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use resilver_host::{FileKind, Host, OpenMode};

/// The largest object of a demonstration.
pub const LARGEST_BYTES: u64 = 64 * 1024 * 1024;

/// The most files taken from a folder, so that a wrong folder does not fill the disk.
const MAX_FILES: usize = 10_000;

/// One object to store.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its key.
    pub key: String,
    /// Its length.
    pub size_bytes: u64,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Seed(u64),
    File(PathBuf),
}

impl Item {
    /// Its content.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub async fn content(&self, host: &Host) -> anyhow::Result<Bytes> {
        match &self.source {
            Source::Seed(seed) => {
                let mut content = vec![0; usize::try_from(self.size_bytes)?];
                StdRng::seed_from_u64(*seed).fill_bytes(&mut content);
                Ok(content.into())
            }
            Source::File(path) => {
                let file = host.disk.open(path, OpenMode::Read).await.with_context(|| path.display().to_string())?;
                Ok(file.read_at(0, usize::try_from(self.size_bytes)?).await?)
            }
        }
    }
}

/// A few hundred objects from 1 KiB to 64 MiB, many small and few large, as people's files are.
pub fn generated(seed: u64) -> Vec<Item> {
    const KIB: u64 = 1024;
    let classes: [(u64, u64, usize); 6] = [
        (KIB, 16 * KIB, 130),
        (16 * KIB, 256 * KIB, 100),
        (256 * KIB, 1024 * KIB, 40),
        (1024 * KIB, 4096 * KIB, 20),
        (4096 * KIB, 16_384 * KIB, 8),
        (LARGEST_BYTES, LARGEST_BYTES + 1, 2),
    ];
    let mut rng = StdRng::seed_from_u64(seed);
    let mut items = Vec::new();
    for (from, to, count) in classes {
        for _ in 0..count {
            let size_bytes = from + rng.next_u64() % (to - from);
            let key = format!("data/{:04}-{size_bytes}", items.len());
            items.push(Item { key, size_bytes, source: Source::Seed(rng.next_u64()) });
        }
    }
    items
}

/// The files of a folder and of the folders in it.
///
/// # Errors
/// When the folder cannot be read, holds nothing, or holds more than a demonstration should take.
pub async fn from_folder(host: &Host, folder: &Path) -> anyhow::Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((path, prefix)) = folders.pop() {
        let entries = host.disk.list(&path).await.with_context(|| format!("cannot read {}", path.display()))?;
        for entry in entries {
            let key = format!("{prefix}{}", entry.name);
            let path = path.join(&entry.name);
            match entry.kind {
                FileKind::Dir => folders.push((path, format!("{key}/"))),
                FileKind::File => {
                    let size_bytes = host.disk.metadata(&path).await?.len_bytes;
                    anyhow::ensure!(
                        size_bytes <= LARGEST_BYTES,
                        "{} is {size_bytes} bytes long; the demonstration takes files up to {LARGEST_BYTES} bytes",
                        path.display()
                    );
                    items.push(Item { key, size_bytes, source: Source::File(path) });
                }
                FileKind::Other => {}
            }
            anyhow::ensure!(items.len() <= MAX_FILES, "{} holds more than {MAX_FILES} files", folder.display());
        }
    }
    anyhow::ensure!(!items.is_empty(), "{} holds no files", folder.display());
    Ok(items)
}
