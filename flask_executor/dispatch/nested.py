"""Tasks that wait for tasks: while they wait they keep no worker and no place.

Code that waits for a task may itself belong to a task: on a worker thread that the
other one needs, or with a place of its job that the other one needs. Each wait goes
through here, in any form: ``result()`` and ``exception()``, the standard
library's ``wait`` and ``as_completed``, ``await``, asyncio's own functions, groups.

1. The task is marked as wanted: it goes first where a slot or a place is lent out.
2. The place of the waiting task is given up; see :mod:`.limits`.
3. What waits in the queue of a thread pool runs on the waiting thread itself, if
   nothing but its end can end the wait.
4. Otherwise the thread lends out its slot; see :mod:`flask_executor.pools.slots`.

When the wait is over, the place is taken again, and then the slot.
"""

from __future__ import annotations

import threading
import typing as t

from ..attempt import Attempt
from ..current import running
from ..errors import LoopBlocked
from ..pools import Pool
from ..task import Task, Wait
from ..threads import here
from .limits import Place

_DEEPEST = 16
"""How many tasks may run on one thread, each waiting for the next. The next one runs on
a helper thread, because the stack is limited."""


class _Depth(threading.local):
    """How many tasks run on this thread, each waiting for the next."""

    value: int = 0


_depth = _Depth()


class NestedWaits:
    """The waits of code that runs in the pools of one dispatcher.

    :param owner: the dispatcher; only its tasks are handled here.
    :param owns: returns True for its pools.
    :param run: runs a pending task on this thread.
    """

    def __init__(
        self,
        owner: t.Any,
        owns: t.Callable[[Pool], bool],
        run: t.Callable[[Task], object],
    ) -> None:
        self._owner = owner
        self._owns = owns
        self._run = run

    def current_attempt(self) -> Attempt | None:
        """Return the attempt whose code runs here, if its task has the same owner."""
        inside = running.get()
        if isinstance(inside, Attempt) and inside.task._owner is self._owner:
            return inside
        return None

    def pool_of_this_thread(self) -> Pool | None:
        """Return the pool of which this thread is a worker, if it is ours."""
        pool: Pool | None = None if here.pool is None else here.pool()
        return pool if pool is not None and self._owns(pool) else None

    def is_inside(self) -> bool:
        """Return True in code that runs in a pool of ours."""
        return (
            self.current_attempt() is not None or self.pool_of_this_thread() is not None
        )

    def start_waiting(self, task: Task, timeout: float | None) -> Wait | None:
        """Prepare a wait that blocks this thread.

        :return: a wait to end when it is over, or None.
        :raises LoopBlocked: on the event loop's own thread.
        """
        inside, pool = self.current_attempt(), self.pool_of_this_thread()
        if inside is None and pool is None:
            return None
        if pool is not None and pool.must_not_block:
            if timeout is None:
                raise LoopBlocked(task.name)
            return None
        self.want(task)
        future = task.future
        wait = _give_up_place(inside, has_timeout=timeout is not None)
        if timeout is None and task.options.timeout is None:
            self._run_here(task, inside)
        # The next attempt of a saved task belongs to nobody yet, and is not alive here.
        goes_on = future is not None and not future.done()
        if pool is not None and (goes_on or task in self._owner.table.live):
            wait.give_back = pool.lend_slot()
        return wait

    def start_waiting_elsewhere(self, task: Task, timeout: float | None) -> Wait | None:
        """Same as :meth:`start_waiting`, for a task of another process."""
        pool = self.pool_of_this_thread()
        if pool is not None and pool.must_not_block:
            if timeout is None:
                raise LoopBlocked(task.name)
            return None
        return self.start_awaiting_elsewhere(timeout is not None)

    def start_awaiting_elsewhere(self, has_timeout: bool) -> Wait | None:
        """Same as :meth:`start_awaiting`, for tasks of other processes."""
        inside, pool = self.current_attempt(), self.pool_of_this_thread()
        if inside is None and pool is None:
            return None
        wait = _give_up_place(inside, has_timeout=has_timeout)
        if pool is not None:
            wait.give_back = pool.lend_slot()
        return wait

    def start_awaiting(
        self, task: Task, also: t.Iterable[Task] = (), *, has_timeout: bool = False
    ) -> Wait | None:
        """Prepare a wait for any of several tasks.

        None of them runs on this thread: the wait may be over before they end, or an
        event loop goes on here.

        :param task: one that has not ended.
        :param also: the others.
        :return: a wait to end when it is over, or None.
        """
        inside, pool = self.current_attempt(), self.pool_of_this_thread()
        if inside is None and pool is None:
            return None
        for one in (task, *also):
            self.want(one)
        wait = _give_up_place(inside, has_timeout=has_timeout)
        if pool is not None:
            wait.give_back = pool.lend_slot()
        return wait

    def want(self, task: Task) -> None:
        """Let a task go first where a slot or a place is lent out."""
        if not task._wanted:
            task._wanted = True  # first: a thread that is enqueueing it now looks there
        if task.state == "waiting":
            if task._place is not None:
                task._place.limit.claim(task._place)
            task._pool.expedite(task)

    def _run_here(self, task: Task, inside: Attempt | None) -> None:
        pool: Pool = task._pool
        on_thread = pool.is_own_thread or (inside is not None and inside.runs_here())
        if not (pool.runs_on_threads and on_thread):
            return
        while _depth.value < _DEEPEST and pool.remove(task):
            _depth.value += 1
            try:
                self._run(task)
            finally:
                _depth.value -= 1


def _give_up_place(inside: Attempt | None, *, has_timeout: bool) -> _PlaceWait:
    place: Place | None = None if inside is None else inside.task._place
    if inside is None or place is None:
        return _PlaceWait(None, blocks=False)
    # A coroutine takes its place again at its next step, so it need not keep it.
    blocks = inside.runs_here() and not inside.task._pool.must_not_block
    place.limit.start_waiting(place, has_timeout=has_timeout and blocks)
    return _PlaceWait(place, blocks=blocks)


class _PlaceWait:
    """A wait of a task, with the place and slot that it takes again afterwards.

    :param place: the place of the task that waits, or None.
    :param blocks: the task goes on by itself when the wait is over, so it must have its
        place by then.
    """

    __slots__ = ("_blocks", "_place", "give_back")

    def __init__(self, place: Place | None, *, blocks: bool) -> None:
        self._place = place
        self._blocks = blocks
        self.give_back: t.Callable[[], None] | None = None

    def end(self) -> None:
        """Note the end of the wait; return when the task may go on."""
        place = self._place
        if place is not None:
            place.limit.stop_waiting(place)
            granted = threading.Event()
            if self._needs(place) and not place.limit.come_back(place, granted.set):
                # The task that has the place may be in the queue, and need this worker.
                self._lend_slot()
                granted.wait()
        self._give_back()

    def end_then(self, fn: t.Callable[[], object]) -> None:
        """Note the end of the wait, and call ``fn`` once the task may go on.

        :param fn: must be quick; runs here, or on the thread that makes room.
        """

        def go_on() -> None:
            self._give_back()
            fn()

        place = self._place
        if place is not None:
            place.limit.stop_waiting(place)
            if self._needs(place) and not place.limit.come_back(place, go_on):
                return
        go_on()

    def _needs(self, place: Place) -> bool:
        return self._blocks and not place.waits

    def _lend_slot(self) -> None:
        pool = None if here.pool is None else here.pool()
        if pool is not None and self.give_back is None:
            self.give_back = pool.lend_slot()

    def _give_back(self) -> None:
        if self.give_back is not None:
            self.give_back()
