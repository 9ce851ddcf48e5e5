"""Faults that are put into the table of tasks, and into what uses it: each breaks a
guarantee of the table, and a test finds each.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import typing as t

import moments
import pytest
import test_moments as tests
from flask import Flask

from flask_executor.dispatch import dispatcher
from flask_executor.dispatch.endings import Endings
from flask_executor.dispatch.runs import Runs
from flask_executor.dispatch.shutdown import Shutdown
from flask_executor.dispatch.table import TaskTable

Test = t.Callable[..., object]


class Fault(t.NamedTuple):
    where: type
    """The class that gets it."""
    right: str
    """Lines of its module."""
    wrong: str
    """What stands there instead."""
    found_by: Test


def by(fn: t.Callable[..., object], **values: object) -> Test:
    return functools.partial(fn, **values)


TAKEN = "if self.pending.pop(task, _ABSENT) is _ABSENT:"
FAULTS = {
    "alive: removed before its future has ended": Fault(
        Endings,
        "        if verdict is SUCCEEDED:\n            future",
        "        self._table.remove(task)\n"
        "        if verdict is SUCCEEDED:\n            future",
        by(tests.test_an_end_misses_no_task, who="worker", end="drain"),
    ),
    "alive: taken out and put back": Fault(
        TaskTable,
        "        self.running[attempt] = None\n",
        "        self.live.pop(task)\n"
        "        self.running[attempt] = None\n"
        "        self.live[task] = task.future\n",
        by(tests.test_an_end_misses_no_task, who="worker", end="drain"),
    ),
    "alive: without the future of a task that has dropped it": Fault(
        Shutdown,
        "wait_for(live.values(), min(left, longest))\n",
        "live = {task: task.future for task in live if task.future}\n"
        "            wait_for(live.values(), min(left, longest))\n",
        by(tests.test_an_end_misses_no_task, who="worker", end="drain"),
    ),
    "one decision: begins although it was taken": Fault(
        TaskTable,
        TAKEN,
        "if self.pending.pop(task, None) is _ABSENT:",
        by(tests.test_a_cancelled_task_does_not_run, who="worker"),
    ),
    "one decision: looked up, then taken from pending": Fault(
        TaskTable,
        "        return self.pending.pop(task, _ABSENT) is None",
        "        if task not in self.pending:\n"
        "            return False\n"
        "        self.pending.pop(task, None)\n"
        "        return True",
        by(tests.test_a_cancelled_task_does_not_run, who="canceller"),
    ),
    "one decision: looked up, then taken from running": Fault(
        TaskTable,
        "        return self.running.pop(attempt, _ABSENT) is None",
        "        if attempt not in self.running:\n"
        "            return False\n"
        "        self.running.pop(attempt, None)\n"
        "        return True",
        by(tests.test_a_timeout_that_is_over_as_the_run_returns),
    ),
    "one decision: a reserved task is taken twice": Fault(
        TaskTable,
        "self.reserved.pop(task, _ABSENT) is None",
        "task in self.reserved",
        by(tests.test_a_stored_future_that_is_submitted, is_busy=False),
    ),
    "no gap: gone from pending first": Fault(
        TaskTable,
        f"        self.running[attempt] = None\n        {TAKEN}\n"
        "            del self.running[attempt]\n            return None\n",
        f"        {TAKEN}\n            return None\n"
        "        self.running[attempt] = None\n",
        by(tests.test_a_request_to_stop_is_kept),
    ),
    "no gap: only the task is asked for its attempt": Fault(
        TaskTable,
        "if attempt is None or attempt not in self.running:",
        "if False:",
        by(tests.test_a_request_to_stop_is_kept),
    ),
    "no gap: late only after it was running": Fault(
        TaskTable,
        "        self.late[attempt] = None\n"
        "        attempt.overrun = overruns\n"
        "        if self.take_running(attempt):\n",
        "        if self.take_running(attempt):\n"
        "            self.late[attempt] = None\n"
        "            attempt.overrun = overruns\n",
        by(tests.test_a_timeout_that_is_over_as_the_run_returns),
    ),
    "no lock: a dict is iterated over": Fault(
        TaskTable,
        "in self.running.copy():",
        "in self.running:",
        by(tests.test_attempts_that_begin_while_one_is_looked_for),
    ),
    "no lock: one lock around the start": Fault(
        TaskTable,
        "    def start(self",
        "    @locked\n    def start(self",
        by(tests.test_who_stands_in_the_table_keeps_nobody_waiting),
    ),
    "plain writes: pending again before the failure is noted": Fault(
        Runs,
        "        self._table.note_failed(task, error)\n",
        "        self._table.admit_again(task)\n"
        "        self._table.note_failed(task, error)\n",
        by(tests.test_a_cancelled_task_does_not_run, who="worker"),
    ),
    "plain writes: an end is written over": Fault(
        TaskTable,
        "            task.state = task._ended_as",
        "            pass",
        by(tests.test_a_cancelled_task_does_not_run, who="worker"),
    ),
}


def locked(fn: t.Callable[..., object]) -> t.Callable[..., object]:
    lock = threading.Lock()

    def under_lock(*args: object) -> object:
        with lock:
            return fn(*args)

    return under_lock


def faulty(fault: Fault) -> t.Any:
    """The class with the fault; only the module under test has changed, in memory."""
    module = sys.modules[fault.where.__module__]
    source = inspect.getsource(module)
    assert source.count(fault.right) == 1, "the code has changed: change the fault"
    source = source.replace(fault.right, fault.wrong)
    names = {**vars(module), "locked": locked}
    exec(compile(source, t.cast(str, module.__file__), "exec"), names)
    return names[fault.where.__name__]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found(
    app: Flask, gate: threading.Event, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A test of the moments fails if the guarantee does not hold."""
    fault = FAULTS[name]
    monkeypatch.setattr(dispatcher, fault.where.__name__, faulty(fault))
    monkeypatch.setattr(moments, "LIMIT", 2)  # what hangs is found, too
    app.config.update(EXECUTOR_MAX_WORKERS=1, EXECUTOR_LOG_EXCEPTIONS=False)
    possible = {"app": app, "gate": gate}
    wanted = inspect.signature(fault.found_by).parameters
    # The last two: what ends twice, or is changed while others look at it.
    with pytest.raises((AssertionError, AttributeError, RuntimeError)):
        fault.found_by(**{one: possible[one] for one in possible if one in wanted})
