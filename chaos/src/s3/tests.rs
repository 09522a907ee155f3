//! How requests end, against a door that answers from a script.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use resilver_host::Host;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const DEADLINE: Duration = Duration::from_secs(5);

/// What the door does with a request once it has read it.
#[derive(Clone, Copy)]
enum Does {
    Answers(&'static str),
    /// Answers, and then closes the connection without having said so.
    AnswersAndCloses(&'static str),
    Closes,
    Nothing,
}

const OK: &str = "HTTP/1.1 200 OK\r\nETag: \"abc\"\r\nContent-Length: 0\r\n\r\n";

/// A door that serves its script, one line per request, and counts connections. Requests end with their head.
async fn door(script: &'static [Does]) -> (Host, Store, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        let mut script = script.iter();
        'connection: loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let mut head = Vec::new();
            loop {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => continue 'connection,
                }
                if !head.ends_with(b"\r\n\r\n") {
                    continue;
                }
                head.clear();
                match script.next().expect("a request too many") {
                    Does::Answers(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                    Does::AnswersAndCloses(answer) => {
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        continue 'connection;
                    }
                    Does::Closes => continue 'connection,
                    Does::Nothing => std::future::pending().await,
                }
            }
        }
    });
    let host = resilver_host::real::host();
    let store = access(&endpoint).stores(&host, "bucket").unwrap().remove(0);
    (host, store, connections)
}

fn access(endpoint: &str) -> Access {
    Access { endpoints: vec![endpoint.to_owned()], access_key: "RSKEY".to_owned(), secret_key: "secret".to_owned() }
}

async fn put(store: &Store) -> Result<String, S3Error> {
    store.put("key", Content::Whole(Bytes::new()), &Condition::Absent, DEADLINE).await
}

#[tokio::test]
async fn a_connection_is_kept_and_a_closed_one_is_replaced_without_anybody_noticing() {
    let (_host, store, connections) = door(&[Does::Answers(OK), Does::AnswersAndCloses(OK), Does::Answers(OK)]).await;
    assert_eq!(put(&store).await.unwrap(), "abc");
    assert_eq!(put(&store).await.unwrap(), "abc");
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    // The door's goodbye arrives while nobody asks anything.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(put(&store).await.unwrap(), "abc");
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_refusal_is_certain_and_names_its_code() {
    let refused = "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 74\r\n\r\n\
                   <Error><Code>PreconditionFailed</Code><Message>it is there</Message></Error>";
    let (_host, store, _) = door(Box::leak(Box::new([Does::Answers(refused)]))).await;
    let error = put(&store).await.unwrap_err();
    assert!(error.is("PreconditionFailed") && error.certainly_not_done(), "{error}");
}

#[tokio::test]
async fn what_may_have_been_done_is_never_called_a_failure_that_did_nothing() {
    let failed = "HTTP/1.1 503 Slow Down\r\nContent-Length: 35\r\n\r\n<Error><Code>SlowDown</Code></Error>";
    let cut = "HTTP/1.1 200 OK\r\nETag: \"abc\"\r\nContent-Length: 10\r\n\r\nabc";
    let (_host, store, _) =
        door(Box::leak(Box::new([Does::AnswersAndCloses(failed), Does::Closes, Does::AnswersAndCloses(cut)]))).await;
    let error = put(&store).await.unwrap_err();
    assert!(matches!(&error, S3Error::Failed(said) if said.status == 503) && error.is("SlowDown"), "{error}");
    for _ in 0..2 {
        let error = put(&store).await.unwrap_err();
        assert!(matches!(error, S3Error::Broken { .. }) && !error.certainly_not_done(), "{error}");
    }
}

#[tokio::test]
async fn a_door_that_says_nothing_is_not_waited_for() {
    let (_host, store, _) = door(&[Does::Nothing]).await;
    let content = Content::Whole(Bytes::new());
    let error = store.put("key", content, &Condition::Always, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, S3Error::Broken { .. }), "{error}");
}

#[tokio::test]
async fn nobody_listening_is_certainly_not_done() {
    let host = resilver_host::real::host();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let store = access(&endpoint).stores(&host, "bucket").unwrap().remove(0);
    let error = put(&store).await.unwrap_err();
    assert!(matches!(error, S3Error::Unreachable { .. }) && error.certainly_not_done(), "{error}");
    assert!(access("https://127.0.0.1:1").stores(&host, "bucket").is_err(), "no door speaks TLS");
}
