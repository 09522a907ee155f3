"""Objects: what is put is what is got, with everything that was said of it."""

import socket
from datetime import datetime, timedelta, timezone

from kit.digests import md5_hex
from kit.door import EXTENT_BYTES, MIB, expect, noise, refused
from kit.sigv4 import Key
from kit.suite import check
from kit.wire import read_answer

USER_METADATA_LIMIT_BYTES = 2048


@check
def object_round_trip(door):
    """PutObject, GetObject: the bytes that were put"""
    body = noise(100_000)
    assert door.get(door.put(body)) == body


@check
def object_through_another_node(door):
    """PutObject, GetObject: strong read-after-write through any endpoint"""
    body = noise(3 * MIB)
    key = door.put(body)
    assert door.other.get_object(Bucket=door.bucket, Key=key)["Body"].read() == body


@check
def object_of_no_bytes(door):
    """PutObject: an empty object is an object of length 0"""
    key = door.put(b"")
    answer = door.s3.get_object(Bucket=door.bucket, Key=key)
    assert answer["ContentLength"] == 0 and answer["Body"].read() == b""
    assert answer["ETag"] == f'"{md5_hex(b"")}"'


@check
def object_across_extents(door):
    """PutObject, GetObject: sizes around the store's 16 MiB extents come back whole"""
    for size in (EXTENT_BYTES - 1, EXTENT_BYTES, EXTENT_BYTES + 1):
        body = noise(size)
        assert door.get(door.put(body)) == body, size


@check
def object_etag_is_md5(door):
    """PutObject: the ETag of a plain put is its MD5 in quotes, in every answer"""
    body = noise(70_000)
    key = door.key_name()
    wanted = f'"{md5_hex(body)}"'
    assert door.s3.put_object(Bucket=door.bucket, Key=key, Body=body)["ETag"] == wanted
    assert door.s3.head_object(Bucket=door.bucket, Key=key)["ETag"] == wanted
    assert door.s3.get_object(Bucket=door.bucket, Key=key)["ETag"] == wanted
    assert door.s3.list_objects_v2(Bucket=door.bucket, Prefix=key)["Contents"][0]["ETag"] == wanted


@check
def object_head_says_what_get_says(door):
    """HeadObject: the same headers as GetObject, without a body"""
    key = door.put(noise(1234), ContentType="text/plain", Metadata={"a": "b"})
    head = door.s3.head_object(Bucket=door.bucket, Key=key)
    got = door.s3.get_object(Bucket=door.bucket, Key=key)
    for field in ("ContentLength", "ContentType", "ETag", "LastModified", "Metadata", "AcceptRanges"):
        assert head[field] == got[field], field
    assert head["ContentLength"] == 1234 and head["AcceptRanges"] == "bytes"


@check
def object_last_modified_is_now(door):
    """HeadObject: LastModified is when the object was put, to the second"""
    key = door.put()
    modified = door.s3.head_object(Bucket=door.bucket, Key=key)["LastModified"]
    assert abs(datetime.now(timezone.utc) - modified) < timedelta(seconds=30), modified


@check
def object_missing(door):
    """GetObject: NoSuchKey; HeadObject: 404"""
    refused("NoSuchKey", door.s3.get_object, Bucket=door.bucket, Key="never-put")
    refused("404", door.s3.head_object, Bucket=door.bucket, Key="never-put")


@check
def object_error_names_key_and_request(door):
    """Error responses: Code, Message, RequestId in the body; x-amz-request-id in the header"""
    error = refused("NoSuchKey", door.s3.get_object, Bucket=door.bucket, Key="never-put")
    assert error.response["Error"]["Message"]
    assert error.response["ResponseMetadata"]["HTTPHeaders"].get("x-amz-request-id")


@check
def object_overwritten(door):
    """PutObject: the last put wins, at every endpoint"""
    key = door.put(b"old")
    door.put(b"newer", key=key)
    assert door.get(key) == b"newer"
    assert door.other.get_object(Bucket=door.bucket, Key=key)["Body"].read() == b"newer"


