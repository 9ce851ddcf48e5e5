"""Trying again: the policy, the pauses, and what is told of each attempt."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import io
import logging
import math
import threading
import typing as t
import weakref
from concurrent.futures import wait
from datetime import timedelta

import control_app
import pytest
from control import Journal, occupy, until, with_clock
from flask import Flask, g, request
from hypothesis import given
from hypothesis import strategies as st
from limits import LIMIT
from werkzeug.datastructures import FileStorage

from flask_executor import (
    Executor,
    Retry,
    TaskTimeout,
    WorkerLost,
    current_task,
)

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="none")


class Secret:
    """Something whose end can be seen."""


class Failure(Exception):
    """One that a weak reference can point to."""


class Flaky:
    """Fails until an attempt; notes what it saw in each."""

    def __init__(self, until: int, error: type[BaseException] = ValueError) -> None:
        self.until = until
        self.error = error
        self.attempts: list[int] = []
        self.ids: set[str] = set()

    def __call__(self, *args: object) -> int:
        attempt = current_task.attempt
        self.attempts.append(attempt)
        self.ids.add(current_task.id)
        if attempt < self.until:
            raise self.error(attempt)
        return attempt


# The policy


def test_pauses_grow() -> None:
    """Each pause is longer by the backoff, up to the longest."""
    retry = Retry(attempts=6, delay=2, backoff=3, max_delay=20, jitter=0)
    pauses = [retry.pause_after(n, ValueError()) for n in range(1, 7)]
    assert pauses == [2, 6, 18, 20, 20, None]


def test_jitter() -> None:
    """A share of the pause is left to chance, either way."""
    retry = Retry(delay=10, jitter=0.2)
    error = ValueError()
    assert retry.pause_after(1, error, lambda: 0.0) == 8
    assert retry.pause_after(1, error, lambda: 0.5) == 10
    assert retry.pause_after(1, error, lambda: 1.0) == 12
    assert len({retry.pause_after(1, error) for _ in range(20)}) > 1


def test_which_exceptions() -> None:
    """Only those named, and what inherits from them."""
    retry = Retry(on=(LookupError, OSError))
    for error in (KeyError(), IndexError(), TimeoutError()):
        assert retry.pause_after(1, error) is not None
    for other in (ValueError(), SystemExit(), KeyboardInterrupt()):
        assert retry.pause_after(1, other) is None
    assert Retry(on=OSError).on == (OSError,)
    assert Retry().pause_after(1, KeyboardInterrupt()) is None
    assert Retry(on=BaseException).pause_after(1, SystemExit()) is not None


def test_it_is_a_value() -> None:
    """Equal where its fields are, frozen, and with seconds for timedeltas."""
    assert Retry(delay=timedelta(minutes=1)) == Retry(delay=60.0)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        Retry().delay = 3  # type: ignore[misc]


@given(
    st.builds(
        Retry,
        attempts=st.integers(1, 10**6),
        delay=st.floats(0, 1e9),
        backoff=st.floats(0, 1e9),
        max_delay=st.floats(0, 1e9),
        jitter=st.floats(0, 1),
    ),
    st.integers(1, 10**6),
    st.floats(0, 1),
)
@pytest.mark.holds("g-attempts")
def test_any_policy(retry: Retry, attempt: int, chance: float) -> None:
    """Whatever its fields, a pause is a time, and there are no more than attempts."""
    pause = retry.pause_after(attempt, ValueError(), lambda: chance)
    if attempt >= retry.attempts:
        assert pause is None
    else:
        assert pause is not None and math.isfinite(pause) and pause >= 0
        assert pause <= retry.max_delay * (1 + retry.jitter) * (1 + 1e-9)
        assert pause == retry.pause_after(attempt, ValueError(), lambda: chance)


# Threads


@pytest.mark.holds("g-same-future")
def test_tried_until_it_succeeds(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """The same future and the same id throughout; every attempt is told of."""
    clock = with_clock(executor)
    flaky = Flaky(3)
    view = executor.using(retry=Retry(delay=4, jitter=0), name="flaky", key=7)
    with Journal(app) as journal:
        future = view.submit(flaky)
        task = future.task
        assert task is not None
        assert clock.to_next() == 4
        assert clock.to_next() == 8
        assert future.result(LIMIT) == 3
    assert executor.futures[7] is future and future.task is task
    assert flaky.attempts == [1, 2, 3] and flaky.ids == {task.id}
    assert (task.state, task.attempt) == ("succeeded", 3)
    assert journal.of(task) == [
        *("submitted", "started", "retrying", "started", "retrying"),
        *("started", "succeeded"),
    ]
    assert [
        (facts["error"].args, facts["delay"]) for facts in journal.facts("retrying")
    ] == [((1,), 4), ((2,), 8)]
    assert [record.getMessage() for record in caplog.records] == [
        "Task flaky (key 7) failed in attempt 1 of 3, next in 4 s: ValueError: 1",
        "Task flaky (key 7) failed in attempt 2 of 3, next in 8 s: ValueError: 2",
    ]
    for record in caplog.records:
        assert record.levelno == logging.WARNING and record.exc_info is None
    executor.shutdown()
    assert clock.is_idle


@pytest.mark.holds("g-attempts")
def test_given_up_after_the_last(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """After the last attempt the future has the last error."""
    flaky = Flaky(9)
    with Journal(app) as journal:
        future = executor.using(retry=Retry(attempts=3, delay=0)).submit(flaky)
        error = future.exception(LIMIT)
    assert isinstance(error, ValueError) and error.args == (3,)
    assert flaky.attempts == [1, 2, 3]
    assert journal.of(future.task)[-3:] == ["retrying", "started", "failed"]
    assert [facts["error"] for facts in journal.facts("failed")] == [error]
    assert caplog.records[-1].getMessage().endswith("failed")
    assert len(caplog.records) == 3


def test_other_errors_end_it(executor: Executor) -> None:
    """An exception that is not named ends the task at once."""
    flaky = Flaky(9, KeyError)
    future = executor.using(retry=Retry(on=OSError)).submit(flaky)
    assert isinstance(future.exception(LIMIT), KeyError)
    assert flaky.attempts == [1]


def test_one_attempt_is_none_again(executor: Executor) -> None:
    """retry=1 is as good as none, over a config that says more."""
    executor._last_app.config["EXECUTOR_RETRY"] = 3  # type: ignore[union-attr]
    flaky = Flaky(9)
    executor.using(retry=1).submit(flaky).exception(LIMIT)
    assert flaky.attempts == [1]
    flaky = Flaky(9)
    executor.using(retry=None).submit(flaky).exception(LIMIT)
    assert flaky.attempts == [1]


def test_a_pause_holds_no_worker(app: Flask, executor: Executor) -> None:
    """The one worker runs others meanwhile; the future is pending."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    clock = with_clock(executor)
    future = executor.using(retry=Retry(delay=60, jitter=0)).submit(Flaky(2))
    clock.armed()
    assert executor.submit(abs, -1).result(LIMIT) == 1
    assert future.task is not None and future.task.state == "retrying"
    assert not future.done() and not future.running()
    clock.advance(60)
    assert future.result(LIMIT) == 2


