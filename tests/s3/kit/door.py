"""The door under test as the checks see it: clients of its endpoints, and buckets and names of their own.

Owns: what a check makes and the cleaning up after it. Must never: retry, since a retry hides what is checked.
"""

import json
import random
import string
import subprocess
import uuid
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from .sigv4 import REGION, Key
from .wire import DEADLINE_S, Wire

MIB = 1 << 20
# What the store cuts objects into: ranges and parts that cross it take another way through the code.
EXTENT_BYTES = 16 * MIB
# S3's least size of a part that is not the last.
MIN_PART_BYTES = 5 * MIB


class Skipped(Exception):
    """A check that cannot be made here, with the reason."""


class Door:
    """Endpoints and the first key: all that a client is told."""

    def __init__(self, endpoints, key, binary=None, folder=None):
        self.endpoints, self.key = endpoints, key
        self.binary, self.folder = binary, folder
        self._clients, self._made = {}, []
        self.s3 = self.client()
        self.other = self.client(endpoint=self.endpoints[-1])
        self.wire = Wire(self.endpoints[0], key)
        self.bucket = self.new_bucket()
        self._kept = [self._made.pop()]

    @classmethod
    def of_arguments(cls, arguments):
        told = json.loads(Path(arguments.access).read_text())
        key = Key(told["access_key"], told["secret_key"])
        return cls(told["endpoints"], key, arguments.resilver, str(Path(arguments.access).parent))

    def client(self, key=None, endpoint=None, **config):
        """A boto3 client that asks once and checks nothing on its side."""
        key = key or self.key
        named = (key, endpoint, json.dumps(config, sort_keys=True))
        if named not in self._clients:
            self._clients[named] = boto3.client(
                "s3",
                endpoint_url=endpoint or self.endpoints[0],
                region_name=REGION,
                aws_access_key_id=key.id,
                aws_secret_access_key=key.secret,
                config=_config(**config),
            )
        return self._clients[named]

    def new_bucket(self):
        """A bucket that ends with the check."""
        name = "check-" + uuid.uuid4().hex[:12]
        self.s3.create_bucket(Bucket=name)
        self._made.append(name)
        return name

    def keep(self, bucket):
        """Lets a bucket live as long as the run."""
        self._kept.append(bucket)

    def key_name(self, hint="object"):
        """A name in the common bucket that no other check has."""
        return f"{hint}-{uuid.uuid4().hex[:8]}"

    def put(self, body=b"content", key=None, **more):
        """An object in the common bucket; its name."""
        key = key or self.key_name()
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, **more)
        return key

    def get(self, key, bucket=None, **more):
        """An object's bytes."""
        return self.s3.get_object(Bucket=bucket or self.bucket, Key=key, **more)["Body"].read()

    def exists(self, key, bucket=None):
        try:
            self.s3.head_object(Bucket=bucket or self.bucket, Key=key)
        except ClientError as error:
            assert status_of(error) == 404, error
            return False
        return True

    def path(self, key, bucket=None):
        """The target of an object on the request line; the key as it is to stand there."""
        return f"/{bucket or self.bucket}/{key}"

    def command(self, *arguments):
        """Runs the `resilver` command against this cluster, and parses its JSON."""
        if not self.binary:
            raise Skipped("no --resilver to run")
        whole = [self.binary, *arguments, "--dir", self.folder, "--json"]
        done = subprocess.run(whole, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else None

    def clean(self):
        """Ends the buckets that the last check made."""
        while self._made:
            self.empty_and_delete(self._made.pop())

    def close(self):
        self.clean()
        for bucket in self._kept:
            self.empty_and_delete(bucket)

    def empty_and_delete(self, bucket):
        try:
            for upload in self.s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
                self.s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                for entry in page.get("Contents", []):
                    self.s3.delete_object(Bucket=bucket, Key=entry["Key"])
            self.s3.delete_bucket(Bucket=bucket)
        except ClientError as error:
            if code_of(error) != "NoSuchBucket":
                raise


def _config(**more):
    defaults = {
        "retries": {"total_max_attempts": 1},
        # Without it boto3 presigns with version 2 where the region is us-east-1.
        "signature_version": "s3v4",
        "parameter_validation": False,
        "connect_timeout": DEADLINE_S,
        "read_timeout": DEADLINE_S,
        "s3": {"addressing_style": "path"},
        "max_pool_connections": 32,
    }
    return Config(**{**defaults, **more})


def status_of(error):
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def code_of(error):
    return error.response["Error"]["Code"]


def refused(codes, call, **arguments):
    """Expects one of S3's error codes (or, where no body comes, a status) and hands back the error."""
    wanted = {codes} if isinstance(codes, str) else set(codes)
    try:
        call(**arguments)
    except ClientError as error:
        assert code_of(error) in wanted, f"{code_of(error)} instead of {' or '.join(sorted(wanted))}: {error}"
        return error
    raise AssertionError(f"accepted, instead of {' or '.join(sorted(wanted))}")


def expect(answer, *wanted):
    """Expects one of these codes (or statuses) of a raw answer."""
    assert answer.code in wanted or answer.status in wanted, f"{answer} instead of {' or '.join(map(str, wanted))}"
    return answer


def noise(size, seed=0):
    """Bytes that compress badly and are the same each time."""
    return random.Random(seed).randbytes(size)


def name_of(length):
    return "".join(random.choices(string.ascii_lowercase, k=length))
