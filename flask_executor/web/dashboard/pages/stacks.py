"""Threads: where the threads of a process are.

Another process answers at its next heartbeat, some seconds later. A request must not
wait for that, because it holds a worker of the server. So a thread asks, and keeps the
answer for the page that looks again.
"""

from __future__ import annotations

import threading
import time
import typing as t

from flask import current_app
from werkzeug.wrappers import Response

from ....errors import UnknownWorker
from ....store_errors import NoAnswer
from ....threads import start_thread
from ....verbs.records import ThreadStack
from ..rendering import page, refusal
from ..site import Site, name_of

_FRESH = 15.0
"""Seconds for which an answer is shown before the process is asked again."""
_QUICK = 0.5
"""Seconds that a request waits: this process answers in less."""

_Key = tuple[int, str]


class _Question(t.NamedTuple):
    asked: float
    done: threading.Event
    answer: list[t.Any]
    """Nothing, or what was answered: a list of stacks, or an exception."""


_questions: dict[_Key, _Question] = {}


def view(site: Site, id: str) -> Response:
    """Show the threads of a process, or that it was asked."""
    named = next((name_of(one) for one in site.workers if one.id == id), None)
    gone = "There is no such process, or it has ended."
    if named is None:
        return refusal(site, 404, gone)
    question = _ask(site.executor, id)
    question.done.wait(_QUICK)
    found = question.answer[0] if question.answer else None
    if isinstance(found, UnknownWorker):
        return refusal(site, 404, gone)
    threads: list[ThreadStack] | None = found if isinstance(found, list) else None
    return page(site, "stacks.html", name=named, threads=threads)


def _ask(executor: t.Any, worker: str) -> _Question:
    """Return the last question to a process, if it is fresh, or ask it."""
    key, now = (id(executor), worker), time.monotonic()
    for old, one in _questions.copy().items():
        if one.asked < now - _FRESH:
            _questions.pop(old, None)
    if (found := _questions.get(key)) is not None:
        return found
    question = _questions.setdefault(key, _Question(now, threading.Event(), []))
    app = t.cast(t.Any, current_app)._get_current_object()
    call = app, executor, worker, question
    start_thread(_answer, *call, name="executor_dashboard", daemon=True)
    return question


def _answer(app: t.Any, executor: t.Any, worker: str, question: _Question) -> None:
    """Wait for the answer; on a thread of its own."""
    try:
        with app.app_context():
            question.answer.append(executor.stacks(worker))
    except UnknownWorker as error:
        question.answer.append(error)
    except (NoAnswer, ConnectionError):
        pass  # the page that looks again asks again
    finally:
        question.done.set()
