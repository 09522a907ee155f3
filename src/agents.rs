//! Talking to agents over HTTP.
//!
//! Owns: one small client. Must never: interpret what an agent decided; it is shown as it was said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use resilver_host::{Host, Net};
use resilver_proto::web;
use serde_json::Value;

use crate::discover::Found;
use crate::exit::{Code, Failure};

/// How long an agent may take to answer about itself.
const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// How long agents may take for the scores in a list of nodes: as long as such a list waits for nodes (300 ms). A score
/// that comes later is not worth waiting for.
const SCORES_DEADLINE: Duration = Duration::from_millis(300);

/// How long agents may take to say what their disks say of themselves, in a list of disks: as with scores.
const SMART_DEADLINE: Duration = SCORES_DEADLINE;

/// How long a coordinated step may take: lease, slot, restart and its verification.
pub(crate) const STEP_DEADLINE: Duration = Duration::from_secs(120);

/// One agent.
#[derive(Clone)]
pub(crate) struct Agent {
    /// The node it guards.
    pub(crate) name: String,
    address: String,
    net: Arc<dyn Net>,
}

/// What an agent answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// JSON body; null when it was none.
    pub(crate) body: Value,
}

impl Answer {
    /// Whether it did as asked.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The agent's own words about why it did not do something.
    pub(crate) fn reason(&self) -> String {
        let text = |key: &str| self.body.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        match (text("guard"), text("refusal").or(text("error")).or(text("message"))) {
            (Some(guard), Some(reason)) => format!("guard {guard}: {reason}"),
            (None, Some(reason)) => reason.to_owned(),
            (Some(guard), None) => format!("guard {guard}"),
            (None, None) => format!("HTTP status {}", self.status),
        }
    }
}

impl Agent {
    /// The agent beside `name`, at `host:port` or a URL.
    pub(crate) fn at(host: &Host, name: &str, api: &str) -> Agent {
        let address = api.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Agent { name: name.to_owned(), address, net: host.net.clone() }
    }

    /// GET.
    ///
    /// # Errors
    /// A sentence saying that and why it did not answer.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, String> {
        self.call(path, None, CALL_DEADLINE).await
    }

    /// POST of a JSON document.
    ///
    /// # Errors
    /// As [`Agent::get`].
    pub(crate) async fn post(&self, path: &str, body: &Value, deadline: Duration) -> Result<Answer, String> {
        self.call(path, Some(Bytes::from(body.to_string())), deadline).await
    }

    async fn call(&self, path: &str, body: Option<Bytes>, deadline: Duration) -> Result<Answer, String> {
        let (status, body) =
            web::call(&self.net, &self.address, path, body, deadline).await.map_err(|error| error.to_string())?;
        // An error page of something that is no agent is not JSON: the status says enough.
        Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
    }
}

/// All agents of a cluster.
#[derive(Clone)]
pub(crate) struct Agents {
    agents: Vec<Agent>,
}

