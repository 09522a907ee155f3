//! Faults, workloads, the demonstration and its report, benchmarks.
//!
//! Owns: breaking things on purpose and saying, from the outside, what came of it. What it reports it has measured
//! through the doors that users have (gRPC, the agents' HTTP, the journal), never by asking the parts for their opinion of
//! themselves alone.
//!
//! Must never: reach a process it was not given, touch a file outside the cluster's own folder, or call something
//! recovered that it has not read back.

pub mod bench;
pub mod client;
pub mod dataset;
pub mod demo;
pub mod faultfs;
pub mod faults;
pub mod history;
pub mod hosts;
pub mod load;
pub mod report;
pub mod s3;
pub mod target;
pub mod watch;
