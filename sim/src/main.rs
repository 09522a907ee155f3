//! The simulator's command. Today it boots a cluster and lets it be for a minute of simulated time; scenarios follow.

mod cluster;

use std::process::ExitCode;
use std::time::Duration;

use resilver_sim_kernel::Kernel;

/// How long the cluster is watched.
const MINUTE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut kernel = Kernel::new(1);
    if let Err(error) = cluster::Cluster::boot(&mut kernel, 6, 2) {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let end = kernel.now() + MINUTE;
    while kernel.now() < end {
        kernel.step();
    }
    kernel.trace(|trace| println!("trace {:016x}, {} lines", trace.hash(), trace.lines()));
    ExitCode::SUCCESS
}
