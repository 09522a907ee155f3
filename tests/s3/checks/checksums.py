"""Checksums that clients send: in headers, over parts."""

from kit.digests import ALGORITHMS, base64_of, checksum, composite, md5_base64
from kit.door import expect, noise, refused
from kit.suite import check
from kit.uploads import PARTS, Upload

BODY = noise(100_000, seed=5)
# Small, since the CRCs that zlib lacks are computed byte by byte here.
SHORT = noise(2000, seed=6)
FULL_OBJECT = ("CRC32", "CRC32C", "CRC64NVME")
COMPOSITE = ("CRC32", "CRC32C", "SHA1", "SHA256")


def field(algorithm):
    return f"Checksum{algorithm}"


def header(algorithm):
    return f"x-amz-checksum-{algorithm.lower()}"


def other_than(algorithm):
    return checksum(algorithm, b"other")


def accepted_and_given_back(door, algorithm):
    value = checksum(algorithm, SHORT)
    key = door.key_name()
    answer = door.s3.put_object(Bucket=door.bucket, Key=key, Body=SHORT, **{field(algorithm): value})
    assert answer[field(algorithm)] == value, answer
    head = door.s3.head_object(Bucket=door.bucket, Key=key, ChecksumMode="ENABLED")
    assert head[field(algorithm)] == value and head["ChecksumType"] == "FULL_OBJECT"
    assert field(algorithm) not in door.s3.head_object(Bucket=door.bucket, Key=key)
    assert door.get(key, ChecksumMode="ENABLED") == SHORT


def wrong_is_refused(door, algorithm):
    key = door.put(b"old")
    wrong = {field(algorithm): other_than(algorithm)}
    refused("BadDigest", door.s3.put_object, Bucket=door.bucket, Key=key, Body=SHORT, **wrong)
    assert door.get(key) == b"old"


@check
def checksum_crc32(door):
    """PutObject, x-amz-checksum-crc32: kept and given back with x-amz-checksum-mode; wrong is BadDigest"""
    accepted_and_given_back(door, "CRC32")
    wrong_is_refused(door, "CRC32")


@check
def checksum_crc32c(door):
    """PutObject, x-amz-checksum-crc32c: the same"""
    accepted_and_given_back(door, "CRC32C")
    wrong_is_refused(door, "CRC32C")


@check
def checksum_crc64nvme(door):
    """PutObject, x-amz-checksum-crc64nvme: the same"""
    accepted_and_given_back(door, "CRC64NVME")
    wrong_is_refused(door, "CRC64NVME")


@check
def checksum_sha1(door):
    """PutObject, x-amz-checksum-sha1: the same"""
    accepted_and_given_back(door, "SHA1")
    wrong_is_refused(door, "SHA1")


@check
def checksum_sha256(door):
    """PutObject, x-amz-checksum-sha256: the same"""
    accepted_and_given_back(door, "SHA256")
    wrong_is_refused(door, "SHA256")


@check
def checksum_malformed(door):
    """PutObject, x-amz-checksum-*: what is no checksum is InvalidRequest, and nothing is put"""
    for algorithm in ALGORITHMS:
        for said in ("!!!!", "AAAA", ""):
            key = door.key_name()
            answer = door.wire.ask("PUT", door.path(key), body=SHORT, headers={header(algorithm): said})
            expect(answer, "InvalidRequest", "BadDigest", "InvalidDigest", "InvalidArgument")
            assert not door.exists(key), (algorithm, said)


@check
def checksum_of_two_algorithms(door):
    """PutObject: two x-amz-checksum-* headers are InvalidRequest"""
    headers = {header(algorithm): checksum(algorithm, SHORT) for algorithm in ("CRC32", "SHA1")}
    expect(door.wire.ask("PUT", door.path(door.key_name()), body=SHORT, headers=headers), "InvalidRequest")


@check
def checksum_algorithm_without_value(door):
    """PutObject, x-amz-sdk-checksum-algorithm: without a value or trailer it is InvalidRequest"""
    headers = {"x-amz-sdk-checksum-algorithm": "CRC32"}
    answer = door.wire.ask("PUT", door.path(door.key_name()), body=SHORT, headers=headers)
    expect(answer, "InvalidRequest")


@check
def checksum_by_the_client_itself(door):
    """PutObject, ChecksumAlgorithm: what boto3 computes is accepted for every algorithm"""
    for algorithm in ALGORITHMS:
        key = door.put(BODY, ChecksumAlgorithm=algorithm)
        assert door.get(key, ChecksumMode="ENABLED") == BODY


@check
def checksum_content_md5(door):
    """PutObject, Content-MD5: the right one is accepted"""
    door.put(BODY, ContentMD5=md5_base64(BODY))


@check
def checksum_content_md5_wrong(door):
    """PutObject, Content-MD5: a wrong one is BadDigest, and nothing is put"""
    key = door.key_name()
    refused("BadDigest", door.put, body=BODY, key=key, ContentMD5=md5_base64(b"other"))
    assert not door.exists(key)


