"""Worker processes, as seen by the process that starts them."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import multiprocessing.process
import os
import pickle
import select
import signal
import sys
import threading
import typing as t
import weakref
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray

from ..attempt import Attempt
from ..calls import Call, Outcome
from ..current import Progress
from ..errors import TaskCancelled, WorkerLost
from ..payload import MainModule, TaskInfo, rebuild_outcome
from .apps import AppSource
from .gevent import blocking_sockets
from .worker import BEGUN, PROGRESS, STOP, request_for, serve, split_message

_STARTS = 3
"""How many workers may die before they begin a call until it is given up."""

starting: t.Any = threading.RLock()
"""The lock for starting processes and closing pipes: multiprocessing keeps its
children in a set that only one thread may change, and a process that is forked at such
a moment would inherit a pipe that is half made."""

Answer = tuple[Outcome, str | None]
"""The outcome of a call, and why it ran without contexts, if it did."""


class WorkerHandle:
    """One worker process and the near ends of its pipes; replaced when it dies.

    It belongs to one thread. Only :meth:`ask_to_stop` is called on others.
    """

    def __init__(
        self,
        mp_context: BaseContext,
        name: str,
        source: AppSource | None,
        main: MainModule,
        processes: dict[int, BaseProcess],
    ) -> None:
        self._mp_context = mp_context
        self._name = name
        self._source = source
        self._main = main
        self._processes = processes
        self._process: BaseProcess | None = None
        self._flags: t.Any = None
        self._attempt: Attempt | None = None
        self._asking = threading.Lock()
        self._numbers = itertools.count()

    def run(self, call: Call, attempt: Attempt) -> Answer:
        """Run a call in the process.

        If a process has died before it began the call, the next process gets the call.
        """
        lost: WorkerLost | None = None
        for _ in range(_STARTS):
            try:
                reply = self._ask(call, attempt)
            except Exception as error:  # also if no process could be started
                begun = self._process is not None and self._flags[BEGUN]
                lost = self._bury(attempt.name)
                # A traceback would keep these frames, and so this handle.
                lost.__cause__ = error.with_traceback(None)
                if begun:
                    break
            else:
                if reply is None:
                    return Outcome(error=TaskCancelled(attempt.name)), None
                outcome, without = pickle.loads(reply)
                return rebuild_outcome(attempt.name, outcome), without
        return Outcome(error=lost), None

    def retire(self) -> None:
        """Release the process; it runs no task any more."""
        self._bury_quietly()

    def rest(self) -> None:
        """Forget the call of the attempt."""
        with self._asking:
            self._attempt = None

    def ask_to_stop(self, attempt: Attempt) -> None:
        """Tell the code of an attempt that it must stop, if it still runs here."""
        with self._asking:
            if self._attempt is attempt:
                self._flags[STOP] = 1

    def _ask(self, call: Call, attempt: Attempt) -> bytes | None:
        """Return the reply of the worker; None if the call must not begin any more."""
        if self._process is None or not self._process.is_alive():
            self._start()
        with self._asking:
            if attempt.cancel_requested:  # for example, while the process was started
                return None
            self._attempt = attempt
            self._flags[BEGUN] = self._flags[STOP] = 0
        number = next(self._numbers)
        self._send(request_for(number, call.payload, TaskInfo.of(attempt)))
        return self._reply(number, attempt)

    def _reply(self, number: int, attempt: Attempt) -> bytes:
        """Wait for the reply, and pass on reports until then.

        :raises Exception: if a message cannot be read; the process is lost then.
        """
        while True:
            kind, of_call, body = split_message(self._receive())
            if of_call != number:
                raise OSError(f"The worker answered call {of_call}, not {number}.")
            if kind != PROGRESS:
                return body
            attempt.report(Progress(*pickle.loads(body)))

    def _send(self, request: bytes) -> None:
        self._calls.send_bytes(request)

    def _receive(self) -> bytes:
        if not self._listener.wait():
            raise EOFError
        return self._replies.recv_bytes()

    def _start(self) -> None:
        self._main.recall()
        self._launch()
        if (
            self._main.is_forgotten
        ):  # the script has just ended, and the worker does not have its file
            self._main.recall()
            self._launch()
        process = t.cast(BaseProcess, self._process)
        self._listener = _Listener(self._replies, process.sentinel)

    def _launch(self) -> None:
        self._bury_quietly()
        # Two pipes: a duplex pipe is a socket, which gevent makes non-blocking.
        with starting, child_signal_unblocked(), blocking_sockets():
            their_calls, self._calls = self._mp_context.Pipe(duplex=False)
            self._replies, their_replies = self._mp_context.Pipe(duplex=False)
            self._flags = RawArray("b", 2)
            process = self._mp_context.Process(  # type: ignore[attr-defined]
                target=serve,
                args=(their_calls, their_replies, self._flags, self._source),
                name=self._name,
            )
            near_ends.update((self._calls, self._replies))
            workers.add(process)
            process.start()
            their_calls.close()
            their_replies.close()
        self._process = process
        self._processes[process.pid] = process

    def _bury(self, name: str) -> WorkerLost:
        """Release a process that is lost, and return the error of its call."""
        process = self._process
        if process is None:
            return WorkerLost(name, None, None)
        pid = process.pid
        self._bury_quietly()
        return WorkerLost(name, pid, process.exitcode)

    def _bury_quietly(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            close_all(self._calls, self._replies)
            process.join()
            self._processes.pop(t.cast(int, process.pid), None)


class _Listener:
    """Waits until a worker has sent something, or has ended.

    Reading its pipe is not enough: a process that it has forked may keep the pipe open.
    And under gevent other greenlets run during this wait, but not during a read.
    """

    def __init__(self, pipe: Connection[bytes, t.Any], sentinel: int) -> None:
        self._pipe = pipe
        self._sentinel = sentinel
        # Made once: wait() makes one for each call, which takes longer than the wait.
        self._poll = select.poll() if hasattr(select, "poll") else None
        if self._poll is not None:
            self._poll.register(pipe.fileno(), select.POLLIN)
            self._poll.register(sentinel, select.POLLIN)

    def wait(self) -> bool:
        """Wait; return True if there is something to read."""
        if self._poll is None:  # Windows
            wait([self._pipe, self._sentinel])
            return self._pipe.poll(0)
        ready = self._poll.poll()
        return any(number == self._pipe.fileno() for number, _ in ready)


def close_all(*pipes: Connection[t.Any, t.Any]) -> None:
    """Close pipes at a moment when no worker is being forked.

    In that worker they would be half closed, with the number of a newer pipe.
    """
    with starting:
        for pipe in pipes:
            pipe.close()


@contextlib.contextmanager
def child_signal_unblocked() -> t.Iterator[None]:
    """Unblock SIGCHLD on this thread, and so in a fork server that starts here.

    Threads of some servers block all signals, uWSGI's among them. A fork server with
    SIGCHLD blocked never learns that a worker has ended. Other signals stay blocked:
    their handlers are meant for other threads.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    try:
        yield
    finally:
        # Python's resource tracker, which starts here, has unblocked others.
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


near_ends: weakref.WeakSet[Connection[t.Any, t.Any]] = weakref.WeakSet()
"""The near ends of all pipes to workers."""
workers: weakref.WeakSet[BaseProcess] = weakref.WeakSet()
"""All worker processes."""


def _start_anew_in_child() -> None:
    global starting
    starting = threading.RLock()  # the old one may be locked for ever
    # A forked worker inherits its siblings' pipes. With them open, no sibling
    # would read the end of its own pipe.
    for pipe in list(near_ends):
        with contextlib.suppress(OSError):  # a thread was about to close it
            pipe.close()
    near_ends.clear()
    _disown_workers()


def _disown_workers() -> None:
    """Tell multiprocessing that the workers are no children of this process.

    The fork server is none, either. A wait for them would never end.
    """
    known: set[BaseProcess] = getattr(multiprocessing.process, "_children", set())
    known.difference_update(workers)
    workers.clear()
    module = sys.modules.get("multiprocessing.forkserver")
    server: t.Any = getattr(module, "_forkserver", None)
    if getattr(server, "_forkserver_pid", None) is not None:
        os.close(server._forkserver_alive_fd)
        type(server).__init__(server)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew_in_child)
