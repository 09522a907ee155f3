//! A client of the safety phase: one operation after another, until it is told to stop.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use resilver_host::Host;
use resilver_sim_kernel::{Program, mix};
use tokio::sync::watch;

use super::client::{Changed, Condition, Door, Seen};
use super::content::{self, Value};
use super::{FOLDERS, KEYS, Notes, key};
use crate::plan::MACHINES;

/// The pause between two operations: a load that keeps every path warm and leaves a seed affordable.
const PAUSE_MS: (u64, u64) = (20, 180);
/// Where agents are what is looked at, for a minute and more: clients are nine tenths of what such a run costs.
const LEISURE: u32 = 6;
/// After a call that brought nothing, as a client with manners.
const RETRY_PAUSE_MS: (u64, u64) = (50, 300);
/// How often, of a hundred, a client turns to another node though the last one answered.
const WANDER_PERCENT: u32 = 20;

/// How much clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Some thirty operations a second.
    Full,
    /// A few.
    Leisurely,
}

/// The program of client `number`.
pub(crate) fn write(seed: u64, number: u64, load: Load, notes: Notes) -> Program {
    std::sync::Arc::new(move |host, _| {
        let notes = notes.clone();
        Box::pin(async move {
            let stop = notes.stopped();
            let Some(mut writer) = Writer::new(&host, seed, (number, load), notes) else { return 1 };
            writer.run(stop).await;
            0
        })
    })
}

struct Writer {
    number: u64,
    load: Load,
    rng: StdRng,
    doors: Vec<Door>,
    door: usize,
    notes: Notes,
    sequence: u64,
    /// The last version seen of a key, for conditional writes.
    versions: BTreeMap<String, (String, Value)>,
}

impl Writer {
    fn new(host: &Host, seed: u64, (number, load): (u64, Load), notes: Notes) -> Option<Writer> {
        let doors = (1..=MACHINES).map(|node| Door::new(host, &format!("n{node}"))).collect::<Result<Vec<_>, _>>();
        let mut rng = StdRng::seed_from_u64(mix(seed, &format!("client/{number}")));
        let door = rng.random_range(0..MACHINES);
        let versions = BTreeMap::new();
        Some(Writer { number, load, rng, doors: doors.ok()?, door, notes, sequence: 0, versions })
    }

    async fn run(&mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let answered = !self.notes.is_quiet() && self.one().await;
            let wander = self.rng.random_ratio(WANDER_PERCENT, 100);
            if !answered || wander {
                self.door = self.rng.random_range(0..self.doors.len());
            }
            let (low, high) = if answered { PAUSE_MS } else { RETRY_PAUSE_MS };
            let mut pause = Duration::from_millis(self.rng.random_range(low..=high));
            if answered && self.load == Load::Leisurely {
                pause *= LEISURE;
            }
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One operation. Whether its node answered it.
    async fn one(&mut self) -> bool {
        let key = key(self.rng.random_range(0..KEYS));
        match self.rng.random_range(0..100) {
            0..45 => self.put(&key).await,
            45..82 => self.get(&key).await,
            82..90 => self.delete(&key).await,
            _ => self.list().await,
        }
    }

    fn condition(&mut self, key: &str) -> Condition {
        match (self.rng.random_range(0..100), self.versions.get(key)) {
            (0..8, _) => Condition::IfAbsent,
            (8..20, Some((version, value))) => Condition::IfVersion { version: version.clone(), value: *value },
            _ => Condition::Always,
        }
    }

    async fn put(&mut self, key: &str) -> bool {
        self.sequence += 1;
        let value = Value((self.number + 1) << 32 | self.sequence);
        let condition = self.condition(key);
        let bytes = content::content(key, value, content::length(&mut self.rng));
        let door = &self.doors[self.door];
        let call = self.notes.put(self.number, &door.node, key, value, &condition);
        let changed = door.put(key, bytes, &condition).await;
        let answered = !matches!(changed, Changed::Unknown(_));
        match &changed {
            Changed::Done(version) => self.versions.insert(key.to_owned(), (version.clone(), value)),
            // What it knew of the key is no longer so.
            _ => self.versions.remove(key),
        };
        self.notes.put_ended(call, &changed);
        answered
    }

    async fn delete(&mut self, key: &str) -> bool {
        let door = &self.doors[self.door];
        let call = self.notes.delete(self.number, &door.node, key);
        let changed = door.delete(key).await;
        self.versions.remove(key);
        let answered = !matches!(changed, Changed::Unknown(_));
        self.notes.delete_ended(call, &changed);
        answered
    }

    async fn get(&mut self, key: &str) -> bool {
        let door = &self.doors[self.door];
        let call = self.notes.get(self.number, &door.node, key);
        let seen = door.get(key).await;
        if let Seen::Found((value, version)) = &seen {
            self.versions.insert(key.to_owned(), (version.clone(), *value));
        }
        self.notes.get_ended(call, &seen);
        !matches!(seen, Seen::Refused(_))
    }

    async fn list(&mut self) -> bool {
        let prefix = format!("f{}/", self.rng.random_range(0..FOLDERS));
        let door = &self.doors[self.door];
        let call = self.notes.list(self.number, &door.node, &prefix);
        let seen = door.list(&prefix).await;
        self.notes.list_ended(call, &seen);
        !matches!(seen, Seen::Refused(_))
    }
}
