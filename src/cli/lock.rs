//! `lock list|acquire|release|break`: who may change what, and taking that away from the dead.
//!
//! Must never: repeat a release or a break; break a lock on anybody's word but that of whoever says `--confirm`.

use std::time::Duration;

use clap::Subcommand;
use resilver_node::types::LifeId;
use resilver_proto::locks::{AcquireRequest, BreakRequest, ListRequest, Lock, Owner, ReleaseRequest};
use serde::Serialize;

use super::confirm::Confirm;
use super::context::{Context, owner};
use crate::client::{CHANGE_DEADLINE, Node, within};
use crate::exit::{Code, Failure};
use crate::output::Table;

/// Verbs of locks.
#[derive(Debug, Subcommand)]
pub(crate) enum LockVerb {
    /// Every lock that is held, by whom, and how many wait
    List,
    /// Take a lock. It is not renewed: it ends with its lease, or with `lock release`
    Acquire {
        /// Its path, such as config/bucket/photos
        path: String,
        /// How long it is held, from 1 s to 1 h
        #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
        lease: Duration,
        /// How long to stand in the queue when another has it, up to 60 s
        #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
        wait: Duration,
        /// Who you are, for those who find it held [default: the user's name]
        #[arg(long)]
        owner: Option<String>,
    },
    /// Give a lock back that was taken with `lock acquire`
    Release {
        /// Its path
        path: String,
        /// The token that `lock acquire` printed
        #[arg(long)]
        token: u64,
    },
    /// Take a lock from its holder before its lease is over; what that one still sends is refused
    Break {
        /// Its path
        path: String,
        /// Why, for those who wonder later
        #[arg(long, default_value = "broken by hand")]
        reason: String,
        /// Who answers for it [default: the user's name]
        #[arg(long)]
        owner: Option<String>,
        #[command(flatten)]
        confirm: Confirm,
    },
}

#[derive(Clone, Debug, Serialize)]
struct LockRow {
    path: String,
    owner: String,
    /// Null: a client's.
    node: Option<String>,
    token: u64,
    lease_seconds: f64,
    queue: Vec<String>,
}

impl LockRow {
    fn of(lock: &Lock) -> Self {
        let holder = lock.owner.clone().unwrap_or_default();
        Self {
            path: lock.path.clone(),
            owner: shown(&holder),
            node: (!holder.node.is_empty()).then(|| holder.node.clone()),
            token: lock.token,
            lease_seconds: Duration::from_millis(lock.lease_ms).as_secs_f64(),
            queue: lock.queue.iter().map(shown).collect(),
        }
    }

    fn line(&self) -> String {
        let lease = humantime::format_duration(Duration::from_secs_f64(self.lease_seconds));
        format!(
            "lock {} is held by {} (token {}, lease {lease}), {} wait",
            self.path,
            self.owner,
            self.token,
            self.queue.len()
        )
    }
}

/// An owner in one cell: `making a bucket #4 on n1`, or a client's label.
fn shown(owner: &Owner) -> String {
    if owner.node.is_empty() { owner.label.clone() } else { format!("{} on {}", owner.label, owner.node) }
}

fn table(rows: &[LockRow]) -> String {
    let mut table = Table::new(["PATH", "OWNER", "TOKEN", "LEASE", "QUEUE"]);
    for row in rows {
        let lease = humantime::format_duration(Duration::from_secs_f64(row.lease_seconds)).to_string();
        let queue = row.queue.len().to_string();
        table.row([row.path.clone(), row.owner.clone(), row.token.to_string(), lease, queue]);
    }
    table.render()
}

/// What `lock acquire`, `release` and `break` print.
#[derive(Serialize)]
struct Changed {
    path: String,
    token: u64,
    state: &'static str,
    /// Of a break: why the owner is certainly dead; null: somebody answered for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<String>,
}

impl LockVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        match self {
            LockVerb::List => list(cx).await,
            LockVerb::Acquire { path, lease, wait, owner: who } => {
                let request = AcquireRequest {
                    path,
                    label: owner(who),
                    life: LifeId::draw(&mut cx.host.rand.fork("cli.lock")).to_string(),
                    lease_ms: millis(lease),
                    wait_ms: millis(wait),
                };
                acquire(cx, request, wait).await
            }
            LockVerb::Release { path, token } => release(cx, path, token).await,
            LockVerb::Break { path, reason, owner: who, confirm } => {
                break_lock(cx, path, reason, owner(who), &confirm).await
            }
        }
    }
}

async fn locks(cx: &Context) -> Result<Vec<Lock>, Failure> {
    let list = async |node: Node| node.locks().list(ListRequest {}).await;
    Ok(cx.nodes().await?.ask("list the locks", list).await?.locks)
}

