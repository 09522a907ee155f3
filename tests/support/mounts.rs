//! Small file systems in a mount namespace of their own: nobody else sees them, and they end with the test.

#![allow(dead_code, unreachable_pub, clippy::disallowed_methods, clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A mount namespace that lives as long as this does.
pub struct Mounts {
    holder: Child,
}

impl Mounts {
    /// A tmpfs of some MiB on each of the folders.
    pub fn new(sizes: &[(&Path, u32)]) -> Self {
        let mut script = String::from("set -e\n");
        for (path, mib) in sizes {
            std::fs::create_dir_all(path).unwrap();
            script.push_str(&format!("mount -t tmpfs -o size={mib}m,mode=0755 tmpfs '{}'\n", path.display()));
        }
        // Ends when the test does: nothing is written to its standard input, and a test that ends closes it.
        script.push_str("echo mounted\nexec cat\n");
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "mounted", "the file systems could not be mounted");
        Self { holder }
    }

    /// The same command line, run in there.
    pub fn enter(&self, command: &[String]) -> Vec<String> {
        let pid = self.holder.id().to_string();
        ["nsenter", "--target", &pid, "--mount", "--"].map(str::to_owned).into_iter().chain(command.to_vec()).collect()
    }

    /// A path in there, as seen from out here.
    pub fn path(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(path.strip_prefix("/").unwrap())
    }

    /// Fills a file system to its last byte.
    pub fn fill(&self, folder: &Path) -> PathBuf {
        let filler = self.path(folder).join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        let full = std::io::copy(&mut std::io::repeat(0x5A), &mut file).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        filler
    }

    /// Fills a file system until so many bytes are left.
    pub fn fill_but(&self, folder: &Path, left_bytes: u64) -> PathBuf {
        let filler = self.fill(folder);
        let file = std::fs::File::options().write(true).open(&filler).unwrap();
        file.set_len(file.metadata().unwrap().len() - left_bytes).unwrap();
        filler
    }

    /// Mounts a folder read-only, or writable again. A bind mount: the file system itself has open writers.
    pub fn remount(&self, folder: &Path, mode: &str) {
        let folder = folder.to_str().unwrap().to_owned();
        let command = ["mount", "-o", &format!("remount,bind,{mode}"), &folder].map(str::to_owned);
        let command = self.enter(&command);
        assert!(Command::new(&command[0]).args(&command[1..]).status().unwrap().success());
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
