//! The keys that gossip is sealed with: one file, the same on every host of the cluster.
//!
//! Owns: the file's format, and whether it may be used. Must never: show a key, in an error or a log; use a file that
//! others on the host may read.
//!
//! Invariants: one or two keys; the first seals, each opens. So a key is replaced without a gap: put the new one second
//! on every host, then first on every host, then take the old one away on every host, with an agent's restart each time.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM_SIV, LessSafeKey, UnboundKey};
use resilver_host::disk::read_file;
use resilver_host::{Disk, Host};

/// Bytes of a key: AES-256.
const KEY_BYTES: usize = 32;
/// Keys in a file: the one in force, and the one before or after it.
const MAX_KEYS: usize = 2;
/// The longest file that is read: two keys and a page of comments.
const MAX_FILE_BYTES: u64 = 4096;

/// Why the key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error(
        "the gossip key file {} cannot be read: copy it from another host of the cluster (mode 0600), or leave \
         `agent.gossip` out", path.display()
    )]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Others than its owner may read or write it.
    #[error("the gossip key file {} is open to others on this host: `chmod 600` it, and replace the key if they may have read it", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
    },
    /// A line is no key.
    #[error("line {line} of the gossip key file {} {why}: write `ID KEY`, an id from 0 to 255 and 64 hexadecimal digits, as on the other hosts", path.display())]
    Garbled {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it; never the line itself.
        why: String,
    },
    /// No key, or too many.
    #[error("the gossip key file {} holds {found} keys: one, or two while a key is being replaced", path.display())]
    Count {
        /// Which file.
        path: PathBuf,
        /// How many.
        found: usize,
    },
}

/// The keys of a cluster's gossip, ready for use.
pub(crate) struct KeyRing {
    keys: Vec<(u8, LessSafeKey)>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

impl KeyRing {
    /// Reads the file.
    ///
    /// # Errors
    /// What an operator has to settle first.
    pub(crate) async fn read(disk: &dyn Disk, path: &Path) -> Result<KeyRing, KeyError> {
        let unreadable = |source| KeyError::Unreadable { path: path.to_owned(), source };
        if !disk.is_private(path).await.map_err(unreadable)? {
            return Err(KeyError::Open { path: path.to_owned() });
        }
        let bytes = read_file(disk, path, MAX_FILE_BYTES).await.map_err(unreadable)?;
        KeyRing::parse(path, &String::from_utf8_lossy(&bytes))
    }

    fn parse(path: &Path, text: &str) -> Result<KeyRing, KeyError> {
        let mut keys: Vec<(u8, LessSafeKey)> = Vec::new();
        let lines = text.lines().map(str::trim).enumerate();
        for (index, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let garbled = |why: String| KeyError::Garbled { path: path.to_owned(), line: index + 1, why };
            let (id, key) = key(line).map_err(garbled)?;
            if keys.iter().any(|(known, _)| *known == id) {
                return Err(garbled(format!("repeats the id {id}")));
            }
            keys.push((id, key));
        }
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err(KeyError::Count { path: path.to_owned(), found: keys.len() });
        }
        Ok(KeyRing { keys })
    }

    /// The key that seals, and its id.
    pub(super) fn sealing(&self) -> (u8, &LessSafeKey) {
        let (id, key) = &self.keys[0];
        (*id, key)
    }

    /// The key of this id.
    pub(super) fn opening(&self, id: u8) -> Option<&LessSafeKey> {
        self.keys.iter().find(|(known, _)| *known == id).map(|(_, key)| key)
    }
}

fn key(line: &str) -> Result<(u8, LessSafeKey), String> {
    let mut words = line.split_whitespace();
    let (Some(id), Some(digits), None) = (words.next(), words.next(), words.next()) else {
        return Err("is not two words".to_owned());
    };
    let id = id.parse().map_err(|_| "begins with no id from 0 to 255".to_owned())?;
    let count = digits.chars().count();
    if count != KEY_BYTES * 2 {
        return Err(format!("has a key of {count} digits"));
    }
    let digit = |digit: char| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let halves: Option<Vec<u8>> = digits.chars().map(digit).collect();
    let halves = halves.ok_or("has a key with other than hexadecimal digits")?;
    let bytes: Vec<u8> = halves.chunks_exact(2).map(|pair| (pair[0] << 4) | pair[1]).collect();
    let key = UnboundKey::new(&AES_256_GCM_SIV, &bytes).map_err(|_| "is no key".to_owned())?;
    Ok((id, LessSafeKey::new(key)))
}

/// A key file for a new cluster, with one key. Write it with [`resilver_host::disk::replace_private_file`].
pub fn new_key_file(host: &Host) -> String {
    let mut bytes = [0; KEY_BYTES];
    host.rand.fork("gossip.key").fill_bytes(&mut bytes);
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "# The key that this cluster's agents seal their gossip with: the same file on every host, mode 0600.\n\
         # ID KEY. With two lines the first seals and both open.\n1 {digits}\n"
    )
}

#[cfg(any(test, feature = "quantity"))]
pub(super) fn ring(text: &str) -> KeyRing {
    KeyRing::parse(Path::new("gossip.key"), text).expect("keys of a test or a model")
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        KeyRing::parse(Path::new("/etc/gossip.key"), text).expect_err("it is refused").to_string()
    }

    #[test]
    fn a_file_that_is_no_key_file_says_where_and_what_and_never_the_key() {
        let good = "ab".repeat(32);
        assert!(refused("# none\n").contains("/etc/gossip.key holds 0 keys"));
        let short = refused(&format!("\n1 {}", &good[2..]));
        assert!(short.contains("line 2") && short.contains("has a key of 62 digits"), "{short}");
        let garbled = refused(&format!("1 {}zz", &good[2..]));
        assert!(garbled.contains("other than hexadecimal") && !garbled.contains("abab"), "{garbled}");
        assert!(refused(&format!("1 +{}", &good[1..])).contains("other than hexadecimal"), "a sign is no digit");
        assert!(refused(&format!("256 {good}")).contains("begins with no id from 0 to 255"));
        assert!(refused(&format!("1 {good}\n1 {good}")).contains("line 2"), "one id, two keys");
        assert!(refused(&format!("1 {good}\n2 {good}\n3 {good}")).contains("holds 3 keys"));
        assert!(refused(&good).contains("is not two words"));
    }

    #[tokio::test]
    async fn a_made_key_file_is_read_back_and_refused_when_others_may_read_it() {
        let host = resilver_host::real::host();
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("gossip.key");
        let text = bytes::Bytes::from(new_key_file(&host));
        resilver_host::disk::replace_private_file(&*host.disk, &path, text).await.expect("written");
        let ring = KeyRing::read(&*host.disk, &path).await.expect("read back");
        assert_eq!(format!("{ring:?}"), "[1]", "only ids are ever shown");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
        std::fs::set_permissions(&path, mode).expect("opened to the group");
        let refused = KeyRing::read(&*host.disk, &path).await.expect_err("open to others");
        assert!(matches!(refused, KeyError::Open { .. }) && refused.to_string().contains("chmod 600"), "{refused}");
        let missing = KeyRing::read(&*host.disk, &dir.path().join("none")).await.expect_err("it is not there");
        assert!(missing.to_string().contains("copy it from another host"), "{missing}");
    }
}
