"""Object names: every byte that S3 allows, and what it forbids."""

from urllib.parse import quote

from kit.door import expect, refused
from kit.suite import check

LONGEST_BYTES = 1024


def kept(door, *keys):
    """Each name is put, got, headed, listed and deleted under exactly that name."""
    bucket = door.new_bucket()
    for number, key in enumerate(keys):
        door.s3.put_object(Bucket=bucket, Key=key, Body=str(number).encode())
    for number, key in enumerate(keys):
        assert door.get(key, bucket=bucket) == str(number).encode(), key
        door.s3.head_object(Bucket=bucket, Key=key)
    listed = [entry["Key"] for entry in door.s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert sorted(listed) == sorted(keys), listed
    listed = [entry["Key"] for entry in door.s3.list_objects(Bucket=bucket)["Contents"]]
    assert sorted(listed) == sorted(keys), listed
    for key in keys:
        door.s3.delete_object(Bucket=bucket, Key=key)
    assert "Contents" not in door.s3.list_objects_v2(Bucket=bucket)


@check
def name_safe_characters(door):
    """Object key naming: the safe characters"""
    kept(door, "Az09!-_.*'()", "a/b/c.txt")


@check
def name_special_characters(door):
    """Object key naming: & $ @ = ; / : + space , ?"""
    kept(door, *[f"a{char}b" for char in "&$@=;:+ ,?"])


@check
def name_characters_to_avoid(door):
    """Object key naming: backslash, braces, caret, backtick, quotes, tilde, hash, pipe, percent"""
    kept(door, *[f"a{char}b" for char in "\\{}^`[]\"'<>~#|%"])


@check
def name_percent_sequences(door):
    """Object key naming: a name that looks encoded is not decoded twice"""
    kept(door, "a%20b", "a%2Fb", "a%252Fb", "%", "%zz", "a+b", "a b")


@check
def name_unicode(door):
    """Object key naming: any UTF-8, not normalised"""
    kept(door, "Grüße/日本語/🜍", "e\u0301", "\u00e9", "\u202eabc", "\ufeffbom", "\U0010ffff")


@check
def name_control_characters(door):
    """Object key naming: control characters come back through encoding-type=url"""
    kept(door, *[f"c{chr(code)}d" for code in [*range(1, 32), 127]])


@check
def name_control_characters_in_xml(door):
    """ListObjectsV2: without encoding-type a listing is still well-formed XML"""
    bucket = door.new_bucket()
    for key in ("tab\there", "line\nhere", "return\rhere", "a&b<c>d"):
        door.s3.put_object(Bucket=bucket, Key=key, Body=b"")
    answer = expect(door.wire.ask("GET", f"/{bucket}?list-type=2"), 200)
    assert b"a&amp;b&lt;c&gt;d" in answer.body
    assert b"return&#13;here" in answer.body.replace(b"&#xD;", b"&#13;").replace(b"&#xd;", b"&#13;"), answer.body


@check
def name_slashes(door):
    """Object key naming: leading, trailing and double slashes belong to the name"""
    kept(door, "/", "//", "/a", "//a", "a/", "a//b", "a/b", "a///b")


@check
def name_dots(door):
    """Object key naming: segments of dots are not folded"""
    kept(door, ".", "a/.", "a/./b", "a/b", "a/../b", "b", "a/..", "...")


@check
def name_like_a_query(door):
    """Object key naming: a name that holds a subresource is a name"""
    kept(door, "a?uploads", "a?versionId=1", "?acl", "a#fragment")


@check
def name_like_a_bucket(door):
    """Object key naming: `health` and the store's prefix are only reserved as buckets"""
    kept(door, "health", "resilver.uploads", "resilver.uploads/x")


@check
def name_prefix_of_another(door):
    """Object key naming: a name may be another's folder"""
    kept(door, "a", "a/", "a/b", "a/b/c", "a/b/")


@check
def name_of_one_byte(door):
    """Object key naming: every printable byte alone"""
    kept(door, *[chr(code) for code in range(33, 127)])


@check
def name_longest(door):
    """Object key naming: 1,024 bytes of UTF-8"""
    kept(door, "n" * LONGEST_BYTES, "ü" * (LONGEST_BYTES // 2))


@check
def name_too_long(door):
    """Object key naming: 1,025 bytes are KeyTooLongError"""
    key = "n" * (LONGEST_BYTES + 1)
    refused("KeyTooLongError", door.put, key=key)
    refused("KeyTooLongError", door.put, key="ü" * (LONGEST_BYTES // 2) + "x")
    refused("KeyTooLongError", door.s3.create_multipart_upload, Bucket=door.bucket, Key=key)
    expect(door.wire.ask("GET", door.path(key)), "KeyTooLongError", "NoSuchKey")


@check
def name_empty_is_the_bucket(door):
    """Object key naming: an empty name is no object; a PUT there is the bucket's"""
    answer = door.wire.ask("PUT", f"/{door.bucket}/", body=b"1")
    assert answer.status < 500 and "Contents" not in door.s3.list_objects_v2(Bucket=door.new_bucket()), answer


@check
def name_not_utf8(door):
    """Object key naming: bytes that are not UTF-8 are refused"""
    answer = expect(
        door.wire.ask("PUT", door.path("a%FFb"), body=b"1"), "InvalidURI", "InvalidArgument", "InvalidRequest"
    )
    assert answer.status == 400, answer


@check
def name_encoded_in_other_ways(door):
    """Signature version 4: one name, however it is encoded on the request line"""
    key = door.put(b"same", key=door.key_name("a~b-(c)!") + "é")
    for target in (quote(key, safe=""), quote(key, safe="~-()!"), "".join(f"%{byte:02x}" for byte in key.encode())):
        assert expect(door.wire.ask("GET", door.path(target)), 200).body == b"same", target
