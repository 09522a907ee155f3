"""ListMultipartUploads and ListParts."""

from kit.door import refused
from kit.suite import check
from kit.uploads import Upload

PART_COUNT = 7


def listed(page):
    return [(entry["Key"], entry["UploadId"]) for entry in page.get("Uploads", [])]


def part_numbers(page):
    return [part["PartNumber"] for part in page.get("Parts", [])]


@check
def uploads_are_listed(door):
    """ListMultipartUploads: Key, UploadId, Initiated and Initiator of those in progress, ordered by key"""
    bucket = door.new_bucket()
    made = [Upload(door, key=key, bucket=bucket) for key in ("b", "a", "c/d")]
    page = door.other.list_multipart_uploads(Bucket=bucket)
    assert listed(page) == sorted((upload.key, upload.id) for upload in made) and not page["IsTruncated"]
    assert page["Uploads"][0]["Initiated"].year > 2000 and page["Uploads"][0]["Initiator"]["ID"]


@check
def uploads_of_one_key(door):
    """ListMultipartUploads: several of one key, each once over all pages"""
    bucket = door.new_bucket()
    made = {Upload(door, key=key, bucket=bucket).id for key in ("same", "same", "same", "z")}
    seen, marker = [], {}
    while True:
        page = door.s3.list_multipart_uploads(Bucket=bucket, MaxUploads=1, **marker)
        seen += [upload for _, upload in listed(page)]
        if not page["IsTruncated"]:
            break
        marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
    assert len(seen) == len(made) and set(seen) == made


@check
def uploads_prefix_and_delimiter(door):
    """ListMultipartUploads, prefix and delimiter"""
    bucket = door.new_bucket()
    for key in ("a", "f/1", "f/2", "g"):
        Upload(door, key=key, bucket=bucket)
    page = door.s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [key for key, _ in listed(page)] == ["a", "g"]
    assert [entry["Prefix"] for entry in page["CommonPrefixes"]] == ["f/"]
    page = door.s3.list_multipart_uploads(Bucket=bucket, Prefix="f/")
    assert [key for key, _ in listed(page)] == ["f/1", "f/2"]


@check
def uploads_key_marker(door):
    """ListMultipartUploads, key-marker alone: keys behind it"""
    bucket = door.new_bucket()
    for key in ("a", "b", "c"):
        Upload(door, key=key, bucket=bucket)
    page = door.s3.list_multipart_uploads(Bucket=bucket, KeyMarker="a")
    assert [key for key, _ in listed(page)] == ["b", "c"]


@check
def uploads_leave_the_list(door):
    """ListMultipartUploads: neither completed nor aborted ones"""
    bucket = door.new_bucket()
    completed, aborted = Upload(door, bucket=bucket), Upload(door, bucket=bucket)
    completed.put(1, b"x")
    completed.complete()
    aborted.abort()
    assert listed(door.s3.list_multipart_uploads(Bucket=bucket)) == []


@check
def parts_are_listed(door):
    """ListParts: PartNumber, ETag, Size and LastModified in order of number"""
    upload = Upload(door)
    for number in (3, 1, 2):
        upload.put(number, b"x" * number)
    page = door.other.list_parts(**upload.named)
    assert part_numbers(page) == [1, 2, 3] and [part["Size"] for part in page["Parts"]] == [1, 2, 3]
    assert [part["ETag"] for part in page["Parts"]] == [upload.parts[number]["ETag"] for number in (1, 2, 3)]
    assert page["Parts"][0]["LastModified"].year > 2000 and not page["IsTruncated"]
    upload.abort()


@check
def parts_paged(door):
    """ListParts, max-parts and part-number-marker: every part once"""
    upload = Upload(door)
    for number in range(1, PART_COUNT + 1):
        upload.put(number, b"x")
    for size in (1, 2, 3, PART_COUNT, 100):
        seen, marker = [], {}
        while True:
            page = door.s3.list_parts(**upload.named, MaxParts=size, **marker)
            seen += part_numbers(page)
            if not page["IsTruncated"]:
                break
            marker = {"PartNumberMarker": page["NextPartNumberMarker"]}
        assert seen == list(range(1, PART_COUNT + 1)), (size, seen)
    upload.abort()


@check
def parts_of_a_replaced_part(door):
    """ListParts: a part that was put again is there once, as it is now"""
    upload = Upload(door)
    upload.put(1, b"old")
    upload.put(1, b"newer")
    page = door.s3.list_parts(**upload.named)
    assert [(part["PartNumber"], part["Size"]) for part in page["Parts"]] == [(1, 5)]
    upload.abort()


@check
def parts_of_none(door):
    """ListParts: an upload without parts has none; NoSuchUpload for an unknown one"""
    upload = Upload(door)
    assert part_numbers(door.s3.list_parts(**upload.named)) == []
    upload.abort()
    refused("NoSuchUpload", door.s3.list_parts, **upload.named)
