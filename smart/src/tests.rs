//! Reading and judging, on the project's own recordings.

use proptest::prelude::*;

use super::fixtures::{ALL, ATA, ATA_BRIEF, ATA_JSON, ATA_OLD, NVME, NVME_JSON, SAS, SAS_JSON};
use super::holds::holds;
use super::*;

fn read(text: &str) -> Report {
    parse(text.as_bytes())
}

fn verdict(text: &str) -> Verdict {
    judge(&read(text)).verdict
}

fn reasons(text: &str) -> String {
    judge(&read(text)).reasons.join("\n")
}

/// The disk of [`ATA_BRIEF`], with other rows in the place of its attributes.
fn with_rows(rows: &str) -> String {
    format!("smartctl 7.4\nDevice Model: RSV\nSMART overall-health self-assessment test result: PASSED\n{rows}\n")
}

/// An NVMe disk whose health is fine, but for these lines.
fn nvme_but(from: &str, to: &str) -> String {
    let well = NVME
        .replace("0x04", "0x00")
        .replace(" 9%", " 90%")
        .replace("104%", "4%")
        .replace("1,028", "0")
        .replace("failed segments", "aborted");
    assert_eq!(verdict(&well), Verdict::Ok, "{}", reasons(&well));
    well.replace(from, to)
}

#[test]
fn an_ata_disk_is_read_from_text() {
    let report = read(ATA);
    assert_eq!(report.kind, Kind::Ata);
    assert_eq!(report.model.as_deref(), Some("RSV TESTDISK 4000"));
    assert_eq!(report.serial.as_deref(), Some("RSV-0001"));
    assert_eq!(report.firmware.as_deref(), Some("RS01"));
    assert_eq!((report.passed, report.smart_available, report.smart_enabled), (Some(true), Some(true), Some(true)));
    let expected = Counters {
        reallocated_sectors: Some(0),
        pending_sectors: Some(8),
        uncorrectable_sectors: Some(0),
        reported_uncorrectable: Some(0),
        crc_errors: Some(7),
        logged_media_errors: Some(1),
        self_test_failures: Some(1),
        temperature_celsius: Some(33),
        power_on_hours: Some(1380),
        ..Counters::default()
    };
    assert_eq!(report.counters, expected, "the cable's error is none of the medium; an old failure is outdated");
    let heat = &report.failed_attributes[0];
    assert_eq!((heat.id, heat.prefail, heat.when), (190, false, WhenFailed::Past));
}

#[test]
fn passed_does_not_outweigh_a_sector_that_waits() {
    let judgement = judge(&read(ATA));
    assert_eq!(judgement.verdict, Verdict::Degrading);
    assert_eq!(judgement.reasons[0], "sectors that cannot be read and wait for being written: 8");
    assert!(judgement.reasons.iter().any(|reason| reason.contains("cable")), "told, though it decides nothing");
}

#[test]
fn the_brief_layout_and_the_device_statistics_are_read() {
    let report = read(ATA_BRIEF);
    let expected = Counters {
        reallocated_sectors: Some(0),
        reported_uncorrectable: Some(0),
        crc_errors: Some(5),
        percentage_used: Some(19),
        self_test_failures: Some(0),
        temperature_celsius: Some(30),
        power_on_hours: Some(6206),
        ..Counters::default()
    };
    assert_eq!(report.counters, expected, "wear levelling is no per cent for this vendor");
    assert_eq!(judge(&report).verdict, Verdict::Ok);
}

#[test]
fn the_layout_of_early_version_5_is_read() {
    let report = read(ATA_OLD);
    assert_eq!((report.kind, report.passed), (Kind::Ata, Some(false)));
    assert_eq!(report.counters.reallocated_sectors, Some(1461));
    assert_eq!(report.counters.pending_sectors, Some(0));
    let failed = &report.failed_attributes[0];
    assert_eq!((failed.id, failed.prefail, failed.when), (5, true, WhenFailed::Now));
    let judgement = judge(&report);
    assert_eq!(judgement.verdict, Verdict::Failing);
    assert_eq!(judgement.reasons.len(), 3, "its word, its threshold, its count: {:?}", judgement.reasons);
}

