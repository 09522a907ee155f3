//! What the kernel counts of processes and of the machine: /proc, read as text.

use anyhow::Context;
use resilver_host::{Host, OpenMode};
use serde::Serialize;

/// /proc counts processor time in these: USER_HZ, 100 on every Linux that matters.
const TICKS_PER_SECOND: f64 = 100.0;

/// Longer than any of the /proc files read here, but the machine's.
const PROC_FILE_BYTES: usize = 4096;

/// /proc/stat has a line per core and one long line of interrupts; what is needed stands first.
const STAT_BYTES: usize = 4096;

/// Processor time of one process, in seconds since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Cpu {
    pub(super) user: f64,
    pub(super) system: f64,
}

/// Time of the whole machine, in seconds of one core since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Machine {
    /// Everything that ran, whoever's.
    pub(super) busy: f64,
    /// Nothing ran, and something waited for a disk.
    pub(super) disk_wait: f64,
    /// Nothing ran.
    pub(super) idle: f64,
    /// The host beneath took the core away.
    pub(super) stolen: f64,
}

/// Memory of one process, in MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Memory {
    /// Resident now.
    pub(super) resident: f64,
    /// Most ever resident.
    pub(super) peak: f64,
}

/// Processor time of a process.
pub(super) async fn cpu(host: &Host, pid: u32) -> anyhow::Result<Cpu> {
    parse_cpu(&read(host, &format!("/proc/{pid}/stat"), PROC_FILE_BYTES).await?).context("an odd /proc/PID/stat")
}

/// Memory of a process.
pub(super) async fn memory(host: &Host, pid: u32) -> anyhow::Result<Memory> {
    let status = read(host, &format!("/proc/{pid}/status"), PROC_FILE_BYTES).await?;
    let mib = |name: &str| Some(field(&status, name)? / 1024.0);
    let found = || Some(Memory { resident: mib("VmRSS:")?, peak: mib("VmHWM:")? });
    found().context("an odd /proc/PID/status")
}

/// Bytes a process has written to files. Not `write_bytes`: a file system with large folios counts a whole one for each
/// small write into it (up to a hundred times what reaches the disk). Sockets are not in it, because they are sent to.
pub(super) async fn written_bytes(host: &Host, pid: u32) -> anyhow::Result<f64> {
    let io = read(host, &format!("/proc/{pid}/io"), PROC_FILE_BYTES).await?;
    field(&io, "wchar:").context("an odd /proc/PID/io")
}

/// The machine's time, and how many cores it has.
pub(super) async fn machine(host: &Host) -> anyhow::Result<Machine> {
    parse_machine(&read(host, "/proc/stat", STAT_BYTES).await?).context("an odd /proc/stat")
}

fn parse_cpu(stat: &str) -> Option<Cpu> {
    // The second field is the command in parentheses and may hold anything; utime and stime are 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok().map(|ticks| ticks / TICKS_PER_SECOND);
    Some(Cpu { user: next()?, system: next()? })
}

fn parse_machine(stat: &str) -> Option<Machine> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let fields = line.split_whitespace().skip(1).map(|field| Some(field.parse::<f64>().ok()? / TICKS_PER_SECOND));
    let fields = fields.collect::<Option<Vec<f64>>>()?;
    let [user, nice, system, idle, disk_wait, interrupts, soft_interrupts, stolen] = *fields.first_chunk()?;
    Some(Machine { busy: user + nice + system + interrupts + soft_interrupts, disk_wait, idle, stolen })
}

fn field(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

async fn read(host: &Host, path: &str, len: usize) -> anyhow::Result<String> {
    let file = host.disk.open(path.as_ref(), OpenMode::Read).await.with_context(|| path.to_owned())?;
    Ok(String::from_utf8_lossy(&file.read_at(0, len).await?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 100 1 1 1";
        assert_eq!(parse_cpu(stat), Some(Cpu { user: 2.5, system: 0.5 }));
        let machine = parse_machine("cpu  100 200 300 400 500 10 20 30 0 0\ncpu0 1 2").unwrap();
        assert_eq!(machine, Machine { busy: 6.3, disk_wait: 5.0, idle: 4.0, stolen: 0.3 });
        assert_eq!(field("VmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n", "VmRSS:"), Some(1024.0));
    }
}
