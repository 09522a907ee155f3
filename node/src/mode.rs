//! What a node that is well serves all the same, and whether it stands for election: said by an agent that fences its own
//! node, or by a person.
//!
//! Owns: the mode, who set it, and its file. Must never: decide to change it; hold back control calls or what members do for
//! each other (Raft, shards, presence): a fence is between a node and its clients.
//!
//! Invariants: an agent does not undo what a person said. A person's `read_only` and `isolated` are on disk before they are
//! acknowledged, and hold after a restart. An agent's do not: a new process serves nobody before a quorum has confirmed to
//! it what is committed, and its agent says it again while the reason lasts. `quiet` is in no file, whoever said it: a voter
//! that nobody remembers to wake would be missed in the next election.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use resilver_host::Host;
use resilver_host::disk::{read_file, replace_file};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A person's mode, in the metadata folder.
const FILE: &str = "mode.json";

/// The file's format.
const FORMAT: u32 = 1;

/// The longest file that is read: a reason has [`MAX_REASON_CHARS`].
const MAX_FILE_BYTES: u64 = 16 * 1024;

/// The longest reason that is kept.
pub(crate) const MAX_REASON_CHARS: usize = 500;

/// What clients are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Everything.
    #[default]
    ReadWrite,
    /// Reads.
    ReadOnly,
    /// Nothing.
    Isolated,
}

impl Mode {
    /// The name in the contract, in files and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWrite => "read_write",
            Self::ReadOnly => "read_only",
            Self::Isolated => "isolated",
        }
    }
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// To read.
    Read,
    /// To change something.
    Write,
}

/// What may be said of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// What clients are served.
    Serve(Mode),
    /// Whether it stands for election.
    Stand(bool),
}

impl Word {
    /// By its name in the contract.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "read_write" => Self::Serve(Mode::ReadWrite),
            "read_only" => Self::Serve(Mode::ReadOnly),
            "isolated" => Self::Serve(Mode::Isolated),
            "quiet" => Self::Stand(false),
            "standing" => Self::Stand(true),
            _ => return None,
        })
    }
}

/// Who said something, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// An agent; false: a person.
    pub automatic: bool,
    /// For people.
    pub reason: String,
}

/// The mode of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeState {
    /// What clients are served.
    pub mode: Mode,
    /// Who said so, unless it is what every node does.
    pub why: Option<Said>,
    /// Whether it stands for election.
    pub stands: bool,
    /// Who said that it does not.
    pub quiet: Option<Said>,
}

impl Default for ModeState {
    fn default() -> Self {
        Self { mode: Mode::ReadWrite, why: None, stands: true, quiet: None }
    }
}

/// Why a mode stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum Kept {
    /// A person said it.
    #[error(
        "a person set this node {mode} ({reason}), and no agent undoes that: `resilver node mode NODE read_write`, or \
         `standing`, does"
    )]
    Persons {
        /// What it is.
        mode: &'static str,
        /// Why.
        reason: String,
    },
    /// It would not hold after a restart.
    #[error("{} cannot be written: {source}; the mode is as it was", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What is on disk of a person's word.
#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    mode: Mode,
    reason: String,
}

/// The mode, for everybody who asks. Cheap to clone.
#[derive(Clone, Default)]
pub struct ModeCell {
    state: Arc<watch::Sender<ModeState>>,
    /// One change at a time: the file and the state are changed together.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl ModeCell {
    /// As it is now.
    pub fn get(&self) -> ModeState {
        self.state.borrow().clone()
    }

    /// Every change of it.
    pub fn changes(&self) -> watch::Receiver<ModeState> {
        self.state.subscribe()
    }

