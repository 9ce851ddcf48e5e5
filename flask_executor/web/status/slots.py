"""How many requests wait at once: each of them holds a thread of the server."""

from __future__ import annotations

import threading
import typing as t
import weakref

from ...executor import Executor


class Slots:
    """Counts the requests of one executor that wait in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0

    def take(self, most: int) -> Slot | None:
        """Return a slot, or None if so many are taken."""
        with self._lock:
            if self._taken >= most:
                return None
            self._taken += 1
        return Slot(self)

    def give_back(self) -> None:
        """Make room for another request."""
        with self._lock:
            self._taken -= 1


class Slot:
    """The right to wait; given back once, however often it is released."""

    def __init__(self, slots: Slots) -> None:
        self._slots: Slots | None = slots

    def release(self) -> None:
        """Give it back."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.give_back()


_slots: weakref.WeakKeyDictionary[Executor, Slots] = weakref.WeakKeyDictionary()


def take_slot(executor: Executor, environ: t.Mapping[str, t.Any]) -> Slot | None:
    """Return a slot of the executor; None if this request must not wait.

    Where ``wsgi.multithread`` is False nobody else is served meanwhile.
    """
    if not environ.get("wsgi.multithread"):
        return None
    slots = _slots.setdefault(executor, Slots())
    return slots.take(executor._state().settings.events_max)
