"""Buckets: their names, their making, finding and ending."""

import contextlib

from kit.door import expect, refused
from kit.suite import check

FORBIDDEN_NAMES = (
    "ab",
    "a" * 64,
    "Upper-case",
    "under_score",
    "-begins-with-hyphen",
    "ends-with-hyphen-",
    ".begins-with-dot",
    "ends-with-dot.",
    "two..dots",
    "192.168.5.4",
    "xn--prefix",
)


@check
def bucket_is_made_and_found(door):
    """CreateBucket, HeadBucket: a bucket that was made is found"""
    bucket = door.new_bucket()
    assert door.s3.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 200


@check
def bucket_is_found_through_another_node(door):
    """HeadBucket: read after write, whichever endpoint is asked"""
    bucket = door.new_bucket()
    door.other.head_bucket(Bucket=bucket)


@check
def bucket_make_answers_location(door):
    """CreateBucket: the Location header names the bucket"""
    bucket = f"{door.bucket}-located"
    answer = door.s3.create_bucket(Bucket=bucket)
    door.empty_and_delete(bucket)
    assert bucket in answer["Location"], answer["Location"]


@check
def bucket_again_by_its_owner(door):
    """CreateBucket: again by its owner in us-east-1 is no error, or BucketAlreadyOwnedByYou"""
    bucket = door.new_bucket()
    with contextlib.suppress(door.s3.exceptions.BucketAlreadyOwnedByYou):
        door.s3.create_bucket(Bucket=bucket)


@check
def bucket_again_keeps_its_objects(door):
    """CreateBucket: a second making never empties a bucket"""
    bucket = door.new_bucket()
    door.s3.put_object(Bucket=bucket, Key="kept", Body=b"1")
    with contextlib.suppress(door.s3.exceptions.BucketAlreadyOwnedByYou):
        door.s3.create_bucket(Bucket=bucket)
    assert door.get("kept", bucket=bucket) == b"1"


@check
def bucket_names_allowed(door):
    """Bucket naming rules: 3 to 63 of lower case, digits, dots and hyphens"""
    for name in ("z9z", "a" * 63, "1digit", "dots.and-hyphens.1"):
        door.s3.create_bucket(Bucket=name)
        door.s3.head_bucket(Bucket=name)
        door.empty_and_delete(name)


@check
def bucket_names_forbidden(door):
    """Bucket naming rules: anything else is InvalidBucketName"""
    for name in FORBIDDEN_NAMES:
        expect(door.wire.ask("PUT", f"/{name}"), "InvalidBucketName")


@check
def bucket_name_health_is_reserved(door):
    """Bucket naming rules of this door: `health` is the load balancers' and no bucket"""
    expect(door.wire.ask("PUT", "/health"), "InvalidBucketName", "AccessDenied", "MethodNotAllowed")


@check
def bucket_name_of_the_store_is_reserved(door):
    """Bucket naming rules of this door: what begins with `resilver.` is the store's own"""
    expect(door.wire.ask("PUT", "/resilver.uploads"), "InvalidBucketName", "AccessDenied")
    expect(door.wire.ask("GET", "/resilver.uploads?list-type=2"), "NoSuchBucket", "InvalidBucketName", "AccessDenied")
    expect(
        door.wire.ask("PUT", "/resilver.uploads/key", body=b"1"), "NoSuchBucket", "InvalidBucketName", "AccessDenied"
    )


@check
def bucket_head_of_none(door):
    """HeadBucket: 404 for a bucket that is not there"""
    refused("404", door.s3.head_bucket, Bucket="never-made-by-anyone")


@check
def bucket_listing_has_it(door):
    """ListBuckets: names with creation dates, ordered by name"""
    made = sorted([door.new_bucket(), door.new_bucket()])
    answer = door.s3.list_buckets()
    names = [bucket["Name"] for bucket in answer["Buckets"]]
    assert names == sorted(names) and set(made) <= set(names), names
    assert all(bucket["CreationDate"].year > 2000 for bucket in answer["Buckets"])
    assert answer["Owner"]["ID"]


@check
def bucket_listing_hides_the_stores_own(door):
    """ListBuckets: the store's reserved buckets are nobody's"""
    names = [bucket["Name"] for bucket in door.s3.list_buckets()["Buckets"]]
    assert not [name for name in names if name.startswith("resilver.")], names


