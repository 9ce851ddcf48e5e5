"""The exceptions of tasks that run: they are stopped, or wait where they must not."""

from __future__ import annotations

import typing as t
from concurrent.futures import CancelledError


class TaskTimeout(TimeoutError):
    """A task ran for longer than its ``timeout``.

    Only the executor raises it: a :exc:`TimeoutError` that the task itself raised
    stays as it is.
    """

    def __init__(self, name: str, limit: float) -> None:
        self.name = name
        self.limit = limit
        super().__init__(
            f"{name} ran for longer than its timeout of {limit:g} seconds: raise the"
            " timeout, or split the task."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.name, self.limit)


class TaskCancelled(CancelledError):
    """The running task was asked to stop, and stopped."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"{name} was asked to stop, and stopped.")

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.name,)


class NoCurrentTask(RuntimeError):
    """``current_task`` was used outside a task."""

    def __init__(self) -> None:
        super().__init__(
            "No task runs here: current_task can be used only inside a submitted call."
            " Outside, use future.task."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), ()


class LoopBlocked(RuntimeError):
    """A coroutine on the executor's event loop was about to block it."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"Waiting for {name} here would block the event loop, on which all"
            " coroutines of this executor run: use `await future` instead of"
            " future.result()."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.name,)


class WaitsForItself(RuntimeError):
    """A task was about to wait for all tasks, and so for itself."""

    def __init__(self, verb: str) -> None:
        self.verb = verb
        super().__init__(
            f"{verb} waits for all tasks of this executor, and was called by one of"
            " them: call it outside its tasks."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.verb,)
