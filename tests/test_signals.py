"""The signals: which, in what order, with what; the last one once, whatever happens."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import typing as t
from collections import Counter

import control_app
import pytest
from control import SIGNALS, TERMINAL, Journal
from flask import Flask, current_app, has_request_context
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import LIMIT

from flask_executor import (
    Executor,
    ExecutorShutDown,
    QueueFull,
    Retry,
    Task,
    TaskTimeout,
    current_task,
    signals,
)

END_OF_STATE = {
    "succeeded": "succeeded",
    "failed": "failed",
    "timed_out": "timed-out",
    "cancelled": "cancelled",
}


@pytest.fixture
def journal(app: Flask) -> t.Iterator[Journal]:
    with Journal(app) as journal:
        yield journal


# The table


def test_success(executor: Executor, journal: Journal) -> None:
    """submitted, started, progressed …, succeeded."""
    future = executor.submit(lambda: [*current_task.track("ab")])
    future.result(LIMIT)
    assert journal.of(future.task) == [
        *("submitted", "started"),
        *("progressed",) * 3,
        "succeeded",
    ]


def test_failure(executor: Executor, journal: Journal) -> None:
    """submitted, started, failed: with the error."""
    future = executor.submit(divmod, 1, 0)
    error = future.exception(LIMIT)
    assert journal.of(future.task) == ["submitted", "started", "failed"]
    (facts,) = journal.facts("failed")
    assert facts["error"] is error


def test_another_try(executor: Executor, journal: Journal) -> None:
    """submitted, then started, retrying for each attempt but the last."""

    def flaky() -> None:
        current_task.progress(current_task.attempt)
        if current_task.attempt < 3:
            raise ValueError(current_task.attempt)

    future = executor.using(retry=Retry(delay=0.01, jitter=0)).submit(flaky)
    future.result(LIMIT)
    again = ["started", "progressed", "retrying"]
    assert journal.of(future.task) == [
        *("submitted", *again, *again, "started", "progressed", "succeeded"),
    ]
    facts = journal.facts("retrying")
    assert [(one["error"].args, one["delay"]) for one in facts] == [
        ((1,), 0.01),
        ((2,), 0.02),
    ]


def test_a_timeout(executor: Executor, journal: Journal, gate: threading.Event) -> None:
    """submitted, started, timed out: with the TaskTimeout."""
    future = executor.using(timeout=0.02).submit(gate.wait, LIMIT)
    error = future.exception(LIMIT)
    gate.set()
    executor.shutdown()
    assert journal.of(future.task) == ["submitted", "started", "timed-out"]
    (facts,) = journal.facts("timed-out")
    assert facts["error"] is error and isinstance(error, TaskTimeout)


def test_cancelled_while_it_waits(executor: Executor, journal: Journal) -> None:
    """submitted, cancelled."""
    future = executor.using(delay=60).submit(abs, -1)
    future.cancel()
    assert journal.of(future.task) == ["submitted", "cancelled"]


def test_cancelled_while_it_runs(executor: Executor, journal: Journal) -> None:
    """submitted, started, cancelled."""
    began = threading.Event()

    async def run() -> None:
        began.set()
        await asyncio.Event().wait()

    future = executor.submit(run)
    assert began.wait(LIMIT)
    future.request_cancel()
    concurrent.futures.wait([future], LIMIT)
    assert journal.of(future.task) == ["submitted", "started", "cancelled"]


def test_what_cannot_run(app: Flask, executor: Executor, journal: Journal) -> None:
    """submitted, failed."""
    nothing: t.Any = None
    future: t.Any = executor.submit(nothing)
    assert isinstance(future.exception(LIMIT), TypeError)
    app.config["PROCESSES_EXECUTOR_TYPE"] = "process"
    processes = Executor(app, "processes")
    unpicklable = processes.submit(control_app.nested, threading.Lock())
    assert unpicklable.exception(LIMIT) is not None
    for task in (future.task, unpicklable.task):
        assert journal.of(task) == ["submitted", "failed"]
    processes.shutdown()


def test_what_is_not_accepted(
    app: Flask, executor: Executor, journal: Journal, gate: threading.Event
) -> None:
    """Nothing is sent for a call that submit refuses."""
    app.config.update(EXECUTOR_MAX_PENDING=1, EXECUTOR_MAX_WORKERS=1)
    executor.using(delay=60).submit(abs, -1)
    with pytest.raises(QueueFull):
        executor.submit(abs, -2)
    executor.shutdown(cancel_futures=True)
    with pytest.raises(ExecutorShutDown):
        executor.submit(abs, -3)
    assert [name for name, _, _ in journal.entries] == ["submitted", "cancelled"]


@pytest.mark.parametrize("kind", ["thread", "loop", "process", "sync"])
def test_on_every_pool(app: Flask, journal: Journal, kind: str) -> None:
    """The order is the same whatever runs the call."""
    app.config["EXECUTOR_TYPE"] = "thread" if kind == "loop" else kind
    executor = Executor(app)

    async def good() -> None: ...

    async def bad() -> None:
        raise ValueError

    fns: tuple[t.Any, t.Any] = (
        (good, bad) if kind == "loop" else (control_app.nested, control_app.throw)
    )
    args = () if kind == "loop" else (ValueError,)
    futures = [executor.submit(fns[0]), executor.submit(fns[1], *args)]
    concurrent.futures.wait(futures, LIMIT)
    executor.shutdown()
    assert [journal.of(future.task) for future in futures] == [
        ["submitted", "started", "succeeded"],
        ["submitted", "started", "failed"],
    ]


# Receivers


@pytest.mark.holds("g-one-end")
def test_sent_before_the_future_ends(app: Flask, executor: Executor) -> None:
    """Who waits for the future finds the last one sent; receivers find it pending."""
    found: list[object] = []

    def receive(sender: Flask, task: Task, **facts: t.Any) -> None:
        found.append((task.state, future_of[task.id].done()))

    future_of: dict[str, t.Any] = {}

    def note(sender: Flask, task: Task, **facts: t.Any) -> None:
        future_of[task.id] = task.future

    with (
        signals.task_submitted.connected_to(note, app),
        signals.task_succeeded.connected_to(receive, app),
        signals.task_failed.connected_to(receive, app),
        signals.task_cancelled.connected_to(receive, app),
    ):
        executor.submit(abs, -1).result(LIMIT)
        executor.submit(divmod, 1, 0).exception(LIMIT)
        executor.using(delay=60).submit(abs, -1).cancel()
    assert found == [("succeeded", False), ("failed", False), ("cancelled", False)]


def test_the_sender_is_the_app(app: Flask) -> None:
    """Receivers can ask for those of one app; others do not reach them."""
    other = Flask("other")
    executor = Executor(app)
    executor.init_app(other)
    with Journal(app) as mine, Journal(other) as theirs:
        with app.app_context():
            first = executor.submit(abs, -1)
        with other.app_context():
            second = executor.submit(abs, -1)
        concurrent.futures.wait([first, second], LIMIT)
    assert {task for _, task, _ in mine.entries} == {first.task}
    assert {task for _, task, _ in theirs.entries} == {second.task}
    assert {facts["sender"] for _, _, facts in mine.entries} == {app}
    for each in (app, other):
        with each.app_context():
            executor.shutdown()


def test_receivers_have_an_app_context(app: Flask, executor: Executor) -> None:
    """Whatever the thread, current_app works, and teardown runs."""
    seen: list[tuple[str, str, bool]] = []
    torn: list[object] = []
    app.teardown_appcontext(torn.append)

    def receive(sender: Flask, task: Task, **facts: t.Any) -> None:
        seen.append((task.state, current_app.name, has_request_context()))

    async def coroutine() -> None: ...

    with (
        signals.task_submitted.connected_to(receive, app),
        signals.task_started.connected_to(receive, app),
        signals.task_succeeded.connected_to(receive, app),
        signals.task_timed_out.connected_to(receive, app),
    ):
        gate = threading.Event()
        executor.submit(coroutine).result(LIMIT)
        executor.submit(abs, -1).result(LIMIT)
        executor.using(timeout=0.02).submit(gate.wait, LIMIT).exception(LIMIT)
        gate.set()
        executor.shutdown()
    assert [state for state, _, _ in seen] == [
        *("waiting", "running", "succeeded") * 2,
        *("waiting", "running", "timed_out"),
    ]
    assert {(name, request) for _, name, request in seen} == {("tests", False)}
    assert len(torn) >= len(seen)


def test_a_receiver_in_a_view(app: Flask, executor: Executor) -> None:
    """task_submitted is heard in the view, on its thread."""
    heard: list[tuple[int, bool]] = []

    def receive(sender: Flask, task: Task) -> None:
        heard.append((threading.get_ident(), has_request_context()))

    with (
        signals.task_submitted.connected_to(receive, app),
        app.test_request_context("/"),
    ):
        executor.submit(abs, -1).result(LIMIT)
    assert heard == [(threading.get_ident(), True)]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
@pytest.mark.holds("g-one-end")
def test_a_receiver_that_raises(
    app: Flask,
    executor: Executor,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
) -> None:
    """It is logged and changes nothing; the others hear it all the same."""

    def broken(sender: Flask, task: Task, **facts: t.Any) -> None:
        raise error("a bad receiver")

    with Journal(app) as before:
        for signal in SIGNALS:
            signal.connect(broken, sender=app)
        try:
            with Journal(app) as after:
                check_all_ends(executor, after)
        finally:
            for signal in SIGNALS:
                signal.disconnect(broken)
    assert len(before.entries) == len(after.entries)
    messages = [r.getMessage() for r in caplog.records if "receiver" in r.getMessage()]
    assert len(messages) == len(after.entries)
    assert "task-succeeded failed for" in " ".join(messages)
    assert "broken" in messages[0]


def check_all_ends(executor: Executor, journal: Journal) -> None:
    def flaky() -> None:
        current_task.progress(1)
        if current_task.attempt < 2:
            raise ValueError

    gate = threading.Event()
    good = executor.using(retry=Retry(delay=0)).submit(flaky)
    bad = executor.submit(divmod, 1, 0)
    slow = executor.using(timeout=0.02).submit(gate.wait, LIMIT)
    cancelled = executor.using(delay=60).submit(abs, -1)
    assert cancelled.cancel()
    assert good.result(LIMIT) is None
    assert isinstance(bad.exception(LIMIT), ZeroDivisionError)
    assert isinstance(slow.exception(LIMIT), TaskTimeout)
    gate.set()
    executor.shutdown()
    for future in (good, bad, slow, cancelled):
        assert future.task is not None
        assert journal.of(future.task)[-1] == END_OF_STATE[future.task.state]


def test_a_teardown_that_raises(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the context of the receivers cannot be left, it is logged; all ends."""
    heard: list[Task] = []

    def receive(sender: Flask, task: Task, **facts: t.Any) -> None:
        heard.append(task)

    @app.teardown_appcontext
    def broken(error: BaseException | None) -> None:
        raise OSError("a bad teardown")

    async def coroutine() -> None: ...

    with (
        signals.task_started.connected_to(receive, app),
        signals.task_failed.connected_to(receive, app),
    ):
        for fn in (coroutine, abs):
            future: t.Any = executor.submit(t.cast(t.Any, fn))
            # What its own context tears down is its own failure.
            assert isinstance(future.exception(LIMIT), OSError | TypeError)
            executor.submit(abs, -1).exception(LIMIT)
    assert len(heard) == 8
    assert "a bad teardown" in caplog.text
    app.teardown_appcontext_funcs.clear()


