//! Real outputs of `smartctl` against a table of verdicts that was written down from reading them, and the verb that shows
//! a verdict.
//!
//! The samples are third-party and under licences of their own: they are read from `../shared/smart` where that is, and
//! never become part of this repository. Without them the table is only checked for sense, which each test says.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests are the outside world

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use resilver_smart::MAX_INPUT_BYTES;
use serde_json::Value;

/// File, kind, verdict, why.
const TABLE: &str = include_str!("smart_samples.tsv");

struct Expected {
    file: &'static str,
    kind: &'static str,
    verdict: &'static str,
}

fn table() -> Vec<Expected> {
    let rows = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [file, kind, verdict, why] = columns[..] else { panic!("four columns, not: {line}") };
        assert!(!why.is_empty(), "{file} has no reason");
        Expected { file, kind, verdict }
    })
    .collect()
}

/// Where the samples are, if they are. In CI ($RESILVER_TEST_NO_SKIP) a `../shared` without them is a failure, not a skip; a checkout
/// that has nothing of other people's beside it is none.
fn samples() -> Option<PathBuf> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = shared.join("smart");
    if folder.is_dir() {
        return Some(folder);
    }
    let strict = std::env::var_os("RESILVER_TEST_NO_SKIP").is_some();
    assert!(!(strict && shared.is_dir()), "{} has no folder smart with the samples", shared.display());
    let told =
        format!("skipped: {} is absent, the table of {} samples was not tested\n", folder.display(), table().len());
    // Past what the test runner keeps to itself of a test that passes.
    std::io::stderr().write_all(told.as_bytes()).unwrap();
    None
}

fn smart(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_resilver"))
        .args(["disk", "smart"])
        .args(args)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

fn document(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

fn write(dir: &tempfile::TempDir, name: &str, content: &[u8]) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, content).expect("written");
    path.display().to_string()
}

#[test]
fn the_table_has_every_sample_once() {
    let table = table();
    let names: BTreeSet<&str> = table.iter().map(|row| row.file).collect();
    assert_eq!((names.len(), table.len()), (120, 120));
    for row in &table {
        assert!(["ata", "scsi", "nvme", "unknown"].contains(&row.kind), "{}: {}", row.file, row.kind);
        assert!(["ok", "degrading", "failing", "unknown"].contains(&row.verdict), "{}: {}", row.file, row.verdict);
    }
    let Some(folder) = samples() else { return };
    for part in ["text", "json"] {
        for entry in std::fs::read_dir(folder.join(part)).unwrap() {
            let name = format!("{part}/{}", entry.unwrap().file_name().to_string_lossy());
            assert!(names.contains(name.as_str()), "{name} is not in the table: read it, and write down what it means");
        }
    }
}

