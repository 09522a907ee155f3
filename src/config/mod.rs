//! `resilver.yaml`: one file per host, for its node and its agent.
//!
//! Owns: the composition of what the crates let an operator set, where relative paths start, and the checks that need
//! more than one key. Must never: hold a default of its own for a value that a crate owns.
//!
//! Invariant: a file that [`check`] accepts can be run; one that it refuses is refused before anything was touched.

mod check;
mod load;
mod sensors;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use resilver_agent::options::{Invocation, Launch, Options as AgentOptions, Peer};
use resilver_host::Host;
use resilver_node::options::Options as NodeOptions;
use resilver_strategies::config::{
    AuthorityTable, Budget, Cascades, ClockPolicy, CorruptionPolicy, DamagePolicy, DeadlockPolicy, Detection,
    DiskPolicy, HealthPolicy, HostPolicy, LagPolicy, PartitionPolicy, PolicyConfig, Profile, QuorumPolicy, Recovery,
    ReplicaPolicy, ResourcePolicy, SmartPolicy, SplitBrainPolicy, Storm, TermPolicy, TrendPolicy,
};
use resilver_strategies::types::Mode;
use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

pub(crate) use self::check::interval as check_interval;
#[cfg(test)]
pub(crate) use self::load::parse;
use crate::exit::Failure;

/// Everything `resilver.yaml` may say.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Which figures apply: `production`, or `fast` (policy times divided by 60; for tests and demonstrations).
    pub(crate) profile: Profile,
    /// This host's storage node.
    pub(crate) node: Option<NodeOptions>,
    /// This host's recovery agent.
    pub(crate) agent: Option<AgentOptions>,
    /// All members of the cluster: there is no discovery yet. The agents hold their lease among these.
    pub(crate) nodes: Vec<Peer>,
    /// Starting and restarting the node.
    pub(crate) recovery: Recovery,
    /// When something counts as seen. Never scaled by a profile.
    pub(crate) detection: Detection,
    /// Waits and limits for a failing disk.
    pub(crate) disk: DiskPolicy,
    /// What SMART's counters mean, and when a degrading disk is emptied (where they are read: `agent.smart`). Never scaled by a
    /// profile.
    pub(crate) smart: SmartPolicy,
    /// Waits and limits for damaged shards.
    pub(crate) corruption: CorruptionPolicy,
    /// Waits and limits for a host that is gone.
    pub(crate) host: HostPolicy,
    /// Waits and limits for a network that is cut.
    pub(crate) partition: PartitionPolicy,
    /// Waits and limits for a node that lost its vote by damage.
    pub(crate) damage: DamagePolicy,
    /// Waits and limits for two leaders.
    pub(crate) split_brain: SplitBrainPolicy,
    /// Waits and limits for a term that runs away.
    pub(crate) terms: TermPolicy,
    /// Waits and limits for a member whose metadata differs.
    pub(crate) replicas: ReplicaPolicy,
    /// Waits and limits for a node that does not get on, and for locks that are held too long.
    pub(crate) deadlock: DeadlockPolicy,
    /// Waits and limits for a host that runs full.
    pub(crate) resources: ResourcePolicy,
    /// Waits and limits for a follower that lags.
    pub(crate) lag: LagPolicy,
    /// Limits for a clock that is wrong.
    pub(crate) clock: ClockPolicy,
    /// Waits and limits for a quorum that is lost.
    pub(crate) quorum: QuorumPolicy,
    /// A step that a guard holds back for so long is told to a person, once; 10m by default. Scaled by the profile.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(crate) told_when_held: Option<Duration>,
    /// No disruptive step this long after the agent's start or a leader change; 60s by default. Scaled by the profile.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(crate) grace: Option<Duration>,
    /// Work of grade 5 waits while this many client operations are in flight on the node; 256 by default.
    pub(crate) pressure_operations: Option<u64>,
    /// Nor begins while clients take more than so many percent of the time of one of the node's disks; 80 by default.
    pub(crate) pressure_percent: Option<u32>,
    /// How often at most.
    pub(crate) budget: Budget,
    /// When disruptive steps freeze because too much fails at once.
    pub(crate) storm: Storm,
    /// Patterns in which one failure drags others along, beside the three that ship. Never scaled by a profile.
    pub(crate) cascades: Cascades,
    /// How health scores are weighed, and when a low one is recorded. Never scaled by a profile.
    pub(crate) health: HealthPolicy,
    /// When what trends lead to is recorded. Never scaled by a profile.
    pub(crate) trends: TrendPolicy,
    /// What the agent may do without asking; over the profile's table.
    pub(crate) authority: Option<AuthorityTable>,
    /// How often the slow sensors look, 10m by default: SMART (`agent.smart`), and the comparison of the members' metadata. Detection periods have keys of
    /// their own (`detection`, `node.scrub`, `node.repair`), and so have trends. Never scaled by a profile.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(crate) interval: Option<Duration>,
    /// Which policy heals a mode. Only `builtin` today: policies in Lua are not loaded by this version.
    pub(crate) strategies: BTreeMap<Mode, Strategy>,
}

