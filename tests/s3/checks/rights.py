"""What access keys may do, and quotas: set with the `resilver` command, met through the door."""

import contextlib
import time

from botocore.exceptions import ClientError

from kit.door import MIB, code_of, refused
from kit.sigv4 import Key
from kit.suite import check

# How long until every node knows of a change that one of them was told.
KNOWN_S = 10


@contextlib.contextmanager
def key_with(door, *rights, bucket=None):
    """A client with a key of its own that has these rights in the common bucket (or another), and the key."""
    made = door.command("key", "create", "check")
    key = Key(made["access_key"], made["secret_key"])
    if rights:
        door.command("key", "grant", key.id, bucket or door.bucket, *[f"--{right}" for right in rights])
    try:
        yield door.client(key), key
    finally:
        door.command("key", "revoke", key.id, "--confirm", key.id)


def may(call, **arguments):
    """Whether it is allowed; what else goes wrong is passed on."""
    try:
        call(**arguments)
        return True
    except ClientError as error:
        if code_of(error) in ("AccessDenied", "403"):
            return False
        raise


@check
def rights_of_reading(door):
    """Access keys, read: get, head and list; neither put nor delete"""
    key = door.put()
    at = {"Bucket": door.bucket, "Key": key}
    with key_with(door, "read") as (client, _):
        assert may(client.get_object, **at) and may(client.head_object, **at)
        assert may(client.list_objects_v2, Bucket=door.bucket) and may(client.head_bucket, Bucket=door.bucket)
        assert not may(client.put_object, **at, Body=b"x") and not may(client.delete_object, **at)
        assert not may(client.create_multipart_upload, **at) and not may(client.delete_bucket, Bucket=door.bucket)
        assert not may(client.copy_object, Bucket=door.bucket, Key="copy", CopySource=at)
    assert door.get(key) == b"content"


@check
def rights_of_reading_many_deletes(door):
    """Access keys, read: DeleteObjects is a write"""
    key = door.put()
    with key_with(door, "read") as (client, _):
        try:
            answer = client.delete_objects(Bucket=door.bucket, Delete={"Objects": [{"Key": key}]})
            assert answer["Errors"][0]["Code"] == "AccessDenied", answer
        except ClientError as error:
            assert code_of(error) == "AccessDenied", error
    assert door.exists(key)


@check
def rights_of_writing(door):
    """Access keys, write: put, delete and multipart; not get"""
    at = {"Bucket": door.bucket, "Key": door.key_name()}
    with key_with(door, "write") as (client, _):
        assert may(client.put_object, **at, Body=b"x")
        assert not may(client.get_object, **at) and not may(client.head_object, **at)
        upload = client.create_multipart_upload(**at)["UploadId"]
        part = client.upload_part(**at, UploadId=upload, PartNumber=1, Body=b"part")["ETag"]
        parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
        client.complete_multipart_upload(**at, UploadId=upload, MultipartUpload=parts)
        assert door.get(at["Key"]) == b"part"
        assert may(client.delete_object, **at) and not may(client.delete_bucket, Bucket=door.bucket)


@check
def rights_of_copying(door):
    """Access keys: a copy needs read at its source and write at its end"""
    source = {"Bucket": door.bucket, "Key": door.put()}
    other = door.new_bucket()
    with key_with(door, "write", bucket=other) as (client, _):
        assert not may(client.copy_object, Bucket=other, Key="copy", CopySource=source)
        upload = client.create_multipart_upload(Bucket=other, Key="copy")["UploadId"]
        named = {"Bucket": other, "Key": "copy", "UploadId": upload}
        assert not may(client.upload_part_copy, **named, PartNumber=1, CopySource=source)
    assert not door.exists("copy", bucket=other)


@check
def rights_of_administration(door):
    """Access keys, admin of a bucket: the bucket's end; what is in it needs read and write, as anywhere"""
    bucket = door.new_bucket()
    with key_with(door, "admin", bucket=bucket) as (client, _):
        assert not may(client.put_object, Bucket=bucket, Key="k", Body=b"x")
        assert not may(client.delete_bucket, Bucket=door.bucket)
        assert not may(client.create_bucket, Bucket="made-without-right")
        assert may(client.delete_bucket, Bucket=bucket)


