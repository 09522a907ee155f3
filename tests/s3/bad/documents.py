"""XML that is not what S3 asks for."""

import time

from bad.rules import refusal, unharmed
from kit.digests import md5_base64
from kit.suite import check
from kit.uploads import Upload

# A bomb that goes off takes minutes and gigabytes.
SOON_S = 10
TOO_LARGE = ("EntityTooLarge", "MaxMessageLengthExceeded", "MalformedXML", "InvalidRequest")

LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "lol">'
    + b"".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">'.encode() for n in range(10))
    + b"]><Delete><Object><Key>&k;</Key></Object></Delete>"
)
OUTSIDE = (
    b'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY f SYSTEM "file:///etc/passwd">]>'
    b"<Delete><Object><Key>&f;</Key></Object></Delete>"
)
BROKEN = (
    b"",
    b" ",
    b"not xml",
    b"<",
    b"<Delete>",
    b"<Delete><Object><Key>k</Key></Object>",
    b"<Delete><Object></Delete></Object>",
    b"<Other><Object><Key>k</Key></Object></Other>",
    b"<Delete><Object><Key>\xff\xfe</Key></Object></Delete>",
    b"<Delete><Object><Key>&unknown;</Key></Object></Delete>",
    b"<Delete><Object><Key>&#xFFFFFFFF;</Key></Object></Delete>",
    b"<Delete><Object><NoKey>k</NoKey></Object></Delete>",
    b"<Delete><Quiet>perhaps</Quiet><Object><Key>k</Key></Object></Delete>",
    "<Delete><Object><Key>k</Key></Object></Delete>".encode("utf-16-le"),
    b'{"Objects": [{"Key": "k"}]}',
)


def delete(door, body):
    """DeleteObjects with this document; must be answered soon."""
    begun = time.monotonic()
    headers = {"Content-MD5": md5_base64(body)}
    answer = door.wire.ask("POST", f"/{door.bucket}?delete", body=body, headers=headers)
    assert time.monotonic() - begun < SOON_S, f"took {time.monotonic() - begun:.1f} s"
    return answer


def complete(door, upload, body):
    return door.wire.ask("POST", f"{door.path(upload.key)}?uploadId={upload.id}", body=body)


@check
def xml_entities_that_expand(door):
    """MalformedXML: entities that expand a billionfold"""
    refusal(delete(door, LAUGHS), "MalformedXML", "InvalidRequest")
    unharmed(door)


@check
def xml_entities_from_outside(door):
    """MalformedXML: an entity that names a file is not read"""
    answer = refusal(delete(door, OUTSIDE), "MalformedXML", "InvalidRequest")
    assert b"root:" not in answer.body


@check
def xml_nested_deeply(door):
    """MalformedXML: a hundred thousand elements within each other"""
    for depth in (1000, 100_000):
        refusal(delete(door, b"<a>" * depth + b"</a>" * depth), *TOO_LARGE)
        refusal(delete(door, b"<Delete>" + b"<Object>" * depth), *TOO_LARGE)
    unharmed(door)


@check
def xml_that_is_huge(door):
    """MalformedXML or too large: megabytes of nothing, of attributes, of one name"""
    size = 8 * 1024 * 1024
    refusal(delete(door, b"<Delete>" + b" " * size + b"</Delete>"), *TOO_LARGE)
    refusal(delete(door, b"<Delete " + b'a="b" ' * (size // 6) + b"/>"), *TOO_LARGE)
    refusal(
        delete(door, b"<Delete><Object><Key>" + b"k" * size + b"</Key></Object></Delete>"),
        *TOO_LARGE,
        "KeyTooLongError",
    )
    refusal(delete(door, b"<!--" + b"-" * size), *TOO_LARGE)
    unharmed(door)


@check
def xml_that_is_broken(door):
    """MalformedXML: whatever is not a Delete document"""
    for body in BROKEN:
        refusal(
            delete(door, body), "MalformedXML", "InvalidRequest", "MissingRequestBodyError", "UserKeyMustBeSpecified"
        )
    unharmed(door)


@check
def xml_names_that_cannot_be(door):
    """DeleteObjects: a name that cannot be is refused for itself or with the document; the others' fate is told"""
    key = door.put()
    for name in ("", "n" * 1025, "\0", "&#0;", "&#xFFFE;"):
        body = f"<Delete><Object><Key>{key}</Key></Object><Object><Key>{name}</Key></Object></Delete>".encode()
        answer = delete(door, body)
        assert answer.status < 500 and (answer.code or b"<Error>" in answer.body or b"<Deleted>" in answer.body), answer


@check
def xml_of_a_completion(door):
    """CompleteMultipartUpload: bombs and broken documents are MalformedXML, and the upload stays"""
    upload = Upload(door)
    upload.put(1, b"part")
    bomb = LAUGHS.replace(b"Delete>", b"CompleteMultipartUpload>")
    for body in (bomb, b"<a>" * 100_000, b"<CompleteMultipartUpload>" + b" " * 4_000_000, *BROKEN):
        refusal(complete(door, upload, body), *TOO_LARGE)
    upload.complete()
    assert door.get(upload.key) == b"part"


@check
def xml_of_a_bucket(door):
    """CreateBucket: bombs and broken documents are MalformedXML, and nothing is made"""
    name = "never-made-by-broken-xml"
    for body in (LAUGHS, b"<a>" * 100_000, b"<CreateBucketConfiguration>", b"not xml", b"\xff\xfe"):
        refusal(door.wire.ask("PUT", f"/{name}", body=body), *TOO_LARGE)
    names = [bucket["Name"] for bucket in door.s3.list_buckets()["Buckets"]]
    assert name not in names
