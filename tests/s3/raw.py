"""What the door does with what no good client sends: raw sockets, signatures by hand, and a deadline on everything.

    python raw.py --access DIR/s3.json --resilver target/debug/resilver [--only NAME] [--json]

One line per check and the count; ends with 1 when one failed. The checks stand in bad/, by what is bad. Every answer is
one of S3's own errors; none is 500, none never comes.
"""

# Imported for the checks that they register, in the order in which they run: the slow senders first and last, because
# they take their time.
from bad import (  # noqa: F401 # pylint: disable=unused-import
    senders,
    signatures,
    bodies,
    targets,
    documents,
    parts,
    headers,
    races,
    connections,
    last,
)
from kit import suite

if __name__ == "__main__":
    suite.main()
