//! What every verb is given.

use std::path::PathBuf;

use resilver_host::Host;

use crate::agents::Agents;
use crate::client::Nodes;
use crate::discover::{self, Found, LOCAL_CONFIG, Place, SYSTEM_CONFIG};
use crate::exit::Failure;
use crate::output::Output;

/// The machine, the place of the cluster, and where words go.
#[derive(Debug)]
pub(crate) struct Context {
    /// The seam.
    pub(crate) host: Host,
    /// Where words go.
    pub(crate) out: Output,
    /// Where the cluster is, as the flags say.
    pub(crate) place: Place,
}

impl Context {
    /// The cluster the flags, variables or usual places name.
    pub(crate) async fn found(&self) -> Result<Found, Failure> {
        discover::find(&self.host, &self.place).await
    }

    /// Its nodes.
    pub(crate) async fn nodes(&self) -> Result<Nodes, Failure> {
        Nodes::new(&self.host, &self.found().await?)
    }

    /// Its agents.
    pub(crate) async fn agents(&self) -> Result<Agents, Failure> {
        Agents::new(&self.host, &self.found().await?)
    }

    /// The configuration file a daemon is to use.
    ///
    /// # Errors
    /// `Code::Usage` when none is named and none is in a usual place.
    pub(crate) async fn config_file(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.place.config {
            return Ok(path.clone());
        }
        for usual in [LOCAL_CONFIG, SYSTEM_CONFIG] {
            let path = PathBuf::from(usual);
            if self.host.disk.metadata(&path).await.is_ok() {
                return Ok(path);
            }
        }
        Err(Failure::usage("no configuration file")
            .next(format!("name one with --config FILE (looked for ./{LOCAL_CONFIG} and {SYSTEM_CONFIG})"))
            .next("to try things out without one: `resilver up`"))
    }

    /// This very program, to start itself as another process.
    pub(crate) fn binary(&self) -> Result<PathBuf, Failure> {
        std::env::current_exe()
            .map_err(|error| Failure::new(crate::exit::Code::Internal, format!("cannot find this program: {error}")))
    }
}

/// Who does something, when no flag says: the user's name.
pub(crate) fn owner(given: Option<String>) -> String {
    let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
    given.or_else(user).unwrap_or_else(|| "operator".to_owned())
}
