"""The runner: submits periodic jobs when they are due, in one process for one app."""

from __future__ import annotations

import logging
import os
import random
import threading
import typing as t
import weakref
from functools import partial

from ..dispatch import Dispatcher, Timer
from ..dispatch.timer import TimerHandle
from ..errors import ExecutorShutDown, NotUnique
from ..store_errors import StoreUnavailable
from .plans import Plan
from .schedules import due_ticks
from .serving import is_reloader_parent
from .ticks import OwnTicks, Ticks

_NAP = 30.0
"""The most seconds until it looks at the clock again: the clock may be set, and the
monotonic clock of the timer stands still while the machine is suspended."""
_SET_BACK = 60.0
"""How many seconds the clock must be set back for ticks to be computed anew."""
_CRON_WAITS = 3 * 3600.0
"""If the clock is set back by less, a job at a time of day that has run does not run
again, as with cron."""
_HAIR = 1e-5
"""How many seconds early a tick may be: sums of seconds are not exact."""


class _Alarm:
    """The next call of a runner; the timer refers to this, and not to the runner."""

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._handle: TimerHandle | None = None

    def set(self, wait: float, runner: weakref.ref[Runner]) -> None:
        self.cancel()
        due = self._timer.clock.monotonic() + wait
        self._handle = self._timer.at(due, _wake, runner)

    def cancel(self) -> None:
        if self._handle is not None:
            self._timer.cancel(self._handle)
            self._handle = None


