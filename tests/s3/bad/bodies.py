"""Bodies that are not what was announced, and uploads that are cut."""

import socket
import struct
import time

from bad.rules import harmless, refusal, unharmed
from kit.door import MIB, expect, noise
from kit.sigv4 import STREAMING, UNSIGNED_TRAILER
from kit.streams import Streamed
from kit.suite import check
from kit.wire import read_answer, send_all

OLD = b"the old object"
BODY = noise(MIB, seed=11)
TENTHS = range(10)
# Until the door has noticed a connection that is gone.
NOTICED_S = 1.0
INCOMPLETE = ("IncompleteBody", "RequestTimeout")


def cut(door, request, at, reset):
    """Sends so many bytes of a request and ends the connection: with FIN, or as a machine that lost its power would."""
    connection = door.wire.connect()
    connection.sendall(request[:at])
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def cut_at_every_tenth(door, request_for):
    """Cuts an upload of a new name and one over an old object at every tenth: neither shows."""
    fresh, old = [], []
    for tenth in TENTHS:
        for reset in (False, True):
            fresh.append(door.key_name("cut"))
            old.append(door.put(OLD))
            for key in (fresh[-1], old[-1]):
                request = request_for(key)
                head = request.index(b"\r\n\r\n") + 4
                cut(door, request, head + (len(request) - head) * tenth // 10, reset)
    time.sleep(NOTICED_S)
    for key in fresh:
        assert not door.exists(key), f"{key} is there, though its upload was cut"
    for key in old:
        assert door.get(key) == OLD, f"{key} was replaced by an upload that was cut"


@check
def cut_upload(door):
    """PutObject: an upload that is cut at any tenth shows nothing and replaces nothing"""
    cut_at_every_tenth(door, lambda key: door.wire.signed("PUT", door.path(key), body=BODY))


@check
def cut_upload_of_signed_chunks(door):
    """PutObject in signed chunks: an upload that is cut at any tenth shows nothing and replaces nothing"""
    cut_at_every_tenth(door, lambda key: Streamed(door.wire, door.path(key), BODY, STREAMING).request())


@check
def cut_upload_of_a_part(door):
    """UploadPart: a part that is cut at any tenth is not listed, and does not replace the one before"""
    at = {"Bucket": door.bucket, "Key": door.key_name()}
    upload = door.s3.create_multipart_upload(**at)["UploadId"]
    kept = door.s3.upload_part(**at, UploadId=upload, PartNumber=1, Body=OLD)["ETag"]
    for tenth in TENTHS:
        for part in (1, 2):
            target = f"{door.path(at['Key'])}?partNumber={part}&uploadId={upload}"
            request = door.wire.signed("PUT", target, body=BODY)
            head = request.index(b"\r\n\r\n") + 4
            cut(door, request, head + len(BODY) * tenth // 10, reset=part == 1)
    time.sleep(NOTICED_S)
    parts = door.s3.list_parts(**at, UploadId=upload)["Parts"]
    assert [(part["PartNumber"], part["ETag"]) for part in parts] == [(1, kept)], parts
    door.s3.abort_multipart_upload(**at, UploadId=upload)


@check
def cut_before_the_answer(door):
    """PutObject: cut behind the last byte, the old object or the whole new one is there"""
    keys = [door.put(OLD) for _ in range(5)]
    for key in keys:
        request = door.wire.signed("PUT", door.path(key), body=BODY)
        cut(door, request, len(request), reset=True)
    time.sleep(NOTICED_S)
    for key in keys:
        assert door.get(key) in (OLD, BODY), key


@check
def cut_download(door):
    """GetObject: a reader that goes away harms nobody"""
    key = door.put(noise(8 * MIB))
    for _ in range(10):
        with door.wire.connect() as connection:
            connection.sendall(door.wire.signed("GET", door.path(key)))
            connection.recv(1000)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    unharmed(door)


@check
def body_shorter_than_announced(door):
    """IncompleteBody: fewer bytes than Content-Length says, and no more to come"""
    key = door.put(OLD)
    request = door.wire.signed("PUT", door.path(key), body=BODY)
    with door.wire.connect() as connection:
        send_all(connection, request[:-1])
        connection.shutdown(socket.SHUT_WR)
        answer = read_answer(connection)
    assert answer.status == 0 or answer.code in INCOMPLETE, answer
    assert door.get(key) == OLD


@check
def body_longer_than_announced(door):
    """PutObject: what comes behind Content-Length is not the object's"""
    key = door.key_name()
    announced = door.wire.signed("PUT", door.path(key), body=b"12345", headers={"Content-Length": "5"})
    with door.wire.connect() as connection:
        send_all(connection, announced + b"67890 and more\r\n\r\n")
        expect(read_answer(connection), 200)
    assert door.get(key) == b"12345"


@check
def body_where_none_belongs(door):
    """GetObject, DeleteObject: a body is neither an accident nor the next request's head"""
    key = door.put()
    for method, target in (("GET", door.path(key)), ("HEAD", door.path(key)), ("DELETE", door.path("never-put"))):
        harmless(door.wire.ask(method, target, body=b"GET / HTTP/1.1\r\n\r\n"))
    unharmed(door)


@check
def length_that_is_no_length(door):
    """Content-Length: negative, no number, two of them, or more than there are numbers"""
    for said in ("-1", "abc", "5, 6", "18446744073709551616", "0x5", "+5", ""):
        key = door.key_name()
        request = door.wire.signed("PUT", door.path(key), body=b"12345", headers={"Content-Length": said})
        answer = harmless(door.wire.send(request))
        assert answer.status != 200 and not door.exists(key), f"Content-Length: {said}: {answer}"


@check
def length_in_two_ways(door):
    """Content-Length with Transfer-Encoding: refused, or chunked (RFC 9112, 6.3); the framing is never content"""
    key = door.key_name()
    headers = {"Transfer-Encoding": "chunked", "Content-Length": "15"}
    harmless(door.wire.send(door.wire.signed("PUT", door.path(key), headers=headers) + b"5\r\n12345\r\n0\r\n\r\n"))
    assert not door.exists(key) or door.get(key) == b"12345"


@check
def chunk_with_a_wrong_signature(door):
    """SignatureDoesNotMatch: any wrong chunk, the first, one in the middle and the empty last one"""
    key = door.put(OLD)
    streamed = Streamed(door.wire, door.path(key), BODY, STREAMING)
    for number in (0, len(streamed.pieces) // 2, len(streamed.pieces)):
        streamed.seed = None
        refusal(streamed.send(wrong_chunk=number), "SignatureDoesNotMatch")
    assert door.get(key) == OLD


@check
def chunks_in_another_order(door):
    """SignatureDoesNotMatch: two good chunks that change places, or one that is left out or sent twice"""
    key = door.put(OLD)
    orders = {"swapped": [1, 0, 2, 3], "left out": [0, 2, 3], "twice": [0, 0, 1, 2, 3]}
    for what, order in orders.items():
        streamed = Streamed(door.wire, door.path(key), BODY[: 3 * 65536], STREAMING)
        request = streamed.request()
        head, body = request[: request.index(b"\r\n\r\n") + 4], list(streamed.chunks())
        changed = b"".join([body[at] for at in order] + [b"\r\n"])
        before, _, _ = head.rpartition(b"Content-Length:")
        answer = door.wire.send(before + f"Content-Length: {len(changed)}\r\n\r\n".encode() + changed)
        refusal(answer, "SignatureDoesNotMatch", *INCOMPLETE)
        assert door.get(key) == OLD, what


@check
def chunks_that_end_early(door):
    """IncompleteBody: a chunked body that ends without its last, empty chunk, or within one"""
    key = door.put(OLD)
    request = Streamed(door.wire, door.path(key), BODY, STREAMING).request()
    head_end = request.index(b"\r\n\r\n") + 4
    head, body = request[:head_end], request[head_end:]
    before = head.rpartition(b"Content-Length:")[0]
    for length in (0, 10, 1000, len(body) // 2, len(body) - 100, len(body) - 60):
        answer = door.wire.send(before + f"Content-Length: {length}\r\n\r\n".encode() + body[:length])
        refusal(answer, *INCOMPLETE, "SignatureDoesNotMatch", "InvalidRequest", "MalformedTrailerError")
        assert door.get(key) == OLD, length


@check
def chunks_of_another_length_than_announced(door):
    """IncompleteBody: x-amz-decoded-content-length that is not the chunks' sum"""
    for said in (len(BODY) - 1, len(BODY) + 1, 0, 10**15):
        for payload in (STREAMING, UNSIGNED_TRAILER):
            key = door.put(OLD)
            answer = Streamed(door.wire, door.path(key), BODY, payload, decoded_length=said).send()
            assert answer.status != 200 and answer.status < 500, (said, answer)
            assert door.get(key) == OLD, said


@check
def chunk_heads_that_are_nonsense(door):
    """Chunked uploads: heads that are no head are refused, and nothing is put"""
    heads = (
        b"zz;chunk-signature=" + b"0" * 64,
        b"-5",
        b"",
        b";",
        b"ffffffffffffffffffff",
        b"7fffffffffffffff",
        b"5;chunk-signature=",
        b"5;" + b"x" * 100_000,
        b"5" * 200_000,
        b"\x00\xff",
    )
    for payload in (STREAMING, UNSIGNED_TRAILER):
        for head in heads:
            key = door.key_name()
            headers = {"Content-Encoding": "aws-chunked", "x-amz-decoded-content-length": "5"}
            body = head + b"\r\n12345\r\n0\r\n\r\n"
            answer = door.wire.ask("PUT", door.path(key), body=body, headers=headers, payload=payload)
            assert answer.status < 500 and answer.status != 200, (head[:40], answer)
            assert not door.exists(key), head[:40]
