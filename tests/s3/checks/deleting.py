"""DeleteObjects: many in one request."""

from kit.digests import md5_base64
from kit.door import expect, refused
from kit.suite import check

MOST_KEYS = 1000


def deletion(keys, quiet=False):
    return {"Objects": [{"Key": key} for key in keys], "Quiet": quiet}


@check
def delete_many(door):
    """DeleteObjects: each key is answered, and gone"""
    keys = [door.put() for _ in range(3)]
    answer = door.s3.delete_objects(Bucket=door.bucket, Delete=deletion(keys))
    assert [entry["Key"] for entry in answer["Deleted"]] == keys and "Errors" not in answer
    assert not [key for key in keys if door.exists(key)]


@check
def delete_many_quiet(door):
    """DeleteObjects, Quiet: only errors are answered"""
    key = door.put()
    answer = door.s3.delete_objects(Bucket=door.bucket, Delete=deletion([key], quiet=True))
    assert "Deleted" not in answer and "Errors" not in answer
    assert not door.exists(key)


@check
def delete_many_that_are_not_there(door):
    """DeleteObjects: a key that is not there counts as deleted"""
    key = door.put()
    answer = door.s3.delete_objects(Bucket=door.bucket, Delete=deletion([key, "never-put"]))
    assert {entry["Key"] for entry in answer["Deleted"]} == {key, "never-put"}


@check
def delete_many_at_the_limit(door):
    """DeleteObjects: 1,000 keys"""
    bucket = door.new_bucket()
    door.s3.put_object(Bucket=bucket, Key="k999", Body=b"")
    door.s3.put_object(Bucket=bucket, Key="stays", Body=b"")
    keys = [f"k{number}" for number in range(MOST_KEYS)]
    answer = door.s3.delete_objects(Bucket=bucket, Delete=deletion(keys))
    assert len(answer["Deleted"]) == MOST_KEYS
    assert [entry["Key"] for entry in door.s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["stays"]


@check
def delete_many_above_the_limit(door):
    """DeleteObjects: 1,001 keys are MalformedXML, and nothing is deleted"""
    key = door.put()
    keys = [key] + [f"k{number}" for number in range(MOST_KEYS)]
    refused("MalformedXML", door.s3.delete_objects, Bucket=door.bucket, Delete=deletion(keys))
    assert door.exists(key)


@check
def delete_many_of_none(door):
    """DeleteObjects: an empty list is MalformedXML"""
    refused("MalformedXML", door.s3.delete_objects, Bucket=door.bucket, Delete={"Objects": []})


@check
def delete_many_odd_names(door):
    """DeleteObjects: names with markup, spaces and control characters that XML can carry"""
    keys = ["a&b<c>\"d'", " lead and trail ", "tab\there", "ünï/日本", "a\rb", "a\nb"]
    for key in keys:
        door.put(key=key)
    answer = door.s3.delete_objects(Bucket=door.bucket, Delete=deletion(keys))
    assert "Errors" not in answer, answer["Errors"]
    assert not [key for key in keys if door.exists(key)]


@check
def delete_many_named_twice(door):
    """DeleteObjects: a key may be named twice"""
    key = door.put()
    answer = door.s3.delete_objects(Bucket=door.bucket, Delete=deletion([key, key]))
    assert "Errors" not in answer and not door.exists(key)


@check
def delete_many_needs_a_digest(door):
    """DeleteObjects: a body needs Content-MD5 or a checksum"""
    body = b"<Delete><Object><Key>stays</Key></Object></Delete>"
    door.put(key="stays")
    expect(door.wire.ask("POST", f"/{door.bucket}?delete", body=body), "InvalidRequest", "MissingContentMD5")
    assert door.exists("stays")


@check
def delete_many_with_a_wrong_digest(door):
    """DeleteObjects: a wrong Content-MD5 is BadDigest, and nothing is deleted"""
    body = b"<Delete><Object><Key>stays</Key></Object></Delete>"
    door.put(key="stays")
    headers = {"Content-MD5": md5_base64(b"other")}
    expect(door.wire.ask("POST", f"/{door.bucket}?delete", body=body, headers=headers), "BadDigest")
    assert door.exists("stays")
