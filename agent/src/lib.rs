//! stub
#![allow(missing_docs)]
pub mod keeper;
mod log_tail;
pub mod options;
pub mod run_dir;
pub mod journal {
    #[derive(Debug, thiserror::Error)]
    pub enum JournalError { #[error("io")] Io{ source: std::io::Error, }, #[error("b")] Broken{} }
    pub struct Verified { pub records: u64, pub first: Option<u64>, pub last: Option<u64>, pub torn_bytes: u64 }
    pub async fn verify(_: &resilver_host::Host, _: &std::path::Path) -> Result<Verified, JournalError> { unreachable!() }
}
pub mod service {
    #[derive(Debug, thiserror::Error)]
    #[error("x")]
    pub struct AgentError;
    pub struct Agent;
    #[derive(serde::Serialize)]
    pub struct Plan;
    impl Plan { pub fn is_empty(&self) -> bool { true } }
    impl std::fmt::Display for Plan { fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) } }
    impl Agent {
        pub async fn open(_: resilver_host::Host, _: crate::options::Options) -> Result<Agent, AgentError> { Err(AgentError) }
        pub async fn once(self) -> Result<Plan, AgentError> { Err(AgentError) }
        pub async fn run(self, _: tokio::sync::watch::Receiver<bool>) -> Result<(), AgentError> { Err(AgentError) }
    }
}
