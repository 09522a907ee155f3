//! systemd as the supervisor: datagrams to the socket that it names (sd_notify(3)).
//!
//! Must never: wait for systemd, or fail because of it: a process that serves is not ended for a message.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::supervise::{Nobody, Supervisor};

/// So much of its patience passes between two signs of life: half, as sd_watchdog_enabled(3) asks for, so that one that comes late
/// is no end.
const PART_OF_PATIENCE: u32 = 2;

/// How a process is told of its supervisor.
pub(super) const VARIABLES: [&str; 3] = [SOCKET, PATIENCE, MEANT];
const SOCKET: &str = "NOTIFY_SOCKET";
const PATIENCE: &str = "WATCHDOG_USEC";
const MEANT: &str = "WATCHDOG_PID";

/// systemd, or whatever else speaks its protocol.
#[derive(Debug)]
struct Systemd {
    socket: UnixDatagram,
    to: SocketAddr,
    /// How often a sign of life is due; `None`: nobody waits for one.
    every: Option<Duration>,
    /// When the last was given; `None`: it was not told yet that the process is ready.
    last: Mutex<Option<Instant>>,
}

/// The supervisor that started process `pid` with these variables; [`Nobody`] when it names no socket.
///
/// # Errors
/// When it names one that cannot be one.
pub fn supervisor(pid: u32, variable: impl Fn(&str) -> Option<OsString>) -> io::Result<Arc<dyn Supervisor>> {
    let Some(name) = variable(SOCKET).filter(|name| !name.is_empty()) else { return Ok(Arc::new(Nobody)) };
    let to = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(&name)?,
        _ => {
            let detail = format!("NOTIFY_SOCKET {}: an absolute path or @name is expected", name.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, detail));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
    // A child that inherited the variables is not the one that is waited for.
    let meant = number(MEANT).is_none_or(|meant| meant == u64::from(pid));
    let patience = number(PATIENCE).filter(|micros| meant && *micros > 0).map(Duration::from_micros);
    let every = patience.map(|patience| patience / PART_OF_PATIENCE);
    Ok(Arc::new(Systemd { socket, to, every, last: Mutex::new(None) }))
}

impl Systemd {
    /// Whether it was told. Not when its queue is full: then it is told with the next turn.
    fn tell(&self, what: &str) -> bool {
        let told = self.socket.send_to_addr(what.as_bytes(), &self.to);
        if let Err(error) = &told
            && error.kind() != io::ErrorKind::WouldBlock
        {
            tracing::debug!(%error, what, operation = "notify", "the supervisor could not be told");
        }
        told.is_ok()
    }
}

impl Supervisor for Systemd {
    fn turned(&self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let what = match (*last, self.every) {
            (None, _) => "READY=1\nWATCHDOG=1",
            (Some(last), Some(every)) if last.elapsed() >= every => "WATCHDOG=1",
            _ => return,
        };
        if self.tell(what) {
            *last = Some(Instant::now());
        }
    }

    fn stopping(&self) {
        self.tell("STOPPING=1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(dir: &std::path::Path) -> (UnixDatagram, OsString) {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        (socket, path.into_os_string())
    }

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 64];
        socket.recv(&mut buffer).ok().map(|len| String::from_utf8_lossy(&buffer[..len]).into_owned())
    }

    #[test]
    fn only_a_turn_of_the_loop_is_a_sign_of_life_and_no_more_are_given_than_are_due() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, name) = socket(dir.path());
        // An hour's patience: none is due within this test.
        for (micros, second) in [("3600000000", None), ("1", Some("WATCHDOG=1"))] {
            let variable = |key: &str| match key {
                "NOTIFY_SOCKET" => Some(name.clone()),
                "WATCHDOG_USEC" => Some(micros.into()),
                "WATCHDOG_PID" => Some("7".into()),
                _ => None,
            };
            let supervisor = supervisor(7, variable).unwrap();
            assert_eq!(heard(&socket), None, "nothing has turned yet");
            supervisor.turned();
            assert_eq!(heard(&socket).as_deref(), Some("READY=1\nWATCHDOG=1"));
            supervisor.turned();
            assert_eq!(heard(&socket).as_deref(), second);
            supervisor.stopping();
            assert_eq!(heard(&socket).as_deref(), Some("STOPPING=1"));
        }
    }

    #[test]
    fn a_process_that_is_not_meant_gives_no_sign_of_life_and_a_name_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, name) = socket(dir.path());
        let variable = |key: &str| match key {
            "NOTIFY_SOCKET" => Some(name.clone()),
            "WATCHDOG_USEC" => Some("1".into()),
            "WATCHDOG_PID" => Some("7".into()),
            _ => None,
        };
        let child = supervisor(8, variable).unwrap();
        child.turned();
        assert_eq!(heard(&socket).as_deref(), Some("READY=1\nWATCHDOG=1"));
        child.turned();
        assert_eq!(heard(&socket), None);
        let wrong = supervisor(7, |key| (key == "NOTIFY_SOCKET").then(|| "relative".into())).unwrap_err();
        assert!(wrong.to_string().contains("absolute path"), "{wrong}");
        // Nobody: nothing to tell, nothing to fail.
        supervisor(7, |_| None).unwrap().turned();
    }

    #[test]
    fn an_abstract_name_is_found_and_a_supervisor_that_is_gone_ends_nothing() {
        let name = format!("resilver-notify-{}", std::process::id());
        let there = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        there.set_nonblocking(true).unwrap();
        let said = OsString::from(format!("@{name}"));
        let supervisor = supervisor(7, |key| (key == "NOTIFY_SOCKET").then(|| said.clone())).unwrap();
        supervisor.turned();
        assert!(heard(&there).unwrap().starts_with("READY=1"));
        drop(there);
        supervisor.turned();
        supervisor.stopping();
    }
}
