"""Noticing that another process has changed something.

**SQLite** counts the commits of other connections: ``PRAGMA data_version`` is asked
every 5 ms, and less often when nothing happens.

**PostgreSQL** notifies. ``NOTIFY`` within a transaction would let all commits of all
processes wait for each other. So it is sent afterwards, on a connection of its own, one
for many commits. It may be lost with that connection, and so may a ``LISTEN``: both are
renewed, and once a second we behave as if a notification had come.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
import typing as t

from ...threads import start_thread
from .database import PATIENCE, Database
from .forks import Uses

Changed = t.Callable[[], object]

_SHORTEST, _LONGEST = 0.005, 0.25
"""Seconds between two looks at an SQLite file."""
_AWAKE = 2.0
"""Seconds after a change for which the looks stay frequent."""
_BACKSTOP = 1.0
"""Seconds after which PostgreSQL counts as changed without a notification."""
_BETWEEN = 0.005
"""Seconds between two notifications that we send: each one is a transaction."""
_REST = 0.05
"""Seconds between two calls of the callbacks while one change follows another. In an
SQLite file we cannot tell our own commits from those of others."""
_AGAIN = 0.25
"""Seconds before the next attempt to connect."""
_IDLE = 5.0
"""Seconds for which the thread stays alive if nobody watches."""


class Changes:
    """One thread that tells and is told of changes.

    It ends when nobody watches, and nothing was to tell for some seconds.

    :param database: where they happen.
    :param channel: the name of the notifications.
    :param name: the name of the thread.
    """

    def __init__(self, database: Database, channel: str, name: str) -> None:
        self._database = database
        self._channel = channel
        self._name = name
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._callbacks: list[Changed] = []
        self._thread: threading.Thread | None = None
        self._signal: tuple[socket.socket, socket.socket] | None = None
        self._must_tell = False
        self._used = 0.0
        self._closed = False

    def watch(self, changed: Changed) -> t.Callable[[], None]:
        """Call a function after changes, on the thread; return what ends that."""
        self._start(changed)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self._callbacks.remove(changed)
            self._used = time.monotonic()

        return end

    def announce(self) -> None:
        """Tell other processes of a change that was committed; does not wait."""
        if self._database.dialect == "postgresql":
            self._must_tell = True
            self._start()
            self._wake()

    def close(self) -> None:
        """End the thread."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._closed, thread = True, self._thread
        if thread is not None and thread is not threading.current_thread():
            self._wake()
            thread.join(PATIENCE)  # it may stand in a query that gets no answer

    def _start(self, changed: Changed | None = None) -> None:
        if self._pid != os.getpid():  # all of it is the parent's
            self._forget()
        with self._lock:
            self._used = time.monotonic()
            if changed is not None:
                self._callbacks.append(changed)
            if self._thread is None and not self._closed:
                self._signal = socket.socketpair()
                for end in self._signal:
                    end.setblocking(False)
                is_sqlite = self._database.dialect == "sqlite"
                run = self._poll if is_sqlite else self._listen
                self._thread = start_thread(run, name=self._name, daemon=True)

    def _wake(self) -> None:
        if self._signal is not None:
            with contextlib.suppress(BlockingIOError, OSError):
                self._signal[1].send(b"x")

    def _changed(self) -> None:
        for changed in [*self._callbacks]:
            with contextlib.suppress(Exception):
                changed()

    def _rest(self) -> None:
        """Leave time for what the callbacks have begun, unless we must tell others."""
        until = time.monotonic() + _REST
        while not (self._closed or self._must_tell):
            left = until - time.monotonic()
            if left <= 0:
                break
            self._pause(left)

    def _pause(self, seconds: float, *sockets: t.Any) -> bool:
        """Wait for a socket, a change of our own, or the end of a time.

        :return: True if one of the sockets can be read.
        """
        assert self._signal is not None
        own = self._signal[0]
        ready, _, _ = select.select([own, *sockets], [], [], seconds)
        if own in ready:
            with contextlib.suppress(BlockingIOError):
                own.recv(4096)
        return any(one in ready for one in sockets)

    @property
    def _is_wanted(self) -> bool:
        if self._closed:
            return False
        if self._callbacks or self._must_tell:
            return True
        return time.monotonic() - self._used < _IDLE

    def _goes_on(self) -> bool:
        with self._lock:
            wanted = self._is_wanted
            if not wanted and not self._closed:
                self._thread = None  # under the lock: who needs one starts another
            return wanted

    def _until_closed(self, connected: t.Callable[[], object]) -> None:
        """Run a function that loses its connection at times, while it is wanted."""
        ours = self._signal or ()
        while self._goes_on():
            with contextlib.suppress(Exception):  # the database is away
                connected()
            if self._is_wanted:
                self._pause(_AGAIN)
        for end in ours:
            end.close()

    def _poll(self) -> None:
        self._until_closed(self._poll_connected)

    def _poll_connected(self) -> None:
        uses = t.cast(Uses, self._database.uses)
        with uses.use():
            pooled = self._database.engine.raw_connection()
            connection = t.cast(t.Any, pooled.dbapi_connection)
            pooled.detach()
        with uses.closing(connection):
            seen, pause, since = None, _SHORTEST, time.monotonic()
            while self._is_wanted:
                with uses.use():
                    look = connection.execute("PRAGMA data_version")
                    [version] = look.fetchone()
                if version != seen:
                    seen, pause, since = version, _SHORTEST, time.monotonic()
                    self._changed()
                    self._rest()
                    continue
                if time.monotonic() - since > _AWAKE:
                    pause = min(pause * 1.1, _LONGEST)
                self._pause(pause)

    def _listen(self) -> None:
        self._until_closed(self._listen_connected)

    def _listen_connected(self) -> None:
        pooled = self._database.engine.raw_connection()
        connection = t.cast(t.Any, pooled.dbapi_connection)
        pooled.detach()
        try:
            connection.autocommit = True
            # A notification is not worth the wait for the disk.
            connection.execute("SET synchronous_commit = off")
            heard: list[int] = []
            connection.add_notify_handler(lambda notify: heard.append(notify.pid))
            connection.execute(f'LISTEN "{self._channel}"')
            self._changed()  # what came while nobody listened
            while self._is_wanted:
                self._listen_once(connection, heard)
        finally:
            connection.close()

    def _listen_once(self, connection: t.Any, heard: list[int]) -> None:
        if self._must_tell:
            self._must_tell = False
            connection.execute(f'NOTIFY "{self._channel}"')
            self._pause(_BETWEEN)
        elif self._pause(_BACKSTOP, connection):
            connection.pgconn.consume_input()
            while (notify := connection.pgconn.notifies()) is not None:
                heard.append(notify.be_pid)
        elif not self._must_tell:
            self._changed()
        # Those that we have sent ourselves come back.
        others = {*heard} - {connection.info.backend_pid}
        heard.clear()
        if others:
            self._changed()
            self._rest()