#[test]
fn every_sample_means_what_a_person_reads_in_it() {
    let Some(folder) = samples() else { return };
    let mut wrong = Vec::new();
    for row in table() {
        let report = resilver_smart::parse(&std::fs::read(folder.join(row.file)).expect(row.file));
        let judgement = resilver_smart::judge(&report);
        if (report.kind.as_str(), judgement.verdict.as_str()) != (row.kind, row.verdict) {
            let (file, kind, verdict) = (row.file, row.kind, row.verdict);
            wrong.push(format!("{file}: {kind} {verdict} expected, {} {judgement:?} found", report.kind));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn no_sample_that_was_cut_anywhere_panics_or_is_ok_without_a_counter() {
    let Some(folder) = samples() else { return };
    for row in table() {
        let whole = std::fs::read(folder.join(row.file)).expect(row.file);
        for length in (0..whole.len()).step_by(97) {
            let report = resilver_smart::parse(&whole[..length]);
            let judgement = resilver_smart::judge(&report);
            let counted = report.counters.tell_of_the_medium();
            assert!(judgement.verdict.as_str() != "ok" || counted, "{} cut at {length}", row.file);
        }
    }
}

#[test]
fn the_verb_ends_with_0_for_every_sample() {
    let Some(folder) = samples() else { return };
    // A process each takes its time: every seventh stands for the others, which the tests above read in here.
    for row in table().into_iter().step_by(7) {
        let said = document(&smart(&["--parse", &folder.join(row.file).display().to_string(), "-o", "json"]));
        assert_eq!(
            (said["kind"].as_str(), said["verdict"].as_str()),
            (Some(row.kind), Some(row.verdict)),
            "{}",
            row.file
        );
    }
}

#[test]
fn the_document_has_what_was_understood_and_null_for_what_was_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = write(
        &dir,
        "disk.txt",
        b"smartctl 7.4\nDevice Model: RSV TESTDISK\nSerial Number: RSV-1\n\
          SMART overall-health self-assessment test result: PASSED\n\
          197 Current_Pending_Sector -O--CK 100 100 000 - 8\n",
    );
    let said = document(&smart(&["--parse", &file, "-o", "json"]));
    assert_eq!(said, document(&smart(&["--parse", &file, "--json"])));
    assert_eq!(
        (&said["kind"], &said["model"], &said["serial"]),
        (&"ata".into(), &"RSV TESTDISK".into(), &"RSV-1".into())
    );
    assert_eq!(
        (&said["passed"], &said["verdict"]),
        (&true.into(), &"degrading".into()),
        "the word is told, not trusted"
    );
    assert!(said["reasons"][0].as_str().is_some_and(|reason| reason.contains("sectors that cannot be read")));
    assert_eq!(said["counters"]["pending_sectors"], 8);
    for unknown in [&said["firmware"], &said["exit_status"], &said["counters"]["reallocated_sectors"]] {
        assert!(unknown.is_null());
    }
    let text = String::from_utf8(smart(&["--parse", &file]).stdout).expect("UTF-8");
    assert!(text.contains("pending_sectors  8") && text.contains("\ndegrading:\n"), "{text}");
}

#[test]
fn whatever_is_in_a_file_ends_with_0_and_unknown_says_why() {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, content) in [
        ("empty", Vec::new()),
        ("binary", (0..=255_u8).cycle().take(100_000).collect()),
        ("cut", b"{\"smartctl\": {\"exit_sta".to_vec()),
        ("large", vec![b'{'; MAX_INPUT_BYTES + 1]),
        ("deep", vec![b'['; 100_000]),
        ("scan", b"/dev/sda -d sat # /dev/sda [SAT], ATA device\n".to_vec()),
        ("usb", b"smartctl 7.4\n/dev/sdb: Unknown USB bridge [0x1234:0x5678 (0x100)]\n".to_vec()),
    ] {
        let said = document(&smart(&["--parse", &write(&dir, name, &content), "--json"]));
        assert_eq!(said["verdict"], "unknown", "{name}");
        assert!(said["reasons"].as_array().is_some_and(|reasons| !reasons.is_empty()), "{name} says why");
    }
}

#[test]
fn a_file_that_cannot_be_read_ends_with_1_and_none_at_all_with_2() {
    let dir = tempfile::tempdir().expect("a folder");
    let missing = dir.path().join("missing").display().to_string();
    for path in [missing.as_str(), &dir.path().display().to_string()] {
        let output = smart(&["--parse", path]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(path) && said.contains("next:"), "{said}");
        assert!(output.stdout.is_empty(), "talk does not belong on standard output");
    }
    assert_eq!(smart(&[]).status.code(), Some(2));
}

#[test]
fn standard_input_is_read_where_the_file_is_a_dash() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_resilver"))
        .args(["disk", "smart", "--parse", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let document_of_nvme = r#"{"smartctl": {"exit_status": 8}, "device": {"protocol": "NVMe"},
        "nvme_smart_health_information_log": {"critical_warning": 8, "media_errors": 0}}"#;
    child.stdin.take().expect("a pipe").write_all(document_of_nvme.as_bytes()).expect("written");
    let said = document(&child.wait_with_output().expect("it ends"));
    assert_eq!((&said["kind"], &said["verdict"]), (&"nvme".into(), &"failing".into()));
    assert_eq!(said["exit_status"]["value"], 8);
    assert_eq!(said["exit_status"]["meanings"][0], "the disk says that it is failing");
}
