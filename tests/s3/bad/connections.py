"""Connections by the thousand, readers that take nothing, and many requests on one connection."""

import resource
import socket
import time

from bad.rules import unharmed
from kit.door import Skipped
from kit.suite import check
from kit.wire import read_answer

IDLE = 10_000
# Beside them: this process's own files, and the client's pool.
SPARE_FILES = 200


def allow_files(count):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        raise Skipped(f"a process may open {hard} files here; {count} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(count, resource.getrlimit(resource.RLIMIT_NOFILE)[0]), hard))


def opened(door, count):
    """So many connections, and how many of them were taken."""
    connections = []
    try:
        for _ in range(count):
            connections.append(door.wire.connect())
    except OSError as error:
        print(f"        {len(connections)} connections, then {error}")
    return connections


@check
def connections_idle_by_the_thousand(door):
    """Limits of this door: ten thousand idle connections; whoever asks is served all the same, at every endpoint"""
    allow_files(IDLE + SPARE_FILES)
    connections = opened(door, IDLE)
    try:
        assert len(connections) > IDLE // 2, f"only {len(connections)} were accepted"
        begun = time.monotonic()
        unharmed(door)
        door.other.list_buckets()
        fresh = door.wire.ask("GET", f"/{door.bucket}?list-type=2&max-keys=1")
        assert fresh.status == 200, fresh
        assert time.monotonic() - begun < 10, f"took {time.monotonic() - begun:.1f} s"
    finally:
        for connection in connections:
            connection.close()
    unharmed(door)


@check
def readers_that_are_slow(door):
    """Limits of this door: readers that take nothing do not keep others from reading"""
    key = door.put(b"x" * 20_000_000)
    readers = []
    for _ in range(32):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        connection.connect(door.wire.address)
        connection.sendall(door.wire.signed("GET", door.path(key)))
        readers.append(connection)
    unharmed(door)
    for connection in readers:
        connection.close()


@check
def requests_on_one_connection(door):
    """HTTP: a hundred requests on one connection, good and bad in turn"""
    key = door.put(b"content")
    with door.wire.connect() as connection:
        for number in range(100):
            target = door.path(key if number % 2 else "never-put")
            connection.sendall(door.wire.signed("GET", target))
            answer = read_answer(connection)
            assert answer.status == (200 if number % 2 else 404), (number, answer)