#[test]
fn a_sas_disk_is_read_from_text() {
    let report = read(SAS);
    assert_eq!((report.kind, report.passed), (Kind::Scsi, Some(true)));
    assert_eq!(report.model.as_deref(), Some("RSV SASDISK600"));
    assert_eq!((report.serial.as_deref(), report.firmware.as_deref()), (Some("RSV-0003"), Some("A001")));
    let expected = Counters {
        grown_defects: Some(3),
        uncorrected_read_errors: Some(2),
        uncorrected_write_errors: Some(0),
        non_medium_errors: Some(12),
        self_test_failures: Some(1),
        temperature_celsius: Some(34),
        power_on_hours: Some(16003),
        ..Counters::default()
    };
    assert_eq!(report.counters, expected);
    assert_eq!(judge(&report).verdict, Verdict::Degrading);
    assert_eq!(verdict(&SAS.replace("defect list: 3", "defect list: 101")), Verdict::Failing);
}

#[test]
fn a_sas_disk_that_predicts_its_failure_fails_and_one_that_is_hot_degrades() {
    let said = |words: &str| SAS.replace("Health Status: OK", &format!("Health Status: {words}"));
    assert_eq!(verdict(&said("FAILURE PREDICTION THRESHOLD EXCEEDED [asc=5d, ascq=0]")), Verdict::Failing);
    let hot = said("WARNING: SPECIFIED TEMPERATURE EXCEEDED [asc=b, ascq=1]");
    assert_eq!(verdict(&hot), Verdict::Degrading);
    assert!(reasons(&hot).contains("it says of itself: WARNING: SPECIFIED TEMPERATURE"), "{}", reasons(&hot));
}

#[test]
fn an_nvme_disk_is_read_from_text() {
    let report = read(NVME);
    assert_eq!((report.kind, report.passed), (Kind::Nvme, Some(true)));
    let expected = Counters {
        media_errors: Some(1028),
        critical_warning: Some(4),
        available_spare: Some(9),
        available_spare_threshold: Some(10),
        percentage_used: Some(104),
        self_test_failures: Some(1),
        temperature_celsius: Some(45),
        power_on_hours: Some(1998),
        ..Counters::default()
    };
    assert_eq!(report.counters, expected);
    assert_eq!(judge(&report).verdict, Verdict::Failing);
    let all = reasons(NVME);
    for part in
        ["no longer reliable", "spare left: 9 %", "rated life used: 104 %", "data integrity: 1028", "self-tests"]
    {
        assert!(all.contains(part), "{part} is missing:\n{all}");
    }
}

#[test]
fn each_warning_of_nvme_weighs_by_what_it_says() {
    let expected = [
        ("0x01", Verdict::Failing),
        ("0x02", Verdict::Degrading),
        ("0x04", Verdict::Failing),
        ("0x08", Verdict::Failing),
        ("0x10", Verdict::Failing),
        ("0x20", Verdict::Degrading),
        ("0x40", Verdict::Degrading),
        ("0x80", Verdict::Degrading),
    ];
    for (bits, verdict_expected) in expected {
        assert_eq!(verdict(&nvme_but("0x00", bits)), verdict_expected, "{bits}");
    }
    assert_eq!(verdict(&nvme_but(" 90%", " 10%")), Verdict::Ok, "as much spare as the limit is enough");
    assert_eq!(verdict(&nvme_but(" 90%", " 9%")), Verdict::Failing);
    assert_eq!(verdict(&nvme_but(" 4%", " 100%")), Verdict::Degrading);
    assert_eq!(verdict(&nvme_but("PASSED", "FAILED!")), Verdict::Failing, "without a warning that explains it");
}

#[test]
fn json_says_what_text_says() {
    let report = read(ATA_JSON);
    assert_eq!((report.source, report.kind, report.passed), (Source::Json, Kind::Ata, Some(true)));
    assert_eq!(report.model.as_deref(), Some("RSV TESTDISK 4000"));
    assert_eq!(report.exit_status, Some(ExitStatus(192)));
    let counters = &report.counters;
    assert_eq!((counters.reallocated_sectors, counters.pending_sectors), (Some(0), Some(8)));
    assert_eq!((counters.logged_media_errors, counters.self_test_failures), (Some(1), Some(1)));
    assert_eq!((counters.temperature_celsius, counters.power_on_hours), (Some(33), Some(1380)));
    assert_eq!(report.failed_attributes.len(), 1, "a row that cannot be read costs no other");
    assert_eq!(judge(&report).verdict, Verdict::Degrading);
}

#[test]
fn a_hot_nvme_disk_degrades_though_it_says_failed() {
    let report = read(NVME_JSON);
    assert_eq!((report.kind, report.passed), (Kind::Nvme, Some(false)));
    let judgement = judge(&report);
    assert_eq!(
        (judgement.verdict, judgement.reasons),
        (Verdict::Degrading, vec!["it warns of its temperature".to_owned()])
    );
}

