"""s3cmd."""

from urllib.parse import urlsplit

from commands.shell import TREE, beside_python, content_of, sha256, shell
from kit.digests import md5_hex
from kit.suite import check


def s3cmd(sh, *arguments, **how):
    host = urlsplit(sh.door.endpoints[0]).netloc
    access = ["--access_key", sh.door.key.id, "--secret_key", sh.door.key.secret]
    to = ["--host", host, "--host-bucket", host, "--no-ssl", "--no-progress", "--config", "/dev/null"]
    return sh.run(beside_python("s3cmd"), *access, *to, *arguments, **how)


@check
def s3cmd_buckets(door):
    """s3cmd mb, ls, rb"""
    with shell(door) as sh:
        s3cmd(sh, "mb", "s3://made-by-s3cmd")
        assert "s3://made-by-s3cmd" in s3cmd(sh, "ls")
        s3cmd(sh, "rb", "s3://made-by-s3cmd")
        assert "s3://made-by-s3cmd" not in s3cmd(sh, "ls")


@check
def s3cmd_put_and_get(door):
    """s3cmd put, info, get, del"""
    with shell(door) as sh:
        name = f"s3://{door.bucket}/by-s3cmd"
        s3cmd(sh, "put", "--add-header", "x-amz-meta-a: b", sh.tree() / "folder/b.bin", name)
        said = s3cmd(sh, "info", name)
        assert md5_hex(TREE["folder/b.bin"]) in said and "x-amz-meta-a" in said, said
        s3cmd(sh, "get", name, "back")
        assert sh.path("back").read_bytes() == TREE["folder/b.bin"]
        s3cmd(sh, "del", name)
        s3cmd(sh, "info", name, succeeds=False)


@check
def s3cmd_large_file(door):
    """s3cmd put: 100 MiB in parts, and back"""
    with shell(door) as sh:
        large, name = sh.large(), f"s3://{door.bucket}/large-by-s3cmd"
        s3cmd(sh, "put", "--multipart-chunk-size-mb", "15", large, name)
        s3cmd(sh, "get", name, "back.bin")
        assert sha256(sh.path("back.bin")) == sha256(large)
        assert s3cmd(sh, "multipart", f"s3://{door.bucket}").count("large-by-s3cmd") == 0


@check
def s3cmd_unfinished_uploads(door):
    """s3cmd multipart, abortmp: uploads in progress are listed and aborted"""
    with shell(door) as sh:
        at = {"Bucket": door.new_bucket(), "Key": "unfinished"}
        upload = door.s3.create_multipart_upload(**at)["UploadId"]
        assert upload in s3cmd(sh, "multipart", f"s3://{at['Bucket']}")
        s3cmd(sh, "abortmp", f"s3://{at['Bucket']}/unfinished", upload)
        assert upload not in s3cmd(sh, "multipart", f"s3://{at['Bucket']}")


@check
def s3cmd_sync(door):
    """s3cmd sync: a tree up and down, and --delete-removed"""
    with shell(door) as sh:
        tree, bucket = sh.tree(), door.new_bucket()
        s3cmd(sh, "sync", f"{tree}/", f"s3://{bucket}/tree/")
        s3cmd(sh, "sync", f"s3://{bucket}/tree/", "back/")
        assert content_of(sh.path("back")) == TREE
        (tree / "a.txt").unlink()
        s3cmd(sh, "sync", "--delete-removed", f"{tree}/", f"s3://{bucket}/tree/")
        assert not door.exists("tree/a.txt", bucket=bucket)


@check
def s3cmd_copy_move_delete(door):
    """s3cmd cp, mv, ls, del --recursive"""
    with shell(door) as sh:
        bucket = door.new_bucket()
        door.s3.put_object(Bucket=bucket, Key="a b+c", Body=b"content")
        s3cmd(sh, "cp", f"s3://{bucket}/a b+c", f"s3://{bucket}/copy")
        s3cmd(sh, "mv", f"s3://{bucket}/copy", f"s3://{bucket}/moved/ü")
        assert "moved/ü" in s3cmd(sh, "ls", "--recursive", f"s3://{bucket}")
        assert door.get("moved/ü", bucket=bucket) == b"content"
        s3cmd(sh, "del", "--recursive", "--force", f"s3://{bucket}")
        assert "Contents" not in door.s3.list_objects_v2(Bucket=bucket)