@check
def rights_of_nothing(door):
    """Access keys without a grant: AccessDenied everywhere, for what is there and what is not"""
    key = door.put()
    with key_with(door) as (client, _):
        assert not may(client.get_object, Bucket=door.bucket, Key=key)
        assert not may(client.get_object, Bucket=door.bucket, Key="never-put")
        assert not may(client.list_objects_v2, Bucket=door.bucket) and not may(client.head_bucket, Bucket=door.bucket)


@check
def rights_in_the_listing_of_buckets(door):
    """ListBuckets: only those in which the key may do something"""
    hidden = door.new_bucket()
    with key_with(door, "read") as (client, _):
        names = [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
        assert door.bucket in names and hidden not in names, names


@check
def rights_denied_again(door):
    """`key deny`: what was granted is taken back, at every node within seconds"""
    key = door.put()
    with key_with(door, "read") as (client, held):
        assert may(client.get_object, Bucket=door.bucket, Key=key)
        door.command("key", "deny", held.id, door.bucket)
        until = time.monotonic() + KNOWN_S
        while may(client.get_object, Bucket=door.bucket, Key=key):
            assert time.monotonic() < until, f"still allowed after {KNOWN_S} s"
            time.sleep(0.1)


@check
def rights_of_a_revoked_key(door):
    """`key revoke`: InvalidAccessKeyId from then on"""
    with key_with(door, "read") as (client, _):
        client.list_objects_v2(Bucket=door.bucket)
    until = time.monotonic() + KNOWN_S
    while True:
        try:
            client.list_objects_v2(Bucket=door.bucket)
        except ClientError as error:
            assert code_of(error) == "InvalidAccessKeyId", error
            return
        assert time.monotonic() < until, f"still accepted after {KNOWN_S} s"
        time.sleep(0.1)


@check
def quota_of_a_bucket(door):
    """`bucket set --quota`: more is QuotaExceeded; reads and deletes go on, and make room"""
    bucket = door.new_bucket()
    door.command("bucket", "set", bucket, "--quota", "1MiB")
    door.s3.put_object(Bucket=bucket, Key="fits", Body=b"x" * (MIB - 1000))
    refused("QuotaExceeded", door.s3.put_object, Bucket=bucket, Key="more", Body=b"x" * 2000)
    assert not door.exists("more", bucket=bucket) and len(door.get("fits", bucket=bucket)) == MIB - 1000
    door.s3.delete_object(Bucket=bucket, Key="fits")
    door.s3.put_object(Bucket=bucket, Key="more", Body=b"x" * 2000)


@check
def quota_of_parts(door):
    """`bucket set --quota`: parts of an unfinished upload count, and make room when it is aborted"""
    bucket = door.new_bucket()
    door.command("bucket", "set", bucket, "--quota", "1MiB")
    at = {"Bucket": bucket, "Key": "k"}
    upload = door.s3.create_multipart_upload(**at)["UploadId"]
    door.s3.upload_part(**at, UploadId=upload, PartNumber=1, Body=b"x" * (MIB - 1000))
    refused("QuotaExceeded", door.s3.upload_part, **at, UploadId=upload, PartNumber=2, Body=b"x" * 2000)
    refused("QuotaExceeded", door.s3.put_object, Bucket=bucket, Key="more", Body=b"x" * 2000)
    door.s3.abort_multipart_upload(**at, UploadId=upload)
    door.s3.put_object(Bucket=bucket, Key="more", Body=b"x" * 2000)


@check
def quota_of_an_overwrite(door):
    """`bucket set --quota`: an overwrite counts what it adds"""
    bucket = door.new_bucket()
    door.command("bucket", "set", bucket, "--quota", "1MiB")
    for _ in range(3):
        door.s3.put_object(Bucket=bucket, Key="same", Body=b"x" * (MIB - 1000))
    assert len(door.get("same", bucket=bucket)) == MIB - 1000
