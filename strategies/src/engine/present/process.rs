//! How the node's process is now.

use crate::api::ProcessFact;
use crate::engine::Engine;
use crate::engine::decide::Present;
use crate::engine::detect::{damage, process_crash};
use crate::engine::incidents::Incident;

impl Engine {
    fn lost_by_damage(&self) -> bool {
        self.facts.node_now().is_some_and(|fact| damage::mode_of(&fact.damage).is_some())
    }

    pub(crate) fn present_process(&self, incident: &Incident) -> Present {
        match self.facts.process() {
            None => Present::Unknown("nothing is known of the process yet"),
            Some(ProcessFact::Running { pid, .. }) => match self.facts.phase() {
                // What took its vote by damage has an incident of its own, whose steps bring it back: a person is called for the
                // crash only when that takes longer than the proof may.
                "lost_voter" if self.lost_by_damage() => Present::Prove(format!("process {pid} runs")),
                "lost_voter" => Present::Beyond(format!(
                    "the node lost its vote: `resilver node rejoin {}` brings it back as a learner",
                    self.node
                )),
                "waiting" if incident.initial => {
                    Present::Over(format!("process {pid} runs and waits to be made part of a cluster"))
                }
                // It runs, and was given its time to serve.
                _ if incident.unproven && incident.rung > 0 => Present::Ill,
                _ => Present::Prove(format!("process {pid} runs")),
            },
            Some(_) => match process_crash::read(&self.node, &self.facts, &self.policy, self.planned()) {
                process_crash::Reading::Deliberate { evidence } => {
                    Present::Over(format!("{evidence}: a deliberate stop is not fought"))
                }
                // An incident of an earlier death may still be open when a person has the node restarted: a second start
                // beside that restart would make two of one.
                process_crash::Reading::Fine => {
                    Present::Unknown("the end of the process was meant, or is known from one source only")
                }
                _ => Present::Ill,
            },
        }
    }
}