@pytest.mark.holds("g-same-future")
def test_nothing_is_done_before_the_end(executor: Executor) -> None:
    """Callbacks and waiters hear of the end alone."""
    clock = with_clock(executor)
    called: list[t.Any] = []
    future = executor.using(retry=Retry(delay=5, jitter=0)).submit(Flaky(3))
    future.add_done_callback(lambda future: called.append(future.result()))
    clock.armed()
    assert not called and wait([future], 0).not_done
    with pytest.raises(TimeoutError):
        future.result(0)
    clock.to_next()
    clock.to_next()
    assert future.result(LIMIT) == 3
    executor.shutdown()
    assert called == [3]


def test_each_attempt_has_its_own_timeout(executor: Executor) -> None:
    """The deadline is that of the run, and none holds in the pause."""
    clock = with_clock(executor)
    seen: list[float | None] = []

    def flaky() -> None:
        seen.append(current_task.deadline)
        if current_task.attempt < 2:
            raise ValueError

    view = executor.using(timeout=5, retry=Retry(delay=60, jitter=0))
    future = view.submit(flaky)
    until(lambda: clock.timer.next_due() == 60)
    assert future.task is not None and future.task._run is not None
    clock.advance(60)
    future.result(LIMIT)
    executor.shutdown()
    assert seen == [5.0, 65.0]
    assert clock.is_idle