impl Agents {
    /// The agents `found` names.
    ///
    /// # Errors
    /// [`Code::Usage`] when it names none.
    pub(crate) fn new(host: &Host, found: &Found) -> Result<Agents, Failure> {
        let agents: Vec<Agent> = found
            .members
            .iter()
            .filter_map(|member| member.api.as_deref().map(|api| Agent::at(host, &member.name, api)))
            .collect();
        match agents.is_empty() {
            true => Err(Failure::usage(format!("{} names no agent's HTTP address", found.source.display()))
                .next("add `api: host:port` to the entries of `nodes:`, or a section `agent:`")),
            false => Ok(Agents { agents }),
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Agent] {
        &self.agents
    }

    /// The one beside this node.
    pub(crate) fn beside(&self, node: &str) -> Result<&Agent, Failure> {
        self.agents.iter().find(|agent| agent.name == node).ok_or_else(|| {
            let names: Vec<&str> = self.agents.iter().map(|agent| agent.name.as_str()).collect();
            Failure::usage(format!("no agent beside a node `{node}`")).next(format!("agents: {}", names.join(", ")))
        })
    }

    /// Asks all side by side.
    ///
    /// # Errors
    /// [`Code::Unreachable`] when none answered.
    pub(crate) async fn get_all(&self, path: &str) -> Result<Vec<(String, Result<Value, String>)>, Failure> {
        let answers = join_all(self.agents.iter().map(async |agent| (agent.name.clone(), agent.get(path).await))).await;
        collect(answers, path)
    }

    /// The nodes' scores, as far as agents give them in time.
    pub(crate) async fn scores(&self) -> BTreeMap<String, u8> {
        let ask = async |agent: &Agent| {
            let answer = agent.call("/api/v1/health", None, SCORES_DEADLINE).await.ok().filter(Answer::is_success);
            answer.map(|answer| (agent.name.clone(), answer.body))
        };
        let answers: Vec<(String, Value)> = join_all(self.agents.iter().map(ask)).await.into_iter().flatten().collect();
        merge_scores(&answers)
    }

    /// What the disks say of themselves, by disk, as far as their agents tell it in time. Each agent speaks for the disks of
    /// its own node, and no other one does.
    pub(crate) async fn smart(&self) -> BTreeMap<String, DiskWord> {
        let ask = async |agent: &Agent| {
            let answer = agent.call("/api/v1/smart", None, SMART_DEADLINE).await.ok().filter(Answer::is_success);
            answer.map(|answer| answer.body)
        };
        let answers = join_all(self.agents.iter().map(ask)).await;
        words(&answers.into_iter().flatten().collect::<Vec<Value>>())
    }

    /// Sends to all side by side.
    ///
    /// # Errors
    /// As [`Agents::get_all`].
    pub(crate) async fn post_all(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<Vec<(String, Result<Value, String>)>, Failure> {
        let post = async |agent: &Agent| (agent.name.clone(), agent.post(path, body, CALL_DEADLINE).await);
        collect(join_all(self.agents.iter().map(post)).await, path)
    }
}

/// Each agent knows its own node best. Of a node whose agent is silent the lowest score counts that another one gives: a
/// host that is gone is 0 by all who miss it.
fn merge_scores(answers: &[(String, Value)]) -> BTreeMap<String, u8> {
    let score = |value: Option<&Value>| value.and_then(Value::as_u64).and_then(|score| u8::try_from(score).ok());
    let mut scores = BTreeMap::new();
    for member in answers.iter().flat_map(|(_, body)| body["members"].as_array().into_iter().flatten()) {
        if let (Some(node), Some(score)) = (member["node"].as_str(), score(member.get("score"))) {
            let lowest = scores.entry(node.to_owned()).or_insert(score);
            *lowest = score.min(*lowest);
        }
    }
    for (agent, body) in answers {
        match score(body.pointer("/node/score")) {
            Some(own) => scores.insert(agent.clone(), own),
            None => scores.remove(agent),
        };
    }
    scores
}

/// What a disk says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskWord {
    /// ok | degrading | failing | unknown.
    pub(crate) verdict: String,
    /// Why.
    pub(crate) reasons: Vec<String>,
    /// When it was read, milliseconds since the Unix epoch.
    pub(crate) sampled_ms: Option<u64>,
}

/// An older agent does not know the question, and one that was told of no source lists no disks: nobody says anything then.
fn words(answers: &[Value]) -> BTreeMap<String, DiskWord> {
    let disks = answers.iter().flat_map(|body| body["disks"].as_array().into_iter().flatten());
    let word = |disk: &Value| {
        let reasons = disk["reasons"].as_array().into_iter().flatten();
        let word = DiskWord {
            verdict: disk["verdict"].as_str()?.to_owned(),
            reasons: reasons.filter_map(Value::as_str).map(str::to_owned).collect(),
            sampled_ms: disk["sampled_ms"].as_u64(),
        };
        Some((disk["disk"].as_str()?.to_owned(), word))
    };
    disks.filter_map(word).collect()
}

type Answers = Vec<(String, Result<Value, String>)>;

fn collect(answers: Vec<(String, Result<Answer, String>)>, path: &str) -> Result<Answers, Failure> {
    if answers.iter().all(|(_, answer)| answer.is_err()) {
        let mut message = format!("none of {} agents answered {path}", answers.len());
        for (name, answer) in &answers {
            if let Err(error) = answer {
                message.push_str(&format!("\n  {name}: {error}"));
            }
        }
        return Err(Failure::new(Code::Unreachable, message).next("are the agents running? `resilver agent run`"));
    }
    let read = |answer: Answer| if answer.is_success() { Ok(answer.body) } else { Err(answer.reason()) };
    Ok(answers.into_iter().map(|(name, answer)| (name, answer.and_then(read))).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_disks_word_is_taken_from_whoever_has_one() {
        let told = json!({ "disks": [
            { "disk": "d1", "verdict": "degrading", "reasons": ["8 sectors"], "sampled_ms": 7 },
            { "disk": "d2", "verdict": "unknown", "reasons": [], "sampled_ms": null },
            { "disk": "d3" },
        ] });
        let words = words(&[told, json!({ "error": "no such path" })]);
        assert_eq!(words.keys().collect::<Vec<_>>(), ["d1", "d2"]);
        let first = DiskWord { verdict: "degrading".into(), reasons: vec!["8 sectors".into()], sampled_ms: Some(7) };
        assert_eq!((&words["d1"], words["d2"].sampled_ms), (&first, None));
    }

    #[test]
    fn an_agent_is_believed_about_its_own_node_and_the_others_about_one_that_is_silent() {
        let body = |own: Value, members: Value| json!({ "node": { "score": own }, "members": members });
        let seen =
            json!([{ "node": "n2", "score": 40 }, { "node": "n3", "score": 0 }, { "node": "n4", "score": null }]);
        let answers = [
            ("n1".to_owned(), body(json!(97), seen)),
            ("n2".to_owned(), body(json!(88), json!([{ "node": "n1", "score": 1 }, { "node": "n3", "score": 60 }]))),
        ];
        let scores = merge_scores(&answers);
        assert_eq!(scores, BTreeMap::from([("n1".into(), 97), ("n2".into(), 88), ("n3".into(), 0)]));
        let unjudged = [("n1".to_owned(), json!({ "node": null, "members": [] }))];
        assert!(merge_scores(&unjudged).is_empty(), "an agent that has just begun gives none");
    }
}
