"""The executor as Flask-Executor 1.0.0 users and concurrent.futures users know it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import typing as t
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from unittest import mock

import pytest
from conftest import LIMIT
from flask import Flask, current_app, g, has_request_context, request

from flask_executor import (
    DuplicateKey,
    Executor,
    ExecutorShutDown,
    InvalidName,
    InvalidSetting,
    NotCallable,
)
from flask_executor.executor import propagate_exceptions_callback

pytest_plugins = ["pytester"]


def echo(*args: t.Any, **kwargs: t.Any) -> t.Any:
    return args, kwargs


WORDS = {"fn": 1, "self": 2, "timeout": 3, "future_key": 4, "key": 5}


def test_keywords_belong_to_the_callable(executor: Executor) -> None:
    """fn, self, timeout, future_key and key reach the callable."""
    job = executor.job(echo)
    for future in (
        executor.submit(echo, 1, **WORDS),
        executor.submit_stored("a", echo, 1, **WORDS),
        job.submit(1, **WORDS),
        job.submit_stored("b", 1, **WORDS),
    ):
        assert future.result(LIMIT) == ((1,), WORDS)


@pytest.mark.parametrize("name", ["with space", "dash-ed", "dot.ted", None])
def test_names(name: t.Any) -> None:
    """A name of anything but letters, digits and underscores is refused."""
    with pytest.raises(InvalidName, match="letters, digits and underscores") as info:
        Executor(name=name)
    assert isinstance(info.value, ValueError)


def test_named_executor(app: Flask) -> None:
    """A name stands before the config keys and in app.extensions."""
    app.config["MAIL_1_EXECUTOR_MAX_WORKERS"] = "3"
    mail = Executor(app, name="mail_1")
    assert app.extensions["mail_1executor"] is mail
    assert mail._max_workers == 3
    mail.shutdown()


def test_it_answers_for_its_pool(executor: Executor) -> None:
    """isinstance and the pool's attributes hold before the pool has started."""
    assert isinstance(executor, ThreadPoolExecutor)
    assert isinstance(executor, concurrent.futures.Executor)
    assert isinstance(executor, Executor)
    assert executor._threads == set()
    assert executor._shutdown is False
    assert executor._work_queue.qsize() == 0
    assert executor._self._max_workers == 4
    with pytest.raises(AttributeError):
        executor.nonsense  # noqa: B018


def test_it_answers_for_a_process_pool(app: Flask) -> None:
    """The same where the type is process; nothing has started."""
    app.config["EXECUTOR_TYPE"] = "Process"
    executor = Executor(app)
    assert isinstance(executor, ProcessPoolExecutor)
    assert executor._processes == {}
    executor.shutdown()


def test_before_init_app(app: Flask) -> None:
    """Without an app it is a plain Executor that names init_app."""
    executor = Executor()
    assert not isinstance(executor, ThreadPoolExecutor)
    assert "None" in repr(executor)
    with pytest.raises(AttributeError, match="init_app"):
        executor._threads  # noqa: B018
    executor.shutdown()
    with pytest.raises(TypeError):
        executor.__class__ = int  # type: ignore[assignment]


def test_shutdown_and_init_again(app: Flask, executor: Executor) -> None:
    """A shut down executor says what to do, and works again after init_app."""
    executor.shutdown()
    with pytest.raises(ExecutorShutDown, match=r"after shutdown.*init_app"):
        executor.submit(echo)
    executor.init_app(app)
    assert executor.submit(echo).result(LIMIT) == ((), {})


def test_replaced_pool_is_shut_down(app: Flask, executor: Executor) -> None:
    """init_app of the same app replaces its pool; what was accepted still runs."""
    old = executor._self
    future = executor.submit(echo)
    executor.init_app(app)
    assert old._shutdown
    assert future.result(LIMIT) == ((), {})
    assert executor._self is not old


def test_refused_call_leaves_no_key(executor: Executor) -> None:
    """A submit that raises stores nothing."""
    executor.shutdown()
    with pytest.raises(ExecutorShutDown):
        executor.submit_stored("key", echo)
    assert "key" not in executor.futures


def test_taken_key_schedules_nothing(executor: Executor) -> None:
    """A taken key is refused before anything runs, and is in the message."""
    executor.submit_stored("key", echo).result(LIMIT)
    ran = mock.Mock()
    with pytest.raises(DuplicateKey, match="'key' is taken"):
        executor.submit_stored("key", ran)
    executor.shutdown()
    ran.assert_not_called()


