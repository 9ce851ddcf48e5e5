"""For tests of those who use the package: captured tasks, held, released, and left."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import textwrap
import threading
import time
import typing as t
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask, g, request
from limits import LIMIT
from scripts import environment
from werkzeug.datastructures import FileStorage

from flask_executor import (
    Executor,
    ExecutorNotInitialized,
    ExecutorShutDown,
    Group,
    LoopBlocked,
    QueueFull,
    Retry,
    Task,
    TaskTimeout,
    WaitsForItself,
    current_task,
    task_started,
    task_submitted,
    task_succeeded,
)
from flask_executor.testing import (
    CapturedTasks,
    ManualClock,
    NotReleased,
    TasksLeftBehind,
    capture,
)

PATIENCE = 60
"""Seconds that a pytest of its own may take."""


@pytest.fixture
def tasks(executor: Executor) -> t.Iterator[CapturedTasks]:
    with capture(executor) as tasks:
        yield tasks


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who would start a thread, sleep or wait fails."""

    def refuse(*args: object, **kwargs: object) -> t.NoReturn:
        raise AssertionError("a thread, or a wait")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(threading.Condition, "wait", refuse)
    monkeypatch.setattr(time, "sleep", refuse)


def fail_times(count: int) -> t.Callable[[], int]:
    """A function that fails so many times, then says how often it was called."""
    calls: list[None] = []

    def call() -> int:
        calls.append(None)
        if len(calls) <= count:
            raise OSError(f"call {len(calls)}")
        return len(calls)

    return call


