"""Request lines: names as they should not be sent, path tricks, broken HTTP."""

from urllib.parse import quote, unquote_to_bytes

from bad.rules import harmless, refusal, unharmed
from kit.door import expect
from kit.suite import check
from kit.wire import plain, read_answer

ETC = "../../../../../../etc/passwd"


def put_raw(door, bucket, raw):
    """Puts an object by a raw target; the name that was meant, when it was accepted."""
    answer = harmless(door.wire.ask("PUT", f"/{bucket}/{raw}", body=b"raw"))
    return unquote_to_bytes(raw.encode("latin-1")) if answer.status == 200 else None


def names_in(door, bucket):
    return sorted(entry["Key"] for entry in door.s3.list_objects_v2(Bucket=bucket).get("Contents", []))


@check
def path_out_of_its_bucket(door):
    """Object names: no spelling of `..` leads out of the bucket"""
    bucket, victim = door.new_bucket(), door.new_bucket()
    door.s3.put_object(Bucket=victim, Key="key", Body=b"victim")
    tricks = (
        f"..%2f{victim}%2fkey",
        f"../{victim}/key",
        f"%2e%2e/{victim}/key",
        f"%2e%2e%2f{victim}%2fkey",
        f"./../{victim}/key",
        f"a/../../{victim}/key",
        f"..%5c{victim}%5ckey",
        f"..;/{victim}/key",
    )
    for trick in tricks:
        meant = put_raw(door, bucket, trick)
        assert meant is None or meant.decode() in names_in(door, bucket), trick
        harmless(door.wire.ask("DELETE", f"/{bucket}/{trick}"))
        assert door.get("key", bucket=victim) == b"victim", trick


@check
def path_out_of_the_store(door):
    """Object names: no spelling of `..` reads a file of the machine"""
    for trick in (
        ETC,
        quote(ETC, safe=""),
        quote(ETC, safe="").replace(".", "%2e"),
        quote(quote(ETC, safe=""), safe=""),
    ):
        answer = harmless(door.wire.ask("GET", door.path(trick)))
        assert answer.status != 200 and b"root:" not in answer.body, trick
        answer = harmless(door.wire.ask("GET", f"/{trick}"))
        assert answer.status != 200 and b"root:" not in answer.body, trick


@check
def path_with_a_nul(door):
    """Object names: %00 ends no name early"""
    bucket = door.new_bucket()
    door.s3.put_object(Bucket=bucket, Key="a", Body=b"victim")
    put_raw(door, bucket, "a%00b")
    harmless(door.wire.ask("DELETE", f"/{bucket}/a%00b"))
    assert door.get("a", bucket=bucket) == b"victim"
    harmless(door.wire.ask("GET", f"/{bucket}%00/a"))


@check
def path_encoded_twice(door):
    """Object names: decoded once, never twice"""
    bucket = door.new_bucket()
    for raw in ("%252e%252e%252fx", "%25%32%65", "a%252Fb"):
        meant = put_raw(door, bucket, raw)
        assert meant is not None and names_in(door, bucket) == [meant.decode()], raw
        door.s3.delete_object(Bucket=bucket, Key=meant.decode())


@check
def path_encoded_wrongly(door):
    """Object names: a percent sign without two digits is InvalidURI, or stands for itself"""
    for raw in ("%", "a%zz", "a%4", "%%%", "%u0041"):
        bucket = door.new_bucket()
        meant = put_raw(door, bucket, raw)
        assert meant is None or len(names_in(door, bucket)) == 1, raw
        refusal(door.wire.ask("GET", f"/{bucket}/{raw}-absent"))


@check
def path_of_bytes_that_are_not_utf8(door):
    """Object names: overlong and broken UTF-8 are InvalidURI"""
    for raw in ("%ff", "%c0%af", "%ed%a0%80", "a%80b", "%f8%88%80%80%80"):
        refusal(door.wire.ask("PUT", door.path(raw), body=b"x"), "InvalidURI", "InvalidArgument", "InvalidRequest")


@check
def path_of_raw_bytes(door):
    """Object names: raw on the request line they are that name, or refused"""
    bucket = door.new_bucket()
    for raw in ('a"b', "a<b>", "a{b}", "a|b", "a\\b", "a^b`c", "raw[1]", "ü", "\u0085", "a'b(c)*!", "a:b@c", "a;b=c,d"):
        on_the_line = raw.encode().decode("latin-1")
        request = door.wire.signed("PUT", f"/{bucket}/{quote(raw)}", body=b"raw")
        answer = harmless(door.wire.send(request.replace(quote(raw).encode(), on_the_line.encode("latin-1"), 1)))
        if answer.status == 200:
            assert door.get(raw, bucket=bucket) == b"raw", raw
        else:
            assert answer.status in (0, 400, 403), (raw, answer)
    unharmed(door)


