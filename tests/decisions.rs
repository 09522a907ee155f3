//! What an agent decided, afterwards: its journal as other tools read it, its flight recorder replayed, and steps that wait for
//! a person's word.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests are the outside world

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use resilver_host::Signal;
use serde_json::Value;
use support::{Cluster, eventually, whole};

/// Names the interpreter that has what `tests/journal/requirements.txt` says.
const PYTHON: &str = "RESILVER_JOURNAL_PYTHON";

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn status(cluster: &Cluster, node: &str) -> Option<Value> {
    let output = cluster.run(&["agent", "status", "--node", node, "--json"]);
    output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
}

/// Kills the node's process, once there is one that serves.
async fn kill(cluster: &Cluster, node: &str) {
    let mut pid = None;
    eventually("a healthy node", async || {
        let status = status(cluster, node).unwrap_or_default();
        pid = status["node"]["pid"].as_u64().filter(|_| status["node"]["fact"]["phase"] == "healthy");
        pid.is_some()
    })
    .await;
    cluster.signal(u32::try_from(pid.unwrap()).unwrap(), Signal::Kill).await;
}

/// The newest incident of this node's agent that is about a crash.
fn crash(cluster: &Cluster, node: &str) -> Option<Value> {
    let incidents = cluster.try_json(&["incident", "list", "--json"])?;
    let of_it = |incident: &&Value| {
        incident["agent"] == node && incident["initial"] == false && incident["mode"] == "process_crash"
    };
    incidents.as_array().unwrap().iter().find(of_it).cloned()
}