    /// Lets a client in, or says why not.
    ///
    /// # Errors
    /// With the reason, for the client.
    pub fn admit(&self, wants: Wants) -> Result<(), String> {
        let state = self.state.borrow();
        let refused = match (state.mode, wants) {
            (Mode::ReadWrite, _) | (Mode::ReadOnly, Wants::Read) => return Ok(()),
            (Mode::ReadOnly, Wants::Write) => "takes no writes",
            (Mode::Isolated, _) => "serves no client",
        };
        let why = state.why.as_ref().map_or("no reason was given", |said| said.reason.as_str());
        Err(format!("this node is {} and {refused}: {why}; ask another node", state.mode.as_str()))
    }

    /// Takes up what a person said of an earlier process. What cannot be read is taken for the strictest, and says so.
    pub async fn load(&self, host: &Host, dir: &Path) {
        let path = dir.join(FILE);
        let (mode, reason) = match read_file(&*host.disk, &path, MAX_FILE_BYTES).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => (Mode::Isolated, unread(&path, &error.to_string())),
            Ok(bytes) => match serde_json::from_slice::<Stored>(&bytes) {
                Ok(stored) if stored.format == FORMAT => (stored.mode, stored.reason),
                Ok(stored) => (Mode::Isolated, unread(&path, &format!("format {}", stored.format))),
                Err(error) => (Mode::Isolated, unread(&path, &error.to_string())),
            },
        };
        if mode == Mode::ReadWrite {
            return;
        }
        tracing::warn!(
            mode = mode.as_str(),
            reason,
            operation = "mode",
            "a person set this node's mode before its start"
        );
        let why = Some(Said { automatic: false, reason });
        self.state.send_modify(|state| (state.mode, state.why) = (mode, why));
    }

    /// Changes it; what was said before, of the same of the two.
    ///
    /// # Errors
    /// When a person's word stands against an agent's, or the disk refuses; nothing was changed then.
    pub async fn set(&self, host: &Host, dir: &Path, word: Word, said: Said) -> Result<&'static str, Kept> {
        let _one = self.changing.lock().await;
        let said = Said { reason: said.reason.chars().take(MAX_REASON_CHARS).collect(), ..said };
        let now = self.get();
        let theirs = match word {
            Word::Serve(_) => &now.why,
            Word::Stand(_) => &now.quiet,
        };
        let before = match word {
            Word::Serve(_) => now.mode.as_str(),
            Word::Stand(_) => standing(now.stands),
        };
        let same = match word {
            Word::Serve(mode) => mode == now.mode,
            Word::Stand(stands) => stands == now.stands,
        };
        if let Some(person) = theirs.as_ref().filter(|theirs| !theirs.automatic && said.automatic) {
            // Saying the same once more changes nothing, its owner least of all.
            return match same {
                true => Ok(before),
                false => Err(Kept::Persons { mode: before, reason: person.reason.clone() }),
            };
        }
        if let Word::Serve(mode) = word {
            let stored = (!said.automatic && mode != Mode::ReadWrite).then(|| Stored {
                format: FORMAT,
                mode,
                reason: said.reason.clone(),
            });
            // Of an agent's there is no file, so that none has to go.
            let kept = matches!(&now.why, Some(said) if !said.automatic);
            if stored.is_some() || kept {
                store(host, dir, stored).await?;
            }
        }
        tracing::warn!(
            before, now = ?word, automatic = said.automatic, reason = said.reason, operation = "mode",
            "this node's mode was changed"
        );
        self.state.send_modify(|state| match word {
            Word::Serve(mode) => (state.mode, state.why) = (mode, (mode != Mode::ReadWrite).then_some(said)),
            Word::Stand(stands) => (state.stands, state.quiet) = (stands, (!stands).then_some(said)),
        });
        Ok(before)
    }
}

fn standing(stands: bool) -> &'static str {
    if stands { "standing" } else { "quiet" }
}

fn unread(path: &Path, why: &str) -> String {
    format!(
        "what a person said of this node cannot be read ({}: {why}): say it again with `resilver node mode`",
        path.display()
    )
}

