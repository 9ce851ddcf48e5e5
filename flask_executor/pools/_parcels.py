"""What travels between a process pool and its workers, and what a worker does with it.

A call and its outcome go by value, in pickles; what does not pickle is told apart, so
that the error names it.
"""

from __future__ import annotations

import pickle
import signal
import sys
import typing as t
from multiprocessing.connection import Connection
from traceback import format_exception

from ..context import PortableSnapshot
from ..errors import AppNotFound, CallNotPicklable, ResultNotPicklable
from ..task import name_of
from ..worker import Call, Outcome, run
from ._apps import AppSource


class MainModule:
    """The script of this process, which a worker imports likewise.

    Python forgets its file when the script has ended, while what the pool had accepted
    still runs: so it is noted in time.
    """

    def __init__(self) -> None:
        self._module = sys.modules.get("__main__")
        self._file: str | None = getattr(self._module, "__file__", None)
        spec = getattr(self._module, "__spec__", None)
        self.is_prompt: bool = self._file is None and spec is None
        """Whether there is no file that a worker could import."""

    @property
    def is_forgotten(self) -> bool:
        """Whether it had a file, and has none now."""
        return self._file is not None and "__file__" not in vars(self._module)

    def recall(self) -> None:
        """Have its file known again."""
        if self.is_forgotten:
            vars(self._module)["__file__"] = self._file


class _Parcel(t.NamedTuple):
    """A call as it travels; the parts are packed apart, so that each can fail alone."""

    fn: bytes
    arguments: bytes
    snapshot: bytes | None
    name: str


def check_declared(fn: t.Any) -> None:
    """Refuse, where it is declared, a job that no worker could import.

    Its module does not hold it yet, so its name must tell.

    :raises CallNotPicklable: saying why.
    """
    name = getattr(fn, "__qualname__", "")
    if "<locals>" in name or "<lambda>" in name:
        raise CallNotPicklable(
            name_of(fn), "it is local to a function, or has no name of its own"
        )


def pack_callable(fn: t.Any, main: MainModule) -> bytes:
    """A callable as a worker imports it.

    :raises CallNotPicklable: where no worker could.
    """
    if getattr(fn, "__module__", None) == "__main__" and main.is_prompt:
        raise CallNotPicklable(
            name_of(fn), "it was defined at a prompt, which has no file to import"
        )
    try:
        return pickle.dumps(fn)
    except Exception as error:
        raise CallNotPicklable(name_of(fn), describe(error)) from error


def pack(call: Call, fn: bytes) -> bytes:
    """A call as it travels, with what it is to see.

    :raises Exception: whatever its arguments raise when they are pickled.
    """
    snapshot = None if call.snapshot is None else call.snapshot.packed()
    arguments = pickle.dumps((call.args, call.kwargs))
    return pickle.dumps(tuple(_Parcel(fn, arguments, snapshot, name_of(call.fn))))


def describe(error: BaseException) -> str:
    """The kind of an error and its message."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # people's own may fail
        return type(error).__name__


def unpack_reply(name: str, reply: bytes) -> tuple[Outcome, str | None]:
    """The outcome of a call, and why it ran without contexts if so."""
    try:
        value, error, trace, reason = pickle.loads(reply)
    except BaseException as failure:
        lost = ResultNotPicklable(name, "its result", describe(failure))
        return Outcome(error=lost), None
    if error is not None and trace:
        error.__cause__ = WorkerTraceback(trace)
    return Outcome(value, error), reason


class WorkerTraceback(Exception):
    """The traceback of an exception, as the worker process saw it: the cause of the
    exception in this process.
    """

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


# From here on: what runs in the worker process.


def serve(
    calls: Connection[t.Any, bytes],
    replies: Connection[bytes, t.Any],
    begun: t.Any,
    source: AppSource | None,
) -> None:
    """The main loop of a worker process: until the other end of a pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        try:
            payload = calls.recv_bytes()
        except (EOFError, OSError):
            return
        begun.value = 1
        reply = _reply_to(payload, source)
        try:
            replies.send_bytes(reply)
        except OSError:
            return


def _reply_to(payload: bytes, source: AppSource | None) -> bytes:
    parcel = _Parcel(*pickle.loads(payload))
    reason = None
    try:
        call, reason = _open_parcel(parcel, source)
    except AppNotFound as error:
        outcome = Outcome(error=error)
    except BaseException as error:
        reason_why = f"a worker could not load it ({describe(error)})"
        outcome = Outcome(error=CallNotPicklable(parcel.name, reason_why))
    else:
        outcome = run(call)
    return _pack_outcome(parcel.name, outcome, reason)


def _open_parcel(parcel: _Parcel, source: AppSource | None) -> tuple[Call, str | None]:
    snapshot = reason = None
    if parcel.snapshot is not None and source is not None:
        app, reason = source.app()
        if app is not None:
            portable: PortableSnapshot = pickle.loads(parcel.snapshot)
            snapshot = portable.land(app)
    args, kwargs = pickle.loads(parcel.arguments)
    return Call(pickle.loads(parcel.fn), args, kwargs, snapshot), reason


def _pack_outcome(name: str, outcome: Outcome, reason: str | None) -> bytes:
    value, error = outcome.value, outcome.error
    trace = "" if error is None else "".join(format_exception(error))
    try:
        reply = pickle.dumps((value, error, trace, reason))
        if error is not None:
            pickle.loads(reply)  # many exceptions pickle but do not unpickle
        return reply
    except BaseException as failure:
        what = "its result" if error is None else f"the {describe(error)} it raised"
        refused = ResultNotPicklable(name, what, describe(failure))
        return pickle.dumps((None, refused, trace, reason))
