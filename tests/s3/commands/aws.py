"""The AWS command line."""

import json
import urllib.request

from commands.shell import TREE, beside_python, content_of, sha256, shell
from kit.suite import check


def aws(sh, *arguments, **how):
    return sh.run(beside_python("aws"), *arguments, **how)


@check
def aws_buckets(door):
    """aws s3 mb, ls, rb"""
    with shell(door) as sh:
        aws(sh, "s3", "mb", "s3://made-by-aws")
        assert "made-by-aws" in aws(sh, "s3", "ls")
        aws(sh, "s3", "cp", sh.tree() / "a.txt", "s3://made-by-aws/a.txt")
        aws(sh, "s3", "rb", "s3://made-by-aws", succeeds=False)
        aws(sh, "s3", "rb", "--force", "s3://made-by-aws")
        assert "made-by-aws" not in aws(sh, "s3", "ls")


@check
def aws_large_file(door):
    """aws s3 cp: 100 MiB in parts, up and down"""
    with shell(door) as sh:
        large = sh.large()
        aws(sh, "s3", "cp", "--no-progress", large, f"s3://{door.bucket}/large.bin")
        aws(sh, "s3", "cp", "--no-progress", f"s3://{door.bucket}/large.bin", "back.bin")
        assert sha256(sh.path("back.bin")) == sha256(large)


@check
def aws_sync(door):
    """aws s3 sync: a tree up and down; nothing the second time; --delete"""
    with shell(door) as sh:
        tree, bucket = sh.tree(), door.new_bucket()
        aws(sh, "s3", "sync", tree, f"s3://{bucket}/tree")
        assert aws(sh, "s3", "sync", tree, f"s3://{bucket}/tree") == ""
        aws(sh, "s3", "sync", f"s3://{bucket}/tree", "back")
        assert content_of(sh.path("back")) == TREE
        (tree / "a.txt").unlink()
        assert "delete" in aws(sh, "s3", "sync", "--delete", tree, f"s3://{bucket}/tree")
        assert not door.exists("tree/a.txt", bucket=bucket)


@check
def aws_list_recursive(door):
    """aws s3 ls --recursive --summarize"""
    with shell(door) as sh:
        bucket = door.new_bucket()
        aws(sh, "s3", "cp", "--recursive", sh.tree(), f"s3://{bucket}/")
        listed = aws(sh, "s3", "ls", "--recursive", "--summarize", f"s3://{bucket}")
        assert f"Total Objects: {len(TREE)}" in listed and "ü+%20 &.txt" in listed, listed
        assert "PRE folder/" in aws(sh, "s3", "ls", f"s3://{bucket}/")


@check
def aws_move_and_remove(door):
    """aws s3 mv, rm: within, between and out of buckets"""
    with shell(door) as sh:
        bucket, other = door.new_bucket(), door.new_bucket()
        aws(sh, "s3", "cp", "--recursive", sh.tree(), f"s3://{bucket}/")
        aws(sh, "s3", "mv", f"s3://{bucket}/a.txt", f"s3://{other}/moved.txt")
        assert not door.exists("a.txt", bucket=bucket) and door.get("moved.txt", bucket=other) == TREE["a.txt"]
        aws(sh, "s3", "mv", f"s3://{other}/moved.txt", "home.txt")
        assert sh.path("home.txt").read_bytes() == TREE["a.txt"]
        aws(sh, "s3", "rm", "--recursive", f"s3://{bucket}")
        assert "Contents" not in door.s3.list_objects_v2(Bucket=bucket)


@check
def aws_copy_of_a_large_object(door):
    """aws s3 cp: 100 MiB from object to object, part by part"""
    with shell(door) as sh:
        large = sh.large()
        aws(sh, "s3", "cp", "--no-progress", large, f"s3://{door.bucket}/from.bin")
        aws(sh, "s3", "cp", "--no-progress", f"s3://{door.bucket}/from.bin", f"s3://{door.bucket}/to.bin")
        aws(sh, "s3", "cp", "--no-progress", f"s3://{door.bucket}/to.bin", "back.bin")
        assert sha256(sh.path("back.bin")) == sha256(large)


@check
def aws_presign(door):
    """aws s3 presign"""
    with shell(door) as sh:
        key = door.put(b"content")
        sh.run(beside_python("aws"), "configure", "set", "default.s3.signature_version", "s3v4")
        url = aws(sh, "s3", "presign", f"s3://{door.bucket}/{key}").strip()
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert answer.read() == b"content"


@check
def aws_standard_input_and_output(door):
    """aws s3 cp -: from and to a pipe"""
    with shell(door) as sh:
        door.put(b"piped", key="piped")
        assert aws(sh, "s3", "cp", f"s3://{door.bucket}/piped", "-") == "piped"


@check
def aws_api(door):
    """aws s3api: put-object with metadata, get-object with a range, head-object, list-objects-v2, delete-objects"""
    with shell(door) as sh:
        at = ("--bucket", door.new_bucket(), "--key", "k")
        sh.path("body").write_bytes(b"0123456789")
        aws(sh, "s3api", "put-object", *at, "--body", "body", "--metadata", "a=b", "--checksum-algorithm", "SHA256")
        assert json.loads(aws(sh, "s3api", "head-object", *at))["Metadata"] == {"a": "b"}
        aws(sh, "s3api", "get-object", *at, "--range", "bytes=2-4", "part")
        assert sh.path("part").read_bytes() == b"234"
        assert json.loads(aws(sh, "s3api", "list-objects-v2", *at[:2]))["Contents"][0]["Size"] == 10
        aws(sh, "s3api", "delete-objects", *at[:2], "--delete", "Objects=[{Key=k}]")
        aws(sh, "s3api", "head-object", *at, succeeds=False)
