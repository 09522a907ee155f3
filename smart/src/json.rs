//! `smartctl --json`.
//!
//! Owns: the shape of the documents, of versions 6.7 to 7.5: fields were renamed (`vendor`, `scsi_vendor`) and added.
//!
//! Must never: lose a document for one field. Whatever has another type than expected is as good as absent.
//!
//! Invariant: everything is optional ([`Lenient`]); nesting is bounded by `serde_json`'s own limit of 128.

mod shape;

use serde::Deserialize;
use serde_json::Value;

use self::shape::{Document, ErrorLog, Lenient, Row, SelfTests};
use super::attribute::{Attribute, WhenFailed};
use super::counters::fill;
use super::text::{SELF_TEST_FAILED, count_statistic, is_of_the_medium};
use super::{ExitStatus, Kind, Report, Source, cleaned};

/// Results of a SCSI self-test that found something: 3 (unknown error), 4 to 7 (a segment failed).
const SCSI_SELF_TEST_FAILED: std::ops::RangeInclusive<u64> = 3..=7;

/// Results of an NVMe self-test that found something: 5 (fatal error), 6 and 7 (a segment failed).
const NVME_SELF_TEST_FAILED: std::ops::RangeInclusive<u64> = 5..=7;

/// A SCSI disk keeps its last twenty self-tests.
const SCSI_SELF_TESTS: usize = 20;

/// Reads a document; there is always a report.
pub(super) fn parse(text: &str) -> Report {
    // Blanks and words may follow; a document is read, and the rest is left.
    let mut documents = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let Some(Ok(value)) = documents.next() else { return Report::of(Source::BrokenJson) };
    let value = match value {
        // Some wrappers collect the answers of several disks; the first one is judged.
        Value::Array(items) => items.into_iter().next().unwrap_or_default(),
        value => value,
    };
    let scsi_self_tests: Vec<Value> =
        (0..SCSI_SELF_TESTS).map_while(|number| value.get(format!("scsi_self_test_{number}")).cloned()).collect();
    let is_object = value.is_object();
    let document = Document::deserialize(value).unwrap_or_default();
    if !is_object || !document.is_of_smartctl() {
        return Report::of(Source::Foreign);
    }
    if document.devices.is_some() && document.device.is_none() {
        let mut report = Report::of(Source::DeviceList);
        status(&document, &mut report);
        return report;
    }
    let mut report = Report::of(Source::Json);
    status(&document, &mut report);
    identity(&document, &mut report);
    ata(&document, &mut report);
    nvme(&document, &mut report);
    scsi(&document, &scsi_self_tests, &mut report);
    common(&document, &mut report);
    report
}

fn status(document: &Document, report: &mut Report) {
    let Some(smartctl) = document.smartctl.get() else { return };
    let code = smartctl.exit_status.count().and_then(|code| u8::try_from(code).ok());
    report.exit_status = code.map(ExitStatus);
    for message in smartctl.messages.rows() {
        if let Some(words) = message.string.get() {
            report.complain(words);
        }
    }
}

