//! What a cluster refuses: a second node of one name, codings it cannot hold, a host given up by a slip. Each with its cause
//! and next step, and nothing changed.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests are the outside world

#[path = "support/lone.rs"]
mod lone;

use lone::Lone;

#[test]
fn a_second_node_of_the_same_name_is_not_let_in() {
    let first = Lone::new("n1", 2, &[]);
    let running = first.start();
    first.found();
    let second = Lone::new("n1", 2, &[&first.address]);
    let said = second.start().ended();
    assert_eq!(said.code, Some(5), "{}", said.stderr);
    assert_eq!(said.stderr.matches("error: ").count(), 1, "{}", said.stderr);
    for part in ["does not let this node in", "the name n1 belongs to another node", "choose another `node.name`"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    // The first goes on as the only one, and the second may still be let in under a name of its own.
    let nodes = first.ok(&["node", "list", "--json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&nodes).unwrap().as_array().unwrap().len(), 1);
    let config = std::fs::read_to_string(second.path("resilver.yaml")).unwrap();
    std::fs::write(second.path("resilver.yaml"), config.replace("name: n1", "name: n2")).unwrap();
    let renamed = second.start().ended();
    assert_eq!(renamed.code, Some(2), "its folder still says n1, and that is said: {}", renamed.stderr);
    assert!(renamed.stderr.contains("belongs to node n1"), "{}", renamed.stderr);
    running.stop();
}

#[test]
fn codings_that_the_cluster_cannot_hold_are_refused() {
    let lone = Lone::new("n1", 2, &[]);
    let running = lone.start();
    lone.found();
    for (coding, code, cause, next) in [
        ("0+2", 2, "K and M must both be 1 or more", "--coding"),
        ("4+0", 2, "K and M must both be 1 or more", "--coding"),
        ("31+2", 2, "K+M may be at most 32", "--coding"),
        ("x", 2, "write K+M", "--coding"),
        // Allowed in itself, and more than there is.
        ("4+2", 5, "6 shards need as many writable disks, and there are 2", "add disks"),
        ("2+1", 5, "3 shards need as many writable disks, and there are 2", "add disks"),
    ] {
        let said = lone.run(&["bucket", "create", "photos", "--coding", coding]);
        assert_eq!(said.code, Some(code), "{coding}: {}", said.stderr);
        assert!(said.stderr.contains(cause) && said.stderr.contains(next), "{coding}: {}", said.stderr);
        assert_eq!(said.stderr.matches("error: ").count(), 1, "{coding}: {}", said.stderr);
    }
    assert_eq!(lone.ok(&["bucket", "list", "--json"]).trim(), "[]", "a refused bucket was made");
    lone.ok(&["bucket", "create", "photos", "--coding", "1+1"]);
    running.stop();
}

#[test]
fn a_person_marks_a_node_and_gives_none_up_by_a_slip() {
    let lone = Lone::new("n1", 2, &[]);
    let running = lone.start();
    lone.found();
    let listed = || {
        let rows: serde_json::Value = serde_json::from_str(&lone.ok(&["node", "list", "--json"])).unwrap();
        (rows[0]["state"].as_str().unwrap().to_owned(), rows[0]["detail"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(listed().0, "healthy");

    let said = lone.ok(&["node", "down", "n1", "--reason", "new memory"]);
    assert!(said.contains("was up and is down"), "{said}");
    assert_eq!(listed(), ("down".to_owned(), "new memory; the node itself is healthy".to_owned()));

    for slip in [&["--reason", "sold"][..], &["--reason", "sold", "--confirm=n2"]] {
        let said = lone.run(&[&["node", "out", "n1"], slip].concat());
        assert_eq!(said.code, Some(5), "{}", said.stderr);
        assert!(said.stderr.contains("nothing was done"), "{}", said.stderr);
    }
    assert_eq!(listed().0, "down");
    assert_eq!(lone.run(&["node", "out", "n9", "--reason", "sold", "--confirm=n9"]).code, Some(2));
    lone.ok(&["node", "out", "n1", "--reason", "sold", "--confirm=n1"]);
    assert_eq!(listed(), ("out".to_owned(), "sold; the node itself is healthy".to_owned()));
    lone.ok(&["node", "up", "n1"]);
    assert_eq!(listed().0, "healthy");
    running.stop();
}
