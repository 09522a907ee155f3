//! The desk as the sensors use it: what they leave becomes scores with reasons, and what is not left stays unknown.

use std::time::Duration;

use resilver_host::ProcId;
use resilver_proto::contract::{DiskState, NodeState, ObserveResponse, RaftState, RepairState};
use resilver_strategies::health::{Component, Usage};

use super::desk::{HealthDesk, Process, Reviewed};
use super::peers::Pinged;
use crate::options::{Options, Peer};
use crate::timebase::Timebase;

const SOON: Duration = Duration::from_millis(1);

fn desk() -> HealthDesk {
    let text = r#"{"name":"n1","node_address":"a:1","address":"a:2","http":"a:3","dir":"/nowhere"}"#;
    let mut options: Options = serde_json::from_str(text).expect("the keys that must be there");
    options.peers = ["n1", "n2", "n3"].map(peer).to_vec();
    HealthDesk::new(&options, &Timebase::new(&resilver_host::real::host()))
}

fn peer(id: &str) -> Peer {
    Peer {
        id: id.to_owned(),
        address: String::new(),
        agent: String::new(),
        gossip: None,
        agent_also: Vec::new(),
        api: None,
        data_dir: None,
    }
}

fn answer() -> ObserveResponse {
    let disk = DiskState {
        disk_id: "d1".into(),
        node: "n1".into(),
        state: "up".into(),
        health: "ok".into(),
        used_bytes: 10,
        available_bytes: 80,
        total_bytes: 100,
        check_micros: 900,
        ..DiskState::default()
    };
    let member = |node: &str| NodeState { node: node.into(), role: "voter".into(), ..NodeState::default() };
    ObserveResponse {
        node: "n1".into(),
        phase: "healthy".into(),
        objects: 10,
        disks: vec![disk],
        raft: Some(RaftState { role: "follower".into(), leader: "n2".into(), ..RaftState::default() }),
        repair: Some(RepairState { shards: 30, ..RepairState::default() }),
        nodes: ["n1", "n2", "n3"].map(member).to_vec(),
        ..ObserveResponse::default()
    }
}

fn well() -> Pinged {
    Pinged { took: Some(SOON), alive: Some(true), score: Some(100), node_answers: None, leader_known: Some(true) }
}

fn scores(desk: &HealthDesk, process: Process) -> (u8, u8) {
    let Reviewed { node, cluster, .. } = desk.review(process);
    (node, cluster)
}

#[test]
fn from_nothing_known_to_all_well() {
    let desk = desk();
    assert_eq!(desk.score(), None, "before the first review there is no score");
    let (node, cluster) = scores(&desk, Process::Unknown);
    assert!(node <= 40 && cluster <= 70, "{node} {cluster}");
    desk.answered(&answer(), SOON);
    desk.pinged("n2", &well());
    desk.pinged("n3", &well());
    assert_eq!(scores(&desk, Process::Runs), (100, 100));
    let view = serde_json::to_value(desk.view()).expect("it serializes");
    assert_eq!(view.pointer("/node/score"), Some(&100.into()));
    let members: Vec<_> = view["members"].as_array().expect("a list").iter().map(|member| &member["score"]).collect();
    assert_eq!(members, [100, 100, 100]);
}

#[test]
fn a_dead_node_is_zero_and_the_cluster_counts_it() {
    let desk = desk();
    desk.answered(&answer(), SOON);
    desk.pinged("n2", &well());
    desk.pinged("n3", &well());
    let (node, cluster) = scores(&desk, Process::Dead);
    assert_eq!(node, 0);
    // One of three voters is dead, and data is promised to outlast one: the next takes either.
    assert!(cluster <= 50, "{cluster}");
    desk.pinged("n3", &Pinged { alive: Some(false), ..well() });
    assert_eq!(scores(&desk, Process::Dead), (0, 0), "no quorum, nothing can be read");
}

