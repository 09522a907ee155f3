//! What is ruled to befall requests, and what befalls one. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// The longest delay that can be ordered: what takes longer is a disk that hangs, and there is an order for that.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// One line that the control socket takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Everything that a disk itself must do waits until [`Order::Clear`], or until the file system ends.
    Hang,
    /// Everything that a disk itself must do takes so much longer.
    Slow(Duration),
    /// Reads fail.
    ReadError,
    /// Writes fail, and all else that changes something.
    WriteError,
    /// Syncs fail.
    SyncError,
    /// No fault any more; what waits is done.
    Clear,
    /// Nothing changes: only the answer is wanted.
    Show,
}

/// Why a line is no order.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum OrderError {
    /// Nothing by that name.
    #[error("{0:?} is no order: hang, slow MS, read_eio, write_eio, sync_eio, clear or show")]
    Unknown(String),
    /// A delay that is none.
    #[error("{0:?} is no delay: whole milliseconds, at most {max}", max = MAX_DELAY.as_millis())]
    Delay(String),
}

impl FromStr for Order {
    type Err = OrderError;

    fn from_str(line: &str) -> Result<Self, OrderError> {
        let line = line.trim();
        if let Some(delay) = line.strip_prefix("slow ") {
            let found = delay.trim().parse().ok().map(Duration::from_millis).filter(|delay| *delay <= MAX_DELAY);
            return found.map(Self::Slow).ok_or_else(|| OrderError::Delay(delay.to_owned()));
        }
        match line {
            "hang" => Ok(Self::Hang),
            "read_eio" => Ok(Self::ReadError),
            "write_eio" => Ok(Self::WriteError),
            "sync_eio" => Ok(Self::SyncError),
            "clear" => Ok(Self::Clear),
            "show" => Ok(Self::Show),
            _ => Err(OrderError::Unknown(line.to_owned())),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hang => f.write_str("hang"),
            Self::Slow(delay) => write!(f, "slow {}", delay.as_millis()),
            Self::ReadError => f.write_str("read_eio"),
            Self::WriteError => f.write_str("write_eio"),
            Self::SyncError => f.write_str("sync_eio"),
            Self::Clear => f.write_str("clear"),
            Self::Show => f.write_str("show"),
        }
    }
}

/// What a request wants of the disk. What the kernel answers from memory on a disk that hangs (names it knows, attributes,
/// the room there is) asks nobody, and has no kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Open,
    /// Of a file or a folder.
    Read,
    /// The bytes of a file.
    Write,
    /// Names, lengths, attributes.
    Change,
    /// Of a file or a folder.
    Sync,
}

/// What befalls a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It waits until the rules are cleared.
    Held,
    /// It is done, after a while that may be none; or it fails then.
    Answered { after: Duration, failed: bool },
}

/// The faults in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    hang: bool,
    delay: Duration,
    read_error: bool,
    write_error: bool,
    sync_error: bool,
}

impl Rules {
    /// An order adds to those before it; only clearing takes away.
    pub(super) fn after(self, order: Order) -> Self {
        match order {
            Order::Hang => Self { hang: true, ..self },
            Order::Slow(delay) => Self { delay, ..self },
            Order::ReadError => Self { read_error: true, ..self },
            Order::WriteError => Self { write_error: true, ..self },
            Order::SyncError => Self { sync_error: true, ..self },
            Order::Clear => Self::default(),
            Order::Show => self,
        }
    }

    pub(super) fn fate(&self, kind: Kind) -> Fate {
        if self.hang {
            return Fate::Held;
        }
        let failed = match kind {
            Kind::Open => false,
            Kind::Read => self.read_error,
            Kind::Write | Kind::Change => self.write_error,
            Kind::Sync => self.sync_error,
        };
        Fate::Answered { after: self.delay, failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 5] = [Kind::Open, Kind::Read, Kind::Write, Kind::Change, Kind::Sync];

    fn failing(rules: Rules) -> Vec<Kind> {
        let fails = |kind: &Kind| matches!(rules.fate(*kind), Fate::Answered { failed: true, .. });
        KINDS.into_iter().filter(fails).collect()
    }

    #[test]
    fn an_order_reads_as_it_is_written() {
        let slow = Order::Slow(Duration::from_millis(250));
        for order in
            [Order::Hang, slow, Order::ReadError, Order::WriteError, Order::SyncError, Order::Clear, Order::Show]
        {
            assert_eq!(format!("{order}\n").parse(), Ok(order));
        }
        for line in ["", "hang now", "slow", "HANG"] {
            assert_eq!(line.parse::<Order>(), Err(OrderError::Unknown(line.to_owned())));
        }
        for line in ["slow soon", "slow -1", "slow 60001"] {
            assert!(matches!(line.parse::<Order>(), Err(OrderError::Delay(_))), "{line}");
        }
    }

    #[test]
    fn each_error_befalls_its_own_kind() {
        let ruled = |order| Rules::default().after(order);
        assert_eq!(failing(Rules::default()), []);
        assert_eq!(failing(ruled(Order::ReadError)), [Kind::Read]);
        assert_eq!(failing(ruled(Order::WriteError)), [Kind::Write, Kind::Change]);
        assert_eq!(failing(ruled(Order::SyncError)), [Kind::Sync]);
    }

    #[test]
    fn faults_add_up_hanging_comes_first_and_clearing_ends_them_all() {
        let delay = Duration::from_millis(7);
        let slow = Rules::default().after(Order::Slow(delay)).after(Order::SyncError);
        assert_eq!(slow.fate(Kind::Sync), Fate::Answered { after: delay, failed: true });
        assert_eq!(slow.fate(Kind::Read), Fate::Answered { after: delay, failed: false });
        let hanging = slow.after(Order::Hang);
        assert!(KINDS.iter().all(|kind| hanging.fate(*kind) == Fate::Held));
        assert_eq!(hanging.after(Order::Show), hanging);
        assert_eq!(hanging.after(Order::Clear), Rules::default());
    }
}
