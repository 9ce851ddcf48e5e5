"""A task that waits for tasks of its own executor never deadlocks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import typing as t
import weakref

import control_app
import pytest
from control import Journal, occupy, with_clock
from flask import Flask, g
from limits import LIMIT

from flask_executor import (
    Executor,
    LoopBlocked,
    Retry,
    TaskFuture,
    TaskTimeout,
    WaitsForItself,
    current_task,
)


class Secret:
    """Something whose end can be seen."""


@pytest.fixture(autouse=True)
def one_worker(app: Flask) -> None:
    """All these tests have one worker, where they do not say otherwise."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1


WAITS: dict[str, t.Callable[[TaskFuture[t.Any]], t.Any]] = {
    "result": lambda future: future.result(),
    "result(timeout)": lambda future: future.result(LIMIT),
    "exception": lambda future: future.exception() or future.result(),
    "wait": lambda future: concurrent.futures.wait([future], LIMIT).done.pop().result(),
    "as_completed": lambda future: next(
        concurrent.futures.as_completed([future], LIMIT)
    ).result(),
}


@pytest.fixture(params=WAITS)
def get(request: pytest.FixtureRequest) -> t.Any:
    """One way of waiting for a future."""
    return WAITS[request.param]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.holds("g-waiting")
def test_to_any_depth(app: Flask, executor: Executor, get: t.Any, workers: int) -> None:
    """A chain of three hundred tasks, each waiting for the next."""
    app.config["EXECUTOR_MAX_WORKERS"] = workers

    def chain(depth: int) -> int:
        return 0 if depth == 0 else 1 + int(get(executor.submit(chain, depth - 1)))

    assert executor.submit(chain, 300).result(LIMIT) == 300


@pytest.mark.holds("g-waiting")
def test_a_tree(executor: Executor, get: t.Any) -> None:
    """Tasks that wait for several, each of which waits for several."""

    def tree(depth: int) -> int:
        if depth == 0:
            return 1
        futures = [executor.submit(tree, depth - 1) for _ in range(3)]
        return sum(get(future) for future in futures)

    assert executor.submit(tree, 5).result(LIMIT) == 243


@pytest.mark.holds("g-waiting")
def test_many_at_once(app: Flask, executor: Executor, get: t.Any) -> None:
    """Many tasks that wait for the same ones."""
    app.config["EXECUTOR_MAX_WORKERS"] = 4
    shared = [executor.submit(abs, -n) for n in range(20)]

    def gather() -> int:
        return sum(get(future) for future in shared)

    futures = [executor.submit(gather) for _ in range(50)]
    assert {future.result(LIMIT) for future in futures} == {190}


def test_waiting_for_those_behind(
    executor: Executor, gate: threading.Event, get: t.Any
) -> None:
    """What was submitted by others, and is in line behind, runs too."""
    occupy(executor, gate)
    last: list[TaskFuture[int]] = []
    first = executor.submit(lambda: get(last[0]))
    middle = executor.submit(abs, -1)
    last.append(executor.submit(abs, -2))
    gate.set()
    assert (first.result(LIMIT), middle.result(LIMIT)) == (2, 1)


@pytest.mark.holds("g-waiting")
def test_waiting_for_each_others_children(app: Flask, executor: Executor) -> None:
    """Two tasks that each wait for what the other one has submitted."""
    app.config["EXECUTOR_MAX_WORKERS"] = 2
    children: dict[int, TaskFuture[int]] = {}
    both = threading.Barrier(2)

    def parent(n: int) -> int:
        children[n] = executor.submit(abs, -n)
        both.wait(LIMIT)
        return children[3 - n].result()

    futures = [executor.submit(parent, n) for n in (1, 2)]
    assert [future.result(LIMIT) for future in futures] == [2, 1]


@pytest.mark.holds("g-at-most-once")
def test_each_call_runs_once(app: Flask, executor: Executor, get: t.Any) -> None:
    """A call that somebody waits for is not run by a worker as well."""
    app.config["EXECUTOR_MAX_WORKERS"] = 3
    ran: list[int] = []

    def parent(n: int) -> None:
        get(executor.submit(ran.append, n))

    futures = [executor.submit(parent, n) for n in range(300)]
    concurrent.futures.wait(futures, LIMIT)
    executor.shutdown()
    assert sorted(ran) == [*range(300)]