class Runner:
    """Submits periodic jobs when they are due.

    :param dispatcher: its timer wakes this, and ends it when it is shut down.
    :param plans: returns the plans there are now, by name.
    :param submit: submits the task of a plan, to start after so many seconds.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        plans: t.Callable[[], t.Mapping[str, Plan]],
        submit: t.Callable[[Plan, float], t.Any],
    ) -> None:
        self.ticks: Ticks = OwnTicks()
        """Who runs a tick; a store replaces it."""
        self.started: bool = False
        """True if ticks are submitted."""
        self.plans: t.Callable[[], t.Mapping[str, Plan]] = plans
        """Returns the plans there are now, by name."""
        self.submit: t.Callable[[Plan, float], t.Any] = submit
        """Submits the task of a plan, to start after so many seconds."""
        self._table = dispatcher.table
        self._timer = dispatcher.timer
        self._clock = dispatcher.timer.clock
        self._log = dispatcher.events.log
        self._alarm = _Alarm(self._timer)
        # A signal or the garbage collector may come back in here on the same thread.
        self._lock = threading.RLock()
        self._next: dict[str, float] = {}
        self._seen = 0.0, 0.0

    def start(self) -> None:
        """Submit ticks from now on; a second call changes nothing.

        :raises RuntimeError: if no thread can be started.
        """
        with self._lock:
            if self.started:
                return
            self._timer.on_close = self._alarm.cancel
            self._seen = self._clock.time(), self._clock.monotonic()
            self._sleep(self._clock.time())  # first: there may be no thread
            self.started = True
            self._begin()

    def plan_again(self, name: str) -> None:
        """Go by the plan that now has a name."""
        with self._lock:
            self._next.pop(name, None)
            if self.started:
                self._begin()

    def _begin(self) -> None:
        """Look when each job is due, as soon as its last tick is known."""
        specs = {name: str(plan.schedule) for name, plan in self.plans().items()}
        runner = weakref.ref(self)
        self.ticks.begin(specs, lambda: _wake(runner))

    def warn_of_several(self) -> None:
        """Say that each process of a server runs the jobs, if it is so."""
        if not self.ticks.is_shared and self.plans():
            self._log.write(
                logging.WARNING,
                "Periodic jobs run in every process of this server, %s also in process"
                " %s: without a store (EXECUTOR_STORE) the processes do not know of"
                " each other. Use one process with threads, or let no harm come of it.",
                ", ".join(self.plans()),
                os.getpid(),
            )

    def next_of(self, plan: Plan) -> float | None:
        """Return the next tick of a plan, or None if it is paused."""
        if self.ticks.is_paused(plan.name):
            return None
        return self._next.get(plan.name) or plan.schedule.after(self._clock.time())

    def wake(self) -> None:
        """Submit what is due, and wait for the next tick; on the timer's thread."""
        with self._lock:
            if self._has_ended() or not (self.started and self.ticks.is_ready):
                return
            now = self._clock.time()
            plans = self.plans()
            self._notice_steps(plans, now)
            found = [self._known(plan, now) for plan in plans.values()]
            self._sleep(now, again=None in found)
        if due := [one for of_plan in found for one in of_plan or ()]:
            self._timer.aside(self._submit_all, due)

    def _has_ended(self) -> bool:
        return self._table.closed or is_reloader_parent()

    def _known(self, plan: Plan, now: float) -> list[tuple[Plan, float]] | None:
        """Return what is due of a plan, or None if that cannot be told now."""
        try:
            return self._due(plan, now)
        except Exception as error:
            message = "The next tick of the periodic job %s cannot be told"
            self._log.write(logging.ERROR, message, plan.name, error=error)
            return None

    def _due(self, plan: Plan, now: float) -> list[tuple[Plan, float]]:
        """Return the ticks of a plan that are due, and note its next one."""
        name, schedule = plan.name, plan.schedule
        paused = self.ticks.is_paused(name)
        first = self._next.get(name)
        if first is None:
            last = self.ticks.last(name)
            first = schedule.after(now if last is None else min(last, now))
        is_due = first <= now + _HAIR
        self._next[name] = schedule.after(max(first, now)) if is_due else first
        if not is_due or paused:
            return []
        ticks = due_ticks(schedule, first, max(first, now), plan.missed)
        return [(plan, tick) for tick in ticks]

    def _notice_steps(self, plans: t.Mapping[str, Plan], now: float) -> None:
        """Compute the next ticks anew if the clock was set back.

        If it was set forward, ticks were missed, as after a sleep of the machine.
        """
        before, ticked = self._seen
        monotonic = self._clock.monotonic()
        self._seen = now, monotonic
        step = (now - before) - (monotonic - ticked)
        if step > -_SET_BACK:
            return
        for name, plan in plans.items():
            if step < -_CRON_WAITS or not plan.schedule.follows_clock:
                self._next[name] = plan.schedule.after(now)

    def _sleep(self, now: float, *, again: bool = False) -> None:
        """Wait for the next tick.

        :param again: come back soon, because the next tick of a plan is not known.
        """
        waits = [tick - now for tick in self._next.values() if tick > now]
        if again or not self._clock.is_manual:
            waits.append(_NAP)
        if waits:
            # Weak: the timer's thread must not keep what people have dropped.
            self._alarm.set(min(waits), weakref.ref(self))
        if self._has_ended():  # meanwhile: who closed the timer found no alarm
            self._alarm.cancel()

    def _submit_all(self, due: list[tuple[Plan, float]]) -> None:
        """Submit the tasks of ticks; on a thread of its own."""
        for plan, tick in due:
            self._submit(plan, tick)

    def _submit(self, plan: Plan, tick: float) -> None:
        submit = partial(self.submit, plan, self._delay(plan))
        try:
            self.ticks.submit(plan.name, tick, submit)
        except ExecutorShutDown:
            pass
        except StoreUnavailable as away:
            message = "A tick of the periodic job %s waits: %s"
            self._log.write(logging.WARNING, message, plan.name, away)
            with self._lock:
                self._next[plan.name] = tick
                self._sleep(self._clock.time(), again=True)
        except NotUnique as taken:
            message = "A tick of the periodic job %s is left out: %s"
            self._log.write(logging.INFO, message, plan.name, taken)
        except BaseException as error:
            message = "A tick of the periodic job %s is lost, for it was not accepted"
            self._log.write(logging.ERROR, message, plan.name, error=error)

    def _delay(self, plan: Plan) -> float:
        return 0.0 if self._clock.is_manual else random.random() * plan.jitter


def _wake(runner: weakref.ref[Runner]) -> None:
    found = runner()
    if found is not None:
        found.wake()
