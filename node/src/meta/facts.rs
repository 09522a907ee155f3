//! What this member tells of itself to the simulator's checkers ([`resilver_host::audit`]): openraft's words in theirs.

use openraft::{EntryPayload, Vote};
use resilver_host::audit::{Fact, LeaderId, LogEntry, LogId, Prepared, prepare};

use super::raft::{Entry, Node};
use super::wire;
use crate::log::Record;

pub(super) fn log_id(id: &openraft::LogId<Node>) -> LogId {
    LogId { leader: LeaderId { term: id.leader_id.term, member: id.leader_id.node_id }, index: id.index }
}

pub(super) fn vote(vote: &Vote<Node>) -> resilver_host::audit::Vote {
    let leader = LeaderId { term: vote.leader_id.term, member: vote.leader_id.node_id };
    resilver_host::audit::Vote { leader, committed: vote.committed }
}

/// These records are about to be appended.
pub(super) fn appended(records: &[Record]) -> Prepared {
    prepare(|| Fact::Appended { entries: records.iter().filter_map(entry).collect() })
}

fn entry(record: &Record) -> Option<LogEntry> {
    let entry: Entry = wire::decode(&record.payload).ok()?;
    let voters = match &entry.payload {
        EntryPayload::Membership(membership) => Some(membership.get_joint_config().clone()),
        EntryPayload::Blank | EntryPayload::Normal(_) => None,
    };
    Some(LogEntry { id: log_id(&entry.log_id), crc: crc32c::crc32c(&record.payload), voters })
}

#[cfg(feature = "audit")]
pub(super) use told::{applied, installed, opened};

/// What takes reading to tell. A failure to read says nothing here: whoever needs the same bytes meets it too.
#[cfg(feature = "audit")]
mod told {
    use openraft::storage::RaftLogStorage;
    use resilver_host::audit::{Fact, Voters, state};

    use super::{log_id, vote};
    use crate::meta::log_store::LogAdapter;
    use crate::meta::network::Ids;
    use crate::meta::raft::Note;
    use crate::state::State;

    fn voters(note: &Note) -> Voters {
        note.membership.membership().get_joint_config().clone()
    }

    /// This member's files are open, and Raft is about to start on them.
    pub(in crate::meta) async fn opened(ids: &Ids, mut log: LogAdapter, note: &Note) {
        let (Ok(stored), Ok(last)) = (log.read_vote().await, log.get_log_state().await) else { return };
        state(|| Fact::MemberOpened {
            cluster: format!("{}.{}", ids.cluster, ids.epoch.0),
            raft_id: ids.raft_id.0,
            vote: stored.as_ref().map(vote),
            last_log: last.last_log_id.as_ref().map(log_id),
            applied: note.log_id.as_ref().map(log_id),
            voters: voters(note),
        });
    }

    /// Entries were applied, up to what `note` says.
    pub(in crate::meta) async fn applied(machine: &State, note: &Note) {
        let (Some(id), Ok(digest)) = (&note.log_id, machine.digest().await) else { return };
        state(|| Fact::Applied { id: log_id(id), digest });
    }

    /// A snapshot was installed, up to what `note` says.
    pub(in crate::meta) async fn installed(machine: &State, note: &Note) {
        let Ok(digest) = machine.digest().await else { return };
        state(|| Fact::SnapshotInstalled { id: note.log_id.as_ref().map(log_id), digest, voters: voters(note) });
    }
}
