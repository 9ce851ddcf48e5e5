"""What a soak holds while it runs, and must not leave behind."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import threading
import time
import typing as t
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

from machine import resident

if t.TYPE_CHECKING:
    from ledger import Ledger


def descendants() -> dict[int, int]:
    """The processes under this one, each with its parent; empty where none can tell."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents[int(stat.parent.name)] = int(parent)
    ours = {os.getpid()}
    while more := {pid for pid in parents if parents[pid] in ours} - ours:
        ours |= more
    return {pid: parents[pid] for pid in ours - {os.getpid()}}


def workers() -> list[int]:
    """The worker processes: all but those which the standard library keeps."""
    kept = {
        getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None),
        getattr(resource_tracker._resource_tracker, "_pid", None),
    }
    return sorted(set(descendants()) - kept)


def left_over(threads: set[threading.Thread]) -> dict[str, int]:
    """How many threads and processes are there that were not there before."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        more = set(threading.enumerate()) - threads
        if not more and not workers():
            break
        time.sleep(0.1)
    for thread in more:
        print(f"LEFT: {thread!r}", file=sys.stderr)
    return {"threads": len(more), "processes": len(workers())}


def files() -> int:
    """How many files this process has open; 0 where the system does not say."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


TUNABLES = "glibc.malloc.arena_max=2:glibc.malloc.tcache_count=0"


def start_again_frugally() -> None:
    """Let glibc keep little of what is freed, which it can be told only at its start.

    What each thread keeps for itself, by default, grows for a million tasks on end and
    counts as in use, so it would pass for a leak of ours.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        env = {**os.environ, "GLIBC_TUNABLES": TUNABLES}
        os.execve(sys.executable, [sys.executable, *sys.argv], env)


def give_back() -> None:
    """Collect garbage, and have glibc give back to the system what was freed."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another system
        ctypes.CDLL(None).malloc_trim(0)


GROWTH = 1.05
"""How much memory may grow in a whole soak: a short one is over before all pools have
seen their worst."""


class Gauges:
    """What the process holds after each tenth."""

    def __init__(self) -> None:
        self._memory: list[int] = []
        self._blocks: list[int] = []
        self._files: list[int] = []

    def read(self) -> None:
        """Read all of them."""
        time.sleep(0.1)  # for the runs that go on after their timeout
        give_back()
        self._memory.append(resident() or 0)
        self._blocks.append(sys.getallocatedblocks())
        self._files.append(files())

    def __str__(self) -> str:
        return f"{self._memory[-1] / 2**20:6.1f} MiB, {self._files[-1]} files"

    def check(self, ledger: Ledger) -> None:
        """Note if memory has grown since the first tenth."""
        first, *_, last = self._memory
        if last > first * GROWTH:
            ledger.note(f"memory has grown from {first} bytes to {last}")

    def report(self) -> dict[str, list[float]]:
        """Return the memory of each tenth, and the first and the last of the others."""
        return {
            "memory": [round(size / 2**20, 1) for size in self._memory],
            "blocks": [self._blocks[0], self._blocks[-1]],
            "files": [self._files[0], self._files[-1]],
        }
