"""Many clients at once, which try again elsewhere when a node does not answer; then everything acknowledged is read.

    python load.py --access DIR/s3.json --seconds 30 --seed 7

For stories in which nodes are killed meanwhile. Each key has one writer, which knows what must be there: what it was
last told is done. What was not acknowledged is tried again until it is, as every client library does, and its key is
then left alone: the first attempt may still come through, and says the same. So each key has one right content. Prints
the counts; ends with 1 when something acknowledged is gone or is another's.
"""

import argparse
import hashlib
import json
import random
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from kit.door import MIN_PART_BYTES, code_of, noise, status_of
from kit.sigv4 import REGION

BUCKET = "load"
WORKERS = 4
KEYS_PER_WORKER = 12
LARGEST_BYTES = 300_000
# A cluster that lost a node elects a leader within seconds; a machine with other work takes longer.
GIVE_UP_S = 90
ATTEMPT_S = 10
PAUSE_S = 0.2
# The part that is not the last of an upload.
FIRST_PART = noise(MIN_PART_BYTES, seed=41)
GONE = None


@dataclass
class Counts:
    acknowledged: int = 0
    tried_again: int = 0
    wrong: list = field(default_factory=list)


class Clients:
    """A client per endpoint. An operation goes to one of them, and on to the next when that one fails."""

    def __init__(self, told, seed, counts):
        self.clients = [client(told, endpoint) for endpoint in told["endpoints"]]
        self.draw, self.counts, self.again = random.Random(seed), counts, 0

    def call(self, operation, **arguments):
        """Does it, however long it takes; what S3 refuses for good is raised."""
        until = time.monotonic() + GIVE_UP_S
        at = self.draw.randrange(len(self.clients))
        while True:
            try:
                return getattr(self.clients[at], operation)(**arguments)
            except (ClientError, BotoCoreError) as error:
                if isinstance(error, ClientError) and status_of(error) < 500:
                    raise
                if time.monotonic() > until:
                    raise AssertionError(f"{operation} {arguments.get('Key')}: {error}, for {GIVE_UP_S} s") from error
            self.again += 1
            at = (at + 1) % len(self.clients)
            time.sleep(PAUSE_S)


def client(told, endpoint):
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=told["access_key"],
        aws_secret_access_key=told["secret_key"],
        config=Config(
            retries={"total_max_attempts": 1},
            connect_timeout=ATTEMPT_S,
            read_timeout=ATTEMPT_S,
            signature_version="s3v4",
            s3={"addressing_style": "path"},
        ),
    )


