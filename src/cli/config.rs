//! `config check|schema`.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::context::Context;
use crate::config;
use crate::exit::{Code, Failure};

/// Verbs of the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Read a configuration and say what is wrong with it: line, column, valid names
    Check {
        /// The file; the one `node run` would use by default
        file: Option<PathBuf>,
    },
    /// The JSON schema of resilver.yaml, for editors
    Schema,
}

#[derive(Serialize)]
struct Accepted {
    file: PathBuf,
    ok: bool,
    node: Option<String>,
    agent: Option<String>,
    nodes: usize,
}

impl ConfigVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        match self {
            ConfigVerb::Schema => cx.out.json(&config::schema())?,
            ConfigVerb::Check { file } => {
                let file = match file {
                    Some(file) => file,
                    None => cx.config_file().await?,
                };
                let config = config::load(&cx.host, &file).await?;
                let accepted = Accepted {
                    ok: true,
                    node: config.node.map(|node| node.name),
                    agent: config.agent.map(|agent| agent.name),
                    nodes: config.nodes.len(),
                    file,
                };
                cx.out.show(&accepted, |accepted| format!("{}: ok\n", accepted.file.display()))?;
            }
        }
        Ok(Code::Ok)
    }
}
