"""Ranges of GetObject."""

from kit.door import EXTENT_BYTES, MIB, code_of, noise, refused, status_of
from kit.suite import check

SMALL = noise(1000, seed=1)
LARGE = noise(EXTENT_BYTES + MIB, seed=2)


def ranged(door, key, said):
    answer = door.s3.get_object(Bucket=door.bucket, Key=key, Range=said)
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer.get("ContentRange"), answer["Body"].read()


def expect_range(door, body, said, first, last):
    """That `said` of the object is its bytes from `first` to `last`, both included."""
    wanted = (206, f"bytes {first}-{last}/{len(body)}", body[first : last + 1])
    got = ranged(door, door.put(body), said)
    assert got == wanted, f"{got[:2]} instead of {wanted[:2]}, bytes {'equal' if got[2] == wanted[2] else 'differ'}"


@check
def range_of_the_first_bytes(door):
    """GetObject, Range: bytes=0-9 are ten bytes, 206 with Content-Range"""
    expect_range(door, SMALL, "bytes=0-9", 0, 9)


@check
def range_of_one_byte(door):
    """GetObject, Range: bytes=7-7"""
    expect_range(door, SMALL, "bytes=7-7", 7, 7)


@check
def range_open(door):
    """GetObject, Range: bytes=990- is the rest"""
    expect_range(door, SMALL, "bytes=990-", 990, 999)


@check
def range_suffix(door):
    """GetObject, Range: bytes=-10 are the last ten"""
    expect_range(door, SMALL, "bytes=-10", 990, 999)


@check
def range_suffix_longer_than_the_object(door):
    """GetObject, Range: a suffix longer than the object is all of it"""
    expect_range(door, SMALL, "bytes=-5000", 0, 999)


@check
def range_past_the_end(door):
    """GetObject, Range: a last byte past the end is cut"""
    expect_range(door, SMALL, "bytes=900-5000", 900, 999)


@check
def range_past_the_largest_number(door):
    """GetObject, Range: a last byte past all numbers is cut, or the range is no range"""
    key = door.put(SMALL)
    try:
        status, _, body = ranged(door, key, "bytes=900-99999999999999999999999")
        assert (status, body) in ((206, SMALL[900:]), (200, SMALL)), status
    except door.s3.exceptions.ClientError as error:
        assert code_of(error) in ("InvalidArgument", "InvalidRange"), error


@check
def range_beyond(door):
    """GetObject, Range: a first byte beyond the end is InvalidRange, 416"""
    key = door.put(SMALL)
    for said in ("bytes=1000-", "bytes=1000-1001", "bytes=5000-"):
        error = refused("InvalidRange", door.s3.get_object, Bucket=door.bucket, Key=key, Range=said)
        assert status_of(error) == 416


@check
def range_suffix_of_nothing(door):
    """GetObject, Range: bytes=-0 is InvalidRange"""
    refused("InvalidRange", door.s3.get_object, Bucket=door.bucket, Key=door.put(SMALL), Range="bytes=-0")


@check
def range_of_an_empty_object(door):
    """GetObject, Range: no byte of an empty object can be had"""
    refused("InvalidRange", door.s3.get_object, Bucket=door.bucket, Key=door.put(b""), Range="bytes=0-0")


@check
def range_that_makes_no_sense(door):
    """GetObject, Range: what is not a range is ignored (RFC 9110, 14.2) or InvalidArgument, never an accident"""
    key = door.put(SMALL)
    for said in ("bytes=", "bytes=a-b", "bytes=9-3", "bytes=--3", "octets=0-3", "0-3", "bytes=0-3-5", "bytes 0-3"):
        try:
            status, _, body = ranged(door, key, said)
            assert (status, body) == (200, SMALL), f"{said}: {status} with {len(body)} bytes"
        except door.s3.exceptions.ClientError as error:
            assert code_of(error) in ("InvalidArgument", "InvalidRange"), f"{said}: {error}"


@check
def range_of_several(door):
    """GetObject, Range: several ranges are not supported: the whole object"""
    key = door.put(SMALL)
    try:
        status, _, body = ranged(door, key, "bytes=0-1,5-9")
        assert (status, body) == (200, SMALL), status
    except door.s3.exceptions.ClientError as error:
        assert code_of(error) in ("InvalidArgument", "InvalidRange", "NotImplemented"), error


@check
def range_across_extents(door):
    """GetObject, Range: over the store's 16 MiB border"""
    expect_range(door, LARGE, f"bytes={EXTENT_BYTES - 100}-{EXTENT_BYTES + 99}", EXTENT_BYTES - 100, EXTENT_BYTES + 99)


@check
def range_at_extent_borders(door):
    """GetObject, Range: the last byte before and the first behind the store's 16 MiB border"""
    key = door.put(LARGE)
    for at in (EXTENT_BYTES - 1, EXTENT_BYTES):
        assert ranged(door, key, f"bytes={at}-{at}")[2] == LARGE[at : at + 1], at


@check
def range_of_blocks(door):
    """GetObject, Range: at and around the store's 64 KiB blocks and stripes"""
    key = door.put(LARGE)
    for at in (65535, 65536, 65537, 4 * 65536 - 1, 4 * 65536, 8 * 65536 + 1):
        assert ranged(door, key, f"bytes={at}-{at + 70_000}")[2] == LARGE[at : at + 70_001], at


@check
def range_of_head(door):
    """HeadObject, Range: the length of the range, 206"""
    answer = door.s3.head_object(Bucket=door.bucket, Key=door.put(SMALL), Range="bytes=10-19")
    assert answer["ContentLength"] == 10 and answer["ResponseMetadata"]["HTTPStatusCode"] == 206


@check
def range_with_if_match(door):
    """GetObject, Range with If-Match: a part only of the object that is meant"""
    key = door.put(SMALL)
    refused("PreconditionFailed", door.s3.get_object, Bucket=door.bucket, Key=key, Range="bytes=0-9", IfMatch='"0"')