async fn store(host: &Host, dir: &Path, stored: Option<Stored>) -> Result<(), Kept> {
    let path = dir.join(FILE);
    let work = async {
        let Some(stored) = stored else {
            return match host.disk.remove_file(&path).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => host.disk.sync_dir(dir).await,
            };
        };
        let bytes = serde_json::to_vec(&stored).map_err(io::Error::other)?;
        replace_file(&*host.disk, &path, bytes.into()).await
    };
    work.await.map_err(|source| Kept::Io { path: path.clone(), source })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn person(reason: &str) -> Said {
        Said { automatic: false, reason: reason.to_owned() }
    }

    fn agent(reason: &str) -> Said {
        Said { automatic: true, reason: reason.to_owned() }
    }

    #[tokio::test]
    async fn an_agent_fences_its_node_and_a_new_process_is_not_fenced() {
        let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
        let cell = ModeCell::default();
        assert!(cell.admit(Wants::Write).is_ok());
        let set = |word, said| cell.set(&host, dir.path(), word, said);
        assert_eq!(set(Word::Serve(Mode::ReadOnly), agent("cut off")).await.unwrap(), "read_write");
        assert!(cell.admit(Wants::Read).is_ok());
        let told = cell.admit(Wants::Write).unwrap_err();
        assert!(told.contains("read_only") && told.contains("cut off"), "{told}");
        assert_eq!(set(Word::Serve(Mode::Isolated), agent("damaged")).await.unwrap(), "read_only");
        assert!(cell.admit(Wants::Read).unwrap_err().contains("serves no client"));
        let next = ModeCell::default();
        next.load(&host, dir.path()).await;
        assert_eq!(next.get(), ModeState::default());
    }

    #[tokio::test]
    async fn a_persons_word_outlasts_the_process_and_no_agent_undoes_it() {
        let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
        let cell = ModeCell::default();
        cell.set(&host, dir.path(), Word::Serve(Mode::ReadOnly), person("audit")).await.unwrap();
        let next = ModeCell::default();
        next.load(&host, dir.path()).await;
        assert_eq!(next.get().mode, Mode::ReadOnly);
        let set = |word, said| next.set(&host, dir.path(), word, said);
        let kept = set(Word::Serve(Mode::ReadWrite), agent("healed")).await.unwrap_err();
        assert!(kept.to_string().contains("audit"), "{kept}");
        assert!(set(Word::Serve(Mode::Isolated), agent("damaged")).await.is_err());
        assert_eq!(set(Word::Serve(Mode::ReadOnly), agent("cut off")).await.unwrap(), "read_only");
        assert_eq!(next.get().why, Some(person("audit")), "it stays the person's");
        assert_eq!(set(Word::Serve(Mode::ReadWrite), person("done")).await.unwrap(), "read_only");
        let third = ModeCell::default();
        third.load(&host, dir.path()).await;
        assert_eq!(third.get(), ModeState::default());
    }

    #[tokio::test]
    async fn standing_is_beside_the_mode_and_forgotten_with_the_process() {
        let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
        let cell = ModeCell::default();
        cell.set(&host, dir.path(), Word::Stand(false), person("no leader here")).await.unwrap();
        let state = cell.get();
        assert!(!state.stands && state.mode == Mode::ReadWrite && cell.admit(Wants::Write).is_ok());
        assert!(cell.set(&host, dir.path(), Word::Stand(true), agent("better")).await.is_err());
        let next = ModeCell::default();
        next.load(&host, dir.path()).await;
        assert!(next.get().stands);
    }

    #[tokio::test]
    async fn a_mode_that_cannot_be_read_serves_nobody_and_says_why() {
        let (host, dir) = (resilver_host::real::host(), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join(FILE), b"{").unwrap();
        let cell = ModeCell::default();
        cell.load(&host, dir.path()).await;
        let told = cell.admit(Wants::Read).unwrap_err();
        assert!(told.contains("cannot be read") && told.contains("node mode"), "{told}");
    }
}
