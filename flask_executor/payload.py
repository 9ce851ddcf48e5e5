"""A call, its context and its outcome as bytes, for code in another process.

Everything goes by value, in pickles. The parts of a call are serialized one by one, so
that the error names the part that fails. Nothing here knows a pool.
"""

from __future__ import annotations

import pickle
import sys
import typing as t
from traceback import format_exception

from flask import Flask

from .attempt import Attempt
from .calls import Call, Outcome
from .contexts import PortableSnapshot
from .errors import ArgumentsNotPicklable, CallNotPicklable, ResultNotPicklable
from .task import name_of


class MainModule:
    """The script of this process, which a worker process imports too.

    Python forgets its file when the script has ended, although accepted calls still
    run. So this notes it before.
    """

    def __init__(self) -> None:
        self._module = sys.modules.get("__main__")
        self._file: str | None = getattr(self._module, "__file__", None)
        spec = getattr(self._module, "__spec__", None)
        self.is_prompt: bool = self._file is None and spec is None
        """True if there is no file that a worker could import."""

    @property
    def is_forgotten(self) -> bool:
        """True if it had a file, and Python has forgotten it."""
        return self._file is not None and "__file__" not in vars(self._module)

    def recall(self) -> None:
        """Set its file again."""
        if self.is_forgotten:
            vars(self._module)["__file__"] = self._file


class CallPayload(t.NamedTuple):
    """A call as bytes."""

    fn: bytes
    arguments: bytes
    snapshot: bytes | None


def check_declared(fn: t.Any) -> None:
    """Refuse a job that no other process could import, when it is declared.

    Its module does not have it yet, so only its name shows that.

    :raises CallNotPicklable: with the reason.
    """
    name = getattr(fn, "__qualname__", "")
    if "<locals>" in name or "<lambda>" in name:
        raise CallNotPicklable(
            name_of(fn), "it is local to a function, or has no name of its own"
        )


def serialize_call(call: Call, main: MainModule) -> CallPayload:
    """Serialize a call and its context.

    :raises CallNotPicklable: if no other process could import the callable.
    :raises ArgumentsNotPicklable: if its arguments or its context cannot be sent.
    """
    fn = _serialize_callable(call.fn, main)
    try:
        snapshot = None if call.snapshot is None else call.snapshot.serialize()
        return CallPayload(fn, pickle.dumps((call.args, call.kwargs)), snapshot)
    except Exception as error:
        reason = f"its arguments do not pickle ({describe(error)})"
        raise ArgumentsNotPicklable(name_of(call.fn), reason) from error


def _serialize_callable(fn: t.Any, main: MainModule) -> bytes:
    if getattr(fn, "__module__", None) == "__main__" and main.is_prompt:
        raise CallNotPicklable(
            name_of(fn), "it was defined at a prompt, which has no file to import"
        )
    try:
        return pickle.dumps(fn)
    except Exception as error:
        raise CallNotPicklable(name_of(fn), describe(error)) from error


def rebuild_call(payload: CallPayload, app: Flask | None) -> Call:
    """Rebuild a call in another process.

    :param app: the app there; None: the call runs without contexts.
    """
    snapshot = None
    if payload.snapshot is not None and app is not None:
        portable: PortableSnapshot = pickle.loads(payload.snapshot)
        snapshot = portable.rebuild(app)
    args, kwargs = pickle.loads(payload.arguments)
    return Call(pickle.loads(payload.fn), args, kwargs, snapshot)


class TaskInfo(t.NamedTuple):
    """What code in another process can ask about its task."""

    id: str
    name: str
    key: bytes | None
    attempt: int
    remaining: float | None

    @classmethod
    def of(cls, attempt: Attempt) -> TaskInfo:
        """Return what is known of an attempt now."""
        key = _serialize_key(attempt.key)
        number, remaining = attempt.number, attempt.remaining()
        return cls(attempt.id, attempt.name, key, number, remaining)

    def rebuild_key(self) -> t.Hashable | None:
        """Return the key, or None if it cannot be made in this process."""
        try:
            return None if self.key is None else pickle.loads(self.key)
        except Exception:
            return None


def _serialize_key(key: t.Hashable | None) -> bytes | None:
    try:
        return None if key is None else pickle.dumps(key)
    except Exception:  # any hashable object can be a key
        return None


def dump_outcome(outcome: Outcome) -> bytes:
    """Return an outcome as bytes; raise any exception if it does not pickle."""
    value, error = outcome.value, outcome.error
    trace = "" if error is None else "".join(format_exception(error))
    data = pickle.dumps((value, error, trace))
    if error is not None:
        pickle.loads(data)  # many exceptions pickle but do not unpickle
    return data


def load_outcome(data: bytes) -> Outcome:
    """Return an outcome again; raise any exception if it does not unpickle."""
    value, error, trace = pickle.loads(data)
    if error is not None and trace:
        error.__cause__ = WorkerTraceback(trace)
    return Outcome(value, error)


def serialize_outcome(name: str, outcome: Outcome) -> bytes:
    """Serialize an outcome; one that cannot be sent becomes an error."""
    try:
        return dump_outcome(outcome)
    except BaseException as failure:
        error = outcome.error
        what = "its result" if error is None else f"the {describe(error)} it raised"
        refused = ResultNotPicklable(name, what, describe(failure))
        trace = "" if error is None else "".join(format_exception(error))
        return pickle.dumps((None, refused, trace))


def rebuild_outcome(name: str, reply: bytes) -> Outcome:
    """Rebuild an outcome in the process that submitted the call."""
    try:
        return load_outcome(reply)
    except BaseException as failure:
        return Outcome(error=ResultNotPicklable(name, "its result", describe(failure)))


class WorkerTraceback(Exception):
    """The traceback of an exception in the worker process.

    It is the cause of the exception in this process.
    """

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def name_of_class(kind: type) -> str:
    """Return the name of a class with its module, which those of Python go without."""
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"


def describe(error: BaseException) -> str:
    """Return the kind of an error and its message."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # the app's own exceptions may fail here
        return type(error).__name__
