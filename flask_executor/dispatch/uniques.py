"""The option ``unique``: of the tasks with the same value that have not ended, one.

A value belongs to one executor, app and process, whatever function or job has it. Only
tasks that have such a value come here, so it costs the others nothing.

The task itself says if it still holds its value: a task that has ended does not, even
if nobody has removed it here yet. So a receiver, a callback or a thread that sees the
end can submit the next one. The callback below only keeps this from growing.
"""

from __future__ import annotations

import threading
import typing as t
from concurrent.futures import Future
from functools import partial

from ..calls import Call
from ..errors import NotUnique
from ..futures import TaskFuture
from ..options import Options
from ..task import Task
from .endings import Endings
from .table import TaskTable
from .verdict import CANCELLED

Held = TaskFuture[t.Any]
Register = t.Callable[[Held, Call, Options], Task]


class Uniques:
    """The values that are taken, each with the future of the task that holds it.

    :param table: knows which tasks wait.
    :param endings: cancels a task that is replaced.
    """

    def __init__(self, table: TaskTable, endings: Endings) -> None:
        self._table = table
        self._endings = endings
        # Reentrant: the garbage collector may end a task on a thread that is in here.
        self._lock = threading.RLock()
        self._held: dict[t.Hashable, Held] = {}

    def register(
        self, register: Register, future: Held, call: Call, options: Options
    ) -> Held:
        """Register a task, unless another one holds its value.

        With ``on_taken='replace'`` it takes the value from a task that waits, and
        cancels that one.

        :param register: makes the task of a future, and may refuse it.
        :return: the future; with ``on_taken='return'`` that of the task that holds the
            value, if there is one.
        :raises NotUnique: if the value is taken, and stays so.
        """
        with self._lock:
            holder = self._holder(options.unique)
            if holder is not None and options.on_taken == "return":
                return holder
            replaced = None if holder is None else holder.task
            cancel = self._hand_over(replaced, register, future, call, options)
        if cancel is None:
            task = t.cast(Task, replaced)
            raise NotUnique(options.unique, task._label, task.state, options.on_taken)
        cancel()  # not under the lock: it runs code of the app
        return future

    def _hand_over(
        self,
        holder: Task | None,
        register: Register,
        future: Held,
        call: Call,
        options: Options,
    ) -> t.Callable[[], object] | None:
        """Register a task, and give it the value of one that has it, if it may.

        :return: what cancels that one; None if it keeps the value.
        """
        if holder is not None and options.on_taken != "replace":
            return None
        task = register(future, call, options)  # first: what it refuses changes nothing
        cancel = _nothing if holder is None else self._take(holder)
        if cancel is None:
            self._table.forget(task)
            return None
        if not task._is_reserved:  # so that others, who may find it, can cancel it
            self._table.reserve(task)
        self._held[options.unique] = future
        # The base class's method: there is no context to copy.
        Future.add_done_callback(future, partial(self._free, options.unique))
        return cancel

    def _holder(self, value: t.Hashable) -> Held | None:
        future = self._held.get(value)
        if future is None or future.done() or t.cast(Task, future.task)._has_ended:
            return None
        return future

    def _take(self, task: Task) -> t.Callable[[], object] | None:
        """Take a task that waits; return what cancels it, or None if it does not."""
        future = task.future  # first: it is dropped at the end
        if self._table.take_pending(task):
            return partial(self._endings.end_taken, task, CANCELLED)
        if self._table.take_reserved(task):
            # Its submitter, who has not accepted it yet, finds it taken and ends it.
            return partial(Future.cancel, future)
        return _nothing if task._has_ended else None

    def _free(self, value: t.Hashable, future: Future[t.Any]) -> None:
        with self._lock:
            if self._held.get(value) is future:
                del self._held[value]


def _nothing() -> None:
    """Cancel nothing."""
