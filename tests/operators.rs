//! Buckets, keys and the way in: an operator's day with the S3 door, on one cluster, because starting one takes longer than
//! all that is asked of it. What tables look like is kept in `tests/golden/`.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests are the outside world

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use support::Cluster;

const MIB: u64 = 1024 * 1024;

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// Times and drawn names differ from run to run; widths must not.
fn still(text: &str, ids: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (id, name) in ids {
        text = text.replace(id, &format!("{name:<width$}", width = id.len()));
    }
    let time =
        |word: &str| word.len() == "2026-01-01T00:00:00.000Z".len() && word.starts_with("20") && word.ends_with('Z');
    text.split_inclusive([' ', '\n'])
        .map(|piece| if time(piece.trim_end()) { piece.replace(piece.trim_end(), "TIME") } else { piece.to_owned() })
        .collect()
}

/// Compares with the file; `RESILVER_GOLDEN=write` writes it instead.
fn golden(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("RESILVER_GOLDEN").is_some_and(|word| word == "write") {
        std::fs::write(&path, got).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(got, expected, "{name} differs; RESILVER_GOLDEN=write takes it over");
}

/// Exits as said, with this in its message, and with no data.
fn refused(cluster: &Cluster, args: &[&str], status: i32, words: &str) {
    let output = cluster.run(args);
    assert_eq!(code(&output), status, "{args:?}: {}{}", out(&output), err(&output));
    assert!(err(&output).contains(words), "{args:?}: {}", err(&output));
    assert_eq!(out(&output), "", "{args:?}");
}

#[test]
fn an_operator_makes_buckets_and_keys_and_takes_them_away_again() {
    let cluster = Cluster::start(3, 2, &[]);
    the_first_start_leaves_a_key(&cluster);
    buckets(&cluster);
    let key = keys(&cluster);
    taking_away(&cluster, &key);
    the_key_outlives_a_restart(cluster);
}

fn s3_file(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("s3.json")).unwrap()).unwrap()
}

/// What an address answers to a GET.
fn asked(address: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(support::LIMIT)).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut said = String::new();
    socket.read_to_string(&mut said).unwrap();
    said
}

fn the_first_start_leaves_a_key(cluster: &Cluster) {
    let kept = s3_file(cluster.dir.path());
    let endpoints: Vec<Value> = cluster.up["nodes"].as_array().unwrap().iter().map(|node| node["s3"].clone()).collect();
    assert_eq!(kept["endpoints"], json!(endpoints), "one per node, as `up` says");
    assert_eq!(cluster.up["s3_endpoint"], kept["endpoints"][0]);
    assert_eq!(cluster.up["access_key"], kept["access_key"]);
    assert_eq!(cluster.up["secret_key"], kept["secret_key"]);
    for file in ["s3.json", "s3.env"] {
        let mode = std::fs::metadata(cluster.dir.path().join(file)).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file} is for its owner only");
    }
    for endpoint in endpoints.iter().map(|endpoint| endpoint.as_str().unwrap()) {
        let said = asked(endpoint.strip_prefix("http://").unwrap(), "/health");
        assert!(said.starts_with("HTTP/1.1 200 "), "the door of {endpoint}: {said}");
    }
    let variables = std::fs::read_to_string(cluster.dir.path().join("s3.env")).unwrap();
    assert!(variables.contains(kept["secret_key"].as_str().unwrap()), "what a shell reads is the same");
    let keys = cluster.json(&["key", "list", "--json"]);
    assert_eq!(keys[0]["access_key"], kept["access_key"]);
    assert_eq!(keys[0]["label"], "local");
    assert_eq!(keys[0]["admin"], true);
}

fn buckets(cluster: &Cluster) {
    let made =
        cluster.run(&["bucket", "create", "photos", "--coding", "2+1", "--quota", "10GiB", "--repair-priority", "7"]);
    assert_eq!(code(&made), 0, "{}", err(&made));
    assert_eq!(out(&made), "bucket photos with coding 2+1, quota 10.0 GiB, repair priority 7\n");
    cluster.json(&["bucket", "create", "logs", "--coding", "2+1", "--json"]);

    // What cannot be made is said before anything is made.
    refused(cluster, &["bucket", "create", "photos"], 1, "bucket photos exists already");
    refused(cluster, &["bucket", "create", "resilver.own"], 2, "reserved");
    refused(cluster, &["bucket", "create", "health"], 2, "health");
    refused(cluster, &["bucket", "create", "No_Bucket"], 2, "only lower case letters");
    refused(cluster, &["bucket", "create", "wide", "--coding", "12+4"], 5, "16 shards need as many writable disks");

    // A quota holds for what is put, and what is there stays.
    let file = cluster.dir.path().join("content");
    std::fs::write(&file, vec![7; usize::try_from(2 * MIB).unwrap()]).unwrap();
    let put = |key: &str| cluster.run(&["object", "put", key, file.to_str().unwrap()]);
    assert_eq!(code(&put("photos/one")), 0);
    let lower = cluster.run(&["bucket", "set", "photos", "--quota", "1MiB", "--repair-priority", "0"]);
    assert_eq!(code(&lower), 0, "{}", err(&lower));
    assert!(err(&lower).contains("photos holds 2.0 MiB, more than its quota of 1.0 MiB"), "{}", err(&lower));
    let over = put("photos/two");
    assert_ne!(code(&over), 0, "the quota is judged at the commit");
    assert!(err(&over).contains("quota"), "{}", err(&over));
    let listed = cluster.run(&["bucket", "list"]);
    golden("bucket_list.txt", &still(&out(&listed), &[]));
    let free = cluster.json(&["bucket", "set", "photos", "--quota", "none", "--json"]);
    assert_eq!(free["quota_bytes"], Value::Null);
    assert_eq!(free["repair_priority"], 0, "what is not named stays");
    assert_eq!((&free["objects"], &free["used_bytes"]), (&json!(1), &json!(2 * MIB)));
    refused(cluster, &["bucket", "set", "nowhere", "--quota", "none"], 1, "there is no bucket nowhere");
    refused(cluster, &["object", "put", "resilver.uploads/x", file.to_str().unwrap()], 2, "reserved");
}

