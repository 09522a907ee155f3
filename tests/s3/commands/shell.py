"""Running a tool in a folder of its own, with the door's access in its environment.

Must never: read or leave anything in the home of whoever runs this.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kit.door import MIB, Skipped, noise
from kit.sigv4 import REGION

# The largest transfer here is 100 MiB.
DEADLINE_S = 120
LARGE_BYTES = 100 * MIB
AN_HOUR_AGO = int(time.time()) - 3600
# Names that a shell, a URL and a listing must all get right.
TREE = {
    "a.txt": noise(1000, seed=21),
    "empty": b"",
    "folder/b.bin": noise(300_000, seed=22),
    "folder/deep er/ü+%20 &.txt": b"odd name",
    "folder/c.html": b"<html></html>",
}


class Shell:
    """A scratch folder and the variables that the tools read."""

    def __init__(self, door, folder):
        self.door, self.folder = door, folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "AWS_ENDPOINT_URL": door.endpoints[0],
            "AWS_ACCESS_KEY_ID": door.key.id,
            "AWS_SECRET_ACCESS_KEY": door.key.secret,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_PAGER": "",
        }

    def run(self, *command, succeeds=True):
        """What a command printed. It must succeed, or fail when `succeeds` is false."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
        )
        said = done.stdout.decode(errors="replace")
        talk = f"{' '.join(map(str, command))}: {done.returncode}: {said}{done.stderr.decode(errors='replace')}"
        assert (done.returncode == 0) == succeeds, talk
        return said

    def path(self, name):
        return self.folder / name

    def large(self):
        """A file of 100 MiB, which every tool uploads in parts."""
        path = self.path("large.bin")
        path.write_bytes(noise(LARGE_BYTES, seed=23))
        return path

    def tree(self):
        for name, content in TREE.items():
            path = self.path("tree") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            # As old as files are: a listing's times have seconds, and what is newer than its copy is sent again.
            os.utime(path, (AN_HOUR_AGO, AN_HOUR_AGO))
        return self.path("tree")


@contextlib.contextmanager
def shell(door):
    with tempfile.TemporaryDirectory(prefix="resilver-s3-") as folder:
        yield Shell(door, Path(folder))


def beside_python(name):
    """A command that was installed with this Python's packages."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise Skipped(f"{path} is not installed")
    return path


def on_the_path(name):
    found = shutil.which(name)
    if not found:
        raise Skipped(f"{name} is not installed")
    return found


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_of(folder):
    """Every file below a folder, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