async fn list(cx: &Context) -> Result<Code, Failure> {
    let rows: Vec<LockRow> = locks(cx).await?.iter().map(LockRow::of).collect();
    cx.out.show(&rows, |rows| table(rows))?;
    Ok(Code::Ok)
}

async fn acquire(cx: &Context, request: AcquireRequest, wait: Duration) -> Result<Code, Failure> {
    let node = cx.nodes().await?.serving("take the lock").await?;
    let path = request.path.clone();
    let had = within(CHANGE_DEADLINE + wait, async { node.locks().acquire(request).await })
        .await
        .map_err(|status| Failure::from_status("take the lock", &node.name, &status))?;
    let changed = Changed { path, token: had.token, state: "held", proof: None };
    cx.out.show(&changed, |changed| format!("lock {} is held, token {}\n", changed.path, changed.token))?;
    cx.out.say(format!(
        "it ends in {}, or with `resilver lock release {} --token {}`",
        humantime::format_duration(Duration::from_millis(had.lease_ms)),
        changed.path,
        changed.token
    ));
    Ok(Code::Ok)
}

/// The lock of this path, or the failure that there is none.
async fn held(cx: &Context, path: &str) -> Result<Lock, Failure> {
    let found = locks(cx).await?.into_iter().find(|lock| lock.path == path);
    found.ok_or_else(|| {
        Failure::new(Code::Refused, format!("nobody holds lock {path}; nothing was done"))
            .next("see `resilver lock list` for those that are held")
    })
}

async fn release(cx: &Context, path: String, token: u64) -> Result<Code, Failure> {
    let lock = held(cx, &path).await?;
    let node = cx.nodes().await?.serving("give the lock back").await?;
    let request = ReleaseRequest { path: path.clone(), owner: lock.owner, token };
    within(CHANGE_DEADLINE, async { node.locks().release(request).await })
        .await
        .map_err(|status| Failure::from_status("give the lock back", &node.name, &status))?;
    let changed = Changed { path, token, state: "released", proof: None };
    cx.out.show(&changed, |changed| format!("lock {} was given back\n", changed.path))?;
    Ok(Code::Ok)
}

async fn break_lock(
    cx: &Context,
    path: String,
    reason: String,
    operator: String,
    confirm: &Confirm,
) -> Result<Code, Failure> {
    confirm.check(cx, "lock break", &path, async || Ok(LockRow::of(&held(cx, &path).await?).line())).await?;
    let lock = held(cx, &path).await?;
    let node = cx.nodes().await?.serving("break the lock").await?;
    let request = BreakRequest { path: path.clone(), token: lock.token, reason, operator, fence: None };
    let broken = within(CHANGE_DEADLINE, async { node.locks().r#break(request).await })
        .await
        .map_err(|status| Failure::from_status("break the lock", &node.name, &status))?;
    let proof = (!broken.proof.is_empty()).then_some(broken.proof);
    let changed = Changed { path, token: broken.token, state: "broken", proof };
    cx.out.show(&changed, |changed| {
        let why = changed.proof.as_deref().unwrap_or("on your word that its owner does nothing any more");
        format!("lock {} was broken: {why}\n", changed.path)
    })?;
    Ok(Code::Ok)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(node: &str, waiting: usize) -> Lock {
        let owner = Owner { node: node.to_owned(), life: String::new(), label: "making a bucket #4".to_owned() };
        let queue = vec![owner.clone(); waiting];
        Lock { path: "config/bucket/photos".to_owned(), owner: Some(owner), token: 12, lease_ms: 5000, queue }
    }

    #[test]
    fn locks_are_listed_with_owner_token_lease_and_queue() {
        let rows = [LockRow::of(&lock("n1", 2)), LockRow::of(&lock("", 0))];
        assert_eq!(
            table(&rows),
            "PATH                  OWNER                     TOKEN  LEASE  QUEUE\n\
             config/bucket/photos  making a bucket #4 on n1  12     5s     2\n\
             config/bucket/photos  making a bucket #4        12     5s     0\n"
        );
        let json = serde_json::to_value(&rows[1]).unwrap();
        assert_eq!(json["node"], serde_json::Value::Null);
        assert_eq!(json["token"], 12);
    }

    #[test]
    fn what_would_be_broken_is_told_in_one_line() {
        assert_eq!(
            LockRow::of(&lock("n1", 1)).line(),
            "lock config/bucket/photos is held by making a bucket #4 on n1 (token 12, lease 5s), 1 wait"
        );
    }
}
