"""Puts and gets through some doors at once, as an application with boto3 makes them, none of them repeated.

    python boto3_load.py < LOAD.json

What to do comes as one document on standard input: the doors, a key, a bucket, how large and how often. Each door has one
loop of puts and one of gets. READY is made when every loop has had its first answer; the loops end when STOP is there, or
after `at_most_s`. REPORT then says how each request went, with the wall time of its end and how long it took.

Must never: retry (a client that has to is a client that noticed), or take for right what is not what was stored.
"""

import json
import os
import sys
import threading
import time

import boto3
from botocore.config import Config

REGION = "us-east-1"


def client(load, endpoint):
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=load["access_key"],
        aws_secret_access_key=load["secret_key"],
        config=Config(
            retries={"total_max_attempts": 1},
            connect_timeout=load["deadline_s"],
            read_timeout=load["deadline_s"],
            signature_version="s3v4",
            s3={"addressing_style": "path"},
        ),
    )


def content(number, size):
    """What the other clients of the benchmark store under a number."""
    seed = (number * 0x9E3779B97F4A7C15 % (1 << 64)).to_bytes(8, "little")
    piece = bytes(seed[at % 8] ^ at for at in range(251))
    return (piece * (size // len(piece) + 1))[:size]


class Loop:
    """One loop through one door."""

    def __init__(self, load, door, stores):
        self.load, self.door, self.stores = load, door, stores
        self.endpoint = load["endpoints"][door]
        self.s3 = client(load, self.endpoint)
        self.requests = []

    def run(self, until):
        turn = 0
        while not os.path.exists(self.load["stop"]) and time.monotonic() < until:
            begun, truncated, error = time.monotonic(), False, None
            try:
                truncated = self.put(turn) if self.stores else self.get(turn)
                error = "not what was stored" if truncated else None
            except Exception as raised:  # pylint: disable=broad-except
                # Whatever a client is told, it is told: a body that ends short, too.
                error = f"{type(raised).__name__}: {raised}"
                truncated = "IncompleteRead" in error
            what = "put" if self.stores else "get"
            self.requests.append(
                {
                    "ended_ms": int(time.time() * 1000),
                    "took_ms": (time.monotonic() - begun) * 1000,
                    "error": error and f"{what} through {self.endpoint}: {error}",
                    "truncated": truncated,
                    "stores": self.stores,
                }
            )
            turn += 1
            time.sleep(self.load["pause_s"])

    def put(self, turn):
        key = f"put/{self.door}/{turn % self.load['puts']}"
        self.s3.put_object(Bucket=self.load["bucket"], Key=key, Body=content(turn, self.load["put_bytes"]))
        return False

    def get(self, turn):
        number = turn % self.load["kept"]
        body = self.s3.get_object(Bucket=self.load["bucket"], Key=f"kept/{number}")["Body"].read()
        return body != content(number, self.load["kept_bytes"])


def publish(path, text):
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(path + ".new", path)


def main():
    load = json.load(sys.stdin)
    loops = [Loop(load, door, stores) for door in range(len(load["endpoints"])) for stores in (True, False)]
    until = time.monotonic() + load["at_most_s"]
    threads = [threading.Thread(target=loop.run, args=(until,)) for loop in loops]
    for thread in threads:
        thread.start()
    while not all(loop.requests for loop in loops) and time.monotonic() < until:
        time.sleep(0.02)
    publish(load["ready"], "")
    for thread in threads:
        thread.join()
    publish(load["report"], json.dumps([request for loop in loops for request in loop.requests]))


main()
