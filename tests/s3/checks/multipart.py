"""Multipart uploads: creating, parts, completing."""

import contextlib

from kit.digests import md5_hex, parts_etag
from kit.door import EXTENT_BYTES, MIB, MIN_PART_BYTES, expect, noise, refused
from kit.suite import check
from kit.uploads import PARTS, Upload

LAST_PART = 10_000


@check
def multipart_round_trip(door):
    """CompleteMultipartUpload: the object is its parts in order, with an ETag of the parts"""
    upload = Upload(door).put_all()
    answer = upload.complete()
    assert answer["ETag"] == f'"{parts_etag(PARTS)}"', answer["ETag"]
    assert answer["Bucket"] == door.bucket and answer["Key"] == upload.key and upload.key in answer["Location"]
    assert door.other.get_object(**upload.at)["Body"].read() == b"".join(PARTS)
    assert door.s3.head_object(**upload.at)["ETag"] == f'"{parts_etag(PARTS)}"'


@check
def multipart_create_answers_an_id(door):
    """CreateMultipartUpload: Bucket, Key and an UploadId of its own each time"""
    first, second = Upload(door, key="same-key"), Upload(door, key="same-key")
    assert first.id and first.id != second.id
    first.abort()
    second.abort()


@check
def multipart_is_invisible_before(door):
    """UploadPart: nothing is listed or got before the upload is completed"""
    upload = Upload(door)
    upload.put(1, b"part")
    assert not door.exists(upload.key)
    assert "Contents" not in door.s3.list_objects_v2(Bucket=door.bucket, Prefix=upload.key)
    upload.abort()


@check
def multipart_keeps_the_old_object_until_then(door):
    """CompleteMultipartUpload: an object of the same name stays until it is completed"""
    upload = Upload(door, key=door.put(b"old"))
    upload.put(1, b"new")
    assert door.get(upload.key) == b"old"
    upload.complete()
    assert door.get(upload.key) == b"new"


@check
def multipart_part_etag_is_md5(door):
    """UploadPart: the ETag of a part is its MD5"""
    upload = Upload(door)
    assert upload.put(1, b"part")["ETag"] == f'"{md5_hex(b"part")}"'
    upload.abort()


@check
def multipart_metadata_is_of_the_creation(door):
    """CreateMultipartUpload: content headers and user metadata are the object's"""
    upload = Upload(door, ContentType="text/plain", CacheControl="no-cache", Metadata={"a": "b"})
    upload.put(1, b"part")
    upload.complete()
    head = door.s3.head_object(**upload.at)
    assert head["ContentType"] == "text/plain" and head["CacheControl"] == "no-cache" and head["Metadata"] == {"a": "b"}


@check
def multipart_of_one_small_part(door):
    """CompleteMultipartUpload: the last part may be small, also when it is the only one"""
    upload = Upload(door)
    upload.put(1, b"x")
    assert upload.complete()["ETag"] == f'"{parts_etag([b"x"])}"'
    assert door.get(upload.key) == b"x"


@check
def multipart_of_an_empty_part(door):
    """CompleteMultipartUpload: one empty part is an empty object"""
    upload = Upload(door)
    upload.put(1, b"")
    upload.complete()
    assert door.get(upload.key) == b""


@check
def multipart_numbers_with_gaps(door):
    """CompleteMultipartUpload: part numbers need not be consecutive, up to 10,000"""
    upload = Upload(door)
    upload.put(LAST_PART, PARTS[2])
    upload.put(7, PARTS[0])
    upload.complete()
    assert door.get(upload.key) == PARTS[0] + PARTS[2]


@check
def multipart_part_replaced(door):
    """UploadPart: a part that is put again replaces the one before"""
    upload = Upload(door)
    old = upload.put(1, b"old")["ETag"]
    upload.put(1, b"new")
    refused("InvalidPart", upload.complete, parts=[{**upload.parts[1], "ETag": old}])
    upload.complete()
    assert door.get(upload.key) == b"new"


@check
def multipart_parts_chosen(door):
    """CompleteMultipartUpload: parts that are not listed are left out"""
    upload = Upload(door).put_all()
    upload.complete(parts=[upload.parts[1], upload.parts[3]])
    assert door.get(upload.key) == PARTS[0] + PARTS[2]


