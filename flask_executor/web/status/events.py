"""Server-sent events: one for each change, until the task ends or the time is over."""

from __future__ import annotations

import time
import typing as t
from concurrent.futures import Future, wait

from flask import Response

from .answers import json_of, made, tag_of
from .shown import Shown

STEP = 0.5
"""Seconds after which a stream looks for news of a task that has not ended."""
PULSE = 10.0
"""Seconds of silence after which a comment is sent. Nothing else shows that a client
has left: only who writes is told."""


_KIND = "text/event-stream"


class Event(t.NamedTuple):
    """A status as an event."""

    text: str
    id: str
    is_last: bool


Look = t.Callable[[], Event | None]


def event_of(shown: Shown) -> Event:
    """Return a status as an event; the client comes back as late as a poll would."""
    data = json_of(shown)
    tag = tag_of(data)
    pause = 1000 * (shown.retry_after or 1)
    return Event(f"retry: {pause}\nid: {tag}\ndata: {data}\n\n", tag, shown.done)


def over() -> Response:
    """Return 204, which tells an EventSource that it need not come back."""
    return made("", 204, _KIND, "events", {})


def come_back(seconds: str) -> Response:
    """Return no event: an EventSource would take an error as the end."""
    return events(f"retry: {seconds}000\n: not available, please come back\n\n")


def events(body: t.Iterable[str] | str) -> Response:
    """Return a stream of events."""
    # nginx would collect them.
    return made(body, 200, _KIND, "events", {"X-Accel-Buffering": "no"})


def stream(
    event: Event | None, look: Look, future: Future[t.Any] | None, seconds: float
) -> t.Iterator[str]:
    """Yield events until the task has ended, or for so many seconds.

    :param event: the status as it was when the request came.
    :param look: returns it as it is now; None ends the stream, and the client comes
        back.
    :param future: ends with the task.
    """
    end = time.monotonic() + seconds
    last, heard = "", 0.0
    while event is not None:
        now = time.monotonic()
        if event.id != last:
            yield event.text
            last, heard = event.id, now
        elif now - heard >= PULSE:
            yield ":\n\n"
            heard = now
        if event.is_last or now >= end:
            return
        pause(future, min(STEP, end - now))
        event = look()


def pause(future: Future[t.Any] | None, seconds: float) -> None:
    """Return when the task has ended, and after so many seconds at the latest."""
    if future is None:
        time.sleep(seconds)
    else:
        wait([future], seconds)
