"""rclone."""

import json

from commands.shell import TREE, content_of, on_the_path, sha256, shell
from kit.sigv4 import REGION
from kit.suite import check

# The remote is called `door`; rclone reads it from variables.
PROVIDER = {"TYPE": "s3", "PROVIDER": "Other", "REGION": REGION, "FORCE_PATH_STYLE": "true"}


def rclone(sh, *arguments, **how):
    access = {
        "ENDPOINT": sh.door.endpoints[0],
        "ACCESS_KEY_ID": sh.door.key.id,
        "SECRET_ACCESS_KEY": sh.door.key.secret,
    }
    for name, value in {**PROVIDER, **access}.items():
        sh.environment[f"RCLONE_CONFIG_DOOR_{name}"] = value
    return sh.run(on_the_path("rclone"), "--config", "/dev/null", "--retries", "1", *arguments, **how)


@check
def rclone_buckets(door):
    """rclone mkdir, lsd, rmdir"""
    with shell(door) as sh:
        rclone(sh, "mkdir", "door:made-by-rclone")
        assert "made-by-rclone" in rclone(sh, "lsd", "door:")
        rclone(sh, "rmdir", "door:made-by-rclone")
        assert "made-by-rclone" not in rclone(sh, "lsd", "door:")


@check
def rclone_copy_and_check(door):
    """rclone copy, check, lsjson: a tree up and down, hashes equal, times kept"""
    with shell(door) as sh:
        tree, bucket = sh.tree(), door.new_bucket()
        rclone(sh, "copy", tree, f"door:{bucket}/tree")
        rclone(sh, "check", tree, f"door:{bucket}/tree")
        listed = json.loads(rclone(sh, "lsjson", "--recursive", "--files-only", "--hash", f"door:{bucket}/tree"))
        assert sorted(entry["Path"] for entry in listed) == sorted(TREE)
        modified = {entry["Path"]: entry["ModTime"][:19] for entry in listed}
        local = json.loads(rclone(sh, "lsjson", "--recursive", "--files-only", tree))
        assert modified == {entry["Path"]: entry["ModTime"][:19] for entry in local}
        rclone(sh, "copy", f"door:{bucket}/tree", "back")
        assert content_of(sh.path("back")) == TREE


@check
def rclone_sync_and_purge(door):
    """rclone sync, purge: what is gone here goes there; then all of it"""
    with shell(door) as sh:
        tree, bucket = sh.tree(), door.new_bucket()
        rclone(sh, "sync", tree, f"door:{bucket}")
        (tree / "a.txt").unlink()
        (tree / "folder/c.html").write_bytes(b"changed")
        rclone(sh, "sync", tree, f"door:{bucket}")
        rclone(sh, "check", tree, f"door:{bucket}")
        assert not door.exists("a.txt", bucket=bucket)
        rclone(sh, "purge", f"door:{bucket}")
        assert bucket not in rclone(sh, "lsd", "door:")


@check
def rclone_large_file(door):
    """rclone copy: 100 MiB in parts, up and down"""
    with shell(door) as sh:
        large = sh.large()
        rclone(sh, "copy", "--s3-upload-cutoff", "20M", "--s3-chunk-size", "16M", large, f"door:{door.bucket}/rclone")
        rclone(sh, "copyto", f"door:{door.bucket}/rclone/large.bin", "back.bin")
        assert sha256(sh.path("back.bin")) == sha256(large)


@check
def rclone_many_and_odd(door):
    """rclone copy, delete: many small files, in lists of ten"""
    with shell(door) as sh:
        bucket = door.new_bucket()
        folder = sh.path("many")
        for number in range(60):
            path = folder / f"{number % 7}" / f"file {number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(str(number).encode())
        rclone(sh, "copy", "--s3-list-chunk", "10", "--transfers", "8", folder, f"door:{bucket}")
        rclone(sh, "check", "--s3-list-chunk", "10", folder, f"door:{bucket}")
        rclone(sh, "delete", "--s3-list-chunk", "10", f"door:{bucket}")
        assert rclone(sh, "lsf", "--recursive", "--files-only", f"door:{bucket}") == ""


@check
def rclone_serves_itself_a_file(door):
    """rclone cat, moveto, copyto within the door"""
    with shell(door) as sh:
        bucket = door.new_bucket()
        door.s3.put_object(Bucket=bucket, Key="a b", Body=b"0123456789")
        assert rclone(sh, "cat", "--offset", "2", "--count", "3", f"door:{bucket}/a b") == "234"
        rclone(sh, "moveto", f"door:{bucket}/a b", f"door:{bucket}/c/d")
        assert door.get("c/d", bucket=bucket) == b"0123456789" and not door.exists("a b", bucket=bucket)
