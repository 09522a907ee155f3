//! The privileged helper of docs/smart.md: on each machine it writes what `smartctl` prints of each disk, again and again.
//!
//! Owns: what simulated disks say of themselves. Must never: fail a disk; what its counters show and what it does are two things.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use resilver_host::disk::{create_dir_durably, replace_file};
use resilver_sim_kernel::Program;

/// Between two samples: half of what agents look at ([`LOOK_EVERY`]), so that each look finds another one.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// How often agents look in such a run.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Sectors of each disk that cannot be read for the time being, by machine and disk (from 1).
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters(Arc<Mutex<BTreeMap<(String, usize), u64>>>);

impl Counters {
    /// From now on the disk shows so many.
    pub(crate) fn show(&self, machine: &str, disk: usize, sectors: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((machine.to_owned(), disk), sectors);
    }

    fn of(&self, machine: &str, disk: usize) -> u64 {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.get(&(machine.to_owned(), disk)).copied().unwrap_or(0)
    }

    /// The helper of a machine with so many disks; runs until it is killed.
    pub(crate) fn helper(&self, machine: String, disks: usize, folder: PathBuf) -> Program {
        let counters = self.clone();
        Arc::new(move |host, _| {
            let (counters, machine, folder) = (counters.clone(), machine.clone(), folder.clone());
            Box::pin(async move {
                // The disk may be full or fail for a while: the next sample is as good.
                let _ = create_dir_durably(&*host.disk, &folder).await;
                loop {
                    for disk in 1..=disks {
                        let output = output(&machine, disk, counters.of(&machine, disk));
                        let _ = replace_file(&*host.disk, &folder.join(file(disk)), output.into()).await;
                    }
                    tokio::time::sleep(WRITE_EVERY).await;
                }
            })
        })
    }
}

/// The file with a disk's output, in the helper's folder.
pub(crate) fn file(disk: usize) -> PathBuf {
    Path::new(&format!("disk{disk}.json")).to_owned()
}

/// As `smartctl -x --json` lays it out.
fn output(machine: &str, disk: usize, pending: u64) -> String {
    format!(
        r#"{{"json_format_version":[1,0],"smartctl":{{"version":[7,4],"exit_status":0}},
        "device":{{"name":"/dev/sd{disk}","type":"sat","protocol":"ATA"}},
        "model_name":"RSV SIMULATED","serial_number":"{machine}-{disk}","smart_status":{{"passed":true}},
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
            |pending| resilver_smart::judge(&resilver_smart::parse(output("n1", 2, pending).as_bytes())).verdict;
        assert_eq!(judged(0), resilver_smart::Verdict::Ok);
        assert_eq!(judged(8), resilver_smart::Verdict::Degrading);
        let counters = Counters::default();
        counters.show("n1", 2, 8);
        assert_eq!((counters.of("n1", 2), counters.of("n1", 1), counters.of("n2", 2)), (8, 0, 0));
    }
}
