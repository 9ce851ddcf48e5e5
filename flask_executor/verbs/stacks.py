"""What the threads of this process do at this moment."""

from __future__ import annotations

import threading
import traceback
import typing as t
from types import FrameType

from ..attempt import Attempt
from ..dispatch import Dispatcher
from ..dispatch.events import current_frames
from .records import ThreadStack

_DEEP = 60
"""How many lines of code of a thread are shown: the innermost."""


def own_stacks(dispatcher: Dispatcher) -> list[ThreadStack]:
    """Return what each thread does; first those that run tasks of the dispatcher.

    There are lines of code in it, and no values.
    """
    attempts = _attempts_by_thread(dispatcher)
    frames = current_frames()
    found = [
        _stack(thread.name, frames[ident], attempts.get(ident))
        for thread in threading.enumerate()
        if (ident := thread.ident) in frames and ident is not None
    ]
    return sorted(found, key=lambda one: (one.task_id is None, not one.overran))


def _attempts_by_thread(dispatcher: Dispatcher) -> dict[int, Attempt]:
    """Return what each thread runs; if a task waits and runs others, the innermost.

    On the thread of an event loop there are many at once.
    """
    table = dispatcher.table
    begun = [*table.late.copy(), *table.running.copy()]
    return {one.thread: one for one in begun if not one.task._pool.must_not_block}


def _stack(name: str, frame: FrameType, attempt: Attempt | None) -> ThreadStack:
    lines = traceback.format_stack(frame, _DEEP)
    facts: dict[str, t.Any] = {}
    if attempt is not None:
        task = attempt.task
        facts = {"task_id": task.id, "task_name": task.name, "overran": attempt.overrun}
    return ThreadStack(thread=name, stack="".join(lines), **facts)