@check
def multipart_parts_through_all_nodes(door):
    """UploadPart: parts may go to any endpoint, and be completed at another"""
    upload = Upload(door)
    for number, client in ((1, door.other), (2, door.s3)):
        answer = client.upload_part(**upload.named, PartNumber=number, Body=PARTS[number - 1])
        upload.note(number, answer)
    door.other.complete_multipart_upload(**upload.named, MultipartUpload={"Parts": upload.listed()})
    assert door.get(upload.key) == PARTS[0] + PARTS[1]


@check
def multipart_out_of_order(door):
    """CompleteMultipartUpload: parts not in ascending order are InvalidPartOrder"""
    upload = Upload(door).put_all()
    refused("InvalidPartOrder", upload.complete, parts=[upload.parts[2], upload.parts[1]])
    refused("InvalidPartOrder", upload.complete, parts=[upload.parts[1], upload.parts[1]])
    upload.complete()


@check
def multipart_part_missing(door):
    """CompleteMultipartUpload: a part that was not uploaded is InvalidPart, and the upload stays"""
    upload = Upload(door)
    upload.put(1, b"part")
    refused("InvalidPart", upload.complete, parts=[{**upload.parts[1], "PartNumber": 2}])
    upload.complete()


@check
def multipart_part_with_a_wrong_etag(door):
    """CompleteMultipartUpload: another ETag than the part's is InvalidPart"""
    upload = Upload(door)
    upload.put(1, b"part")
    refused("InvalidPart", upload.complete, parts=[{**upload.parts[1], "ETag": '"' + "0" * 32 + '"'}])
    refused(("InvalidPart", "InvalidRequest", "MalformedXML"), upload.complete, parts=[{"PartNumber": 1, "ETag": "x"}])
    assert not door.exists(upload.key)
    upload.abort()


@check
def multipart_part_too_small(door):
    """CompleteMultipartUpload: a part below 5 MiB that is not the last is EntityTooSmall"""
    upload = Upload(door)
    upload.put(1, noise(MIN_PART_BYTES - 1))
    upload.put(2, b"last")
    refused("EntityTooSmall", upload.complete)
    assert not door.exists(upload.key)
    upload.abort()


@check
def multipart_of_no_parts(door):
    """CompleteMultipartUpload: an empty list is MalformedXML or InvalidRequest"""
    upload = Upload(door)
    refused(("MalformedXML", "InvalidRequest"), upload.complete, parts=[])
    upload.abort()


@check
def multipart_completed_twice(door):
    """CompleteMultipartUpload: again is answered the same, or NoSuchUpload; the object stays"""
    upload = Upload(door)
    upload.put(1, b"part")
    first = upload.complete()
    with contextlib.suppress(door.s3.exceptions.NoSuchUpload):
        assert upload.complete()["ETag"] == first["ETag"]
    assert door.get(upload.key) == b"part"


@check
def multipart_completed_again_buries_nothing(door):
    """CompleteMultipartUpload: a late repetition never replaces an object put since"""
    upload = Upload(door)
    upload.put(1, b"part")
    upload.complete()
    door.put(b"newer", key=upload.key)
    with contextlib.suppress(door.s3.exceptions.ClientError):
        upload.complete()
    assert door.get(upload.key) == b"newer"


@check
def multipart_part_number_forbidden(door):
    """UploadPart: part numbers are 1 to 10,000, else InvalidArgument"""
    upload = Upload(door)
    for number in (0, -1, LAST_PART + 1, 99999999999):
        refused("InvalidArgument", upload.put, number=number, body=b"x")
    upload.abort()


@check
def multipart_part_of_no_upload(door):
    """UploadPart: NoSuchUpload for an id that was never given"""
    for named in ("never-given", "0" * 32, "../../etc"):
        at = {"Bucket": door.bucket, "Key": "k", "UploadId": named}
        refused("NoSuchUpload", door.s3.upload_part, **at, PartNumber=1, Body=b"x")
        refused("NoSuchUpload", door.s3.abort_multipart_upload, **at)


