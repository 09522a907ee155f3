//! `list`: what there is.

use resilver_host::planted::Bug;
use resilver_sim_check::{Checker, Limits};

use super::Exit;
use super::selftest::hunting_ground;
use crate::cli::PlanArgs;
use crate::scenario;

/// The harness's own rules, which no list of the checker has.
pub(crate) const OWN_RULES: &[(&str, &str)] = &[
    ("enough_shards", "issue 3: never fewer than k good shards while k+1 once existed and faults stayed within bounds"),
    ("no_panic", "a panic is a bug wherever it happens: the product handles what can happen (design.md, Style)"),
    ("heals", "issue 3: faults off, the cluster must converge, serve, and be fully redundant within a bound"),
    ("readable", "issue 3: once it has converged, it serves: reading everything back ends"),
    ("clients_unharmed", "issue 5: losing a peer costs clients nothing (in scenarios that promise it)"),
    (
        "nothing_overdone",
        "issue 5: a busy peer is left alone, and an outage is one incident (in scenarios that promise it)",
    ),
    (
        "treated",
        "issue 7: each mode is found within its bound and recovered from, or rightly refused (in scenarios named after modes)",
    ),
    ("same_trace", "design.md, The seam and simulation: byte-identical from the same seed"),
];

/// Shows scenarios, rules and planted bugs.
pub(crate) fn list() -> Exit {
    println!("Scenarios");
    for scenario in scenario::all() {
        println!("  {:<19} {}", scenario.name, scenario.about);
        println!("  {:<19}   accounted for: {}", "", scenario.accounts);
    }
    println!("\nInvariants, and where they come from");
    let checker = Checker::new(&Limits::default());
    for (name, origin) in
        checker.rules().chain(OWN_RULES.iter().copied()).chain(crate::workload::ORACLE_RULES.iter().copied())
    {
        println!("  {name:<22} {origin}");
    }
    println!("\nPlanted bugs, and the scenario that hunts them");
    for bug in Bug::ALL {
        println!("  {:<24} {}", bug.as_str(), hunting_ground(bug).join(", "));
    }
    Exit::Passed
}

/// Shows a seed's plan.
pub(crate) fn show_plan(args: &PlanArgs) -> anyhow::Result<Exit> {
    let plan = crate::plan::draw(args.seed, args.scenario);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&plan)?);
    } else {
        print!("{plan}");
    }
    Ok(Exit::Passed)
}
