"""Signature version 4 in headers and in queries."""

import time
import urllib.error
import urllib.request

from kit.door import expect, refused
from kit.sigv4 import Key
from kit.suite import check

UNKNOWN = Key("RSNEVERGIVENTOANYBODY", "0" * 40)


def opened(url, method="GET", body=None, headers=None):
    """Status and body of a request by somebody who only has the URL."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def presigned(door, operation, key, expires=60, **more):
    parameters = {"Bucket": door.bucket, "Key": key, **more}
    return door.s3.generate_presigned_url(operation, Params=parameters, ExpiresIn=expires)


@check
def signature_of_an_unknown_key(door):
    """Error codes: InvalidAccessKeyId"""
    refused("InvalidAccessKeyId", door.client(UNKNOWN).list_objects_v2, Bucket=door.bucket)


@check
def signature_with_a_wrong_secret(door):
    """Error codes: SignatureDoesNotMatch"""
    wrong = door.client(Key(door.key.id, "0" * 40))
    refused("SignatureDoesNotMatch", wrong.list_objects_v2, Bucket=door.bucket)
    refused("SignatureDoesNotMatch", wrong.put_object, Bucket=door.bucket, Key="k", Body=b"x")


@check
def signature_missing(door):
    """Error codes: a request without signature is AccessDenied"""
    key = door.put()
    for method, path in (("GET", f"/{door.bucket}/{key}"), ("PUT", f"/{door.bucket}/{key}"), ("GET", "/")):
        status, body = opened(door.endpoints[0] + path, method, b"x" if method == "PUT" else None)
        assert status == 403 and b"<Code>AccessDenied</Code>" in body, (method, path, status, body)
    assert door.get(key) == b"content"


@check
def signature_of_version_2(door):
    """Authenticating requests: signature version 2 is not accepted"""
    old = door.client(signature_version="s3")
    refused(("InvalidRequest", "AccessDenied", "NotImplemented"), old.list_objects_v2, Bucket=door.bucket)


@check
def signature_over_the_payload(door):
    """Signature version 4: with a signed payload"""
    signed = door.client(s3={"addressing_style": "path", "payload_signing_enabled": True})
    key = door.key_name()
    signed.put_object(Bucket=door.bucket, Key=key, Body=b"signed")
    assert door.get(key) == b"signed"


@check
def presigned_get(door):
    """Presigned URL: GET by anybody who has it"""
    key = door.put(b"content")
    assert opened(presigned(door, "get_object", key)) == (200, b"content")


@check
def presigned_get_of_an_odd_name(door):
    """Presigned URL: names with spaces, plus, percent and unicode"""
    key = door.put(b"content", key=door.key_name("a b+c%d&e=ü"))
    assert opened(presigned(door, "get_object", key)) == (200, b"content")


@check
def presigned_get_range(door):
    """Presigned URL: headers that were not signed may be added"""
    key = door.put(b"content")
    assert opened(presigned(door, "get_object", key), headers={"Range": "bytes=0-2"}) == (206, b"con")


@check
def presigned_get_with_response_headers(door):
    """Presigned URL: response-* parameters are signed with it"""
    key = door.put(b"content")
    url = presigned(door, "get_object", key, ResponseContentType="text/csv")
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.headers["Content-Type"] == "text/csv"
    assert opened(url.replace("text%2Fcsv", "text%2Fhtml"))[0] == 403


@check
def presigned_put(door):
    """Presigned URL: PUT"""
    key = door.key_name()
    assert opened(presigned(door, "put_object", key), "PUT", b"put by url")[0] == 200
    assert door.get(key) == b"put by url"


@check
def presigned_is_of_its_method(door):
    """Presigned URL: one for GET is none for PUT or DELETE"""
    key = door.put(b"content")
    url = presigned(door, "get_object", key)
    for method, body in (("PUT", b"x"), ("DELETE", None)):
        status, answer = opened(url, method, body)
        assert status == 403 and b"SignatureDoesNotMatch" in answer, (method, status, answer)
    assert door.get(key) == b"content"


@check
def presigned_and_expired(door):
    """Presigned URL: AccessDenied after it has expired"""
    url = presigned(door, "get_object", door.put(), expires=1)
    time.sleep(2.5)
    status, body = opened(url)
    assert status == 403 and b"<Code>AccessDenied</Code>" in body, (status, body)


@check
def presigned_and_tampered(door):
    """Presigned URL: another key, a longer life or another signature is refused"""
    key, other = door.put(), door.put(b"other")
    url = presigned(door, "get_object", key)
    for changed in (url.replace(key, other), url.replace("Expires=60", "Expires=600"), url[:-4] + "0000"):
        status, body = opened(changed)
        assert status == 403 and b"SignatureDoesNotMatch" in body, (changed, status, body)


@check
def presigned_for_too_long(door):
    """Presigned URL: at most seven days, else AuthorizationQueryParametersError"""
    url = presigned(door, "get_object", door.put(), expires=604801)
    status, body = opened(url)
    assert status == 400 and b"AuthorizationQueryParametersError" in body, (status, body)


@check
def presigned_part(door):
    """Presigned URL: UploadPart"""
    at = {"Bucket": door.bucket, "Key": door.key_name()}
    upload = door.s3.create_multipart_upload(**at)["UploadId"]
    url = presigned(door, "upload_part", at["Key"], UploadId=upload, PartNumber=1)
    assert opened(url, "PUT", b"part")[0] == 200
    part = door.s3.list_parts(**at, UploadId=upload)["Parts"][0]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    door.s3.complete_multipart_upload(**at, UploadId=upload, MultipartUpload=parts)
    assert door.get(at["Key"]) == b"part"


@check
def health_needs_no_signature(door):
    """This door: GET /health is answered to anybody, at every endpoint"""
    for endpoint in door.endpoints:
        assert opened(f"{endpoint}/health")[0] == 200, endpoint
    expect(door.wire.send(b"GET /health HTTP/1.1\r\nHost: balancer\r\nConnection: close\r\n\r\n"), 200)


@check
def errors_tell_no_secret(door):
    """Error responses: neither the secret nor the wanted signature's key is in what a stranger is told"""
    wrong = Key(door.key.id, "0" * 40)
    answer = door.wire.ask("GET", f"/{door.bucket}", key=wrong)
    assert door.key.secret.encode() not in answer.body and b"signing key" not in answer.body.lower(), answer