/// The id of a key with rights in two buckets.
fn keys(cluster: &Cluster) -> String {
    let created = cluster.run(&["key", "create", "backup job", "--json"]);
    assert_eq!(code(&created), 0, "{}", err(&created));
    let created: Value = serde_json::from_slice(&created.stdout).unwrap();
    let id = created["access_key"].as_str().unwrap().to_owned();
    let secret = created["secret_key"].as_str().unwrap().to_owned();
    assert_eq!((id.len(), secret.len()), (20, 40));

    refused(cluster, &["key", "grant", "RSNOSUCHKEY", "photos", "--read"], 1, "RSNOSUCHKEY");
    refused(cluster, &["key", "grant", &id, "nowhere", "--read"], 1, "there is no bucket nowhere");
    refused(cluster, &["key", "create", ""], 2, "label");

    let granted = cluster.run(&["key", "grant", &id, "photos", "--read", "--write"]);
    assert_eq!(out(&granted), format!("key {id} (backup job) may: photos:rw\n"), "{}", err(&granted));
    cluster.json(&["key", "grant", &id, "logs", "--admin", "--json"]);
    let less = cluster.json(&["key", "grant", &id, "photos", "--read", "--json"]);
    assert_eq!(less["grants"][1], json!({ "bucket": "photos", "read": true, "write": false, "admin": false }));

    let local = s3_file(cluster.dir.path())["access_key"].as_str().unwrap().to_owned();
    let listed = cluster.run(&["key", "list"]);
    // In the order of their making, the drawn ids notwithstanding.
    let mut lines: Vec<String> = out(&listed).lines().map(str::to_owned).collect();
    lines[1..].sort_by_key(|line| line.contains("backup job"));
    golden("key_list.txt", &still(&(lines.join("\n") + "\n"), &[(&id, "KEY-OF-BACKUP"), (&local, "KEY-OF-UP")]));
    for args in [&["key", "list"][..], &["key", "list", "--json"]] {
        assert!(!out(&cluster.run(args)).contains(&secret), "a secret is shown once");
    }
    id
}

fn taking_away(cluster: &Cluster, key: &str) {
    let denied = cluster.json(&["key", "deny", key, "photos", "--json"]);
    assert_eq!(denied["grants"].as_array().map(Vec::len), Some(1));

    refused(cluster, &["key", "revoke", key], 5, "(backup job) may: logs:a; nothing was done");
    refused(cluster, &["key", "revoke", key, "--confirm=photos"], 5, "nothing was done");
    let confirm = format!("--confirm={key}");
    let revoked = cluster.run(&["key", "revoke", key, &confirm]);
    assert_eq!(out(&revoked), format!("key {key} revoked\n"), "{}", err(&revoked));
    refused(cluster, &["key", "revoke", key, &confirm], 1, key);
    refused(cluster, &["key", "grant", key, "photos", "--read"], 1, key);

    refused(cluster, &["bucket", "delete", "photos"], 5, "bucket photos holds 1 objects, 2.0 MiB; nothing was done");
    refused(cluster, &["bucket", "delete", "photos", "--confirm=photos"], 5, "not empty");
    cluster.json(&["object", "delete", "photos/one", "--json"]);
    let gone = cluster.json(&["bucket", "delete", "photos", "--confirm=photos", "--json"]);
    assert_eq!(gone, json!({ "bucket": "photos", "deleted": true }));
    refused(cluster, &["bucket", "delete", "photos", "--confirm=photos"], 1, "there is no bucket photos");
    let names: Vec<Value> = cluster
        .json(&["bucket", "list", "--json"])
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["bucket"].clone())
        .collect();
    assert_eq!(names, [json!("logs")], "the cluster's own buckets are in no listing");
}

fn the_key_outlives_a_restart(cluster: Cluster) {
    let before = s3_file(cluster.dir.path());
    let cluster = Cluster::start_in(cluster.stop(), 3, 2, &[]);
    assert_eq!(s3_file(cluster.dir.path()), before);
    assert_eq!(cluster.up["access_key"], before["access_key"]);
    let keys = cluster.json(&["key", "list", "--json"]);
    assert_eq!(keys.as_array().map(Vec::len), Some(1), "no second one was made");
}
