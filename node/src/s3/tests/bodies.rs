//! Bodies that are not what was said of them: none is committed.

use super::client::sha256;
use super::*;
use crate::model::ChecksumAlgorithm;
use crate::s3::checksums::{self, ALL, Hasher};
use crate::s3::text::base64;

fn checksum(algorithm: ChecksumAlgorithm, data: &[u8]) -> String {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(data);
    base64(&hasher.finish())
}

fn md5(data: &[u8]) -> String {
    base64(&<md5::Md5 as md5::Digest>::digest(data))
}

fn put(data: &[u8]) -> Request {
    Request::new("PUT", "/test/a").body(data)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_announced_is_compared_before_anything_is_committed() {
    let stage = Stage::start().await;
    let client = &stage.client;
    let data = content(100_000);
    let other = content(99_999);

    // Wrong ones first: the key is absent to the end.
    client.send(put(&data).header("content-md5", md5(&other))).await.refused(400, "BadDigest");
    client.send(put(&data).header("content-md5", "zzz")).await.refused(400, "InvalidDigest");
    client.send(put(&data).hash(&sha256(&other))).await.refused(400, "XAmzContentSHA256Mismatch");
    for algorithm in ALL {
        let name = checksums::header(algorithm);
        client.send(put(&data).header(name, checksum(algorithm, &other))).await.refused(400, "BadDigest");
        client.send(put(&data).header(name, "AAAA")).await.refused(400, "InvalidRequest");
        let trailer = checksum(algorithm, &other);
        client.send_chunked(put(&data), false, 8192, Some((name, &trailer))).await.refused(400, "BadDigest");
        client.send_chunked(put(&data), true, 8192, Some((name, &trailer))).await.refused(400, "BadDigest");
    }
    let two = put(&data)
        .header("x-amz-checksum-crc32", checksum(ChecksumAlgorithm::Crc32, &data))
        .header("x-amz-checksum-sha1", checksum(ChecksumAlgorithm::Sha1, &data));
    client.send(two).await.refused(400, "InvalidRequest");
    client.send(put(&data).header("x-amz-sdk-checksum-algorithm", "CRC32")).await.refused(400, "InvalidRequest");
    let promised = put(&data).header("x-amz-trailer", "x-amz-checksum-crc32");
    client.send_chunked(promised, false, 8192, None).await.refused(400, "MalformedTrailerError");
    let longer = put(&data).header("x-amz-decoded-content-length", data.len() + 1);
    client.send_chunked(longer, true, 8192, None).await.refused(400, "IncompleteBody");
    let shorter = put(&data).header("x-amz-decoded-content-length", data.len() - 1);
    client.send_chunked(shorter, true, 8192, None).await.refused(400, "IncompleteBody");
    let huge = put(&data).header("x-amz-decoded-content-length", 6_u64 << 30);
    client.send_chunked(huge, true, 8192, None).await.refused(400, "EntityTooLarge");
    let big = content(5 * 1024 * 1024);
    client.send_chunked(put(&big), true, big.len(), None).await.refused(400, "InvalidChunkSizeError");
    assert_eq!(stage.head("/test/a").await.status, 404, "nothing was committed");

    // Right ones go in, and come back with what was said.
    for algorithm in ALL {
        let (name, value) = (checksums::header(algorithm), checksum(algorithm, &data));
        let ask = Request::new("GET", "/test/a").header("x-amz-checksum-mode", "ENABLED");
        for way in 0..3 {
            let answer = match way {
                0 => client.send(put(&data).header(name, &value)).await.ok(),
                1 => client.send_chunked(put(&data), false, 7000, Some((name, &value))).await.ok(),
                _ => client.send_chunked(put(&data), true, 9000, Some((name, &value))).await.ok(),
            };
            assert_eq!(answer.headers[name], value);
            let got = client.send(ask.clone()).await.ok();
            assert_eq!((got.headers[name].as_str(), got.body.as_slice()), (value.as_str(), data.as_slice()));
            assert_eq!(got.headers["x-amz-checksum-type"], "FULL_OBJECT");
            assert!(!got.headers.contains_key("content-encoding"), "how it travelled is not kept");
        }
    }
    client.send(put(&data).header("content-md5", md5(&data))).await.ok();
    client.send_chunked(put(&data), true, 65_536, None).await.ok();
    let one = Some(("x-amz-checksum-crc32", checksum(ChecksumAlgorithm::Crc32, &big)));
    let one = one.as_ref().map(|(name, value)| (*name, value.as_str()));
    client.send_chunked(put(&big), false, big.len(), one).await.ok();
    assert_eq!(stage.get("/test/a").await.body, big, "an unsigned chunk of any length is taken");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_cut_at_any_tenth_leaves_nothing() {
    let stage = Stage::start().await;
    let client = &stage.client;
    let data = content(1_000_000);
    let before = stage.put("/test/old", b"as it was").await.ok().etag();
    for tenth in 0..10 {
        let at = data.len() * tenth / 10;
        client.cut(&put(&data), at).await;
        client.cut(&Request::new("PUT", "/test/old").body(data.clone()), at).await;
    }
    // The last byte is missing.
    client.cut(&put(&data), data.len() - 1).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(stage.head("/test/a").await.status, 404);
    assert_eq!(stage.head("/test/old").await.etag(), before);
    let listed = stage.send(Request::new("GET", "/test").query("list-type", 2)).await.ok();
    assert_eq!(listed.elements("Key"), ["old"]);

    // A client that ends before its announced length, and stays to hear of it, is told.
    let short = put(&data[..10]).header("content-length", 20);
    let (head, _) = client.head(&short);
    let answer = client.raw(head.as_bytes(), &data[..10]);
    let answer = tokio::time::timeout(std::time::Duration::from_secs(3), answer).await;
    assert!(answer.is_err(), "it is waited for");
    assert_eq!(stage.head("/test/a").await.status, 404);
    let none = put(b"").header("transfer-encoding", "chunked").hash("UNSIGNED-PAYLOAD");
    let (head, _) = client.head(&none);
    client.raw(head.as_bytes(), b"1\r\nx\r\n0\r\n\r\n").await.refused(411, "MissingContentLength");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_client_hears_why_although_it_is_still_sending() {
    let stage = Stage::start().await;
    let data = content(8 * 1024 * 1024);
    let refused = Request::new("PUT", "/nowhere/a").body(data.clone());
    stage.send(refused).await.refused(404, "NoSuchBucket");
    let wrong = Client { secret: "x".repeat(40), ..stage.client.clone() };
    wrong.send(put(&data)).await.refused(403, "SignatureDoesNotMatch");
    stage.stop().await;
}