def test_each_attempt_has_a_fresh_context(app: Flask, executor: Executor) -> None:
    """What an attempt does to g, the request, ContextVars or an upload is its own."""
    seen: list[t.Any] = []

    def flaky(file: FileStorage) -> None:
        again = (
            g.get("mark"),
            var.get(),
            request.files["file"].read(),
            file.read(),
            request.form["name"],
        )
        seen.append(again)
        g.mark = "set by an attempt"
        var.set("set by an attempt")
        request.files["file"].close()
        if current_task.attempt < 3:
            raise ValueError

    @app.post("/")
    def view() -> str:
        upload = request.files["file"]
        executor.using(retry=Retry(delay=0)).submit(flaky, upload).result(LIMIT)
        return ""

    data = {"name": "ada", "file": (io.BytesIO(b"data"), "f.bin")}
    var.set("the view's")
    assert app.test_client().post("/", data=data).status_code == 200
    assert seen == [(None, "the view's", b"data", b"data", "ada")] * 3


@pytest.mark.holds("g-teardown")
def test_teardown_runs_for_each_attempt(app: Flask, executor: Executor) -> None:
    """The app's teardown functions see each attempt end, and its error."""
    torn: list[type[BaseException] | None] = []
    app.teardown_appcontext(lambda error: torn.append(type(error) if error else None))
    executor.using(retry=Retry(delay=0)).submit(Flaky(3)).result(LIMIT)
    executor.shutdown()
    assert torn[:3] == [ValueError, ValueError, None]


@pytest.mark.holds("g-references")
def test_references_are_dropped(app: Flask, executor: Executor) -> None:
    """After the end nothing of the call is kept, nor the errors of earlier attempts."""
    app.config["EXECUTOR_LOG_EXCEPTIONS"] = False  # pytest keeps what is logged
    errors: list[weakref.ref[BaseException]] = []
    secret = Secret()
    ref = weakref.ref(secret)

    def flaky(secret: Secret) -> int:
        mine = secret  # noqa: F841
        if current_task.attempt < 3:
            error = Failure()
            errors.append(weakref.ref(error))
            raise error
        return 1

    future = executor.using(retry=Retry(delay=0)).submit(flaky, secret)
    del secret
    assert future.result(LIMIT) == 1
    executor.shutdown()
    gc.collect()
    assert ref() is None and [error() for error in errors] == [None, None]


def test_retries_without_a_pause_under_load(app: Flask, executor: Executor) -> None:
    """Attempts that follow each other at once, on many workers, are all judged."""
    with Journal(app) as journal:
        view = executor.using(retry=Retry(attempts=5, delay=0))
        futures = [view.submit(Flaky(1 + n % 6)) for n in range(600)]
        assert not wait(futures, LIMIT).not_done
        executor.shutdown()
    for n, future in enumerate(futures):
        task = future.task
        assert task is not None
        assert task.attempt == min(1 + n % 6, 5)
        assert task.state == ("failed" if n % 6 == 5 else "succeeded")
        assert journal.of(task).count("started") == task.attempt
    assert all(thread.name != "executor" for thread in threading.enumerate())
    assert not executor._state().dispatcher.table.live


def test_a_held_job_pauses_outside(executor: Executor) -> None:
    """A pause does not count for max_concurrency."""
    clock = with_clock(executor)
    flaky = Flaky(2)

    @executor.job(max_concurrency=1, retry=Retry(delay=60, jitter=0))
    def limited(fails: bool) -> int:
        return flaky() if fails else 0

    pausing = limited.submit(True)
    clock.armed()
    assert limited.submit(False).result(LIMIT) == 0
    clock.advance(60)
    assert pausing.result(LIMIT) == 2


