//! `node health`: scores with their reasons, and what is expected.
//!
//! Must never: judge. What an agent says is shown as it said it; whose word it is, too.

use std::fmt::Write;

use serde_json::{Value, json};

use super::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{Table, UNKNOWN, with_rfc3339};

const HEALTH: &str = "/api/v1/health";
const PREDICTIONS: &str = "/api/v1/predictions";

/// Of one node, or of the cluster and all its nodes.
pub(crate) async fn health(cx: &Context, node: Option<&str>) -> Result<Code, Failure> {
    match node {
        Some(node) => one(cx, node).await,
        None => all(cx).await,
    }
}

async fn one(cx: &Context, node: &str) -> Result<Code, Failure> {
    cx.found().await?.member(node)?;
    let agents = cx.agents().await?;
    let agent = agents.beside(node)?;
    let silent = |error: String| {
        Failure::new(Code::Unreachable, format!("the agent of {node} does not answer: {error}"))
            .next("what the others know of it: `resilver node health`")
    };
    let (health, predictions) = tokio::join!(agent.get(HEALTH), agent.get(PREDICTIONS));
    let (health, predictions) = (health.map_err(silent)?, predictions.map_err(silent)?);
    if !health.is_success() {
        let message = format!("the agent of {node} does not say how it is: {}", health.reason());
        return Err(Failure::failed(message).next("an agent of an older version keeps no scores"));
    }
    let view = json!({
        "node": node,
        "health": health.body.get("node"),
        "predictions": predictions.body.get("predictions"),
    });
    cx.out.show(&with_rfc3339(view.clone()), |_| {
        let mut text = score_text(&format!("node {node}"), &view["health"]);
        text.push_str(&predictions_text(&[(node.to_owned(), view["predictions"].clone())]));
        text
    })?;
    Ok(Code::Ok)
}

async fn all(cx: &Context) -> Result<Code, Failure> {
    let agents = cx.agents().await?;
    let (health, predictions) = tokio::join!(agents.get_all(HEALTH), agents.get_all(PREDICTIONS));
    let answers: Vec<Value> = health?.into_iter().filter_map(|(_, answer)| answer.ok()).collect();
    let expected: Vec<(String, Value)> = predictions?
        .into_iter()
        .filter_map(|(node, answer)| answer.ok().map(|body| (node, body["predictions"].clone())))
        .collect();
    let Some(seen) = best_placed(&answers) else {
        return Err(
            Failure::failed("no agent says how the cluster is").next("agents of an older version keep no scores")
        );
    };
    let predictions: Vec<Value> = expected
        .iter()
        .flat_map(|(node, list)| list.as_array().into_iter().flatten().map(move |expected| (node, expected)))
        .map(|(node, expected)| {
            let mut expected = expected.clone();
            expected["node"] = json!(node);
            expected
        })
        .collect();
    let mut view = json!({
        "seen_by": seen["seen_by"],
        "health": seen["cluster"],
        "members": seen["members"],
        "predictions": predictions,
    });
    if let Some(partial) = seen.get("partial") {
        view["partial"] = partial.clone();
    }
    cx.out.show(&with_rfc3339(view.clone()), |_| {
        let by = seen["seen_by"].as_str().unwrap_or(UNKNOWN);
        let mut text = score_text(&format!("cluster, as the agent of {by} sees it"), &view["health"]);
        text.push_str(&partial_text(by, &view));
        text.push('\n');
        text.push_str(&members_text(&view["members"]));
        text.push_str(&predictions_text(&expected));
        text
    })?;
    Ok(Code::Ok)
}

/// Whose word on the cluster is shown: of one that asks everybody before one that asks some, and of these that of the agent whose
/// own node is best. One that is cut off sees everybody dead.
fn best_placed(answers: &[Value]) -> Option<&Value> {
    let own = |answer: &Value| answer.pointer("/node/score").and_then(Value::as_u64);
    answers.iter().filter(|answer| answer["cluster"].is_object()).max_by_key(|answer| {
        (answer["partial"].is_null(), own(answer), answer.pointer("/cluster/score").and_then(Value::as_u64))
    })
}

fn in_words(millis: u64) -> String {
    resilver_strategies::predict::in_words(std::time::Duration::from_millis(millis))
}

fn number(value: &Value) -> String {
    value.as_f64().map_or_else(|| UNKNOWN.to_owned(), |number| format!("{number:.1}"))
}

fn words(value: &Value) -> String {
    value.as_str().unwrap_or(UNKNOWN).to_owned()
}

