"""ListObjects and ListObjectsV2."""

from kit.door import expect, refused
from kit.suite import check

# Sorted by UTF-8 bytes; folders, a name that is another's folder, and names around the delimiter.
NAMES = ["a", "a.txt", "a/1", "a/2", "a/b/3", "a0", "b/", "b/1", "c", "d/1", "ä", "日本"]
PAGE_SIZES = (1, 2, 3, 5, 11, 12, 13, 1000)
_FILLED = {}


def filled(door):
    """The bucket with NAMES; made once, since listing changes nothing."""
    if door not in _FILLED:
        bucket = door.bucket + "-listed"
        door.s3.create_bucket(Bucket=bucket)
        door.keep(bucket)
        for name in NAMES:
            door.s3.put_object(Bucket=bucket, Key=name, Body=name.encode())
        _FILLED[door] = bucket
    return _FILLED[door]


def keys(page):
    return [entry["Key"] for entry in page.get("Contents", [])]


def prefixes(page):
    return [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]


def pages_v2(door, client=None, **how):
    """Every page of a listing, by continuation tokens."""
    client, bucket, token = client or door.s3, filled(door), {}
    while True:
        page = client.list_objects_v2(Bucket=bucket, **how, **token)
        yield page
        if not page["IsTruncated"]:
            assert "NextContinuationToken" not in page
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def pages_v1(door, **how):
    bucket, marker = filled(door), {}
    while True:
        page = door.s3.list_objects(Bucket=bucket, **how, **marker)
        yield page
        if not page["IsTruncated"]:
            return
        # NextMarker is answered only with a delimiter; without, the last key is where to go on.
        marker = {"Marker": page.get("NextMarker") or keys(page)[-1]}


@check
def list_in_order_of_bytes(door):
    """ListObjectsV2: all names in the order of their UTF-8 bytes"""
    page = door.s3.list_objects_v2(Bucket=filled(door))
    assert keys(page) == NAMES and page["KeyCount"] == len(NAMES) and not page["IsTruncated"]
    assert page["Name"] == filled(door) and page["MaxKeys"] == 1000


@check
def list_entries_are_whole(door):
    """ListObjectsV2: Key, LastModified, ETag, Size, StorageClass"""
    entry = door.s3.list_objects_v2(Bucket=filled(door), Prefix="a/b/3")["Contents"][0]
    assert entry["Size"] == 5 and entry["StorageClass"] == "STANDARD"
    assert entry["ETag"].startswith('"') and entry["LastModified"].year > 2000


@check
def list_v1_in_order_of_bytes(door):
    """ListObjects: the same in version 1"""
    page = door.s3.list_objects(Bucket=filled(door))
    assert keys(page) == NAMES and not page["IsTruncated"] and page.get("Marker", "") == ""


@check
def list_through_another_node(door):
    """ListObjectsV2: strong consistency: what was put is listed by any endpoint, what was deleted by none"""
    bucket = door.new_bucket()
    for number in range(5):
        door.s3.put_object(Bucket=bucket, Key=str(number), Body=b"")
        assert str(number) in keys(door.other.list_objects_v2(Bucket=bucket))
    door.s3.delete_object(Bucket=bucket, Key="3")
    assert keys(door.other.list_objects_v2(Bucket=bucket)) == ["0", "1", "2", "4"]


@check
def list_of_nothing(door):
    """ListObjectsV2: an empty bucket"""
    page = door.s3.list_objects_v2(Bucket=door.new_bucket())
    assert keys(page) == [] and page["KeyCount"] == 0 and not page["IsTruncated"]


@check
def list_prefix(door):
    """ListObjectsV2, prefix: names that begin with it"""
    page = door.s3.list_objects_v2(Bucket=filled(door), Prefix="a/")
    assert keys(page) == ["a/1", "a/2", "a/b/3"] and page["Prefix"] == "a/"
    assert keys(door.s3.list_objects_v2(Bucket=filled(door), Prefix="a")) == NAMES[:6]
    assert keys(door.s3.list_objects_v2(Bucket=filled(door), Prefix="zz")) == []


@check
def list_delimiter(door):
    """ListObjectsV2, delimiter: names up to it are one common prefix"""
    page = door.s3.list_objects_v2(Bucket=filled(door), Delimiter="/")
    assert keys(page) == ["a", "a.txt", "a0", "c", "ä", "日本"] and prefixes(page) == ["a/", "b/", "d/"]
    assert page["KeyCount"] == 9 and page["Delimiter"] == "/"


