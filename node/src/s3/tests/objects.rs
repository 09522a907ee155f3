//! Objects whole: put, read in all the ways there are, copied, deleted.

use super::*;
use crate::s3::text::{base64, url_encode};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_comes_back_with_everything_that_was_said_of_it() {
    let stage = Stage::start().await;
    let data = content(300_000);
    let put = Request::new("PUT", "/test/a/b.txt")
        .header("content-type", "text/plain; charset=utf-8")
        .header("content-encoding", "identity")
        .header("content-language", "de")
        .header("content-disposition", "inline")
        .header("cache-control", "no-cache")
        .header("expires", "Wed, 21 Oct 2065 07:28:00 GMT")
        .header("x-amz-meta-color", "blue")
        .header("x-amz-meta-Shape", "round")
        .header("x-amz-storage-class", "STANDARD")
        .body(data.clone());
    let etag = stage.send(put).await.ok().etag();
    assert_eq!(etag.len(), 34, "{etag}");
    let got = stage.get("/test/a/b.txt").await.ok();
    assert_eq!(got.body, data);
    for (name, value) in [
        ("etag", etag.as_str()),
        ("content-length", "300000"),
        ("content-type", "text/plain; charset=utf-8"),
        ("content-encoding", "identity"),
        ("content-language", "de"),
        ("content-disposition", "inline"),
        ("cache-control", "no-cache"),
        ("expires", "Wed, 21 Oct 2065 07:28:00 GMT"),
        ("x-amz-meta-color", "blue"),
        ("x-amz-meta-shape", "round"),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(got.headers[name], value, "{name}");
        let head = stage.head("/test/a/b.txt").await;
        assert_eq!(head.headers[name], value, "{name} of the head");
    }
    assert!(got.headers.contains_key("last-modified") && got.headers.contains_key("x-amz-request-id"));
    stage.put("/test/bare", b"").await.ok();
    let bare = stage.get("/test/bare").await.ok();
    assert_eq!((bare.headers["content-type"].as_str(), bare.body.len()), ("binary/octet-stream", 0));

    // What would silently not be done is refused, and nothing is stored.
    for (name, value, status, code) in [
        ("x-amz-server-side-encryption", "AES256", 501, "NotImplemented"),
        ("x-amz-tagging", "a=b", 501, "NotImplemented"),
        ("x-amz-acl", "public-read", 400, "AccessControlListNotSupported"),
        ("x-amz-storage-class", "GLACIER", 400, "InvalidStorageClass"),
        ("x-amz-object-lock-mode", "COMPLIANCE", 501, "NotImplemented"),
    ] {
        let refused = Request::new("PUT", "/test/refused").header(name, value).body("x");
        stage.send(refused).await.refused(status, code);
    }
    let much = Request::new("PUT", "/test/refused").header("x-amz-meta-much", "x".repeat(2049)).body("x");
    stage.send(much).await.refused(400, "MetadataTooLarge");
    assert_eq!(stage.head("/test/refused").await.status, 404);

    // Attributes on request.
    let ask = Request::new("GET", "/test/a/b.txt")
        .query("attributes", "")
        .header("x-amz-object-attributes", "ETag,ObjectSize,StorageClass");
    let attributes = stage.send(ask).await.ok();
    assert_eq!(attributes.element("ObjectSize").as_deref(), Some("300000"));
    assert_eq!(attributes.element("StorageClass").as_deref(), Some("STANDARD"));
    stage.send(Request::new("GET", "/test/bare").query("tagging", "")).await.ok();
    stage.send(Request::new("GET", "/test/bare").query("acl", "")).await.ok();
    stage.send(Request::new("GET", "/test/bare").query("versionId", "null")).await.ok();
    stage.send(Request::new("GET", "/test/bare").query("versionId", "other")).await.refused(404, "NoSuchVersion");

    // Deleted once, and again.
    assert_eq!(stage.delete("/test/bare").await.status, 204);
    assert_eq!(stage.delete("/test/bare").await.status, 204);
    stage.get("/test/bare").await.refused(404, "NoSuchKey");
    stage.get("/nowhere/x").await.refused(404, "NoSuchBucket");
    stage.delete("/nowhere/x").await.refused(404, "NoSuchBucket");
    stage.put("/nowhere/x", b"x").await.refused(404, "NoSuchBucket");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_and_conditions_are_those_of_http() {
    let stage = Stage::start().await;
    let data = content(200_000);
    let etag = stage.put("/test/a", &data).await.ok().etag();
    stage.put("/test/empty", b"").await.ok();
    let range = async |path: &str, range: &str| stage.send(Request::new("GET", path).header("range", range)).await;
    for (asked, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=131071-131073", 131_071, 131_074),
        ("bytes=199999-", 199_999, 200_000),
        ("bytes=-5", 199_995, 200_000),
        ("bytes=-999999", 0, 200_000),
        ("bytes=1000-999999", 1000, 200_000),
    ] {
        let got = range("/test/a", asked).await;
        assert_eq!((got.status, got.body.as_slice()), (206, &data[from..to]), "{asked}");
        assert_eq!(got.headers["content-range"], format!("bytes {from}-{}/200000", to - 1));
    }
    for outside in ["bytes=200000-", "bytes=200000-200001", "bytes=-0"] {
        let refused = range("/test/a", outside).await.refused(416, "InvalidRange");
        assert_eq!(refused.headers["content-range"], "bytes */200000");
    }
    range("/test/empty", "bytes=0-0").await.refused(416, "InvalidRange");
    // What is no range is passed over.
    for nonsense in ["bytes=5-2", "bytes=a-b", "bytes=0-1,5-6", "lines=1-2", "bytes"] {
        let got = range("/test/a", nonsense).await;
        assert_eq!((got.status, got.body.len()), (200, data.len()), "{nonsense}: {}", got.code());
    }
    let head = stage.client.send_head(Request::new("HEAD", "/test/a").header("range", "bytes=0-9")).await;
    assert_eq!((head.status, head.headers["content-length"].as_str()), (206, "10"));

    let get = || Request::new("GET", "/test/a");
    let (past, future) = ("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2065 07:28:00 GMT");
    let other = format!("\"{}\"", "0".repeat(32));
    stage.send(get().header("if-match", &etag)).await.ok();
    stage.send(get().header("if-match", "*")).await.ok();
    stage.send(get().header("if-match", &other)).await.refused(412, "PreconditionFailed");
    let unchanged = stage.send(get().header("if-none-match", &etag)).await;
    assert_eq!((unchanged.status, unchanged.etag()), (304, etag.clone()));
    stage.send(get().header("if-none-match", &other)).await.ok();
    assert_eq!(stage.send(get().header("if-modified-since", future)).await.status, 304);
    stage.send(get().header("if-modified-since", past)).await.ok();
    stage.send(get().header("if-unmodified-since", past)).await.refused(412, "PreconditionFailed");
    stage.send(get().header("if-unmodified-since", past).header("if-match", &etag)).await.ok();
    stage.send(get().header("if-modified-since", future).header("if-none-match", &other)).await.ok();

    // Writes on condition.
    let put = |body: &str| Request::new("PUT", "/test/a").body(body);
    stage.send(put("1").header("if-none-match", "*")).await.refused(412, "PreconditionFailed");
    stage.send(put("1").header("if-match", &other)).await.refused(412, "PreconditionFailed");
    assert_eq!(stage.get("/test/a").await.body.len(), data.len());
    stage.send(put("1").header("if-match", &etag)).await.ok();
    stage.send(put("2").header("if-match", &etag)).await.refused(412, "PreconditionFailed");
    stage.send(Request::new("PUT", "/test/new").header("if-match", &etag)).await.refused(404, "NoSuchKey");
    stage.send(Request::new("PUT", "/test/new").header("if-none-match", "*")).await.ok();
    stage.send(Request::new("DELETE", "/test/a").header("if-match", &etag)).await.refused(412, "PreconditionFailed");
    stage.send(Request::new("DELETE", "/test/a").header("if-match", "*")).await.ok();
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_odd_name_is_a_name_and_nothing_but_a_name() {
    let stage = Stage::start().await;
    let long = "k".repeat(1024);
    let names = [
        "a b",
        "a+b",
        "a%20b",
        "a&b=c",
        "a?b",
        "a#b",
        "ü/ñ/日本",
        "..",
        "../../etc/passwd",
        "./a",
        "a/",
        "/a",
        "a//b",
        "a\tb",
        "\u{1}\u{1f}",
        "a\\b",
        "'\"<>&",
        "{}[]|^`~",
        "\u{10ffff}",
        "😀",
        long.as_str(),
    ];
    for name in names {
        let path = format!("/test/{name}");
        stage.put(&path, name.as_bytes()).await.ok();
        assert_eq!(stage.get(&path).await.ok().body, name.as_bytes(), "{name:?}");
        assert_eq!(stage.head(&path).await.status, 200, "{name:?}");
    }
    let all = stage.send(Request::new("GET", "/test").query("list-type", 2).query("encoding-type", "url")).await.ok();
    let mut expected: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    expected.sort();
    let expected: Vec<String> = expected.iter().map(|name| url_encode(name)).collect();
    assert_eq!(all.elements("Key"), expected);

    // Copies find them, and so do deletes.
    for name in names {
        let copy = Request::new("PUT", "/test/copy").header("x-amz-copy-source", url_encode(&format!("/test/{name}")));
        stage.send(copy).await.ok();
        assert_eq!(stage.get("/test/copy").await.body, name.as_bytes(), "{name:?}");
        assert_eq!(stage.delete(&format!("/test/{name}")).await.status, 204);
        assert_eq!(stage.head(&format!("/test/{name}")).await.status, 404, "{name:?}");
    }
    stage.put("/test/a\0b", b"x").await.refused(400, "InvalidURI");
    stage.put(&format!("/test/{}", "k".repeat(1025)), b"x").await.refused(400, "KeyTooLongError");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_take_along_what_they_are_told_to() {
    let stage = Stage::start().await;
    stage.bucket("other").await;
    let data = content(100_000);
    let put = Request::new("PUT", "/test/a").header("content-type", "text/plain").header("x-amz-meta-color", "blue");
    let etag = stage.send(put.body(data.clone())).await.ok().etag();
    let copy = |to: &str| Request::new("PUT", to).header("x-amz-copy-source", "test/a");

    let done = stage.send(copy("/other/b")).await.ok();
    assert_eq!(done.element("ETag").as_deref(), Some(etag.as_str()));
    let got = stage.get("/other/b").await.ok();
    assert_eq!((got.body.as_slice(), got.headers["x-amz-meta-color"].as_str()), (data.as_slice(), "blue"));
    assert_eq!(got.headers["content-type"], "text/plain");

    let replace = copy("/other/c").header("x-amz-metadata-directive", "REPLACE").header("x-amz-meta-shape", "round");
    stage.send(replace.header("x-amz-checksum-algorithm", "SHA256")).await.ok();
    let got = stage.client.send(Request::new("GET", "/other/c").header("x-amz-checksum-mode", "ENABLED")).await.ok();
    assert_eq!(got.headers["x-amz-meta-shape"], "round");
    assert!(!got.headers.contains_key("x-amz-meta-color"));
    assert!(got.headers.contains_key("x-amz-checksum-sha256"), "{:?}", got.headers);

    // Onto itself only with something to change.
    stage.send(copy("/test/a")).await.refused(400, "InvalidRequest");
    let myself = copy("/test/a").header("x-amz-metadata-directive", "REPLACE").header("x-amz-meta-color", "red");
    stage.send(myself).await.ok();
    assert_eq!(stage.head("/test/a").await.headers["x-amz-meta-color"], "red");
    assert_eq!(stage.get("/test/a").await.body, data);

    let other = format!("\"{}\"", "0".repeat(32));
    stage.send(copy("/test/d").header("x-amz-copy-source-if-match", &etag)).await.ok();
    stage.send(copy("/test/e").header("x-amz-copy-source-if-match", &other)).await.refused(412, "PreconditionFailed");
    stage
        .send(copy("/test/e").header("x-amz-copy-source-if-none-match", &etag))
        .await
        .refused(412, "PreconditionFailed");
    stage.send(copy("/test/d").header("if-none-match", "*")).await.refused(412, "PreconditionFailed");
    let from = |from: &str| Request::new("PUT", "/test/e").header("x-amz-copy-source", from);
    stage.send(from("test/none")).await.refused(404, "NoSuchKey");
    stage.send(from("nowhere/a")).await.refused(404, "NoSuchBucket");
    assert!(stage.send(from("nonsense")).await.status == 400);
    assert_eq!(stage.head("/test/e").await.status, 404);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_objects_are_deleted_at_once() {
    let stage = Stage::start().await;
    for name in ["a", "b", "c & d"] {
        stage.put(&format!("/test/{name}"), b"x").await.ok();
    }
    let delete = |body: String| {
        let md5 = base64(&<md5::Md5 as md5::Digest>::digest(body.as_bytes()));
        Request::new("POST", "/test").query("delete", "").header("content-md5", md5).body(body)
    };
    let object = |key: &str| format!("<Object><Key>{key}</Key></Object>");
    let body = format!("<Delete>{}{}{}</Delete>", object("a"), object("c &amp; d"), object("never"));
    let done = stage.send(delete(body)).await.ok();
    assert_eq!(done.elements("Key"), ["a", "c & d", "never"]);
    assert_eq!(stage.head("/test/a").await.status, 404);
    let quiet = stage.send(delete(format!("<Delete><Quiet>true</Quiet>{}</Delete>", object("b")))).await.ok();
    assert!(quiet.elements("Key").is_empty());
    assert_eq!(stage.head("/test/b").await.status, 404);

    stage.put("/test/kept", b"x").await.ok();
    let keep = format!("<Delete>{}</Delete>", object("kept"));
    let bare = Request::new("POST", "/test").query("delete", "").body(keep.clone());
    stage.send(bare.clone()).await.refused(400, "InvalidRequest");
    stage.send(bare.clone().header("content-md5", base64(&[0; 16]))).await.refused(400, "BadDigest");
    stage.send(bare.clone().header("content-md5", "nonsense")).await.refused(400, "InvalidDigest");
    let crc =
        bare.clone().header("x-amz-checksum-crc32", base64(&[0; 4])).header("x-amz-sdk-checksum-algorithm", "CRC32");
    stage.send(crc).await.refused(400, "BadDigest");
    stage.send(delete(keep.clone()).hash(&"0".repeat(64))).await.refused(400, "XAmzContentSHA256Mismatch");
    let many: String = (0..1001).map(|number| object(&number.to_string())).collect();
    stage.send(delete(format!("<Delete>{many}</Delete>"))).await.refused(400, "MalformedXML");
    stage.send(delete("<Delete></Delete>".to_owned())).await.refused(400, "MalformedXML");
    stage.send(delete("<Delete><Object>".to_owned())).await.refused(400, "MalformedXML");
    let bomb = "<?xml version=\"1.0\"?><!DOCTYPE lolz [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;\">]><Delete><Object><Key>&b;</Key></Object></Delete>";
    stage.send(delete(bomb.to_owned())).await.refused(400, "MalformedXML");
    let deep = format!("<Delete>{}{}</Delete>", "<a>".repeat(100_000), "</a>".repeat(100_000));
    assert_eq!(stage.send(delete(deep)).await.status, 400);
    let long = format!("<Delete>{}</Delete>", " ".repeat(9 * 1024 * 1024));
    assert_eq!(stage.send(delete(long)).await.status, 400);
    assert_eq!(stage.head("/test/kept").await.status, 200);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_cannot_be_read_to_its_end_is_never_an_answer_that_looks_whole() {
    let stage = Stage::start().await;
    let data = content(17 * 1024 * 1024);
    stage.put("/test/a", &data).await.ok();
    stage.put("/test/small", &data[..1000]).await.ok();

    // All shards of the last extent are gone: what was sent before cannot be taken back, but it must not end cleanly.
    for (key, extent) in [("a", 1), ("small", 0)] {
        let record = stage.cluster.record(key).await;
        let extent = &record.extents[extent];
        for (shard, home) in (0u8..).map(crate::types::ShardIndex).zip(&extent.homes) {
            let file = stage.cluster.file(home.at.unwrap(), extent.id.shard(shard));
            std::fs::remove_file(file).unwrap();
        }
    }
    let got = stage.get("/test/a").await;
    assert!(got.broken && got.body.len() < data.len(), "{} of {} bytes", got.body.len(), data.len());
    let got = stage.get("/test/small").await;
    assert!(got.broken && got.body.is_empty(), "{} {} bytes", got.status, got.body.len());
    stage.stop().await;
}
