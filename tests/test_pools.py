"""What every pool promises: one suite, which all of them run.

A call is a plain function or, for the event loop, a coroutine function; what the tests
wait for is told through a socket, which works from any thread, loop or process.
"""

from __future__ import annotations

import concurrent.futures
import gc
import threading
import typing as t
import weakref
from concurrent.futures import Future

import process_app
import pytest
from control import Door
from internals import (
    Attempt,
    Call,
    LoopPool,
    Options,
    Outcome,
    PebblePool,
    Pool,
    ProcessPool,
    SyncPool,
    Task,
    ThreadPool,
    bare_owner,
)
from limits import LIMIT

from flask_executor.errors import ExecutorShutDown


class Kind(t.NamedTuple):
    """A pool with one worker, and the functions that it runs."""

    make: t.Callable[[], t.Any]
    echo: t.Any = process_app.echo
    throw: t.Any = process_app.throw
    ask: t.Any = process_app.ask


KINDS = {
    "thread": Kind(lambda: ThreadPool(1, "executor-pool")),
    "process": Kind(lambda: ProcessPool(1, "executor-pool")),
    "pebble": Kind(lambda: PebblePool(1, "executor-pool")),
    "loop": Kind(
        lambda: LoopPool("executor-pool"),
        process_app.echo_async,
        process_app.throw_async,
        process_app.ask_async,
    ),
    "sync": Kind(SyncPool),
}
WAITING = [name for name in KINDS if name != "sync"]
"""The pools where a task can be under way while the test goes on."""
IN_LINE = ["thread", "process", "pebble"]
"""The pools whose one worker keeps others waiting."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def pool(kind: Kind) -> t.Iterator[t.Any]:
    pool = kind.make()
    yield pool
    pool.shutdown()


@pytest.fixture
def gate(pool: t.Any) -> t.Iterator[Door]:
    gate = Door()
    yield gate
    gate.close()


class Judging(type(bare_owner)):  # type: ignore[misc]
    """Gives the future what comes of a call, and tells what it was."""

    def __init__(self, judge: t.Callable[[Task, Outcome], object]) -> None:
        self.judge = judge

    def finish(self, attempt: Attempt, outcome: Outcome) -> None:
        self.judge(attempt.task, outcome)
        super().finish(attempt, outcome)


def task_of(
    fn: t.Any, *args: t.Any, owner: t.Any = bare_owner, **options: t.Any
) -> Task:
    return Task(Future(), Call(fn, args, {}), owner, Options(**options))


def launch(pool: Pool, task: Task) -> Future[t.Any]:
    future = t.cast("Future[t.Any]", task.future)
    if pool.serializes:
        pool.prepare(task._call)
    pool.enqueue(task)
    return future


def start(
    pool: Pool, fn: t.Any, *args: t.Any, owner: t.Any = bare_owner
) -> Future[t.Any]:
    return launch(pool, task_of(fn, *args, owner=owner))


def test_it_is_an_executor_with_flags(pool: t.Any) -> None:
    """A pool is an Executor of the standard library, and says what it can do."""
    assert isinstance(pool, concurrent.futures.Executor)
    assert pool.runs_in_caller is isinstance(pool, SyncPool)


def test_result(pool: t.Any, kind: Kind) -> None:
    """A task that is started runs, and its outcome is judged."""
    assert start(pool, kind.echo, 1, "two").result(LIMIT) == (1, "two")


@pytest.mark.parametrize("error", [KeyError, SystemExit, KeyboardInterrupt])
@pytest.mark.holds("g-ends")
def test_whatever_a_call_raises_ends_that_call_alone(
    pool: t.Any, kind: Kind, error: type[BaseException]
) -> None:
    """An exception, of whatever kind, is the outcome; the next call runs."""
    future = start(pool, kind.throw, error, 7)
    assert type(future.exception(LIMIT)) is error
    assert t.cast(BaseException, future.exception()).args == (7,)
    assert start(pool, kind.echo, 1).result(LIMIT) == (1,)


@pytest.mark.holds("g-exactly-once")
def test_each_task_is_judged_once(pool: t.Any, kind: Kind) -> None:
    """Of many tasks each is judged once."""
    judged: list[int] = []
    judging = Judging(lambda task, outcome: judged.append(outcome.value[0]))
    futures = [start(pool, kind.echo, n, owner=judging) for n in range(50)]
    concurrent.futures.wait(futures, LIMIT)
    assert sorted(judged) == [*range(50)]


def test_after_shutdown(pool: t.Any, kind: Kind) -> None:
    """A pool that is shut down accepts nothing, and leaves the task as it was."""
    start(pool, kind.echo).result(LIMIT)
    pool.shutdown()
    task = task_of(kind.echo)
    future = t.cast("Future[t.Any]", task.future)
    with pytest.raises(ExecutorShutDown, match=kind.echo.__name__):
        launch(pool, task)
    assert task._call is not None
    assert repr(task) == f"<Task process_app.{kind.echo.__name__} waiting>"
    assert not future.done() and future.cancel()


def test_shutdown_of_a_pool_that_never_started(pool: t.Any) -> None:
    """A pool that had nothing to do shuts down at once, as often as asked."""
    pool.shutdown()
    pool.shutdown(wait=False, cancel_futures=True)


def test_room(pool: t.Any) -> None:
    """A pool says how many more tasks would begin at once; None: there is no limit."""
    has_workers = pool.kind in IN_LINE
    assert [pool.room(at_work) for at_work in (0, 1, 2)] == (
        [1, 0, 0] if has_workers else [None] * 3
    )


@pytest.mark.parametrize("kind", [KINDS[name] for name in WAITING], ids=WAITING)
@pytest.mark.holds("g-shutdown")
def test_shutdown_waits(pool: t.Any, kind: Kind, gate: Door) -> None:
    """With wait it returns when all that was accepted has run."""
    running = start(pool, kind.ask, gate.port)
    gate.reached()
    waiting = start(pool, kind.echo, 1)
    pool.shutdown(wait=False)
    assert not running.done()
    gate.open()
    pool.shutdown(wait=True)
    assert running.result(0) == b"x" and waiting.result(0) == (1,)


@pytest.mark.parametrize("kind", [KINDS[name] for name in IN_LINE], ids=IN_LINE)
@pytest.mark.holds("g-shutdown-cancel")
def test_shutdown_cancels_what_waits(pool: t.Any, kind: Kind, gate: Door) -> None:
    """With cancel_futures what has begun ends, what waits is cancelled."""
    running = start(pool, kind.ask, gate.port)
    gate.reached()
    waiting = [start(pool, kind.echo) for _ in range(3)]
    assert waiting[1].cancel()  # somebody was faster
    pool.shutdown(wait=False, cancel_futures=True)
    assert [future.cancelled() for future in (running, *waiting)] == [False] + [
        True
    ] * 3
    gate.open()
    assert running.result(LIMIT) == b"x"


@pytest.mark.parametrize("kind", [KINDS[name] for name in IN_LINE], ids=IN_LINE)
@pytest.mark.holds("g-cancelled")
def test_a_cancelled_task_does_not_run(pool: t.Any, kind: Kind, gate: Door) -> None:
    """What is cancelled while it waits is passed over, and never judged."""
    running = start(pool, kind.ask, gate.port)
    gate.reached()
    judged: list[Outcome] = []
    judging = Judging(lambda task, outcome: judged.append(outcome))
    cancelled = start(pool, kind.echo, owner=judging)
    last = start(pool, kind.echo, 1)
    assert cancelled.cancel()
    assert not running.cancel()
    gate.open()
    assert last.result(LIMIT) == (1,)
    assert judged == []


@pytest.mark.parametrize("kind", [KINDS[name] for name in WAITING], ids=WAITING)
def test_shutdown_by_a_callback(pool: t.Any, kind: Kind) -> None:
    """A shutdown on a thread of the pool itself does not wait for that thread."""
    ended = threading.Event()
    task = task_of(kind.echo, 1)
    future = t.cast("Future[t.Any]", task.future)

    def end(future: Future[t.Any]) -> None:
        pool.shutdown(wait=isinstance(pool, LoopPool))
        ended.set()

    future.add_done_callback(end)
    launch(pool, task)
    assert ended.wait(LIMIT)
    assert future.result(0) == (1,)


class Thing:
    """An argument that a weak reference can point to."""


@pytest.mark.holds("g-references")
def test_references_are_dropped(pool: t.Any, kind: Kind) -> None:
    """After the end nothing refers to the arguments, not even the kept task."""
    thing = Thing()
    ref = weakref.ref(thing)
    task = task_of(kind.throw, KeyError)
    task._call.kwargs["unknown"] = thing
    del thing
    future = launch(pool, task)
    assert isinstance(future.exception(LIMIT), BaseException)
    future.exception().__traceback__ = None  # type: ignore[union-attr]
    pool.shutdown()
    gc.collect()
    assert ref() is None
    assert task._call is None and task.name.startswith("process_app.throw")


def test_bare_calls(pool: t.Any, kind: Kind) -> None:
    """A pool takes calls of its own, as an Executor: no context, plain futures."""
    futures = [pool.submit(kind.echo, n) for n in range(3)]
    done = concurrent.futures.as_completed(futures, LIMIT)
    assert sorted(future.result() for future in done) == [(0,), (1,), (2,)]
    assert list(pool.map(kind.echo, "ab", timeout=LIMIT)) == [("a",), ("b",)]
    assert isinstance(pool.submit(kind.throw, KeyError).exception(LIMIT), KeyError)
