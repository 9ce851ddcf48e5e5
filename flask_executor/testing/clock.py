"""A clock that stands still until a test moves it."""

from __future__ import annotations

import time
import weakref
from datetime import UTC, datetime, timedelta

from ..dispatch import Clock, Timer

_HAIR = 1e-5
"""How many seconds early something may happen: sums of seconds are not exact."""


class ManualClock(Clock):
    """A clock that stands still until it is moved.

    Delays, pauses before retries, and timeouts of tasks use it; ``time.sleep`` and the
    timeout of a ``result()`` do not. It begins with the time of the machine, or that
    of freezegun or time-machine. Move it from one thread at a time.
    """

    is_manual = True

    def __init__(self) -> None:
        self._began = time.time()
        self._at_first = self._monotonic = time.monotonic()
        self._timers: list[weakref.ref[Timer]] = []

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._monotonic

    def time(self) -> float:
        """Return seconds since the epoch."""
        return self._began + (self._monotonic - self._at_first)

    def now(self) -> datetime:
        """Return the current time of this clock, in UTC."""
        return datetime.fromtimestamp(self.time(), UTC)

    def advance(self, by: float | timedelta) -> None:
        """Move the clock forward.

        What becomes due meanwhile happens in order, each at its time, on this thread.

        :param by: seconds, or a timedelta.
        :raises ValueError: if it is negative.
        """
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        if seconds < 0:
            raise ValueError(f"advance({by!r}): a clock does not go back.")
        goal = self._monotonic + seconds
        while (first := self._first_due()) is not None and first[0] <= goal + _HAIR:
            self._move_to(first[0])
            first[2].run_due()
        self._move_to(goal)

    def advance_to(self, moment: datetime) -> None:
        """Move the clock forward to a moment, such as the ``run_at`` of a task.

        :param moment: a datetime with a time zone.
        :raises ValueError: if it is in the past, or has no time zone.
        """
        if moment.utcoffset() is None:
            raise ValueError(f"advance_to({moment!r}): the time zone is missing.")
        # Not a difference of datetimes, because they only have whole microseconds.
        self.advance(moment.timestamp() - self.time())

    def drives(self, timer: Timer) -> bool:
        """Return True: this clock calls :meth:`.Timer.run_due` itself."""
        self._timers.append(weakref.ref(timer))
        return True

    def _first_due(self) -> tuple[float, int, Timer] | None:
        dues = [
            (due, number, timer)
            for number, known in enumerate(self._timers)
            if (timer := known()) is not None and (due := timer.next_due()) is not None
        ]
        return min(dues, default=None)

    def _move_to(self, moment: float) -> None:
        # What happened meanwhile may have moved it further.
        self._monotonic = max(self._monotonic, moment)

    def __repr__(self) -> str:
        return f"<ManualClock {self.now():%Y-%m-%d %H:%M:%S.%f}>"