def test_logging_that_fails(app: Flask, executor: Executor) -> None:
    """Where even that cannot be logged, the task ends all the same."""

    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise OSError("disk full")

    def broken(sender: Flask, task: Task, **facts: t.Any) -> None:
        raise ValueError

    handler = Broken()
    app.logger.addHandler(handler)
    try:
        with signals.task_succeeded.connected_to(broken, app):
            assert executor.submit(abs, -1).result(LIMIT) == 1
    finally:
        app.logger.removeHandler(handler)


def test_a_receiver_that_submits(app: Flask, executor: Executor) -> None:
    """A receiver may submit: the next step of a chain, say."""
    follow_ups: list[t.Any] = []

    def follow(sender: Flask, task: Task, **extra: object) -> None:
        if task.name == "first":
            follow_ups.append(executor.using(name="second").submit(abs, -2))

    with signals.task_succeeded.connected_to(follow, app):
        assert executor.using(name="first").submit(abs, -1).result(LIMIT) == 1
        assert follow_ups[0].result(LIMIT) == 2


def test_without_receivers_nothing_is_made(executor: Executor) -> None:
    """What a call does not use it does not pay for: no id, no dictionary."""
    future = executor.submit(abs, -1)
    future.result(LIMIT)
    assert future.task is not None and future.task._id is None


