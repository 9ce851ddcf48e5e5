"""What the disk takes: one write that is synced, as a small commit does it.

SQLite and PostgreSQL append to a log that has its full size already, and call
``fdatasync``, where there is one.
"""

from __future__ import annotations

import itertools
import os
import time
import typing as t

import databases

WRITES = 50
LOG = 4 * 2**20
"""Bytes of the log."""
PAGE = {"sqlite": 4096 + 24, "postgresql": 8192}
"""Bytes of one page of it."""


def syncs(kind: str) -> t.Callable[[], float]:
    """Seconds for each write.

    :param kind: the database; it is written to the disk where that lies.
    """
    path = databases.new_folder(kind) / "log"
    path.write_bytes(bytes(LOG))
    file = os.open(path, os.O_WRONLY)
    os.fsync(file)
    page = b"x" * PAGE[kind]
    places = itertools.cycle(range(0, LOG - len(page), len(page)))
    sync = getattr(os, "fdatasync", os.fsync)

    def measured() -> float:
        start = time.perf_counter()
        for place in itertools.islice(places, WRITES):
            os.pwrite(file, page, place)
            sync(file)
        return (time.perf_counter() - start) / WRITES

    return measured
