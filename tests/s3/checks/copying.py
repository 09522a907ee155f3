"""CopyObject."""

from datetime import timedelta

from kit.digests import checksum, md5_hex
from kit.door import EXTENT_BYTES, MIB, expect, noise, refused
from kit.suite import check

OTHER_ETAG = '"00000000000000000000000000000000"'


def source(door, key):
    return {"Bucket": door.bucket, "Key": key}


def copied(door, key, **how):
    to = door.key_name("copy")
    door.s3.copy_object(Bucket=door.bucket, Key=to, CopySource=source(door, key), **how)
    return to


@check
def copy_takes_content_and_metadata(door):
    """CopyObject: bytes, content headers and user metadata"""
    key = door.put(b"content", ContentType="text/plain", CacheControl="no-cache", Metadata={"a": "b"})
    to = copied(door, key)
    head = door.s3.head_object(Bucket=door.bucket, Key=to)
    assert door.get(to) == b"content" and head["Metadata"] == {"a": "b"}
    assert head["ContentType"] == "text/plain" and head["CacheControl"] == "no-cache"
    assert head["ETag"] == f'"{md5_hex(b"content")}"'


@check
def copy_answers_etag_and_time(door):
    """CopyObject: CopyObjectResult with ETag and LastModified"""
    key = door.put(b"content")
    answer = door.s3.copy_object(Bucket=door.bucket, Key=door.key_name(), CopySource=source(door, key))
    result = answer["CopyObjectResult"]
    assert result["ETag"] == f'"{md5_hex(b"content")}"' and result["LastModified"].year > 2000


@check
def copy_replaces_metadata(door):
    """CopyObject, MetadataDirective REPLACE: only what the request says"""
    key = door.put(ContentType="text/plain", CacheControl="no-cache", Metadata={"a": "b"})
    to = copied(door, key, MetadataDirective="REPLACE", Metadata={"c": "d"}, ContentType="text/csv")
    head = door.s3.head_object(Bucket=door.bucket, Key=to)
    assert head["Metadata"] == {"c": "d"} and head["ContentType"] == "text/csv" and "CacheControl" not in head


@check
def copy_ignores_metadata_unless_replaced(door):
    """CopyObject, MetadataDirective COPY: metadata of the request is ignored"""
    key = door.put(Metadata={"a": "b"})
    to = copied(door, key, MetadataDirective="COPY", Metadata={"c": "d"})
    assert door.s3.head_object(Bucket=door.bucket, Key=to)["Metadata"] == {"a": "b"}


@check
def copy_onto_itself_changes_metadata(door):
    """CopyObject: onto itself with REPLACE keeps the bytes"""
    key = door.put(b"content", Metadata={"a": "b"})
    to_self = {"Bucket": door.bucket, "Key": key, "CopySource": source(door, key)}
    door.s3.copy_object(**to_self, MetadataDirective="REPLACE", Metadata={"c": "d"})
    assert door.get(key) == b"content"
    assert door.s3.head_object(Bucket=door.bucket, Key=key)["Metadata"] == {"c": "d"}


@check
def copy_onto_itself_without_change(door):
    """CopyObject: onto itself without a change is InvalidRequest"""
    key = door.put(b"content")
    refused("InvalidRequest", door.s3.copy_object, Bucket=door.bucket, Key=key, CopySource=source(door, key))


@check
def copy_between_buckets(door):
    """CopyObject: from one bucket to another"""
    key, other = door.put(b"content"), door.new_bucket()
    door.s3.copy_object(Bucket=other, Key="to", CopySource=source(door, key))
    assert door.get("to", bucket=other) == b"content"


@check
def copy_of_odd_names(door):
    """CopyObject: x-amz-copy-source is URL-encoded"""
    for key in ("a b+c%20d", "ü/日本?x=1", "a//b", "p%2Fq", "/lead"):
        door.put(key.encode(), key=key)
        assert door.get(copied(door, key)) == key.encode(), key


@check
def copy_source_with_and_without_leading_slash(door):
    """CopyObject: x-amz-copy-source may begin with a slash"""
    key = door.put(b"content")
    for said in (f"/{door.bucket}/{key}", f"{door.bucket}/{key}"):
        to = door.key_name()
        expect(door.wire.ask("PUT", door.path(to), headers={"x-amz-copy-source": said}), 200)
        assert door.get(to) == b"content"


@check
def copy_of_nothing(door):
    """CopyObject: NoSuchKey and NoSuchBucket of the source"""
    to = {"Bucket": door.bucket, "Key": door.key_name()}
    refused("NoSuchKey", door.s3.copy_object, **to, CopySource=source(door, "never-put"))
    refused("NoSuchBucket", door.s3.copy_object, **to, CopySource="never-made-by-anyone/key")
    assert not door.exists(to["Key"])


@check
def copy_source_malformed(door):
    """CopyObject: a source that names no object is InvalidArgument"""
    for said in ("no-slash-at-all", "/", f"{door.bucket}/"):
        headers = {"x-amz-copy-source": said}
        answer = door.wire.ask("PUT", door.path(door.key_name()), headers=headers)
        expect(answer, "InvalidArgument", "InvalidRequest", "InvalidURI", "NoSuchKey", "NoSuchBucket")


@check
def copy_if_match(door):
    """CopyObject, x-amz-copy-source-if-match and if-none-match"""
    key = door.put(b"content")
    etag = f'"{md5_hex(b"content")}"'
    copied(door, key, CopySourceIfMatch=etag)
    copied(door, key, CopySourceIfNoneMatch=OTHER_ETAG)
    for how in ({"CopySourceIfMatch": OTHER_ETAG}, {"CopySourceIfNoneMatch": etag}):
        to = {"Bucket": door.bucket, "Key": door.key_name()}
        refused("PreconditionFailed", door.s3.copy_object, **to, CopySource=source(door, key), **how)


@check
def copy_if_modified(door):
    """CopyObject, x-amz-copy-source-if-modified-since and if-unmodified-since"""
    key = door.put(b"content")
    modified = door.s3.head_object(Bucket=door.bucket, Key=key)["LastModified"]
    before, after = modified - timedelta(hours=1), modified + timedelta(seconds=1)
    copied(door, key, CopySourceIfModifiedSince=before)
    copied(door, key, CopySourceIfUnmodifiedSince=after)
    for how in ({"CopySourceIfModifiedSince": after}, {"CopySourceIfUnmodifiedSince": before}):
        to = {"Bucket": door.bucket, "Key": door.key_name()}
        refused("PreconditionFailed", door.s3.copy_object, **to, CopySource=source(door, key), **how)


@check
def copy_is_independent(door):
    """CopyObject: the copy stays when its source goes"""
    body = noise(EXTENT_BYTES + MIB)
    key = door.put(body)
    to = copied(door, key)
    door.s3.delete_object(Bucket=door.bucket, Key=key)
    assert door.get(to) == body


@check
def copy_of_an_empty_object(door):
    """CopyObject: of no bytes"""
    assert door.get(copied(door, door.put(b""))) == b""


@check
def copy_with_a_checksum(door):
    """CopyObject, x-amz-checksum-algorithm: the copy has that checksum"""
    to = copied(door, door.put(b"content"), ChecksumAlgorithm="SHA256")
    head = door.s3.head_object(Bucket=door.bucket, Key=to, ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"] == checksum("SHA256", b"content")