fn identity(document: &Document, report: &mut Report) {
    if let Some(device) = document.device.get() {
        report.kind = device.protocol.get().map(|word| Kind::named(word)).unwrap_or_default();
        report.is_of(device.r#type.get().map(|word| Kind::named(word)).unwrap_or_default());
    }
    let words = |field: &Lenient<String>| field.get().and_then(|words| cleaned(words));
    let vendor_and_product = || {
        let vendor = words(&document.scsi_vendor).or_else(|| words(&document.vendor));
        let product = words(&document.scsi_product).or_else(|| words(&document.product));
        cleaned(&[vendor.unwrap_or_default(), product.unwrap_or_default()].join(" "))
    };
    report.model = words(&document.model_name).or_else(|| words(&document.scsi_model_name)).or_else(vendor_and_product);
    report.serial = words(&document.serial_number);
    report.firmware = words(&document.firmware_version)
        .or_else(|| words(&document.scsi_revision))
        .or_else(|| words(&document.revision));
    if let Some(support) = document.smart_support.get() {
        report.smart_available = support.available.get().copied();
        report.smart_enabled = support.enabled.get().copied();
    }
    if let Some(status) = document.smart_status.get() {
        report.passed = status.passed.get().copied();
        let said = status.scsi.get().and_then(|scsi| scsi.ie_string.get());
        report.health = said.filter(|_| report.passed == Some(false)).and_then(|words| cleaned(words));
    }
}

fn ata(document: &Document, report: &mut Report) {
    for row in document.ata_smart_attributes.get().into_iter().flat_map(|table| table.table.rows()) {
        attribute(row, report);
    }
    for page in document.ata_device_statistics.get().into_iter().flat_map(|log| log.pages.rows()) {
        for row in page.table.rows() {
            if let (Some(name), Some(value)) = (row.name.get(), row.value.count()) {
                count_statistic(report, name, value);
            }
        }
    }
    if let Some(log) = document.ata_smart_error_log.get() {
        let logged = [&log.extended, &log.summary].into_iter().find_map(Lenient::get).map(uncorrectable_entries);
        fill(&mut report.counters.logged_media_errors, logged);
        report.is_of(Kind::Ata);
    }
    let pending = document.ata_pending_defects_log.get().and_then(|log| log.count.count());
    fill(&mut report.counters.pending_sectors, pending);
    let logs = document.ata_smart_self_test_log.get();
    if let Some(log) = logs.and_then(|logs| logs.extended.get().or(logs.standard.get())) {
        fill(&mut report.counters.self_test_failures, Some(failures(log)));
    }
    let last = document.ata_smart_data.get().and_then(|data| data.self_test.get()).and_then(|test| test.status.get());
    let failed =
        last.and_then(|status| status.value.count()).is_some_and(|code| SELF_TEST_FAILED.contains(&(code >> 4)));
    fill(&mut report.counters.self_test_failures, failed.then_some(1));
}

fn attribute(row: &Row, report: &mut Report) {
    let Some(id) = row.id.count().and_then(|id| u8::try_from(id).ok()) else { return };
    let raw = row.raw.get();
    // The string is formatted as the vendor packs it; the number is all six bytes.
    let number = raw.and_then(|raw| raw.value.count()).map(|value| value.to_string());
    let string = raw.and_then(|raw| raw.string.get()).or(number.as_ref());
    Attribute {
        id,
        name: row.name.get().map(String::as_str).unwrap_or_default(),
        value: row.value.count(),
        prefail: row.flags.get().and_then(|flags| flags.prefailure.get().copied()).unwrap_or_default(),
        when_failed: row.when_failed.get().and_then(|word| WhenFailed::named(word)),
        raw: string.map(String::as_str).unwrap_or_default(),
    }
    .apply(report);
}

/// Newest first; what an extended test without error follows is outdated by it.
fn failures(log: &SelfTests) -> u64 {
    let mut failures = 0;
    for test in log.table.rows() {
        let Some(code) = test.status.get().and_then(|status| status.value.count()) else { continue };
        let extended =
            test.r#type.get().and_then(|kind| kind.string.get()).is_some_and(|kind| kind.contains("Extended"));
        match code >> 4 {
            0 if extended => break,
            result if SELF_TEST_FAILED.contains(&result) => failures += 1,
            _ => {}
        }
    }
    failures
}

fn uncorrectable_entries(log: &ErrorLog) -> u64 {
    let of_the_medium =
        |entry: &&shape::ErrorEntry| entry.error_description.get().is_some_and(|words| is_of_the_medium(words));
    log.table.rows().filter(of_the_medium).count() as u64
}

fn nvme(document: &Document, report: &mut Report) {
    if let Some(log) = document.nvme_smart_health_information_log.get() {
        let counters = &mut report.counters;
        for (counter, told) in [
            (&mut counters.critical_warning, &log.critical_warning),
            (&mut counters.available_spare, &log.available_spare),
            (&mut counters.available_spare_threshold, &log.available_spare_threshold),
            (&mut counters.percentage_used, &log.percentage_used),
            (&mut counters.media_errors, &log.media_errors),
            (&mut counters.temperature_celsius, &log.temperature),
            (&mut counters.power_on_hours, &log.power_on_hours),
        ] {
            fill(counter, told.count());
        }
        report.is_of(Kind::Nvme);
    }
    if let Some(log) = document.nvme_self_test_log.get() {
        let results =
            log.table.rows().filter_map(|test| test.self_test_result.get().and_then(|result| result.value.count()));
        let failures = results.filter(|result| NVME_SELF_TEST_FAILED.contains(result)).count() as u64;
        fill(&mut report.counters.self_test_failures, Some(failures));
    }
}

fn scsi(document: &Document, self_tests: &[Value], report: &mut Report) {
    let counters = &mut report.counters;
    fill(&mut counters.grown_defects, document.scsi_grown_defect_list.count());
    fill(&mut counters.percentage_used, document.scsi_percentage_used_endurance_indicator.count());
    let pending = document.scsi_pending_defects.get().and_then(|log| log.count.count());
    fill(&mut counters.pending_sectors, pending);
    if let Some(log) = document.scsi_error_counter_log.get() {
        let uncorrected = |row: &Lenient<shape::Errors>| row.get().and_then(|row| row.total_uncorrected_errors.count());
        fill(&mut counters.uncorrected_read_errors, uncorrected(&log.read));
        fill(&mut counters.uncorrected_write_errors, uncorrected(&log.write));
        fill(&mut counters.uncorrected_verify_errors, uncorrected(&log.verify));
    }
    if !self_tests.is_empty() {
        let result =
            |test: &&Value| test["result"]["value"].as_u64().is_some_and(|code| SCSI_SELF_TEST_FAILED.contains(&code));
        fill(&mut counters.self_test_failures, Some(self_tests.iter().filter(result).count() as u64));
    }
    let of_scsi = document.scsi_grown_defect_list.is_some()
        || document.scsi_error_counter_log.is_some()
        || document.scsi_vendor.is_some();
    if of_scsi {
        report.is_of(Kind::Scsi);
    }
}

/// What every command set tells in one place. The temperature there is the one `smartctl` made sure of.
fn common(document: &Document, report: &mut Report) {
    let counters = &mut report.counters;
    let temperature = document.temperature.get().and_then(|temperature| temperature.current.count());
    counters.temperature_celsius = temperature.or(counters.temperature_celsius);
    let hours = document.power_on_time.get().and_then(|time| time.hours.count());
    counters.power_on_hours = hours.or(counters.power_on_hours);
    let used = document.endurance_used.get().and_then(|used| used.current_percent.count());
    fill(&mut counters.percentage_used, used);
}
