"""Uploads in the chunks of aws-chunked, right or wrong as asked."""

import re

from . import sigv4
from .wire import plain

CHUNK_BYTES = 64 * 1024
# Says that the length of the body itself is what is announced.
SAME = object()


class Streamed:
    """One chunked upload. `seed` may be replaced before it is sent."""

    def __init__(
        self,
        wire,
        target,
        body,
        payload,
        *,
        chunk_bytes=CHUNK_BYTES,
        trailer=None,
        wrong_trailer=False,
        headers=None,
        decoded_length=SAME,
        scope=None,
    ):
        self.wire, self.target, self.trailer, self.wrong_trailer = wire, target, trailer, wrong_trailer
        self.payload, self.scope = payload, scope or sigv4.Scope.at()
        self.pieces = [body[at : at + chunk_bytes] for at in range(0, len(body), chunk_bytes)]
        self.length = len(body) if decoded_length is SAME else decoded_length
        self.seed = None
        self.given = {"Host": wire.host, "Content-Encoding": "aws-chunked", **(headers or {})}
        if self.length is not None:
            self.given["x-amz-decoded-content-length"] = str(self.length)
        if trailer:
            self.given["x-amz-trailer"] = trailer[0]

    def chunks(self, wrong_chunk=None):
        """The body as it goes over the wire, piece by piece. Signs, so that `seed` must be set."""
        chunks = sigv4.Chunks(self.wire.key, self.scope, self.seed)
        for number, piece in enumerate([*self.pieces, b""]):
            yield chunks.chunk(piece, wrong=number == wrong_chunk)
        yield chunks.trailer(*self.trailer, wrong=self.wrong_trailer) if self.trailer else b"\r\n"

    def request(self, wrong_chunk=None):
        """Head and body as bytes."""
        signed = sigv4.signed_headers(self.wire.key, self.scope, "PUT", self.target, self.given, self.payload)
        if self.payload != sigv4.UNSIGNED_TRAILER and self.seed is None:
            self.seed = re.search(r"Signature=([0-9a-f]+)", signed["Authorization"]).group(1)
        body = b"".join(self.chunks(wrong_chunk))
        signed["Content-Length"] = str(len(body))
        return plain("PUT", self.target, signed) + body

    def send(self, wrong_chunk=None):
        return self.wire.send(self.request(wrong_chunk))
