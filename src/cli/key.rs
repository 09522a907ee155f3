//! `key create|list|grant|deny|revoke`: who may come in through the S3 door.
//!
//! Must never: print a secret but in the answer to `create`, where it is seen for the only time.

use std::fmt::Write;

use clap::{Args, Subcommand};
use resilver_proto::store::{CreateKeyRequest, Grant, GrantKeyRequest, Key, ListKeysRequest, RevokeKeyRequest};
use serde::Serialize;

use super::confirm::Confirm;
use super::context::Context;
use crate::client::{CHANGE_DEADLINE, Node, within};
use crate::exit::{Code, Failure};
use crate::output::{Table, cell, rfc3339};

/// Verbs of access keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// Make an access key. Its secret is printed this once
    Create {
        /// Whose it is, or what for; need not be unique
        label: String,
        /// May do everything: make buckets, and all that can be granted in all of them
        #[arg(long)]
        admin: bool,
    },
    /// All access keys and what they may do; never their secrets
    List,
    /// Say what a key may do in one bucket; replaces what was granted there before
    Grant {
        /// The key's id
        key: String,
        /// The bucket
        bucket: String,
        #[command(flatten)]
        rights: Rights,
    },
    /// Take all rights in one bucket away from a key
    Deny {
        /// The key's id
        key: String,
        /// The bucket
        bucket: String,
    },
    /// Take a key back for good: what is signed with it is refused from then on
    Revoke {
        /// The key's id
        key: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// What may be granted.
#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Rights {
    /// Get, head and list objects
    #[arg(long)]
    read: bool,
    /// Put, copy into and delete objects; begin, list, complete and abort uploads in parts
    #[arg(long)]
    write: bool,
    /// Delete the bucket once it is empty. Neither reads nor writes
    #[arg(long)]
    admin: bool,
}

#[derive(Clone, Debug, Serialize)]
struct GrantRow {
    bucket: String,
    read: bool,
    write: bool,
    admin: bool,
}

impl GrantRow {
    /// `photos:rw`, `logs:r`, `backup:a`.
    fn short(&self) -> String {
        let letter = |has: bool, letter: &str| if has { letter.to_owned() } else { String::new() };
        format!("{}:{}{}{}", self.bucket, letter(self.read, "r"), letter(self.write, "w"), letter(self.admin, "a"))
    }
}

#[derive(Clone, Debug, Serialize)]
struct KeyRow {
    access_key: String,
    label: String,
    admin: bool,
    grants: Vec<GrantRow>,
    created: Option<String>,
}

impl KeyRow {
    fn of(key: Key) -> Self {
        let grant =
            |grant: Grant| GrantRow { bucket: grant.bucket, read: grant.read, write: grant.write, admin: grant.admin };
        Self {
            created: rfc3339(key.created_ms),
            access_key: key.id,
            label: key.label,
            admin: key.admin,
            grants: key.grants.into_iter().map(grant).collect(),
        }
    }

    fn may(&self) -> String {
        let grants: Vec<String> = self.grants.iter().map(GrantRow::short).collect();
        match (self.admin, grants.is_empty()) {
            (true, _) => "everything".to_owned(),
            (false, true) => "nothing".to_owned(),
            (false, false) => grants.join(" "),
        }
    }

    fn line(&self) -> String {
        format!("key {} ({}) may: {}\n", self.access_key, self.label, self.may())
    }
}

/// What `key create` prints.
#[derive(Serialize)]
struct CreatedKey {
    #[serde(flatten)]
    key: KeyRow,
    secret_key: String,
}

impl CreatedKey {
    fn text(&self) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = writeln!(out, "access key:  {}", self.key.access_key);
        let _ = writeln!(out, "secret key:  {}", self.secret_key);
        let _ = writeln!(out, "may:         {}", self.key.may());
        out
    }
}

impl KeyVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        match self {
            KeyVerb::Create { label, admin } => create(cx, label, admin).await,
            KeyVerb::List => list(cx).await,
            KeyVerb::Grant { key, bucket, rights: Rights { read, write, admin } } => {
                change(cx, "grant it", key, Grant { bucket, read, write, admin }).await
            }
            KeyVerb::Deny { key, bucket } => {
                change(cx, "take the grant away", key, Grant { bucket, ..Grant::default() }).await
            }
            KeyVerb::Revoke { key, confirm } => revoke(cx, key, &confirm).await,
        }
    }
}

