//! The agent under a real systemd, with the units that ship: it takes up a node it did not start, brings a killed one back
//! once, leaves a stopped one alone, and restarts through lease and slot. Needs root, and a systemd to boot.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests are the outside world

#[path = "support/booted.rs"]
mod booted;
#[path = "support/lone.rs"]
mod lone;

use std::time::{Duration, Instant};

use booted::{Booted, Member};
use lone::{eventually, is_root};
use serde_json::Value;

/// Longer than the unit's RestartSec of 5 s: by then systemd would have started the node again by itself.
const PAST_RESTART: Duration = Duration::from_secs(7);

/// Three nodes, so that one may be restarted while the others are the quorum.
const MEMBERS: u16 = 3;

struct Story {
    host: Booted,
    members: Vec<Member>,
}

impl Story {
    fn json(&self, args: &[&str]) -> Option<Value> {
        let config = self.members[0].config();
        let command: Vec<&str> =
            ["resilver"].iter().chain(args).chain(&["--json", "--config", config.as_str()]).copied().collect();
        serde_json::from_str(&self.host.run(&command).stdout).ok()
    }

    fn node(&self, name: &str) -> Value {
        self.json(&["node", "status", name]).unwrap_or_default()
    }

    fn is_healthy(&self, name: &str) -> bool {
        self.node(name)["phase"] == "healthy"
    }

    fn main_pid(&self) -> u32 {
        self.host.property(&self.members[0].node_unit, "MainPID").parse().unwrap()
    }

    /// The records of the first agent, of one kind.
    fn records(&self, kind: &str) -> Vec<Value> {
        let lines = self.json(&["journal", "list", "--node", "n1", "--limit", "1000"]).unwrap_or_default();
        lines.as_array().unwrap().iter().filter(|line| line["kind"] == kind).cloned().collect()
    }

