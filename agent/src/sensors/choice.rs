//! Which other agents are asked, in a cluster that is too large for everybody to ask everybody.
//!
//! Owns: the sensors of the others, from their start to their end; the choice itself is made by
//! [`resilver_strategies::watching`].
//!
//! Must never: let one that is asked no more look silent. Its sensor has ended, and what people are shown of it is gone, before
//! the engine is told; and the engine is told before anything of those that begin.

use std::collections::{BTreeMap, BTreeSet};

use resilver_strategies::api::{Input, Observation, SwimState, WatchFact};
use resilver_strategies::watching::{Asker, FULL_MATRIX};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{PeerSensor, stopped};
use crate::state::View;

/// Keeps the sensors of the others in step with whom this agent is to ask.
pub(crate) struct PeerWatch {
    /// What each sensor is made of, but for its peer.
    pub(crate) sensor: PeerSensor,
    /// Where the own node says who votes and who leads.
    pub(crate) view: watch::Receiver<View>,
}

/// What is under way.
#[derive(Default)]
struct Watching {
    /// A set of one task each: it ends with the set.
    sensors: BTreeMap<String, JoinSet<()>>,
    /// Who votes, by the node's last word: a node that does not run takes nobody's vote away.
    voters: BTreeSet<String>,
    told: bool,
}

impl PeerWatch {
    /// Watches until it is told to stop.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let stop = shutdown.clone();
        tokio::select! {
            () = stopped(&mut shutdown) => {}
            () = self.watch_on(&stop) => {}
        }
    }

    async fn watch_on(&self, shutdown: &watch::Receiver<bool>) {
        let sensor = &self.sensor;
        let all: BTreeSet<String> = sensor.links.peers.keys().chain([&sensor.own]).cloned().collect();
        let all: Vec<String> = all.into_iter().collect();
        let mut watching = Watching::default();
        loop {
            let holds = sensor.lease.holds();
            let needed = self.needed(&mut watching.voters);
            let asker = Asker { own: &sensor.own, all: &all, holds, needed: &needed, doubtful: &self.doubtful() };
            self.turn_to(&asker.asks(), &mut watching, shutdown).await;
            // The lease at once; who is in doubt, or leads, as often as all are asked.
            tokio::select! {
                () = sensor.lease.turns(holds) => {}
                () = sleep(sensor.interval) => {}
            }
        }
    }

    /// Those that a detector, or the lease, needs by name.
    fn needed(&self, voters: &mut BTreeSet<String>) -> BTreeSet<String> {
        let view = self.view.borrow();
        let mut leader = None;
        if let Some(fact) = &view.node.fact {
            let votes = fact.members.iter().filter(|member| member.role == "voter" && member.state != "out");
            *voters = votes.map(|member| member.node.clone()).collect();
            leader = fact.raft.as_ref().map(|raft| raft.leader.clone());
        }
        drop(view);
        let lease = &self.sensor.lease;
        let mut needed = self.sensor.views.named();
        needed.extend(voters.iter().cloned());
        needed.extend(lease.acceptors());
        needed.extend(lease.holder().into_iter().chain(leader));
        needed
    }

    fn doubtful(&self) -> BTreeSet<String> {
        let mut doubtful = self.sensor.views.doubtful(&self.sensor.lease.cluster());
        let swim = self.sensor.swim.borrow();
        doubtful.extend(swim.iter().filter(|(_, state)| **state != SwimState::Alive).map(|(name, _)| name.clone()));
        doubtful
    }

    async fn turn_to(&self, asked: &BTreeSet<String>, watching: &mut Watching, shutdown: &watch::Receiver<bool>) {
        let Watching { sensors, told, .. } = watching;
        let dropped: Vec<String> = sensors.keys().filter(|name| !asked.contains(*name)).cloned().collect();
        let begun: Vec<&String> = asked.iter().filter(|name| !sensors.contains_key(*name)).collect();
        if *told && dropped.is_empty() && begun.is_empty() {
            return;
        }
        *told = true;
        let sensor = &self.sensor;
        for name in &dropped {
            if let Some(mut task) = sensors.remove(name) {
                task.shutdown().await;
            }
            if let Some(link) = sensor.links.peers.get(name) {
                link.forget();
            }
            sensor.telemetry.forget_peer(name);
        }
        let of = sensor.links.peers.len();
        sensor.views.keep(asked, of);
        sensor.health.keep(asked, of);
        let fact = WatchFact { asked: asked.len(), of, dropped };
        tracing::debug!(asked = fact.asked, of, dropped = fact.dropped.len(), "other agents are asked");
        // Only a stopping agent has dropped the receiver.
        let _ = sensor.out.send(Input::Observed(Observation::Watch(fact))).await;
        for (turn, name) in begun.iter().enumerate() {
            let begins_in = match begun.len() > FULL_MATRIX {
                true => sensor.interval.mul_f64(turn as f64 / begun.len() as f64),
                false => std::time::Duration::ZERO,
            };
            let one = PeerSensor { peer: (*name).clone(), begins_in, ..sensor.clone() };
            let mut task = JoinSet::new();
            task.spawn(one.run(shutdown.clone()));
            sensors.insert((*name).clone(), task);
        }
    }
}
