//! How a disk is now.

use crate::engine::Engine;
use crate::engine::decide::Present;
use crate::engine::detect::disk_failure;
use crate::engine::incidents::Incident;
use crate::engine::ladder;
use crate::types::Moment;

impl Engine {
    pub(crate) fn present_disk(&self, incident: &Incident, disk: &str) -> Present {
        if self.facts.node_now().is_none() {
            return Present::Unknown("the node does not answer");
        }
        // The cluster's map is not changed through a node that takes no part in it: no step would do anything.
        if self.facts.phase() == "lost_voter" {
            return Present::Beyond(
                "the node lost its vote: its disks cannot be looked after before it is back".to_owned(),
            );
        }
        let Some(fact) = self.facts.disk(disk) else {
            // A node that serves lists every disk it has, those that are gone with them: this one is no disk of it any more.
            return match self.facts.phase() {
                "healthy" => {
                    Present::Over("the node has let go of the disk: a person replaced or removed it".to_owned())
                }
                _ => Present::Unknown("the node does not list the disk"),
            };
        };
        if self.disks.rotten(disk).is_some() && fact.state != "out" {
            return Present::Ill;
        }
        let well = self.disks.well(disk, &self.policy);
        match fact.state.as_str() {
            "up" if well => Present::Prove("the disk is well and in service again".to_owned()),
            "read_only" if well && incident.throttled => Present::Undo,
            // Read-only by somebody else's will: nothing to take back.
            "read_only" if well => {
                Present::Prove("the disk is well again; its mode is not the agent's to change".to_owned())
            }
            "draining" if well => Present::Prove("the disk is well again; it is being emptied".to_owned()),
            "up" | "read_only" | "draining" if !disk_failure::failed(&fact.health) => {
                Present::Unknown("the disk's canary is of two minds")
            }
            _ => Present::Ill,
        }
    }

    /// A disk with more corruption than rot explains: read all over, unless it was given up meanwhile.
    pub(crate) fn present_scan(&self, disk: &str) -> Present {
        if self.facts.node_now().is_none() {
            return Present::Unknown("the node does not answer");
        }
        match self.facts.disk(disk).map(|fact| fact.state.as_str()) {
            Some("down" | "out") => Present::Over("the disk is out of service: that is disk_failure's".to_owned()),
            Some(_) => Present::Ill,
            None => Present::Unknown("the node does not list the disk"),
        }
    }

    /// Ill enough to act is a disk whose counters and whose node agree. One that is emptied already is emptied to the end,
    /// whatever the counters say meanwhile: half of the way is no place to stop.
    pub(crate) fn present_degrading(&self, now: Moment, incident: &Incident, disk: &str) -> Present {
        let Some(node) = self.facts.node_now() else { return Present::Unknown("the node does not answer") };
        let Some(fact) = self.facts.disk(disk) else {
            return match node.phase.as_str() {
                "healthy" => Present::Over("the node has this disk no more".to_owned()),
                _ => Present::Unknown("the node does not list the disk"),
            };
        };
        match fact.state.as_str() {
            "draining" | "out" if incident.evacuating => Present::Ill,
            "out" => Present::Over("the disk is out of service".to_owned()),
            "draining" => Present::Unknown("it is being emptied by somebody else's will"),
            "down" => Present::Unknown("it is detached, which is not this incident's"),
            _ if self.degrading.well(now, disk, &self.policy.smart) => {
                Present::Prove(format!("{} SMART samples in a row are well", self.policy.smart.samples))
            }
            _ if incident.evacuating && incident.rung > ladder::EVACUATION => Present::Beyond(
                "the disk was taken back into service while it was being emptied: a person knows why".to_owned(),
            ),
            _ if disk_failure::failed(&fact.health) => Present::Unknown("its canary fails: that is disk_failure's"),
            _ if self.degrading.agree(now, disk, &self.policy.smart).0 => Present::Ill,
            _ => Present::Unknown("it was told; SMART alone does not empty a disk"),
        }
    }
}
