//! The key to a local cluster's S3 door: made once, kept in `s3.json`.
//!
//! Owns: `DIR/s3.json`, and `DIR/s3.env`, the same as variables for a shell; both readable for their owner only. Must never: make a second key while the file is there, or revoke
//! one: whoever was given it may still use it.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use resilver_host::disk::{read_file, replace_private_file};
use resilver_proto::store::{CreateKeyRequest, ListKeysRequest};
use serde::{Deserialize, Serialize};

use super::LocalCluster;
use crate::client::{CHANGE_DEADLINE, Node, Nodes, within};
use crate::exit::Failure;

/// Within the cluster's folder.
const S3_FILE: &str = "s3.json";
/// The same for a shell: AWS's tools and libraries read these variables.
const VARIABLES_FILE: &str = "s3.env";
/// The longest such file that is read: an address per node and one key.
const MAX_S3_FILE_BYTES: u64 = 64 * 1024;
/// What the key is called in `resilver key list`.
const LABEL: &str = "local";

/// How to come in through the S3 door: what `DIR/s3.json` holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct S3Access {
    /// One URL per node; any of them serves everything.
    pub(crate) endpoints: Vec<String>,
    /// Id of an admin key.
    pub(crate) access_key: String,
    /// Its secret.
    pub(crate) secret_key: String,
}

/// By hand: a secret does not get into a log by `{:?}`.
impl std::fmt::Debug for S3Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Access")
            .field("endpoints", &self.endpoints)
            .field("access_key", &self.access_key)
            .finish_non_exhaustive()
    }
}

impl LocalCluster {
    /// Where the key is kept.
    pub(crate) fn s3_file(&self) -> PathBuf {
        self.dir.join(S3_FILE)
    }

    /// The same as variables for a shell.
    pub(crate) fn s3_variables(&self) -> PathBuf {
        self.dir.join(VARIABLES_FILE)
    }

    /// The way in through the S3 door, made when the folder has none yet. For a cluster that is whole.
    ///
    /// # Errors
    /// When the file cannot be read or written, or no node makes a key.
    pub(crate) async fn s3_access(&self) -> Result<S3Access, Failure> {
        match self.kept_s3_access().await? {
            Some(access) => Ok(access),
            None => self.make_s3_access().await,
        }
    }

    /// Whether the cluster still knows the key: an operator may have revoked it.
    ///
    /// # Errors
    /// When no node answers.
    pub(crate) async fn knows_key(&self, access: &S3Access) -> Result<bool, Failure> {
        let nodes = Nodes::new(&self.host, &self.found())?;
        let keys =
            nodes.ask("list the keys", async |node: Node| node.store().list_keys(ListKeysRequest {}).await).await?;
        Ok(keys.keys.iter().any(|key| key.id == access.access_key))
    }

    async fn kept_s3_access(&self) -> Result<Option<S3Access>, Failure> {
        let path = self.s3_file();
        let data = match read_file(&*self.host.disk, &path, MAX_S3_FILE_BYTES).await {
            Ok(data) => data,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::failed(format!("cannot read {}: {error}", path.display()))),
        };
        serde_json::from_slice(&data).map(Some).map_err(|error| {
            Failure::failed(format!("{} cannot be understood: {error}", path.display())).next(
                "it is written by `resilver up`: restore it, or remove it to have a new key made (the old one stays until \
                 `resilver key revoke`)",
            )
        })
    }

    async fn make_s3_access(&self) -> Result<S3Access, Failure> {
        let node = Nodes::new(&self.host, &self.found())?.serving("create an access key").await?;
        let request = CreateKeyRequest { label: LABEL.to_owned(), admin: true };
        let made = within(CHANGE_DEADLINE, async { node.store().create_key(request).await })
            .await
            .map_err(|status| Failure::from_status("create an access key", &node.name, &status))?;
        let access = S3Access {
            endpoints: self.nodes.iter().map(|node| format!("http://{}", node.s3)).collect(),
            access_key: made.key.unwrap_or_default().id,
            secret_key: made.secret,
        };
        let text = serde_json::to_string_pretty(&access).map_err(|error| Failure::failed(error.to_string()))? + "\n";
        // `up` goes by the presence of s3.json: it comes last.
        for (path, text) in [(self.s3_variables(), access.variables()), (self.s3_file(), text)] {
            replace_private_file(&*self.host.disk, &path, Bytes::from(text))
                .await
                .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
        }
        Ok(access)
    }
}

impl S3Access {
    /// For `. s3.env`. The region is what every client must name and no node cares for.
    fn variables(&self) -> String {
        format!(
            "\
# Written by `resilver up`: where its S3 door is, and a key that may do everything. For a shell: `. s3.env`
export AWS_ENDPOINT_URL='{}'
export AWS_REGION='us-east-1'
export AWS_ACCESS_KEY_ID='{}'
export AWS_SECRET_ACCESS_KEY='{}'
",
            self.endpoints.first().map_or("", String::as_str),
            self.access_key,
            self.secret_key
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_in_what_a_log_would_show() {
        let access = S3Access {
            endpoints: vec!["http://127.0.0.1:1".to_owned()],
            access_key: "RSID".to_owned(),
            secret_key: "hidden".to_owned(),
        };
        let shown = format!("{access:?}");
        assert!(shown.contains("RSID") && !shown.contains("hidden"), "{shown}");
    }
}
