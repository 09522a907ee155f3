//! The engine's whole state as data: what a segment of the flight recorder begins with, and what a replay begins from.
//!
//! Must never: leave anything out that a decision depends on. A property test replays from every point: the commands are
//! the same.

use crate::config::PolicyConfig;
use crate::engine::Engine;

/// A checkpoint that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the checkpoint of the engine cannot be read: it is damaged, or of another version of this program")]
pub struct BadCheckpoint(#[from] serde_json::Error);

impl Engine {
    /// Everything the engine knows, as JSON.
    pub fn checkpoint(&self) -> String {
        serde_json::to_string(self).expect("texts, numbers and maps with text keys always serialize")
    }

    /// The engine that a checkpoint is of.
    ///
    /// # Errors
    /// When it is none of this version.
    pub fn restore(checkpoint: &str) -> Result<Engine, BadCheckpoint> {
        let mut engine: Engine = serde_json::from_str(checkpoint)?;
        // A checkpoint from before its two times were told apart has one, scaled.
        engine.storm.adopt(&engine.policy.storm, engine.policy.scaled(engine.policy.storm.window));
        Ok(engine)
    }

    /// Goes on by another policy, with everything that was seen so far.
    pub fn adopt(&mut self, policy: PolicyConfig) {
        self.storm.adopt(&policy.storm, policy.scaled(policy.storm.window));
        self.liveness.adopt(&policy);
        self.cascades.adopt(&policy.cascades);
        self.watches.resources.adopt(policy.trends.clone());
        self.policy = policy;
    }
}
