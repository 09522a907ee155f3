//! Worlds by the hundred: what must hold in each, and that the checks would see it if it did not.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_two_holders_and_never_a_stale_fence(seed in any::<u64>(), agents in prop_oneof![Just(3usize), Just(5)]) {
        let mut world = World::new(seed, agents, None);
        let outcome = world.run();
        prop_assert!(outcome.is_ok(), "seed {seed}, {agents} agents: {}", outcome.unwrap_err());
        prop_assert!(world.acquired > 0, "seed {seed}: nobody ever held the lease, so nothing was tested");
    }
}

#[test]
fn an_answer_for_a_slot_of_a_former_tenure_opens_nothing() {
    // With this seed a holder once counted a late answer, from outside its term or its tenure, as the opening of a slot
    // that a successor had settled and closed.
    let mut world = World::new(18_392_474_224_299_447_512, 3, None);
    world.run().expect("holds");
}

#[test]
fn the_worlds_are_not_vacuous() {
    let worlds = (0..8).map(|seed| {
        let mut world = World::new(seed, 3, None);
        world.run().expect("holds");
        world
    });
    let (acquired, steps) = worlds.fold((0, 0), |sum, world| (sum.0 + world.acquired, sum.1 + world.steps_done));
    assert!(acquired > 150 && steps > 1_000, "{acquired} times acquired, {steps} steps done in eight worlds");
}

/// A short search by default; a long one by hand: `RESILVER_SEEDS=5000 cargo test --release -p resilver-strategies search`.
#[test]
fn a_search_over_seeds() {
    let seeds = std::env::var("RESILVER_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20u64);
    for seed in 0..seeds {
        let outcome = World::new(seed, if seed % 2 == 0 { 3 } else { 5 }, None).run();
        assert!(outcome.is_ok(), "seed {seed}: {}", outcome.unwrap_err());
    }
}

/// Runs worlds with a planted bug until one breaks; says how.
fn caught(mutation: Mutation) -> Option<String> {
    (0..120).find_map(|seed| {
        let mut world = World::new(seed, if seed % 2 == 0 { 3 } else { 5 }, Some(mutation));
        world.run().err()
    })
}

#[test]
fn every_planted_bug_is_caught() {
    for (mutation, symptom) in [
        (Mutation::ForgetPromise, ""),
        (Mutation::GrantAfterRestart, "hold the lease at one instant"),
        (Mutation::CountFromAnswer, "hold the lease at one instant"),
        (Mutation::IgnoreGrant, "hold the lease at one instant"),
        (Mutation::MinorityWins, ""),
        (Mutation::ForgetFence, "let"),
        (Mutation::ForgetSlots, "does not know of the open slot"),
        (Mutation::FirstSlotsOnly, "does not know of the open slot"),
    ] {
        let how = caught(mutation).unwrap_or_else(|| panic!("{mutation:?} went unnoticed"));
        assert!(how.contains(symptom), "{mutation:?} was caught, but as: {how}");
    }
}

#[test]
fn a_change_of_more_than_one_acceptor_is_refused() {
    let names = |count: usize| (0..count).map(name).collect::<Vec<_>>();
    let options = ProposerOptions::new("n0", CLUSTER, 1, names(3), 0);
    let mut proposer = Proposer::new(Moment::default(), options);
    assert!(proposer.set_acceptors(names(5)).is_err());
    assert!(proposer.set_acceptors(names(4)).is_ok());
}
