"""Cron expressions in a time zone; the only module that knows croniter.

croniter does the arithmetic of the calendar, on times without a zone. What the zone
means for them is decided here, because croniter runs a job at a fixed time twice when
the clock is set back. The rules are those of Vixie's cron and of cronie:

- A *fixed* job, with no ``*`` at the beginning of its minute or its hour, follows the
  clock on the wall. A time that the clock skips is made up for at the moment of the
  change; of a time that comes twice, the first one counts.
- Every other job follows the time that has passed: it runs at each moment at which the
  clock shows a time that it names. What is skipped does not come, and what comes twice
  does so.

Two ticks that fall on the same moment are one.
"""

from __future__ import annotations

import copy
import importlib
import math
import re
import typing as t
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from ..errors import InvalidSchedule, PeriodicNotInstalled

_EPOCH = datetime(1970, 1, 1)
_SECOND = timedelta(seconds=1)
_DAY = 86_400
_FIELDS = "five fields: minute, hour, day of month, month, day of week"
_SAME = re.compile(r"\b(\w+)-\1(/\d+)?\b", re.IGNORECASE)
"""A range of one number, which croniter 7 takes for all numbers."""
_RANDOM = re.compile(r"(?<![a-z])[rh](?![a-z])", re.IGNORECASE)


class Cron:
    """The ticks of a cron expression in a time zone.

    :param expression: five fields, or a name such as ``@daily``.
    :param timezone: the name of a zone, as ``'Europe/Berlin'``, or a ZoneInfo.
    :raises InvalidSchedule: if one of them is not understood.
    :raises PeriodicNotInstalled: an :exc:`ImportError`, if croniter is not installed.
    """

    def __init__(self, expression: str, timezone: str | ZoneInfo = "UTC") -> None:
        self.expression = expression
        self.zone: ZoneInfo = _zone(timezone)
        self._calendar = _calendar(expression)
        self.follows_clock: bool = _is_fixed(expression)

    def after(self, moment: float) -> float:
        """Return the first tick after a moment."""
        second = math.floor(moment)  # ticks are at whole seconds
        return self._fixed(second) if self.follows_clock else self._elapsed(second)

    def _fixed(self, moment: int) -> float:
        shown = self._shown(moment)
        while True:
            shown = self._next_shown(shown)
            if (tick := self._first_moment_of(shown)) > moment:
                return float(tick)

    def _elapsed(self, moment: int) -> float:
        shown = self._shown(moment)
        while True:
            tick = _seconds(self._next_shown(shown)) - self._offset(moment)
            change = self._change(moment, tick)
            if change is None:
                return float(tick)
            # The clock is set before that tick: look on from there, inclusively.
            moment, shown = change, self._shown(change) - _SECOND

    def _next_shown(self, shown: datetime) -> datetime:
        """Return the next time of the expression, as a clock shows it."""
        # A copy, as it notes where it is. A lock might stay locked in a forked child.
        calendar = copy.copy(self._calendar)
        return t.cast(datetime, calendar.get_next(datetime, start_time=shown))

    def _shown(self, moment: int) -> datetime:
        """Return what the clock on the wall shows at a moment."""
        return datetime.fromtimestamp(moment, self.zone).replace(tzinfo=None)

    def _offset(self, moment: int) -> int:
        return _seconds(self._shown(moment)) - moment

    def _first_moment_of(self, shown: datetime) -> int:
        """Return when the clock shows a time first, or skips it."""
        moment = round(shown.replace(tzinfo=self.zone).astimezone(UTC).timestamp())
        if self._shown(moment) == shown:
            return moment
        # Before the clock was set forward, it was behind by what it was set.
        other = shown.replace(tzinfo=self.zone, fold=1).astimezone(UTC).timestamp()
        return self._change(round(other) - 1, moment) or moment

    def _change(self, moment: int, until: int) -> int | None:
        """Return when the clock is set next, after a moment; None if not by then."""
        offset = self._offset(moment)
        while moment < until:
            end = min(moment + _DAY, until)
            if self._offset(end) != offset:
                return self._bisect(moment, end)
            moment = end
        return None

    def _bisect(self, before: int, after: int) -> int:
        offset = self._offset(before)
        while after - before > 1:
            middle = (before + after) // 2
            if self._offset(middle) == offset:
                before = middle
            else:
                after = middle
        return after

    def __repr__(self) -> str:
        return f"Cron({self.expression!r}, {self.zone.key!r})"

    def __str__(self) -> str:
        return f"{self.expression} ({self.zone.key})"


def _seconds(shown: datetime) -> int:
    return round((shown - _EPOCH).total_seconds())


def _zone(timezone: object) -> ZoneInfo:
    if isinstance(timezone, ZoneInfo) and timezone.key:
        return timezone
    try:
        if isinstance(timezone, str):
            return ZoneInfo(timezone)
    except (LookupError, ValueError, OSError):
        pass
    allowed = (
        "the name of a time zone, as 'Europe/Berlin', or a ZoneInfo; on a system"
        " without time zones, run pip install tzdata"
    )
    raise InvalidSchedule("timezone", timezone, allowed)


def _calendar(expression: object) -> t.Any:
    """Return croniter's object of an expression.

    :raises InvalidSchedule: with what croniter says about it.
    """
    if not isinstance(expression, str):
        raise InvalidSchedule("cron", expression, f"a text of {_FIELDS}")
    if not expression.startswith("@") and len(expression.split()) != 5:
        raise InvalidSchedule("cron", expression, _FIELDS)
    if _RANDOM.search(expression):
        allowed = f"{_FIELDS}; R and H would differ from process to process"
        raise InvalidSchedule("cron", expression, allowed)
    croniter = _croniter()
    try:
        calendar = croniter(_SAME.sub(r"\1", expression), _EPOCH)
        calendar.get_next(datetime)
    except (ValueError, LookupError, TypeError) as error:
        allowed = f"{_FIELDS}, which name a date that comes ({error})"
        raise InvalidSchedule("cron", expression, allowed) from None
    return calendar


def _croniter() -> t.Any:
    try:
        return importlib.import_module("croniter").croniter
    except ImportError:
        raise PeriodicNotInstalled from None


def _is_fixed(expression: str) -> bool:
    if expression.startswith("@"):
        return expression.lower() != "@hourly"
    minute, hour, *_ = expression.split()
    return not (minute.startswith("*") or hour.startswith("*"))