def test_its_own_context(app: Flask, executor: Executor, get: t.Any) -> None:
    """What runs on the waiting thread has its own context, and leaves the other's."""

    def child() -> object:
        seen = g.get("mark")
        g.mark = "the child's"
        return seen

    def parent() -> list[object]:
        g.mark = "the parent's"
        return [get(executor.submit(child)), g.mark, current_task.name]

    future = executor.using(name="parent").submit(parent)
    assert future.result(LIMIT) == ["the parent's", "the parent's", "parent"]


def test_failures(executor: Executor) -> None:
    """The failure of a child is the parent's to handle; the worker lives on."""

    def parent() -> str:
        with pytest.raises(ZeroDivisionError):
            executor.submit(divmod, 1, 0).result()
        error = executor.submit(divmod, 1, 0).exception()
        child = executor.submit(exit, 3)
        return f"{type(error).__name__} {child.exception()!r}"

    future = executor.submit(parent)
    assert future.result(LIMIT) == "ZeroDivisionError SystemExit(3)"
    assert executor.submit(abs, -1).result(LIMIT) == 1


def test_references_are_dropped(executor: Executor, get: t.Any) -> None:
    """After the end nothing on the waiting thread refers to the child's call."""
    refs: list[weakref.ref[Secret]] = []

    def child(secret: Secret) -> None: ...

    def parent() -> bool:
        secret = Secret()
        refs.append(weakref.ref(secret))
        future = executor.submit(child, secret)
        del secret
        get(future)
        return True

    assert executor.submit(parent).result(LIMIT)
    executor.shutdown()
    gc.collect()
    assert refs[0]() is None


def test_map_inside_tasks(executor: Executor) -> None:
    """map waits likewise, to any depth."""

    def total(depth: int) -> int:
        return 1 if depth == 0 else sum(executor.map(total, [depth - 1] * 2))

    assert executor.submit(total, 7).result(LIMIT) == 128
    chunked = executor.submit(lambda: sum(executor.map(abs, range(100), chunksize=7)))
    assert chunked.result(LIMIT) == 4950
    limited = executor.submit(lambda: sum(executor.map(abs, range(100), timeout=LIMIT)))
    assert limited.result(LIMIT) == 4950


def test_a_group_inside_a_task(executor: Executor) -> None:
    """So does a group."""

    def parent() -> int:
        with executor.group() as group:
            for n in range(10):
                group.submit(abs, -n)
        return sum(group.results())

    assert executor.submit(parent).result(LIMIT) == 45


def test_awaiting_inside_a_task(executor: Executor) -> None:
    """A task that runs an event loop of its own may await others."""

    async def main() -> int:
        futures = [executor.submit(abs, -n) for n in range(10)]
        return sum([await future for future in futures])

    assert executor.submit(lambda: asyncio.run(main())).result(LIMIT) == 45


def test_awaiting_as_asyncio_does(executor: Executor) -> None:
    """Also through asyncio's own wrap_future, and its gather and wait."""

    async def main() -> list[int]:
        futures = [executor.submit(abs, -n) for n in range(5)]
        return await asyncio.gather(*map(asyncio.wrap_future, futures))

    total = executor.submit(lambda: sum(asyncio.run(main())))
    assert total.result(LIMIT) == 10


def test_coroutines_take_no_worker(executor: Executor, gate: threading.Event) -> None:
    """A coroutine that awaits holds no worker, so nothing stands in for it."""
    occupy(executor, gate)
    children: list[TaskFuture[int]] = []
    awaiting = threading.Event()

    async def parent() -> int:
        children.append(executor.submit(abs, -1))
        asyncio.get_running_loop().call_soon(awaiting.set)
        return await children[0]

    future = executor.submit(parent)
    assert awaiting.wait(LIMIT)
    names = {thread.name for thread in threading.enumerate()}
    assert "executor_stand_in" not in names and not children[0].done()
    gate.set()
    assert future.result(LIMIT) == 1


# Children that cannot begin yet


def test_delayed_children(executor: Executor, get: t.Any) -> None:
    """A child that is not due runs when it is, on a thread that stands in."""

    def parent() -> object:
        return get(executor.using(delay=0.02).submit(abs, -1))

    assert executor.submit(parent).result(LIMIT) == 1