# Whatever happens


class Step(t.NamedTuple):
    """One task of a schedule."""

    loop: bool
    outcome: t.Literal["return", "raise", "wait", "stop"]
    attempts: int
    timeout: float | None
    delay: float | None
    cancel: t.Literal["", "cancel", "request_cancel", "during"]
    limited: bool
    priority: int


steps = st.builds(
    Step,
    loop=st.booleans(),
    outcome=st.sampled_from(["return", "raise", "wait", "stop"]),
    attempts=st.integers(1, 3),
    timeout=st.sampled_from([None, 1e-6, 0.002, 0.01]),
    delay=st.sampled_from([None, 0.0001, 0.003]),
    cancel=st.sampled_from(["", "", "cancel", "request_cancel", "during"]),
    limited=st.booleans(),
    priority=st.integers(-1, 1),
)


def code(step: Step, gate: threading.Event, n: int) -> t.Any:
    """What the task of a step runs."""

    def act() -> str:
        current_task.progress(1, 2)
        if step.outcome == "raise" and current_task.attempt <= 2:
            raise ValueError
        if step.outcome == "stop":
            current_task.raise_if_cancelled()
        return "done"

    def plain() -> str:
        if step.outcome == "wait":
            gate.wait(LIMIT)
        return act()

    async def coroutine() -> str:
        await asyncio.sleep(0.004 if step.outcome == "wait" else 0)
        return act()

    return coroutine if step.loop else plain


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    schedule=st.lists(steps, min_size=1, max_size=25),
    workers=st.integers(1, 4),
    ending=st.sampled_from(["wait", "shutdown", "cancel_futures", "drain"]),
)
@pytest.mark.holds("g-one-end")
def test_one_end_for_each_task(schedule: list[Step], workers: int, ending: str) -> None:
    """Over any schedule: one end for each task, no start after it, and states that
    agree with the futures.
    """
    app = Flask("schedule")
    app.config.update(EXECUTOR_MAX_WORKERS=workers)
    app.logger.disabled = True
    executor = Executor(app)
    gate = threading.Event()
    with Journal(app) as journal:
        futures = [submit(executor, step, gate, n) for n, step in enumerate(schedule)]
        asking = threading.Thread(target=ask, args=(futures, schedule))
        asking.start()
        if ending == "drain":
            opening = threading.Thread(target=gate.set)
            opening.start()
            executor.drain(LIMIT)
            opening.join(LIMIT)
        gate.set()
        if ending != "wait":
            executor.shutdown(cancel_futures=ending == "cancel_futures")
        assert not concurrent.futures.wait(futures, LIMIT).not_done
        asking.join(LIMIT)
        executor.shutdown()
    for future, step in zip(futures, schedule, strict=True):
        check_order(journal, future, step)
    dispatcher = executor._state().dispatcher
    assert not (
        dispatcher.table.live or dispatcher.table.late or dispatcher.table.running
    )
    counts = Counter(name for name, _, _ in journal.entries)
    assert counts["submitted"] == len(schedule)
    assert sum(counts[name] for name in TERMINAL) == len(schedule)