async fn create(cx: &Context, label: String, admin: bool) -> Result<Code, Failure> {
    let node = cx.nodes().await?.serving("create the key").await?;
    let request = CreateKeyRequest { label, admin };
    let made = within(CHANGE_DEADLINE, async { node.store().create_key(request).await })
        .await
        .map_err(|status| Failure::from_status("create the key", &node.name, &status))?;
    let key = KeyRow::of(made.key.unwrap_or_default());
    let id = key.access_key.clone();
    cx.out.show(&CreatedKey { key, secret_key: made.secret }, CreatedKey::text)?;
    cx.out.say("the secret is shown this once: store it now");
    if !admin {
        cx.out.say(format!("it may do nothing yet: `resilver key grant {id} BUCKET --read --write`"));
    }
    Ok(Code::Ok)
}

async fn list(cx: &Context) -> Result<Code, Failure> {
    let rows = rows(cx).await?;
    cx.out.show(&rows, |rows| {
        let mut table = Table::new(["ACCESS_KEY", "LABEL", "MAY", "CREATED"]);
        for row in rows {
            table.row([row.access_key.clone(), row.label.clone(), row.may(), cell(row.created.clone())]);
        }
        table.render()
    })?;
    Ok(Code::Ok)
}

async fn rows(cx: &Context) -> Result<Vec<KeyRow>, Failure> {
    let answer = cx
        .nodes()
        .await?
        .ask("list the keys", async |node: Node| node.store().list_keys(ListKeysRequest {}).await)
        .await?;
    Ok(answer.keys.into_iter().map(KeyRow::of).collect())
}

/// Sets what a key may do in one bucket; no right at all takes the grant away.
async fn change(cx: &Context, doing: &str, id: String, grant: Grant) -> Result<Code, Failure> {
    let node = cx.nodes().await?.serving(doing).await?;
    let request = GrantKeyRequest { id, grant: Some(grant) };
    let key = within(CHANGE_DEADLINE, async { node.store().grant_key(request).await })
        .await
        .map_err(|status| Failure::from_status(doing, &node.name, &status))?;
    let row = KeyRow::of(key);
    cx.out.show(&row, KeyRow::line)?;
    Ok(Code::Ok)
}

#[derive(Serialize)]
struct Revoked {
    access_key: String,
    revoked: bool,
}

async fn revoke(cx: &Context, id: String, confirm: &Confirm) -> Result<Code, Failure> {
    confirm
        .check(cx, "key revoke", &id, async || {
            let rows = rows(cx).await?;
            Ok(match rows.iter().find(|row| row.access_key == id) {
                None => format!("there is no key {id}"),
                Some(row) => format!("key {id} ({}) may: {}", row.label, row.may()),
            })
        })
        .await?;
    let node = cx.nodes().await?.serving("revoke the key").await?;
    let request = RevokeKeyRequest { id: id.clone() };
    within(CHANGE_DEADLINE, async { node.store().revoke_key(request).await })
        .await
        .map_err(|status| Failure::from_status("revoke the key", &node.name, &status))?;
    let revoked = Revoked { access_key: id, revoked: true };
    cx.out.show(&revoked, |revoked| format!("key {} revoked\n", revoked.access_key))?;
    Ok(Code::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(admin: bool, grants: &[(&str, bool, bool, bool)]) -> KeyRow {
        let grant = |(bucket, read, write, admin): &(&str, bool, bool, bool)| Grant {
            bucket: (*bucket).to_owned(),
            read: *read,
            write: *write,
            admin: *admin,
        };
        let grants = grants.iter().map(grant).collect();
        KeyRow::of(Key { id: "RSAAA".to_owned(), label: "backup".to_owned(), admin, grants, ..Key::default() })
    }

    #[test]
    fn what_a_key_may_do_is_told_in_one_word_per_bucket() {
        assert_eq!(key(false, &[]).may(), "nothing");
        assert_eq!(key(true, &[("a", true, false, false)]).may(), "everything");
        let some =
            key(false, &[("logs", true, false, false), ("photos", true, true, false), ("old", false, false, true)]);
        assert_eq!(some.may(), "logs:r photos:rw old:a");
        assert_eq!(some.line(), "key RSAAA (backup) may: logs:r photos:rw old:a\n");
    }
}
