"""Multipart uploads as the checks use them."""

from .door import MIN_PART_BYTES, noise

# Two parts of the least size and a short last one.
PARTS = tuple(noise(size, seed=size) for size in (MIN_PART_BYTES, MIN_PART_BYTES + 1, 1000))


class Upload:
    """An upload of one object in the common bucket (or another)."""

    def __init__(self, door, key=None, bucket=None, **how):
        self.s3 = door.s3
        self.at = {"Bucket": bucket or door.bucket, "Key": key or door.key_name("upload")}
        self.id = self.s3.create_multipart_upload(**self.at, **how)["UploadId"]
        self.parts = {}

    @property
    def key(self):
        return self.at["Key"]

    @property
    def named(self):
        return {**self.at, "UploadId": self.id}

    def put(self, number, body, **how):
        answer = self.s3.upload_part(**self.named, PartNumber=number, Body=body, **how)
        self.note(number, answer)
        return answer

    def note(self, number, answer):
        """Keeps what a completion must say of a part."""
        said = {name: value for name, value in answer.items() if name.startswith("Checksum") and name != "ChecksumType"}
        self.parts[number] = {"PartNumber": number, "ETag": answer["ETag"], **said}

    def put_all(self, parts=PARTS, **how):
        for number, body in enumerate(parts, start=1):
            self.put(number, body, **how)
        return self

    def listed(self):
        return [self.parts[number] for number in sorted(self.parts)]

    def complete(self, parts=None, **how):
        listed = self.listed() if parts is None else parts
        return self.s3.complete_multipart_upload(**self.named, MultipartUpload={"Parts": listed}, **how)

    def abort(self):
        return self.s3.abort_multipart_upload(**self.named)