@check
def multipart_upload_is_of_its_key(door):
    """UploadPart: an upload's id holds for its own key only"""
    upload = Upload(door)
    at = {**upload.named, "Key": "another-key"}
    refused("NoSuchUpload", door.s3.upload_part, **at, PartNumber=1, Body=b"x")
    upload.abort()


@check
def multipart_aborted(door):
    """AbortMultipartUpload: 204; its parts are gone, nothing can be completed"""
    upload = Upload(door)
    upload.put(1, b"part")
    assert upload.abort()["ResponseMetadata"]["HTTPStatusCode"] == 204
    refused("NoSuchUpload", upload.complete)
    refused("NoSuchUpload", door.s3.list_parts, **upload.named)
    refused("NoSuchUpload", upload.put, number=2, body=b"x")


@check
def multipart_larger_parts_cross_extents(door):
    """UploadPart: parts larger than the store's extents; a range across their border"""
    parts = [noise(EXTENT_BYTES + MIB, seed=3), noise(100_000, seed=4)]
    upload = Upload(door).put_all(parts)
    upload.complete()
    whole = b"".join(parts)
    assert door.get(upload.key) == whole
    border = len(parts[0])
    assert door.get(upload.key, Range=f"bytes={border - 9}-{border + 9}") == whole[border - 9 : border + 10]


@check
def multipart_ranges_across_parts(door):
    """GetObject, Range: over the borders of parts that end within an extent"""
    upload = Upload(door).put_all()
    upload.complete()
    whole = b"".join(PARTS)
    for border in (len(PARTS[0]), len(PARTS[0]) + len(PARTS[1])):
        assert door.get(upload.key, Range=f"bytes={border - 5}-{border + 5}") == whole[border - 5 : border + 6]
    assert door.get(upload.key, Range="bytes=-1100") == whole[-1100:]


@check
def multipart_get_by_part_number(door):
    """GetObject, partNumber: that part, with x-amz-mp-parts-count"""
    upload = Upload(door).put_all()
    upload.complete()
    answer = door.s3.get_object(**upload.at, PartNumber=2)
    assert answer["Body"].read() == PARTS[1] and answer["PartsCount"] == 3
    head = door.s3.head_object(**upload.at, PartNumber=3)
    assert head["ContentLength"] == len(PARTS[2]) and head["PartsCount"] == 3
    refused(("InvalidPartNumber", "InvalidRange"), door.s3.get_object, **upload.at, PartNumber=4)


@check
def multipart_part_copied(door):
    """UploadPartCopy: a part from an object, whole and by range"""
    source = door.put(PARTS[1])
    upload = Upload(door)
    ranges = {1: f"bytes=0-{MIN_PART_BYTES - 1}", 2: "bytes=10-19", 3: None}
    for number, said in ranges.items():
        how = {"CopySourceRange": said} if said else {}
        result = door.s3.upload_part_copy(
            **upload.named, PartNumber=number, CopySource={"Bucket": door.bucket, "Key": source}, **how
        )["CopyPartResult"]
        upload.note(number, result)
    upload.complete(parts=[upload.parts[1], upload.parts[3]])
    assert door.get(upload.key) == PARTS[1][:MIN_PART_BYTES] + PARTS[1]


@check
def multipart_part_copied_beyond(door):
    """UploadPartCopy, x-amz-copy-source-range: beyond the source is InvalidRange or InvalidArgument"""
    source = {"Bucket": door.bucket, "Key": door.put(b"small")}
    upload = Upload(door)
    for said in ("bytes=0-9", "bytes=7-9", "bytes=3-", "nonsense"):
        refused(
            ("InvalidRange", "InvalidArgument", "InvalidRequest"),
            door.s3.upload_part_copy,
            **upload.named,
            PartNumber=1,
            CopySource=source,
            CopySourceRange=said,
        )
    upload.abort()


@check
def multipart_completion_malformed(door):
    """CompleteMultipartUpload: what is not its XML is MalformedXML"""
    upload = Upload(door)
    upload.put(1, b"part")
    for body in (b"", b"not xml", b"<Other/>", b"<CompleteMultipartUpload><Part></CompleteMultipartUpload>"):
        answer = door.wire.ask("POST", f"/{door.bucket}/{upload.key}?uploadId={upload.id}", body=body)
        expect(answer, "MalformedXML", "InvalidRequest")
    upload.abort()
