"""A turn: one process after another writes to an SQLite file.

With ``busy_timeout`` alone, SQLite lets those who wait sleep for up to 0.1 seconds, and
who has just written writes again: of four processes, the slowest may get one
transaction in the time of a thousand.
"""

from __future__ import annotations

import contextlib
import os
import threading
import typing as t
import weakref

fcntl: t.Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class Turn:
    """A lock that one thread of all processes has at a time.

    The kernel releases it when its holder dies. It is no guard, only a queue, for which
    SQLite's own lock decides. Where there is no ``flock``, :meth:`take` returns at
    once.

    :param path: a file beside the database; it is made if it does not exist.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        # By process: one from before a fork may stay locked for ever.
        self._locks: dict[int, threading.Lock] = {}

    @contextlib.contextmanager
    def take(self, *, wait: bool = True) -> t.Iterator[bool]:
        """Hold the turn within a ``with`` block.

        :param wait: wait for it, as long as it takes. Otherwise the block gets False if
            somebody else has the turn.
        """
        # First among ourselves: under gevent, a greenlet that waits for the kernel
        # stops all others, the one that has the turn among them.
        lock = self._locks.setdefault(os.getpid(), threading.Lock())
        if not lock.acquire(blocking=wait):
            yield False
            return
        try:
            with self._of_all_processes(wait) as has_turn:
                yield has_turn
        finally:
            lock.release()

    @contextlib.contextmanager
    def _of_all_processes(self, wait: bool) -> t.Iterator[bool]:
        file = _open(self._path) if fcntl is not None else None
        if file is None:
            yield True
            return
        try:
            yield file.lock(wait=wait)
        finally:
            file.release()


class _File:
    """An open file that no forked child keeps open.

    A lock belongs to the open file, which a forked child shares: it would keep a turn
    that its parent had when it died.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        _open_files.add(self)

    def lock(self, *, wait: bool) -> bool:
        """Begin a turn; return False if somebody else has it."""
        try:
            fcntl.flock(self.number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """End the turn, unless this is a child that was forked within it."""
        if self.number >= 0:
            # Closing is not enough while a child that was just forked has it open.
            fcntl.flock(self.number, fcntl.LOCK_UN)
            self.close()

    def close(self) -> None:
        """Close the file; in a child, the parent keeps its turn."""
        _open_files.discard(self)
        os.close(self.number)
        self.number = -1


_open_files: weakref.WeakSet[_File] = weakref.WeakSet()


def _open(path: str) -> _File | None:
    try:
        return _File(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660))
    except OSError:  # a folder that nobody may write to: SQLite says so better
        return None


def _close_in_child() -> None:
    for file in [*_open_files]:
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
