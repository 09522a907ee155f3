"""Senders that never come to an end.

They begin with the first check of the run and are looked at by the last (last.py): meanwhile the other checks show that
they are in nobody's way, and the door's patience costs no time.
"""

import selectors
import threading
import time

from bad.rules import unharmed
from kit.suite import check

# By then the door must have given up a sender that says nothing, or a byte now and then.
PATIENCE_S = 90
DRIP_S = 1.0


class Senders(threading.Thread):
    """Drips what each sender has left, and notes when the door ended it."""

    def __init__(self, door):
        super().__init__(daemon=True)
        self.begun, self.ended, self.rests = time.monotonic(), {}, {}
        self.selector = selectors.DefaultSelector()
        for name, (first, rest) in beginnings(door).items():
            connection = door.wire.connect()
            connection.sendall(first)
            self.selector.register(connection, selectors.EVENT_READ, name)
            self.rests[name] = rest

    def run(self):
        while self.rests.keys() - self.ended.keys() and time.monotonic() - self.begun < PATIENCE_S:
            for ready, _ in self.selector.select(DRIP_S):
                self.end(ready)
            for held in list(self.selector.get_map().values()):
                self.drip(held)
            time.sleep(DRIP_S)

    def drip(self, held):
        rest = self.rests[held.data]
        self.rests[held.data] = rest[1:]
        try:
            held.fileobj.sendall(rest[:1])
        except (BrokenPipeError, ConnectionResetError):
            self.end(held)

    def end(self, held):
        """The door answered or closed: either way it waits no longer."""
        self.ended[held.data] = round(time.monotonic() - self.begun, 1)
        self.selector.unregister(held.fileobj)
        held.fileobj.close()


def beginnings(door):
    """What each sender sends at once, and what it drips."""
    request = door.wire.signed("PUT", door.path(door.key_name()), body=b"x" * 100_000)
    half = request.index(b"\r\n\r\n") // 2
    return {
        "nothing at all": (b"", b""),
        "half a head": (request[:half], b""),
        "a dripping head": (request[:half], request[half:]),
        "a head that never ends": (request[:half], b"x" * 1000),
        "half a body": (request[:-50_000], b""),
        "a dripping body": (request[:-99_000], request[-99_000:]),
    }


SENDERS = []


@check
def senders_that_are_slow_begin(door):
    """Limits of this door: slow senders are taken, and are in nobody's way"""
    SENDERS.append(Senders(door))
    SENDERS[0].start()
    unharmed(door)