@check
def list_prefix_and_delimiter(door):
    """ListObjectsV2, prefix and delimiter: the delimiter counts behind the prefix"""
    page = door.s3.list_objects_v2(Bucket=filled(door), Prefix="a/", Delimiter="/")
    assert keys(page) == ["a/1", "a/2"] and prefixes(page) == ["a/b/"]
    page = door.s3.list_objects_v2(Bucket=filled(door), Prefix="a", Delimiter="/")
    assert keys(page) == ["a", "a.txt", "a0"] and prefixes(page) == ["a/"]


@check
def list_folder_object(door):
    """ListObjectsV2: an object whose name ends with the delimiter is listed as content of its own prefix"""
    page = door.s3.list_objects_v2(Bucket=filled(door), Prefix="b/", Delimiter="/")
    assert keys(page) == ["b/", "b/1"] and prefixes(page) == []


@check
def list_delimiter_of_any_characters(door):
    """ListObjectsV2, delimiter: any string"""
    page = door.s3.list_objects_v2(Bucket=filled(door), Delimiter="/b")
    assert prefixes(page) == ["a/b"] and "a/1" in keys(page)
    assert prefixes(door.s3.list_objects_v2(Bucket=filled(door), Delimiter="本")) == ["日本"]


@check
def list_pages_of_every_size(door):
    """ListObjectsV2, max-keys: pages of any size have every name once, in order"""
    for size in PAGE_SIZES:
        pages = list(pages_v2(door, MaxKeys=size))
        assert [key for page in pages for key in keys(page)] == NAMES, size
        assert all(page["KeyCount"] == size for page in pages[:-1]), size


@check
def list_pages_with_delimiter(door):
    """ListObjectsV2: a common prefix is on one page only, and counts as one key"""
    for size in PAGE_SIZES:
        pages = list(pages_v2(door, MaxKeys=size, Delimiter="/"))
        assert [prefix for page in pages for prefix in prefixes(page)] == ["a/", "b/", "d/"], size
        assert [key for page in pages for key in keys(page)] == ["a", "a.txt", "a0", "c", "ä", "日本"], size
        assert all(len(keys(page)) + len(prefixes(page)) == size for page in pages[:-1]), size


@check
def list_pages_v1_of_every_size(door):
    """ListObjects, max-keys and marker: every name once, in order"""
    for size in PAGE_SIZES:
        assert [key for page in pages_v1(door, MaxKeys=size) for key in keys(page)] == NAMES, size


@check
def list_pages_v1_with_delimiter(door):
    """ListObjects, NextMarker: goes on behind a common prefix"""
    for size in PAGE_SIZES:
        pages = list(pages_v1(door, MaxKeys=size, Delimiter="/"))
        assert [prefix for page in pages for prefix in prefixes(page)] == ["a/", "b/", "d/"], size


@check
def list_pages_across_nodes(door):
    """ListObjectsV2: a continuation token of one endpoint holds at another"""
    page = door.s3.list_objects_v2(Bucket=filled(door), MaxKeys=4)
    token = page["NextContinuationToken"]
    assert keys(door.other.list_objects_v2(Bucket=filled(door), ContinuationToken=token)) == NAMES[4:]


@check
def list_start_after(door):
    """ListObjectsV2, start-after: names behind it, whether it is there or not"""
    assert keys(door.s3.list_objects_v2(Bucket=filled(door), StartAfter="a/2")) == NAMES[4:]
    assert keys(door.s3.list_objects_v2(Bucket=filled(door), StartAfter="a/2x")) == NAMES[4:]
    assert keys(door.s3.list_objects_v2(Bucket=filled(door), StartAfter="日本")) == []


@check
def list_start_after_and_prefix(door):
    """ListObjectsV2, start-after and prefix: both hold"""
    assert keys(door.s3.list_objects_v2(Bucket=filled(door), StartAfter="a/1", Prefix="a/")) == ["a/2", "a/b/3"]
    assert keys(door.s3.list_objects_v2(Bucket=filled(door), StartAfter="0", Prefix="d/")) == ["d/1"]
    assert keys(door.s3.list_objects_v2(Bucket=filled(door), StartAfter="z", Prefix="d/")) == []


@check
def list_start_after_within_a_prefix(door):
    """ListObjectsV2, start-after within a common prefix: names before it never come; the prefix itself may"""
    page = door.s3.list_objects_v2(Bucket=filled(door), StartAfter="a/1", Delimiter="/")
    assert prefixes(page) in (["a/", "b/", "d/"], ["b/", "d/"]), prefixes(page)
    assert keys(page) == ["a0", "c", "ä", "日本"], keys(page)


