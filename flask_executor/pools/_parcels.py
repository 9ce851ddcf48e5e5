"""What travels between a process pool and its workers, and what a worker does with it.

A call and its outcome go by value, in pickles; what does not pickle is told apart, so
that the error names it.
"""

from __future__ import annotations

import contextlib
import pickle
import select
import signal
import sys
import threading
import time
import typing as t
from multiprocessing.connection import Connection
from traceback import format_exception

from ..calls import Call, Outcome, run
from ..contexts import PortableSnapshot
from ..current import Progress
from ..errors import (
    AppNotFound,
    ArgumentsNotPicklable,
    CallNotPicklable,
    ResultNotPicklable,
    TaskCancelled,
)
from ..task import Task, name_of
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


class Parcel(t.NamedTuple):
    """A call as it travels; the parts are packed apart, so that each can fail alone."""

    fn: bytes
    arguments: bytes
    snapshot: bytes | None


class Facts(t.NamedTuple):
    """What a worker is told of the task whose call it runs."""

    id: str
    name: str
    key: bytes | None
    attempt: int
    remaining: float | None

    @classmethod
    def of(cls, task: Task) -> Facts:
        """What there is to tell now."""
        return cls(
            task.id, task.name, _packed_key(task), task.attempt, task.remaining()
        )


def _packed_key(task: Task) -> bytes | None:
    try:
        return None if task.key is None else pickle.dumps(task.key)
    except Exception:  # any hashable thing may be a key
        return None


BEGUN, ASKED = 0, 1
"""The flags that a worker shares with its minder: it has begun the call; its task was
asked to stop."""

PROGRESS = b"P"
"""With what a report begins; a pickle begins otherwise."""


def payload_of(task: Task) -> bytes:
    """A task's call as it is sent, with what its code may ask."""
    return pickle.dumps((tuple(task.call), tuple(Facts.of(task))))


def progress_in(message: bytes) -> Progress | None:
    """The report in a message from a worker, or None where it is the reply."""
    if message.startswith(PROGRESS):
        return Progress(*pickle.loads(message[1:]))
    return None


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


def pack(call: Call, main: MainModule) -> Parcel:
    """A call as it travels, with what it is to see.

    :raises CallNotPicklable: where no worker could import the callable.
    :raises ArgumentsNotPicklable: where something else cannot travel.
    """
    fn = pack_callable(call.fn, main)
    try:
        snapshot = None if call.snapshot is None else call.snapshot.packed()
        return Parcel(fn, pickle.dumps((call.args, call.kwargs)), snapshot)
    except Exception as error:
        reason = f"its arguments do not pickle ({describe(error)})"
        raise ArgumentsNotPicklable(name_of(call.fn), reason) from error


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
    flags: t.Any,
    source: AppSource | None,
) -> None:
    """The main loop of a worker process: until the other end of a pipe closes.

    :param flags: shared bytes; see :data:`BEGUN` and :data:`ASKED`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    unblock_signals()
    while True:
        try:
            payload = calls.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            serve_one(payload, replies, flags, source)
        except OSError:
            return


def unblock_signals() -> None:
    """Block no signal in this process, whatever the thread blocked that started it:
    SIGTERM must end it, and what tasks start inherits this.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


def serve_one(
    payload: bytes,
    replies: Connection[bytes, t.Any],
    flags: t.Any,
    source: AppSource | None,
) -> None:
    """Run one call and send what came of it.

    :raises OSError: where nobody is there any more to hear it.
    """
    flags[BEGUN] = 1
    channel = Channel(replies, flags)
    reply = reply_to(payload, source, channel)
    channel.flush()
    replies.send_bytes(reply)


class Channel:
    """The way from the code of a task in a worker to its own process, and back.

    :param pipe: takes progress, a message at a time.
    :param flags: shared bytes.
    """

    INTERVAL = 0.05
    """Seconds between two reports that are passed on."""
    LONGEST = 900
    """How many characters of a message are passed on: a report must go into the pipe
    in one piece."""

    def __init__(self, pipe: Connection[bytes, t.Any], flags: t.Any) -> None:
        self._pipe = pipe
        self._flags = flags
        self._lock = threading.Lock()
        self._next = 0.0
        self._unsent: Progress | None = None

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether the task was asked to stop."""
        return bool(self._flags[ASKED])

    def report(self, progress: Progress) -> None:
        """Pass a report on, if it is time and nothing blocks."""
        self._unsent = progress
        now = time.monotonic()
        if now >= self._next and _takes_more(self._pipe):
            self._next = now + self.INTERVAL
            with contextlib.suppress(OSError):  # nobody is there any more to hear it
                self.flush()

    def flush(self) -> None:
        """Pass on what was kept back."""
        with self._lock:
            progress, self._unsent = self._unsent, None
            if progress is not None:
                done, total, message = progress
                report = (done, total, message[: self.LONGEST])
                self._pipe.send_bytes(PROGRESS + pickle.dumps(report))


def _takes_more(pipe: Connection[bytes, t.Any]) -> bool:
    """Whether the pipe takes a short message without blocking."""
    if not hasattr(select, "poll"):  # Windows, whose pipes cannot be asked
        return True
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    return bool(poll.poll(0))


class _TaskHere:
    """What stands behind ``current_task`` in a worker process."""

    def __init__(self, facts: Facts, channel: Channel) -> None:
        self.id = facts.id
        self.name = facts.name
        self.key = None if facts.key is None else _unpacked_key(facts.key)
        self.attempt = facts.attempt
        self.deadline = (
            None if facts.remaining is None else time.monotonic() + facts.remaining
        )
        self.report = channel.report
        self._channel = channel

    @property
    def cancel_requested(self) -> bool:
        return self._channel.is_asked_to_stop

    def remaining(self) -> float | None:
        return None if self.deadline is None else self.deadline - time.monotonic()


def _unpacked_key(key: bytes) -> t.Hashable | None:
    try:
        return t.cast(t.Hashable, pickle.loads(key))
    except Exception:  # there may be some that only the other process can make
        return None


def reply_to(payload: bytes, source: AppSource | None, channel: Channel) -> bytes:
    """Run the call of a payload; what came of it, for :func:`unpack_reply`."""
    their_parcel, their_facts = pickle.loads(payload)
    parcel, facts = Parcel(*their_parcel), Facts(*their_facts)
    reason = None
    try:
        if channel.is_asked_to_stop:  # while this process started
            raise TaskCancelled(facts.name)
        call, reason = _open_parcel(parcel, source)
    except (AppNotFound, TaskCancelled) as error:
        outcome = Outcome(error=error)
    except BaseException as error:
        reason_why = f"a worker could not load it ({describe(error)})"
        outcome = Outcome(error=CallNotPicklable(facts.name, reason_why))
    else:
        outcome = run(call, _TaskHere(facts, channel))
    return _pack_outcome(facts.name, outcome, reason)


def _open_parcel(parcel: Parcel, source: AppSource | None) -> tuple[Call, str | None]:
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
