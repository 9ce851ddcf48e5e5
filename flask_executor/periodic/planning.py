"""The plans of an executor, and a runner in each process that serves."""

from __future__ import annotations

import contextvars
import logging
import os
import typing as t
import weakref

from flask import Flask

from ..contexts import at_each_request
from ..dispatch import Dispatcher
from ..errors import InvalidSchedule
from ..futures import TaskFuture
from ..settings import config_key, prefix_of, read_key
from .jobs import PeriodicJobs
from .plans import AnyJob, Configured, Plan
from .runner import Runner
from .schedules import Schedule
from .serving import may_start_at_submit


class Planning:
    """The periodic jobs of an executor, for all its apps.

    :param executor: the executor; its states say for which apps and dispatchers.
    """

    def __init__(self, executor: t.Any) -> None:
        self._executor = executor
        self._plans: dict[str, Plan] = {}
        # No lock here: it might be held for ever in a forked child.
        self._served: weakref.WeakSet[Dispatcher] = weakref.WeakSet()
        # Receivers of signals are referred to weakly.
        self._receivers: weakref.WeakKeyDictionary[Flask, object] = (
            weakref.WeakKeyDictionary()
        )

    def declare(
        self, job: AnyJob, schedule: Schedule, missed: object, jitter: object
    ) -> None:
        """Add a plan for a job.

        A function that is declared again, as in a factory that runs twice, replaces
        the one of its name.

        :raises InvalidSchedule: if a value is not allowed, or it has a schedule.
        """
        plan = Plan.of(job, schedule, missed, jitter, "")
        before = self._plans.get(plan.name)
        if before is not None and before.job.fn is job.fn:
            allowed = f"one schedule for a job; it has {before.schedule} already"
            raise InvalidSchedule("job", plan.name, allowed)
        self._plans[plan.name] = plan
        for app, state in [*self._executor._states.items()]:
            self._listen(app)
            if state.pid == os.getpid() and state.ready is not None:
                self._changed(state.ready, plan)

    def init_app(self, app: Flask) -> None:
        """Check the config of an app, and wait for its first request.

        :raises InvalidSetting: if ``EXECUTOR_PERIODIC`` is set and not understood.
        """
        prefix = prefix_of(self._executor.name)
        configured = _configured(read_key(app.config, prefix, "periodic"), prefix)
        if self._plans or configured:
            self._listen(app)

    def jobs(self, dispatcher: Dispatcher) -> PeriodicJobs:
        """Return the periodic jobs of an app, as people see them."""
        return PeriodicJobs(self.runner(dispatcher))

    def runner(self, dispatcher: Dispatcher) -> Runner:
        """Return the runner of an app in this process; it is made at first use.

        :raises InvalidSetting: if the config names a job that does not exist.
        """
        if dispatcher.periodic is None:
            # Of two threads that make one, both get the first.
            made = self._new_runner(dispatcher)
            return t.cast(Runner, vars(dispatcher).setdefault("periodic", made))
        return t.cast(Runner, dispatcher.periodic)

    def dispatcher_made(self, dispatcher: Dispatcher) -> None:
        """Start the jobs at the first use of an executor, if this process serves."""
        has_plans = self._plans or dispatcher.settings.periodic
        manual = dispatcher.timer.clock.is_manual
        if has_plans and not manual and may_start_at_submit(dispatcher.app):
            self._start(dispatcher)

    def _new_runner(self, dispatcher: Dispatcher) -> Runner:
        prefix = prefix_of(self._executor.name)
        found = _configured(dispatcher.settings.periodic, prefix)
        declare = self._executor.job
        of_config = {one.name: one.plan(declare) for one in found}
        app = weakref.ref(dispatcher.app)

        def submit(plan: Plan, delay: float) -> TaskFuture[t.Any]:
            # Nothing of the caller's context: a tick is nobody's request.
            here = t.cast(Flask, app())
            return contextvars.Context().run(self._submit, here, plan, delay)

        runner = Runner(dispatcher, lambda: {**self._plans, **of_config}, submit)
        if dispatcher.node is not None:
            runner.ticks = dispatcher.node.ticks
        return runner

    def _submit(self, app: Flask, plan: Plan, delay: float) -> TaskFuture[t.Any]:
        with app.app_context():
            dispatcher = self._executor._state().dispatcher
            given = {} if dispatcher.node is None else _as_saved(dispatcher, plan.job)
            if delay:
                own = plan.job.options.get("delay") or 0.0
                given["delay"] = own + delay
            submitter = self._executor.using(**given) if given else self._executor
            return t.cast("TaskFuture[t.Any]", submitter.submit(plan.job))

    def _changed(self, dispatcher: Dispatcher, plan: Plan) -> None:
        if dispatcher.periodic is None:
            self.dispatcher_made(dispatcher)
        else:
            dispatcher.periodic.plan_again(plan.name)

    def _start(self, dispatcher: Dispatcher) -> None:
        """Start the runner, or log why it cannot: nobody has called for it."""
        try:
            self.runner(dispatcher).start()
        except Exception as error:
            message = "The periodic jobs do not run in process %s"
            log = dispatcher.events.log
            log.write(logging.ERROR, message, os.getpid(), error=error)

    # Requests

    def _listen(self, app: Flask) -> None:
        if app not in self._receivers:
            self._receivers[app] = at_each_request(app, self._serves)

    def _serves(self, app: Flask, environ: t.Mapping[str, t.Any]) -> None:
        """Start the jobs in a process that serves requests; called for each of them."""
        state = self._executor._states.get(app)
        if state is None or app.testing:
            return
        dispatcher = state.here().dispatcher
        if dispatcher in self._served or dispatcher.timer.clock.is_manual:
            return
        self._served.add(dispatcher)
        self._start(dispatcher)
        if dispatcher.periodic is not None and environ.get("wsgi.multiprocess"):
            dispatcher.periodic.warn_of_several()


def _as_saved(dispatcher: Dispatcher, job: AnyJob) -> dict[str, t.Any]:
    """Return the options of ticks in a store: a night's work survives its process."""
    given: dict[str, t.Any] = {"session": None}  # nobody would commit
    if "guarantee" in job.options or dispatcher.defaults.guarantee != "ephemeral":
        return given
    return {**given, "guarantee": "at_least_once"}


def _configured(value: t.Any, prefix: str) -> list[Configured]:
    key = config_key(prefix, "periodic")
    return [Configured(key, name, entry) for name, entry in (value or {}).items()]
