//! What a long run has done so far, in a file, so that it can be done in slices.
#![allow(clippy::disallowed_methods, reason = "the parent lives on the real machine and simulates nothing")]

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::outcome::Coverage;

/// The progress of a run over many seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// What is run: seeds of another scenario or with another bug do not count.
    pub(crate) what: String,
    /// Seeds that passed.
    pub(crate) passed: BTreeSet<u64>,
    /// Seeds that failed.
    pub(crate) failed: BTreeSet<u64>,
    /// What happened in them.
    pub(crate) coverage: Coverage,
    /// Milliseconds of the real clock, over all slices.
    pub(crate) wall_ms: u64,
    /// Milliseconds of virtual time.
    pub(crate) simulated_ms: u64,
}

impl Progress {
    /// Goes on where the file stands; from the beginning when there is none.
    ///
    /// # Errors
    /// When it is of another run, or unreadable.
    pub(crate) fn load(path: &Path, what: &str) -> anyhow::Result<Progress> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Progress::new(what)),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let progress: Progress = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        anyhow::ensure!(progress.what == what, "{} is of `{}`, not of `{what}`", path.display(), progress.what);
        Ok(progress)
    }

    /// Nothing done yet.
    pub(crate) fn new(what: &str) -> Progress {
        Progress { what: what.to_owned(), ..Progress::default() }
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn store(&self, path: &Path) -> anyhow::Result<()> {
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, serde_json::to_string(self)?)?;
        std::fs::rename(&temporary, path).with_context(|| path.display().to_string())
    }

    /// Whether the seed was judged.
    pub(crate) fn has(&self, seed: u64) -> bool {
        self.passed.contains(&seed) || self.failed.contains(&seed)
    }
}
