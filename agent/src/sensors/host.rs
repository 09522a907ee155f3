//! How much of everything the host has left: cores, memory and pressure as the kernel tells the agent; room, inodes and
//! descriptors as the node tells of itself. An agent that runs as its unit may neither look into the node's folders nor at
//! its descriptors.
//!
//! Must never: tell what the node said long ago as the present. A node that does not answer has told nothing.

use std::time::Duration;

use resilver_host::{Host, HostLoad};
use resilver_strategies::api::{HostFact, Input, NodeFact, Observation};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::{running, stopped};
use crate::state::View;

/// The oldest answer of the node that counts: as old as a look at the host may be before the next.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// Looks at the host.
pub(crate) struct HostSensor {
    /// The machine.
    pub(crate) host: Host,
    /// How often.
    pub(crate) every: Duration,
    /// Which process the node is, and what it says of itself.
    pub(crate) view: watch::Receiver<View>,
    /// Where facts go.
    pub(crate) out: mpsc::Sender<Input>,
}

impl HostSensor {
    /// Looks until it is told to stop.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            () = stopped(&mut shutdown) => {}
            () = self.look_on() => {}
        }
    }

    async fn look_on(&self) {
        let mut turn = interval(self.every);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            let (node, said) = {
                let view = self.view.borrow();
                let fresh = view.node.heard.is_some_and(|heard| heard.elapsed() <= TOLD_WITHIN);
                (running(&view), view.node.fact.clone().filter(|_| fresh && view.node.alive()))
            };
            let machine = self.host.proc.clone();
            let load = self.host.blocking(move || machine.load(node)).await;
            let fact = fact_of(load, said);
            // Only a stopping agent has dropped the receiver.
            let _ = self.out.send(Input::Observed(Observation::Host(Box::new(fact)))).await;
        }
    }
}

fn fact_of(load: HostLoad, said: Option<NodeFact>) -> HostFact {
    let seen = load.process_descriptors.zip(load.process_descriptors_limit);
    let descriptors = said.as_ref().and_then(|said| said.descriptors).or(seen);
    HostFact {
        cpu_per_mille: load.cpu_per_mille,
        cpu_pressure_per_mille: load.cpu_pressure_per_mille,
        memory_pressure_per_mille: load.memory_pressure_per_mille,
        io_pressure_per_mille: load.io_pressure_per_mille,
        memory_total_bytes: load.memory_total_bytes,
        memory_available_bytes: load.memory_available_bytes,
        node_resident_bytes: load.process_resident_bytes,
        node_descriptors: descriptors.map(|(open, _)| open),
        node_descriptors_limit: descriptors.map(|(_, limit)| limit),
        volumes: said.map(|said| said.volumes).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use resilver_strategies::api::VolumeFact;

    use super::*;

    #[test]
    fn what_the_node_says_of_itself_counts_before_what_its_agent_sees() {
        let volume = VolumeFact { name: "metadata".into(), total_bytes: 9, ..VolumeFact::default() };
        let said = NodeFact { volumes: vec![volume], descriptors: Some((70, 1024)), ..NodeFact::default() };
        let load = HostLoad {
            process_descriptors: Some(5),
            process_descriptors_limit: Some(6),
            cpu_per_mille: Some(31),
            ..HostLoad::default()
        };
        let fact = fact_of(load, Some(said));
        assert_eq!((fact.node_descriptors, fact.volumes.len(), fact.cpu_per_mille), (Some(70), 1, Some(31)));
        let fact = fact_of(load, None);
        assert_eq!((fact.node_descriptors, fact.volumes.len()), (Some(5), 0), "a node that is silent tells nothing");
        assert_eq!(fact_of(HostLoad::default(), None), HostFact::default(), "and nothing is not zero");
    }
}
