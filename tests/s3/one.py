"""One request by hand, and its answer as a line of JSON: for stories that are told in Rust.

    python one.py --access FILE METHOD TARGET [--bytes N] [--host NAME]

The answer: {"status": 200, "code": "", "bytes": 5, "sha256": "..."}. The standard library is all that it needs.
"""

import argparse
import hashlib
import json
from pathlib import Path

from kit.sigv4 import Key
from kit.wire import Wire


def parsed():
    parser = argparse.ArgumentParser(description="Sends one signed request.")
    parser.add_argument("--access", required=True, help="file with endpoints, access_key and secret_key")
    parser.add_argument("--bytes", type=int, default=0, help="a body of so many bytes")
    parser.add_argument("--host", help="the Host header, where it is not the endpoint's own")
    parser.add_argument("method")
    parser.add_argument("target")
    return parser.parse_args()


def main():
    arguments = parsed()
    told = json.loads(Path(arguments.access).read_text())
    wire = Wire(told["endpoints"][0], Key(told["access_key"], told["secret_key"]))
    wire.host = arguments.host or wire.host
    body = b"x" * arguments.bytes
    answer = wire.ask(arguments.method, arguments.target, body=body)
    said = {
        "status": answer.status,
        "code": answer.code,
        "bytes": len(answer.body),
        "sha256": hashlib.sha256(answer.body).hexdigest(),
        "text": answer.body[:2000].decode(errors="replace"),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