@check
def bucket_location_is_empty_for_us_east_1(door):
    """GetBucketLocation: us-east-1 is an empty LocationConstraint"""
    assert door.s3.get_bucket_location(Bucket=door.bucket)["LocationConstraint"] is None


@check
def bucket_location_of_none(door):
    """GetBucketLocation: NoSuchBucket"""
    refused("NoSuchBucket", door.s3.get_bucket_location, Bucket="never-made-by-anyone")


@check
def bucket_versioning_is_off(door):
    """GetBucketVersioning: no Status for a bucket that never had versions"""
    assert "Status" not in door.s3.get_bucket_versioning(Bucket=door.bucket)


@check
def bucket_is_deleted(door):
    """DeleteBucket: 204, and it is gone at every node"""
    bucket = door.new_bucket()
    assert door.s3.delete_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    refused("404", door.s3.head_bucket, Bucket=bucket)
    refused("404", door.other.head_bucket, Bucket=bucket)


@check
def bucket_deleted_twice(door):
    """DeleteBucket: NoSuchBucket the second time"""
    bucket = door.new_bucket()
    door.s3.delete_bucket(Bucket=bucket)
    refused("NoSuchBucket", door.s3.delete_bucket, Bucket=bucket)


@check
def bucket_with_objects_is_kept(door):
    """DeleteBucket: BucketNotEmpty while there is an object"""
    bucket = door.new_bucket()
    door.s3.put_object(Bucket=bucket, Key="kept", Body=b"1")
    refused("BucketNotEmpty", door.s3.delete_bucket, Bucket=bucket)
    assert door.get("kept", bucket=bucket) == b"1"


@check
def bucket_with_uploads_may_go(door):
    """DeleteBucket: an unfinished upload is no object and does not hold its bucket"""
    bucket = door.new_bucket()
    upload = door.s3.create_multipart_upload(Bucket=bucket, Key="part")["UploadId"]
    door.s3.upload_part(Bucket=bucket, Key="part", UploadId=upload, PartNumber=1, Body=b"1")
    door.s3.delete_bucket(Bucket=bucket)
    refused("404", door.s3.head_bucket, Bucket=bucket)


@check
def bucket_made_anew_is_empty(door):
    """DeleteBucket, CreateBucket: a name can be used again and brings nothing back"""
    bucket = door.new_bucket()
    door.s3.put_object(Bucket=bucket, Key="old", Body=b"1")
    upload = door.s3.create_multipart_upload(Bucket=bucket, Key="part")["UploadId"]
    door.s3.delete_object(Bucket=bucket, Key="old")
    door.s3.delete_bucket(Bucket=bucket)
    door.s3.create_bucket(Bucket=bucket)
    assert "Contents" not in door.s3.list_objects_v2(Bucket=bucket)
    assert "Uploads" not in door.s3.list_multipart_uploads(Bucket=bucket)
    refused("NoSuchUpload", door.s3.list_parts, Bucket=bucket, Key="part", UploadId=upload)


@check
def bucket_missing_for_every_object_operation(door):
    """PutObject, GetObject, DeleteObject, ListObjects: NoSuchBucket where there is no bucket"""
    where = {"Bucket": "never-made-by-anyone"}
    refused("NoSuchBucket", door.s3.put_object, Key="k", Body=b"1", **where)
    refused("NoSuchBucket", door.s3.get_object, Key="k", **where)
    refused("NoSuchBucket", door.s3.delete_object, Key="k", **where)
    refused("NoSuchBucket", door.s3.list_objects, **where)
    refused("NoSuchBucket", door.s3.list_objects_v2, **where)
    refused("NoSuchBucket", door.s3.create_multipart_upload, Key="k", **where)
    refused("NoSuchBucket", door.s3.list_multipart_uploads, **where)
    refused("NoSuchBucket", door.s3.delete_objects, Delete={"Objects": [{"Key": "k"}]}, **where)


@check
def bucket_operation_unknown(door):
    """Error responses: an operation that is not implemented is NotImplemented, not an accident"""
    refused(
        ("NotImplemented", "NoSuchLifecycleConfiguration"),
        door.s3.get_bucket_lifecycle_configuration,
        Bucket=door.bucket,
    )
    refused(
        "NotImplemented",
        door.s3.put_bucket_versioning,
        Bucket=door.bucket,
        VersioningConfiguration={"Status": "Enabled"},
    )
