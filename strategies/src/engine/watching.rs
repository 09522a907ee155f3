//! Which others are asked at all: in a large cluster only the holder of the lease asks everybody.
//!
//! Owns: letting go of whoever is asked no more, everywhere at once. Must never: let a silence begin, go on or count because
//! nobody asks: what is kept of another host and is not kept up is dropped here, and nowhere else.

use serde::{Deserialize, Serialize};

use crate::api::WatchFact;
use crate::engine::Engine;
use crate::types::Now;

/// A part of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// How many are asked.
    pub asked: usize,
    /// How many there are.
    pub of: usize,
}

impl Partial {
    /// So many are asked of so many; `None`: all of them.
    pub fn new(asked: usize, of: usize) -> Option<Partial> {
        (asked < of).then_some(Partial { asked, of })
    }
}

impl Engine {
    /// How many of the others are asked; `None`: all of them.
    pub fn partial(&self) -> Option<Partial> {
        self.asked
    }

    /// Whom this agent hears, for other agents; `None`: it looks at everybody.
    pub fn heard(&self, now: Now) -> Option<Vec<String>> {
        self.liveness.heard(now.mono)
    }

    pub(crate) fn watch(&mut self, fact: &WatchFact) {
        let WatchFact { asked, of, dropped } = fact;
        self.asked = Partial::new(*asked, *of);
        self.liveness.watch(*of, dropped);
        for node in dropped.iter().filter(|node| **node != self.node) {
            self.peers.forget(node);
            self.storm.forget(node);
            self.quorum.forget(node);
            self.watches.leaders.forget(node);
            self.watches.partition.forget(node);
        }
    }
}
