//! Connections and limits: who does nothing takes nothing from others.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_make_room_for_those_who_ask() {
    let stage = Stage::with(S3Options { max_connections: 50, ..S3Options::at("127.0.0.1:0") }).await;
    let address = stage.client.address;
    let mut idle = Vec::new();
    for number in 0..400 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if number % 2 == 0 {
            // Half of them have begun a head that will never end.
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow:").await.unwrap();
        }
        idle.push(stream);
    }
    stage.put("/test/a", b"served").await.ok();
    assert_eq!(stage.get("/test/a").await.ok().body, b"served");
    let open = stage.door.counts().connections.load(std::sync::atomic::Ordering::Relaxed);
    assert!(open <= 50, "{open} connections");
    // The first ones were closed to make room.
    let mut byte = [0];
    let closed = tokio::time::timeout(Duration::from_secs(5), idle[0].read(&mut byte)).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)));
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_and_requests_have_their_limits() {
    let stage = Stage::with(S3Options { max_requests_per_key: 1, ..S3Options::at("127.0.0.1:0") }).await;
    let client = &stage.client;

    // More headers than there may be; and a head without end is cut off.
    let many = Request::new("GET", "/").header("x-padding", "x".repeat(20_000));
    client.send(many).await.refused(400, "RequestHeaderSectionTooLarge");
    let mut endless = TcpStream::connect(client.address).await.unwrap();
    let _ = endless.write_all(b"GET / HTTP/1.1\r\n").await;
    let mut sent = 0;
    while endless.write_all(format!("x-{sent}: {}\r\n", "y".repeat(500)).as_bytes()).await.is_ok() && sent < 1000 {
        sent += 1;
    }
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), endless.read_to_end(&mut answer)).await.expect("cut off");

    // One request of a key at a time, here: the second is told to come again, and somebody else is served.
    let slow = Request::new("PUT", "/test/slow").body(vec![0; 100_000]);
    let (head, _) = client.head(&slow);
    let mut stream = TcpStream::connect(client.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[0; 1000]).await.unwrap();
    let operations = stage.cluster.node(0).gateway.operations();
    crate::testing::until("the upload has begun", async || operations.in_flight() > 0).await;
    let refused = client.send(Request::new("GET", "/")).await.refused(503, "SlowDown");
    assert_eq!(refused.headers["retry-after"], "1");
    let other = stage.client_with("test", Some(Grant { read: true, ..Grant::default() })).await;
    other.send(Request::new("GET", "/")).await.ok();
    stream.write_all(&vec![0; 99_000]).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_door_is_no_silent_one() {
    let stage = Stage::with(S3Options { max_connections: 1, ..S3Options::at("127.0.0.1:0") }).await;
    let net = resilver_host::real::host().net;
    stage.door.answers(&net).await.unwrap();
    // The one connection there may be is at work for as long as its client likes.
    let (head, _) = stage.client.head(&Request::new("PUT", "/test/slow").body(vec![0; 100_000]));
    let mut stream = TcpStream::connect(stage.client.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[0; 1000]).await.unwrap();
    let operations = stage.cluster.node(0).gateway.operations();
    crate::testing::until("the upload has begun", async || operations.in_flight() > 0).await;
    // Its own node is refused as anybody is. That is the limit's word, and the door's.
    stage.door.answers(&net).await.unwrap();
    assert_eq!(stage.door.counts().refused.load(std::sync::atomic::Ordering::Relaxed), 1);
    drop(stream);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_not_verified_says_so_to_everybody() {
    let phase = PhaseCell::new();
    let door = Door::new(S3Options::at("127.0.0.1:0"), phase.clone());
    let listener = resilver_host::real::host().net.bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(door.run(listener, stopping));
    let client = Client {
        address,
        id: "RSAAAAAAAAAAAAAAAAAA".to_owned(),
        secret: "secret".to_owned(),
        region: "us-east-1".to_owned(),
        now: SystemTime::now(),
    };
    let health = format!("GET /health HTTP/1.1\r\nhost: {address}\r\n\r\n");
    let answer = client.raw(health.as_bytes(), b"").await;
    assert_eq!((answer.status, answer.text().starts_with("starting:")), (503, true), "{}", answer.text());
    let answer = client.send(Request::new("GET", "/")).await.refused(503, "ServiceUnavailable");
    assert_eq!(answer.headers["retry-after"], "1");
    stop.send_replace(true);
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_asked_without_a_key_and_buckets_may_be_named_by_the_host() {
    let options = S3Options { domain: Some("s3.example.com".to_owned()), ..S3Options::at("127.0.0.1:0") };
    let stage = Stage::with(options).await;
    let health = |host: &str| format!("GET /health HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let answer = stage.client.raw(health("localhost").as_bytes(), b"").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "healthy: serving\n"));

    // Under the host of a bucket, it is an object like any other.
    stage.client.raw(health("test.s3.example.com").as_bytes(), b"").await.refused(403, "AccessDenied");
    let hosted = |request: Request| request.header("host", "test.s3.example.com");
    stage.send(hosted(Request::new("PUT", "/health")).body("an object")).await.ok();
    assert_eq!(stage.get("/test/health").await.ok().body, b"an object");
    assert_eq!(stage.send(hosted(Request::new("GET", "/health"))).await.ok().body, b"an object");
    let listed = stage.send(hosted(Request::new("GET", "/")).query("list-type", 2)).await.ok();
    assert_eq!(listed.elements("Key"), ["health"]);
    let path_style = Request::new("GET", "/test/health").header("host", "s3.example.com");
    stage.send(path_style).await.ok();
    stage.stop().await;
}
