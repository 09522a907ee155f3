//! What /proc says about a process.

use std::{fs, io};

use crate::{BootId, ProcId, ProcMemory, RunState};

/// Start time of `pid`, in ticks since boot. `None` when no such process exists, not even as a zombie.
pub(super) fn start_ticks(pid: u32) -> io::Result<Option<u64>> {
    let text = match fs::read(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        Err(error) if gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    match parse_start_ticks(&text) {
        Some(ticks) => Ok(Some(ticks)),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("/proc/{pid}/stat has no start time: {}", String::from_utf8_lossy(&text).trim_end()),
        )),
    }
}

/// Absent, or ended between open and read.
fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// Field 22. Field 2, the command's name, stands in parentheses and may itself hold spaces, parentheses and line ends:
/// fields are counted from its last closing one.
fn parse_start_ticks(stat: &[u8]) -> Option<u64> {
    const FIELDS_AFTER_NAME: usize = 22 - 2;
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(FIELDS_AFTER_NAME - 1)?.parse().ok()
}

/// How a process is: field 3.
pub(super) fn state(id: ProcId) -> io::Result<Option<RunState>> {
    let text = match fs::read(format!("/proc/{}/stat", id.pid)) {
        Ok(text) => text,
        Err(error) if gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    if parse_start_ticks(&text) != Some(id.start_ticks) {
        return Ok(None);
    }
    Ok(parse_state(&text))
}

fn parse_state(stat: &[u8]) -> Option<RunState> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    Some(match stat[name_end + 1..].trim_ascii_start().first()? {
        b'R' => RunState::Running,
        b'D' => RunState::DiskWait,
        b'T' | b't' => RunState::Stopped,
        // X is dead, and seen only in the instant of its end.
        b'Z' | b'X' | b'x' => RunState::Zombie,
        // S sleeps, I idles, P is parked: all can be woken.
        _ => RunState::Sleeping,
    })
}

/// How many descriptors a process has open. `None`: it is gone, or not ours to look at.
pub(super) fn descriptors(pid: u32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.filter(Result::is_ok).count() as u64)
}

