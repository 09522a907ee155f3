//! Buckets, keys and what they may, and what clients ask of every bucket.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buckets_are_made_listed_and_deleted() {
    let stage = Stage::start().await;

    // Made once, and not twice.
    stage.bucket("photos").await;
    stage.put("/photos", b"").await.refused(409, "BucketAlreadyOwnedByYou");
    let located =
        "<CreateBucketConfiguration><LocationConstraint>us-east-1</LocationConstraint></CreateBucketConfiguration>";
    stage.put("/located", located.as_bytes()).await.ok();
    let elsewhere = located.replace("us-east-1", "eu-west-1");
    stage.put("/elsewhere", elsewhere.as_bytes()).await.refused(400, "InvalidLocationConstraint");
    stage.put("/nonsense", b"<Create").await.refused(400, "MalformedXML");

    // Some names are not for clients.
    for name in ["health", "resilver.uploads", "resilver.mine", "ab", "Capital", "192.168.1.1"] {
        stage.put(&format!("/{name}"), b"").await.refused(400, "InvalidBucketName");
    }

    // Seen by all that ask.
    let listed = stage.get("/").await.ok();
    assert_eq!(listed.elements("Name"), ["located", "photos", "test"]);
    assert_eq!(stage.head("/photos").await.headers["x-amz-bucket-region"], "us-east-1");
    assert_eq!(stage.head("/nowhere").await.status, 404);
    assert!(stage.get("/photos?location").await.status >= 400, "a question mark in a path is part of a name");
    let location = stage.send(Request::new("GET", "/photos").query("location", "")).await.ok();
    assert!(location.text().contains("LocationConstraint"), "{}", location.text());
    let versioning = stage.send(Request::new("GET", "/photos").query("versioning", "")).await.ok();
    assert!(!versioning.text().contains("<Status>"));
    let acl = stage.send(Request::new("GET", "/photos").query("acl", "")).await.ok();
    assert_eq!(acl.element("Permission").as_deref(), Some("FULL_CONTROL"));

    // What there never is has a code that clients know.
    for (what, code) in [
        ("policy", "NoSuchBucketPolicy"),
        ("cors", "NoSuchCORSConfiguration"),
        ("lifecycle", "NoSuchLifecycleConfiguration"),
        ("tagging", "NoSuchTagSet"),
        ("website", "NoSuchWebsiteConfiguration"),
        ("encryption", "ServerSideEncryptionConfigurationNotFoundError"),
        ("replication", "ReplicationConfigurationNotFoundError"),
        ("ownershipControls", "OwnershipControlsNotFoundError"),
        ("publicAccessBlock", "NoSuchPublicAccessBlockConfiguration"),
        ("object-lock", "ObjectLockConfigurationNotFoundError"),
    ] {
        stage.send(Request::new("GET", "/photos").query(what, "")).await.refused(404, code);
        stage.send(Request::new("GET", "/nowhere").query(what, "")).await.refused(404, "NoSuchBucket");
    }
    stage.send(Request::new("GET", "/photos").query("requestPayment", "")).await.ok();
    stage.send(Request::new("GET", "/photos").query("logging", "")).await.ok();
    stage.send(Request::new("PUT", "/photos").query("policy", "").body("{}")).await.refused(501, "NotImplemented");
    stage.send(Request::new("DELETE", "/photos").query("new-feature", "")).await.refused(501, "NotImplemented");
    assert_eq!(stage.head("/photos").await.status, 200, "the bucket is still there");

    // Gone only when empty.
    stage.put("/photos/one", b"1").await.ok();
    stage.delete("/photos").await.refused(409, "BucketNotEmpty");
    stage.delete("/photos/one").await.ok();
    assert_eq!(stage.delete("/photos").await.status, 204);
    stage.delete("/photos").await.refused(404, "NoSuchBucket");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_does_what_it_was_granted() {
    let stage = Stage::start().await;
    stage.bucket("other").await;
    stage.put("/test/a", b"content").await.ok();
    stage.put("/other/secret", b"secret").await.ok();
    let reader = stage.client_with("test", Some(Grant { read: true, ..Grant::default() })).await;
    let writer = stage.client_with("test", Some(Grant { write: true, ..Grant::default() })).await;
    let nobody = stage.client_with("test", None).await;
    let get = |path: &str| Request::new("GET", path);
    let put = |path: &str| Request::new("PUT", path).body("x");

    reader.send(get("/test/a")).await.ok();
    reader.send(put("/test/b")).await.refused(403, "AccessDenied");
    reader.send(Request::new("DELETE", "/test/a")).await.refused(403, "AccessDenied");
    reader.send(get("/other/secret")).await.refused(403, "AccessDenied");
    reader.send(get("/nowhere/x")).await.refused(403, "AccessDenied");
    assert_eq!(reader.send(get("/")).await.ok().elements("Name"), ["test"]);
    assert!(nobody.send(get("/")).await.ok().elements("Name").is_empty());

    writer.send(put("/test/b")).await.ok();
    writer.send(get("/test/a")).await.refused(403, "AccessDenied");
    writer.send(Request::new("PUT", "/made")).await.refused(403, "AccessDenied");
    writer.send(Request::new("DELETE", "/test")).await.refused(403, "AccessDenied");

    // A copy is a read too, and parts of uploads are nobody's.
    let copy = |from: &str| Request::new("PUT", "/test/copy").header("x-amz-copy-source", from);
    writer.send(copy("/other/secret")).await.refused(403, "AccessDenied");
    writer.send(copy("/test/a")).await.refused(403, "AccessDenied");
    stage.send(copy("/resilver.uploads/test/x/00001")).await.refused(403, "AccessDenied");
    let foreign = get("/test/a").header("x-amz-expected-bucket-owner", "111122223333");
    stage.send(foreign).await.refused(403, "AccessDenied");

    // A revoked key opens nothing any more.
    stage.cluster.node(0).gateway.revoke_key(&reader.id).await.unwrap();
    reader.send(get("/test/a")).await.refused(403, "InvalidAccessKeyId");
    stage.stop().await;
}
