//! Uploads in parts.

use super::*;
use crate::model::ChecksumAlgorithm;
use crate::s3::checksums::Hasher;
use crate::s3::text::base64;

const MIB: usize = 1024 * 1024;

impl Stage {
    async fn begin(&self, path: &str, headers: &[(&str, &str)]) -> String {
        let begin = Request::new("POST", path).query("uploads", "");
        let begin = headers.iter().fold(begin, |begin, (name, value)| begin.header(name, value));
        self.send(begin).await.ok().element("UploadId").unwrap()
    }

    fn part(path: &str, id: &str, number: i32, data: &[u8]) -> Request {
        Request::new("PUT", path).query("partNumber", number).query("uploadId", id).body(data)
    }

    async fn complete(&self, path: &str, id: &str, parts: &[(i32, &str)]) -> Response {
        self.send(completion(path, id, parts)).await
    }
}

fn completion(path: &str, id: &str, parts: &[(i32, &str)]) -> Request {
    let parts: String = parts
        .iter()
        .map(|(number, etag)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"))
        .collect();
    let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    Request::new("POST", path).query("uploadId", id).body(body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_become_one_object() {
    let stage = Stage::start().await;
    let (first, second, third) = (content(5 * MIB), content(6 * MIB), content(1000));
    let id = stage.begin("/test/big", &[("content-type", "video/x"), ("x-amz-meta-color", "blue")]).await;

    // Out of order, one twice.
    let part = |number, data: &[u8]| Stage::part("/test/big", &id, number, data);
    let etag3 = stage.send(part(3, &third)).await.ok().etag();
    stage.send(part(1, b"to be replaced")).await.ok();
    let etag1 = stage.send(part(1, &first)).await.ok().etag();
    let etag2 = stage.send(part(2, &second)).await.ok().etag();
    assert_eq!(stage.head("/test/big").await.status, 404, "not before it is complete");

    let listed = stage.send(Request::new("GET", "/test/big").query("uploadId", &id)).await.ok();
    assert_eq!(listed.elements("PartNumber"), ["1", "2", "3"]);
    assert_eq!(listed.elements("Size"), [(5 * MIB).to_string(), (6 * MIB).to_string(), "1000".to_owned()]);
    let page =
        Request::new("GET", "/test/big").query("uploadId", &id).query("max-parts", 1).query("part-number-marker", 1);
    let page = stage.send(page).await.ok();
    assert_eq!(
        (page.elements("PartNumber"), page.element("NextPartNumberMarker").unwrap().as_str()),
        (vec!["2".to_owned()], "2")
    );
    let uploads = stage.send(Request::new("GET", "/test").query("uploads", "")).await.ok();
    assert_eq!((uploads.elements("Key"), uploads.elements("UploadId")), (vec!["big".to_owned()], vec![id.clone()]));

    let parts = [(1, etag1.as_str()), (2, etag2.as_str()), (3, etag3.as_str())];
    let done = stage.complete("/test/big", &id, &parts).await.ok();
    let etag = done.element("ETag").unwrap();
    assert!(etag.ends_with("-3\""), "{etag}");
    let got = stage.get("/test/big").await.ok();
    let whole = [first.as_slice(), &second, &third].concat();
    assert!(got.body == whole, "the content is not the parts one behind the other");
    assert_eq!((got.etag(), got.headers["content-type"].as_str()), (etag.clone(), "video/x"));
    assert_eq!(got.headers["x-amz-meta-color"], "blue");
    let got = stage.send(Request::new("GET", "/test/big").query("partNumber", 3)).await.ok();
    assert_eq!(
        (got.status, got.body.as_slice(), got.headers["x-amz-mp-parts-count"].as_str()),
        (206, third.as_slice(), "3")
    );
    let across = format!("bytes={}-{}", 5 * MIB - 10, 5 * MIB + 9);
    let got = stage.send(Request::new("GET", "/test/big").header("range", across)).await.ok();
    assert_eq!(got.body, whole[5 * MIB - 10..5 * MIB + 10]);
    stage.send(Request::new("GET", "/test/big").query("partNumber", 4)).await.refused(416, "InvalidPartNumber");

    // Repeated, it is answered the same; afterwards nothing is left of the upload.
    let again = stage.complete("/test/big", &id, &parts).await.ok();
    assert_eq!(again.element("ETag").unwrap(), etag);
    stage.send(part(1, b"late")).await.refused(404, "NoSuchUpload");
    stage.send(Request::new("GET", "/test/big").query("uploadId", &id)).await.refused(404, "NoSuchUpload");
    assert!(stage.send(Request::new("GET", "/test").query("uploads", "")).await.ok().elements("Key").is_empty());

    // Parts may be copied.
    let id = stage.begin("/test/copy", &[]).await;
    let copy = |number, range: &str| {
        Stage::part("/test/copy", &id, number, b"")
            .header("x-amz-copy-source", "/test/big")
            .header("x-amz-copy-source-range", range)
    };
    let first_part = format!("bytes=1-{}", 5 * MIB);
    let one = stage.send(copy(1, &first_part)).await.ok().element("ETag").unwrap();
    let two = stage.send(copy(2, "bytes=0-9")).await.ok().element("ETag").unwrap();
    assert!(stage.send(copy(3, "bytes=0-999999999")).await.status >= 400);
    stage.send(copy(3, "nonsense")).await.refused(400, "InvalidArgument");
    stage.complete("/test/copy", &id, &[(1, &one), (2, &two)]).await.ok();
    assert!(stage.get("/test/copy").await.body == [&whole[1..5 * MIB + 1], &whole[..10]].concat());
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_parts_has_its_own_name() {
    let stage = Stage::start().await;
    let id = stage.begin("/test/a", &[]).await;
    let part = |number, data: &[u8]| Stage::part("/test/a", &id, number, data);
    let small = stage.send(part(1, b"small")).await.ok().etag();
    let last = stage.send(part(2, b"last")).await.ok().etag();
    let none = format!("\"{}\"", "0".repeat(32));

    stage.send(part(0, b"x")).await.refused(400, "InvalidArgument");
    stage.send(part(10_001, b"x")).await.refused(400, "InvalidArgument");
    stage.complete("/test/a", &id, &[(1, &small), (2, &last)]).await.refused(400, "EntityTooSmall");
    stage.complete("/test/a", &id, &[(2, &last), (1, &small)]).await.refused(400, "InvalidPartOrder");
    stage.complete("/test/a", &id, &[(1, &none)]).await.refused(400, "InvalidPart");
    stage.complete("/test/a", &id, &[(7, &small)]).await.refused(400, "InvalidPart");
    stage.complete("/test/a", &id, &[]).await.refused(400, "MalformedXML");
    stage.complete("/test/a", &"0".repeat(32), &[(1, &small)]).await.refused(404, "NoSuchUpload");
    stage.complete("/test/a", "../../x", &[(1, &small)]).await.refused(404, "NoSuchUpload");
    stage.complete("/test/b", &id, &[(1, &small)]).await.refused(404, "NoSuchUpload");
    let size = completion("/test/a", &id, &[(1, &small)]).header("x-amz-mp-object-size", 6);
    stage.send(size).await.refused(400, "InvalidRequest");
    assert_eq!(stage.head("/test/a").await.status, 404);

    // Conditions are those of the completion.
    stage.put("/test/a", b"there").await.ok();
    let absent = completion("/test/a", &id, &[(1, &small)]).header("if-none-match", "*");
    stage.send(absent).await.refused(412, "PreconditionFailed");
    stage.complete("/test/a", &id, &[(1, &small)]).await.ok();
    assert_eq!(stage.get("/test/a").await.body, b"small");

    // Aborted, it is gone; a bucket deleted under an upload takes it along.
    let id = stage.begin("/test/gone", &[]).await;
    stage.send(Stage::part("/test/gone", &id, 1, b"x")).await.ok();
    assert_eq!(stage.send(Request::new("DELETE", "/test/gone").query("uploadId", &id)).await.status, 204);
    stage.send(Stage::part("/test/gone", &id, 1, b"x")).await.refused(404, "NoSuchUpload");
    stage.send(Request::new("DELETE", "/test/gone").query("uploadId", &id)).await.refused(404, "NoSuchUpload");
    stage.bucket("short-lived").await;
    let id = stage.begin("/short-lived/a", &[]).await;
    let etag = stage.send(Stage::part("/short-lived/a", &id, 1, b"x")).await.ok().etag();
    stage.delete("/short-lived").await.ok();
    stage.complete("/short-lived/a", &id, &[(1, &etag)]).await.refused(404, "NoSuchBucket");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_has_the_checksum_its_client_says() {
    let stage = Stage::start().await;
    let (first, second) = (content(5 * MIB), content(777));
    let digest = |algorithm, data: &[u8]| {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(data);
        hasher.finish()
    };
    let whole = [first.as_slice(), &second].concat();
    let composite = |algorithm| {
        let joined = [digest(algorithm, &first), digest(algorithm, &second)].concat();
        format!("{}-2", base64(&digest(algorithm, &joined)))
    };
    for (algorithm, name, kind, expected) in [
        (ChecksumAlgorithm::Crc32, "CRC32", "FULL_OBJECT", base64(&digest(ChecksumAlgorithm::Crc32, &whole))),
        (ChecksumAlgorithm::Crc32c, "CRC32C", "COMPOSITE", composite(ChecksumAlgorithm::Crc32c)),
        (
            ChecksumAlgorithm::Crc64Nvme,
            "CRC64NVME",
            "FULL_OBJECT",
            base64(&digest(ChecksumAlgorithm::Crc64Nvme, &whole)),
        ),
        (ChecksumAlgorithm::Sha256, "SHA256", "COMPOSITE", composite(ChecksumAlgorithm::Sha256)),
    ] {
        let header = crate::s3::checksums::header(algorithm);
        let id = stage.begin("/test/a", &[("x-amz-checksum-algorithm", name), ("x-amz-checksum-type", kind)]).await;
        let part = |number, data: &[u8]| {
            Stage::part("/test/a", &id, number, data).header(header, base64(&digest(algorithm, data)))
        };
        let one = stage.send(part(1, &first)).await.ok().etag();
        let two = stage.send(part(2, &second)).await.ok().etag();
        let complete = || completion("/test/a", &id, &[(1, &one), (2, &two)]);
        let wrong = base64(&digest(algorithm, b"another"));
        stage.send(complete().header(header, wrong)).await.refused(400, "BadDigest");
        stage.send(complete().header(header, &expected)).await.ok();
        let ask = Request::new("HEAD", "/test/a").header("x-amz-checksum-mode", "ENABLED");
        let head = stage.client.send_head(ask).await;
        assert_eq!(
            (head.headers[header].as_str(), head.headers["x-amz-checksum-type"].as_str()),
            (expected.as_str(), kind)
        );
        let parts = Request::new("GET", "/test/a")
            .query("attributes", "")
            .header("x-amz-object-attributes", "ObjectParts,Checksum");
        let parts = stage.send(parts).await.ok();
        assert_eq!(parts.elements("PartNumber"), ["1", "2"], "{}", parts.text());
    }
    // What does not go together is refused at the beginning, or at the part.
    let begin = Request::new("POST", "/test/a").query("uploads", "");
    let bad = begin.header("x-amz-checksum-algorithm", "SHA1").header("x-amz-checksum-type", "FULL_OBJECT");
    stage.send(bad).await.refused(400, "InvalidRequest");
    let id = stage.begin("/test/b", &[("x-amz-checksum-algorithm", "SHA1")]).await;
    let other = Stage::part("/test/b", &id, 1, b"x")
        .header("x-amz-checksum-crc32", base64(&digest(ChecksumAlgorithm::Crc32, b"x")));
    stage.send(other).await.refused(400, "InvalidRequest");
    stage.stop().await;
}
