//! What simulated disks say of themselves, and the program that agents run to hear it.
//!
//! Must never: fail a disk. What its counters show and what it does are two things.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use resilver_host::SpawnSpec;
use resilver_host::disk::replace_file;
use resilver_sim_kernel::Program;

/// How often agents look in a run in which disks have counters.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The program, as agents are told of it.
pub(crate) const PROGRAM: &str = "/usr/sbin/smartctl";

/// Sectors of each disk that cannot be read for the time being, by its device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters(Arc<Mutex<BTreeMap<PathBuf, u64>>>);

/// The block device of a disk (from 1): a name of its own on each machine, because the program is not told where it runs.
pub(crate) fn device(machine: &str, disk: usize) -> PathBuf {
    PathBuf::from(format!("/dev/{machine}-disk{disk}"))
}

impl Counters {
    /// From now on the disk shows so many.
    pub(crate) fn show(&self, machine: &str, disk: usize, sectors: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(device(machine, disk), sectors);
    }

    /// The program, if that is what is to be started: `smartctl --json -x DEVICE`.
    pub(crate) fn program(&self, spec: &SpawnSpec) -> Option<Program> {
        let output = spec.log.clone().filter(|_| spec.program.as_os_str() == PROGRAM)?;
        let device = PathBuf::from(spec.args.last()?);
        let pending = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&device).copied().unwrap_or(0);
        let said = json(&device.display().to_string(), pending);
        Some(Arc::new(move |host, _| {
            let (output, said) = (output.clone(), said.clone());
            Box::pin(async move { i32::from(replace_file(&*host.disk, &output, said.into()).await.is_err()) })
        }))
    }
}

/// As `smartctl -x --json` lays it out.
fn json(device: &str, pending: u64) -> String {
    format!(
        r#"{{"json_format_version":[1,0],"smartctl":{{"version":[7,4],"exit_status":0}},
        "device":{{"name":"{device}","type":"sat","protocol":"ATA"}},
        "model_name":"RSV SIMULATED","serial_number":"{device}","smart_status":{{"passed":true}},
        "ata_smart_attributes":{{"table":[
        {{"id":5,"name":"Reallocated_Sector_Ct","value":100,"worst":100,"thresh":10,"when_failed":"","raw":{{"value":0,"string":"0"}}}},
        {{"id":197,"name":"Current_Pending_Sector","value":100,"worst":100,"thresh":0,"when_failed":"","raw":{{"value":{pending},"string":"{pending}"}}}}]}}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_well_until_it_shows_sectors_that_cannot_be_read() {
        let judged =
            |pending| resilver_smart::judge(&resilver_smart::parse(json("/dev/n1-disk2", pending).as_bytes())).verdict;
        assert_eq!(judged(0), resilver_smart::Verdict::Ok);
        assert_eq!(judged(8), resilver_smart::Verdict::Degrading);
    }

    #[test]
    fn only_the_program_itself_is_run_and_only_with_somewhere_to_write() {
        let spec = |program: &str, log: Option<&str>| SpawnSpec {
            program: PathBuf::from(program),
            args: ["--json", "-x", "/dev/n1-disk1"].map(str::to_owned).to_vec(),
            env: Vec::new(),
            log: log.map(PathBuf::from),
            new_session: true,
        };
        let counters = Counters::default();
        assert!(counters.program(&spec(PROGRAM, Some("/agent/output"))).is_some());
        assert!(counters.program(&spec(PROGRAM, None)).is_none());
        assert!(counters.program(&spec("/bin/resilver", Some("/agent/output"))).is_none());
    }
}