@check
def line_that_is_no_request(door):
    """HTTP: what is no request is refused or closed, never waited for"""
    host = f"Host: {door.wire.host}\r\n\r\n"
    lines = (
        "GET",
        "GET /\r\n\r\n",
        f"GET / HTTP/9.9\r\n{host}",
        f" GET / HTTP/1.1\r\n{host}",
        f"GET  / HTTP/1.1\r\n{host}",
        f"GET /a b HTTP/1.1\r\n{host}",
        f"GET /\x00 HTTP/1.1\r\n{host}",
        f"GET /\x01 HTTP/1.1\r\n{host}",
        f"G\x00T / HTTP/1.1\r\n{host}",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\r\n\r\n\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00",
        f"OPTIONS * HTTP/1.1\r\n{host}",
        f"CONNECT other:443 HTTP/1.1\r\n{host}",
        "GET / HTTP/1.1\r\n\r\n",
    )
    for line in lines:
        with door.wire.connect() as connection:
            connection.sendall(line.encode("latin-1"))
            # So that the door need not wait for the rest of a line.
            connection.shutdown(1)
            answer = harmless(read_answer(connection))
            assert answer.status == 0 or 400 <= answer.status < 600, (line, answer)
    unharmed(door)


@check
def method_that_is_none(door):
    """MethodNotAllowed: methods that S3 does not have"""
    for method in ("BREW", "PATCH", "TRACE", "PROPFIND", "get", "X" * 500):
        answer = door.wire.ask(method, door.path(door.put()))
        assert answer.status in (400, 403, 405, 501), (method[:20], answer)


@check
def target_of_another_host(door):
    """HTTP: an absolute target, of this host or another, is answered or refused, never forwarded"""
    key = door.put(b"mine")
    for authority in (door.wire.host, "elsewhere.invalid"):
        request = door.wire.signed("GET", door.path(key))
        answer = harmless(door.wire.send(request.replace(b"GET /", f"GET http://{authority}/".encode(), 1)))
        assert answer.body == b"mine" or 400 <= answer.status < 500, answer


@check
def host_that_is_none(door):
    """HTTP: a Host that is no host name"""
    for host in ("", "a b", "\xff", "[::1", "x" * 10_000, "..", "evil.example/path", "@", "1.2.3.4:99999"):
        request = plain("GET", f"/{door.bucket}", {"Host": host})
        harmless(door.wire.send(request))
    unharmed(door)


@check
def target_overlong(door):
    """HTTP: a target of 16 KiB up to 1 MiB is refused, never a crash"""
    for size in (16_000, 70_000, 1_000_000):
        for target in (
            door.path("n" * size),
            f"/{door.bucket}?prefix=" + "n" * size,
            f"/{door.bucket}?" + "a=b&" * (size // 4),
        ):
            answer = harmless(door.wire.ask("GET", target))
            assert answer.status != 200 or "?" in target, (size, answer)
    unharmed(door)


@check
def query_that_contradicts_itself(door):
    """Subresources: several at once, or twice, are one operation or an error, never an accident"""
    key = door.put()
    queries = (
        "uploads&uploadId=x",
        "acl&tagging&uploads",
        "uploadId=x&uploadId=y&partNumber=1&partNumber=2",
        "partNumber=1",
        "uploadId=",
        "versionId=null&versionId=1",
        "delete&uploads",
        "=",
        "&&&",
        "%00=%00",
        "list-type=9",
        "list-type=2&list-type=1",
        "max-keys=1&max-keys=2&list-type=2",
        "x-id=GetObject",
        "prefix=%ff",
    )
    for query in queries:
        for target in (f"{door.path(key)}?{query}", f"/{door.bucket}?{query}", f"/?{query}"):
            for method in ("GET", "PUT", "POST", "DELETE"):
                if (method, target.count("/")) != ("DELETE", 1):
                    harmless(door.wire.ask(method, target, body=b"x" if method in ("PUT", "POST") else b""))
    unharmed(door)


@check
def version_that_is_none(door):
    """GetObject, versionId: a version that never was is NoSuchVersion or InvalidArgument; `null` is the object"""
    key = door.put(b"content")
    for said in ("1", "../..", "x" * 2000):
        refusal(
            door.wire.ask("GET", f"{door.path(key)}?versionId={said}"),
            "NoSuchVersion",
            "InvalidArgument",
            "NotImplemented",
        )
    assert expect(door.wire.ask("GET", f"{door.path(key)}?versionId=null"), 200, "NotImplemented").status in (200, 501)
