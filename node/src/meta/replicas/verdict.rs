//! Who of some members is wrong. Pure.
//!
//! Must never: blame anybody with fewer than [`LEAST`] digests, or without a majority of them; trust the newest, or the
//! leader, instead of the majority.

use crate::state::Sum;
use crate::types::NodeName;

/// Digests without which nobody is blamed: of two that differ either may be wrong.
pub(crate) const LEAST: usize = 3;

/// How a member stands against the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its state is that of the majority.
    Right,
    /// It is not.
    Wrong,
    /// It differs from others, and there is no majority to say who is wrong.
    Undecided,
    /// It did not say.
    Silent,
}

impl Verdict {
    /// For people and for the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::Undecided => "undecided",
            Self::Silent => "silent",
        }
    }
}

/// What a member said of its state at a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Up to which entry of the log.
    pub(crate) index: u64,
    /// What Raft noted with that entry: other entries have another.
    pub(crate) applied: Vec<u8>,
    /// The sum of everything.
    pub(crate) root: Sum,
}

/// One member.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// Who.
    pub(crate) node: NodeName,
    /// What it said, or why it did not.
    pub(crate) said: Result<Said, String>,
    /// How it stands.
    pub(crate) verdict: Verdict,
}

/// Judges each by all.
pub(crate) fn judge(said: Vec<(NodeName, Result<Said, String>)>) -> Vec<Standing> {
    let heard: Vec<Said> = said.iter().filter_map(|(_, said)| said.as_ref().ok()).cloned().collect();
    let alike = |one: &Said| heard.iter().filter(|other| *other == one).count();
    let all_equal = heard.iter().all(|one| Some(one) == heard.first());
    let majority = heard.iter().find(|one| heard.len() >= LEAST && alike(one) * 2 > heard.len());
    let verdict = |said: &Result<Said, String>| match (said, majority) {
        (Err(_), _) => Verdict::Silent,
        (Ok(_), _) if all_equal => Verdict::Right,
        (Ok(one), Some(right)) if one == right => Verdict::Right,
        (Ok(_), Some(_)) => Verdict::Wrong,
        (Ok(_), None) => Verdict::Undecided,
    };
    said.into_iter().map(|(node, said)| Standing { verdict: verdict(&said), node, said }).collect()
}

#[cfg(test)]
mod tests {
    use super::Verdict::*;
    use super::*;

    fn verdicts(said: &[Option<u128>]) -> Vec<Verdict> {
        let said = said.iter().zip(1..).map(|(digest, id)| {
            let root = |digest: u128| Sum { digest, records: 5 };
            let said = digest.map(|digest| Said { index: 9, applied: vec![1], root: root(digest) });
            (NodeName::from(format!("n{id}").as_str()), said.ok_or_else(|| "no answer".to_owned()))
        });
        judge(said.collect()).into_iter().map(|standing| standing.verdict).collect()
    }

    #[test]
    fn the_majority_of_at_least_three_decides() {
        assert_eq!(verdicts(&[Some(1), Some(1), Some(2)]), [Right, Right, Wrong]);
        assert_eq!(verdicts(&[Some(2), Some(1), Some(1), None]), [Wrong, Right, Right, Silent]);
        assert_eq!(verdicts(&[Some(1), Some(1), Some(1)]), [Right, Right, Right]);
        assert_eq!(verdicts(&[Some(1), Some(2), Some(2), Some(2), Some(3)]), [Wrong, Right, Right, Right, Wrong]);
    }

    #[test]
    fn nobody_is_blamed_without_one() {
        assert_eq!(verdicts(&[Some(1), Some(2)]), [Undecided, Undecided], "either may be wrong");
        assert_eq!(verdicts(&[Some(1), Some(2), None]), [Undecided, Undecided, Silent], "two digests are not three");
        assert_eq!(verdicts(&[Some(1), Some(1), Some(2), Some(2)]), [Undecided; 4]);
        assert_eq!(verdicts(&[Some(1), Some(2), Some(3)]), [Undecided; 3]);
        assert_eq!(verdicts(&[Some(1), Some(1)]), [Right, Right], "where nothing differs there is nobody to blame");
        assert_eq!(verdicts(&[Some(1), None, None]), [Right, Silent, Silent]);
    }

    #[test]
    fn another_entry_at_the_same_index_is_another_state() {
        let said = |applied: u8| Ok(Said { index: 9, applied: vec![applied], root: Sum::default() });
        let standings = judge(vec![("n1".into(), said(1)), ("n2".into(), said(1)), ("n3".into(), said(2))]);
        assert_eq!(standings[2].verdict, Wrong);
    }
}