def test_a_child_in_its_pause(executor: Executor, get: t.Any) -> None:
    """A child that is tried again is waited for through its pauses."""

    def child() -> int:
        if current_task.attempt < 3:
            raise ValueError
        return current_task.attempt

    def parent() -> object:
        return get(executor.using(retry=Retry(delay=0.01)).submit(child))

    assert executor.submit(parent).result(LIMIT) == 3


def test_children_with_a_limit(executor: Executor, get: t.Any) -> None:
    """Children that are held by max_concurrency run when they may."""

    @executor.job(max_concurrency=1)
    def limited(n: int) -> int:
        return n

    def parent() -> int:
        futures = [limited.submit(n) for n in range(10)]
        return sum(get(future) for future in reversed(futures))

    assert executor.submit(parent).result(LIMIT) == 45


@pytest.mark.parametrize("get", [WAITS["result"], WAITS["result(timeout)"]])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.holds("g-waiting")
def test_limited_parents(
    app: Flask, executor: Executor, get: t.Any, workers: int
) -> None:
    """A limited job may wait for itself, through others, to any depth: result() leaves
    room for them (wait and as_completed do not).
    """
    app.config["EXECUTOR_MAX_WORKERS"] = workers

    @executor.job(max_concurrency=1)
    def limited(depth: int) -> int:
        return 0 if depth == 0 else int(get(executor.submit(between, depth))) + 1

    def between(depth: int) -> int:
        return int(get(limited.submit(depth - 1)))

    futures = [limited.submit(20) for _ in range(3)]
    assert [future.result(LIMIT) for future in futures] == [20] * 3


def test_a_child_with_a_timeout(executor: Executor, gate: threading.Event) -> None:
    """A parent hears of its child's timeout at the deadline, not at the late end."""

    def parent() -> str:
        child = executor.using(timeout=0.05).submit(gate.wait, LIMIT)
        with pytest.raises(TaskTimeout):
            child.result()
        return "heard it" if not gate.is_set() else "too late"

    assert executor.submit(parent).result(LIMIT) == "heard it"


def test_a_limit_to_the_wait(executor: Executor, gate: threading.Event) -> None:
    """result(timeout) returns in time, though the child goes on."""

    def parent() -> str:
        child = executor.submit(gate.wait, LIMIT)
        try:
            child.result(0.02)
        except concurrent.futures.TimeoutError:
            return "in time" if not gate.is_set() else "too late"
        return "no limit"

    assert executor.submit(parent).result(LIMIT) == "in time"


