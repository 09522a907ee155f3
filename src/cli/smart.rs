//! `disk smart --parse`: what the output of `smartctl` says, and what it means.
//!
//! Must never: open a device or run `smartctl`. Whoever may, hands the output over.
//!
//! Invariant: whatever `smartctl` can print ends with 0; the verdict is in what is printed. Only a file that cannot be
//! read is a failure.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use resilver_agent::options::smart_limits;
use resilver_host::Host;
use resilver_host::disk::OpenMode;
use resilver_smart::{
    Counters, ExitStatus, FailedAttribute, Judgement, Kind, MAX_INPUT_BYTES, Policy, Report, Verdict,
};
use serde::Serialize;

use super::context::Context;
use crate::config;
use crate::exit::{Code, Failure};
use crate::output::{Table, cell};

/// One byte more than is read into a report: that is how it knows of one too long.
const LIMIT_BYTES: usize = MAX_INPUT_BYTES + 1;

/// The name of standard input.
const STDIN: &str = "-";

/// `disk smart`.
#[derive(Debug, clap::Args)]
pub(crate) struct SmartArgs {
    /// The output of `smartctl -x` or `smartctl -x --json`; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    parse: PathBuf,
}

/// What was understood.
#[derive(Serialize)]
struct View {
    kind: Kind,
    model: Option<String>,
    serial: Option<String>,
    firmware: Option<String>,
    passed: Option<bool>,
    verdict: Verdict,
    reasons: Vec<String>,
    exit_status: Option<ExitStatus>,
    failed_attributes: Vec<FailedAttribute>,
    counters: Counters,
}

pub(crate) async fn run(cx: &Context, args: SmartArgs) -> Result<Code, Failure> {
    let input = read(&cx.host, &args.parse).await.map_err(|error| unreadable(&args.parse, &error))?;
    let report = resilver_smart::parse(&input);
    let judgement = limits(cx).await?.judge(&report);
    cx.out.show(&View::of(report, judgement), View::text)?;
    Ok(Code::Ok)
}

/// Those of the configuration that is named; without one the usual ones: a verdict must not depend on where the verb is called.
async fn limits(cx: &Context) -> Result<Policy, Failure> {
    match &cx.place.config {
        Some(path) => Ok(smart_limits(&config::load(&cx.host, path).await?.smart)),
        None => Ok(Policy::default()),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot read {}: {error}", path.display()))
        .next("write it first: `smartctl -x DEVICE > FILE`, or hand it over: `smartctl -x DEVICE | … --parse -`")
}

async fn read(host: &Host, path: &Path) -> io::Result<Vec<u8>> {
    if path.as_os_str() == STDIN {
        return host
            .blocking(|| {
                let mut input = Vec::new();
                io::stdin().lock().take(LIMIT_BYTES as u64).read_to_end(&mut input).map(|_| input)
            })
            .await;
    }
    let file = host.disk.open(path, OpenMode::Read).await?;
    let mut input = Vec::new();
    while input.len() < LIMIT_BYTES {
        let piece = file.read_at(input.len() as u64, LIMIT_BYTES - input.len()).await?;
        if piece.is_empty() {
            break;
        }
        input.extend_from_slice(&piece);
    }
    Ok(input)
}

impl View {
    fn of(report: Report, judgement: Judgement) -> Self {
        Self {
            kind: report.kind,
            model: report.model,
            serial: report.serial,
            firmware: report.firmware,
            passed: report.passed,
            verdict: judgement.verdict,
            reasons: judgement.reasons,
            exit_status: report.exit_status,
            failed_attributes: report.failed_attributes,
            counters: report.counters,
        }
    }

    fn text(&self) -> String {
        let mut disk = Table::new(["KIND", "MODEL", "SERIAL", "PASSED", "VERDICT"]);
        let passed = self.passed.map(|passed| if passed { "yes" } else { "no" });
        let (model, serial) = (cell(self.model.as_ref()), cell(self.serial.as_ref()));
        disk.row([self.kind.to_string(), model, serial, cell(passed), self.verdict.to_string()]);
        let mut text = disk.render();
        let known = self.counters.known();
        if !known.is_empty() {
            let mut counters = Table::new(["COUNTER", "VALUE"]);
            known.iter().for_each(|(name, value)| counters.row([(*name).to_owned(), value.to_string()]));
            text.push_str(&format!("\n{}", counters.render()));
        }
        text.push_str(&format!("\n{}:\n", self.verdict));
        self.reasons.iter().for_each(|reason| text.push_str(&format!("  {reason}\n")));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_the_disk_its_counters_and_the_reasons() {
        let report =
            resilver_smart::parse(b"smartctl 7.4\nDevice Model: RSV\n197 Current_Pending_Sector -O--CK 1 1 0 - 8\n");
        let judgement = resilver_smart::judge(&report);
        let text = View::of(report, judgement).text();
        assert_eq!(
            text,
            "KIND  MODEL  SERIAL  PASSED  VERDICT\n\
             ata   RSV    -       -       degrading\n\
             \n\
             COUNTER          VALUE\n\
             pending_sectors  8\n\
             \n\
             degrading:\n  \
               sectors that cannot be read and wait for being written: 8\n"
        );
    }
}