@check
def checksum_content_md5_malformed(door):
    """PutObject, Content-MD5: what is no MD5 is InvalidDigest"""
    for said in ("nonsense", base64_of(b"short"), "d41d8cd98f00b204e9800998ecf8427e", ""):
        key = door.key_name()
        answer = door.wire.ask("PUT", door.path(key), body=SHORT, headers={"Content-MD5": said})
        expect(answer, "InvalidDigest")
        assert not door.exists(key), said


@check
def checksum_content_sha256_wrong(door):
    """Signature version 4: a body of another SHA-256 than signed is XAmzContentSHA256Mismatch"""
    key = door.put(b"old")
    answer = door.wire.ask("PUT", door.path(key), body=SHORT, payload="0" * 64)
    expect(answer, "XAmzContentSHA256Mismatch")
    assert door.get(key) == b"old"


@check
def checksum_of_a_part(door):
    """UploadPart, Content-MD5 and x-amz-checksum-*: wrong ones are BadDigest"""
    upload = Upload(door, ChecksumAlgorithm="SHA256")
    refused("BadDigest", upload.put, number=1, body=SHORT, ChecksumSHA256=other_than("SHA256"))
    other = {"ContentMD5": md5_base64(b"other"), "ChecksumAlgorithm": "SHA256"}
    refused("BadDigest", upload.put, number=1, body=SHORT, **other)
    assert "Parts" not in door.s3.list_parts(**upload.named)
    value = checksum("SHA256", SHORT)
    assert upload.put(1, SHORT, ChecksumSHA256=value)["ChecksumSHA256"] == value
    assert door.s3.list_parts(**upload.named)["Parts"][0]["ChecksumSHA256"] == value
    upload.abort()


@check
def checksum_of_parts_composite(door):
    """CompleteMultipartUpload, COMPOSITE: the checksum of the parts' checksums"""
    # One short part where the checksum is computed byte by byte here.
    for algorithm in COMPOSITE:
        parts = PARTS if algorithm in ("CRC32", "SHA1", "SHA256") else [SHORT]
        upload = Upload(door, ChecksumAlgorithm=algorithm).put_all(parts, ChecksumAlgorithm=algorithm)
        wanted = composite(algorithm, parts)
        assert upload.complete()[field(algorithm)] == wanted
        head = door.s3.head_object(**upload.at, ChecksumMode="ENABLED")
        assert head[field(algorithm)] == wanted and head["ChecksumType"] == "COMPOSITE", head


@check
def checksum_of_parts_full_object(door):
    """CompleteMultipartUpload, FULL_OBJECT: the checksum of the whole content"""
    for algorithm in FULL_OBJECT:
        parts = PARTS if algorithm == "CRC32" else [SHORT]
        how = {"ChecksumAlgorithm": algorithm, "ChecksumType": "FULL_OBJECT"}
        upload = Upload(door, **how).put_all(parts, ChecksumAlgorithm=algorithm)
        wanted = checksum(algorithm, b"".join(parts))
        assert upload.complete(ChecksumType="FULL_OBJECT")[field(algorithm)] == wanted
        head = door.s3.head_object(**upload.at, ChecksumMode="ENABLED")
        assert head[field(algorithm)] == wanted and head["ChecksumType"] == "FULL_OBJECT", head


@check
def checksum_of_the_completion_wrong(door):
    """CompleteMultipartUpload, x-amz-checksum-*: a wrong one of the whole is BadDigest"""
    how = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
    upload = Upload(door, **how).put_all([SHORT], ChecksumAlgorithm="CRC32")
    refused("BadDigest", upload.complete, ChecksumCRC32=other_than("CRC32"), ChecksumType="FULL_OBJECT")
    assert not door.exists(upload.key)
    upload.complete(ChecksumCRC32=checksum("CRC32", SHORT), ChecksumType="FULL_OBJECT")


@check
def checksum_type_that_cannot_be(door):
    """CreateMultipartUpload: SHA1 and SHA256 have no FULL_OBJECT, CRC64NVME no COMPOSITE: InvalidRequest"""
    at = {"Bucket": door.bucket, "Key": door.key_name()}
    for algorithm, kind in (("SHA1", "FULL_OBJECT"), ("SHA256", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE")):
        how = {"ChecksumAlgorithm": algorithm, "ChecksumType": kind}
        refused("InvalidRequest", door.s3.create_multipart_upload, **at, **how)


@check
def checksum_of_a_ranged_get(door):
    """GetObject, Range with x-amz-checksum-mode: a part of the content carries no checksum of the whole"""
    key = door.put(SHORT, ChecksumAlgorithm="CRC32")
    assert door.get(key, Range="bytes=0-9", ChecksumMode="ENABLED") == SHORT[:10]
