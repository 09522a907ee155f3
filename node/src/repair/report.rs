//! What came of rebuilding one shard.

use resilver_proto::internal::RebuildShardResponse;

use crate::types::ShardIndex;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildState {
    /// Written, synced and read back.
    Rebuilt,
    /// Nothing was wrong with it.
    Intact,
    /// The object was replaced or deleted, or the shard moved, meanwhile.
    Obsolete,
    /// Not done; the detail says why.
    Failed,
}

impl RebuildState {
    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rebuilt => "rebuilt",
            Self::Intact => "intact",
            Self::Obsolete => "obsolete",
            Self::Failed => "failed",
        }
    }

    fn parse(name: &str) -> Self {
        match name {
            "rebuilt" => Self::Rebuilt,
            "intact" => Self::Intact,
            "obsolete" => Self::Obsolete,
            _ => Self::Failed,
        }
    }
}

/// What came of rebuilding one shard.
#[derive(Clone, Debug)]
pub struct RebuildReport {
    /// How it ended.
    pub state: RebuildState,
    /// The shards it was computed from.
    pub rebuilt_from: Vec<ShardIndex>,
    /// Bytes of the shard.
    pub bytes: u64,
    /// For people.
    pub detail: String,
}

impl RebuildReport {
    pub(crate) fn failed(detail: String) -> Self {
        Self { state: RebuildState::Failed, rebuilt_from: Vec::new(), bytes: 0, detail }
    }

    pub(super) fn without_work(state: RebuildState, detail: &str) -> Self {
        Self { state, rebuilt_from: Vec::new(), bytes: 0, detail: detail.to_owned() }
    }
}

impl From<RebuildReport> for RebuildShardResponse {
    fn from(report: RebuildReport) -> Self {
        Self {
            state: report.state.as_str().to_owned(),
            rebuilt_from: report.rebuilt_from.iter().map(|shard| u32::from(shard.0)).collect(),
            bytes: report.bytes,
            detail: report.detail,
        }
    }
}

impl From<RebuildShardResponse> for RebuildReport {
    fn from(answer: RebuildShardResponse) -> Self {
        Self {
            state: RebuildState::parse(&answer.state),
            rebuilt_from: answer
                .rebuilt_from
                .iter()
                .filter_map(|shard| u8::try_from(*shard).ok().map(ShardIndex))
                .collect(),
            bytes: answer.bytes,
            detail: answer.detail,
        }
    }
}
