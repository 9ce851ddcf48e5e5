"""What the code inside a task may ask of it, and tell it."""

from __future__ import annotations

import asyncio
import sys
import threading
import typing as t
from concurrent.futures import wait

import control_app
import pytest
from control import Journal
from flask import Flask, render_template_string
from hypothesis import given
from hypothesis import strategies as st
from internals import CurrentTask
from limits import LIMIT

from flask_executor import Executor, NoCurrentTask, Progress, current_task


class Inside:
    """Stands behind current_task in place of a task."""

    id = name = "inside"
    key = None
    attempt = 1
    deadline = None

    def __init__(self) -> None:
        self.reports: list[Progress] = []
        self.cancel_requested = False

    def remaining(self) -> float | None:
        return None

    def report(self, progress: Progress) -> None:
        self.reports.append(progress)


def ask() -> tuple[t.Any, ...]:
    return (
        current_task.id,
        current_task.name,
        current_task.key,
        current_task.attempt,
        current_task.deadline,
        current_task.remaining(),
        current_task.cancel_requested,
    )


async def ask_async() -> tuple[t.Any, ...]:
    await asyncio.sleep(0)
    return ask()


def name_or_none() -> str | None:
    try:
        return current_task.name
    except NoCurrentTask:
        return None


# What it is


@pytest.mark.parametrize("fn", [ask, ask_async])
def test_what_code_may_ask(executor: Executor, fn: t.Any) -> None:
    """Threads and coroutines know the task whose code they are."""
    future = executor.using(name="asks", key=("a", 1)).submit(fn)
    task = future.task
    assert task is not None
    assert future.result(LIMIT) == (task.id, "asks", ("a", 1), 1, None, None, False)
    other = executor.submit(fn)
    assert other.result(LIMIT)[0] != task.id
    assert other.result()[1] == f"test_current.{fn.__name__}"


def test_in_a_worker_process(app: Flask) -> None:
    """So does code in a worker process: the same id, name and key."""
    app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=1)
    executor = Executor(app)
    future = executor.using(name="asks", key=("a", 1)).submit(control_app.known)
    task = future.task
    assert task is not None
    assert future.result(LIMIT) == (task.id, "asks", ("a", 1), 1, None)
    stored = executor.submit_stored(lambda: None, control_app.known)
    assert stored.result(LIMIT)[2] is None  # a key that does not pickle
    executor.shutdown()


def test_in_sync(app: Flask) -> None:
    """So does a call that runs in submit; after it there is none again."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)
    with app.app_context():
        assert executor.using(name="outer").submit(ask).result()[1] == "outer"
        assert executor.using(name="coroutine").submit(ask_async).result()[1] == (
            "coroutine"
        )
        assert name_or_none() is None

        def outer() -> list[str | None]:
            inner = executor.using(name="inner").submit(name_or_none)
            return [inner.result(), name_or_none()]

        assert executor.using(name="outer").submit(outer).result() == [
            "inner",
            "outer",
        ]


def test_in_chunks(executor: Executor) -> None:
    """The calls of a chunk are one task."""
    ids = executor.map(lambda _: current_task.id, range(6), chunksize=3)
    first, second = [*ids][::3]
    assert first != second


def test_outside(app: Flask, executor: Executor) -> None:
    """Where no task runs each use says so, and what to ask instead."""
    for use in (
        lambda: current_task.id,
        lambda: current_task.progress(1),
        lambda: current_task.raise_if_cancelled(),
        lambda: [*current_task.track([1])],
        lambda: current_task.remaining(),
    ):
        with pytest.raises(NoCurrentTask, match=r"use future\.task") as info:
            use()
        assert isinstance(info.value, RuntimeError)
    assert not current_task
    assert "unbound" in repr(current_task)
    with app.app_context(), pytest.raises(NoCurrentTask):
        current_task.name  # noqa: B018


def test_it_shows_itself(executor: Executor) -> None:
    """Inside a task its repr has the name and the attempt."""
    shown = executor.using(name="shown").submit(lambda: repr(current_task))
    assert shown.result(LIMIT) == "<CurrentTask shown attempt 1>"


def test_in_a_template(executor: Executor) -> None:
    """It is a proxy as Flask's own, so it can be passed on."""

    def render() -> str:
        return render_template_string("{{ task.name }}", task=current_task)

    assert executor.using(name="page").submit(render).result(LIMIT) == "page"


