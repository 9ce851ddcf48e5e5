"""Every exception of the package.

Each one also inherits the builtin that people already catch, keeps its facts as
attributes, and writes its own message from them: the offending value, the rule, the
next step.
"""

from __future__ import annotations

import typing as t
from concurrent.futures import BrokenExecutor
from pickle import PicklingError


class InvalidName(ValueError):
    """The name of an executor holds something other than letters, digits and
    underscores.
    """

    def __init__(self, name: object) -> None:
        self.name = name
        super().__init__(
            f"{name!r} cannot name an executor: a name becomes part of config keys, so"
            " use letters, digits and underscores only, as in Executor(name='mail')."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.name,)


class InvalidSetting(ValueError):
    """A config key holds a value that is not allowed there."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        self.key = key
        self.value = value
        self.allowed = allowed
        super().__init__(f"{key} = {value!r} is not understood: it may be {allowed}.")

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.key, self.value, self.allowed)


class ExecutorNotInitialized(RuntimeError):
    """The executor was asked to work for an app it does not know."""

    def __init__(self, app: object = None) -> None:
        self.app = app
        whose = "any app" if app is None else f"the app {app!r}"
        super().__init__(
            f"This executor was not initialized for {whose}: call"
            " executor.init_app(app) where the app is made."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.app,)


class ExecutorShutDown(RuntimeError):
    """A call was submitted to an executor that was shut down."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"cannot schedule new futures after shutdown: {name!r} was not accepted."
            " Call executor.init_app(app) again to start anew."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.name,)


class NotCallable(TypeError):
    """Something that cannot be called was submitted."""

    def __init__(self, submitted: object) -> None:
        self.submitted = submitted
        super().__init__(
            f"{submitted!r} was submitted, which is not callable: pass the function"
            " itself, submit(send, message), not its result, submit(send(message))."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.submitted,)


class DuplicateKey(ValueError):
    """A future is already stored under that key."""

    def __init__(self, key: t.Hashable) -> None:
        self.key = key
        super().__init__(
            f"The key {key!r} is taken in executor.futures: pop it first, with"
            f" executor.futures.pop({key!r}), or use another."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.key,)


class CallNotPicklable(PicklingError):
    """A call cannot be sent to a worker process."""

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


class ResultNotPicklable(PicklingError):
    """What a call returned or raised in a worker process cannot be sent back."""

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
            f"{name} was lost: {what}. Other calls are not affected; submit it again if"
            " it may run twice."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.name, self.pid, self.exitcode)


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