class Worker:
    """One writer with keys of its own, and what must be there."""

    def __init__(self, number, told, seed, counts):
        self.draw = random.Random(seed * 1000 + number)
        self.clients = Clients(told, seed * 1000 + number, counts)
        self.counts = counts
        self.keys = [f"w{number}/k{at}" for at in range(KEYS_PER_WORKER)]
        self.content = {}

    def run(self, until):
        acts = (self.put, self.put, self.put_if_absent, self.get, self.delete, self.list, self.upload)
        while time.monotonic() < until:
            key, before = self.draw.choice(self.keys), self.clients.again
            self.draw.choice(acts)(key)
            if self.clients.again != before:
                self.leave(key)

    def leave(self, key):
        """Writes another key from now on; what must be in this one stays known."""
        self.counts.tried_again += 1
        self.keys[self.keys.index(key)] = f"{key}'"

    def body(self):
        return self.draw.randbytes(self.draw.randrange(LARGEST_BYTES))

    def done(self, key, body):
        self.content[key] = body if body is GONE else hashlib.sha256(body).hexdigest()
        self.counts.acknowledged += 1

    def put(self, key):
        body = self.body()
        self.clients.call("put_object", Bucket=BUCKET, Key=key, Body=body)
        self.done(key, body)

    def put_if_absent(self, key):
        """Only this worker writes the key: a refusal of what is absent means that an earlier attempt came through."""
        body = self.body()
        absent = self.content.get(key) is GONE
        try:
            self.clients.call("put_object", Bucket=BUCKET, Key=key, Body=body, IfNoneMatch="*")
        except ClientError as error:
            assert code_of(error) == "PreconditionFailed", error
            if not absent:
                return
        else:
            if not absent:
                self.counts.wrong.append(f"{key}: put as absent over an acknowledged object")
        self.done(key, body)

    def delete(self, key):
        self.clients.call("delete_object", Bucket=BUCKET, Key=key)
        self.done(key, GONE)

    def upload(self, key):
        """A multipart upload that is begun anew when its end is not known to have come."""
        at = {"Bucket": BUCKET, "Key": key}
        last = self.body()
        upload = self.clients.call("create_multipart_upload", **at)["UploadId"]
        parts = []
        for number, body in enumerate((FIRST_PART, last), start=1):
            etag = self.clients.call("upload_part", **at, UploadId=upload, PartNumber=number, Body=body)["ETag"]
            parts.append({"PartNumber": number, "ETag": etag})
        try:
            self.clients.call("complete_multipart_upload", **at, UploadId=upload, MultipartUpload={"Parts": parts})
        except ClientError as error:
            # An earlier attempt completed it, and nobody keeps what was answered then.
            assert code_of(error) == "NoSuchUpload", error
        self.done(key, FIRST_PART + last)

    def get(self, key):
        wanted, found = self.content.get(key), self.found(key)
        if wanted != found:
            self.counts.wrong.append(f"{key}: read {found} instead of {wanted}")

    def found(self, key):
        """The hash of what is there, however often a reader's connection breaks."""
        until = time.monotonic() + GIVE_UP_S
        while True:
            try:
                body = self.clients.call("get_object", Bucket=BUCKET, Key=key)["Body"].read()
                return hashlib.sha256(body).hexdigest()
            except ClientError as error:
                assert code_of(error) == "NoSuchKey", error
                return GONE
            except (BotoCoreError, OSError) as error:
                assert time.monotonic() < until, f"{key} cannot be read: {error}"
                self.clients.again += 1

    def list(self, key):
        prefix = key.split("/")[0] + "/"
        page = self.clients.call("list_objects_v2", Bucket=BUCKET, Prefix=prefix)
        found = {entry["Key"] for entry in page.get("Contents", [])}
        wanted = {known for known, content in self.content.items() if content is not GONE}
        if found != wanted:
            self.counts.wrong.append(f"{prefix}: listed {sorted(found)} instead of {sorted(wanted)}")

    def verify(self):
        for key in list(self.content):
            self.get(key)
        self.list(self.keys[0])


def parsed():
    parser = argparse.ArgumentParser(description="Puts an endpoint under load and reads all of it back.")
    parser.add_argument("--access", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    return parser.parse_args()


def together(workers, act, counts):
    """Runs one method of every worker at once; what it raises counts as wrong."""

    def guarded(worker):
        try:
            act(worker)
        except Exception as error:  # pylint: disable=broad-except
            counts.wrong.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=guarded, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main():
    arguments = parsed()
    told = json.loads(Path(arguments.access).read_text())
    counts = Counts()
    Clients(told, arguments.seed, counts).call("create_bucket", Bucket=BUCKET)
    workers = [Worker(number, told, arguments.seed, counts) for number in range(WORKERS)]
    # The story begins to kill when it has read this line.
    print("begun", flush=True)
    until = time.monotonic() + arguments.seconds
    together(workers, lambda worker: worker.run(until), counts)
    print("verifying", flush=True)
    together(workers, Worker.verify, counts)
    for wrong in counts.wrong:
        print(f"WRONG {wrong}")
    print(f"{counts.acknowledged} acknowledged, {counts.tried_again} tried again, {len(counts.wrong)} wrong")
    sys.exit(1 if counts.wrong else 0)


if __name__ == "__main__":
    main()
