"""Signature version 4, by hand and from the standard library only.

Owns: canonical requests, header, query and chunk signatures. Must never: talk to anybody. What it signs may be wrong on
purpose: nothing here checks that a request makes sense.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timezone
from urllib.parse import quote, unquote_to_bytes

REGION = "us-east-1"
ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"
STREAMING = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


@dataclass(frozen=True)
class Key:
    """An access key."""

    id: str
    secret: str


@dataclass(frozen=True)
class Scope:
    """When and where a signature holds."""

    stamp: str
    region: str = REGION
    service: str = "s3"

    @classmethod
    def at(cls, when=None):
        when = when or datetime.now(timezone.utc)
        return cls(when.strftime("%Y%m%dT%H%M%SZ"))

    def __str__(self):
        return f"{self.stamp[:8]}/{self.region}/{self.service}/aws4_request"


def encoded(text, safe=""):
    """Percent-encoded as signature version 4 wants it: all but letters, digits and -._~."""
    return quote(text, safe="-._~" + safe)


def canonical_path(target_path):
    """A path of the request line, however it is encoded there, in the one form that is signed."""
    return encoded(unquote_to_bytes(target_path), safe="/")


def canonical_query(query):
    """A query of the request line, sorted and encoded."""
    pairs = [pair.partition("=")[::2] for pair in query.split("&") if pair]
    again = [(encoded(unquote_to_bytes(name)), encoded(unquote_to_bytes(value))) for name, value in pairs]
    return "&".join(f"{name}={value}" for name, value in sorted(again))


def signing_key(key, scope):
    signed = ("AWS4" + key.secret).encode()
    for part in (scope.stamp[:8], scope.region, scope.service, "aws4_request"):
        signed = hmac.new(signed, part.encode(), hashlib.sha256).digest()
    return signed


def mac(key, scope, text):
    return hmac.new(signing_key(key, scope), text.encode(), hashlib.sha256).hexdigest()


def canonical_request(method, target, headers, payload):
    path, _, query = target.partition("?")
    names = sorted(name.lower() for name in headers)
    values = {name.lower(): " ".join(str(value).split()) for name, value in headers.items()}
    lines = [method, canonical_path(path), canonical_query(query)]
    lines += [f"{name}:{values[name]}" for name in names]
    lines += ["", ";".join(names), payload]
    return "\n".join(lines)


def signature(key, scope, method, target, headers, payload):
    request = canonical_request(method, target, headers, payload)
    digest = hashlib.sha256(request.encode()).hexdigest()
    return mac(key, scope, "\n".join([ALGORITHM, scope.stamp, str(scope), digest]))


def signed_headers(key, scope, method, target, headers, payload):
    """The headers with those of a signature in the Authorization header. `Host` must be among them."""
    signed = {**headers, "x-amz-date": scope.stamp, "x-amz-content-sha256": payload}
    value = signature(key, scope, method, target, signed, payload)
    names = ";".join(sorted(name.lower() for name in signed))
    signed["Authorization"] = f"{ALGORITHM} Credential={key.id}/{scope}, SignedHeaders={names}, Signature={value}"
    return signed


def presigned(key, scope, method, target, host, expires):
    """The target with a signature in its query."""
    query = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{key.id}/{scope}",
        "X-Amz-Date": scope.stamp,
        "X-Amz-Expires": str(expires),
        "X-Amz-SignedHeaders": "host",
    }
    joined = "&".join(f"{name}={encoded(value)}" for name, value in query.items())
    target += ("&" if "?" in target else "?") + joined
    value = signature(key, scope, method, target, {"Host": host}, UNSIGNED)
    return f"{target}&X-Amz-Signature={value}"


class Chunks:
    """A body in the chunks of aws-chunked, each signed with the signature before it, or unsigned."""

    def __init__(self, key, scope, seed=None):
        self.key, self.scope, self.previous = key, scope, seed

    def chunk(self, data, wrong=False):
        head = f"{len(data):x}"
        if self.previous is not None:
            digest = hashlib.sha256(data).hexdigest()
            self._next("AWS4-HMAC-SHA256-PAYLOAD", EMPTY_SHA256, digest)
            head += ";chunk-signature=" + ("0" * 64 if wrong else self.previous)
        return head.encode() + b"\r\n" + data + (b"\r\n" if data else b"")

    def trailer(self, name, value, wrong=False):
        """The trailing header and the end of the body, after the empty chunk."""
        text = f"{name}:{value}\r\n"
        if self.previous is not None:
            digest = hashlib.sha256(f"{name}:{value}\n".encode()).hexdigest()
            self._next("AWS4-HMAC-SHA256-TRAILER", digest)
            text += "x-amz-trailer-signature:" + ("0" * 64 if wrong else self.previous) + "\r\n"
        return text.encode() + b"\r\n"

    def _next(self, algorithm, *digests):
        lines = [algorithm, self.scope.stamp, str(self.scope), self.previous, *digests]
        self.previous = mac(self.key, self.scope, "\n".join(lines))
