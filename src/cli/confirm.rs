//! The word a person says twice before something is taken away.
//!
//! Owns: `--confirm` and the refusal without it. Must never: ask on a terminal: scripts and people say the same.

use clap::Args;

use crate::exit::{Code, Failure};

/// `--confirm=NAME`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Confirm {
    /// The same name once more: this cannot be undone
    #[arg(long = "confirm", value_name = "NAME")]
    name: Option<String>,
}

impl Confirm {
    /// Passes when `name` was said twice. Otherwise nothing may be done; `what` tells what would have been taken away.
    ///
    /// # Errors
    /// [`Code::Refused`] without the right name; what `what` failed with.
    pub(crate) async fn check(
        &self,
        name: &str,
        what: impl AsyncFnOnce() -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        match self.name.as_deref() {
            Some(said) if said == name => Ok(()),
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
