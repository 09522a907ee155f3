"""The registry of the checks and their runner.

Owns: which checks there are, and one line for each. Must never: let one check's failure end the run.
"""

import argparse
import json
import sys
import time
import traceback
from dataclasses import asdict, dataclass

from .door import Door, Skipped

CHECKS = []
# How many are named at the end.
SLOWEST = 5


def check(function):
    """Registers a check. Its docstring's first line is the rule that it checks."""
    assert function.__doc__, f"{function.__name__} names no rule"
    assert function.__name__ not in {known.__name__ for known in CHECKS}, f"{function.__name__} is there twice"
    CHECKS.append(function)
    return function


@dataclass
class Result:
    name: str
    rule: str
    verdict: str
    seconds: float
    details: str = ""


def run_one(function, door):
    begun = time.monotonic()
    verdict, details = "ok", ""
    try:
        function(door)
        door.clean()
    except Skipped as reason:
        verdict, details = "skipped", str(reason)
    except Exception as error:  # pylint: disable=broad-except
        where = traceback.extract_tb(error.__traceback__)
        lines = [f"{frame.name}:{frame.lineno}" for frame in where if "/tests/s3/" in frame.filename]
        verdict, details = "FAILED", f"{type(error).__name__}: {error} (at {' '.join(lines[1:])})"
    rule = " ".join(function.__doc__.split())
    return Result(function.__name__, rule, verdict, round(time.monotonic() - begun, 3), details)


def nothing_is_left(door):
    """DeleteObject, DeleteBucket: what the checks made can be taken away again"""
    door.close()


def tell(result, arguments):
    if not arguments.json:
        print(shown(result), flush=True)


def shown(result):
    line = f"{result.verdict:7} {result.seconds:7.3f} s  {result.name}: {result.rule}"
    return f"{line}\n        {result.details}" if result.details else line


def slowest(results):
    found = sorted(results, key=lambda result: -result.seconds)[:SLOWEST]
    return [f"{result.name} {result.seconds:.1f} s" for result in found] + [
        f"all {sum(r.seconds for r in results):.1f} s"
    ]


def parsed():
    parser = argparse.ArgumentParser(description="Checks an S3 endpoint.")
    parser.add_argument(
        "--access",
        required=True,
        help="file with endpoints, access_key and secret_key, as `resilver up` writes s3.json",
    )
    parser.add_argument("--resilver", help="the resilver command, for the checks that make keys and quotas")
    parser.add_argument("--only", default="", help="only the checks with this in their name")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    parser.add_argument("--no-skip", action="store_true", help="a check that cannot be made is a failure")
    return parser.parse_args()


def main():
    """Runs what was registered; ends the process with 1 when a check failed."""
    arguments = parsed()
    door = Door.of_arguments(arguments)
    results = []
    for function in [known for known in CHECKS if arguments.only in known.__name__]:
        results.append(run_one(function, door))
        tell(results[-1], arguments)
    results.append(run_one(nothing_is_left, door))
    tell(results[-1], arguments)
    failed = sum(result.verdict == "FAILED" for result in results)
    skipped = sum(result.verdict == "skipped" for result in results)
    if arguments.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    else:
        print(f"where the time went: {', '.join(slowest(results))}")
        print(f"{len(results)} checks, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    sys.exit(1 if failed or (skipped and arguments.no_skip) else 0)
