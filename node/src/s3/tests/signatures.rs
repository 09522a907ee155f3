//! Who is let in.

use std::time::Duration;

use super::client::{amz_date, sha256};
use super::*;

fn get() -> Request {
    Request::new("GET", "/test/a")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_right_and_timely_signature_opens_the_door() {
    let stage = Stage::start().await;
    let client = &stage.client;
    stage.put("/test/a", b"content").await.ok();
    let later = |seconds| Client { now: client.now + Duration::from_secs(seconds), ..client.clone() };
    let earlier = |seconds| Client { now: client.now - Duration::from_secs(seconds), ..client.clone() };

    // Nobody, somebody unknown, somebody who does not know the secret.
    let anonymous = format!("GET /test/a HTTP/1.1\r\nhost: {}\r\n\r\n", client.address);
    client.raw(anonymous.as_bytes(), b"").await.refused(403, "AccessDenied");
    let unknown = Client { id: "RSAAAAAAAAAAAAAAAAAA".to_owned(), ..client.clone() };
    unknown.send(get()).await.refused(403, "InvalidAccessKeyId");
    let wrong = Client { secret: "x".repeat(40), ..client.clone() };
    wrong.send(get()).await.refused(403, "SignatureDoesNotMatch");

    // The clock may be off by a quarter of an hour, both ways.
    later(14 * 60).send(get()).await.ok();
    earlier(14 * 60).send(get()).await.ok();
    later(16 * 60).send(get()).await.refused(403, "RequestTimeTooSkewed");
    earlier(16 * 60).send(get()).await.refused(403, "RequestTimeTooSkewed");
    let elsewhere = Client { region: "eu-west-1".to_owned(), ..client.clone() };
    elsewhere.send(get()).await.refused(400, "AuthorizationHeaderMalformed");

    // The same request twice is legal, and within its time only.
    let (head, _) = client.head(&get());
    client.raw(head.as_bytes(), b"").await.ok();
    client.raw(head.as_bytes(), b"").await.ok();
    let (stale, _) = earlier(16 * 60).head(&get());
    client.raw(stale.as_bytes(), b"").await.refused(403, "RequestTimeTooSkewed");
    // One that is signed for one path opens no other, and another method neither.
    let moved = head.replacen("/test/a", "/test/b", 1);
    client.raw(moved.as_bytes(), b"").await.refused(403, "SignatureDoesNotMatch");
    let deleted = head.replacen("GET", "DELETE", 1);
    client.raw(deleted.as_bytes(), b"").await.refused(403, "SignatureDoesNotMatch");

    // Headers of S3's are covered, or the request is none.
    let mut added = Request::new("PUT", "/test/b").header("x-amz-copy-source", "/test/a");
    added.unsigned.push("x-amz-copy-source".to_owned());
    client.send(added).await.refused(403, "AccessDenied");
    stage.get("/test/b").await.refused(404, "NoSuchKey");

    // The old signature is not taken, and a form not either.
    let old = format!(
        "GET /test/a HTTP/1.1\r\nhost: {}\r\nauthorization: AWS {}:c2lnbmF0dXJl\r\ndate: Tue, 27 Mar 2007 19:36:42 +0000\r\n\r\n",
        client.address, client.id
    );
    client.raw(old.as_bytes(), b"").await.refused(400, "InvalidRequest");
    let form = Request::new("POST", "/test").header("content-type", "multipart/form-data; boundary=x").body("--x--");
    client.send(form).await.refused(501, "NotImplemented");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_presigned_url_does_what_it_says_for_as_long_as_it_says() {
    let stage = Stage::start().await;
    let client = &stage.client;
    stage.put("/test/a b/ü+", b"content").await.ok();
    let ask = async |client: &Client, method: &str, target: String, more: &str, body: &[u8]| {
        let length = body.len();
        let head =
            format!("{method} {target} HTTP/1.1\r\nhost: {}\r\ncontent-length: {length}\r\n{more}\r\n", client.address);
        client.raw(head.as_bytes(), body).await
    };
    let get = Request::new("GET", "/test/a b/ü+");
    let read = ask(client, "GET", client.presigned(&get, "60"), "", b"").await.ok();
    assert_eq!(read.body, b"content");
    let named = get.clone().query("response-content-disposition", "attachment; filename=\"x\"");
    let read = ask(client, "GET", client.presigned(&named, "60"), "", b"").await.ok();
    assert_eq!(read.headers["content-disposition"], "attachment; filename=\"x\"");

    let put = Request::new("PUT", "/test/put");
    ask(client, "PUT", client.presigned(&put, "604800"), "", b"by url").await.ok();
    assert_eq!(stage.get("/test/put").await.body, b"by url");
    let hash = format!("x-amz-content-sha256: {}\r\n", sha256(b"by url"));
    ask(client, "PUT", client.presigned(&put, "60"), &hash, b"by url").await.ok();
    ask(client, "PUT", client.presigned(&put, "60"), &hash, b"by URL").await.refused(400, "XAmzContentSHA256Mismatch");

    // Not longer than it says, nor longer than a week, nor before its time.
    let old = Client { now: client.now - Duration::from_secs(61), ..client.clone() };
    ask(client, "GET", old.presigned(&get, "60"), "", b"").await.refused(403, "AccessDenied");
    ask(client, "GET", client.presigned(&get, "604801"), "", b"")
        .await
        .refused(400, "AuthorizationQueryParametersError");
    ask(client, "GET", client.presigned(&get, "-1"), "", b"").await.refused(400, "AuthorizationQueryParametersError");
    let future = Client { now: client.now + Duration::from_secs(16 * 60), ..client.clone() };
    ask(client, "GET", future.presigned(&get, "60"), "", b"").await.refused(403, "RequestTimeTooSkewed");

    // What it does not say, it does not do.
    let target = client.presigned(&put, "60");
    ask(client, "GET", target.clone(), "", b"").await.refused(403, "SignatureDoesNotMatch");
    ask(client, "PUT", target.clone(), "x-amz-copy-source: /test/a\r\n", b"").await.refused(403, "AccessDenied");
    ask(client, "PUT", target.replace("/test/put", "/test/other"), "", b"").await.refused(403, "SignatureDoesNotMatch");
    assert_eq!(stage.get("/test/put").await.body, b"by url");
    assert_eq!(amz_date(std::time::UNIX_EPOCH + Duration::from_secs(1_369_353_600)), "20130524T000000Z");
    stage.stop().await;
}
