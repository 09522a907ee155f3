"""Part numbers and completions that cannot be."""

from bad.rules import refusal
from kit.door import refused
from kit.suite import check
from kit.uploads import Upload
from kit.wire import read_answer

REFUSED = ("InvalidArgument", "InvalidPart", "InvalidPartOrder", "InvalidRequest", "MalformedXML", "EntityTooSmall")


def completion(*parts):
    """A document of (number, etag) pairs; None leaves the element out."""
    listed = ""
    for number, etag in parts:
        listed += "<Part>"
        listed += f"<PartNumber>{number}</PartNumber>" if number is not None else ""
        listed += f"<ETag>{etag}</ETag>" if etag is not None else ""
        listed += "</Part>"
    return f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()


@check
def part_number_raw(door):
    """UploadPart: part numbers that are none are InvalidArgument"""
    upload = Upload(door)
    for said in (
        "0",
        "-1",
        "10001",
        "65537",
        "4294967297",
        "99999999999999999999",
        "abc",
        "",
        "1.5",
        "0x1",
        "%00",
        "1%20",
    ):
        target = f"{door.path(upload.key)}?partNumber={said}&uploadId={upload.id}"
        refusal(door.wire.ask("PUT", target, body=b"part"), "InvalidArgument", "InvalidRequest")
    assert "Parts" not in door.s3.list_parts(**upload.named)
    upload.abort()


@check
def part_without_its_number(door):
    """UploadPart: an uploadId without a partNumber is no plain put"""
    upload = Upload(door)
    answer = door.wire.ask("PUT", f"{door.path(upload.key)}?uploadId={upload.id}", body=b"part")
    assert 400 <= answer.status < 500 or answer.status == 501, answer
    assert not door.exists(upload.key)
    upload.abort()


@check
def part_without_its_upload(door):
    """UploadPart: a partNumber without an uploadId is no plain put"""
    key = door.key_name()
    answer = door.wire.ask("PUT", f"{door.path(key)}?partNumber=1", body=b"part")
    assert 400 <= answer.status < 500 or answer.status == 501, answer
    assert not door.exists(key)


@check
def completion_with_impossible_numbers(door):
    """CompleteMultipartUpload: numbers that are none, and parts without number or ETag"""
    upload = Upload(door)
    etag = upload.put(1, b"part")["ETag"]
    impossible = (
        completion((0, etag)),
        completion((-1, etag)),
        completion((10_001, etag)),
        completion((99999999999999999999, etag)),
        completion(("abc", etag)),
        completion(("", etag)),
        completion((None, etag)),
        completion((1, None)),
        completion((1, "")),
        completion((1, "x" * 100_000)),
        completion((2, etag)),
        completion((1, etag), (1, etag)),
        completion((2, etag), (1, etag)),
        completion((1, etag), (10_000, etag)),
        completion(*[(number, etag) for number in range(1, 10_002)]),
        completion(),
    )
    for body in impossible:
        target = f"{door.path(upload.key)}?uploadId={upload.id}"
        refusal(door.wire.ask("POST", target, body=body), *REFUSED)
    assert not door.exists(upload.key)
    upload.complete()
    assert door.get(upload.key) == b"part"


@check
def completion_of_no_upload(door):
    """NoSuchUpload: completing, listing and aborting what never was"""
    for said in ("x", "0" * 32, "..%2f..", "%00", "%20", "A" * 1500):
        target = f"{door.path('k')}?uploadId={said}"
        body = completion((1, '"' + "0" * 32 + '"'))
        refusal(door.wire.ask("POST", target, body=body), "NoSuchUpload")
        refusal(door.wire.ask("GET", target), "NoSuchUpload")
        refusal(door.wire.ask("DELETE", target), "NoSuchUpload")


@check
def upload_aborted_under_its_part(door):
    """NoSuchUpload: a part whose upload is aborted while it is sent"""
    upload = Upload(door)
    request = door.wire.signed("PUT", f"{door.path(upload.key)}?partNumber=1&uploadId={upload.id}", body=b"x" * 200_000)
    with door.wire.connect() as connection:
        connection.sendall(request[:100_000])
        upload.abort()
        connection.sendall(request[100_000:])
        refusal(read_answer(connection), "NoSuchUpload")
    refused("NoSuchUpload", door.s3.list_parts, **upload.named)