async fn resolved(cluster: &Cluster, node: &str) -> Value {
    let mut found = None;
    eventually("the crash is resolved", async || {
        found = crash(cluster, node).filter(|incident| incident["state"] == "resolved");
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[tokio::test]
async fn what_was_decided_can_be_read_by_others_decided_again_and_decided_by_a_person() {
    let cluster = Cluster::start(3, 1, &[]);
    whole(&cluster.client()).await;
    kill(&cluster, "n2").await;
    resolved(&cluster, "n2").await;
    journals(&cluster);
    recordings(&cluster).await;
    approvals(&cluster).await;
    confirmations(&cluster);
    journals(&cluster);
}

/// Every record that this real run wrote, against the published schema, by tools that know nothing of us.
fn journals(cluster: &Cluster) {
    let verified = cluster.run(&["journal", "verify"]);
    assert_eq!(code(&verified), 0, "{}", said(&verified));
    let folder = cluster.node_dir("n2").join("agent/journal");
    let jq = "cat \"$1\"/*.jsonl | jq -r 'select(.kind == \"intent\") | .action'";
    if let Ok(ran) = Command::new("sh").args(["-c", jq, "sh"]).arg(&folder).output()
        && ran.status.success()
    {
        let actions = String::from_utf8(ran.stdout).unwrap();
        assert!(actions.lines().filter(|action| *action == "start_node").count() >= 2, "{actions}");
    }
    let Some(python) = std::env::var_os(PYTHON) else {
        assert!(
            std::env::var_os("RESILVER_TEST_NO_SKIP").is_none(),
            "${PYTHON} names no Python with DuckDB and pandas"
        );
        eprintln!("skipped: ${PYTHON} names no Python with DuckDB and pandas (tests/journal/requirements.txt)");
        return;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for node in ["n1", "n2", "n3"] {
        let ran = Command::new(&python)
            .arg("-B")
            .arg(root.join("tests/journal/read.py"))
            .arg(root.join("docs/journal.schema.json"))
            .arg(cluster.node_dir(node).join("agent/journal"))
            .output()
            .unwrap();
        assert!(ran.status.success(), "{node}: {}", said(&ran));
        let found: Value = serde_json::from_slice(&ran.stdout).unwrap();
        // Lines may have come between one look and the next.
        let records = found["records"].as_u64().unwrap();
        assert!(records > 4 && found["pandas_records"].as_u64().unwrap() >= records, "{found}");
        assert!(
            found["duckdb_records"].as_u64().unwrap() >= records && found["last"].as_u64() >= Some(records),
            "{found}"
        );
        if node == "n2" {
            assert!(found["duckdb"]["start_node"]["times"].as_u64() >= Some(2), "{found}");
            assert!(found["pandas_resolved"]["process_crash"].as_u64() >= Some(2), "{found}");
        }
    }
}

/// What the recorder of n2 kept of its crash is decided the same, and differently by a policy that may not act.
async fn recordings(cluster: &Cluster) {
    let flight = cluster.node_dir("n2").join("agent/flight").display().to_string();
    let replay = |more: &[&str]| cluster.run(&[&["policy", "replay", flight.as_str(), "--json"][..], more].concat());
    let mut report = Value::Null;
    eventually("the recording has all of it", async || {
        let output = replay(&[]);
        assert_eq!(code(&output), 0, "{}", said(&output));
        report = serde_json::from_slice(&output.stdout).unwrap();
        let crash = report["incidents"].as_array().unwrap().iter().find(|incident| incident["mode"] == "process_crash");
        // The first start and the crash are one and the same subject.
        let ends = crash.map_or(0, |crash| {
            crash["recorded"].as_array().unwrap().iter().filter(|decision| decision["what"] == "resolved").count()
        });
        ends >= 2
    })
    .await;
    assert_eq!(
        (&report["same"], &report["inputs_decided_otherwise"], &report["lost"]),
        (&true.into(), &0.into(), &0.into())
    );

    let shadow = cluster.dir.path().join("shadow.yaml");
    std::fs::write(&shadow, "profile: fast\nauthority: { grades: { all: shadow } }\n").unwrap();
    let output = replay(&["--policy", &shadow.display().to_string()]);
    assert_eq!(code(&output), 3, "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let crash =
        report["incidents"].as_array().unwrap().iter().find(|incident| incident["mode"] == "process_crash").unwrap();
    let first = &crash["first"];
    assert_eq!(
        (&first["recorded"]["what"], &first["recorded"]["action"]),
        (&"step".into(), &"start_node".into()),
        "{crash}"
    );
    assert_eq!(
        (&first["replayed"]["what"], &first["replayed"]["guard"]),
        (&"refused".into(), &"authority".into()),
        "{crash}"
    );
    let text = cluster.run(&["policy", "replay", &flight, "--policy", &shadow.display().to_string()]);
    assert!(
        said(&text).contains("  now:  ") && said(&text).contains("would have: start the dead process"),
        "{}",
        said(&text)
    );

    let same = replay(&["--policy", "fast"]);
    assert_eq!(code(&same), 0, "`up` runs by the profile fast: {}", said(&same));
    for usage in
        [vec!["policy", "replay", "nowhere"], vec!["policy", "replay", flight.as_str(), "--policy", "nowhere.yaml"]]
    {
        let output = cluster.run(&usage);
        assert_eq!(code(&output), 2, "{usage:?}: {}", said(&output));
    }
}

/// n1's agent may not start its node without a person's word.
async fn approvals(cluster: &Cluster) {
    let file = cluster.node_dir("n1").join("resilver.yaml");
    let text =
        std::fs::read_to_string(&file).unwrap() + "\nauthority: { modes: { process_crash: { all: approve } } }\n";
    std::fs::write(&file, text).unwrap();
    let before = cluster.agent_pid("n1");
    // `up` starts it again, as systemd does.
    cluster.signal(before, Signal::Terminate).await;
    eventually("a new agent", async || {
        status(cluster, "n1").is_some_and(|status| status["pid"].as_u64().is_some_and(|pid| pid != u64::from(before)))
    })
    .await;
    kill(cluster, "n1").await;
    let mut offer = Value::Null;
    let mut id = String::new();
    eventually("an offer", async || {
        let Some(open) = crash(cluster, "n1").filter(|incident| incident["state"] == "open") else { return false };
        id = open["id"].as_str().unwrap().to_owned();
        let Some(shown) = cluster.try_json(&["incident", "show", &id, "--json"]) else { return false };
        offer = shown["explanation"]["incident"]["approval"].clone();
        offer["token"].is_string()
    })
    .await;
    assert_eq!((&offer["action"], &offer["grade"]), (&"start_node".into(), &1.into()), "{offer}");
    let token = offer["token"].as_str().unwrap().to_owned();
    let explained = said(&cluster.run(&["incident", "explain", &id]));
    assert!(explained.contains(&format!("resilver incident approve {id} --token {token}")), "{explained}");
    let agents = said(&cluster.run(&["agent", "status"]));
    assert!(agents.contains(&format!("n1 is held back: {id}: start_node held by authority")), "{agents}");
    let plan = cluster.run(&["plan"]);
    assert_eq!(code(&plan), 3);
    assert!(said(&plan).contains("guard authority refuses"), "{}", said(&plan));

    let wrong = cluster.run(&["incident", "approve", &id, "--token", "0123"]);
    assert_eq!(code(&wrong), 5, "{}", said(&wrong));
    assert!(said(&wrong).contains("not the token"), "{}", said(&wrong));
    let given = cluster.run(&["incident", "approve", &id, "--token", &token, "--owner", "ada"]);
    assert_eq!(code(&given), 0, "{}", said(&given));
    resolved(cluster, "n1").await;
    let used = cluster.run(&["incident", "approve", &id, "--token", &token]);
    assert_eq!(code(&used), 5, "{}", said(&used));
    let none = cluster.run(&["incident", "approve", &id]);
    assert_eq!(code(&none), 5, "{}", said(&none));

    let records = cluster.json(&["journal", "list", "--node", "n1", "--limit", "100000", "--json"]);
    let records = records.as_array().unwrap();
    let approve =
        |kind: &str| records.iter().filter(|record| record["action"] == "approve" && record["kind"] == kind).count();
    assert!(approve("note") >= 2, "offered and given");
    assert_eq!(approve("refused"), 2, "wrong, and used: {records:#?}");
    let intent = records.iter().rev().find(|record| record["kind"] == "intent").unwrap();
    assert!(intent["guards"].to_string().contains("approved by ada"), "{intent}");
    for file in files(&cluster.node_dir("n1").join("agent")) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(token.len()).any(|at| at == token.as_bytes()), "the token is in {}", file.display());
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.into_iter().flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A command that asks for its name once more is an approval, and a journal has it.
fn confirmations(cluster: &Cluster) {
    cluster.json(&["bucket", "create", "gone", "--coding", "2+1", "--json"]);
    let refused = cluster.run(&["bucket", "delete", "gone"]);
    assert_eq!(code(&refused), 5, "{}", said(&refused));
    let deleted = cluster.run(&["bucket", "delete", "gone", "--confirm=gone"]);
    assert_eq!(code(&deleted), 0, "{}", said(&deleted));
    let records = cluster.json(&["journal", "list", "--limit", "100000", "--json"]);
    let confirmed = |record: &&Value| record["action"] == "approve" && record["details"]["confirmed"] == "gone";
    let record = records.as_array().unwrap().iter().find(confirmed).expect("the approval is recorded");
    assert_eq!(record["details"]["to"], "bucket delete", "{record}");
}