def test_an_attempt_waits_its_turn(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """After its pause a task goes into the line where its priority puts it."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    clock = with_clock(executor)
    order: list[object] = []

    def flaky() -> None:
        order.append(current_task.attempt)
        if current_task.attempt < 2:
            raise ValueError

    view = executor.using(retry=Retry(delay=60, jitter=0), priority=5)
    first = view.submit(flaky)
    clock.armed()
    occupy(executor, gate)
    plain = executor.submit(order.append, "plain")
    clock.advance(60)
    gate.set()
    wait([first, plain], LIMIT)
    assert order == [1, 2, "plain"]


def test_a_pause_is_kept_where_somebody_waited(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """A task that ran on the thread of who waits for it pauses as any other, though
    its turn is still in the line of the workers.
    """
    app.config["EXECUTOR_MAX_WORKERS"] = 2
    clock = with_clock(executor)
    flaky = Flaky(2)
    occupy(executor, gate)

    def parent() -> int:
        return executor.using(retry=Retry(delay=60, jitter=0)).submit(flaky).result()

    future = executor.submit(parent)
    assert clock.armed() == 60
    gate.set()  # the other worker takes the turn that was left
    for _ in range(20):
        executor.submit(abs, 1).result(LIMIT)
    assert flaky.attempts == [1]
    clock.advance(60)
    assert future.result(LIMIT) == 2


# Other pools


def test_coroutines(app: Flask, executor: Executor) -> None:
    """They are tried again on the loop, which is free meanwhile."""
    clock = with_clock(executor)

    async def flaky() -> int:
        await asyncio.sleep(0)
        if current_task.attempt < 3:
            raise ValueError(current_task.attempt)
        return current_task.attempt

    with Journal(app) as journal:
        future = executor.using(retry=Retry(delay=4, jitter=0)).submit(flaky)
        assert clock.to_next() == 4
        clock.armed()

        async def other() -> int:
            return 1

        assert executor.submit(other).result(LIMIT) == 1
        assert clock.to_next() == 8
        assert future.result(LIMIT) == 3
    assert journal.of(future.task).count("retrying") == 2


@pytest.fixture
def processes(app: Flask) -> t.Iterator[Executor]:
    app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=1)
    executor = Executor(app)
    yield executor
    executor.shutdown()


def test_processes(processes: Executor) -> None:
    """A call is sent again, and knows which attempt it is."""
    clock = with_clock(processes)
    future = processes.using(retry=Retry(delay=4, jitter=0)).submit(
        control_app.fail_until, 3
    )
    assert (clock.to_next(), clock.to_next()) == (4, 8)
    assert future.result(LIMIT) == 3


@pytest.mark.holds("g-worker-killed")
def test_a_lost_worker(
    app: Flask, processes: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """A call whose worker was killed is tried again on another one."""
    with Journal(app) as journal:
        view = processes.using(retry=Retry(delay=0))
        future = view.submit(control_app.kill_self_until, 3)
        assert future.result(LIMIT) == 3
    assert [type(facts["error"]) for facts in journal.facts("retrying")] == [
        WorkerLost,
        WorkerLost,
    ]
    assert sum(", next in " in r.getMessage() for r in caplog.records) == 2


def test_a_lost_worker_only(processes: Executor) -> None:
    """retry on WorkerLost alone: other failures are the end."""
    view = processes.using(retry=Retry(delay=0, on=WorkerLost))
    assert view.submit(control_app.kill_self_until, 2).result(LIMIT) == 2
    future = view.submit(control_app.fail_until, 2)
    assert isinstance(future.exception(LIMIT), ValueError)


def test_sync(app: Flask) -> None:
    """Where submit runs the call it runs all attempts, without a pause."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)
    flaky = Flaky(400)
    with Journal(app) as journal:
        view = executor.using(retry=Retry(attempts=500, delay=3600))
        future = view.submit(flaky)
    assert future.done() and future.result() == 400
    assert flaky.attempts == [*range(1, 401)]
    assert {facts["delay"] for facts in journal.facts("retrying")} == {0}


def test_sync_within_sync(app: Flask) -> None:
    """A task that submits others, each tried again, waits for all of them."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)
    inner = Flaky(3)

    def outer() -> int:
        result: int = executor.using(retry=3).submit(inner).result()
        if current_task.attempt < 2:
            raise ValueError
        return result

    assert executor.using(retry=2).submit(outer).result() == 3
    assert inner.attempts == [1, 2, 3] * 2


def test_a_timeout_is_no_reason_on_threads(
    executor: Executor, gate: threading.Event
) -> None:
    """A thread goes on after its timeout, so it is not tried again."""
    ran: list[int] = []

    def slow() -> None:
        ran.append(1)
        gate.wait(LIMIT)

    future = executor.using(timeout=0.05, retry=Retry(delay=0)).submit(slow)
    assert isinstance(future.exception(LIMIT), TaskTimeout)
    gate.set()
    executor.shutdown()
    assert ran == [1]


# The way out


@pytest.mark.holds("g-shutdown")
def test_shutdown_in_a_pause(executor: Executor) -> None:
    """A shutdown waits for the next attempt, and for the one after."""
    clock = with_clock(executor)
    future = executor.using(retry=Retry(delay=4, jitter=0)).submit(Flaky(3))
    clock.armed()
    executor.shutdown(wait=False)
    closing = threading.Thread(target=executor.shutdown)
    closing.start()
    assert clock.to_next() == 4
    assert clock.to_next() == 8
    assert future.result(LIMIT) == 3
    closing.join(LIMIT)
    assert not closing.is_alive()


def test_shutdown_as_it_fails(app: Flask, executor: Executor) -> None:
    """A shutdown that meets a task while its failure is judged waits for it."""
    logging_it, go_on = threading.Event(), threading.Event()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logging_it.set()
            go_on.wait(LIMIT)

    handler = Slow()
    app.logger.addHandler(handler)
    try:
        view = executor.using(retry=Retry(delay=0.01))
        future = view.submit(Flaky(2))
        assert logging_it.wait(LIMIT)
        executor.submit(abs, -1).result(LIMIT)
        executor.shutdown(wait=False)
        go_on.set()
        assert future.result(LIMIT) == 2
        executor.shutdown()
    finally:
        go_on.set()
        app.logger.removeHandler(handler)


@pytest.mark.holds("g-shutdown-cancel")
def test_shutdown_that_cancels_in_a_pause(executor: Executor) -> None:
    """cancel_futures cancels what pauses, as what waits."""
    clock = with_clock(executor)
    future = executor.using(retry=Retry(delay=60)).submit(Flaky(3))
    clock.armed()
    executor.shutdown(cancel_futures=True)
    assert future.cancelled() and clock.is_idle


def test_drain_in_a_pause(app: Flask, executor: Executor) -> None:
    """A drain does not wait for the pause: the task has failed, as it failed last."""
    clock = with_clock(executor)
    with Journal(app) as journal:
        future = executor.using(retry=Retry(delay=60)).submit(Flaky(3))
        clock.armed()
        drained = executor.drain()
    error = future.exception(0)
    assert isinstance(error, ValueError) and error.args == (1,)
    assert drained.finished == (future.task,)
    assert journal.of(future.task) == ["submitted", "started", "retrying", "failed"]
    assert clock.is_idle


def test_drain_as_it_fails(executor: Executor, gate: threading.Event) -> None:
    """What fails while it is drained is not tried again."""
    began = threading.Event()

    def fail() -> None:
        began.set()
        gate.wait(LIMIT)
        raise ValueError(current_task.attempt)

    future = executor.using(retry=Retry(delay=60)).submit(fail)
    assert began.wait(LIMIT)
    draining = threading.Thread(target=executor.drain)
    draining.start()
    until(lambda: executor._state().dispatcher.table.leaving)
    gate.set()
    assert future.exception(LIMIT).args == (1,)  # type: ignore[union-attr]
    draining.join(LIMIT)
    assert not draining.is_alive()


def test_drained_after_a_failure_whose_timeout_is_over(
    app: Flask, executor: Executor
) -> None:
    """A timeout that is over when the attempt has failed changes nothing: it failed."""
    clock = with_clock(executor)
    app.teardown_appcontext(lambda error: clock.advance(10) if error else None)
    retry = Retry(delay=60, jitter=0)
    future = executor.using(timeout=5, retry=retry).submit(divmod, 1, 0)
    task = future.task
    assert task is not None
    until(lambda: task.state == "retrying")
    executor.drain()
    assert isinstance(future.exception(0), ZeroDivisionError)
    assert task.state == "failed"


def test_a_policy_that_raises_hangs_nobody(executor: Executor) -> None:
    """Where people's own Retry fails, the task has failed."""

    class Broken(Retry):
        def pause_after(self, *args: t.Any, **kwargs: t.Any) -> float | None:
            raise RuntimeError("no policy")

    future = executor.using(retry=Broken()).submit(divmod, 1, 0)
    assert future.exception(5) is not None
    executor.shutdown()