/// How many it may have: the soft limit.
pub(super) fn descriptors_limit(pid: u32) -> Option<u64> {
    parse_descriptors_limit(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

fn parse_descriptors_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The limit of the process's control group, and what it uses of it without what can be dropped at any time (files that
/// nobody has used for a while). `None` where there is no limit.
pub(super) fn group_memory(pid: u32) -> Option<(u64, u64)> {
    let limit = group_limit(pid)?;
    let used: u64 = fs::read_to_string(group_file(pid, "memory.current")?).ok()?.trim().parse().ok()?;
    let idle = fs::read_to_string(group_file(pid, "memory.stat")?)
        .ok()
        .and_then(|stat| stat.lines().find_map(|line| line.strip_prefix("inactive_file "))?.trim().parse::<u64>().ok());
    Some((limit, used.saturating_sub(idle.unwrap_or(0))))
}

/// This very process.
pub(super) fn own() -> io::Result<ProcId> {
    let pid = std::process::id();
    match start_ticks(pid)? {
        Some(start_ticks) => Ok(ProcId { pid, start_ticks }),
        None => Err(io::Error::new(io::ErrorKind::NotFound, format!("/proc/{pid} is absent: is /proc mounted?"))),
    }
}

/// How much memory a process has, and may have.
pub(super) fn memory(id: ProcId) -> io::Result<Option<ProcMemory>> {
    let pid = id.pid;
    let status = match fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => status,
        Err(error) if gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let limit = group_limit(pid);
    // Looked at last: what was read before is this process's, if it is this process still.
    if start_ticks(pid)? != Some(id.start_ticks) {
        return Ok(None);
    }
    // A zombie has no such line, and no memory.
    let Some(resident_bytes) = kibibytes(&status, "VmRSS:") else { return Ok(None) };
    let machine = fs::read_to_string("/proc/meminfo")?;
    let all = kibibytes(&machine, "MemTotal:")
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/meminfo has no MemTotal"))?;
    Ok(Some(ProcMemory { resident_bytes, limit_bytes: limit.map_or(all, |limit| limit.min(all)) }))
}

/// The limit of the process's control group (version 2); `None` where there is none, or it cannot be read.
fn group_limit(pid: u32) -> Option<u64> {
    fs::read_to_string(group_file(pid, "memory.max")?).ok()?.trim().parse().ok()
}

/// Where the process's control group has a file.
fn group_file(pid: u32, name: &str) -> Option<String> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(format!("/sys/fs/cgroup{}/{name}", path.trim_end_matches('/')))
}

/// The figure on the line that begins with `name`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

/// This boot of the kernel.
pub(super) fn boot_id() -> io::Result<BootId> {
    Ok(BootId(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str =
        "S 1 42 42 0 -1 4194304 100 0 0 0 1 2 0 0 20 0 3 0 987654 1000 200 18446744073709551615 1 1 0 0 0 0 0";

    #[test]
    fn the_start_time_is_found_behind_any_command_name() {
        for name in ["sleep", "a b", "evil) S 1 2 3", "((", "))", "line\nend) R", ""] {
            let stat = format!("42 ({name}) {TAIL}\n");
            assert_eq!(parse_start_ticks(stat.as_bytes()), Some(987_654), "name {name:?}");
        }
        let mut raw = b"42 (\xff\xfe) ".to_vec();
        raw.extend_from_slice(TAIL.as_bytes());
        assert_eq!(parse_start_ticks(&raw), Some(987_654), "a name that is no text");
    }

    #[test]
    fn the_state_is_found_behind_any_command_name() {
        let of = |stat: &str| parse_state(stat.as_bytes());
        assert_eq!(of("42 (sleep) S 1 42"), Some(RunState::Sleeping));
        assert_eq!(of("42 (evil) D ) R 1"), Some(RunState::Running));
        assert_eq!(of("42 (x) D 1"), Some(RunState::DiskWait));
        assert_eq!(of("42 (x) T 1"), Some(RunState::Stopped));
        assert_eq!(of("42 (x) t 1"), Some(RunState::Stopped));
        assert_eq!(of("42 (x) Z 1"), Some(RunState::Zombie));
        assert_eq!(of("42 (x) I 1"), Some(RunState::Sleeping));
        assert_eq!(of("42 (x)"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn the_limit_of_descriptors_is_the_soft_one() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax processes  1 2 processes\nMax open files            1024                 4096                 files\n";
        assert_eq!(parse_descriptors_limit(limits), Some(1024));
        assert_eq!(parse_descriptors_limit("Max open files  unlimited unlimited files"), None);
        assert_eq!(parse_descriptors_limit(""), None);
    }

    #[test]
    fn memory_is_read_from_the_lines_of_the_kernel() {
        let status = "Name:\tnode\nVmHWM:\t   2048 kB\nVmRSS:\t   1536 kB\nThreads:\t4\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(1536 * 1024));
        assert_eq!(kibibytes("Name:\tzombie\n", "VmRSS:"), None);
        assert_eq!(kibibytes("VmRSS:\t many kB\n", "VmRSS:"), None);
    }

    #[test]
    fn our_own_memory_is_some_of_the_machines_and_another_processs_is_not_taken_for_it() {
        let own = own().expect("/proc is mounted");
        let memory = memory(own).expect("readable").expect("we run");
        assert!(memory.resident_bytes > 0 && memory.resident_bytes < memory.limit_bytes, "{memory:?}");
        let reused = ProcId { start_ticks: own.start_ticks + 1, ..own };
        assert_eq!(super::memory(reused).expect("readable"), None);
    }

    #[test]
    fn a_cut_line_is_no_start_time() {
        assert_eq!(parse_start_ticks(b""), None);
        assert_eq!(parse_start_ticks(b"42 (sleep"), None);
        assert_eq!(parse_start_ticks(b"42 (sleep) S 1 42"), None);
    }
}
