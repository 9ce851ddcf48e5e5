"""How values are written for people: times, durations, numbers, states."""

from __future__ import annotations

import json
import typing as t
from datetime import UTC, datetime

from ...verbs.records import TaskRecord

STATES = {
    "running": "Running",
    "waiting": "Waiting",
    "delayed": "Delayed",
    "retrying": "Will retry",
    "failed": "Failed",
    "timed_out": "Timed out",
    "interrupted": "Interrupted",
    "cancelled": "Cancelled",
    "succeeded": "Succeeded",
}
"""The states in the order of interest, with what they are called."""
FAILURES = ("failed", "timed_out", "interrupted")
"""The ends that somebody may want to look at."""
ENDS = (*FAILURES, "cancelled", "succeeded")

_LONGEST = 20_000
"""Of so many characters of one text the page shows the first and the last half."""


def state(name: str) -> str:
    """Return what a state is called."""
    return STATES.get(name, name)


def number(value: float) -> str:
    """Return a number with its thousands apart."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def capped(value: int, limit: int) -> str:
    """Return a count that stops at a limit."""
    return f"{number(limit)}+" if value >= limit else number(value)


def duration(seconds: float | None) -> str:
    """Return a number of seconds in the unit that fits."""
    if seconds is None:
        return "–"
    if seconds < 0.0005:
        return "< 1 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    for length, unit, small, rest in ((60, "min", 1, "s"), (3600, "h", 60, "min")):
        if seconds < 60 * length:
            return (
                f"{seconds // length:.0f} {unit} {seconds % length // small:.0f} {rest}"
            )
    if seconds < 86400:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds // 86400:.0f} d {seconds % 86400 // 3600:.0f} h"


def moment(at: datetime | None) -> str:
    """Return a time in UTC, without the date if that is today's."""
    if at is None:
        return "–"
    at = at.astimezone(UTC)
    today = at.date() == datetime.now(UTC).date()
    return at.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def exact(at: datetime) -> str:
    """Return a time for the attribute ``datetime``."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def shortened(text: str) -> str:
    """Return a text without its middle, if it is very long."""
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    left = number(len(text) - 2 * half)
    return f"{text[:half]}\n… {left} characters left out …\n{text[-half:]}"


def value(found: t.Any) -> str:
    """Return a key or ``meta`` as text."""
    if isinstance(found, str):
        return shortened(found)
    try:
        text = json.dumps(found, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(found)
    return shortened(text)


def took(record: TaskRecord, now: datetime) -> float | None:
    """Return for how long a task runs, or ran; None if it has not begun."""
    if record.started_at is None or record.state in ("retrying", "delayed"):
        return None
    end = record.finished_at or now
    return max(0.0, (end - record.started_at).total_seconds())


FILTERS: dict[str, t.Callable[..., str]] = {
    "state": state,
    "number": number,
    "capped": capped,
    "duration": duration,
    "moment": moment,
    "exact": exact,
    "shortened": shortened,
    "value": value,
}
"""What templates use."""