def test_two_threads_race_for_a_key(app: Flask, executor: Executor) -> None:
    """Of two racing threads one gets the key; only its call runs."""
    ran: list[int] = []
    barrier = threading.Barrier(8)
    refused: list[DuplicateKey] = []

    def race() -> None:
        barrier.wait(LIMIT)
        try:
            executor.submit_stored("key", ran.append, 1)
        except DuplicateKey as error:
            refused.append(error)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    executor.shutdown()
    assert (len(ran), len(refused)) == (1, 7)


def test_submit_of_no_callable(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """submit(None) raises nothing; its future fails, and the log says what it was."""
    future = executor.submit(None)  # type: ignore[call-overload]
    assert isinstance(future.exception(LIMIT), NotCallable)
    assert "None was submitted" in caplog.text
    with pytest.raises(NotCallable):
        executor.job(3)  # type: ignore[arg-type]


def test_mock_and_own_attributes(executor: Executor) -> None:
    """submit_stored can be patched, and attributes of one's own stay."""
    executor.mine = 1  # type: ignore[attr-defined]
    with mock.patch.object(executor, "submit_stored") as patched:
        executor.submit_stored("key", echo)
    patched.assert_called_once_with("key", echo)
    assert executor.mine == 1  # type: ignore[attr-defined]


def test_lazy_executor_in_a_view(app: Flask) -> None:
    """An executor may be made inside a view."""

    @app.route("/")
    def view() -> str:
        executor = Executor(t.cast(t.Any, current_app)._get_current_object())
        try:
            return executor.submit(lambda: request.path).result(LIMIT)
        finally:
            executor.shutdown()

    assert app.test_client().get("/").text == "/"


def test_type_changed_after_init_is_a_warning(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """Other keys are read at first use; the type stays, and the log says so."""
    app.config["EXECUTOR_TYPE"] = "process"
    app.config["EXECUTOR_MAX_WORKERS"] = 2
    assert executor._max_workers == 2
    assert isinstance(executor._self, ThreadPoolExecutor)
    assert "EXECUTOR_TYPE was changed to 'process' after init_app" in caplog.text


def test_bad_type_is_refused_at_init(app: Flask) -> None:
    """A type that is none is refused at once, by name."""
    app.config["EXECUTOR_TYPE"] = "celery"
    with pytest.raises(InvalidSetting, match=r"EXECUTOR_TYPE = 'celery'.*'thread'"):
        Executor(app)


# map


def test_map_gives_results_in_order(executor: Executor) -> None:
    """Results come in the order of the items, chunked or not."""
    assert list(executor.map(pow, [2, 3, 4], [5, 2, 2])) == [32, 9, 16]
    assert list(executor.map(abs, range(-9, 0), chunksize=4)) == list(range(9, 0, -1))
    with pytest.raises(ValueError, match="chunksize must be >= 1, not 0"):
        executor.map(abs, [], chunksize=0)


def test_map_runs_without_iteration(executor: Executor) -> None:
    """A map whose results nobody reads runs all the same."""
    seen: list[int] = []
    executor.map(seen.append, range(3))
    executor.shutdown()
    assert sorted(seen) == [0, 1, 2]


def test_closing_a_map_cancels_the_rest(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """Closing the generator cancels what has not started."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    seen: list[int] = []

    def run(n: int) -> int:
        if n == 1:
            assert gate.wait(LIMIT)
        seen.append(n)
        return n

    results = t.cast("t.Generator[int, None, None]", executor.map(run, range(9)))
    assert next(results) == 0
    results.close()
    gate.set()
    executor.shutdown()
    assert 8 not in seen


def test_map_timeout(executor: Executor, gate: threading.Event) -> None:
    """A result that is not there in time is a TimeoutError."""
    results = executor.map(lambda _: gate.wait(LIMIT), [1], timeout=0)
    with pytest.raises(TimeoutError):
        next(results)
    gate.set()


def test_map_failure_is_raised(executor: Executor) -> None:
    """The first failure is raised where its result would have been."""
    results = executor.map(lambda n: 1 // n, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


# callbacks


def test_default_callbacks_run_in_the_submitters_context(
    app: Flask, executor: Executor
) -> None:
    """Default callbacks, of submit and of map, see the submitter's request and g."""
    seen: list[t.Any] = []

    @executor.add_default_done_callback
    def note(future: t.Any) -> None:
        seen.append((request.path, g.x, future.result(), future.key))

    with app.test_request_context("/here"):
        g.x = 1
        executor.submit_stored("k", abs, -1).result(LIMIT)
        assert list(executor.map(abs, [-2])) == [2]
    executor.shutdown()
    seen.sort(key=lambda entry: t.cast(int, entry[2]))
    assert seen == [("/here", 1, 1, "k"), ("/here", 1, 2, None)]


def test_callback_contexts(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """A callback runs where it was added: a request, or else an app context."""
    seen: list[t.Any] = []
    future = executor.submit(gate.wait, LIMIT)
    future.add_done_callback(
        lambda f: seen.append((current_app.name, has_request_context()))
    )
    with app.test_request_context("/a"):
        future.add_done_callback(lambda f: seen.append(request.path))
    gate.set()
    executor.shutdown()
    future.add_done_callback(lambda f: seen.append(current_app.name))
    with app.test_request_context("/b"):
        future.add_done_callback(lambda f: seen.append(request.path))
    assert seen == [("tests", False), "/a", "tests", "/b"]


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_callback_that_raises(
    executor: Executor, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    """What a callback raises is logged, and stops no other."""

    def fail(future: t.Any) -> None:
        raise error("callback")

    after = mock.Mock()
    executor.add_default_done_callback(fail)
    executor.add_default_done_callback(after)
    future = executor.submit(echo)
    future.result(LIMIT)
    executor.shutdown()
    after.assert_called_once_with(future)
    assert [r.message for r in caplog.records if "done-callback" in r.message]
    assert caplog.records[0].name == "tests"


# failures


def test_failure_is_logged_once(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed task is logged once, with its name, its key and its traceback."""
    future = executor.submit_stored("report", divmod, 1, 0)
    assert isinstance(future.exception(LIMIT), ZeroDivisionError)
    (record,) = caplog.records
    assert record.getMessage() == "Task builtins.divmod (key 'report') failed"
    assert record.levelno == logging.ERROR
    assert record.exc_info


def test_failures_need_not_be_logged(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """EXECUTOR_LOG_EXCEPTIONS = False turns the log off."""
    app.config["EXECUTOR_LOG_EXCEPTIONS"] = "no"
    executor.submit(divmod, 1, 0).exception(LIMIT)
    executor.shutdown()
    assert not caplog.records


def test_propagate_exceptions(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """EXECUTOR_PROPAGATE_EXCEPTIONS raises in a callback, in place of the log line."""
    app.config["EXECUTOR_PROPAGATE_EXCEPTIONS"] = "true"
    executor.submit(divmod, 1, 0).exception(LIMIT)
    executor.submit(echo).result(LIMIT)
    executor.shutdown()
    (record,) = caplog.records
    assert "propagate_exceptions_callback" in record.getMessage()


def test_propagate_callback() -> None:
    """The callback raises what the task raised, and nothing else."""
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    future.set_exception(KeyError("x"))
    with pytest.raises(KeyError):
        propagate_exceptions_callback(future)
    done: concurrent.futures.Future[int] = concurrent.futures.Future()
    done.cancel()
    propagate_exceptions_callback(done)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_exit_ends_the_task_alone(
    app: Flask, executor: Executor, error: type[BaseException]
) -> None:
    """sys.exit() in a task ends that task, and no worker."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1

    def leave() -> None:
        raise error

    assert isinstance(executor.submit(leave).exception(LIMIT), error)
    assert executor.submit(echo).result(LIMIT) == ((), {})


def test_cancelled_is_no_failure(
    app: Flask,
    executor: Executor,
    gate: threading.Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A cancelled task is not logged; its callbacks run."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    callback = mock.Mock()
    executor.add_default_done_callback(callback)
    running = executor.submit(gate.wait, LIMIT)
    waiting = executor.submit(echo)
    assert waiting.cancel()
    gate.set()
    executor.shutdown()
    assert running.result() and waiting.cancelled()
    assert callback.call_count == 2
    assert not caplog.records


def test_shutdown_cancels_what_waits(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """shutdown(cancel_futures=True) cancels what has not started."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    started = threading.Event()
    running = executor.submit(lambda: started.set() or gate.wait(LIMIT))
    assert started.wait(LIMIT)
    waiting = [executor.submit(echo) for _ in range(3)]
    executor.shutdown(wait=False, cancel_futures=True)
    gate.set()
    assert running.result(LIMIT)
    assert all(future.cancelled() for future in waiting)


# other users of executors


def test_wait_and_as_completed(executor: Executor) -> None:
    """The futures work with concurrent.futures' own functions."""
    futures = [executor.submit(abs, -n) for n in range(5)]
    done, pending = concurrent.futures.wait(futures, LIMIT)
    assert done == set(futures) and not pending
    results = [f.result() for f in concurrent.futures.as_completed(futures, LIMIT)]
    assert sorted(results) == list(range(5))


def test_asyncio(app: Flask, executor: Executor) -> None:
    """await future, wrap_future, run_in_executor and set_default_executor work."""

    async def main() -> list[t.Any]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(t.cast(ThreadPoolExecutor, executor))
        return [
            await executor.submit(abs, -1),
            await asyncio.wrap_future(executor.submit(abs, -2)),
            await loop.run_in_executor(executor, abs, -3),
            await asyncio.to_thread(abs, -4),
        ]

    assert asyncio.run(asyncio.wait_for(main(), LIMIT)) == [1, 2, 3, 4]


def test_requests_futures(app: Flask, executor: Executor) -> None:
    """requests-futures takes the executor as its own."""
    from requests_futures.sessions import FuturesSession
    from werkzeug.serving import make_server

    app.add_url_rule("/", view_func=lambda: "hello")
    server = make_server("127.0.0.1", 0, app)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with FuturesSession(executor=executor) as session:
            response = session.get(f"http://127.0.0.1:{server.port}/")
            assert response.result(LIMIT).text == "hello"
    finally:
        server.shutdown()
        thread.join(LIMIT)
        server.server_close()


def test_coroutine_functions(app: Flask, executor: Executor) -> None:
    """Coroutine functions are tasks like any other, mapped ones too."""

    async def path(suffix: str = "") -> str:
        await asyncio.sleep(0)
        return request.path + suffix

    with app.test_request_context("/co"):
        assert executor.submit(path).result(LIMIT) == "/co"
        assert executor.submit(partial(path, "!")).result(LIMIT) == "/co!"
        assert list(executor.map(path, "abc", chunksize=2)) == ["/coa", "/cob", "/coc"]


def test_threads_carry_the_name(app: Flask) -> None:
    """Worker threads are named after the executor."""
    executor = Executor(app, name="mail")
    name = executor.submit(lambda: threading.current_thread().name).result(LIMIT)
    assert name.startswith("mail-executor")
    executor.shutdown()


# the sync pool


def test_sync_runs_in_the_callers_context(app: Flask) -> None:
    """With EXECUTOR_TYPE = 'sync' a call runs at once, in the caller's own context."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)
    teardown = mock.Mock()
    app.teardown_appcontext(teardown)
    assert executor.submit(lambda: current_app.name).result(0) == "tests"
    teardown.assert_called_once()
    with app.test_request_context("/"):
        future = executor.submit(lambda: setattr(g, "mine", threading.get_ident()))
        assert future.done()
        assert g.mine == threading.get_ident()
        teardown.assert_called_once()

        async def double(n: int) -> int:
            return 2 * n

        assert executor.submit(double, 2).result(0) == 4

        async def nested() -> int:
            return executor.submit(double, 4).result(0)

        assert asyncio.run(nested()) == 8
        assert isinstance(executor.submit(exit).exception(0), SystemExit)
    executor.shutdown()
    with pytest.raises(ExecutorShutDown):
        executor.submit(echo)


def test_with_pytest_flask(pytester: pytest.Pytester) -> None:
    """Inside pytest-flask's pushed request context the executor works as in a view."""
    pytester.makepyfile(
        """
        import pytest
        from flask import Flask, request
        from flask_executor import Executor

        @pytest.fixture
        def app():
            return Flask(__name__)

        def test_it(app):
            executor = Executor(app)
            assert executor.submit(lambda: request.path).result(30) == "/"
            executor.shutdown()
        """
    )
    pytester.runpytest_subprocess("-p", "flask").assert_outcomes(passed=1)


def test_submit_does_not_wait(executor: Executor, gate: threading.Event) -> None:
    """A submit returns while its call still runs."""
    future = executor.submit(gate.wait, LIMIT)
    assert not future.done()
    gate.set()
    assert future.result(LIMIT) is True