def test_it_stays_with_the_task(executor: Executor) -> None:
    """A coroutine's helpers, and threads it asks for, see the same task."""

    async def run() -> set[str]:
        names = await asyncio.gather(
            ask_async(), asyncio.to_thread(ask), asyncio.create_task(ask_async())
        )
        return {name[1] for name in names}

    assert executor.using(name="one").submit(run).result(LIMIT) == {"one"}


def test_thousands_of_coroutines(executor: Executor) -> None:
    """Each one knows itself, however they are interleaved."""

    async def run(n: int) -> bool:
        for _ in range(3):
            await asyncio.sleep(0)
        return current_task.key == n

    futures = [executor.submit_stored(n, run, n) for n in range(2000)]
    assert all(future.result(LIMIT) for future in futures)


# Whose it is not


def test_children_are_themselves(executor: Executor) -> None:
    """A task submitted by a task is its own, on whichever thread it runs."""

    async def coroutine() -> str | None:
        return name_or_none()

    def parent() -> list[str | None]:
        view = executor.using(name="child")
        limited = view.submit(name_or_none).result(LIMIT)  # on a helper thread
        inline = view.submit(name_or_none).result()
        return [inline, limited, view.submit(coroutine).result(), name_or_none()]

    names = executor.using(name="parent").submit(parent).result(LIMIT)
    assert names == ["child", "child", "child", "parent"]


def test_callbacks_are_none(executor: Executor) -> None:
    """Done-callbacks are no code of a task, though they were added in one."""
    seen: list[object] = []
    executor.add_default_done_callback(lambda future: seen.append(name_or_none()))

    async def coroutine() -> None: ...

    def parent() -> None:
        for fn in (name_or_none, coroutine):
            child: t.Any = executor.using(delay=0.01).submit(t.cast(t.Any, fn))
            child.add_done_callback(lambda future: seen.append(name_or_none()))
            child.result()

    executor.submit(parent).result(LIMIT)
    executor.shutdown()
    assert seen == [None] * 5


def test_a_callback_of_a_child_in_sync(app: Flask) -> None:
    """Nor where submit runs the call, within the code of another one."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)
    seen: list[object] = []
    executor.add_default_done_callback(lambda future: seen.append(name_or_none()))

    def parent() -> None:
        executor.using(name="child").submit(abs, -1)

    with app.app_context():
        executor.using(name="parent").submit(parent)
    assert len(seen) == 2 and "child" not in seen


def test_plain_threads_have_none(executor: Executor) -> None:
    """A thread that a task starts itself is no part of it."""

    def parent() -> list[object]:
        seen: list[object] = []
        thread = threading.Thread(target=lambda: seen.append(name_or_none()))
        thread.start()
        thread.join(LIMIT)
        return seen

    (seen,) = executor.submit(parent).result(LIMIT)
    # Python 3.14 can be told to have threads inherit contexts, and so the task.
    assert (seen is None) is not bool(getattr(sys.flags, "thread_inherit_context", 0))


def test_worker_threads_forget_it(app: Flask, executor: Executor) -> None:
    """A worker that has run a task has none when it uses the pool bare."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    executor.submit(ask).result(LIMIT)
    assert executor._self.submit(name_or_none).result(LIMIT) is None


# Progress


def test_progress(app: Flask, executor: Executor) -> None:
    """What the task tells is there at once, and sent as a signal."""
    told, go_on = threading.Event(), threading.Event()

    def run() -> None:
        current_task.progress(1, 4, "one of four")
        told.set()
        go_on.wait(LIMIT)
        current_task.progress(4, 4)

    with Journal(app) as journal:
        future = executor.submit(run)
        task = future.task
        assert task is not None
        assert told.wait(LIMIT)
        assert task.progress == Progress(1, 4, "one of four")
        assert task.progress.fraction == 0.25
        go_on.set()
        future.result(LIMIT)
    assert task.progress == Progress(4, 4, "") and task.progress.fraction == 1
    assert journal.of(task) == [
        *("submitted", "started", "progressed", "progressed", "succeeded"),
    ]


def test_no_progress(executor: Executor) -> None:
    """A task that tells nothing has none."""
    future = executor.submit(abs, -1)
    future.result(LIMIT)
    assert future.task is not None and future.task.progress is None


