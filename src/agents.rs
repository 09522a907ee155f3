//! Talking to agents over HTTP.
//!
//! Owns: one small client. Must never: interpret what an agent decided; it is shown as it was said.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::discover::Found;
use crate::exit::{Code, Failure};

/// How long an agent may take to answer about itself.
const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// How long a coordinated step may take: lease, slot, restart and its verification.
pub(crate) const STEP_DEADLINE: Duration = Duration::from_secs(120);

/// The longest answer that is taken: a page of journal records has a few hundred kilobytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// One agent.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    /// The node it guards.
    pub(crate) name: String,
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What an agent answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// JSON body; null when it was none.
    pub(crate) body: Value,
}

impl Answer {
    /// The agent's own words about why it did not do something.
    pub(crate) fn reason(&self) -> String {
        let text = |key: &str| self.body.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        match (text("guard"), text("refusal").or(text("error")).or(text("message"))) {
            (Some(guard), Some(reason)) => format!("guard {guard}: {reason}"),
            (None, Some(reason)) => reason.to_owned(),
            (Some(guard), None) => format!("guard {guard}"),
            (None, None) => format!("HTTP {}", self.status),
        }
    }
}

impl Agent {
    /// GET.
    ///
    /// # Errors
    /// A sentence saying that and why it did not answer.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, String> {
        self.call(Method::GET, path, Bytes::new(), CALL_DEADLINE).await
    }

    /// POST of a JSON document.
    ///
    /// # Errors
    /// As [`Agent::get`].
    pub(crate) async fn post(&self, path: &str, body: &Value, deadline: Duration) -> Result<Answer, String> {
        self.call(Method::POST, path, Bytes::from(body.to_string()), deadline).await
    }

    /// GET of a stream that does not end by itself.
    ///
    /// # Errors
    /// As [`Agent::get`]; any status but 200 counts as no answer.
    pub(crate) async fn stream(&self, path: &str) -> Result<Incoming, String> {
        let request = self.request(Method::GET, path, Bytes::new())?;
        match tokio::time::timeout(CALL_DEADLINE, self.client.request(request)).await {
            Ok(Ok(response)) if response.status() == StatusCode::OK => Ok(response.into_body()),
            Ok(Ok(response)) => Err(format!("HTTP {}", response.status())),
            Ok(Err(error)) => Err(innermost(&error)),
            Err(_) => Err(format!("no answer within {}", humantime::format_duration(CALL_DEADLINE))),
        }
    }

    async fn call(&self, method: Method, path: &str, body: Bytes, deadline: Duration) -> Result<Answer, String> {
        let request = self.request(method, path, body)?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| innermost(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| format!("its answer broke off: {error}"))?.to_bytes();
            // An error page of something that is no agent is not JSON: the status says enough.
            Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
        };
        let late = |_| Err(format!("no answer within {}", humantime::format_duration(deadline)));
        tokio::time::timeout(deadline, exchange).await.unwrap_or_else(late)
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| format!("{} is no address: {error}", self.base))
    }
}

/// All agents of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Agents {
    agents: Vec<Agent>,
}

impl Agents {
    /// The agents `found` names.
    ///
    /// # Errors
    /// [`Code::Usage`] when it names none.
    pub(crate) fn new(found: &Found) -> Result<Agents, Failure> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let agent = |name: &str, api: &str| Agent { name: name.to_owned(), base: base(api), client: client.clone() };
        let agents: Vec<Agent> = found
            .members
            .iter()
            .filter_map(|member| member.api.as_deref().map(|api| agent(&member.name, api)))
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
    let read = |answer: Answer| if answer.status.is_success() { Ok(answer.body) } else { Err(answer.reason()) };
    Ok(answers.into_iter().map(|(name, answer)| (name, answer.and_then(read))).collect())
}

/// `host:port` or a URL, as an address to put paths behind.
fn base(api: &str) -> String {
    let api = api.trim_end_matches('/');
    if api.contains("://") { api.to_owned() } else { format!("http://{api}") }
}

/// The cause at the end of the chain: "Connection refused" says more than "client error (Connect)".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
