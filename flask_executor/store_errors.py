"""The exceptions of tasks that are saved; see :mod:`.errors` for all others."""

from __future__ import annotations

import typing as t

from .errors import ArgumentsNotPicklable, ResultNotPicklable


class KeyNotStorable(ValueError):
    """The key of a future cannot be written into the store."""

    def __init__(self, key: str, kind: str, reason: str) -> None:
        self.key = key
        self.kind = kind
        self.reason = reason
        super().__init__(
            f"The key {key} ({kind}) cannot be kept in the store: {reason}. Use a text,"
            " a whole number, a member of an Enum, or a tuple of these."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.key, self.kind, self.reason)


class KeyNotReadable(LookupError):
    """The text of a key in the store means nothing in this process."""

    def __init__(self, text: str, reason: str) -> None:
        self.text = text
        self.reason = reason
        super().__init__(
            f"{text!r} is no key in this process: {reason}. Ask for the task by its id."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.text, self.reason)


class NoSecretKey(RuntimeError):
    """Something is to be signed with a ``SECRET_KEY``, and the app has none."""

    def __init__(
        self, app: str, needs: str = "the store cannot sign what it saves"
    ) -> None:
        self.app = app
        self.needs = needs
        super().__init__(
            f"The app {app!r} has no SECRET_KEY, so {needs}: set"
            " app.config['SECRET_KEY'] to the same random text in every process, for"
            " example one that secrets.token_hex() made."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.app, self.needs)


class PayloadRefused(ValueError):
    """The saved bytes of a task were not used: forged, damaged, or not readable."""

    def __init__(self, task: str, kind: str, job: str, reason: str) -> None:
        self.task = task
        self.kind = kind
        self.job = job
        self.reason = reason
        super().__init__(
            f"The {kind} of task {task} ({job}) was not used: {reason}. Other tasks are"
            " not affected. Submit it again if it is still needed."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.task, self.kind, self.job, self.reason)


class PayloadTooLarge(ValueError):
    """The arguments, the request or the result of a task are too large to be saved."""

    def __init__(self, name: str, what: str, size: int, limit: int) -> None:
        self.name = name
        self.what = what
        self.size = size
        self.limit = limit
        super().__init__(
            f"{name} cannot be saved: {size} bytes are too much for {what}, for"
            f" EXECUTOR_STORE_MAX_BYTES is {limit}. Save a file or a row yourself, and"
            " pass or return its path or its id."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.name, self.what, self.size, self.limit)


class ArgumentsNotStorable(ArgumentsNotPicklable):
    """The arguments of a call cannot be saved."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        Exception.__init__(self, f"{name} cannot be saved: {reason}.")


class ResultNotStorable(ResultNotPicklable):
    """The result of a task cannot be saved, so the task has failed."""

    def __init__(self, name: str, outcome: str, reason: str) -> None:
        super().__init__(name, outcome, reason)
        Exception.__init__(
            self,
            f"{name} ran, but {outcome} cannot be saved: {reason}. Return plain data,"
            " or save it yourself and return its id.",
        )


class FailedElsewhere(Exception):
    """A saved task failed, and its own exception cannot be made in this process."""

    def __init__(self, name: str, error: str, text: str) -> None:
        self.name = name
        self.error = error
        self.text = text
        super().__init__(
            f"{name} failed with {error}: {text}. Its own exception cannot be made in"
            " this process; its traceback is below."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.name, self.error, self.text)


class DuplicateJobName(ValueError):
    """Two different functions were declared as jobs under one name."""

    def __init__(self, name: str, first: str, second: str) -> None:
        self.name = name
        self.first = first
        self.second = second
        super().__init__(
            f"{name!r} is the name of the job {first} already, so {second} needs"
            " another one: a saved task finds its function by this name."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.name, self.first, self.second)


class JobNotStorable(ValueError):
    """A task cannot be saved, because its function is not found again by a name."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(
            f"Tasks of {name} cannot be saved: {reason}. After a crash, another process"
            " must find the function by its name."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.name, self.reason)


class TaskInterrupted(RuntimeError):
    """The process that ran the task has died, and the task is not run again."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"The process that ran {name} has died. It is not run again, because its"
            " guarantee is not 'at_least_once'."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.name,)


class TaskForgotten(LookupError):
    """The store does not know a task any more, so nobody knows how it has ended."""

    def __init__(self, name: str, id: str) -> None:
        self.name = name
        self.id = id
        super().__init__(
            f"The store knows {name} ({id}) no more: it has ended and was removed, or"
            " somebody has emptied the store. Raise EXECUTOR_STORE_KEEP if you need its"
            " result for longer."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.name, self.id)


class StoreUnavailable(ConnectionError):
    """The database of the store cannot be used at the moment.

    A read or a submit that raises it has changed nothing. Try again later: the store
    reconnects by itself.
    """

    def __init__(self, where: str, reason: str) -> None:
        self.where = where
        self.reason = reason
        super().__init__(
            f"The store {where} is not available ({reason}). Nothing was accepted;"
            " try again later. The store reconnects by itself."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.where, self.reason)


class StoreRefused(ValueError):
    """``EXECUTOR_STORE`` names a database that cannot be a store."""

    def __init__(self, where: str, reason: str) -> None:
        self.where = where
        self.reason = reason
        super().__init__(f"EXECUTOR_STORE = {where!r} cannot be used: {reason}.")

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.where, self.reason)


class StoreLocked(RuntimeError):
    """The view's own transaction has the file of the store, which is SQLite."""

    def __init__(self, name: str, where: str) -> None:
        self.name = name
        self.where = where
        super().__init__(
            f"{name} was not accepted: the session of this view has written to {where}"
            " and has not committed, so saving the task would wait for itself. Commit"
            " before it, or save the task in the same transaction, with"
            " using(session=db.session); that needs a job with a guarantee."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.name, self.where)


class SessionRefused(ValueError):
    """The session of the option ``session`` does not belong to the store."""

    def __init__(self, where: str, session: str, reason: str) -> None:
        self.where = where
        self.session = session
        self.reason = reason
        super().__init__(
            f"The session of {session} cannot save a task: the store is {where}, and"
            f" {reason}."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.where, self.session, self.reason)


class SchemaMismatch(RuntimeError):
    """The tables of the store are of another version than this code."""

    def __init__(self, where: str, found: int, known: int) -> None:
        self.where = where
        self.found = found
        self.known = known
        if found < known:
            what = "older than this code: run 'flask executor store upgrade'"
        else:
            what = "newer than this code: install the Flask-Executor that made them"
        super().__init__(
            f"The tables in {where} have version {found}, and this code needs version"
            f" {known}. They are {what}."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.where, self.found, self.known)


class RetryRefused(ValueError):
    """A task cannot be run again by :meth:`.Executor.retry`."""

    def __init__(self, task: str, name: str, reason: str) -> None:
        self.task = task
        self.name = name
        self.reason = reason
        super().__init__(f"Task {task} ({name}) cannot be run again: {reason}.")

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.task, self.name, self.reason)


class NoAnswer(TimeoutError):
    """A process was asked through the store, and has not answered."""

    def __init__(self, process: str, what: str, seconds: float) -> None:
        self.process = process
        self.what = what
        self.seconds = seconds
        super().__init__(
            f"Process {process} has not told its {what} within {seconds:g} seconds. It"
            " answers when it renews its lease, at a sixth of EXECUTOR_STORE_LEASE:"
            " give it more time, or see if it still runs."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.process, self.what, self.seconds)