@given(
    st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
    st.none() | st.floats(0, allow_infinity=False) | st.integers(0),
)
def test_fractions(done: float, total: float | None) -> None:
    """The fraction is a share, whatever was told; None where there is no total."""
    fraction = Progress(done, total).fraction
    if not total:
        assert fraction is None
    else:
        assert fraction is not None and 0 <= fraction <= 1


def test_track() -> None:
    """Each item is told of before it is worked on, and the last when it is done."""
    inside = Inside()
    track = CurrentTask(inside).track(["a", "b"], message="letters")
    assert next(track) == "a"
    assert inside.reports == [Progress(0, 2, "letters")]
    assert [*track] == ["b"]
    assert [report.done for report in inside.reports] == [0, 1, 2]


def test_track_of_what_has_no_length() -> None:
    """Without a length there is no total; one can be given."""
    for total in (None, 5):
        inside = Inside()
        items = [*CurrentTask(inside).track((n for n in range(3)), total)]
        assert items == [0, 1, 2]
        assert inside.reports[-1] == Progress(3, total, "")


def test_track_of_nothing() -> None:
    """Nothing to do is done at once."""
    inside = Inside()
    assert [*CurrentTask(inside).track([])] == []
    assert [report.done for report in inside.reports] == [0]


def test_track_that_is_left() -> None:
    """Who leaves the loop early has not told of what was not done."""
    inside = Inside()
    for item in CurrentTask(inside).track(range(10)):
        if item == 3:
            break
    assert inside.reports[-1] == Progress(3, 10, "")


def test_track_in_a_helper(executor: Executor) -> None:
    """A track that is handed on still belongs to the task that made it."""

    def run() -> int:
        return sum(current_task.track([1, 2, 3]))

    future = executor.submit(run)
    assert future.result(LIMIT) == 6
    assert future.task is not None and future.task.progress == Progress(3, 3, "")


@pytest.fixture
def processes(app: Flask) -> t.Iterator[Executor]:
    app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=1)
    executor = Executor(app)
    yield executor
    executor.shutdown()


@pytest.mark.parametrize("name", ["report", "report_and_fail"])
def test_progress_of_a_process(app: Flask, processes: Executor, name: str) -> None:
    """Of many reports some are passed on, in order, and always the last one."""
    with Journal(app) as journal:
        future = processes.submit(getattr(control_app, name), 5000)
        wait([future], LIMIT)
    task = future.task
    assert task is not None
    assert task.progress == Progress(5000, 5000, "5000 of 5000")
    order = journal.of(task)
    count = order.count("progressed")
    assert 1 <= count < 1000
    end = "succeeded" if name == "report" else "failed"
    assert order == ["submitted", "started", *["progressed"] * count, end]


def test_long_messages_of_a_process(processes: Executor) -> None:
    """A message that is too long is cut; nothing blocks."""
    future = processes.submit(control_app.report_message, "x" * 100_000)
    assert future.result(LIMIT) is None
    assert future.task is not None and future.task.progress is not None
    assert 0 < len(future.task.progress.message) < 5000


def test_progress_where_nobody_reads(processes: Executor) -> None:
    """Reports that pile up keep neither the task nor its process waiting."""
    view = processes.using(name="many")
    futures = [view.submit(control_app.report, 2000) for _ in range(5)]
    assert not wait(futures, LIMIT).not_done
    assert [future.exception() for future in futures] == [None] * 5


def test_odd_reports(executor: Executor, processes: Executor) -> None:
    """A report that cannot travel costs the report, not the worker."""
    future = processes.submit(control_app.report_odd)
    wait([future], LIMIT)
    assert future.done()
    assert processes.submit(control_app.pid).result(LIMIT)


def test_reports_of_an_ended_task(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """What a run tells after its timeout changes nothing, and is not sent."""
    reported = threading.Event()

    def run() -> None:
        gate.wait(LIMIT)
        current_task.progress(1, 1)
        reported.set()

    with Journal(app) as journal:
        future = executor.using(timeout=0.05).submit(run)
        future.exception(LIMIT)
        gate.set()
        assert reported.wait(LIMIT)
    assert future.task is not None and future.task.progress is None
    assert journal.of(future.task) == ["submitted", "started", "timed-out"]
