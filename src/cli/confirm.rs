//! The word a person says twice before something is taken away.
//!
//! Owns: `--confirm` and the refusal without it. Must never: ask on a terminal: scripts and people say the same.

use clap::Args;
use serde_json::json;

use super::context::{Context, owner};
use crate::exit::{Code, Failure};

/// `--confirm=NAME`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Confirm {
    /// The same name once more: this cannot be undone
    #[arg(long = "confirm", value_name = "NAME")]
    name: Option<String>,
}

impl Confirm {
    /// Passes when `name` was said twice: that is a person's approval of `verb`, and an agent's journal is told. Otherwise
    /// nothing may be done; `what` tells what would have been taken away.
    ///
    /// # Errors
    /// [`Code::Refused`] without the right name; what `what` failed with.
    pub(crate) async fn check(
        &self,
        cx: &Context,
        verb: &str,
        name: &str,
        what: impl AsyncFnOnce() -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        match self.name.as_deref() {
            Some(said) if said == name => {
                record(cx, verb, name).await;
                Ok(())
            }
            Some(said) => Err(Failure::new(
                Code::Refused,
                format!("--confirm says `{said}`, but this is about `{name}`; nothing was done"),
            )),
            None => {
                let what = what().await?;
                Err(Failure::new(Code::Refused, format!("{what}; nothing was done"))
                    .next(format!("this cannot be undone: say --confirm={name} if you mean it")))
            }
        }
    }
}

/// How long an agent may take to write the approval down. It is a courtesy of theirs: what needs a `--confirm` is needed most
/// when agents are gone.
const RECORD_DEADLINE: std::time::Duration = std::time::Duration::from_secs(3);

/// Has the first agent that answers write it down.
async fn record(cx: &Context, verb: &str, name: &str) {
    // A cluster without agents has no journal.
    let Ok(agents) = cx.agents().await else { return };
    let body = json!({ "owner": owner(None), "verb": verb, "name": name });
    for agent in agents.all() {
        if agent.post("/api/v1/approvals", &body, RECORD_DEADLINE).await.is_ok_and(|answer| answer.is_success()) {
            return;
        }
    }
    cx.out.say("no agent answered: that this was confirmed stands in no journal");
}