#[test]
fn a_sas_disk_is_read_from_json() {
    let report = read(SAS_JSON);
    assert_eq!((report.kind, report.model.as_deref()), (Kind::Scsi, Some("RSV SASDISK600")));
    let counters = &report.counters;
    assert_eq!((counters.grown_defects, counters.pending_sectors), (Some(0), Some(0)));
    assert_eq!((counters.uncorrected_verify_errors, counters.self_test_failures), (Some(1), Some(1)));
    assert_eq!(counters.temperature_celsius, None, "0 is no temperature of a SCSI disk");
    assert_eq!(counters.percentage_used, Some(101));
    assert_eq!(judge(&report).verdict, Verdict::Degrading);
}

#[test]
fn fields_of_another_type_are_absent_and_cost_nothing_else() {
    let odd = r#"{"smartctl": 7, "device": {"protocol": ["x"]}, "serial_number": {}, "smart_status": "fine",
        "scsi_grown_defect_list": "12", "temperature": {"current": -3}, "ata_smart_attributes": {"table": [null, 1]}}"#;
    let report = read(odd);
    assert_eq!(report.counters.grown_defects, Some(12));
    assert_eq!((report.counters.temperature_celsius, report.passed, report.serial), (None, None, None));
}

#[test]
fn what_a_vendor_packs_is_not_counted() {
    let count = |raw: &str, id: u8, name: &str| {
        let report = read(&with_rows(&format!("{id} {name} 0x0033 100 100 010 Pre-fail Always - {raw}")));
        let counters = report.counters;
        counters.reallocated_sectors.or(counters.pending_sectors).or(counters.reported_uncorrectable)
    };
    assert_eq!(count("12", 197, "Current_Pending_Sector"), Some(12));
    assert_eq!(count("0/0/0", 197, "Current_Pending_Sector"), Some(0));
    assert_eq!(count("0x000000000008", 197, "Current_Pending_Sector"), Some(8));
    assert_eq!(count("3 (Average 12)", 197, "Current_Pending_Sector"), Some(3), "a remark");
    assert_eq!(count("0x002100160021", 197, "Current_Pending_Sector"), None);
    assert_eq!(count("0 0 0", 187, "Reported_Uncorrect"), Some(0));
    assert_eq!(count("2/66714750", 187, "Reported_Uncorrect"), None);
    assert_eq!(count("53416508262463", 197, "Current_Pending_Sector"), None);
    assert_eq!(count("99999999999999999999999999", 197, "Current_Pending_Sector"), None);
    assert_eq!(count("12 (34 0)", 197, "Current_Pending_Sector"), None);
    assert_eq!(count("12 (2000 0)", 5, "Reallocated_Sector_Ct"), Some(12), "the low word is the count");
    assert_eq!(count("77", 5, "Host_Writes_GiB"), None, "an id alone says nothing");
    assert_eq!(count("", 197, "Current_Pending_Sector"), None);
}

#[test]
fn a_counter_nobody_reads_is_told_and_makes_nothing_ok() {
    let packed = with_rows("197 Current_Pending_Sector 0x0012 100 100 000 Old_age Always - 53416508262463");
    assert_eq!(verdict(&packed), Verdict::Unknown);
    assert!(
        reasons(&packed).contains("attribute 197 (Current_Pending_Sector): 53416508262463"),
        "{}",
        reasons(&packed)
    );
}

#[test]
fn temperatures_and_hours_in_a_packing_are_not_known() {
    let counters = |rows: &str| read(&with_rows(rows)).counters;
    let packed = counters("194 Temperature_Celsius 0x0022 033 040 000 Old_age Always - 94489280545");
    assert_eq!(packed.temperature_celsius, None);
    let cold = counters("194 Temperature_Celsius 0x0022 033 040 000 Old_age Always - -4 (Min/Max -9/20)");
    assert_eq!(cold.temperature_celsius, None);
    let both =
        counters("190 Airflow_Temperature_Cel -O---K 067 057 045 - 20\n194 Temperature_Celsius -O---K 1 1 0 - 30");
    assert_eq!(both.temperature_celsius, Some(30), "the disk's own, not the air's");
    let hours = counters("9 Power_On_Hours -O--CK 068 068 000 - 167031278144165");
    assert_eq!(hours.power_on_hours, None);
}

