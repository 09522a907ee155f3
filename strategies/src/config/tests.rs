//! The policy's figures are read as people write them, and nonsense is named.

use super::*;

#[test]
fn unknown_keys_are_refused_and_times_are_read_as_people_write_them() {
    let read: PolicyConfig =
        serde_json::from_str(r#"{"recovery":{"restart_cooldown":"2m","restart_waits":["0s","1s"]}}"#).expect("good");
    assert_eq!(read.recovery.restart_cooldown, secs(120));
    assert_eq!(read.wait_before(1), secs(1));
    assert_eq!(read.wait_before(2), secs(120));
    let error = serde_json::from_str::<PolicyConfig>(r#"{"recovery":{"restart_coldown":"2m"}}"#).expect_err("typo");
    assert!(error.to_string().contains("restart_coldown"), "{error}");
    let round = serde_json::to_string(&PolicyConfig::default()).expect("serializes");
    assert_eq!(serde_json::from_str::<PolicyConfig>(&round).expect("reads"), PolicyConfig::default());
    assert!(schemars::schema_for!(PolicyConfig).to_value().to_string().contains("restart_cooldown"));
}

#[test]
fn the_factor_scales_policy_times_and_never_detection() {
    let fast = PolicyConfig::of(Profile::Fast);
    assert_eq!(fast.scaled(fast.grace), secs(1));
    assert_eq!(fast.fresh_within(), PolicyConfig::default().fresh_within());
    assert_eq!(fast.deadline(secs(120)), DEADLINE_FLOOR, "a proof reads back real work");
    assert_eq!(fast.deadline(secs(3)), secs(3), "and a short one is not made longer");
}

#[test]
fn authority_is_the_narrowest_that_applies() {
    let mut policy = PolicyConfig::default();
    let of = |policy: &PolicyConfig, mode, grade| policy.authority_of(mode, grade, false).0;
    let evacuates = |policy: &PolicyConfig| policy.authority_of(Mode::DiskDegrading, Grade::REPAIR, true).0;
    assert_eq!(evacuates(&policy), Authority::Shadow, "a live disk is emptied once somebody has said so");
    assert_eq!(evacuates(&PolicyConfig::of(Profile::Fast)), Authority::Auto);
    assert_eq!(of(&policy, Mode::DiskFailure, Grade::RESTART), Authority::Auto);
    assert_eq!(of(&policy, Mode::DiskFailure, Grade::REALIGN), Authority::Shadow);
    assert_eq!(of(&PolicyConfig::of(Profile::Fast), Mode::SplitBrain, Grade::APPROVE), Authority::Approve);
    policy.recovery.auto_restart = false;
    assert_eq!(of(&policy, Mode::DiskFailure, Grade::RESTART), Authority::Shadow);
    assert_eq!(of(&policy, Mode::ProcessCrash, Grade::RELIEVE), Authority::Auto);
    let table = GradeTable { all: Some(Authority::Observe), ..GradeTable::default() };
    policy.authority.modes.insert(Mode::ProcessCrash, table);
    assert_eq!(of(&policy, Mode::ProcessCrash, Grade::RELIEVE), Authority::Observe);
}

#[test]
fn the_risky_half_of_the_ladder_is_shadow_for_a_clusters_first_day() {
    let policy = PolicyConfig::default();
    let of = |grade, disruptive, hours: u64| {
        policy.authority_at(Mode::DatabaseCorruption, grade, disruptive, secs(hours * 3600)).0
    };
    for (hours, risky) in [(0, Authority::Shadow), (23, Authority::Shadow), (24, Authority::Auto)] {
        assert_eq!(of(Grade::REALIGN, true, hours), risky, "{hours}");
        assert_eq!(of(Grade::REPAIR, true, hours), risky, "{hours}");
        assert_eq!(of(Grade::REPAIR, false, hours), Authority::Auto, "rebuilding takes nothing away");
        assert_eq!(of(Grade::APPROVE, true, hours), Authority::Approve, "grade 6 has no age");
    }
    let said = GradeTable { realign: Some(Authority::Auto), ..GradeTable::default() };
    let policy = PolicyConfig { authority: AuthorityTable { grades: said, ..AuthorityTable::default() }, ..policy };
    let (authority, why) = policy.authority_at(Mode::SplitBrain, Grade::REALIGN, true, Duration::ZERO);
    assert_eq!((authority, why), (Authority::Auto, "authority.grades"), "an operator's own word");
}

#[test]
fn what_is_said_for_a_mode_only_ever_lowers_authority() {
    for grade in (0..=6).map(Grade) {
        for cluster in Authority::ALL {
            for mode in Authority::ALL {
                let all = |authority| GradeTable { all: Some(authority), ..GradeTable::default() };
                let modes = [(Mode::SplitBrain, all(*mode))].into();
                let plain = PolicyConfig {
                    authority: AuthorityTable { grades: all(*cluster), ..AuthorityTable::default() },
                    ..PolicyConfig::default()
                };
                let narrowed = PolicyConfig {
                    authority: AuthorityTable { grades: all(*cluster), modes, ..AuthorityTable::default() },
                    ..PolicyConfig::default()
                };
                let of = |policy: &PolicyConfig| policy.authority_of(Mode::SplitBrain, grade, true).0;
                assert!(of(&narrowed) <= of(&plain), "grade {grade:?}: {cluster} for all, {mode} for the mode");
                assert!(grade < Grade::APPROVE || of(&plain) <= Authority::Approve, "{cluster} for grade 6");
            }
        }
    }
}

#[test]
fn figures_that_make_no_sense_are_named() {
    let policy = PolicyConfig { factor: 0.0, ..PolicyConfig::default() };
    assert_eq!(policy.check().expect_err("zero").to_string(), "factor is 0: 1 to 1000 expected");
    assert!(PolicyConfig::of(Profile::Fast).check().is_ok());
}

#[test]
fn limits_of_smart_by_which_one_sample_or_no_read_error_would_empty_a_disk_are_refused() {
    let told = |change: fn(&mut SmartPolicy)| {
        let mut policy = PolicyConfig::default();
        change(&mut policy.smart);
        policy.check().expect_err("refused").to_string()
    };
    assert_eq!(told(|smart| smart.samples = 1), "smart.samples is 1: 2 to 100 expected: one sample is no evidence");
    assert!(told(|smart| smart.errors = 0).contains("SMART alone empties no disk"));
    assert!(told(|smart| smart.percentage_used_degrading = 0).starts_with("smart.percentage_used_degrading is 0"));
    assert!(told(|smart| smart.wear_left_degrading = 100).contains("a new disk has 100 left"));
    assert!(told(|smart| smart.stale_intervals = 1).starts_with("smart.stale_intervals is 1"));
    assert!(told(|smart| smart.errors_within = secs(1)).ends_with("1m to 30d expected"));
    assert!(told(|smart| smart.stale_at_least = Duration::ZERO).starts_with("smart.stale_at_least is 0ns"));
    assert!(told(|smart| smart.command_deadline = secs(3600)).starts_with("smart.command_deadline is 3600s"));
}

#[test]
fn how_long_a_cluster_is_new_is_a_figure_and_a_fourth_start_for_one_crash_is_none() {
    let read = |text: &str| serde_json::from_str::<PolicyConfig>(text).expect("good");
    let week = read(r#"{"authority":{"new_cluster":"7days"}}"#);
    let realign = |age| week.authority_at(Mode::TermDivergence, Grade::REALIGN, true, age).0;
    assert_eq!((realign(secs(6 * 86_400)), realign(secs(7 * 86_400))), (Authority::Shadow, Authority::Auto));
    assert_eq!(read(r#"{"budget":{"same_crash":1}}"#).check(), Ok(()));
    for (text, key) in [
        (r#"{"budget":{"same_crash":4}}"#, "budget.same_crash"),
        (r#"{"budget":{"same_crash":0}}"#, "budget.same_crash"),
        (r#"{"cascades":{"emergency_at":1}}"#, "cascades.emergency_at"),
    ] {
        assert_eq!(read(text).check().expect_err(text).key, key);
    }
}
