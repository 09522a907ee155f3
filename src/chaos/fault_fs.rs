//! `fault-fs`: a disk that can be told to hang or fail. Started by experiments, on their hosts.

use std::path::PathBuf;

use clap::Args;
use resilver_chaos::faultfs::{self, FaultFsOptions};

use crate::cli::context::Context;
use crate::daemon::shutdown_signal;
use crate::exit::{Code, Failure};

/// `fault-fs`.
#[derive(Debug, Args)]
pub(crate) struct FaultFsArgs {
    /// The folder behind it
    backing: PathBuf,
    /// Where it is mounted
    mount: PathBuf,
    /// The socket that orders are taken from
    control: PathBuf,
}

/// `fault-fs`.
pub(crate) async fn fault_fs(cx: &Context, args: FaultFsArgs) -> Result<Code, Failure> {
    let FaultFsArgs { backing, mount, control } = args;
    cx.out.say(format!("{} is shown at {}; orders: {}", backing.display(), mount.display(), control.display()));
    match faultfs::serve(&FaultFsOptions { backing, mount, control }, shutdown_signal()).await {
        Ok(()) => Ok(Code::Ok),
        Err(error) => Err(Failure::failed(format!("{:#}", anyhow::Error::from(error)))),
    }
}
