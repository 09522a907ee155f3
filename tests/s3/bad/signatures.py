"""Wrong, expired and replayed signatures, and clocks that differ."""

import hashlib
from datetime import datetime, timedelta, timezone

from bad.rules import refusal
from kit import sigv4
from kit.door import expect
from kit.sigv4 import Key, Scope
from kit.suite import check

BODY = b"signed body"
BODY_SHA256 = hashlib.sha256(BODY).hexdigest()
# The example of S3's documentation, "Signature Calculations for the Authorization Header".
DOCUMENTED_KEY = Key("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
DOCUMENTED = {
    "header": "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    "query": "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
    "chunk": "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "trailer": "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435",
}
MALFORMED = (
    "AuthorizationHeaderMalformed",
    "InvalidArgument",
    "InvalidRequest",
    "AccessDenied",
    "SignatureDoesNotMatch",
    "MissingSecurityHeader",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "CredentialsNotSupported",
    "NotImplemented",
)


def shifted(**by):
    return Scope.at(datetime.now(timezone.utc) + timedelta(**by))


def captured(door, key, **how):
    """A good PUT with a signed payload, as bytes."""
    return door.wire.signed("PUT", door.path(key), body=BODY, payload=BODY_SHA256, **how)


@check
def signatures_by_hand_are_those_of_the_documentation(door):  # pylint: disable=unused-argument
    """Signature version 4: what these checks sign with is right itself"""
    scope, host = Scope("20130524T000000Z"), "examplebucket.s3.amazonaws.com"
    empty = sigv4.EMPTY_SHA256
    signed = sigv4.signed_headers(DOCUMENTED_KEY, scope, "GET", "/?lifecycle", {"Host": host}, empty)
    assert signed["Authorization"].endswith(DOCUMENTED["header"])
    assert sigv4.presigned(DOCUMENTED_KEY, scope, "GET", "/test.txt", host, 86400).endswith(DOCUMENTED["query"])
    seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    assert DOCUMENTED["chunk"].encode() in sigv4.Chunks(DOCUMENTED_KEY, scope, seed).chunk(b"a" * 65536)
    chunks = sigv4.Chunks(DOCUMENTED_KEY, scope, "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e")
    for size in (65536, 1024, 0):
        chunks.chunk(b"a" * size)
    assert DOCUMENTED["trailer"].encode() in chunks.trailer("x-amz-checksum-crc32c", "sOO8/Q==")


@check
def signature_by_hand_is_accepted(door):
    """Signature version 4: a request signed by hand is as good as any"""
    key = door.key_name()
    expect(door.wire.send(captured(door, key)), 200)
    assert door.get(key) == BODY


@check
def signature_with_one_digit_changed(door):
    """SignatureDoesNotMatch: one digit of the signature"""
    key = door.key_name()
    good = captured(door, key)
    at = good.index(b"Signature=") + len(b"Signature=")
    for where in (at, at + 31, at + 63):
        digit = b"1" if good[where : where + 1] == b"0" else b"0"
        refusal(door.wire.send(good[:where] + digit + good[where + 1 :]), "SignatureDoesNotMatch")
    assert not door.exists(key)


@check
def signature_shorter_longer_or_no_digits(door):
    """SignatureDoesNotMatch or malformed: what is no signature at all"""
    key = door.key_name()
    good = captured(door, key).decode()
    head, _, tail = good.partition("Signature=")
    for said in ("", "0", tail[:63], tail[:64] + "0", "g" * 64, tail[:64].upper()):
        refusal(door.wire.send((head + "Signature=" + said + tail[64:]).encode()), *MALFORMED)
    assert not door.exists(key)


@check
def signature_from_the_past(door):
    """RequestTimeTooSkewed: more than 15 minutes behind"""
    key = door.key_name()
    for by in ({"minutes": -16}, {"hours": -25}, {"days": -400}):
        refusal(door.wire.send(captured(door, key, scope=shifted(**by))), "RequestTimeTooSkewed")
    assert not door.exists(key)


@check
def signature_from_the_future(door):
    """RequestTimeTooSkewed: more than 15 minutes ahead"""
    key = door.key_name()
    for by in ({"minutes": 16}, {"hours": 25}, {"days": 400}):
        refusal(door.wire.send(captured(door, key, scope=shifted(**by))), "RequestTimeTooSkewed")
    assert not door.exists(key)


@check
def signature_of_a_clock_that_is_a_little_wrong(door):
    """Clock skew: ten minutes either way are accepted"""
    for minutes in (-10, 10):
        key = door.key_name()
        expect(door.wire.send(captured(door, key, scope=shifted(minutes=minutes))), 200)


@check
def signature_time_that_is_no_time(door):
    """AccessDenied or malformed: x-amz-date that is no date"""
    for stamp in ("", "now", "20260101", "20261332T256199Z", "20260101T000000", "99999999T999999Z"):
        refusal(door.wire.send(captured(door, door.key_name(), scope=Scope(stamp))), *MALFORMED, "RequestTimeTooSkewed")


@check
def presigned_long_ago(door):
    """AccessDenied: a presigned URL after its time"""
    key = door.put()
    target = sigv4.presigned(door.key, shifted(hours=-1), "GET", door.path(key), door.wire.host, 60)
    refusal(door.wire.send(plain_get(door, target)), "AccessDenied")


@check
def presigned_for_tomorrow(door):
    """AccessDenied: a presigned URL before its time"""
    target = sigv4.presigned(door.key, shifted(days=1), "GET", door.path(door.put()), door.wire.host, 60)
    refusal(door.wire.send(plain_get(door, target)), "AccessDenied", "RequestTimeTooSkewed")


@check
def presigned_with_nonsense_for_a_life(door):
    """AuthorizationQueryParametersError: X-Amz-Expires below 0, above seven days, or no number"""
    for expires in ("-1", "604801", "soon", "", "99999999999999999999"):
        target = sigv4.presigned(door.key, Scope.at(), "GET", door.path(door.put()), door.wire.host, expires)
        refusal(door.wire.send(plain_get(door, target)), "AuthorizationQueryParametersError", "AccessDenied")


@check
def presigned_with_parameters_missing(door):
    """AuthorizationQueryParametersError: a query signature needs all of its parameters"""
    target = sigv4.presigned(door.key, Scope.at(), "GET", door.path(door.put()), door.wire.host, 60)
    path, _, query = target.partition("?")
    for left_out in range(len(query.split("&"))):
        rest = "&".join(pair for number, pair in enumerate(query.split("&")) if number != left_out)
        codes = ("AuthorizationQueryParametersError", "AccessDenied", "InvalidRequest", "SignatureDoesNotMatch")
        refusal(door.wire.send(plain_get(door, f"{path}?{rest}")), *codes)


def plain_get(door, target):
    return f"GET {target} HTTP/1.1\r\nHost: {door.wire.host}\r\n\r\n".encode()


@check
def replayed_with_another_body(door):
    """XAmzContentSHA256Mismatch: a captured signature does not carry another body"""
    key = door.key_name()
    good = captured(door, key)
    expect(door.wire.send(good), 200)
    refusal(door.wire.send(good[: -len(BODY)] + b"forged body"), "XAmzContentSHA256Mismatch")
    assert door.get(key) == BODY


@check
def replayed_for_another_request(door):
    """SignatureDoesNotMatch: a captured signature holds for its own method, name, query and headers"""
    key, victim = door.key_name(), door.put(b"victim")
    good = captured(door, key, headers={"x-amz-meta-a": "b"}).decode()
    forged = (
        good.replace(f"/{key} ", f"/{victim} "),
        good.replace("PUT ", "DELETE ", 1).replace(f"/{key} ", f"/{victim} "),
        good.replace(f"/{key} ", f"/{key}?acl "),
        good.replace("x-amz-meta-a: b", "x-amz-meta-a: c"),
        good.replace("SignedHeaders=host;", "SignedHeaders="),
    )
    for request in forged:
        refusal(
            door.wire.send(request.encode()), "SignatureDoesNotMatch", "AccessDenied", "AuthorizationHeaderMalformed"
        )
    assert door.get(victim) == b"victim" and not door.exists(key)


@check
def replayed_with_more_headers(door):
    """AccessDenied: an x-amz-* header that was not signed is not obeyed"""
    key, secret = door.key_name(), door.put(b"secret")
    good = captured(door, key)
    source = f"x-amz-copy-source: {door.path(secret)}\r\nx-amz-date".encode()
    refusal(door.wire.send(good.replace(b"x-amz-date", source, 1)), "AccessDenied", "SignatureDoesNotMatch")
    metadata = good.replace(b"x-amz-date", b"x-amz-meta-forged: yes\r\nx-amz-date", 1)
    refusal(door.wire.send(metadata), "AccessDenied", "SignatureDoesNotMatch")
    assert not door.exists(key)


@check
def scope_of_elsewhere(door):
    """AuthorizationHeaderMalformed: another region, service or day than the request's"""
    for scope in (Scope(Scope.at().stamp, region="mars-north-1"), Scope(Scope.at().stamp, service="ec2")):
        refusal(door.wire.send(captured(door, door.key_name(), scope=scope)), *MALFORMED)
    today = Scope.at().stamp[:8]
    other_day = captured(door, door.key_name()).replace(f"/{today}/".encode(), b"/20200101/")
    refusal(door.wire.send(other_day), *MALFORMED, "RequestTimeTooSkewed")


@check
def signature_header_that_is_nonsense(door):
    """AuthorizationHeaderMalformed: what is no Authorization of version 4"""
    good = captured(door, door.key_name()).decode()
    line = next(line for line in good.split("\r\n") if line.startswith("Authorization"))
    nonsense = (
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=, SignedHeaders=, Signature=",
        "AWS4-HMAC-SHA256 Credential=a/b/c/d/e/f/g, SignedHeaders=host, Signature=" + "0" * 64,
        "AWS4-HMAC-SHA256 " + "a=b, " * 500,
        "AWS4-ECDSA-P256-SHA256 Credential=x, SignedHeaders=host, Signature=00",
        "Basic dXNlcjpwYXNz",
        "AWS somebody:signature",
        "Bearer " + "x" * 3000,
        "\u00ff\u00fe",
        "",
    )
    for said in nonsense:
        refusal(door.wire.send(good.replace(line, f"Authorization: {said}").encode("latin-1")), *MALFORMED)


@check
def signature_twice(door):
    """InvalidArgument: a signature in the header and another in the query"""
    key = door.put()
    target = sigv4.presigned(door.key, Scope.at(), "GET", door.path(key), door.wire.host, 60)
    refusal(door.wire.ask("GET", target), "InvalidArgument", "InvalidRequest", "AccessDenied", "SignatureDoesNotMatch")


@check
def signature_headers_missing(door):
    """Signature version 4: without x-amz-date or x-amz-content-sha256 nothing is accepted"""
    key = door.key_name()
    lines = captured(door, key).decode().split("\r\n")
    for left_out in ("x-amz-date", "x-amz-content-sha256", "Host"):
        rest = "\r\n".join(line for line in lines if not line.lower().startswith(left_out.lower() + ":"))
        answer = door.wire.send(rest.encode())
        assert 400 <= answer.status < 500, (left_out, answer)
    assert not door.exists(key)


@check
def payload_hash_that_is_none(door):
    """x-amz-content-sha256: what is neither a hash nor one of its words is refused"""
    for payload in ("", "nonsense", "UNSIGNED", "0" * 63, "STREAMING-AWS4-HMAC-SHA512-PAYLOAD"):
        key = door.key_name()
        answer = door.wire.ask("PUT", door.path(key), body=BODY, payload=payload or " ")
        refusal(answer)
        assert not door.exists(key), payload
