"""Threads of our own."""

from __future__ import annotations

import contextvars
import threading
import typing as t


class _Here(threading.local):
    """What a thread knows of itself."""

    pool: t.Callable[[], t.Any] | None = None
    """A weak reference to the pool of which it is a worker, or None."""


here: _Here = _Here()


def start_thread(
    target: t.Callable[..., object],
    *args: t.Any,
    name: str,
    daemon: bool = False,
) -> threading.Thread:
    """Start a thread whose context is empty.

    A free-threaded Python lets a thread inherit the context of the code that starts it.
    For a thread that serves many tasks, that would be the request of the first one.

    :raises RuntimeError: if the system has no more threads, or the interpreter ends.
    """
    thread = threading.Thread(target=target, args=args, name=name, daemon=daemon)
    contextvars.Context().run(thread.start)
    return thread
