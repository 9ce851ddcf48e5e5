"""Test what submits tasks: see them, run them when the test says so, move the clock.

:func:`capture` replaces the pool of an executor; ``executor_tasks`` does the same as a
pytest fixture, and ``executor_store`` gives a test a store in a file of its own.
Nothing sleeps here.
"""

import contextlib

from .captured import CapturedTasks, TasksLeftBehind, capture
from .clock import ManualClock
from .runner import NotReleased
from .submitted import Submitted

__all__ = [
    "CapturedTasks",
    "ManualClock",
    "NotReleased",
    "Submitted",
    "TasksLeftBehind",
    "capture",
]

with contextlib.suppress(ImportError):  # all others work without pytest
    from .fixture import executor_store as executor_store
    from .fixture import executor_tasks as executor_tasks

# So that reports and tracebacks show the path by which users import them.
for _public in (
    CapturedTasks,
    ManualClock,
    NotReleased,
    Submitted,
    TasksLeftBehind,
    capture,
):
    _public.__module__ = __name__
