//! Whether a member may go on alone, in a new epoch: the guards of `meta recover-quorum` and `meta restore`, as pure judgements
//! over what was seen.
//!
//! Must never: let anybody go on while a quorum could come back, or while it is not known what another one has.

use resilver_host::planted::{Bug, bug};
use resilver_proto::contract::SurveyResponse;

use crate::phase::Phase;

/// What this member knows of the cluster.
pub(super) struct Scene {
    /// Every node of the map.
    pub(super) nodes: Vec<String>,
    /// The sets of voters that have to agree; a voter that no node is any more has no name.
    pub(super) sets: Vec<Vec<Option<String>>>,
}

/// Whether this member may go on alone, as far as what was seen tells. Pure.
pub(super) fn may_be_forced(
    own: &SurveyResponse,
    scene: &Scene,
    gone: &[String],
    seen: &[(String, SurveyResponse)],
) -> Result<(), String> {
    if gone.contains(&own.node) {
        return Err(format!("node {} is said to be gone, and answers", own.node));
    }
    // A lost voter answers, and has nothing any more: a person who says that it is gone says that this will not come back.
    let lives = |seen: &SurveyResponse| seen.phase != Phase::LostVoter.as_str();
    if let Some((node, _)) = seen.iter().find(|(node, seen)| gone.contains(node) && lives(seen)) {
        return Err(format!("node {node} is said to be gone, and answers"));
    }
    // Of a set, those that could come back: a voter that no node is any more cannot.
    let left = |set: &Vec<Option<String>>| -> Vec<String> {
        set.iter().flatten().filter(|voter| !gone.contains(voter)).cloned().collect()
    };
    let could_agree = |set: &Vec<Option<String>>| left(set).len() > set.len() / 2;
    if scene.sets.iter().all(could_agree) {
        let set = scene.sets.iter().min_by_key(|set| left(set).len()).cloned().unwrap_or_default();
        let silent: Vec<String> = left(&set)
            .into_iter()
            .filter(|voter| *voter != own.node && !seen.iter().any(|(node, _)| node == voter))
            .collect();
        return Err(format!(
            "{} of {} voters are not said to be gone, which is a quorum: bring them back ({}), or say which are gone for \
             good with --gone",
            left(&set).len(),
            set.len(),
            if silent.is_empty() { "they answer, and need a moment to elect".to_owned() } else { silent.join(", ") }
        ));
    }
    let heard =
        |node: &&String| **node == own.node || gone.contains(node) || seen.iter().any(|(other, _)| other == *node);
    if let Some(silent) = scene.nodes.iter().find(|node| !heard(node)) {
        return Err(format!(
            "node {silent} does not answer, and what it has is not known: start it, or say that it is gone for good with --gone"
        ));
    }
    let starting = |seen: &SurveyResponse| seen.cluster_id.is_empty() && seen.phase != Phase::LostVoter.as_str();
    if let Some((node, seen)) = seen.iter().find(|(node, seen)| scene.nodes.contains(node) && starting(seen)) {
        return Err(format!("node {node} is {}, and does not say yet what it has: ask again in a moment", seen.phase));
    }
    if let Some((node, _)) = seen.iter().find(|(_, seen)| seen.recovering) {
        return Err(format!(
            "node {node} is asked to go on alone at the same time, and two of them would be two clusters: ask one, and again"
        ));
    }
    let reach = |survey: &SurveyResponse| (survey.last_log_term, survey.last_log_index);
    let same = seen.iter().filter(|(_, seen)| seen.cluster_id == own.cluster_id);
    if let Some((node, seen)) = same.clone().find(|(_, seen)| seen.epoch > own.epoch) {
        return Err(format!("node {node} is in epoch {} already: `resilver node rejoin {}`", seen.epoch, own.node));
    }
    match same.filter(|(_, seen)| seen.epoch == own.epoch).max_by_key(|(_, seen)| reach(seen)) {
        Some((node, best)) if reach(best) > reach(own) => Err(format!(
            "node {node} has more: its log ends at {}.{}, this one's at {}.{}: recover from {node}",
            best.last_log_term, best.last_log_index, own.last_log_term, own.last_log_index
        )),
        _ => Ok(()),
    }
}

/// What a backup says.
pub(super) struct Kept<'a> {
    /// The cluster that it is of.
    pub(super) cluster: &'a str,
    /// Its nodes.
    pub(super) nodes: &'a [String],
}

