//! NVMe: the health log, and the self-test log.

use super::common::Field;
use super::{Reader, ata};
use crate::counters::fill;
use crate::{Kind, Report, cleaned};

/// Results of a self-test that found something.
const FAILED: [&str; 3] =
    ["Completed: failed segment", "Completed: unknown failed segment", "Fatal or unknown test error"];

/// A row of the self-test log: `0   Short   Completed: failed segments   8754 …`.
pub(super) fn row(reader: &mut Reader, line: &str) -> bool {
    if line.starts_with("Self-test Log (NVMe") {
        reader.outdated = false;
        return true;
    }
    if reader.report.kind != Kind::Nvme {
        return false;
    }
    let failed = FAILED.iter().any(|words| line.contains(words));
    if failed {
        ata::self_test_failed(reader);
    } else if line.starts_with("No Self-tests Logged") || line.contains("Completed without error") {
        fill(&mut reader.report.counters.self_test_failures, Some(0));
    } else {
        return false;
    }
    true
}

/// A field of identity or health.
pub(super) fn told(report: &mut Report, field: &Field<'_>) -> bool {
    let counters = &mut report.counters;
    let counter = match field.key.as_str() {
        "model number" => {
            report.model = report.model.take().or_else(|| cleaned(field.value));
            report.is_of(Kind::Nvme);
            return true;
        }
        "nvme version" | "number of namespaces" => {
            report.is_of(Kind::Nvme);
            return true;
        }
        "critical warning" => {
            fill(&mut counters.critical_warning, field.number());
            report.is_of(Kind::Nvme);
            return true;
        }
        "temperature" => &mut counters.temperature_celsius,
        "available spare" => &mut counters.available_spare,
        "available spare threshold" => &mut counters.available_spare_threshold,
        "percentage used" => &mut counters.percentage_used,
        "power on hours" => &mut counters.power_on_hours,
        "media and data integrity errors" => &mut counters.media_errors,
        _ => return false,
    };
    fill(counter, field.number());
    true
}
