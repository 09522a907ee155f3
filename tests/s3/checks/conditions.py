"""Conditions: of reading, of putting, of deleting."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from botocore.exceptions import ClientError

from kit.door import code_of, refused
from kit.suite import check

OTHER_ETAG = '"00000000000000000000000000000000"'
WRITERS = 8


def an_object(door):
    key = door.put(b"content")
    head = door.s3.head_object(Bucket=door.bucket, Key=key)
    before, after = head["LastModified"] - timedelta(hours=1), head["LastModified"] + timedelta(seconds=1)
    return {"Bucket": door.bucket, "Key": key}, head["ETag"], before, after


@check
def condition_get_if_match(door):
    """GetObject, If-Match: the object when its ETag is that, else PreconditionFailed"""
    at, etag, _, _ = an_object(door)
    assert door.s3.get_object(**at, IfMatch=etag)["Body"].read() == b"content"
    assert door.s3.get_object(**at, IfMatch=etag.strip('"'))["Body"].read() == b"content"
    refused("PreconditionFailed", door.s3.get_object, **at, IfMatch=OTHER_ETAG)


@check
def condition_get_if_none_match(door):
    """GetObject, If-None-Match: 304 when its ETag is that"""
    at, etag, _, _ = an_object(door)
    error = refused("304", door.s3.get_object, **at, IfNoneMatch=etag)
    assert error.response["ResponseMetadata"]["HTTPHeaders"].get("etag") == etag
    assert door.s3.get_object(**at, IfNoneMatch=OTHER_ETAG)["Body"].read() == b"content"


@check
def condition_get_if_modified_since(door):
    """GetObject, If-Modified-Since: 304 when it was not"""
    at, _, before, after = an_object(door)
    assert door.s3.get_object(**at, IfModifiedSince=before)["Body"].read() == b"content"
    refused("304", door.s3.get_object, **at, IfModifiedSince=after)


@check
def condition_get_if_modified_since_its_own_time(door):
    """GetObject, If-Modified-Since: the object's own Last-Modified is 304, for it has seconds only"""
    at, _, before, _ = an_object(door)
    refused("304", door.s3.get_object, **at, IfModifiedSince=before + timedelta(hours=1))


@check
def condition_get_if_unmodified_since(door):
    """GetObject, If-Unmodified-Since: PreconditionFailed when it was modified"""
    at, _, before, after = an_object(door)
    assert door.s3.get_object(**at, IfUnmodifiedSince=after)["Body"].read() == b"content"
    refused("PreconditionFailed", door.s3.get_object, **at, IfUnmodifiedSince=before)


@check
def condition_of_head(door):
    """HeadObject: the same conditions, as 412 and 304"""
    at, etag, before, after = an_object(door)
    door.s3.head_object(**at, IfMatch=etag)
    refused("412", door.s3.head_object, **at, IfMatch=OTHER_ETAG)
    refused("304", door.s3.head_object, **at, IfNoneMatch=etag)
    refused("304", door.s3.head_object, **at, IfModifiedSince=after)
    refused("412", door.s3.head_object, **at, IfUnmodifiedSince=before)


@check
def condition_match_outweighs_unmodified_since(door):
    """GetObject: If-Match true and If-Unmodified-Since false is 200"""
    at, etag, before, _ = an_object(door)
    assert door.s3.get_object(**at, IfMatch=etag, IfUnmodifiedSince=before)["Body"].read() == b"content"


@check
def condition_none_match_outweighs_modified_since(door):
    """GetObject: If-None-Match false and If-Modified-Since true is 304"""
    at, etag, before, _ = an_object(door)
    refused("304", door.s3.get_object, **at, IfNoneMatch=etag, IfModifiedSince=before)


@check
def condition_on_a_missing_object(door):
    """GetObject: a condition on what is not there is NoSuchKey"""
    refused("NoSuchKey", door.s3.get_object, Bucket=door.bucket, Key="never-put", IfMatch=OTHER_ETAG)


@check
def condition_put_if_absent(door):
    """PutObject, If-None-Match: * puts only where nothing is"""
    at = {"Bucket": door.bucket, "Key": door.key_name()}
    door.s3.put_object(**at, Body=b"first", IfNoneMatch="*")
    refused("PreconditionFailed", door.s3.put_object, **at, Body=b"second", IfNoneMatch="*")
    assert door.get(at["Key"]) == b"first"


@check
def condition_put_if_absent_after_delete(door):
    """PutObject, If-None-Match: *: a deleted object is absent"""
    at, _, _, _ = an_object(door)
    door.s3.delete_object(**at)
    door.other.put_object(**at, Body=b"again", IfNoneMatch="*")


@check
def condition_put_if_match(door):
    """PutObject, If-Match: only over the object that is meant"""
    at, etag, _, _ = an_object(door)
    refused("PreconditionFailed", door.s3.put_object, **at, Body=b"x", IfMatch=OTHER_ETAG)
    assert door.get(at["Key"]) == b"content"
    door.s3.put_object(**at, Body=b"next", IfMatch=etag)
    refused("PreconditionFailed", door.s3.put_object, **at, Body=b"late", IfMatch=etag)
    assert door.get(at["Key"]) == b"next"


@check
def condition_put_if_match_of_none(door):
    """PutObject, If-Match on a name without object: NoSuchKey"""
    at = {"Bucket": door.bucket, "Key": door.key_name()}
    refused("NoSuchKey", door.s3.put_object, **at, Body=b"x", IfMatch=OTHER_ETAG)
    assert not door.exists(at["Key"])


@check
def condition_put_if_none_match(door):
    """PutObject, If-None-Match with an ETag: NotImplemented or honoured, never ignored"""
    at, etag, _, _ = an_object(door)
    refused(("NotImplemented", "PreconditionFailed"), door.s3.put_object, **at, Body=b"x", IfNoneMatch=etag)
    assert door.get(at["Key"]) == b"content"


@check
def condition_put_by_many_at_once(door):
    """PutObject, If-None-Match: *: of many at once through two endpoints one is first"""
    at = {"Bucket": door.bucket, "Key": door.key_name()}

    def put(number):
        try:
            (door.s3 if number % 2 else door.other).put_object(**at, Body=str(number).encode(), IfNoneMatch="*")
            return number
        except ClientError as error:
            assert code_of(error) in ("PreconditionFailed", "ConditionalRequestConflict"), error
            return None

    with ThreadPoolExecutor(WRITERS) as pool:
        done = [number for number in pool.map(put, range(WRITERS)) if number is not None]
    assert len(done) == 1, done
    assert door.get(at["Key"]) == str(done[0]).encode()


@check
def condition_of_completing_an_upload(door):
    """CompleteMultipartUpload, If-None-Match: *: PreconditionFailed over an object"""
    at, _, _, _ = an_object(door)
    upload = door.s3.create_multipart_upload(**at)["UploadId"]
    part = door.s3.upload_part(**at, UploadId=upload, PartNumber=1, Body=b"part")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
    refused(
        "PreconditionFailed",
        door.s3.complete_multipart_upload,
        **at,
        UploadId=upload,
        MultipartUpload=parts,
        IfNoneMatch="*",
    )
    assert door.get(at["Key"]) == b"content"
    door.s3.abort_multipart_upload(**at, UploadId=upload)


@check
def condition_delete_if_match(door):
    """DeleteObject, If-Match: only the object that is meant"""
    at, etag, _, _ = an_object(door)
    refused("PreconditionFailed", door.s3.delete_object, **at, IfMatch=OTHER_ETAG)
    assert door.exists(at["Key"])
    door.s3.delete_object(**at, IfMatch=etag)
    assert not door.exists(at["Key"])