def submit(executor: Executor, step: Step, gate: threading.Event, n: int) -> t.Any:
    fn = code(step, gate, n)
    if step.limited:
        fn = executor.job(max_concurrency=1)(fn)
    options: dict[str, t.Any] = {"priority": step.priority, "timeout": step.timeout}
    if step.delay:
        options["delay"] = step.delay
    if step.attempts > 1:
        on = (ValueError, TaskTimeout) if step.loop else (ValueError,)
        options["retry"] = Retry(attempts=step.attempts, delay=0.001, on=on)
    future = (fn if step.limited else executor).using(**options)
    future = future.submit() if step.limited else future.submit(fn)
    if step.cancel in ("cancel", "request_cancel"):
        getattr(future, step.cancel)()
    return future


def ask(futures: list[t.Any], schedule: list[Step]) -> None:
    """Ask some to stop while they run."""
    for future, step in zip(futures, schedule, strict=True):
        if step.cancel == "during":
            future.request_cancel()


def check_order(journal: Journal, future: t.Any, step: Step) -> None:
    task: Task = future.task
    order = journal.of(task)
    told = (order, step, task)
    assert order[0] == "submitted" and order.count("submitted") == 1, told
    assert [name for name in order if name in TERMINAL] == [order[-1]], told
    assert order[-1] == END_OF_STATE[task.state], told
    assert order.count("started") == task.attempt <= step.attempts, told
    assert order.count("retrying") <= max(task.attempt, 0), told
    attempts = [name for name in order if name in ("started", "retrying")]
    assert attempts[::2] == ["started"] * len(attempts[::2]), told
    assert attempts[1::2] == ["retrying"] * len(attempts[1::2]), told
    assert future.done() and future.cancelled() == (task.state == "cancelled"), told
    if task.state == "succeeded":
        assert future.result(0) == "done", told
    elif task.state != "cancelled":
        timed_out = isinstance(future.exception(0), TaskTimeout)
        assert timed_out == (task.state == "timed_out"), told
    assert task._call is None and task.future is None and not task.overrun, told
    assert task._error is None and task.finished_at is not None, told
    assert (task.started_at is None) == (task.attempt == 0), told
