"""Futures that every process sees."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import CancelledError, as_completed, wait

import pytest
from limits import LIMIT
from processes import Process, reached, until

from flask_executor import current_task
from flask_executor.sharing import feeding
from flask_executor.store_errors import (
    FailedElsewhere,
    ResultNotStorable,
    TaskForgotten,
)
from flask_executor.stores.sql import changes


def test_a_key_is_known_everywhere(
    one: Process, other: Process, gate: threading.Event
) -> None:
    """A task with a key is found, refused and followed in every process."""
    begun = threading.Event()

    def work() -> int:
        current_task.progress(1, 2, "half")
        begun.set()
        reached(gate)
        return 42

    future = one.executor.submit_stored("k", work)
    with pytest.raises(ValueError, match="k"):
        other.executor.submit_stored("k", work)
    found = other.futures["k"]
    assert found is other.futures["k"]
    assert not found.done()
    assert "k" in other.futures
    assert found in other.futures
    assert list(other.futures) == ["k"]
    assert len(other.futures) == 1
    reached(begun)
    until(found.running)
    assert other.futures._state("k") == "RUNNING"
    assert until(lambda: found.task.progress) == (1, 2, "half")
    with pytest.raises(TimeoutError):
        found.result(0.01)
    gate.set()
    assert found.result(LIMIT) == 42
    assert found.task.state == "succeeded"
    assert found.task.started_at <= found.task.finished_at
    assert future.result(LIMIT) == 42
    assert other.futures.done("k")
    assert other.futures.pop("k") is found
    assert one.futures.pop("k") is None
    assert "k" not in one.futures
    assert found not in other.futures


def test_the_state_is_told_without_a_future(
    one: Process, other: Process, gate: threading.Event
) -> None:
    """What is asked by key is what the future would say, in every state."""
    keys = "running", "running too", "queued"
    submitted = [one.executor.submit_stored(key, reached, gate) for key in keys]
    one.executor.submit_stored("cancelled", abs, -1).cancel()
    until(lambda: other.futures._state("running") == "RUNNING")
    asked = "_state", "done", "running", "cancelled"

    def told(key: str) -> list[object]:
        return [getattr(other.futures, name)(key) for name in asked]

    before = {key: told(key) for key in (*keys, "cancelled")}
    assert not other.node.following._futures
    for key, answers in before.items():
        future = other.futures[key]
        assert answers == [future._state, *(getattr(future, n)() for n in asked[1:])]
    assert before["queued"] == ["PENDING", False, False, False]
    gate.set()
    one.executor.submit_stored("failed", abs, "x").exception(LIMIT)
    assert {future.result(LIMIT) for future in submitted} == {None}
    assert told("failed") == ["FINISHED", True, False, False]
    assert told("no such key") == [None] * 4
    with pytest.raises(TypeError, match="done"):
        other.futures.done("failed", 1)


def test_a_saved_task_runs_elsewhere(one: Process, other: Process) -> None:
    """What its submitter does not run, a process that serves runs."""
    ran_in = []
    one.job(lambda: ran_in.append("one"))
    job = other.job(lambda: ran_in.append("other"))
    assert job.submit().result(LIMIT) is None
    assert ran_in == ["one"]


def test_what_waits_for_a_future_elsewhere(one: Process, other: Process) -> None:
    """wait, as_completed, await and callbacks work for a task of another process."""
    gate = threading.Event()
    one.job(lambda: reached(gate) or 7)
    job = other.job(lambda: 8)
    futures = [job.submit() for _ in range(4)]
    called: list[object] = []
    happened = threading.Event()
    futures[0].add_done_callback(lambda f: (called.append(f.result()), happened.set()))
    assert not wait(futures, 0.01).done

    async def awaited() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, gate.set)
        return await futures[1], await asyncio.wrap_future(futures[2])

    assert asyncio.run(awaited()) == (7, 7)
    assert {future.result() for future in as_completed(futures, LIMIT)} == {7}
    reached(happened)
    assert called == [7]


def test_a_callback_keeps_its_future(one: Process, other: Process) -> None:
    """A callback runs even if nobody holds the future any more."""
    gate, happened = threading.Event(), threading.Event()
    one.job(lambda: reached(gate))
    job = other.job(lambda: None)
    job.submit().add_done_callback(lambda future: happened.set())
    gc.collect()
    gate.set()
    reached(happened)
    until(lambda: not other.node.following._kept)


def test_default_callbacks_run_for_tasks_elsewhere(
    one: Process, other: Process
) -> None:
    """A default callback runs in the process that submitted, once."""
    seen = []
    happened = threading.Event()
    other.executor.add_default_done_callback(
        lambda future: (seen.append(future.result()), happened.set())
    )
    one.job(lambda: 7)
    other.job(lambda: 8).submit()
    reached(happened)
    assert seen == [7]


def test_a_future_that_nobody_holds_is_not_followed(
    one: Process, other: Process, gate: threading.Event
) -> None:
    """Nothing asks for the state of a task that nobody in this process holds."""
    one.executor.submit_stored("k", reached, gate)
    held = weakref.ref(other.futures["k"])
    until(lambda: held() is None)  # a thread may be looking at it just now
    assert not other.node.following.open()


def test_looking_up_leaves_no_garbage(
    one: Process, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up of a finished task loads no result, and leaves no cycle behind."""
    for number in range(20):
        one.executor.submit_stored(number, int).result(LIMIT)
    monkeypatch.setattr(other.store, "result", None)
    futures = other.futures
    assert all(future.done() for _, future in futures.items())
    gc.collect()
    gc.disable()
    try:
        for _, future in futures.items():
            assert future.done()
        del future
        assert gc.collect() < 20
    finally:
        gc.enable()
    assert not other.node.following._futures


