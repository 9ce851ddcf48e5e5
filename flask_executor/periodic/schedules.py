"""When periodic jobs are due: pure functions from a schedule to its ticks.

A *tick* is a moment at which a job is due, in seconds since the epoch. Every process
that has the same schedule computes the same ticks.
"""

from __future__ import annotations

import math
import typing as t
from collections import deque
from dataclasses import dataclass
from datetime import timedelta

from ..checks import is_number
from ..errors import InvalidSchedule

MOST = 1000
"""How many missed ticks are made up for at most."""
GRACE = 60.0
"""How many seconds late a tick may be noticed and does not count as missed."""

Missed = t.Literal["latest", "all", "skip"]


class Schedule(t.Protocol):
    """When a job is due."""

    @property
    def follows_clock(self) -> bool:
        """True if it names times of day: a clock set back does not repeat them."""

    def after(self, moment: float) -> float:
        """Return the first tick after a moment."""


@dataclass(frozen=True, slots=True)
class Every:
    """A tick every so many seconds, counted from 1970 on in UTC.

    So all processes have the same ticks, and a process that starts anew does not start
    counting anew.
    """

    seconds: float
    follows_clock: t.ClassVar[bool] = False

    @classmethod
    def of(cls, interval: object) -> Every:
        """Return the schedule of an interval, as people write it.

        :raises InvalidSchedule: if it is not above 0.
        """
        seconds = interval
        if isinstance(interval, timedelta):
            seconds = interval.total_seconds()
        if not (is_number(seconds) and 0 < t.cast(float, seconds) < math.inf):
            allowed = "a number of seconds above 0, or a timedelta"
            raise InvalidSchedule("every", interval, allowed)
        return cls(float(t.cast(float, seconds)))

    def after(self, moment: float) -> float:
        """Return the first tick after a moment."""
        number = math.floor(moment / self.seconds) + 1
        while number * self.seconds <= moment:  # the quotient was rounded
            number += 1
        return number * self.seconds

    def __str__(self) -> str:
        return f"every {self.seconds:g} s"


def due_ticks(
    schedule: Schedule, first: float, now: float, missed: Missed
) -> list[float]:
    """Return the ticks that a job is to run for now.

    :param first: the first tick that is due, not later than now.
    :param missed: what to do if several are due, or if one is late: run for the
        ``latest`` of them, for ``all``, or ``skip`` those that are late.
    """
    if missed == "all":
        return _newest(schedule, first, now)
    last = latest_tick(schedule, first, now)
    return [] if missed == "skip" and now - last > GRACE else [last]


def _newest(schedule: Schedule, first: float, now: float) -> list[float]:
    ticks: deque[float] = deque(maxlen=MOST)
    while first <= now:
        ticks.append(first)
        first = schedule.after(first)
    return [*ticks]


def latest_tick(schedule: Schedule, first: float, now: float) -> float:
    """Return the last tick up to now.

    It looks back from now, further each time: after a long sleep of the machine there
    may be many ticks since the first.

    :param first: a tick that is not later.
    """
    window = GRACE
    while now - window > first:
        if (tick := schedule.after(now - window)) <= now:
            first = tick
            break
        window *= 8
    while (tick := schedule.after(first)) <= now:
        first = tick
    return first