fn score_text(of: &str, health: &Value) -> String {
    let Some(score) = health.get("score").and_then(Value::as_u64) else {
        return format!("{of}: not judged yet\n");
    };
    let mut text = format!("{of}: {score} of 100\n");
    for ceiling in health["ceilings"].as_array().into_iter().flatten() {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "  at most {}: {}", ceiling["at_most"], words(&ceiling["why"]));
    }
    let mut table = Table::new(["COMPONENT", "LOST", "OF", "WHY"]);
    for reason in health["reasons"].as_array().into_iter().flatten() {
        let evidence: Vec<&str> =
            reason["evidence"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        table.row([
            words(&reason["component"]),
            number(&reason["points_lost"]),
            number(&reason["points"]),
            evidence.join("; "),
        ]);
    }
    text.push('\n');
    text.push_str(&table.render());
    text
}

/// That an answer is about some of the cluster only; empty: it is about all.
pub(super) fn partial_text(agent: &str, answer: &Value) -> String {
    let count = |key| answer["partial"][key].as_u64();
    let Some((asked, of)) = count("asked").zip(count("of")) else { return String::new() };
    format!("{agent} asks {asked} of {of} others: only the holder of the lease asks all in a cluster of this size\n")
}

fn members_text(members: &Value) -> String {
    let mut table = Table::new(["NODE", "SCORE", "STANDING", "PING_MS", "UNANSWERED"]);
    for member in members.as_array().into_iter().flatten() {
        let count = |key: &str| member[key].as_u64().map_or_else(|| UNKNOWN.to_owned(), |count| count.to_string());
        table.row([
            words(&member["node"]),
            count("score"),
            words(&member["standing"]),
            number(&member["ping_ms"]),
            count("pings_unanswered"),
        ]);
    }
    table.render()
}

fn predictions_text(expected: &[(String, Value)]) -> String {
    let mut table = Table::new(["EXPECTED", "NODE", "SUBJECT", "IN", "CONFIDENCE", "WHY"]);
    let mut any = false;
    for (node, list) in expected {
        for one in list.as_array().into_iter().flatten() {
            any = true;
            table.row([
                words(&one["kind"]),
                node.clone(),
                words(&one["subject"]),
                one["expected_in_ms"].as_u64().map_or_else(|| UNKNOWN.to_owned(), in_words),
                one["confidence"].as_f64().map_or_else(|| UNKNOWN.to_owned(), |share| format!("{share:.2}")),
                words(&one["evidence"]),
            ]);
        }
    }
    if any { format!("\n{}", table.render()) } else { "\nnothing is expected to run out\n".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_shown_with_what_holds_it_down_and_what_costs() {
        let health = json!({
            "score": 20,
            "ceilings": [{ "at_most": 20, "why": "it runs and left 5 questions unanswered" }],
            "reasons": [{ "component": "disk_health", "points": 20.0, "points_lost": 12.5, "judged": true,
                          "evidence": ["3 of 4 disks well", "d2 has failed"] }],
        });
        let expected = "node n1: 20 of 100\n  at most 20: it runs and left 5 questions unanswered\n\n\
                        COMPONENT    LOST  OF    WHY\ndisk_health  12.5  20.0  3 of 4 disks well; d2 has failed\n";
        assert_eq!(score_text("node n1", &health), expected);
        assert_eq!(score_text("node n1", &Value::Null), "node n1: not judged yet\n");
    }

    #[test]
    fn what_is_expected_is_listed_and_nothing_is_said_to_be_nothing() {
        let list = json!([{ "kind": "disk_full", "subject": "d1", "expected_in_ms": 90_000_000, "confidence": 0.81,
                            "evidence": "it fills" }]);
        let text = predictions_text(&[("n1".to_owned(), list)]);
        assert_eq!(
            text,
            "\nEXPECTED   NODE  SUBJECT  IN    CONFIDENCE  WHY\ndisk_full  n1    d1       1d1h  0.81        it fills\n"
        );
        assert_eq!(predictions_text(&[("n1".to_owned(), json!([]))]), "\nnothing is expected to run out\n");
    }

    #[test]
    fn the_word_of_an_agent_that_is_cut_off_is_not_the_one_that_is_shown() {
        let answer = |node: u64, cluster: u64| json!({ "node": { "score": node }, "cluster": { "score": cluster } });
        let answers = [answer(55, 0), answer(100, 60), json!({ "node": null, "cluster": null })];
        assert_eq!(best_placed(&answers).unwrap()["cluster"]["score"], 60);
        assert!(best_placed(&[]).is_none());
    }

    #[test]
    fn the_word_of_one_that_asks_everybody_is_shown_before_that_of_one_that_asks_some() {
        let some =
            json!({ "node": { "score": 100 }, "cluster": { "score": 100 }, "partial": { "asked": 38, "of": 199 } });
        let all = json!({ "node": { "score": 90 }, "cluster": { "score": 50 } });
        assert_eq!(best_placed(&[some.clone(), all.clone()]).unwrap()["cluster"]["score"], 50);
        assert_eq!(
            partial_text("n7", &some),
            "n7 asks 38 of 199 others: only the holder of the lease asks all in a cluster of this size\n"
        );
        assert_eq!(partial_text("n7", &all), "");
    }
}
