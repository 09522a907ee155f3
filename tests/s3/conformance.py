"""Is it S3? Checks an endpoint with boto3, each check naming the rule of S3 that it checks.

    python conformance.py --access DIR/s3.json --resilver target/debug/resilver [--only NAME] [--json]

One line per check and the count; ends with 1 when one failed. The rules stand in checks/, by what they are about. Where
S3's documentation leaves two answers open, both are accepted; where it does not, one is.
"""

# Imported for the checks that they register, in the order in which they run.
from checks import (  # noqa: F401 # pylint: disable=unused-import
    buckets,
    objects,
    names,
    ranges,
    conditions,
    deleting,
    copying,
    listing,
    multipart,
    uploads,
    checksums,
    signatures,
    streaming,
    rights,
)
from kit import suite

if __name__ == "__main__":
    suite.main()