#[test]
fn a_node_that_falls_silent_is_held_down_and_what_it_said_is_not_believed_any_more() {
    let desk = desk();
    desk.answered(&answer(), SOON);
    for _ in 0..3 {
        desk.missed();
    }
    desk.review(Process::Runs);
    assert_eq!(desk.score(), Some(20));
    let view = serde_json::to_value(desk.view()).expect("it serializes");
    let unjudged =
        view["node"]["reasons"].as_array().expect("a list").iter().filter(|reason| reason["judged"] == false);
    let named: Vec<_> = unjudged.map(|reason| reason["component"].as_str().expect("a name")).collect();
    assert!(named.contains(&Component::DiskHealth.as_str()) && named.contains(&Component::Raft.as_str()), "{named:?}");
}

#[test]
fn a_learner_has_no_vote_to_lose() {
    let desk = desk();
    let mut answer = answer();
    answer.nodes[2].role = "learner".into();
    desk.answered(&answer, SOON);
    desk.pinged("n2", &well());
    desk.pinged("n3", &well());
    desk.review(Process::Runs);
    let view = serde_json::to_value(desk.view()).expect("it serializes");
    let quorum = &view["cluster"]["reasons"][1];
    assert_eq!(quorum["evidence"][0], "2 of 2 voters live, 0 more may be lost", "{quorum}");
}

#[test]
fn errors_of_a_disk_count_from_when_they_are_seen_to_happen() {
    let desk = desk();
    let mut answer = answer();
    answer.disks[0].errors = 500;
    desk.answered(&answer, SOON);
    assert_eq!(scores(&desk, Process::Runs).0, 100, "they may be years old");
    answer.disks[0].errors = 501;
    desk.answered(&answer, SOON);
    // 30% of 15 points.
    assert_eq!(scores(&desk, Process::Runs).0, 95);
}

#[test]
fn samples_of_a_node_that_runs_are_no_prediction_by_themselves() {
    let desk = desk();
    desk.answered(&answer(), SOON);
    let memory = (ProcId { pid: 7, start_ticks: 1 }, Usage { used: 1 << 20, limit: 1 << 30 });
    desk.sample(Some(memory), Some(2));
    assert!(desk.foresee().is_empty() && desk.predictions().is_empty());
    desk.review(Process::Runs);
    let view = serde_json::to_value(desk.view()).expect("it serializes");
    let words = view["cluster"]["reasons"][0]["evidence"][0].as_str().expect("words");
    assert_eq!(words, "2 more nodes may be lost, by the weakest bucket's coding");
}

#[test]
fn a_disk_that_announces_its_end_costs_points_with_its_reason_and_a_silent_one_costs_none() {
    use resilver_strategies::api::SmartVerdict;

    use super::SmartView;

    let desk = desk();
    desk.answered(&answer(), SOON);
    desk.pinged("n2", &well());
    desk.pinged("n3", &well());
    let said = |verdict, why: &str| {
        let unknown = SmartView::unknown("d1", std::path::Path::new("/d1"), Duration::from_secs(60));
        desk.smart(SmartView { verdict, reasons: vec![why.to_owned()], ..unknown });
        let score = scores(&desk, Process::Runs).0;
        let view = serde_json::to_value(desk.view()).expect("it serializes");
        (score, view["node"]["reasons"].to_string())
    };
    let (score, reasons) = said(SmartVerdict::Unknown, "no file");
    assert_eq!(score, 100, "{reasons}");
    assert!(reasons.contains("SMART: not measured"), "{reasons}");
    let (score, reasons) = said(SmartVerdict::Degrading, "8 sectors are lost");
    assert_eq!(score, 94, "{reasons}");
    assert!(reasons.contains("d1 is degrading by SMART: 8 sectors are lost"), "{reasons}");
    assert_eq!(said(SmartVerdict::Failing, "it says so").0, 88);
    assert_eq!(said(SmartVerdict::Ok, "8 counters").0, 100);
    desk.answered(&ObserveResponse { disks: Vec::new(), ..answer() }, SOON);
    assert_eq!(desk.smart_views().len(), 1, "a node that lists none has not lost them");
    let other = DiskState { disk_id: "d2".into(), ..answer().disks.remove(0) };
    desk.answered(&ObserveResponse { disks: vec![other], ..answer() }, SOON);
    assert!(desk.smart_views().is_empty());
}