def test_one_who_was_wanted_once(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """A task that somebody stopped waiting for runs on any free worker."""
    app.config["EXECUTOR_MAX_WORKERS"] = 2
    clock = with_clock(executor)
    delayed: list[TaskFuture[int]] = []

    def parent() -> None:
        delayed.append(executor.using(delay=60).submit(abs, -1))
        for child in (delayed[0], executor.submit(gate.wait, LIMIT)):
            with pytest.raises(concurrent.futures.TimeoutError):
                child.result(0.01)

    executor.submit(parent).result(LIMIT)
    clock.advance(60)
    assert delayed[0].result(LIMIT) == 1
    assert not gate.is_set()


def test_a_cancelled_child(executor: Executor, get: t.Any) -> None:
    """Who waits for a child that is cancelled hears of it."""
    child = executor.using(delay=60).submit(abs, -1)
    waiting = threading.Event()

    def parent() -> str:
        waiting.set()
        try:
            get(child)
        except concurrent.futures.CancelledError:
            return "cancelled"
        return "not"

    future = executor.submit(parent)
    assert waiting.wait(LIMIT)
    assert child.cancel()
    assert future.result(LIMIT) == "cancelled"


def test_a_callback_that_waits(executor: Executor, gate: threading.Event) -> None:
    """A done-callback on a worker's thread may wait for tasks, too."""
    got: list[int] = []
    done = threading.Event()

    def wait(future: t.Any) -> None:
        got.append(executor.submit(abs, -1).result())
        done.set()

    future = executor.submit(gate.wait, LIMIT)
    future.add_done_callback(wait)
    gate.set()
    assert done.wait(LIMIT) and got == [1]


# Other pools


async def sleep_a_little(n: int) -> int:
    await asyncio.sleep(0)
    return n


def test_waiting_for_coroutines(executor: Executor, get: t.Any) -> None:
    """A task on a thread may wait for coroutines: they need no worker."""

    def parent() -> int:
        return sum(get(executor.submit(sleep_a_little, n)) for n in range(10))

    assert executor.submit(parent).result(LIMIT) == 45


def test_coroutines_that_await(executor: Executor) -> None:
    """Coroutines await tasks of either kind, to any depth."""

    async def chain(depth: int) -> int:
        if depth == 0:
            return await executor.submit(abs, -1)
        return await executor.submit(chain, depth - 1)

    assert executor.submit(chain, 300).result(LIMIT) == 1


@pytest.mark.parametrize("verb", ["result", "exception"])
def test_coroutines_that_would_block(executor: Executor, verb: str) -> None:
    """result() in a coroutine would block the loop: it says so, and what to do."""

    async def run() -> str:
        future = executor.using(name="other").submit(sleep_a_little, 1)
        with pytest.raises(LoopBlocked, match="Waiting for other") as info:
            getattr(future, verb)()
        assert isinstance(info.value, RuntimeError)
        assert "await future" in str(info.value)
        assert await future == 1
        assert getattr(future, verb)() in (1, None)  # it is there: nothing blocks
        return "done"

    assert executor.submit(run).result(LIMIT) == "done"


def test_coroutines_that_wait_on_a_thread(executor: Executor) -> None:
    """On a thread of its own a coroutine may wait as anybody."""

    async def run() -> int:
        return await asyncio.to_thread(lambda: executor.submit(abs, -1).result())

    assert executor.submit(run).result(LIMIT) == 1


def test_processes(app: Flask) -> None:
    """Tasks in worker processes have no way to submit; their futures wait as any."""
    app.config["EXECUTOR_TYPE"] = "process"
    executor = Executor(app)

    async def parent() -> int:
        return await executor.submit(control_app.fail_until, 1)

    assert executor.submit(parent).result(LIMIT) == 1
    executor.shutdown()


def test_sync(app: Flask) -> None:
    """In sync there is nothing to wait for."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)

    def chain(depth: int) -> int:
        return 0 if depth == 0 else 1 + executor.submit(chain, depth - 1).result()

    assert executor.submit(chain, 20).result() == 20


def test_another_executor(app: Flask, executor: Executor) -> None:
    """Waiting for another executor's task is plain waiting."""
    app.config["OTHER_EXECUTOR_MAX_WORKERS"] = 1
    other = Executor(app, "other")

    def thread_of_other() -> str:
        return other.submit(lambda: threading.current_thread().name).result()

    assert executor.submit(thread_of_other).result(LIMIT).startswith("other-executor_")
    other.shutdown()


# Waiting for all


def test_shutdown_inside_a_task(executor: Executor) -> None:
    """A shutdown in a task does not wait for that task."""

    def parent() -> str:
        executor.submit(abs, -1)
        executor.shutdown()
        return "returned"

    assert executor.submit(parent).result(LIMIT) == "returned"


def test_drain_inside_a_task(executor: Executor) -> None:
    """A drain would wait for the very task: it says so, and nothing is closed."""
    future = executor.submit(executor.drain)
    error = future.exception(LIMIT)
    assert isinstance(error, WaitsForItself) and isinstance(error, RuntimeError)
    assert "drain waits for all tasks" in str(error)
    assert executor.submit(abs, -1).result(LIMIT) == 1


def test_the_signals_of_what_runs_there(app: Flask, executor: Executor) -> None:
    """A child that runs on the waiting thread is told of as any other."""

    def parent() -> int:
        return executor.using(name="child").submit(abs, -1).result()

    with Journal(app) as journal:
        future = executor.using(name="parent").submit(parent)
        future.result(LIMIT)
    assert [(name, task.name) for name, task, _ in journal.entries] == [
        ("submitted", "parent"),
        ("started", "parent"),
        ("submitted", "child"),
        ("started", "child"),
        ("succeeded", "child"),
        ("succeeded", "parent"),
    ]


def test_no_more_threads_than_it_takes(app: Flask, executor: Executor) -> None:
    """Without a limit to the wait the waiting thread itself runs the child."""

    def name() -> int:
        return threading.get_ident()

    def parent() -> bool:
        return executor.submit(name).result() == threading.get_ident()

    assert executor.submit(parent).result(LIMIT)
