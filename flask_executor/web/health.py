"""If this process is alive, and if it can take requests: for what looks after it."""

from __future__ import annotations

import time
import typing as t
import weakref
from concurrent.futures import Future

from flask import Blueprint, Response

from ..executor import Executor
from ..state import AppState
from ..store_errors import StoreUnavailable
from ..threads import start_thread

_LIMIT = 1.0
"""Seconds within which the store must answer."""


class Health(Blueprint):
    """Two URLs for load balancers, systemd and Kubernetes; they answer with a code.

    - ``/livez``: 200 as long as the process answers at all. It asks nobody: a database
      that is away is no reason to restart a process.
    - ``/readyz``: 200 if the process can take requests, otherwise 503. It cannot after
      :meth:`.Executor.drain` or :meth:`.Executor.shutdown`, if its queue is full
      (``EXECUTOR_MAX_PENDING``), or if the store does not answer within a second.

    Everybody may ask, because the answers say nothing else.

    :param executor: the executor; each request is about the app that it came to.

    .. versionadded:: 2.0
    """

    def __init__(self, executor: Executor) -> None:
        super().__init__(f"{executor.name}executor_health", __name__)
        self._executor = executor
        self._questions: weakref.WeakKeyDictionary[AppState, _Question] = (
            weakref.WeakKeyDictionary()
        )
        self.add_url_rule("/livez", "livez", lambda: _answer(True))
        self.add_url_rule("/readyz", "readyz", self._readyz)

    def _readyz(self) -> Response:
        state = self._executor._state()
        return _answer(self._store_answers(state) and _takes_tasks(state))

    def _store_answers(self, state: AppState) -> bool:
        if state.settings.store is None:
            return True
        made = _Question(weakref.ref(state))
        # Of two requests that make one, both get the first.
        return self._questions.setdefault(state, made).is_answered()


def _answer(is_fine: bool) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(status=200 if is_fine else 503, headers=headers)


def _takes_tasks(state: AppState) -> bool:
    dispatcher = state.ready
    if dispatcher is None:  # it is made at first use
        return True
    limit = dispatcher.settings.max_pending
    is_full = limit is not None and dispatcher.table.count_waiting() >= limit
    return not (dispatcher.table.closed or is_full)


class _Question:
    """A question to a store. There is one at a time, with one thread for all requests.

    A database that does not answer at all keeps this thread, and no more than that.
    """

    def __init__(self, state: weakref.ref[AppState]) -> None:
        self._state = state
        self._asked: tuple[float, Future[bool]] | None = None

    def is_answered(self) -> bool:
        """Return True if the store answers within the limit."""
        asked = self._asked
        if asked is None or asked[1].done():
            # Two requests may ask at once. That is harmless, and a lock might stay
            # locked in a forked child.
            asked = self._asked = time.monotonic(), Future()
            start_thread(self._ask, asked[1], name="executor_health", daemon=True)
        began, answer = asked
        try:
            return answer.result(max(0.0, began + _LIMIT - time.monotonic()))
        except TimeoutError:
            return False

    def _ask(self, answer: Future[bool]) -> None:
        try:
            state = t.cast(AppState, self._state())
            state.dispatcher.node.store.counts(1)
            answer.set_result(True)
        except StoreUnavailable:
            answer.set_result(False)
        except BaseException as error:
            answer.set_exception(error)
