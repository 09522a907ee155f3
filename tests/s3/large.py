"""One large object through the door, up and down, as a stream on either side.

    python large.py --access DIR/s3.json --mib 5120

Up through the first endpoint, down through the last. Ends with 1 when what comes back is not what was sent. This
process holds one block of it at a time, as the door is to hold a few.
"""

import argparse
import hashlib
import json
import sys
import time
import uuid
from http.client import HTTPResponse
from pathlib import Path


from kit.door import MIB, noise
from kit.sigv4 import UNSIGNED, Key
from kit.wire import Wire, read_answer

# A gigabyte is sent and stored many times over on a machine that others use as well.
DEADLINE_S = 600
BLOCK = noise(MIB, seed=31)


def blocks(mib):
    """Content that differs from block to block, so that one in another's place is seen."""
    for number in range(mib):
        yield number.to_bytes(8, "big") + BLOCK[8:]


def upload(wire, target, mib):
    """Sends the object; its SHA-256."""
    digest = hashlib.sha256()
    with wire.connect(DEADLINE_S) as connection:
        head = wire.signed("PUT", target, headers={"Content-Length": str(mib * MIB)}, payload=UNSIGNED)
        connection.sendall(head)
        for block in blocks(mib):
            digest.update(block)
            connection.sendall(block)
        answer = read_answer(connection)
    assert answer.status == 200, f"the upload was answered with {answer}"
    return digest.hexdigest()


def download(wire, target):
    """Reads the object; its SHA-256."""
    digest = hashlib.sha256()
    with wire.connect(DEADLINE_S) as connection:
        connection.sendall(wire.signed("GET", target))
        response = HTTPResponse(connection, method="GET")
        response.begin()
        assert response.status == 200, response.status
        while block := response.read(MIB):
            digest.update(block)
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description="Moves one large object.")
    parser.add_argument("--access", required=True)
    parser.add_argument("--mib", type=int, required=True)
    arguments = parser.parse_args()
    told = json.loads(Path(arguments.access).read_text())
    key = Key(told["access_key"], told["secret_key"])
    first, last = (Wire(endpoint, key) for endpoint in (told["endpoints"][0], told["endpoints"][-1]))
    bucket = "large-" + uuid.uuid4().hex[:8]
    assert first.ask("PUT", f"/{bucket}").status == 200
    begun = time.monotonic()
    sent = upload(first, f"/{bucket}/large", arguments.mib)
    between = time.monotonic()
    got = download(last, f"/{bucket}/large")
    ended = time.monotonic()
    up, down = arguments.mib / (between - begun), arguments.mib / (ended - between)
    print(f"{arguments.mib} MiB: up {up:.0f} MiB/s, down {down:.0f} MiB/s")
    print("what came back is what was sent" if sent == got else f"sent {sent}, got {got}")
    sys.exit(0 if sent == got else 1)


if __name__ == "__main__":
    main()