def test_how_failures_come_through(one: Process, other: Process) -> None:
    """An exception is raised elsewhere, or its texts if it cannot be pickled."""

    class Local(Exception):
        pass

    def fail(error: BaseException) -> None:
        raise error

    one.executor.submit_stored("own", fail, ValueError("wrong"))
    one.executor.submit_stored("local", fail, Local("here only"))
    with pytest.raises(ValueError, match="wrong"):
        other.futures.result("own", timeout=LIMIT)
    error = other.futures.exception("local", timeout=LIMIT)
    assert isinstance(error, FailedElsewhere)
    assert "here only" in str(error)


def test_a_result_that_cannot_be_saved(one: Process, other: Process) -> None:
    """An ephemeral task has it here, and an error elsewhere; a saved one fails."""
    lock = threading.Lock()
    assert one.executor.submit_stored("k", lambda: lock).result(LIMIT) is lock
    error = other.futures.exception("k", timeout=LIMIT)
    assert isinstance(error, ResultNotStorable)
    assert other.futures["k"].task.state == "succeeded"
    job = one.job(lambda: lock)
    with pytest.raises(ResultNotStorable):
        job.submit().result(LIMIT)


def test_what_is_cancelled_is_cancelled_now(
    one: Process, gate: threading.Event
) -> None:
    """As soon as cancel returns True, its future and its row say so."""
    blocking = [one.executor.submit(reached, gate) for _ in range(2)]
    for guarantee in ("ephemeral", "at_most_once", "at_least_once"):
        job = one.executor.job(guarantee=guarantee, name=guarantee)(abs)
        future = job.submit_stored(guarantee, -1)
        assert future.cancel()
        assert (future.cancelled(), future.done()) == (True, True)
        assert one.record(future).state == "cancelled"
        with pytest.raises(CancelledError):
            future.result(0)
    gate.set()
    assert [future.result(LIMIT) for future in blocking] == [None] * 2


def test_cancel_from_elsewhere(
    one: Process, other: Process, gate: threading.Event
) -> None:
    """What waits is cancelled from everywhere, what runs is not; it can be asked."""
    begun = threading.Event()

    def work() -> None:
        begun.set()
        while not current_task.cancel_requested:
            assert not gate.wait(0.01)
        current_task.raise_if_cancelled()

    job = one.job(work)
    runs = job.submit_stored("runs")
    fills = one.executor.submit(reached, gate)
    waits = one.executor.submit_stored("waits", work)  # behind them, in one's pool
    delayed = job.using(delay=60).submit_stored("delayed")
    reached(begun)
    for key, future in (("waits", waits), ("delayed", delayed)):
        assert other.futures[key].cancel(), key
        assert other.futures[key].cancelled()
        assert other.futures[key].cancel()
        with pytest.raises(CancelledError):
            future.result(LIMIT)
    assert not other.futures["runs"].cancel()
    assert not other.record(runs).cancel
    assert other.futures["runs"].request_cancel()
    with pytest.raises(CancelledError):
        runs.result(LIMIT)
    with pytest.raises(CancelledError):
        other.futures.result("runs", timeout=LIMIT)
    gate.set()
    fills.result(LIMIT)


def test_a_task_that_is_gone_ends(one: Process, other: Process) -> None:
    """A future does not wait for ever for a task that the store knows no more."""
    job = one.job(int)
    future = job.using(delay=60).submit()
    one.store.prune({}, 1)
    with one.store.database.transaction() as db:
        db.exec_driver_sql("DELETE FROM executor_task")
    error = future.exception(LIMIT)
    assert isinstance(error, TaskForgotten)
    assert "knows job" in str(error)


def test_a_future_of_our_own(one: Process, other: Process) -> None:
    """A future that somebody adds is known to its process, under a free key alone."""
    one.executor.submit_stored("k", int).result(LIMIT)
    mine = other.executor.submit(int)
    with pytest.raises(ValueError, match="k"):
        other.futures.add("k", mine)
    other.futures.add("mine", mine)
    with pytest.raises(ValueError, match="mine"):
        other.executor.submit_stored("mine", int)
    assert "mine" not in one.futures
    assert other.futures["mine"] is mine


def test_nothing_polls_without_a_future(
    one: Process, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread of a process looks at the store that holds no open future."""
    for module in (feeding, changes):
        monkeypatch.setattr(module, "_IDLE", 0.1)
    one.executor.submit_stored("k", int).result(LIMIT)
    before = {*threading.enumerate()}
    assert other.futures.done("k")
    assert {*threading.enumerate()} <= before
    gate = threading.Event()
    one.executor.submit_stored("open", reached, gate)
    found = other.futures["open"]
    assert {*threading.enumerate()} - before
    gate.set()
    found.result(LIMIT)
    until(lambda: not {*threading.enumerate()} - before - pools())


def pools() -> set[threading.Thread]:
    """Return the threads that are no business of a follower."""
    names = "_delivery", "-writer", "_0", "_1"
    return {one for one in threading.enumerate() if one.name.endswith(names)}
