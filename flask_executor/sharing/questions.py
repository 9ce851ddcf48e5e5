"""Asking another process through the store, and answering.

A question is written into the row of a worker, which finds it when it renews its lease,
and writes the answer there. It answers on the thread of its lease, so that it does also
if all its workers hang.

There is room for one question. Who finds that of somebody else there waits until that
is answered, and asks again. Two who ask the same may both read the one answer.
"""

from __future__ import annotations

import dataclasses
import json
import time
import typing as t

from ..errors import UnknownWorker
from ..store_errors import NoAnswer
from ..stores.records import WorkerRecord
from ..verbs.records import ThreadStack
from ..verbs.stacks import own_stacks

_LOOK = 0.1
"""Seconds between two looks for the answer."""
_MOST = 200
"""Of how many threads a process tells."""


class Questions:
    """Questions to other processes, and the answers of this one.

    :param node: has the store and the dispatcher.
    """

    def __init__(self, node: t.Any) -> None:
        self._node = node

    def stacks(self, worker: str, timeout: float | None) -> list[ThreadStack]:
        """Return what the threads of another process do.

        :raises UnknownWorker: if it is not alive.
        :raises NoAnswer: if it does not answer in time.
        """
        return [_stack(one) for one in self._ask(worker, "stacks", timeout)]

    def _ask(self, worker: str, what: str, timeout: float | None) -> t.Any:
        """Return what a process answers; it is asked again if that was lost."""
        lease: float = self._node.settings.store_lease
        seconds = lease / 3 if timeout is None else timeout
        deadline = time.monotonic() + seconds
        asks = True
        while True:
            if asks and not self._node.store.ask(worker, what):
                raise UnknownWorker(worker)
            found: WorkerRecord | None = self._node.store.worker(worker)
            if found is None or found.state != "alive":
                raise UnknownWorker(worker)
            answer = _loaded(found.answer)
            if answer.get("what") == what:
                return answer.get("value") or []
            asks = found.ask is None
            if time.monotonic() >= deadline:
                raise NoAnswer(f"{found.host}:{found.pid}", what, seconds)
            time.sleep(_LOOK)

    def answer(self, me: str, what: str) -> None:
        """Answer a question; one that this code does not know is answered with nothing.

        :param me: the id of this worker.
        """
        value = None
        if what == "stacks":
            found = own_stacks(self._node.dispatcher)[:_MOST]
            value = [dataclasses.asdict(one) for one in found]
        self._node.store.answer(me, json.dumps({"what": what, "value": value}))


def _loaded(answer: str | None) -> dict[str, t.Any]:
    return {} if answer is None else t.cast("dict[str, t.Any]", json.loads(answer))


def _stack(given: dict[str, t.Any]) -> ThreadStack:
    # Newer code may have more to tell.
    names = [field.name for field in dataclasses.fields(ThreadStack)]
    return ThreadStack(**{name: given[name] for name in names if name in given})
