use super::*;
use crate::plan::Cut;

const TABLE: &[Treatment] = &[
    Treatment {
        fault: "memory_short",
        mode: "resource_exhaustion",
        within_s: 48,
        first: &["throttle on"],
        steps: &["throttle on", "throttle off", "step_down"],
        must: &["throttle off"],
        also: &["deadlock"],
        heals: Heals::AfterFault(45),
        ..Treatment::NONE
    },
    Treatment {
        fault: "apart",
        mode: "network_partition",
        found_by: FoundBy::Ends,
        within_s: 18,
        heals: Heals::AfterFault(30),
        ..Treatment::NONE
    },
    Treatment {
        fault: "clock_jump",
        mode: "clock_skew",
        within_s: 36,
        heals: Heals::AfterFault(20),
        ..Treatment::NONE
    },
    Treatment {
        fault: "power_off",
        mode: "host_down",
        found_by: FoundBy::Holder,
        within_s: 34,
        first: &["none"],
        heals: Heals::AfterFault(30),
        ..Treatment::NONE
    },
];

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn struck(fault: Fault, machines: &[&str]) -> Vec<Struck> {
    let machines = machines.iter().map(|name| (*name).to_owned()).collect();
    vec![Struck { fault, machines, from: secs(10), until: secs(70) }]
}

fn short() -> Vec<Struck> {
    struck(Fault::MemoryShort { left_permille: 20 }, &["n2"])
}

fn incident(agent: &str, mode: &str, about: &str, opened: u64, resolved: Option<u64>) -> Incident {
    Incident {
        agent: agent.to_owned(),
        id: format!("{mode}-1"),
        mode: mode.to_owned(),
        about: [about.to_owned()].into(),
        evidence: String::new(),
        opened: secs(opened),
        resolved: resolved.map(secs),
    }
}

fn step(agent: &str, what: &str, target: &str, disruptive: bool) -> Done {
    Done {
        at: secs(55),
        agent: agent.to_owned(),
        incident: Some("resource_exhaustion-1".to_owned()),
        what: what.to_owned(),
        target: target.to_owned(),
        disruptive,
    }
}

fn treated() -> Chart {
    let steps = vec![step("n2", "throttle on", "n2", false), step("n2", "throttle off", "n2", false)];
    Chart { incidents: vec![incident("n2", "resource_exhaustion", "n2", 52, Some(90))], steps, ..Chart::default() }
}

fn judge(struck: &[Struck], chart: &Chart) -> Option<String> {
    untreated(TABLE, struck, chart, &mut Coverage::default())
}

#[test]
fn what_is_found_in_time_and_treated_by_its_ladder_is_well() {
    let mut seen = Coverage::default();
    assert_eq!(untreated(TABLE, &short(), &treated(), &mut seen), None);
    assert_eq!(seen.get("treated.resource_exhaustion"), 1);
    assert_eq!(seen.get("treated.resource_exhaustion.found_ms"), 42_000);
    assert_eq!(seen.get("treated.resource_exhaustion.healed_ms"), 20_000);
    let hollow = judge(&[], &treated()).expect("a fault that found no target proves nothing");
    assert!(hollow.contains("nothing to find"), "{hollow}");
}

#[test]
fn what_is_not_found_or_late_or_never_over_is_told() {
    let told = |change: &dyn Fn(&mut Incident)| {
        let mut chart = treated();
        change(&mut chart.incidents[0]);
        judge(&short(), &chart).expect("something is wrong")
    };
    assert!(judge(&short(), &Chart::default()).expect("nothing found").contains("found no resource_exhaustion"));
    assert!(told(&|found| found.opened = secs(60)).contains("after 50 s, 48 s expected"));
    assert!(told(&|found| found.agent = "n3".to_owned()).contains("the agent of n2 found no"));
    assert!(told(&|found| found.about = ["n3".to_owned()].into()).contains("is about"));
    assert!(told(&|found| found.resolved = None).contains("was never resolved"));
    assert!(told(&|found| found.resolved = Some(secs(120))).contains("5.0 s too late"));
}

