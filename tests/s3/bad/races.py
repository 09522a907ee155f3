"""Buckets that go while something is put into them."""

from bad.rules import refusal
from kit.door import noise, refused
from kit.suite import check
from kit.uploads import Upload
from kit.wire import read_answer

BODY = noise(500_000, seed=12)


@check
def bucket_deleted_under_a_put(door):
    """PutObject: NoSuchBucket when the bucket goes while the body is sent"""
    bucket = door.new_bucket()
    request = door.wire.signed("PUT", f"/{bucket}/late", body=BODY)
    with door.wire.connect() as connection:
        connection.sendall(request[: len(request) // 2])
        door.s3.delete_bucket(Bucket=bucket)
        connection.sendall(request[len(request) // 2 :])
        refusal(read_answer(connection), "NoSuchBucket")
    refused("404", door.s3.head_bucket, Bucket=bucket)


@check
def bucket_made_anew_under_a_put(door):
    """PutObject: into a bucket that was deleted and made anew the object comes whole or not at all"""
    bucket = door.new_bucket()
    request = door.wire.signed("PUT", f"/{bucket}/late", body=BODY)
    with door.wire.connect() as connection:
        connection.sendall(request[: len(request) // 2])
        door.other.delete_bucket(Bucket=bucket)
        door.other.create_bucket(Bucket=bucket)
        connection.sendall(request[len(request) // 2 :])
        answer = read_answer(connection)
    assert answer.status == 200 or answer.code == "NoSuchBucket", answer
    listed = door.s3.list_objects_v2(Bucket=bucket).get("Contents", [])
    assert len(listed) == (1 if answer.status == 200 else 0)
    if listed:
        assert door.get("late", bucket=bucket) == BODY


@check
def bucket_deleted_under_a_part(door):
    """UploadPart: NoSuchBucket or NoSuchUpload when the bucket goes while the part is sent"""
    bucket = door.new_bucket()
    upload = Upload(door, bucket=bucket)
    target = f"/{bucket}/{upload.key}?partNumber=1&uploadId={upload.id}"
    request = door.wire.signed("PUT", target, body=BODY)
    with door.wire.connect() as connection:
        connection.sendall(request[: len(request) // 2])
        door.s3.delete_bucket(Bucket=bucket)
        connection.sendall(request[len(request) // 2 :])
        refusal(read_answer(connection), "NoSuchBucket", "NoSuchUpload")


@check
def bucket_deleted_under_a_completion(door):
    """CompleteMultipartUpload: NoSuchBucket or NoSuchUpload when the bucket is gone"""
    bucket = door.new_bucket()
    upload = Upload(door, bucket=bucket)
    upload.put(1, b"part")
    door.s3.delete_bucket(Bucket=bucket)
    refused(("NoSuchBucket", "NoSuchUpload"), upload.complete)
    refused(("NoSuchBucket", "NoSuchUpload"), upload.put, number=2, body=b"x")
    door.s3.create_bucket(Bucket=bucket)
    refused("NoSuchUpload", upload.complete)
    assert "Contents" not in door.s3.list_objects_v2(Bucket=bucket)


@check
def object_replaced_under_its_reader(door):
    """GetObject: a reader gets the object that it began with, whole, though it is replaced and deleted"""
    body = noise(20_000_000, seed=13)
    key = door.put(body)
    answer = door.s3.get_object(Bucket=door.bucket, Key=key)
    first = answer["Body"].read(1000)
    door.put(b"new", key=key)
    door.s3.delete_object(Bucket=door.bucket, Key=key)
    assert first + answer["Body"].read() == body


@check
def object_deleted_under_its_overwrite(door):
    """PutObject: an overwrite under way is not undone by a delete before it is complete"""
    key = door.put(b"old")
    request = door.wire.signed("PUT", door.path(key), body=BODY)
    with door.wire.connect() as connection:
        connection.sendall(request[: len(request) // 2])
        door.s3.delete_object(Bucket=door.bucket, Key=key)
        connection.sendall(request[len(request) // 2 :])
        assert read_answer(connection).status == 200
    assert door.get(key) == BODY