#[test]
fn thresholds_weigh_by_what_the_attribute_is_about() {
    let row = |id: u8, name: &str, kind: &str, failed: &str| {
        verdict(&with_rows(&format!(
            "{id} {name} 0x0032 063 063 099 {kind} Always {failed} 0\n5 Reallocated_Sector_Ct PO--CK 100 100 010 - 0"
        )))
    };
    assert_eq!(row(3, "Spin_Up_Time", "Pre-fail", "FAILING_NOW"), Verdict::Failing);
    assert_eq!(row(3, "Spin_Up_Time", "Pre-fail", "In_the_past"), Verdict::Degrading);
    assert_eq!(row(193, "Load_Cycle_Count", "Old_age", "FAILING_NOW"), Verdict::Degrading);
    assert_eq!(row(193, "Load_Cycle_Count", "Old_age", "In_the_past"), Verdict::Ok);
    assert_eq!(row(184, "End-to-End_Error", "Old_age", "FAILING_NOW"), Verdict::Failing);
    assert_eq!(row(190, "Airflow_Temperature_Cel", "Pre-fail", "FAILING_NOW"), Verdict::Degrading);
    assert_eq!(row(190, "Airflow_Temperature_Cel", "Pre-fail", "In_the_past"), Verdict::Ok);
}

#[test]
fn reallocation_degrades_from_one_and_fails_beyond_a_hundred() {
    let row = |count: u64| {
        verdict(&with_rows(&format!("5 Retired_Block_Count 0x0033 100 100 003 Pre-fail Always - {count}")))
    };
    assert_eq!(row(0), Verdict::Ok);
    assert_eq!(row(1), Verdict::Degrading);
    assert_eq!(row(Policy::REALLOCATED_FAILING), Verdict::Degrading);
    assert_eq!(row(Policy::REALLOCATED_FAILING + 1), Verdict::Failing);
}

#[test]
fn flash_that_is_worn_out_degrades() {
    let wear = |value: u8| {
        verdict(&with_rows(&format!(
            "5 Reallocated_Sector_Ct PO--CK 100 100 010 - 0\n231 SSD_Life_Left PO--C- {value} 1 0 - 4294967297"
        )))
    };
    assert_eq!(wear(2), Verdict::Ok);
    assert_eq!(wear(1), Verdict::Degrading);
    let samsung = "Device Model: Samsung SSD\n5 Reallocated_Sector_Ct PO--CK 1 1 0 - 0\n177 Wear_Leveling_Count PO--C- 28 1 0 - 9";
    assert_eq!(read(samsung).counters.wear_left, Some(28));
}