#[test]
fn a_step_that_is_not_the_ladders_or_of_somebody_else_is_told() {
    let with = |extra: Done| {
        let mut chart = treated();
        chart.steps.push(extra);
        judge(&short(), &chart)
    };
    assert_eq!(with(step("n2", "step_down", "n2", true)), None, "disruptive, and of this ladder");
    assert!(with(step("n2", "restart_node", "n2", true)).is_some());
    assert!(with(step("n2", "step_down", "n3", true)).expect("elsewhere").contains("nothing was wrong there"));
    let mut first = treated();
    first.steps.remove(0);
    assert!(judge(&short(), &first).expect("no first step").contains("the first step"));
    let mut kept = treated();
    kept.steps.pop();
    assert!(judge(&short(), &kept).expect("not taken back").contains("throttle off was never done"));
}

#[test]
fn an_incident_that_nothing_was_made_for_is_told() {
    let with = |extra: Incident| {
        let mut chart = treated();
        chart.incidents.push(extra);
        judge(&short(), &chart)
    };
    assert_eq!(with(incident("n2", "deadlock", "n2", 60, Some(80))), None, "it shows as that, too");
    assert!(with(incident("n3", "resource_exhaustion", "n3", 60, Some(80))).is_some(), "of another machine");
    assert!(with(incident("n2", "disk_failure", "n2", 60, Some(80))).is_some());
}

#[test]
fn both_ends_of_a_cut_must_name_the_other_one() {
    let struck = struck(Fault::Apart { other: 5, cut: Cut::Both }, &["n2", "n5"]);
    let found = |about: &str| {
        let incidents = vec![
            incident("n2", "network_partition", "n5", 24, Some(80)),
            incident("n5", "network_partition", about, 25, Some(80)),
        ];
        Chart { incidents, ..Chart::default() }
    };
    assert_eq!(judge(&struck, &found("n2")), None);
    assert!(judge(&struck, &found("n4")).expect("it blames another one").contains("is about"));
    let mut one = found("n2");
    one.incidents.pop();
    assert!(judge(&struck, &one).expect("one saw nothing").contains("the agent of n5 found no"));
}

#[test]
fn whoever_held_the_lease_must_find_a_host_that_is_down() {
    let struck = struck(Fault::PowerOff, &["n2"]);
    let found = |agent: &str, about: &str| {
        let incidents = vec![incident(agent, "host_down", about, 25, Some(80))];
        judge(&struck, &Chart { incidents, ..Chart::default() })
    };
    assert_eq!((found("n3", "n2"), found("n6", "n2")), (None, None));
    assert!(found("n3", "n4").expect("it blames another one").contains("is about"));
    assert!(found("n2", "n2").expect("itself").contains("whoever holds the lease found no"));
    assert!(judge(&struck, &Chart::default()).expect("nobody did").contains("whoever holds the lease found no"));
}

#[test]
fn nothing_may_be_done_only_where_the_table_says_so() {
    let gone = struck(Fault::PowerOff, &["n2"]);
    let chart = Chart { incidents: vec![incident("n3", "host_down", "n2", 25, Some(80))], ..Chart::default() };
    assert_eq!(judge(&gone, &chart), None);
    let mut idle = treated();
    idle.steps.clear();
    assert!(judge(&short(), &idle).expect("it had to act").contains("the first step"));
}

#[test]
fn nobody_holds_the_lease_with_a_clock_that_is_far_off() {
    let far = struck(Fault::ClockJump { by_ms: -800 }, &["n2"]);
    let near = struck(Fault::ClockJump { by_ms: 300 }, &["n2"]);
    let held = |leases: &[(u64, &str, bool)]| Chart {
        incidents: vec![incident("n2", "clock_skew", "n2", 41, Some(75))],
        leases: leases.iter().map(|(at, who, got)| (secs(*at), (*who).to_owned(), *got)).collect(),
        ..Chart::default()
    };
    assert_eq!(judge(&far, &held(&[(1, "n2", true), (45, "n2", false), (47, "n3", true)])), None);
    assert_eq!(judge(&far, &held(&[(1, "n2", true), (45, "n3", true), (72, "n2", true)])), None, "it is right again");
    assert!(judge(&far, &held(&[(1, "n2", true)])).is_some(), "kept");
    assert!(judge(&far, &held(&[(1, "n3", true), (60, "n2", true)])).is_some(), "taken");
    assert_eq!(judge(&near, &held(&[(1, "n2", true)])), None, "told only");
}
