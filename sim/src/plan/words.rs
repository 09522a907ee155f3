//! A plan as people read it: one line per event.

use std::fmt;

use super::{Ask, Cut, DiskOp, Event, Fault, Files, Plan, Role, Tampering, Target};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, seed {}: {} faults within {} ms",
            self.scenario,
            self.seed,
            self.events.len(),
            self.safety_ms
        )?;
        self.events.iter().try_for_each(|event| writeln!(f, "  {event}"))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { number, at_ms, fault, target, for_ms } = self;
        write!(f, "{number:>3}  {:>3}.{:03} s  {target:<12} {fault}", at_ms / 1000, at_ms % 1000)?;
        if *for_ms > 0 {
            write!(f, " for {for_ms} ms")?;
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Target::Machine(machine) => format!("n{machine}"),
            Target::Disk { machine, disk } => format!("n{machine}/disk{disk}"),
            Target::MetaDisk(machine) => format!("n{machine}/meta"),
            Target::AgentDisk(machine) => format!("n{machine}/agent"),
            Target::RaftLeader => "raft leader".to_owned(),
            Target::Follower => "a follower".to_owned(),
            Target::LeaseHolder => "lease holder".to_owned(),
            Target::WhoeverActs => "who acts".to_owned(),
        };
        f.pad(&text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Node => "node",
            Role::Agent => "agent",
            Role::Keeper => "keeper",
            Role::All => "node, keeper and agent",
        })
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Files::Shards => "shards",
            Files::Log => "log",
            Files::Vote => "vote",
            Files::Database => "database",
            Files::Snapshots => "snapshots",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill(role) => write!(f, "kill {role}"),
            Fault::KillAtOp { role, nth } => write!(f, "kill {role} at disk operation {nth} from now"),
            Fault::PowerOff => f.write_str("power off"),
            Fault::Freeze(role) => write!(f, "freeze {role}"),
            Fault::Hang => f.write_str("its node hangs"),
            Fault::Apart { other, cut: Cut::Outbound } => write!(f, "does not reach n{other}"),
            Fault::Apart { other, cut: Cut::Inbound } => write!(f, "is not reached by n{other}"),
            Fault::Apart { other, .. } => write!(f, "cut off from n{other}"),
            Fault::NodesApart { all: false } => f.write_str("its node is cut off from all other nodes"),
            Fault::NodesApart { all: true } => f.write_str("no node reaches another one"),
            Fault::Saturated { run_ms, wait_ms } => write!(f, "its processes run {run_ms} ms and wait {wait_ms}"),
            Fault::Partition(Cut::Both) => f.write_str("cut off"),
            Fault::Partition(Cut::Outbound) => f.write_str("cut off outbound"),
            Fault::Partition(Cut::Inbound) => f.write_str("cut off inbound"),
            Fault::Partition(Cut::Flapping { every_ms }) => write!(f, "cut off and on every {every_ms} ms"),
            Fault::SlowLinks { low_ms, high_ms } => write!(f, "links take {low_ms} to {high_ms} ms"),
            Fault::LossyLinks { permille } => write!(f, "links lose {permille} of 1000"),
            Fault::DiskError(DiskOp::Read) => f.write_str("EIO on read"),
            Fault::DiskError(DiskOp::Write) => f.write_str("EIO on write"),
            Fault::DiskError(DiskOp::Sync) => f.write_str("EIO on sync"),
            Fault::DiskFull => f.write_str("full"),
            Fault::DiskCrowded { permille } => write!(f, "{permille} of 1000 taken by something else"),
            Fault::DiskWears { sectors, unread: false } => write!(f, "its counters show {sectors} unreadable sectors"),
            Fault::DiskWears { sectors, .. } => {
                write!(f, "its counters show {sectors} unreadable sectors, and reads of shards fail")
            }
            Fault::MemoryShort { left_permille } => write!(f, "{left_permille} of 1000 of its memory left"),
            Fault::SlowApply { batch_ms } => write!(f, "its node applies entries in batches of {batch_ms} ms"),
            Fault::Astray { every_ms } => {
                write!(f, "its node takes no leader's word and stands for election every {every_ms} ms")
            }
            Fault::Deluded => f.write_str("its node tells none that it leads, and takes itself for the leader still"),
            Fault::DiskSlow { factor } => write!(f, "{factor} times slower"),
            Fault::DiskHung => f.write_str("hung"),
            Fault::DiskVanished => f.write_str("vanished"),
            Fault::DiskReplaced => f.write_str("vanished, then replaced by an empty one"),
            Fault::RotOfObjects { count } => write!(f, "bit rot in {count} of its shards, of objects that are there"),
            Fault::BitRot { files, count } => write!(f, "bit rot in {count} of its {files}"),
            Fault::Ruin(files) => write!(f, "its {files} rots from end to end"),
            Fault::MisdirectedWrite(files) => write!(f, "the next write to its {files} lands elsewhere"),
            Fault::ClockJump { by_ms } => write!(f, "wall clock jumps by {by_ms} ms"),
            Fault::ClockRate { ppm } => write!(f, "clocks run at {ppm:+} ppm"),
            Fault::OperatorRestart { through } => {
                write!(f, "an operator restarts the node through the agent of n{through}")
            }
            Fault::OperatorPause => f.write_str("an operator pauses the agent"),
            Fault::OperatorChanges => f.write_str("an operator changes a bucket's quota, one time after the other"),
            Fault::Asked { ask: Ask::Replace { spare }, through } => {
                let by = if *spare { "the spare" } else { "one in its place" };
                write!(f, "a person asks n{through} to replace it by {by}")
            }
            Fault::Quiet => f.write_str("clients ask for nothing"),
            Fault::Tampered { how, records, in_step: true } => {
                write!(
                    f,
                    "it applies an entry wrongly: {records} records {}",
                    match how {
                        Tampering::Inserted => "more",
                        Tampering::Removed => "less",
                        Tampering::Changed => "say something else",
                    }
                )
            }
            Fault::Tampered { how: Tampering::Inserted, records, .. } => {
                write!(f, "{records} records slip into its metadata")
            }
            Fault::Tampered { how: Tampering::Removed, records, .. } => {
                write!(f, "{records} records of its metadata are gone")
            }
            Fault::Tampered { how: Tampering::Changed, records, .. } => {
                write!(f, "{records} records of its metadata say something else")
            }
            Fault::Asked { ask, through } => write!(f, "a person asks n{through} to {} it", ask.name()),
            Fault::IsolateInGrant { away_ms } => write!(f, "cut off for {away_ms} ms in the moment of its grant"),
            Fault::KillInRecovery { nth_op, after_ms } if *nth_op > 0 => {
                let _ = after_ms;
                write!(f, "its agent is killed at disk operation {nth_op} after an intent")
            }
            Fault::KillInRecovery { after_ms, .. } => write!(f, "its agent is killed {after_ms} ms after an intent"),
        }
    }
}
