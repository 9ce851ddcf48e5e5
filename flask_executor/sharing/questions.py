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
        return [_stack(one) for one in self._ask(worker, "stacks", timeout) or ()]

    def drain(self, worker: str, timeout: float | None = None) -> bool:
        """Let a process end that only runs saved tasks, as SIGTERM does.

        :return: False if it serves requests, too, or is a script; nothing happens then.
        :raises UnknownWorker: if it is not alive.
        :raises NoAnswer: if it does not answer in time.
        """
        return bool(self._ask(worker, "drain", timeout))

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
            answer = _loaded(None if found is None else found.answer)
            if answer.get("what") == what:  # maybe the last that it has done
                return answer.get("value")
            if found is None or found.state != "alive":
                raise UnknownWorker(worker)
            asks = found.ask is None
            if time.monotonic() >= deadline:
                raise NoAnswer(f"{found.host}:{found.pid}", what, seconds)
            time.sleep(_LOOK)

    def answer(self, me: str, what: str) -> None:
        """Answer a question; one that this code does not know is answered with nothing.

        :param me: the id of this worker.
        """
        node, drain = self._node, None
        value: t.Any = None
        if what == "stacks":
            found = own_stacks(node.dispatcher)[:_MOST]
            value = [dataclasses.asdict(one) for one in found]
        elif what == "drain":
            value, drain = node.drain is not None, node.drain
        node.store.answer(me, json.dumps({"what": what, "value": value}))
        if drain is not None:  # after the answer: its lease ends with it
            drain()


def _loaded(answer: str | None) -> dict[str, t.Any]:
    return {} if answer is None else t.cast("dict[str, t.Any]", json.loads(answer))


def _stack(given: dict[str, t.Any]) -> ThreadStack:
    # Newer code may have more to tell.
    names = [field.name for field in dataclasses.fields(ThreadStack)]
    return ThreadStack(**{name: given[name] for name in names if name in given})
