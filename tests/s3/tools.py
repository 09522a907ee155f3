"""The AWS command line, s3cmd and rclone, unmodified, against an endpoint.

    python tools.py --access DIR/s3.json [--only NAME] [--json]

The first two are taken from beside this Python, rclone from the path. Each check is a round trip as people make it, and
compares hashes. One line per check and the count; ends with 1 when one failed.
"""

# Imported for the checks that they register, in the order in which they run.
from commands import aws, rclone, s3cmd  # noqa: F401 # pylint: disable=unused-import
from kit import suite

if __name__ == "__main__":
    suite.main()