@check
def object_overwrite_forgets_metadata(door):
    """PutObject: an overwrite takes nothing over from the object before"""
    key = door.put(b"old", Metadata={"a": "b"}, ContentType="text/plain", CacheControl="no-cache")
    door.put(b"new", key=key)
    head = door.s3.head_object(Bucket=door.bucket, Key=key)
    assert head["Metadata"] == {} and "CacheControl" not in head and head["ContentType"] != "text/plain"


@check
def object_deleted(door):
    """DeleteObject: 204, and it is gone at every endpoint"""
    key = door.put()
    assert door.s3.delete_object(Bucket=door.bucket, Key=key)["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert not door.exists(key)
    refused("NoSuchKey", door.other.get_object, Bucket=door.bucket, Key=key)


@check
def object_deleted_twice(door):
    """DeleteObject: deleting what is not there is 204 as well"""
    key = door.put()
    for _ in range(2):
        assert door.s3.delete_object(Bucket=door.bucket, Key=key)["ResponseMetadata"]["HTTPStatusCode"] == 204


@check
def object_put_after_delete(door):
    """DeleteObject, PutObject: a name can be used again"""
    key = door.put(b"first")
    door.s3.delete_object(Bucket=door.bucket, Key=key)
    door.put(b"second", key=key)
    assert door.get(key) == b"second"


@check
def object_content_headers(door):
    """PutObject: content headers come back as they were sent"""
    said = {
        "ContentType": "text/html; charset=utf-8",
        "ContentEncoding": "gzip",
        "ContentLanguage": "de, en",
        "ContentDisposition": 'attachment; filename="a b.html"',
        "CacheControl": "max-age=3600, must-revalidate",
    }
    key = door.put(**said)
    for answer in (door.s3.head_object(Bucket=door.bucket, Key=key), door.s3.get_object(Bucket=door.bucket, Key=key)):
        assert {field: answer[field] for field in said} == said


@check
def object_expires_header(door):
    """PutObject: Expires comes back as it was sent"""
    key = door.put(Expires=datetime(2031, 5, 6, 7, 8, 9, tzinfo=timezone.utc))
    headers = door.s3.head_object(Bucket=door.bucket, Key=key)["ResponseMetadata"]["HTTPHeaders"]
    assert headers["expires"] == "Tue, 06 May 2031 07:08:09 GMT", headers.get("expires")


@check
def object_content_type_default(door):
    """PutObject: without a Content-Type it is binary/octet-stream"""
    key = door.key_name()
    expect(door.wire.ask("PUT", door.path(key), body=b"1"), 200)
    kind = door.s3.head_object(Bucket=door.bucket, Key=key)["ContentType"]
    assert kind in ("binary/octet-stream", "application/octet-stream"), kind


@check
def object_content_encoding_without_aws_chunked(door):
    """PutObject: `aws-chunked` is the transfer's and not the object's encoding"""
    key = door.key_name()
    headers = {"Content-Encoding": "gzip"}
    expect(door.wire.ask("PUT", door.path(key), body=b"1", headers=headers), 200)
    assert door.s3.head_object(Bucket=door.bucket, Key=key)["ContentEncoding"] == "gzip"


@check
def object_user_metadata(door):
    """PutObject: x-amz-meta-* come back with their values"""
    said = {"colour": "red", "empty-not": "0", "with.dots_and-dashes": "a b  c"}
    head = door.s3.head_object(Bucket=door.bucket, Key=door.put(Metadata=said))
    assert {name: " ".join(value.split()) for name, value in head["Metadata"].items()} == {
        name: " ".join(value.split()) for name, value in said.items()
    }


@check
def object_user_metadata_in_lower_case(door):
    """Object metadata: the names are kept in lower case, the values as they are"""
    key = door.put(Metadata={"MixedCase": "MixedValue"})
    assert door.s3.head_object(Bucket=door.bucket, Key=key)["Metadata"] == {"mixedcase": "MixedValue"}


@check
def object_user_metadata_at_its_limit(door):
    """Object metadata: 2 KB of names and values are taken, more is MetadataTooLarge"""
    name = "n" * 48
    key = door.put(Metadata={name: "v" * (USER_METADATA_LIMIT_BYTES - len(name))})
    assert len(door.s3.head_object(Bucket=door.bucket, Key=key)["Metadata"][name]) == USER_METADATA_LIMIT_BYTES - 48
    too_much = {name: "v" * (USER_METADATA_LIMIT_BYTES - len(name) + 1)}
    refused("MetadataTooLarge", door.put, Metadata=too_much)


@check
def object_user_metadata_repeated(door):
    """Object metadata: a header that comes twice is one, joined by commas"""
    key = door.key_name()
    request = door.wire.signed("PUT", door.path(key), body=b"1", headers={"x-amz-meta-twice": "one,two"})
    split = request.replace(b"x-amz-meta-twice: one,two\r\n", b"x-amz-meta-twice: one\r\nx-amz-meta-twice: two\r\n")
    expect(door.wire.send(split), 200)
    kept = door.s3.head_object(Bucket=door.bucket, Key=key)["Metadata"]["twice"]
    assert kept.replace(" ", "") == "one,two", kept


@check
def object_response_headers_overridden(door):
    """GetObject: response-* query parameters replace headers of a signed request"""
    key = door.put(ContentType="text/plain")
    answer = door.s3.get_object(
        Bucket=door.bucket,
        Key=key,
        ResponseContentType="text/csv",
        ResponseContentDisposition="attachment",
        ResponseCacheControl="no-store",
    )
    assert answer["ContentType"] == "text/csv" and answer["ContentDisposition"] == "attachment"
    assert answer["CacheControl"] == "no-store"
    assert door.s3.head_object(Bucket=door.bucket, Key=key)["ContentType"] == "text/plain"


@check
def object_without_length(door):
    """PutObject: without Content-Length it is MissingContentLength"""
    headers = {"Transfer-Encoding": "chunked"}
    request = door.wire.signed("PUT", door.path(door.key_name()), headers=headers, body=b"1\r\na\r\n0\r\n\r\n")
    expect(door.wire.send(request), "MissingContentLength", 411)


@check
def object_larger_than_a_put_may_be(door):
    """PutObject: more than 5 GiB announced is EntityTooLarge before a byte is sent"""
    headers = {"Content-Length": str(5 * 1024 * MIB + 1)}
    request = door.wire.signed("PUT", door.path(door.key_name()), headers=headers)
    expect(door.wire.send(request), "EntityTooLarge")


@check
def object_expect_100_continue(door):
    """Authenticating requests: Expect: 100-continue is answered before the body is sent"""
    key = door.key_name()
    headers = {"Expect": "100-continue", "Content-Length": "5"}
    head = door.wire.signed("PUT", door.path(key), headers=headers)
    with door.wire.connect() as connection:
        connection.sendall(head)
        assert connection.recv(64).startswith(b"HTTP/1.1 100"), "no 100 Continue"
        connection.sendall(b"12345")
        assert connection.recv(64).startswith(b"HTTP/1.1 200")
    assert door.get(key) == b"12345"


@check
def object_expect_100_continue_and_no_content(door):
    """PutObject, Expect: 100-continue: an answer without 100 Continue before it ends its connection, also where there
    is no content to wait for: the AWS command line takes the next answer on it for headers, and waits a minute"""
    empty = door.wire.signed("PUT", door.path(door.key_name()), headers={"Expect": "100-continue"})
    wrong = door.wire.signed(
        "PUT",
        door.path(door.key_name()),
        headers={"Expect": "100-continue", "Content-Length": "5"},
        key=Key(door.key.id, "0" * 40),
    )
    for request in (empty, wrong):
        with door.wire.connect() as connection:
            connection.sendall(request)
            began = connection.recv(12, socket.MSG_PEEK)
            answer = read_answer(connection)
            assert answer.status in (200, 403), answer
            ended = answer.headers.get("connection") == "close"
            assert began == b"HTTP/1.1 100" or ended, f"{answer} without 100 Continue, on a connection that stays"


@check
def object_tagging_is_not_swallowed(door):
    """PutObject: what the door does not keep (tags, a customer's encryption key) is refused, not ignored"""
    refused("NotImplemented", door.put, Tagging="a=b")
    secret = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "0" * 32}
    refused(("NotImplemented", "InvalidRequest"), door.put, **secret)
