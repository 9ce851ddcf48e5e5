"""Calls on threads: the standard library's pool, working on a line of ours."""

from __future__ import annotations

import typing as t
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from ..task import Task


class ThreadPool(ThreadPoolExecutor):
    """A :class:`~concurrent.futures.ThreadPoolExecutor` that takes tasks.

    The line of waiting tasks is ours; for each of them the standard library's pool
    gets one token, a call that takes whatever is first in line. Its threads, its
    shutdown and its rules at exit stay its own.
    """

    runs_in_caller: t.ClassVar[bool] = False

    def __init__(self, max_workers: int | None, name: str) -> None:
        super().__init__(max_workers, thread_name_prefix=name)
        self._line: deque[Task] = deque()

    def start(self, task: Task) -> None:
        """Put a task in line.

        :raises RuntimeError: where the pool is shut down.
        """
        self._line.append(task)
        try:
            super().submit(self._run_next)
        except RuntimeError:
            if self._left(task):
                raise

    def _left(self, task: Task) -> bool:
        # Where an earlier token has taken it meanwhile, it was accepted after all.
        with suppress(ValueError):
            self._line.remove(task)
            return True
        return False

    def _run_next(self) -> None:
        try:
            task = self._line.popleft()
        except IndexError:  # taken back, or abandoned by shutdown
            return
        task.run()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more; run or cancel what waits, as the standard library."""
        super().shutdown(wait=False)
        while cancel_futures and self._line:
            self._line.popleft().abandon()
        super().shutdown(wait=wait)
