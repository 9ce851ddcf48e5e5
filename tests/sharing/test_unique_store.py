"""Unique tasks with a store: one among all processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import typing as t

import pytest
from limits import LIMIT
from processes import NewProcess, Process, reached, until
from scripts import SUPPORT, environment

from flask_executor import NotUnique


class Held:
    """A task with a unique value that runs in one process until it is released."""

    def __init__(self, process: Process, **options: t.Any) -> None:
        self.begun, self.gate = threading.Event(), threading.Event()
        self.process = process
        self.future = process.executor.using(unique="order-7", **options).submit(
            self._run
        )
        reached(self.begun)

    def _run(self) -> int:
        self.begun.set()
        reached(self.gate)
        return 7


@pytest.fixture
def held(one: Process) -> t.Iterator[Held]:
    """An ephemeral one, without a key."""
    held = Held(one)
    yield held
    held.gate.set()


def test_raise_names_the_holder(held: Held, other: Process) -> None:
    """Another process is refused, and told by what; when it has ended, it is free."""
    view = other.executor.using(unique="order-7")
    with pytest.raises(NotUnique) as info:
        view.submit(abs, -1)
    error = info.value
    assert (error.value, error.state) == ("order-7", "running")
    task = held.future.task
    assert f"is taken by {task.name} ({task.id}), which is running" in str(error)
    assert other.executor.using(unique="order-8").submit(abs, -1).result(LIMIT) == 1
    held.gate.set()
    assert held.future.result(LIMIT) == 7
    assert view.submit(abs, -1).result(LIMIT) == 1


def test_return_gives_the_future_of_another_process(
    held: Held, one: Process, other: Process
) -> None:
    """It is the task there is, with its progress, its result and its key."""
    found = other.executor.using(unique="order-7", on_taken="return").submit(abs, -1)
    assert found.task.id == held.future.task.id and not found.done()
    here = one.executor.using(unique="order-7", on_taken="return").submit(abs, -1)
    assert here is held.future
    held.gate.set()
    assert here.result(LIMIT) == 7
    # An ephemeral result is known to the process that ran it, to others that it ended.
    until(found.done)
    assert found.task.state == "succeeded"


def test_replace_only_what_waits(held: Held, one: Process, other: Process) -> None:
    """A waiting task of another process is cancelled; one that runs is not."""
    view = other.executor.using(unique="order-7", on_taken="replace")
    with pytest.raises(NotUnique, match="replaces only a task that waits"):
        view.submit(abs, -1)
    job = one.job(lambda n: n, name="index", unique="index", on_taken="replace")
    again = other.job(lambda n: n, name="index", unique="index", on_taken="replace")
    first = job.using(delay=3600).submit(1)
    second = again.using(delay=3600).submit(2)
    assert until(first.cancelled) and second.task.state == "delayed"
    assert one.record(first).state == "cancelled"
    third = job.submit(3)
    assert third.result(LIMIT) == 3 and until(second.cancelled)


def test_replace_in_one_process(one: Process) -> None:
    """A task without a guarantee that is delayed, or waits for a worker, is replaced by
    the process that has it.
    """
    view = one.executor.using(unique="u", on_taken="replace", delay=3600)
    futures = [view.submit(abs, -number) for number in range(3)]
    until(lambda: all(future.cancelled() for future in futures[:2]))
    last = one.executor.using(unique="u", on_taken="replace").submit(abs, -9)
    assert last.result(LIMIT) == 9 and until(futures[2].cancelled)
    states = [record.state for record in one.store.tasks()]
    assert states == ["succeeded", "cancelled", "cancelled", "cancelled"]


def test_the_uniques_of_a_process_are_not_used(held: Held, one: Process) -> None:
    """With a store, the database alone decides."""
    assert not one.executor._state().dispatcher.uniques._held
    with pytest.raises(NotUnique):
        one.executor.using(unique="order-7").submit(abs, -1)


def test_after_a_failure_it_is_free(one: Process, other: Process) -> None:
    """Whatever the end was, and if the submit itself was refused."""
    failed = one.executor.using(unique="u").submit(int, "x")
    assert isinstance(failed.exception(LIMIT), ValueError)
    taken = one.executor.submit_stored("k", abs, -1)
    taken.result(LIMIT)
    with pytest.raises(ValueError, match="k"):
        other.executor.using(unique="u").submit_stored("k", abs, -1)
    assert other.executor.using(unique="u").submit(abs, -2).result(LIMIT) == 2


RACE = """
import sys
from flask import Flask
from flask_executor import Executor, NotUnique

app = Flask("race")
app.config.update(SECRET_KEY="tests", EXECUTOR_STORE=sys.argv[1])
executor = Executor(app)

@executor.job(name="race", guarantee="at_least_once", delay=3600)
def race(): ...

print("ready", flush=True)
for line in sys.stdin:
    try:
        race.using(unique=line.strip()).submit()
        print("won", flush=True)
    except NotUnique:
        print("lost", flush=True)
"""


def test_real_processes_race(process: NewProcess, url: str) -> None:
    """Of two processes that submit the same at once, one is accepted, each time."""
    process().store.setup()
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, url],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=SUPPORT,
        )
        for _ in range(2)
    ]
    try:
        for racer in racers:
            assert t.cast(t.Any, racer.stdout).readline() == "ready\n"
        for number in range(20):
            for racer in racers:
                t.cast(t.Any, racer.stdin).write(f"u{number}\n")
                t.cast(t.Any, racer.stdin).flush()
            said = [t.cast(t.Any, racer.stdout).readline() for racer in racers]
            assert sorted(said) == ["lost\n", "won\n"]
    finally:
        for racer in racers:
            racer.communicate(timeout=LIMIT)
    assert len(process().store.tasks()) == 20