/// Whether `own` may go on from a backup, as far as what others say tells: nobody has the cluster's metadata, or is about to, and
/// nobody who may have gone on from a backup himself is only silent. Pure.
pub(super) fn may_be_restored(
    own: &str,
    kept: &Kept<'_>,
    gone: &[String],
    seen: &[(String, SurveyResponse)],
) -> Result<(), String> {
    let Kept { cluster, nodes } = *kept;
    if let Some(unknown) = gone.iter().find(|node| !nodes.contains(node)) {
        return Err(format!(
            "node {unknown} is said to be gone, and is not in the backup, which knows {}",
            nodes.join(", ")
        ));
    }
    if gone.iter().any(|node| node == own) {
        return Err(format!("node {own} is said to be gone, and answers"));
    }
    if let Some((node, seen)) = seen.iter().find(|(_, seen)| seen.cluster_id == cluster) {
        return Err(format!(
            "node {node} serves this cluster in epoch {}: a backup is for when nobody has the metadata any more",
            seen.epoch
        ));
    }
    if let Some((node, _)) = seen.iter().find(|(_, seen)| seen.recovering) {
        return Err(format!(
            "node {node} is asked to go on from a backup, or alone, at the same time, and two of them would be two clusters: \
             ask one, and again"
        ));
    }
    let heard = |node: &&String| *node == own || gone.contains(node) || seen.iter().any(|(other, _)| other == *node);
    if let Some(silent) = nodes.iter().find(|node| !heard(node) && !bug(Bug::RestoreBesideSilent)) {
        return Err(format!(
            "node {silent} does not answer, and may have gone on from a backup itself: two of them would be two clusters; start \
             it, or say that it is gone for good with --gone"
        ));
    }
    let settled = [Phase::LostVoter.as_str(), Phase::Waiting.as_str()];
    let starting = |seen: &SurveyResponse| seen.cluster_id.is_empty() && !settled.contains(&seen.phase.as_str());
    match seen.iter().find(|(_, seen)| starting(seen)) {
        Some((node, seen)) => {
            Err(format!("node {node} is {}, and does not say yet what it has: ask again in a moment", seen.phase))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(node: &str, term: u64, index: u64) -> SurveyResponse {
        SurveyResponse {
            node: node.to_owned(),
            phase: "recovering".to_owned(),
            cluster_id: "c".to_owned(),
            epoch: 1,
            last_log_term: term,
            last_log_index: index,
            ..SurveyResponse::default()
        }
    }

    fn set(names: &[Option<&str>]) -> Vec<Option<String>> {
        names.iter().map(|name| name.map(str::to_owned)).collect()
    }

    fn judged_among(scene: &Scene, gone: &[&str], seen: &[SurveyResponse]) -> Result<(), String> {
        let gone: Vec<String> = gone.iter().map(|name| (*name).to_owned()).collect();
        let seen: Vec<_> = seen.iter().map(|seen| (seen.node.clone(), seen.clone())).collect();
        may_be_forced(&at("n1", 3, 100), scene, &gone, &seen)
    }

    /// Five nodes, the first three of which vote; the other two answer as given.
    fn judged(gone: &[&str], seen: &[SurveyResponse]) -> Result<(), String> {
        let nodes = ["n1", "n2", "n3", "n4", "n5"].map(str::to_owned).to_vec();
        judged_among(&Scene { nodes, sets: vec![set(&[Some("n1"), Some("n2"), Some("n3")])] }, gone, seen)
    }

    #[test]
    fn nobody_goes_on_alone_while_a_quorum_could_come_back() {
        let learners = [at("n4", 3, 100), at("n5", 3, 99)];
        assert_eq!(judged(&["n2", "n3"], &learners), Ok(()));
        let one = judged(&["n2"], &learners).unwrap_err();
        assert!(one.contains("2 of 3 voters") && one.contains("n3"), "{one}");
        assert!(judged(&[], &learners).unwrap_err().contains("n2, n3"));
        let lies = judged(&["n2", "n3"], &[at("n3", 1, 1)]).unwrap_err();
        assert!(lies.contains("n3 is said to be gone, and answers"), "{lies}");
        let itself = judged(&["n1", "n2"], &learners).unwrap_err();
        assert!(itself.contains("n1 is said to be gone, and answers"), "{itself}");
    }

    #[test]
    fn nobody_goes_on_alone_while_it_is_not_known_what_another_has() {
        let silent = judged(&["n2", "n3"], &[at("n4", 3, 100)]).unwrap_err();
        assert!(silent.contains("n5 does not answer"), "{silent}");
        let starting = SurveyResponse { cluster_id: String::new(), ..at("n5", 0, 0) };
        let early = judged(&["n2", "n3"], &[at("n4", 3, 100), starting.clone()]).unwrap_err();
        assert!(early.contains("does not say yet"), "{early}");
        let lost = SurveyResponse { phase: "lost_voter".to_owned(), ..starting };
        assert_eq!(judged(&["n2", "n3"], &[at("n4", 3, 100), lost]), Ok(()), "a lost voter has nothing to say");
    }

    #[test]
    fn it_is_the_member_with_the_most_that_goes_on() {
        let with = |n4: SurveyResponse| judged(&["n2", "n3"], &[n4, at("n5", 2, 900)]);
        assert_eq!(with(at("n4", 3, 100)), Ok(()), "a later term counts first");
        let more = with(at("n4", 3, 101)).unwrap_err();
        assert!(more.contains("recover from n4"), "{more}");
        assert!(with(SurveyResponse { epoch: 2, ..at("n4", 3, 50) }).unwrap_err().contains("epoch 2 already"));
        let foreign = SurveyResponse { cluster_id: "other".to_owned(), ..at("n4", 9, 999) };
        assert_eq!(with(foreign), Ok(()), "another cluster's log is nothing to it");
    }

    /// Found by the simulator (`quorum`, seed 1): the machines of the voters were back, with empty disks, before the quorum was
    /// recovered. They answered, so they could not be called gone; and they could not come back without a quorum.
    #[test]
    fn a_voter_that_lost_its_metadata_may_be_called_gone_although_it_answers() {
        let lost =
            |node: &str| SurveyResponse { phase: "lost_voter".to_owned(), cluster_id: String::new(), ..at(node, 0, 0) };
        let learners = [at("n4", 3, 100), at("n5", 3, 99)];
        let seen = [lost("n2"), lost("n3"), learners[0].clone(), learners[1].clone()];
        assert_eq!(judged(&["n2", "n3"], &seen), Ok(()));
        assert!(judged(&["n2"], &seen).unwrap_err().contains("2 of 3 voters"), "not without a person's word");
    }

    /// Two people may ask two survivors that have the same: each would become the only voter of the
    /// same epoch, under the same id.
    #[test]
    fn of_two_that_are_asked_at_the_same_time_neither_goes_on_beside_the_other() {
        let beside = SurveyResponse { recovering: true, ..at("n4", 3, 100) };
        let refused = judged(&["n2", "n3"], &[beside, at("n5", 3, 99)]).unwrap_err();
        assert!(refused.contains("n4 is asked to go on alone"), "{refused}");
    }

    /// Found while the scenario `restore` was written: two nodes that were restored at a time did not see each other, and would
    /// both have been the only voter of the same epoch, under the same id.
    #[test]
    fn of_two_that_are_restored_at_the_same_time_neither_goes_on_beside_the_other() {
        let judged = |seen: SurveyResponse| restored(&[], &[seen]);
        let lost = SurveyResponse { phase: "lost_voter".to_owned(), cluster_id: String::new(), ..at("n2", 0, 0) };
        assert_eq!(judged(lost.clone()), Ok(()));
        assert_eq!(judged(SurveyResponse { phase: "waiting".to_owned(), ..lost.clone() }), Ok(()));
        let beside = judged(SurveyResponse { recovering: true, ..lost.clone() }).unwrap_err();
        assert!(beside.contains("n2 is asked to go on from a backup"), "{beside}");
        let starts = judged(SurveyResponse { phase: "recovering".to_owned(), ..lost }).unwrap_err();
        assert!(starts.contains("n2 is recovering, and does not say yet"), "{starts}");
        assert!(judged(at("n2", 1, 1)).unwrap_err().contains("serves this cluster in epoch 1"));
    }

    /// Found by the simulator (`restore`, seed 7002): the node that had just gone on from the backup was down for a moment when
    /// another was asked for it. Both became member 7 of epoch 2.
    #[test]
    fn nobody_is_restored_while_another_that_may_have_been_is_silent() {
        let lost = SurveyResponse { phase: "lost_voter".to_owned(), cluster_id: String::new(), ..at("n2", 0, 0) };
        let silent = restored(&[], &[]).unwrap_err();
        assert!(silent.contains("n2 does not answer") && silent.contains("--gone"), "{silent}");
        assert_eq!(restored(&["n2"], &[]), Ok(()), "a person's word");
        assert_eq!(restored(&["n2"], std::slice::from_ref(&lost)), Ok(()), "it has nothing, and will not come back");
        assert!(restored(&["n2"], &[at("n2", 1, 1)]).unwrap_err().contains("serves this cluster"), "the word is wrong");
        assert!(
            restored(&["n1"], std::slice::from_ref(&lost)).unwrap_err().contains("n1 is said to be gone, and answers")
        );
        assert!(restored(&["n9"], &[lost]).unwrap_err().contains("n9 is said to be gone, and is not in the backup"));
    }

    /// At n1, from a backup that knows n1 and n2.
    fn restored(gone: &[&str], seen: &[SurveyResponse]) -> Result<(), String> {
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let seen: Vec<_> = seen.iter().map(|seen| (seen.node.clone(), seen.clone())).collect();
        may_be_restored("n1", &Kept { cluster: "c", nodes: &named(&["n1", "n2"]) }, &named(gone), &seen)
    }

    #[test]
    fn every_set_of_voters_has_to_agree_and_those_that_are_no_node_never_will() {
        let nodes = || ["n1", "n2", "n3"].map(str::to_owned).to_vec();
        let seen = [at("n2", 3, 100)];
        // n3 is gone, and so is the member that n2 was before it came back under another id.
        let retired = Scene { nodes: nodes(), sets: vec![set(&[Some("n1"), None, Some("n3")])] };
        assert_eq!(judged_among(&retired, &["n3"], &seen), Ok(()));
        let joint = Scene {
            nodes: nodes(),
            sets: vec![set(&[Some("n1"), Some("n2"), Some("n3")]), set(&[Some("n1"), None, Some("n3")])],
        };
        assert_eq!(judged_among(&joint, &["n3"], &seen), Ok(()), "the second set can never agree");
    }
}
