"""The exceptions of the package.

Each one also inherits the builtin that people already catch, keeps its facts as
attributes, and writes its own message from them: the offending value, the rule, the
next step.
"""

from __future__ import annotations

import queue
import typing as t

from werkzeug.exceptions import ServiceUnavailable

from .pool_errors import AppNotFound as AppNotFound
from .pool_errors import ArgumentsNotPicklable as ArgumentsNotPicklable
from .pool_errors import CallNotPicklable as CallNotPicklable
from .pool_errors import ChildrenNotAllowed as ChildrenNotAllowed
from .pool_errors import PoolNotInstalled as PoolNotInstalled
from .pool_errors import ResultNotPicklable as ResultNotPicklable
from .pool_errors import WorkerLost as WorkerLost
from .run_errors import LoopBlocked as LoopBlocked
from .run_errors import NoCurrentTask as NoCurrentTask
from .run_errors import TaskCancelled as TaskCancelled
from .run_errors import TaskTimeout as TaskTimeout
from .run_errors import WaitsForItself as WaitsForItself


class InvalidName(ValueError):
    """The name of an executor has characters that are not allowed there."""

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
        super().__init__(f"{key} = {value!r} is not understood: use {allowed}.")

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.key, self.value, self.allowed)


class ExecutorNotInitialized(RuntimeError):
    """The executor was used for an app for which it was not initialized."""

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
    """A future is stored under that key already."""

    def __init__(self, key: t.Hashable) -> None:
        self.key = key
        super().__init__(
            f"The key {key!r} is taken in executor.futures: pop it first, with"
            f" executor.futures.pop({key!r}), or use another key."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.key,)


class NotUnique(ValueError):
    """Another task has that value of the option ``unique``, and has not ended."""

    def __init__(
        self, value: t.Hashable, holder: str, state: str, on_taken: str
    ) -> None:
        self.value = value
        self.holder = holder
        self.state = state
        self.on_taken = on_taken
        if on_taken == "replace":
            rule = (
                "replaces only a task that waits: submit again when that one has ended"
            )
        else:
            rule = "accepts no second one: wait until it has ended, use another value,"
            rule += " or on_taken='return' to get its future, or 'replace' to cancel it"
        super().__init__(
            f"unique = {value!r} is taken by {holder}, which is {state}."
            f" on_taken = {on_taken!r} {rule}."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.value, self.holder, self.state, self.on_taken)


class InvalidSchedule(ValueError):
    """A periodic job was declared with a value that is not allowed there."""

    def __init__(self, what: str, value: object, allowed: str) -> None:
        self.what = what
        self.value = value
        self.allowed = allowed
        super().__init__(f"{what} = {value!r} cannot be scheduled: use {allowed}.")

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.what, self.value, self.allowed)


class PeriodicNotInstalled(ImportError):
    """The library that cron expressions need is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "executor.cron needs croniter, which is not installed: run"
            " pip install 'Flask-Executor[periodic]', or use executor.every.",
            name="croniter",
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), ()


class SurfaceNotInstalled(ImportError):
    """The library that a part of this package needs is not installed."""

    def __init__(self, extra: str, library: str) -> None:
        self.extra = extra
        self.library = library
        super().__init__(
            f"flask_executor.{extra} needs {library}, which is not installed: run"
            f" pip install 'Flask-Executor[{extra}]'.",
            name=library,
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.extra, self.library)


class UnknownOption(TypeError):
    """An option was given that does not exist."""

    def __init__(self, option: str, known: t.Iterable[str]) -> None:
        self.option = option
        self.known: tuple[str, ...] = tuple(known)
        super().__init__(
            f"{option!r} is not an option of a task. The options are"
            f" {', '.join(self.known)}. Pass keyword arguments of the callable to"
            " submit, not to using."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.option, self.known)


class InvalidOption(ValueError):
    """An option has a value that is not allowed there."""

    def __init__(self, option: str, value: object, allowed: str) -> None:
        self.option = option
        self.value = value
        self.allowed = allowed
        super().__init__(f"{option} = {value!r} is not understood: use {allowed}.")

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.option, self.value, self.allowed)


class UnsupportedOption(ValueError):
    """An option was given where it is not supported."""

    def __init__(self, option: str, where: str, instead: str) -> None:
        self.option = option
        self.where = where
        self.instead = instead
        super().__init__(f"{option} is not supported by {where}: {instead}.")

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.option, self.where, self.instead)


class QueueFull(ServiceUnavailable, queue.Full):
    """``EXECUTOR_MAX_PENDING`` tasks wait already; this one was not accepted.

    It is a :exc:`werkzeug.exceptions.ServiceUnavailable`: if a view does not catch it,
    the response is a 503 with a ``Retry-After`` header.
    """

    RETRY_AFTER: t.ClassVar[int] = 5
    """Seconds after which the client is asked to come again."""

    def __init__(self, task_name: str, limit: int) -> None:
        self.task_name = task_name  # the name of an HTTPException is that of its code
        self.limit = limit
        super().__init__(
            f"{task_name} was not accepted, because {limit} tasks wait already"
            " (EXECUTOR_MAX_PENDING): try again later.",
            retry_after=self.RETRY_AFTER,
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.task_name, self.limit)


class UnknownTask(LookupError):
    """There is no task with that id, or nothing is known of it any more."""

    def __init__(self, id: object) -> None:
        self.id = id
        super().__init__(
            f"There is no task {id!r}, or it is not kept any more: use the id of a task"
            " of this executor, as future.task.id or that of executor.tasks()."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.id,)


class StatusRefused(RuntimeError):
    """There can be no status URL for a task, because nobody could ask for it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"No status URL was made: {reason}.")

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.reason,)


class UnknownWorker(LookupError):
    """There is no process with that id that is alive."""

    def __init__(self, id: object) -> None:
        self.id = id
        super().__init__(
            f"There is no process {id!r}, or it has ended: use the id of one of"
            " executor.workers()."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.id,)
