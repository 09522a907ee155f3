//! `completions` and `man`: what the command line says about itself.

use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use resilver_host::disk::replace_file;

use super::Cli;
use super::context::Context;
use crate::exit::{Code, Failure};
use crate::output::write_stdout;

/// `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write one page per verb into this folder instead
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

pub(crate) fn completions(_: &Context, args: CompletionsArgs) -> Result<Code, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "resilver", &mut text);
    write_stdout(&text)?;
    Ok(Code::Ok)
}

pub(crate) async fn man(cx: &Context, args: ManArgs) -> Result<Code, Failure> {
    let mut root = Cli::command();
    root.build();
    let Some(folder) = args.into else {
        write_stdout(&page(&root)?)?;
        return Ok(Code::Ok);
    };
    let failed = |error: std::io::Error| Failure::failed(format!("cannot write to {}: {error}", folder.display()));
    cx.host.disk.create_dir_all(&folder).await.map_err(failed)?;
    let mut waiting = vec![("resilver".to_owned(), root)];
    while let Some((name, command)) = waiting.pop() {
        let file = folder.join(format!("{name}.1"));
        replace_file(&*cx.host.disk, &file, Bytes::from(page(&command)?)).await.map_err(failed)?;
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            waiting.push((format!("{name}-{}", verb.get_name()), verb.clone()));
        }
    }
    Ok(Code::Ok)
}

fn page(command: &clap::Command) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    Man::new(command.clone())
        .render(&mut text)
        .map_err(|error| Failure::failed(format!("the manual page cannot be made: {error}")))?;
    Ok(text)
}
