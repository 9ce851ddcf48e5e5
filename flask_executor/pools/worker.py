"""The code that runs in a worker process.

Each message has the number of its call, so messages that a call sends after its end are
ignored. A message is a header, which :func:`split_message` reads, and a pickle.
"""

from __future__ import annotations

import contextlib
import pickle
import select
import signal
import struct
import threading
import time
import typing as t
from multiprocessing.connection import Connection

from ..calls import Call, Outcome, run
from ..current import Progress
from ..errors import AppNotFound, CallNotPicklable, TaskCancelled
from ..options import hint_at_options
from ..payload import (
    CallPayload,
    TaskInfo,
    describe,
    rebuild_call,
    serialize_outcome,
)
from .apps import AppSource

BEGUN, STOP = 0, 1
"""The flags that a worker shares with its process: it has begun the call; the task was
asked to stop."""

REPLY, PROGRESS = 0, 1
"""The kinds of messages."""

_HEADER = struct.Struct(">BQ")

Message = tuple[int, int, bytes]
"""The kind of a message, the number of its call, and its pickle."""


def join_message(kind: int, number: int, body: bytes) -> bytes:
    """Return a message as it is sent."""
    return _HEADER.pack(kind, number) + body


def split_message(message: bytes) -> Message:
    """Return the parts of a message.

    :raises struct.error: if it is not a message.
    """
    kind, number = _HEADER.unpack_from(message)
    return kind, number, message[_HEADER.size :]


class Answers:
    """Sends messages from a worker process, one at a time.

    :param pipe: takes the messages.
    """

    def __init__(self, pipe: Connection[bytes, t.Any]) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._number: int | None = None

    def open(self, number: int) -> None:
        """Accept messages of a call from now on."""
        with self._lock:
            self._number = number

    def report(self, number: int, body: bytes) -> None:
        """Send progress, unless the call is over or the pipe is full.

        :raises OSError: if nobody is there any more to hear it.
        """
        if self._lock.acquire(blocking=False):  # otherwise the reply is being sent
            try:
                if number == self._number and _takes_more(self._pipe):
                    self._pipe.send_bytes(join_message(PROGRESS, number, body))
            finally:
                self._lock.release()

    def close(self, number: int, last: bytes | None, reply: bytes) -> None:
        """Send the last report, if any, and the reply; accept nothing more.

        :raises OSError: if nobody is there any more to hear it.
        """
        with self._lock:
            self._number = None
            if last is not None:
                self._pipe.send_bytes(join_message(PROGRESS, number, last))
            self._pipe.send_bytes(join_message(REPLY, number, reply))


def _takes_more(pipe: Connection[bytes, t.Any]) -> bool:
    """Return True if the pipe takes a short message without blocking."""
    if not hasattr(select, "poll"):  # Windows, whose pipes cannot be asked
        return True
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    return bool(poll.poll(0))


class RemoteTask:
    """The object behind ``current_task`` in a worker process.

    :param flags: shared bytes; see :data:`BEGUN` and :data:`STOP`.
    """

    INTERVAL: t.ClassVar[float] = 0.05
    """Seconds between two reports that are passed on."""
    LONGEST: t.ClassVar[int] = 900
    """How many characters of a message are passed on: a report must go into the pipe
    in one piece."""

    def __init__(
        self, info: TaskInfo, number: int, answers: Answers, flags: t.Any
    ) -> None:
        self.id: str = info.id
        self.name: str = info.name
        self.key: t.Hashable | None = info.rebuild_key()
        self.attempt: int = info.attempt
        self.deadline: float | None = (
            None if info.remaining is None else time.monotonic() + info.remaining
        )
        self._number = number
        self._answers = answers
        self._flags = flags
        self.kwargs: dict[str, t.Any] = {}
        """The keyword arguments of the call."""
        self._next = 0.0
        self._unsent: bytes | None = None

    @property
    def cancel_requested(self) -> bool:
        return bool(self._flags[STOP])

    def remaining(self) -> float | None:
        return None if self.deadline is None else self.deadline - time.monotonic()

    def raised(self, error: BaseException) -> None:
        """Send a warning, which the process that submitted the call logs."""
        hint_at_options(error, self.kwargs)

    def report(self, progress: Progress) -> None:
        """Send a report if it is time; drop it if it cannot be sent."""
        try:
            self._unsent = _serialize_progress(progress, self.LONGEST)
        except Exception:  # a value that does not pickle: it is only a report
            return
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self.INTERVAL
            body, self._unsent = self._unsent, None
            with contextlib.suppress(OSError):  # nobody is there any more to hear it
                self._answers.report(self._number, body)

    def end(self, reply: bytes) -> None:
        """Send the last report, if it was not sent yet, and the reply."""
        body, self._unsent = self._unsent, None
        self._answers.close(self._number, body, reply)


def _serialize_progress(progress: Progress, longest: int) -> bytes:
    done, total, message = progress
    body = pickle.dumps((done, total, str(message)[:longest]))
    if len(body) > 4 * longest:
        raise ValueError("too long for a report")
    return body


def serve(
    calls: Connection[t.Any, bytes],
    replies: Connection[bytes, t.Any],
    flags: t.Any,
    source: AppSource | None,
) -> None:
    """Run calls one after another, until the other end of a pipe closes.

    :param flags: shared bytes; see :data:`BEGUN` and :data:`STOP`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    unblock_signals()
    answers = Answers(replies)
    while True:
        try:
            request = calls.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            serve_one(request, answers, flags, source)
        except OSError:
            return


def unblock_signals() -> None:
    """Unblock all signals in this process, even those of the thread that started it.

    SIGTERM must end it, and processes that tasks start inherit this.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


def serve_one(
    request: bytes, answers: Answers, flags: t.Any, source: AppSource | None
) -> None:
    """Run one call and send its outcome.

    :raises OSError: if nobody is there any more to hear it.
    """
    flags[BEGUN] = 1
    number, call, info = pickle.loads(request)
    answers.open(number)
    task = RemoteTask(TaskInfo(*info), number, answers, flags)
    outcome, without = _run(CallPayload(*call), source, task)
    task.end(pickle.dumps((serialize_outcome(task.name, outcome), without)))


def request_for(number: int, payload: CallPayload, info: TaskInfo) -> bytes:
    """Return the request that :func:`serve_one` takes."""
    return pickle.dumps((number, tuple(payload), tuple(info)))


def _run(
    payload: CallPayload, source: AppSource | None, task: RemoteTask
) -> tuple[Outcome, str | None]:
    """Run a call; return its outcome, and why it ran without contexts, if it did."""
    without = None
    try:
        if task.cancel_requested:  # while this process started
            raise TaskCancelled(task.name)
        call, without = _rebuild(payload, source)
    except (AppNotFound, TaskCancelled) as error:
        return Outcome(error=error), None
    except BaseException as error:
        reason = f"a worker could not load it ({describe(error)})"
        return Outcome(error=CallNotPicklable(task.name, reason)), None
    task.kwargs = call.kwargs
    return run(call, task), without


def _rebuild(payload: CallPayload, source: AppSource | None) -> tuple[Call, str | None]:
    app = without = None
    if payload.snapshot is not None and source is not None:
        app, without = source.app()
    return rebuild_call(payload, app), without
