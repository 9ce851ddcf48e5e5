"""The exceptions of pools and their worker processes; see :mod:`.errors` for others.

They can be imported from there, too.
"""

from __future__ import annotations

import typing as t
from concurrent.futures import BrokenExecutor
from pickle import PicklingError


class CallNotPicklable(PicklingError, TypeError):
    """A call cannot be sent to a worker process.

    It is a :exc:`TypeError`, too, which 1.0.0 raised for jobs.
    """

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(
            f"{name} cannot be sent to a worker process: {reason}. A worker imports the"
            " callable by its name, and arguments travel by value: use a function at"
            " the top level of a module and plain data, or EXECUTOR_TYPE = 'thread'."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.name, self.reason)


class ArgumentsNotPicklable(CallNotPicklable):
    """The arguments of a call cannot be sent to a worker process."""


class ResultNotPicklable(PicklingError):
    """The result or the error of a call cannot be sent back from a worker process."""

    def __init__(self, name: str, outcome: str, reason: str) -> None:
        self.name = name
        self.outcome = outcome
        self.reason = reason
        super().__init__(
            f"{name} ran in a worker process, but {outcome} cannot be sent back:"
            f" {reason}. Return plain data, or use EXECUTOR_TYPE = 'thread'."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.name, self.outcome, self.reason)


class WorkerLost(BrokenExecutor):
    """The worker process that ran this call died before the call had ended."""

    def __init__(self, name: str, pid: int | None, exitcode: int | None) -> None:
        self.name = name
        self.pid = pid
        self.exitcode = exitcode
        if pid is None:
            what = "no worker process could be started for it"
        else:
            what = (
                f"its worker process {pid} ended with exit code {exitcode} during the"
                " call (killed, out of memory, or a crash)"
            )
        super().__init__(
            f"{name} was lost: {what}. Other calls are not affected. Submit it again if"
            " it may run twice."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.name, self.pid, self.exitcode)


class ChildrenNotAllowed(RuntimeError):
    """A call for a worker process was submitted in a process that may start none."""

    def __init__(self, name: str, process: str) -> None:
        self.name = name
        self.process = process
        super().__init__(
            f"{name} was not accepted: it needs a worker process, and this process,"
            f" {process!r}, is a daemonic process of multiprocessing, which may not"
            " start others. Hypercorn's workers are daemonic: run hypercorn with"
            " --workers 0, use another server, or set EXECUTOR_TYPE = 'thread'."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.name, self.process)


class AppNotFound(RuntimeError):
    """A worker process could not make the app that ``EXECUTOR_APP`` names."""

    def __init__(self, reference: str, reason: str) -> None:
        self.reference = reference
        self.reason = reason
        super().__init__(
            f"EXECUTOR_APP = {reference!r} gives no Flask app in a worker process"
            f" ({reason}): it must be 'module:app' or 'module:factory', importable"
            " there, where the factory needs no arguments."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.reference, self.reason)


class PoolNotInstalled(ImportError):
    """The library that a pool needs is not installed."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(
            f"EXECUTOR_TYPE = {kind!r} needs a library that is not installed: run"
            f" pip install 'Flask-Executor[{kind}]'.",
            name=kind,
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.kind,)
