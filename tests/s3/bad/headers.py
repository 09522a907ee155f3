"""Headers: too many, too long, and of values that make no sense."""

from bad.rules import harmless, refusal, unharmed
from kit.door import expect
from kit.suite import check


@check
def headers_by_the_thousand(door):
    """HTTP: a flood of headers is refused, and bounded"""
    for count in (500, 5000, 50_000):
        key = door.key_name()
        headers = {f"x-flood-{number}": "x" for number in range(count)}
        answer = harmless(door.wire.ask("PUT", door.path(key), body=b"x", headers=headers))
        assert answer.status != 200, (count, answer)
    unharmed(door)


@check
def header_overlong(door):
    """HTTP: one header of 100 KiB up to 10 MiB is refused, and bounded"""
    for size in (100_000, 1_000_000, 10_000_000):
        for name in ("x-long", "x-amz-meta-long", "Authorization", "Cookie"):
            key = door.key_name()
            request = door.wire.signed("PUT", door.path(key), body=b"x")
            longer = request.replace(b"\r\n", f"\r\n{name}: ".encode() + b"v" * size + b"\r\n", 1)
            answer = harmless(door.wire.send(longer))
            assert answer.status != 200 and not door.exists(key), (name, size, answer)
    unharmed(door)


@check
def header_lines_that_are_none(door):
    """HTTP: lines without a colon, folded lines, spaces before the colon, bytes that are no text"""
    for line in (
        b"no colon",
        b": no name",
        b"a b: c",
        b"x-space : y",
        b"x-nul: a\x00b",
        b"x: a\r\n folded",
        b"\xff: x",
        b"x-cr: a\rb",
    ):
        request = door.wire.signed("GET", f"/{door.bucket}").replace(b"\r\n", b"\r\n" + line + b"\r\n", 1)
        harmless(door.wire.send(request))
    unharmed(door)


@check
def metadata_that_is_no_text(door):
    """Object metadata: bytes that are no ASCII are refused or come back as they were"""
    for value in ("\xff\xfe", "caf\xe9", "tab\there"):
        key = door.key_name()
        answer = harmless(door.wire.ask("PUT", door.path(key), body=b"x", headers={"x-amz-meta-odd": value}))
        if answer.status == 200:
            expect(door.wire.ask("HEAD", door.path(key)), 200)
    unharmed(door)


@check
def metadata_too_large_in_many(door):
    """MetadataTooLarge: many small ones count together"""
    headers = {f"x-amz-meta-{number}": "v" * 50 for number in range(50)}
    refusal(door.wire.ask("PUT", door.path(door.key_name()), body=b"x", headers=headers), "MetadataTooLarge")


@check
def header_values_that_make_no_sense(door):
    """PutObject, GetObject: headers whose value is none of those that S3 knows"""
    key = door.put(b"content")
    for name, value in (
        ("x-amz-storage-class", "ATTIC"),
        ("x-amz-acl", "nobody-at-all"),
        ("x-amz-metadata-directive", "MAYBE"),
        ("x-amz-server-side-encryption", "rot13"),
        ("x-amz-checksum-algorithm", "MD4"),
        ("x-amz-sdk-checksum-algorithm", "MD4"),
        ("x-amz-object-lock-mode", "TIGHT"),
        ("x-amz-tagging", "%zz&&="),
        ("If-Match", ""),
        ("If-None-Match", ","),
        ("If-Modified-Since", "yesterday"),
        ("If-Unmodified-Since", "31 Foo 99999"),
        ("Expires", "never"),
        ("Content-Type", "\x7f/\x7f"),
        ("Expect", "200-perhaps"),
        ("x-amz-copy-source-range", "bytes=0-0"),
        ("x-amz-expected-bucket-owner", "somebody-else"),
    ):
        for method in ("GET", "HEAD"):
            harmless(door.wire.ask(method, door.path(key), headers={name: value}))
        answer = door.wire.ask("PUT", door.path(door.key_name()), body=b"x", headers={name: value})
        assert answer.status < 500 or answer.code == "NotImplemented", (name, answer)
    unharmed(door)


@check
def ranges_that_make_no_sense(door):
    """GetObject, Range: floods, numbers beyond all bounds, and nonsense are InvalidRange, InvalidArgument or ignored"""
    key = door.put(b"0123456789")
    for said in (
        "bytes=" + ",".join("0-0" for _ in range(1500)),
        "bytes=18446744073709551615-",
        "bytes=0-18446744073709551616",
        "bytes=-18446744073709551616",
        "bytes=5-4",
        "bytes=-",
        "bytes=,",
        "bytes= 0-1",
        "bytes=0 -1",
        "BYTES=0-1",
        "bytes=0x1-0x2",
        "bytes=1e1-",
        "bytes=+1-+2",
        "bytes=-0",
        "bytes=10-",
        ";",
        "=",
    ):
        answer = door.wire.ask("GET", door.path(key), headers={"Range": said})
        assert answer.status in (200, 206, 400, 416), (said[:40], answer)
        assert answer.status != 200 or answer.body == b"0123456789", (said[:40], answer)