class TestInline:
    def test_runs_before_submit_returns(
        self, executor: Executor, tasks: CapturedTasks
    ) -> None:
        """A task has run when submit returns, on the thread that submitted it."""
        future = executor.submit(threading.get_ident)
        assert future.done()
        assert future.result() == threading.get_ident()
        assert tasks.unfinished == []

    def test_whatever_the_type(self, app: Flask) -> None:
        """It counts for every type of pool, and a pool need not be started."""
        for kind in ("thread", "process", "sync"):
            app.config["EXECUTOR_TYPE"] = kind
            executor = Executor(app, name=kind)
            app.config[f"{kind.upper()}_EXECUTOR_TYPE"] = kind
            executor.init_app(app)
            with capture(executor) as tasks:
                future = executor.using(delay=60).submit(threading.get_ident)
                assert future.task is not None
                assert future.task.state == "delayed"
                tasks.clock.advance(60)
                assert future.result() == threading.get_ident()

    def test_in_a_copy_of_the_context(
        self, app: Flask, executor: Executor, tasks: CapturedTasks
    ) -> None:
        """A task sees a copy of what its submitter sees, and its teardown runs."""
        ends: list[object] = []
        app.teardown_appcontext(lambda error: ends.append(error))

        def look() -> tuple[str, str]:
            seen = g.user, request.path
            g.user = "another"
            return seen

        with app.test_request_context("/here"):
            g.user = "me"
            assert executor.submit(look).result() == ("me", "/here")
            assert g.user == "me"
            assert ends == [None]

    def test_failures(
        self,
        executor: Executor,
        tasks: CapturedTasks,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A failure is on the future and in the log, and does not come out of
        submit.
        """
        error = executor.submit(fail_times(1)).exception()
        assert isinstance(error, OSError)
        assert "failed" in caplog.text
        assert isinstance(executor.submit(None).exception(), TypeError)  # type: ignore[call-overload]

    def test_a_task_of_a_task(self, executor: Executor, tasks: CapturedTasks) -> None:
        """What a task submits runs at once, too, and is recorded after it."""

        def inner() -> int:
            return 1

        def outer() -> int:
            future = executor.submit(inner)
            assert future.done()
            return future.result() + 1

        assert executor.submit(outer).result() == 2
        assert [one.fn for one in tasks.submitted] == [outer, inner]

    def test_signals_and_callbacks(
        self, app: Flask, executor: Executor, tasks: CapturedTasks
    ) -> None:
        """Signals are sent and callbacks called as in earnest."""
        seen: list[str] = []
        executor.add_default_done_callback(lambda future: seen.append("done"))
        signals = {
            "submitted": task_submitted,
            "started": task_started,
            "succeeded": task_succeeded,
        }
        receivers = []
        for name, signal in signals.items():

            def receive(sender: Flask, name: str = name, **facts: object) -> None:
                seen.append(name)

            signal.connect(receive, app)
            receivers.append(receive)
        executor.submit(int)
        assert seen == ["submitted", "started", "succeeded", "done"]

    def test_map_and_keys(self, executor: Executor, tasks: CapturedTasks) -> None:
        """map and the registry work as ever."""
        assert list(executor.map(pow, [1, 2], [3, 3])) == [1, 8]
        assert list(executor.map(str, [1, 2, 3], chunksize=2)) == ["1", "2", "3"]
        executor.submit_stored("key", int)
        assert executor.futures.done("key")
        assert [one.args for one in tasks.submitted][2:] == [
            ([(1,), (2,)],),
            ([(3,)],),
            (),
        ]
        assert [one.fn for one in tasks.submitted] == [pow, pow, str, str, int]

    def test_from_another_thread(
        self, executor: Executor, tasks: CapturedTasks
    ) -> None:
        """What another thread submits runs on that one, and is recorded."""
        threads: list[int] = []

        def submit() -> None:
            threads.append(threading.get_ident())
            threads.append(executor.submit(threading.get_ident).result(LIMIT))

        thread = threading.Thread(target=submit)
        thread.start()
        thread.join(LIMIT)
        assert len(threads) == 2
        assert threads[0] == threads[1] != threading.get_ident()
        assert len(tasks.submitted) == 1

    def test_a_long_chain(self, executor: Executor, tasks: CapturedTasks) -> None:
        """A done-callback may submit the next task, and a task may be tried again,
        a thousand times: the stack does not grow.
        """
        executor.add_default_done_callback(
            lambda future: executor.submit(int) if len(tasks.submitted) < 2000 else None
        )
        executor.submit(int)
        assert len(tasks.submitted) == 2000
        assert tasks.unfinished == []

        again = Retry(attempts=2001, delay=0, backoff=1)
        assert executor.using(retry=again).submit(fail_times(2000)).result() == 2001

    def test_a_callback_waits(self, executor: Executor, tasks: CapturedTasks) -> None:
        """A done-callback may wait for what it submits."""
        results: list[int] = []

        def call(future: object) -> None:
            if len(tasks.submitted) == 1:
                results.append(executor.submit(int, "7").result())

        executor.add_default_done_callback(call)
        executor.submit(int)
        assert results == [7]

    def test_max_concurrency(self, executor: Executor, tasks: CapturedTasks) -> None:
        """A job that submits itself stays below its limit: the next one comes after."""
        seen: list[str] = []

        @executor.job(max_concurrency=1)
        def job(again: bool) -> None:
            seen.append(f"begins {again}")
            if again:
                assert not job.submit(False).done()
            seen.append(f"ends {again}")

        job.submit(True)
        assert seen == ["begins True", "ends True", "begins False", "ends False"]

    def test_max_concurrency_of_one_that_waits(
        self, executor: Executor, tasks: CapturedTasks
    ) -> None:
        """One that waits for another of its job makes room for it."""

        @executor.job(max_concurrency=1)
        def job(again: bool) -> int:
            return 1 + job.submit(False).result() if again else 1

        assert job.submit(True).result() == 2


class TestCoroutines:
    def test_run_to_their_end(self, executor: Executor, tasks: CapturedTasks) -> None:
        """A coroutine function has run when submit returns, named as ever."""

        async def double(n: int) -> int:
            await asyncio.sleep(0)
            return 2 * n

        future = executor.submit(double, 4)
        assert future.done()
        assert future.result() == 8
        assert future.task is not None
        assert future.task.name.endswith("double")
        assert tasks.submitted[0].fn is double
        assert list(executor.map(double, [1, 2, 3], chunksize=2)) == [2, 4, 6]

    def test_from_an_event_loop(self, executor: Executor, tasks: CapturedTasks) -> None:
        """Submitted in an async view or test they run to their end as well."""

        async def name() -> str:
            await asyncio.sleep(0)
            return current_task.name

        async def view() -> str:
            return await executor.using(name="asked").submit(name)

        assert asyncio.run(view()) == "asked"

    def test_timeout(self, executor: Executor, tasks: CapturedTasks) -> None:
        """A coroutine that takes too long by the clock is cancelled, and tried again
        where its retry says so.
        """
        seen: list[str] = []

        @executor.job(timeout=5, retry=Retry(attempts=2, delay=1, on=(TaskTimeout,)))
        async def slow() -> None:
            tasks.clock.advance(6)
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                seen.append(f"cancelled {current_task.attempt}")
                raise

        future = slow.submit()
        assert seen == ["cancelled 1"]
        tasks.clock.advance(1)
        assert seen == ["cancelled 1", "cancelled 2"]
        assert isinstance(future.exception(), TaskTimeout)

    def test_cancelled_by_request(
        self, executor: Executor, tasks: CapturedTasks
    ) -> None:
        """A running coroutine is cancelled at its next await."""

        async def stop() -> None:
            assert tasks.submitted[0].future.request_cancel()
            await asyncio.sleep(0)
            pytest.fail("not cancelled")

        assert executor.submit(stop).cancelled()

    def test_cancelled_before_it_begins(
        self, app: Flask, executor: Executor, tasks: CapturedTasks
    ) -> None:
        """So is one that is to stop before its first step."""

        async def never() -> None:
            await asyncio.sleep(0)
            pytest.fail("not cancelled")

        def stop(sender: Flask, task: Task, **facts: object) -> None:
            tasks.submitted[0].future.request_cancel()

        with task_started.connected_to(stop, app):
            assert executor.submit(never).cancelled()

    def test_blocked_loop(self, executor: Executor, tasks: CapturedTasks) -> None:
        """A coroutine that would block its loop is told so, as in earnest."""

        async def blocks() -> None:
            executor.using(delay=60).submit(int).result()

        assert isinstance(executor.submit(blocks).exception(), LoopBlocked)
        tasks.cancel()

    def test_released(self, executor: Executor) -> None:
        """They are held as any other task."""

        async def one() -> int:
            return 1

        with capture(executor, hold=True) as tasks:
            future = executor.submit(one)
            assert not future.done()
            tasks.release()
            assert future.result() == 1


class TestRecord:
    def test_all_of_it(self, executor: Executor, tasks: CapturedTasks) -> None:
        """Name, function, arguments, key, options and future of each are there."""

        def send(to: str, *, copy: bool) -> str:
            return to

        future = executor.using(priority=5, name="mail").submit_stored(
            "key", send, "you", copy=True
        )
        (one,) = tasks.submitted
        assert (one.name, one.fn, one.key) == ("mail", send, "key")
        assert (one.args, one.kwargs) == (("you",), {"copy": True})
        assert one.options.priority == 5
        assert one.future is future
        assert repr(one) == "<Submitted mail('you', copy=True) (key 'key')>"
        assert repr(tasks) == "<CapturedTasks: 1 submitted, 0 unfinished>"

    def test_jobs(self, executor: Executor, tasks: CapturedTasks) -> None:
        """A job is recorded as it was declared, and with the options that count."""

        @executor.job(priority=1)
        def job() -> None: ...

        job.submit()
        job.using(priority=2).submit()
        assert [one.fn for one in tasks.submitted] == [job, job]
        assert [one.options.priority for one in tasks.submitted] == [1, 2]

    def test_uploads(
        self, app: Flask, executor: Executor, tasks: CapturedTasks
    ) -> None:
        """An uploaded file among the arguments is one that can be read."""
        with app.test_request_context():
            upload = FileStorage(io.BytesIO(b"data"), "name.txt")
            assert executor.submit(lambda file: file.read(), upload).result() == b"data"
        (recorded,) = tasks.submitted[0].args
        assert (recorded.filename, recorded.read()) == ("name.txt", b"data")

    def test_what_was_refused(self, app: Flask, executor: Executor) -> None:
        """What was not accepted was not submitted; arguments are never compared."""

        class Touchy:
            def __eq__(self, other: object) -> bool:
                raise AssertionError

        app.config["EXECUTOR_MAX_PENDING"] = 2
        with capture(executor, hold=True) as tasks:
            executor.submit(str, Touchy())
            executor.submit(str, Touchy())
            with pytest.raises(QueueFull):
                executor.submit(str, Touchy())
            assert len(tasks.submitted) == 2
            tasks.release()

    def test_a_copy(self, executor: Executor, tasks: CapturedTasks) -> None:
        """What one does to the list does not change the record."""
        executor.submit(int)
        tasks.submitted.clear()
        assert len(tasks.submitted) == 1


class TestHold:
    def test_until_released(self, executor: Executor) -> None:
        """Nothing runs before it is released; released it runs here."""
        with capture(executor, hold=True) as tasks:
            future = executor.submit(threading.get_ident)
            assert tasks.hold
            assert not future.done()
            assert future.task is not None
            assert tasks.unfinished == [future.task]
            assert tasks.release() == [future.task]
            assert future.result() == threading.get_ident()
            assert tasks.release() == []

    def test_in_order(self, executor: Executor) -> None:
        """Released one by one they go by priority, then by arrival."""
        seen: list[str] = []
        with capture(executor, hold=True) as tasks:
            executor.submit(seen.append, "first")
            executor.submit(seen.append, "second")
            executor.using(priority=-1).submit(seen.append, "last")
            executor.using(priority=9).submit(seen.append, "urgent")
            assert len(tasks.release(1)) == 1
            assert seen == ["urgent"]
            assert [task.name for task in tasks.release(2)] == [
                "builtins.list.append"
            ] * 2
            assert seen == ["urgent", "first", "second"]
            tasks.release()
        assert seen == ["urgent", "first", "second", "last"]

    def test_what_they_submit(self, executor: Executor) -> None:
        """What a released task submits is held, and released with all."""
        seen: list[str] = []
        with capture(executor, hold=True) as tasks:
            executor.submit(lambda: executor.submit(seen.append, "inner") and None)
            tasks.release(1)
            assert seen == []
            tasks.release()
            assert seen == ["inner"]

    def test_a_task_waits_for_another(
        self, executor: Executor, no_waiting: None
    ) -> None:
        """A released task that waits for one that is held has it run on its thread,
        and only once.
        """
        calls: list[str] = []
        with capture(executor, hold=True) as tasks:

            def outer(timeout: float | None) -> None:
                executor.submit(calls.append, "inner").result(timeout)
                calls.append("outer")

            executor.submit(outer, None)
            executor.submit(outer, LIMIT)
            assert len(tasks.release()) == 2
        assert calls == ["inner", "outer"] * 2

    def test_a_task_waits_for_several(self, executor: Executor) -> None:
        """So it is with a group, awaited or not, and the standard library's wait."""

        def submit(group: Group) -> Group:
            for number in "78":
                group.submit(int, number)
            return group

        def waits() -> list[int]:
            return submit(executor.group()).results()

        def waits_plainly() -> list[int]:
            futures = submit(executor.group()).futures
            wait(futures, LIMIT)
            return [future.result() for future in futures]

        async def awaits() -> list[int]:
            return await submit(executor.group())

        with capture(executor, hold=True) as tasks:
            for fn in (waits, waits_plainly, awaits):
                future = executor.submit(fn)
                tasks.release()
                assert future.result() == [7, 8]

    def test_cancelled_ones_are_passed_by(self, executor: Executor) -> None:
        """What was cancelled is not released, nor counted."""
        with capture(executor, hold=True) as tasks:
            cancelled, other = executor.submit(int), executor.submit(int)
            assert cancelled.cancel()
            assert tasks.release(1) == [other.task]

    def test_switched(self, executor: Executor, tasks: CapturedTasks) -> None:
        """Holding can begin and end within the test."""
        tasks.hold = True
        held = executor.submit(int)
        tasks.hold = False
        assert executor.submit(int).done()
        assert not held.done()
        tasks.release()
        assert held.done()

    def test_several_executors(self, app: Flask) -> None:
        """Several executors share one record, one line and one clock."""
        seen: list[str] = []
        one, two = Executor(app, "one"), Executor(app, "two")
        with capture(one, two.using(priority=1), hold=True) as tasks:
            one.submit(seen.append, "one")
            two.using(priority=5).submit(seen.append, "two")
            one.using(delay=2).submit(seen.append, "one later")
            two.using(delay=1).submit(seen.append, "two later")
            tasks.release()
            tasks.hold = False
            tasks.clock.advance(2)
        assert seen == ["two", "one", "two later", "one later"]
        assert len(tasks.submitted) == 4


class TestClock:
    def test_delay(self, executor: Executor, tasks: CapturedTasks) -> None:
        """A delayed task runs when the clock is there, on this thread."""
        future = executor.using(delay=60).submit(threading.get_ident)
        tasks.clock.advance(59.9)
        assert not future.done()
        tasks.clock.advance(0.1)
        assert future.result() == threading.get_ident()
        assert future.task is not None
        assert future.task.started_at is not None
        passed = future.task.started_at - future.task.submitted_at
        assert passed.total_seconds() == pytest.approx(60, abs=1e-3)

    def test_run_at(self, executor: Executor, tasks: CapturedTasks) -> None:
        """A task with a moment runs at that moment."""
        moment = datetime.now(UTC) + timedelta(days=3, microseconds=7)
        future = executor.using(run_at=moment).submit(int)
        tasks.clock.advance(timedelta(days=2))
        assert not future.done()
        tasks.clock.advance_to(moment)
        assert future.done()

    def test_retry(self, executor: Executor, tasks: CapturedTasks) -> None:
        """The pauses of a retry go by the clock, and chance has no part in them."""
        retry = Retry(attempts=3, delay=10, backoff=2, jitter=1)
        future = executor.using(retry=retry).submit(fail_times(2))
        assert future.task is not None
        assert (future.task.state, future.task.attempt) == ("retrying", 1)
        tasks.clock.advance(10)
        assert (future.task.state, future.task.attempt) == ("retrying", 2)
        tasks.clock.advance(19)
        assert future.task.state == "retrying"
        tasks.clock.advance(1)
        assert future.result() == 3
        assert tasks.submitted[0].options.retry is retry

    def test_all_attempts_at_once(
        self, executor: Executor, tasks: CapturedTasks
    ) -> None:
        """One long step of the clock has all attempts happen, each at its time."""
        times: list[float] = []
        begun = tasks.clock.monotonic()

        def fail() -> t.NoReturn:
            times.append(tasks.clock.monotonic() - begun)
            raise OSError

        future = executor.using(retry=Retry(attempts=3, delay=10)).submit(fail)
        tasks.clock.advance(timedelta(hours=1))
        assert times == pytest.approx([0, 10, 30])
        assert isinstance(future.exception(), OSError)

    def test_timeout(self, executor: Executor, tasks: CapturedTasks) -> None:
        """A task that moves the clock past its deadline has run into its timeout."""

        def slow() -> bool:
            assert current_task.remaining() == pytest.approx(30)
            tasks.clock.advance(29)
            assert not current_task.cancel_requested
            tasks.clock.advance(1)
            return current_task.cancel_requested or pytest.fail("not told")

        future = executor.using(timeout=30).submit(slow)
        assert isinstance(future.exception(), TaskTimeout)
        assert future.task is not None
        assert future.task.state == "timed_out"
        assert not future.task.overrun

    def test_held_when_due(self, executor: Executor) -> None:
        """With hold, what becomes due waits to be released."""
        with capture(executor, hold=True) as tasks:
            future = executor.using(delay=60).submit(int)
            assert tasks.release() == []
            tasks.clock.advance(60)
            assert not future.done()
            tasks.release()
            assert future.done()

    def test_one_to_go_on_with(self, executor: Executor) -> None:
        """Two captures may have one clock."""
        clock = ManualClock()
        with capture(executor, clock=clock) as tasks:
            assert tasks.clock is clock

    def test_nothing_sleeps(self, executor: Executor, no_waiting: None) -> None:
        """Of all this nothing starts a thread, sleeps or waits."""
        seen: list[str] = []
        with capture(executor) as tasks:
            executor.submit(seen.append, "now").result(LIMIT)
            executor.using(delay=1e6).submit(seen.append, "later")
            retry = Retry(attempts=2, delay=1e6)
            executor.using(retry=retry, timeout=1e6).submit(fail_times(1))
            tasks.clock.advance(1e7)
            tasks.hold = True
            held = executor.submit(seen.append, "held")
            with pytest.raises(TimeoutError):
                held.result(LIMIT)
            tasks.release()
            executor.shutdown()
        assert seen == ["now", "later", "held"]


class TestWaitingInVain:
    """What only the test could run, it is not made to wait for."""

    def test_a_result(self, executor: Executor) -> None:
        """Without a timeout it is told so, with one that is over at once."""
        with capture(executor, hold=True) as tasks:
            held, delayed = executor.submit(int), executor.using(delay=9).submit(int)
            for future in (held, delayed):
                with pytest.raises(
                    NotReleased, match=r"builtins.int \w+>: call rel"
                ) as e:
                    future.result()
                assert e.value.tasks == (future.task,)
                with pytest.raises(TimeoutError):
                    future.exception(timeout=LIMIT)
            tasks.cancel()
            assert held.cancelled()
            with pytest.raises(CancelledError):
                delayed.result()

    def test_a_group(self, executor: Executor) -> None:
        """A group whose members are held says the same."""
        with capture(executor, hold=True) as tasks:
            group = executor.group()
            group.submit(int)
            assert not group.wait(LIMIT)
            with pytest.raises(NotReleased):
                group.results()
            tasks.release()
            assert group.results() == [0]

    def test_from_a_task(self, executor: Executor, tasks: CapturedTasks) -> None:
        """A task that waits for one that is delayed fails with it."""
        delayed = executor.using(delay=60).submit(int)
        outer = executor.submit(delayed.result)
        assert isinstance(outer.exception(), NotReleased)
        outer = executor.submit(delayed.result, LIMIT)
        assert isinstance(outer.exception(), TimeoutError)
        tasks.clock.advance(60)
        assert executor.submit(delayed.result).result() == 0

    def test_on_another_thread(self, executor: Executor) -> None:
        """Another thread may wait until this one releases it."""
        with capture(executor, hold=True) as tasks, ThreadPoolExecutor(1) as pool:
            future = executor.submit(int, "7")
            waiting = pool.submit(future.result, LIMIT)
            tasks.release()
            assert waiting.result(LIMIT) == 7

    def test_shutdown(self, executor: Executor) -> None:
        """shutdown waits for nothing that the test has to run; it can cancel it."""
        with capture(executor, hold=True) as tasks:
            future = executor.submit(int)
            with pytest.raises(NotReleased):
                executor.shutdown()
            tasks.release()
            other = executor.submit(int)
            executor.shutdown(cancel_futures=True)
            assert future.done()
            assert other.cancelled()
            with pytest.raises(ExecutorShutDown):
                executor.submit(int)
            assert len(tasks.submitted) == 2

    def test_the_pool_itself(self, executor: Executor, tasks: CapturedTasks) -> None:
        """Whoever uses the pool under the executor finds one, until it is shut down."""
        pool = executor._self
        assert pool.submit(int, "7").result() == 7
        executor.shutdown()
        with pytest.raises(ExecutorShutDown):
            pool.submit(int)

    def test_shutdown_leaves_it_to_be_run(self, executor: Executor) -> None:
        """What was accepted before a shutdown that does not wait can still be run."""
        with capture(executor, hold=True) as tasks:
            held, delayed = executor.submit(int), executor.using(delay=9).submit(int)
            executor.shutdown(wait=False)
            tasks.clock.advance(9)
            tasks.release()
            assert held.done()
            assert delayed.done()

    def test_drain(self, executor: Executor) -> None:
        """drain cancels what is delayed, and with a timeout what is held, at once."""
        with capture(executor, hold=True) as tasks:
            held, delayed = executor.submit(int), executor.using(delay=9).submit(int)
            with pytest.raises(NotReleased) as caught:
                executor.drain()
            assert caught.value.tasks == (held.task,)
            drained = executor.drain(LIMIT)
            assert set(drained.cancelled) == {held.task, delayed.task}
            assert tasks.unfinished == []

    def test_drain_when_all_have_run(
        self, executor: Executor, tasks: CapturedTasks
    ) -> None:
        """drain without a timeout is fine where nothing is held."""
        delayed = executor.using(delay=9).submit(int)
        assert executor.drain().cancelled == (delayed.task,)

    def test_drain_inside(self, executor: Executor, tasks: CapturedTasks) -> None:
        """A task that would wait for itself is told so, as in earnest."""
        assert isinstance(executor.submit(executor.drain).exception(), WaitsForItself)


class TestLeftBehind:
    def test_what_is_held_or_delayed(self, executor: Executor) -> None:
        """The block fails, naming each task and its state; they are cancelled."""
        with pytest.raises(TasksLeftBehind) as caught, capture(executor) as tasks:
            tasks.hold = True
            future = executor.using(name="mail").submit_stored("7", int)
            executor.using(name="later", delay=60).submit(int)
            executor.using(name="again").submit(int)
            executor.using(name="urgent", priority=1).submit(int)
            tasks.release(1)
        assert isinstance(caught.value, AssertionError)
        said = str(caught.value)
        assert "<Task mail (key '7') waiting>" in said
        assert "<Task later delayed>" in said
        assert "<Task again waiting>" in said
        assert "urgent" not in said
        assert "release()" in said
        assert len(caught.value.tasks) == 3
        assert future.cancelled()

    def test_what_is_tried_again(self, executor: Executor) -> None:
        """A task between two attempts is left behind, too."""
        with pytest.raises(TasksLeftBehind, match="retrying"), capture(executor):
            executor.using(retry=2).submit(fail_times(1))

    def test_what_runs_elsewhere(
        self, executor: Executor, gate: threading.Event
    ) -> None:
        """So is one that another thread is running."""
        begun = threading.Event()

        def run() -> None:
            begun.set()
            gate.wait(LIMIT)

        with ThreadPoolExecutor(1) as pool:
            with pytest.raises(TasksLeftBehind, match="running"), capture(executor):
                pool.submit(executor.submit, run)
                assert begun.wait(LIMIT)
            gate.set()

    def test_a_failed_block(self, executor: Executor) -> None:
        """A block that fails otherwise fails with that, and cancels all the same."""
        with pytest.raises(ZeroDivisionError), capture(executor, hold=True):
            future = executor.submit(int)
            1 / 0  # noqa: B018
        assert future.cancelled()

    def test_callbacks_of_the_cancelled(self, executor: Executor) -> None:
        """What the callbacks of those that were left submit goes nowhere."""
        futures: list[t.Any] = []
        executor.add_default_done_callback(
            lambda future: futures.append(executor.submit(int))
        )
        with pytest.raises(TasksLeftBehind), capture(executor, hold=True):
            executor.submit(int)
        assert futures == []


class TestRestored:
    def test_the_same_pool(self, executor: Executor) -> None:
        """Afterwards the pool and what it runs are what they were, and the futures
        of the block are still stored.
        """
        before = executor._self
        with capture(executor):
            assert executor._self is not before
            assert isinstance(executor, ThreadPoolExecutor)
            executor.submit_stored("key", int)
        assert executor._self is before
        assert executor.futures.done("key")
        name = executor.submit(lambda: threading.current_thread().name)
        assert name.result(LIMIT).startswith("executor")

    def test_after_a_failure(self, executor: Executor) -> None:
        """However the block ends."""
        before = executor._self
        with pytest.raises(TasksLeftBehind), capture(executor, hold=True):
            executor.submit(int)
        assert executor._self is before

    def test_shut_down_within(self, executor: Executor) -> None:
        """A shutdown within the block is over with it."""
        with capture(executor):
            executor.shutdown()
        assert executor.submit(int).result(LIMIT) == 0

    def test_what_runs_already(self, executor: Executor, gate: threading.Event) -> None:
        """What was submitted before goes on, and is nobody's business here."""
        future = executor.submit(gate.wait, LIMIT)
        with capture(executor) as tasks:
            assert tasks.unfinished == []
            gate.set()
            assert future.result(LIMIT)

    def test_nested(self, executor: Executor) -> None:
        """A block within a block has what is submitted there."""
        with capture(executor) as outer:
            with capture(executor, hold=True) as inner:
                executor.submit(int)
                inner.release()
            executor.submit(str)
        assert [one.fn for one in inner.submitted] == [int]
        assert [one.fn for one in outer.submitted] == [str]

    def test_an_app_that_comes_within(self, app: Flask) -> None:
        """An app that is initialized within the block is captured, with the config
        that it has at first use, and only within the block.
        """
        executor = Executor()
        with capture(executor, hold=True) as tasks:
            executor.init_app(app)
            app.config["EXECUTOR_MAX_PENDING"] = 1
            executor.submit(int)
            with pytest.raises(QueueFull):
                executor.submit(int)
            tasks.release()
        assert len(tasks.submitted) == 1
        name = executor.submit(lambda: threading.current_thread().name)
        assert name.result(LIMIT).startswith("executor")
        executor.shutdown()

    def test_initialized_anew_within(self, app: Flask, executor: Executor) -> None:
        """init_app starts anew; what was accepted before is not lost."""
        with capture(executor, hold=True) as tasks:
            before = executor.submit(int)
            executor.init_app(app)
            after = executor.submit(int)
            assert set(tasks.unfinished) == {before.task, after.task}
            tasks.release()
            assert before.done()
            assert after.done()

    def test_each_app(self) -> None:
        """All apps of the executor are captured."""
        executor = Executor()
        apps = [Flask("one"), Flask("two")]
        for app in apps:
            executor.init_app(app)
        with capture(executor, hold=True) as tasks:
            for app in apps:
                with app.app_context():
                    executor.submit(int)
            assert len(tasks.release()) == 2

    def test_not_initialized(self) -> None:
        """Without an app, submit says what it says without the block."""
        executor = Executor()
        with capture(executor), pytest.raises(ExecutorNotInitialized):
            executor.submit(int)


CONFTEST = """
    import pytest
    from flask import Flask
    from flask_executor import Executor
    from flask_executor.testing import executor_tasks as executor_tasks

    executor, mail = Executor(), Executor(name="mail")

    @pytest.fixture
    def app(request):
        app = Flask("tests")
        app.extensions["another"] = object()
        if request.node.name != "test_no_executor":
            executor.init_app(app)
            mail.init_app(app)
        return app
"""


PLAIN = ("-rA", "-p", "no:cacheprovider")


TESTS = """
    from conftest import executor, mail

    def test_inline(executor_tasks):
        assert executor.submit(int).done()
        mail.using(delay=5).submit(str)
        executor_tasks.clock.advance(5)
        assert [one.fn for one in executor_tasks.submitted] == [int, str]

    def test_held(executor_tasks):
        executor_tasks.hold = True
        future = executor.submit(int)
        assert not future.done()
        executor_tasks.release()
        assert future.done()
        assert len(executor_tasks.submitted) == 1

    def test_without(app):
        executor.submit(int).result(30)
        assert type(executor._self).__name__ == "ThreadPool"

    def remind():
        pass

    def test_forgetful(executor_tasks):
        mail.using(delay=5).submit_stored("7", remind)

    def test_next(executor_tasks):
        executor.submit(int)

    def test_no_executor(executor_tasks):
        pass
"""


@pytest.fixture(scope="class")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of these tests, in a process of its own."""
    folder = tmp_path_factory.mktemp("tests")
    (folder / "conftest.py").write_text(textwrap.dedent(CONFTEST))
    (folder / "test_it.py").write_text(textwrap.dedent(TESTS))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *PLAIN, "test_it.py"],
        cwd=folder,
        env=environment(measured=True, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.stdout + done.stderr


class TestFixture:
    @pytest.mark.parametrize("name", ["test_inline", "test_held", "test_without"])
    def test_it_works(self, said: str, name: str) -> None:
        """It captures all executors of the app, for tests that ask for it."""
        assert f"PASSED test_it.py::{name}\n" in said

    def test_it_fails_a_test_that_leaves_tasks(self, said: str) -> None:
        """A test that leaves a task behind ends with an error that names it; the next
        one is not affected.
        """
        assert "ERROR test_it.py::test_forgetful" in said
        assert (
            "TasksLeftBehind: The test has left <Task test_it.remind (key '7')" in said
        )
        assert "PASSED test_it.py::test_next\n" in said

    def test_an_app_without_an_executor(self, said: str) -> None:
        """An app that has no executor is an error that says so."""
        assert "ERROR test_it.py::test_no_executor" in said
        assert "ExecutorNotInitialized: This executor was not initialized" in said
        assert "5 passed, 2 errors" in said


def test_pytest_is_not_needed() -> None:
    """capture can be imported where there is no pytest, and the package never imports
    this module by itself.
    """
    code = """
        import sys
        sys.modules["pytest"] = None
        import flask_executor
        assert "flask_executor.testing" not in sys.modules
        from flask_executor.testing import capture
        try:
            from flask_executor.testing import executor_tasks
        except ImportError:
            print("as it should")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout.strip() == "as it should", done.stderr