/// Where a mode's ladder comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Strategy {
    /// The one that ships with the agent.
    #[default]
    Builtin,
}

/// By hand, for the message: a policy's name is a word of the operator's own, no misspelt `builtin`.
impl<'de> Deserialize<'de> for Strategy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "builtin" => Ok(Self::Builtin),
            policy => Err(D::Error::custom(format!(
                "there is no policy `{policy}`: this version heals by `builtin` alone and loads no Lua"
            ))),
        }
    }
}

/// Reads a configuration, lets relative paths start at its folder, and checks it.
///
/// # Errors
/// `Code::Usage` with place, cause and next step.
pub(crate) async fn load(host: &Host, path: &Path) -> Result<Config, Failure> {
    let mut config: Config = load::load(host, path).await?;
    let named = |error: std::io::Error| Failure::usage(format!("{} is no usable path: {error}", path.display()));
    config.anchor(&std::path::absolute(load::base_of(path)).map_err(named)?);
    check::check(&config).map_err(|failure| prefixed(path, failure))?;
    Ok(config)
}

fn prefixed(path: &Path, mut failure: Failure) -> Failure {
    failure.message = format!("{}: {}", path.display(), failure.message);
    failure
}

/// The JSON schema of the file, for editors.
pub(crate) fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}

impl Config {
    /// Lets every relative path start at `base`.
    fn anchor(&mut self, base: &Path) {
        let anchor = |path: &mut PathBuf| *path = base.join(&*path);
        if let Some(node) = &mut self.node {
            anchor(&mut node.data_dir);
            node.disks.iter_mut().for_each(anchor);
        }
        if let Some(agent) = &mut self.agent {
            anchor(&mut agent.dir);
            if let Some(gossip) = &mut agent.gossip {
                anchor(&mut gossip.key_file);
            }
            if let Some(smart) = &mut agent.smart {
                smart.folder.iter_mut().for_each(anchor);
                let devices = std::mem::take(&mut smart.devices);
                smart.devices = devices.into_iter().map(|(disk, device)| (base.join(disk), device)).collect();
            }
        }
        if let Some(dir) = &mut self.recovery.dir {
            let path = base.join(&*dir);
            *dir = path.to_string_lossy().into_owned();
            if let Some(node) = &mut self.node {
                node.aside = Some(path);
            }
        }
    }