@check
def list_token_outweighs_start_after(door):
    """ListObjectsV2, continuation-token: start-after counts for the first page only"""
    page = door.s3.list_objects_v2(Bucket=filled(door), MaxKeys=6)
    token = page["NextContinuationToken"]
    again = door.s3.list_objects_v2(Bucket=filled(door), ContinuationToken=token, StartAfter="a")
    assert keys(again) == NAMES[6:] and again["ContinuationToken"] == token


@check
def list_marker_and_prefix(door):
    """ListObjects, marker: names behind it that begin with the prefix"""
    page = door.s3.list_objects(Bucket=filled(door), Marker="a/1", Prefix="a/")
    assert keys(page) == ["a/2", "a/b/3"] and page["Marker"] == "a/1"


@check
def list_max_keys_zero(door):
    """ListObjectsV2, max-keys 0: nothing, and not truncated"""
    page = door.s3.list_objects_v2(Bucket=filled(door), MaxKeys=0)
    assert keys(page) == [] and page["KeyCount"] == 0 and not page["IsTruncated"] and page["MaxKeys"] == 0


@check
def list_max_keys_above_the_limit(door):
    """ListObjectsV2, max-keys: never more than 1,000"""
    bucket = door.new_bucket()
    assert door.s3.list_objects_v2(Bucket=bucket, MaxKeys=5000)["MaxKeys"] == 1000


@check
def list_max_keys_malformed(door):
    """ListObjectsV2, max-keys: negative or no number is InvalidArgument"""
    for said in ("-1", "many", "99999999999999999999"):
        expect(door.wire.ask("GET", f"/{door.bucket}?list-type=2&max-keys={said}"), "InvalidArgument")


@check
def list_token_malformed(door):
    """ListObjectsV2, continuation-token: one that the door never gave is InvalidArgument"""
    for token in ("nonsense", "!!!", "A" * 5000):
        refused("InvalidArgument", door.s3.list_objects_v2, Bucket=filled(door), ContinuationToken=token)


@check
def list_encoding_type(door):
    """ListObjectsV2, encoding-type=url: Key, Prefix, Delimiter, StartAfter and CommonPrefixes are encoded"""
    bucket = door.new_bucket()
    door.s3.put_object(Bucket=bucket, Key="a b/c+d&e", Body=b"")
    query = "list-type=2&encoding-type=url&prefix=a%20b&delimiter=%2B&start-after=a%20"
    body = expect(door.wire.ask("GET", f"/{bucket}?{query}"), 200).body.decode()
    assert "<EncodingType>url</EncodingType>" in body
    assert "<Prefix>a%20b</Prefix>" in body or "<Prefix>a+b</Prefix>" in body, body
    assert "c%2B</Prefix>" in body and "<Delimiter>%2B</Delimiter>" in body, body


@check
def list_encoding_type_unknown(door):
    """ListObjectsV2, encoding-type: only url"""
    expect(door.wire.ask("GET", f"/{door.bucket}?list-type=2&encoding-type=base64"), "InvalidArgument")


@check
def list_fetch_owner(door):
    """ListObjectsV2, fetch-owner: an owner only when asked for"""
    page = door.s3.list_objects_v2(Bucket=filled(door), MaxKeys=1)
    assert "Owner" not in page["Contents"][0]
    page = door.s3.list_objects_v2(Bucket=filled(door), MaxKeys=1, FetchOwner=True)
    assert page["Contents"][0]["Owner"]["ID"]


@check
def list_deleted_while_paging(door):
    """ListObjectsV2: a token goes on where it was when the last name of its page is deleted"""
    bucket = door.new_bucket()
    for number in range(6):
        door.s3.put_object(Bucket=bucket, Key=str(number), Body=b"")
    page = door.s3.list_objects_v2(Bucket=bucket, MaxKeys=3)
    door.s3.delete_object(Bucket=bucket, Key="2")
    rest = door.s3.list_objects_v2(Bucket=bucket, ContinuationToken=page["NextContinuationToken"])
    assert keys(rest) == ["3", "4", "5"]


@check
def list_prefix_with_many_names(door):
    """ListObjectsV2, delimiter: a prefix with more names than a page is one entry"""
    bucket = door.new_bucket()
    for number in range(30):
        door.s3.put_object(Bucket=bucket, Key=f"many/{number:02}", Body=b"")
    door.s3.put_object(Bucket=bucket, Key="z", Body=b"")
    page = door.s3.list_objects_v2(Bucket=bucket, Delimiter="/", MaxKeys=2)
    assert prefixes(page) == ["many/"] and keys(page) == ["z"] and not page["IsTruncated"]