#[test]
fn where_only_the_exit_status_tells_it_decides() {
    let status =
        |code: u8| verdict(&format!(r#"{{"smartctl": {{"exit_status": {code}}}, "device": {{"protocol": "ATA"}}}}"#));
    assert_eq!(status(0), Verdict::Unknown, "a status of 0 is no counter");
    assert_eq!(status(1 << ExitStatus::USAGE), Verdict::Unknown);
    assert_eq!(status(1 << ExitStatus::FAILING), Verdict::Failing);
    assert_eq!(status(1 << ExitStatus::PREFAIL), Verdict::Failing);
    assert_eq!(status(1 << ExitStatus::PREFAIL_PAST), Verdict::Unknown);
    assert_eq!(status(1 << ExitStatus::ERROR_LOG), Verdict::Unknown);
    assert_eq!(status(1 << ExitStatus::SELF_TEST), Verdict::Degrading);
}

#[test]
fn where_nothing_was_read_nobody_knows_and_it_says_why() {
    let too_long = vec![b'x'; MAX_INPUT_BYTES + 1];
    let missing: [(&[u8], &str); 14] = [
        (b"", "nothing in it"),
        (b" \r\n\t\n", "nothing in it"),
        (&too_long, "are not the word of one disk"),
        (b"\x7fELF\x02\x01\x01\x00\xff\xfe", "not what smartctl prints"),
        (b"{\"smartctl\": {\"exit_status\"", "the JSON is broken"),
        (b"{\"a\": 1}", "not what smartctl prints"),
        (b"[]", "not what smartctl prints"),
        (b"/dev/sda -d sat # /dev/sda [SAT], ATA device\n", "a list of devices"),
        (b"{\"smartctl\": {}, \"devices\": []}", "a list of devices"),
        (b"smartctl 7.4\nVendor: RSV\nProduct: RAID\nSMART support is: Unavailable - lacks it.", "has no SMART"),
        (b"smartctl 7.4\nDevice Model: RSV\nSMART support is: Disabled\n", "switched off"),
        (b"smartctl 7.4\nSMART overall-health self-assessment test result: PASSED\n", "only its own word"),
        (b"smartctl 7.4\nDevice Model: RSV\n", "its identity"),
        (
            b"smartctl 7.4\n/dev/sdb: Unknown USB bridge [0x1234:0x5678 (0x100)]\n",
            "smartctl says: /dev/sdb: Unknown USB",
        ),
    ];
    for (input, part) in missing {
        let judgement = judge(&parse(input));
        assert_eq!(judgement.verdict, Verdict::Unknown, "{part}");
        let all = judgement.reasons.join("\n");
        assert!(all.contains(part), "{part} is missing:\n{all}");
    }
}

#[test]
fn complaints_are_kept_few_and_short() {
    let mut text = String::from("smartctl 7.4\n");
    for number in 0..100 {
        text.push_str(&format!("Smartctl open device: /dev/sd{number} failed: {}\u{1b}[31m\n", "x".repeat(1000)));
    }
    let report = read(&text);
    assert_eq!(report.complaints.len(), MAX_COMPLAINTS);
    assert!(
        report.complaints.iter().all(|words| words.chars().count() <= MAX_WORDS_CHARS && !words.contains('\u{1b}'))
    );
}

#[test]
fn a_table_without_end_is_kept_short() {
    let rows = "5 Reallocated_Sector_Ct 0x0033 100 100 010 Pre-fail Always FAILING_NOW 1/2\n".repeat(1000);
    let report = read(&rows);
    assert_eq!((report.failed_attributes.len(), report.not_understood.len()), (1, 30));
}

#[test]
fn a_prompt_or_a_warning_above_changes_nothing() {
    assert_eq!(read(&format!("[root@host ~]# sudo smartctl -a /dev/sda\n{ATA}")), read(ATA));
    assert_eq!(read(&format!("sudo: unable to resolve host\n{ATA_JSON}")), read(ATA_JSON));
    assert_eq!(read(&format!("\u{feff}{ATA_JSON}\n\nand more")), read(ATA_JSON));
    assert_eq!(read(&format!("[{ATA_JSON}, {NVME_JSON}]")), read(ATA_JSON), "the first of several");
    assert_eq!(read(&ATA.replace('\n', "\r\n")), read(ATA));
}

#[test]
fn blanks_that_were_collapsed_change_nothing() {
    for text in [ATA, ATA_BRIEF, ATA_OLD, SAS, NVME] {
        let collapsed: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(read(&collapsed.join("\n")), read(text));
    }
}

#[test]
fn kinds_are_told_by_their_device_type_as_well() {
    let opened = "smartctl 7.4\n/dev/sda: Device of type 'scsi' [SCSI] detected\n/dev/sda [SAT]: Device of type 'sat' [ATA] opened\n";
    assert_eq!(read(opened).kind, Kind::Ata);
    assert_eq!(verdict(opened), Verdict::Unknown);
    for (word, kind) in [("sat+megaraid,0", Kind::Ata), ("sntasmedia", Kind::Nvme), ("megaraid,8", Kind::Unknown)] {
        assert_eq!(Kind::named(word), kind, "{word}");
    }
}

#[test]
fn what_grows_is_named_for_the_prediction() {
    assert_eq!(
        read(ATA).drifting(),
        [
            ("reallocated_sectors", 0),
            ("pending_sectors", 8),
            ("uncorrectable_sectors", 0),
            ("reported_uncorrectable", 0)
        ]
    );
    assert_eq!(read(NVME).drifting(), [("media_errors", 1028), ("percentage_used", 104)]);
    assert_eq!(read(SAS).drifting(), [("grown_defects", 3)]);
}

#[test]
fn every_cut_of_every_recording_is_read() {
    for text in ALL {
        for length in 0..text.len() {
            holds(&text.as_bytes()[..length]);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read(input in prop::collection::vec(any::<u8>(), 0..2000)) {
        holds(&input);
    }

    #[test]
    fn any_text_is_read(input in "(\\PC|\n|:|0x|[0-9]){0,400}") {
        holds(input.as_bytes());
    }

    #[test]
    fn any_row_of_a_table_is_read(
        words in prop::collection::vec("[0-9]{1,25}|0x[0-9a-f]{0,20}|-|---|PO--CK|Pre-fail|Old_age|Always|FAILING_NOW|Power_On_Hours|Uncorrect|#|Error:", 0..14)
    ) {
        holds(words.join(" ").as_bytes());
    }

    #[test]
    fn changed_recordings_are_read(
        which in 0..ALL.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = ALL[which].as_bytes().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        holds(&bytes);
    }
}