    /// Waits out the time in which systemd would act by itself. Only time can show that nothing happened.
    fn nothing_for(&self, time: Duration, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            assert!(holds(), "{what}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn the_agent_heals_its_node_through_systemd_and_fights_nobody() {
    if !is_root("booting a systemd of its own") {
        return;
    }
    assert!(
        std::path::Path::new("/lib/systemd/systemd").exists(),
        "systemd is not installed: there is nothing to boot"
    );
    let members: Vec<Member> = (1..=MEMBERS).map(Member::new).collect();
    let host = Booted::new(env!("CARGO_BIN_EXE_resilver"), &members);
    let story = Story { host, members };
    let Story { host, members } = &story;
    let first = &members[0];
    let unit = first.node_unit.as_str();

    // Phase 1: nodes by their units, a cluster, then the agents: each takes up the node that runs.
    for member in members {
        host.ok(&["systemctl", "start", &member.node_unit]);
    }
    eventually("the first node waits for a cluster", || story.node("n1")["phase"] == "waiting");
    host.ok(&["resilver", "cluster", "init", "--config", &first.config()]);
    for member in members {
        eventually(&format!("{} serves", member.name), || story.is_healthy(&member.name));
    }
    let before = story.main_pid();
    for member in members {
        host.ok(&["systemctl", "start", &member.agent_unit]);
    }
    let ready = |member: &Member| {
        host.run(&["resilver", "agent", "status", "--node", &member.name, "--config", &first.config()])
    };
    for member in members {
        eventually(&format!("the agent of {} answers", member.name), || ready(member).code == Some(0));
    }
    eventually("somebody holds the lease", || {
        story
            .json(&["agent", "status", "--node", "n1"])
            .is_some_and(|status| status["lease"]["holder"].as_str().is_some_and(|holder| !holder.is_empty()))
    });
    assert_eq!(story.main_pid(), before, "the node ran on when its agent came");
    assert_eq!(host.starts(unit), 1);
    assert!(story.records("opened").is_empty(), "a running node is no incident: {:#?}", story.records("opened"));

    // Phase 2: kill -9. Started again once, by the agent or by systemd.
    host.ok(&["kill", "-9", &before.to_string()]);
    let killed = Instant::now();
    eventually("the node runs again", || !matches!(story.main_pid(), 0) && story.main_pid() != before);
    let back = story.main_pid();
    let after = killed.elapsed();
    eventually("it serves again", || story.is_healthy("n1"));
    eventually("the incident is resolved", || story.records("resolved").len() == 1);
    story.nothing_for(PAST_RESTART.saturating_sub(killed.elapsed()), "the node was started twice", || {
        story.main_pid() == back
    });
    assert_eq!(host.starts(unit), 2, "once for the operator, once after the kill");
    assert!(after < Duration::from_secs(5), "the agent is the first to act, systemd only the net under it: {after:?}");
    assert_eq!(story.records("opened").len(), 1);

    // Phase 3: an operator stops it. That is nobody's failure, for as long as it lasts.
    host.ok(&["systemctl", "stop", unit]);
    story.nothing_for(PAST_RESTART, "a node that was stopped on purpose was started", || {
        host.property(unit, "ActiveState") == "inactive"
    });
    assert_eq!(story.records("opened").len(), 1, "a deliberate stop is no incident");
    host.ok(&["systemctl", "start", unit]);
    eventually("it serves again", || story.is_healthy("n1"));
    assert_eq!(host.starts(unit), 3);

    // Phase 4: an operator's restart goes through the holder of the lease, which opens a slot and closes it.
    let running = story.main_pid();
    let restarted = || !matches!(story.main_pid(), 0) && story.main_pid() != running;
    // One agent may know of a slot that another has not heard of yet.
    let no_slot = || {
        members.iter().all(|member| {
            let status = story.json(&["agent", "status", "--node", &member.name]).unwrap_or_default();
            status["lease"]["slots"].as_array().is_some_and(Vec::is_empty)
        })
    };
    let (mut said, mut unknown) = (None, false);
    eventually("the restart is granted", || {
        // The order before this one may have been carried out since.
        if unknown && restarted() {
            return true;
        }
        // What the node just lived through is still fresh: a guard may ask for patience.
        let config = first.config();
        let order = ["resilver", "node", "restart", "n1", "--reason", "story", "--json", "--config", config.as_str()];
        let answer = host.run(&order);
        let code = answer.code;
        said = Some(answer);
        match code {
            Some(0) => true,
            Some(5) => false,
            // It failed, or nobody said how it ended: what came of it is looked at before it is ordered again.
            Some(1 | 3 | 4) => {
                unknown = true;
                eventually("no order is under way", no_slot);
                restarted()
            }
            _ => panic!("{said:?}"),
        }
    });
    assert_ne!(story.main_pid(), running, "it is another process: {said:?}");
    eventually("it serves again", || story.is_healthy("n1"));
    assert_eq!(host.starts(unit), 4, "restarted once");
    let fence = story.json(&["agent", "status", "--node", "n1"]).unwrap()["fence"].clone();
    assert!(fence["holder"].as_str().is_some_and(|holder| !holder.is_empty()), "the step carried a fence: {fence}");
    let lines = story.json(&["journal", "list", "--limit", "1000"]).unwrap();
    let told = |word: &str| lines.as_array().unwrap().iter().filter(|line| line.to_string().contains(word)).count();
    assert!(told("slot") >= 2, "the slot's opening and closing are in the journal: {lines:#}");

    // Phase 5: it cannot start any more, and says why to systemd's journal. So does the agent.
    let broken = format!("echo 'no_such_key: 1' >> {}", first.config());
    host.ok(&["sh", "-c", &broken]);
    host.ok(&["kill", "-9", &story.main_pid().to_string()]);
    let other = members[1].config();
    let told = || {
        let list = ["resilver", "journal", "list", "--node", "n1", "--limit", "1000", "--json", "--config", &other];
        host.run(&list).stdout
    };
    eventually("the last error of a start that failed is told", || told().contains("no_such_key"));
}
