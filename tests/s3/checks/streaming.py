"""Bodies in signed chunks, with and without trailers."""

from kit.digests import ALGORITHMS, checksum
from kit.door import MIB, expect, noise
from kit.sigv4 import STREAMING, STREAMING_TRAILER, UNSIGNED_TRAILER
from kit.streams import Streamed
from kit.suite import check

# S3 demands at least 8 KiB in every chunk but the last.
CHUNK_BYTES = 64 * 1024
BODY = noise(3 * CHUNK_BYTES + 1234, seed=7)
SHORT = noise(500, seed=8)


@check
def stream_of_signed_chunks(door):
    """STREAMING-AWS4-HMAC-SHA256-PAYLOAD: chunks signed one after another"""
    key = door.key_name()
    expect(Streamed(door.wire, door.path(key), BODY, STREAMING).send(), 200)
    assert door.get(key) == BODY
    head = door.s3.head_object(Bucket=door.bucket, Key=key)
    assert head["ContentLength"] == len(BODY) and "aws-chunked" not in head.get("ContentEncoding", "")


@check
def stream_of_one_large_chunk(door):
    """STREAMING-AWS4-HMAC-SHA256-PAYLOAD: a chunk of several MiB"""
    key, body = door.key_name(), noise(3 * MIB)
    expect(Streamed(door.wire, door.path(key), body, STREAMING, chunk_bytes=len(body)).send(), 200)
    assert door.get(key) == body


@check
def stream_of_nothing(door):
    """STREAMING-AWS4-HMAC-SHA256-PAYLOAD: an empty object is the final chunk alone"""
    key = door.key_name()
    expect(Streamed(door.wire, door.path(key), b"", STREAMING).send(), 200)
    assert door.get(key) == b""


@check
def stream_keeps_the_other_encodings(door):
    """Content-Encoding: aws-chunked,gzip: only the object's own is kept"""
    key = door.key_name()
    streamed = Streamed(door.wire, door.path(key), BODY, STREAMING, headers={"Content-Encoding": "aws-chunked,gzip"})
    expect(streamed.send(), 200)
    assert door.s3.head_object(Bucket=door.bucket, Key=key)["ContentEncoding"] == "gzip"


@check
def stream_of_a_part(door):
    """STREAMING-AWS4-HMAC-SHA256-PAYLOAD: UploadPart as well"""
    at = {"Bucket": door.bucket, "Key": door.key_name()}
    upload = door.s3.create_multipart_upload(**at)["UploadId"]
    target = f"{door.path(at['Key'])}?partNumber=1&uploadId={upload}"
    expect(Streamed(door.wire, target, BODY, STREAMING).send(), 200)
    assert door.s3.list_parts(**at, UploadId=upload)["Parts"][0]["Size"] == len(BODY)
    door.s3.abort_multipart_upload(**at, UploadId=upload)


@check
def stream_with_a_signed_trailer(door):
    """STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER: the checksum behind the body, for each algorithm"""
    for algorithm in ALGORITHMS:
        key, value = door.key_name(), checksum(algorithm, SHORT)
        trailer = (f"x-amz-checksum-{algorithm.lower()}", value)
        expect(Streamed(door.wire, door.path(key), SHORT, STREAMING_TRAILER, trailer=trailer).send(), 200)
        head = door.s3.head_object(Bucket=door.bucket, Key=key, ChecksumMode="ENABLED")
        assert head[f"Checksum{algorithm}"] == value and door.get(key) == SHORT


@check
def stream_with_an_unsigned_trailer(door):
    """STREAMING-UNSIGNED-PAYLOAD-TRAILER: the same, unsigned"""
    for algorithm in ALGORITHMS:
        key, value = door.key_name(), checksum(algorithm, SHORT)
        trailer = (f"x-amz-checksum-{algorithm.lower()}", value)
        expect(Streamed(door.wire, door.path(key), SHORT, UNSIGNED_TRAILER, trailer=trailer).send(), 200)
        head = door.s3.head_object(Bucket=door.bucket, Key=key, ChecksumMode="ENABLED")
        assert head[f"Checksum{algorithm}"] == value and door.get(key) == SHORT


@check
def stream_with_a_wrong_trailer(door):
    """x-amz-trailer: a checksum that does not fit is BadDigest, and nothing is put"""
    for payload in (STREAMING_TRAILER, UNSIGNED_TRAILER):
        for algorithm in ALGORITHMS:
            key = door.put(b"old")
            trailer = (f"x-amz-checksum-{algorithm.lower()}", checksum(algorithm, b"other"))
            expect(Streamed(door.wire, door.path(key), SHORT, payload, trailer=trailer).send(), "BadDigest")
            assert door.get(key) == b"old", algorithm


@check
def stream_with_a_wrong_trailer_signature(door):
    """x-amz-trailer-signature: a wrong one is SignatureDoesNotMatch, and nothing is put"""
    key = door.key_name()
    trailer = ("x-amz-checksum-crc32", checksum("CRC32", SHORT))
    streamed = Streamed(door.wire, door.path(key), SHORT, STREAMING_TRAILER, trailer=trailer, wrong_trailer=True)
    expect(streamed.send(), "SignatureDoesNotMatch")
    assert not door.exists(key)


@check
def stream_without_the_announced_trailer(door):
    """x-amz-trailer: an announced trailer that does not come is refused, and nothing is put"""
    key = door.key_name()
    headers = {"x-amz-trailer": "x-amz-checksum-crc32"}
    streamed = Streamed(door.wire, door.path(key), SHORT, UNSIGNED_TRAILER, headers=headers)
    expect(streamed.send(), "MalformedTrailerError", "InvalidRequest", "IncompleteBody", "BadDigest")
    assert not door.exists(key)


@check
def stream_without_decoded_length(door):
    """x-amz-decoded-content-length: missing is MissingContentLength"""
    key = door.key_name()
    streamed = Streamed(door.wire, door.path(key), SHORT, STREAMING, decoded_length=None)
    expect(streamed.send(), "MissingContentLength", 411)
    assert not door.exists(key)


@check
def stream_with_another_seed(door):
    """STREAMING-AWS4-HMAC-SHA256-PAYLOAD: the seed signature is of this very request"""
    key = door.key_name()
    streamed = Streamed(door.wire, door.path(key), BODY, STREAMING)
    streamed.seed = "0" * 64
    expect(streamed.send(), "SignatureDoesNotMatch")
    assert not door.exists(key)
