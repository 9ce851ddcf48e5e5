"""The ticks of periodic jobs, each once among all processes.

The row of a tick is inserted in one transaction with that of its task. So whatever is
killed, there are both or neither.
"""

from __future__ import annotations

import threading
import typing as t

from ..stores.records import Schedule

_PREFIX = "periodic:"
"""It keeps a periodic job that is paused apart from a job whose tasks are."""

Tick = tuple[str, float]


class TickTaken(Exception):
    """Another process has submitted the task of a tick."""


class _Current(threading.local):
    tick: Tick | None = None


class StoreTicks:
    """What all processes know of the ticks of an executor; see :class:`.Ticks`.

    :param node: reads and writes the store.
    """

    is_shared: bool = True

    def __init__(self, node: t.Any) -> None:
        self._node = node
        self._current = _Current()
        self._known: dict[str, Schedule] = {}
        self._specs: dict[str, str] = {}
        self._begun: list[t.Callable[[], object]] = []
        self.is_ready: bool = False
        """True when the last ticks are known."""

    # The runner of this process

    @property
    def begun(self) -> bool:
        """True if this process runs periodic jobs at their times."""
        return bool(self._specs) and not self._node.dispatcher.table.closed

    def begin(self, specs: t.Mapping[str, str], then: t.Callable[[], object]) -> None:
        """Note which jobs there are, and call a function when their ticks are known.

        It does not wait: a view may have the only lock of an SQLite file.
        """
        self._specs = {_PREFIX + name: spec for name, spec in specs.items()}
        self._begun.append(then)
        self.is_ready = False
        self._node.feeding.start()
        self._node.wake()

    def update(self) -> None:
        """Write and read what has changed; called on the thread that feeds.

        :raises StoreUnavailable: if the database is away.
        """
        if not self._specs:
            return
        self.refresh()
        for row, spec in self._specs.items() if not self.is_ready else ():
            known = self._known.get(row)
            if known is None or known.spec != spec:
                self._node.store.schedule(row, spec, None, None)
        self.is_ready = True
        begun, self._begun = self._begun, []
        for then in begun:
            then()

    def submit(self, name: str, tick: float, submit: t.Callable[[], object]) -> bool:
        """Submit the task of a tick, unless another process has, or it is paused.

        :raises StoreUnavailable: if the database is away; nobody has the tick then.
        """
        self.refresh()
        if self.is_paused(name):
            return False
        self._current.tick = _PREFIX + name, tick
        try:
            submit()
        except TickTaken:
            return False
        finally:
            self._current.tick = None
        return True

    # What is known

    def refresh(self) -> None:
        """Read what other processes have done.

        :raises StoreUnavailable: if the database is away.
        """
        self._known = {row.job: row for row in self._node.store.schedules()}

    def last(self, name: str) -> float | None:
        """Return the last tick of any process, or None."""
        known = self._known.get(_PREFIX + name)
        return None if known is None else known.last

    def is_paused(self, name: str) -> bool:
        """Return True if ticks of that job are left out, by all processes."""
        known = self._known.get(_PREFIX + name)
        return known is not None and known.paused

    def pause(self, name: str, paused: bool) -> None:
        """Leave out the ticks of a job in all processes, or do so no longer."""
        store, row = self._node.store, _PREFIX + name
        if paused:
            store.pause(row)
        else:
            store.resume(row)
            # A process that starts must not make up for what was left out.
            store.tick(row, self._node.dispatcher._time(), None)
        self.refresh()

    # What accepts tasks

    @property
    def has_current(self) -> bool:
        """True while this thread submits the task of a tick."""
        return self._current.tick is not None

    def take(self) -> Tick | None:
        """Return the tick whose task is submitted now, once."""
        tick, self._current.tick = self._current.tick, None
        return tick

    def insert(self, tick: Tick, new: t.Any) -> t.Any:
        """Insert the task of a tick.

        :raises TickTaken: if another process was first.
        """
        outcome = self._node.store.tick(*tick, new)
        if outcome is None:
            raise TickTaken(tick)
        return outcome
