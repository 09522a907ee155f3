//! What /proc says about a process.

use std::{fs, io};

use crate::{BootId, ProcId};

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

/// This very process.
pub(super) fn own() -> io::Result<ProcId> {
    let pid = std::process::id();
    match start_ticks(pid)? {
        Some(start_ticks) => Ok(ProcId { pid, start_ticks }),
        None => Err(io::Error::new(io::ErrorKind::NotFound, format!("/proc/{pid} is absent: is /proc mounted?"))),
    }
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
    fn a_cut_line_is_no_start_time() {
        assert_eq!(parse_start_ticks(b""), None);
        assert_eq!(parse_start_ticks(b"42 (sleep"), None);
        assert_eq!(parse_start_ticks(b"42 (sleep) S 1 42"), None);
    }
}