    /// The figures the agent decides by.
    pub(crate) fn policy(&self) -> PolicyConfig {
        let profile = PolicyConfig::of(self.profile);
        let authority = match &self.authority {
            None => profile.authority.clone(),
            Some(given) => {
                let mut authority = given.clone();
                // The profile's answer for every grade stands behind what the file names one by one.
                authority.grades.all = authority.grades.all.or(profile.authority.grades.all);
                authority
            }
        };
        PolicyConfig {
            recovery: self.recovery.clone(),
            detection: self.detection.clone(),
            disk: self.disk.clone(),
            smart: self.smart.clone(),
            corruption: self.corruption.clone(),
            host: self.host.clone(),
            partition: self.partition.clone(),
            damage: self.damage.clone(),
            split_brain: self.split_brain.clone(),
            terms: self.terms.clone(),
            replicas: self.replicas.clone(),
            deadlock: self.deadlock.clone(),
            resources: self.resources.clone(),
            lag: self.lag.clone(),
            clock: self.clock.clone(),
            quorum: self.quorum.clone(),
            told_when_held: self.told_when_held.unwrap_or(profile.told_when_held),
            grace: self.grace.unwrap_or(profile.grace),
            pressure_operations: self.pressure_operations.unwrap_or(profile.pressure_operations),
            pressure_percent: self.pressure_percent.unwrap_or(profile.pressure_percent),
            budget: self.budget.clone(),
            storm: self.storm.clone(),
            cascades: self.cascades.clone(),
            health: self.health.clone(),
            trends: self.trends.clone(),
            authority,
            ..profile
        }
    }

    /// The node's part.
    ///
    /// # Errors
    /// `Code::Usage` when the file has none.
    pub(crate) fn node_options(self, path: &Path) -> Result<NodeOptions, Failure> {
        self.node.ok_or_else(|| {
            Failure::usage(format!("{} has no section `node:`", path.display()))
                .next("add one with name, address, http, data_dir and disks; see `resilver config schema`")
        })
    }

    /// The agent's part, with what stands elsewhere in the file and what only the command knows: how a node is started.
    ///
    /// # Errors
    /// `Code::Usage` when the file has none.
    pub(crate) fn agent_options(self, path: &Path, binary: &Path) -> Result<AgentOptions, Failure> {
        let policy = self.policy();
        let rack = self.node.as_ref().map(|node| node.location.rack.clone()).unwrap_or_default();
        let mut agent = self.agent.ok_or_else(|| {
            Failure::usage(format!("{} has no section `agent:`", path.display()))
                .next("add one with name, node_address, address, http and dir; see `resilver config schema`")
        })?;
        let named = |error: std::io::Error| Failure::usage(format!("{} is no usable path: {error}", path.display()));
        let config = std::path::absolute(path).map_err(named)?;
        let invocation = |args: &[&str]| Invocation {
            program: binary.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        };
        agent.launch = Launch {
            keeper: invocation(&["keeper"]),
            node: invocation(&["node", "run", "--config", &config.to_string_lossy()]),
            log: agent.dir.parent().unwrap_or(&agent.dir).join("node.log"),
        };
        agent.interval = self.interval.unwrap_or(agent.interval);
        agent.peers = self.nodes;
        agent.rack = rack;
        agent.policy = policy;
        Ok(agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the profile sets by itself.
    const OF_THE_PROFILE: [&str; 1] = ["factor"];

    #[test]
    fn every_figure_of_the_policy_can_be_written_in_the_file() {
        let figures = serde_json::to_value(PolicyConfig::default()).expect("figures are JSON");
        for (key, default) in figures.as_object().expect("an object") {
            if OF_THE_PROFILE.contains(&key.as_str()) {
                continue;
            }
            let text = serde_json::json!({ key: default }).to_string();
            let config: Config = parse(Path::new("resilver.yaml"), &text)
                .unwrap_or_else(|failure| panic!("{key} is refused: {}", failure.message));
            assert_eq!(config.policy(), PolicyConfig::default(), "{key}");
        }
    }

    #[test]
    fn figures_of_the_modes_reach_the_agents_policy() {
        let text = "deadlock: { lock_limit: 7s }\nlag: { entries: 9 }\ngrace: 3s\npressure_percent: 50\n\
                    smart: { samples: 3, reallocated_failing: 7 }\n";
        let policy = parse::<Config>(Path::new("resilver.yaml"), text).expect("accepted").policy();
        assert_eq!((policy.deadlock.lock_limit, policy.grace), (Duration::from_secs(7), Duration::from_secs(3)));
        assert_eq!((policy.lag.entries, policy.pressure_percent), (9, 50));
        assert_eq!((policy.smart.samples, policy.smart.reallocated_failing), (3, 7));
        assert_eq!(policy.deadlock.stuck_after, PolicyConfig::default().deadlock.stuck_after);
    }
}
