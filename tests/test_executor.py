"""The executor as Flask-Executor 1.0.0 users and concurrent.futures users know it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import pickle
import sys
import threading
import traceback
import typing as t
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from unittest import mock

import pytest
from flask import Flask, current_app, g, has_request_context, request
from limits import LIMIT

from flask_executor import (
    DuplicateKey,
    Executor,
    ExecutorNotInitialized,
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


@pytest.mark.holds("g-stdlib")
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


@pytest.mark.holds("g-stdlib")
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


@pytest.mark.holds("g-init-again")
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


@pytest.mark.holds("g-key-taken")
def test_taken_key_schedules_nothing(executor: Executor) -> None:
    """A taken key is refused before anything runs, and is in the message."""
    executor.submit_stored("key", echo).result(LIMIT)
    ran = mock.Mock()
    with pytest.raises(DuplicateKey, match="'key' is taken"):
        executor.submit_stored("key", ran)
    executor.shutdown()
    ran.assert_not_called()


@pytest.mark.holds("g-key-taken")
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
    executor.shutdown()
    with pytest.raises(ExecutorShutDown, match="None"):
        executor.submit(None)  # type: ignore[call-overload]


def test_made_in_a_view_with_current_app(app: Flask) -> None:
    """An executor may be made in a view, of the current_app proxy."""

    @app.get("/")
    def view() -> str:
        made = Executor(current_app)  # type: ignore[arg-type]
        try:
            return str(made.submit(abs, -1).result(LIMIT))
        finally:
            made.shutdown()

    assert app.test_client().get("/").text == "1"


def test_an_attribute_in_the_context_of_a_stranger(executor: Executor) -> None:
    """hasattr asks, in the context of an app that was never initialised, too."""
    with Flask("stranger").app_context():
        assert not hasattr(executor, "_max_workers")


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


@pytest.mark.holds("g-map")
def test_map_gives_results_in_order(executor: Executor) -> None:
    """Results come in the order of the items, chunked or not."""
    assert list(executor.map(pow, [2, 3, 4], [5, 2, 2])) == [32, 9, 16]
    assert list(executor.map(abs, range(-9, 0), chunksize=4)) == list(range(9, 0, -1))
    with pytest.raises(ValueError, match="chunksize must be >= 1, not 0"):
        executor.map(abs, [], chunksize=0)


@pytest.mark.holds("g-map")
def test_map_runs_without_iteration(executor: Executor) -> None:
    """A map whose results nobody reads runs all the same."""
    seen: list[int] = []
    executor.map(seen.append, range(3))
    executor.shutdown()
    assert sorted(seen) == [0, 1, 2]


@pytest.mark.holds("g-map")
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


@pytest.mark.holds("g-map")
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
@pytest.mark.holds("g-callbacks")
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


@pytest.mark.holds("g-logged-once")
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
@pytest.mark.holds("g-ends")
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


@pytest.mark.holds("g-shutdown-cancel")
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


@pytest.mark.holds("g-shutdown-no-wait")
def test_shutdown_without_waiting(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """shutdown(wait=False) returns while a task runs; the queue is still worked off."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    running = executor.submit(gate.wait, LIMIT)
    waiting = executor.submit(echo)
    executor.shutdown(wait=False)
    assert not running.done() and not waiting.done()
    gate.set()
    assert running.result(LIMIT) and waiting.result(LIMIT) == ((), {})


# other users of executors


@pytest.mark.holds("g-stdlib")
def test_wait_and_as_completed(executor: Executor) -> None:
    """The futures work with concurrent.futures' own functions."""
    futures = [executor.submit(abs, -n) for n in range(5)]
    done, pending = concurrent.futures.wait(futures, LIMIT)
    assert done == set(futures) and not pending
    results = [f.result() for f in concurrent.futures.as_completed(futures, LIMIT)]
    assert sorted(results) == list(range(5))


@pytest.mark.holds("g-stdlib")
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


@pytest.mark.holds("g-stdlib")
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


# what a call is, and what becomes of it


def test_names_of_1_0_0() -> None:
    """Everything that 1.0.0 exported is where it was."""
    from flask_executor.executor import Executor as SameExecutor
    from flask_executor.executor import ExecutorJob
    from flask_executor.futures import Future, FutureCollection, FutureProxy
    from flask_executor.helpers import InstanceProxy, str2bool

    assert SameExecutor is Executor and Future is concurrent.futures.Future
    for name in (ExecutorJob, FutureCollection, FutureProxy, InstanceProxy, str2bool):
        assert callable(name)


def test_keywords_of_coroutines_and_sync_calls(app: Flask, executor: Executor) -> None:
    """A coroutine function and a call at once get their keywords whole as well."""

    async def take(**kwargs: int) -> dict[str, int]:
        return kwargs

    app.config["NOW_EXECUTOR_TYPE"] = "sync"
    for each in (executor, Executor(app, name="now")):
        assert each.submit(take, **WORDS).result(LIMIT) == WORDS
        assert each.submit_stored("k", take, **WORDS).result(LIMIT) == WORDS
        assert each.submit(echo, **WORDS).result(LIMIT) == ((), WORDS)
        each.shutdown()


def test_the_parameters_of_submit_are_positional(executor: Executor) -> None:
    """A callable passed by keyword is an error, as in the standard library."""
    with pytest.raises(TypeError, match="positional"):
        executor.submit(fn=echo)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="positional"):
        executor.submit_stored(future_key="k", fn=echo)  # type: ignore[call-overload]
    assert len(executor.futures) == 0


def test_a_name_is_ascii() -> None:
    """A name becomes part of config keys: a trailing newline is no letter."""
    for name in ("mail\n", "é", "a b"):
        with pytest.raises(ValueError, match="cannot name an executor"):
            Executor(name=name)


def test_without_any_app() -> None:
    """Before any init_app every use says so and names init_app."""
    executor = Executor()
    for use in (
        lambda: executor.submit(echo),
        lambda: executor.submit_stored("k", echo),
        lambda: executor.map(echo, [1]),
        lambda: executor.futures,
    ):
        with pytest.raises(ExecutorNotInitialized, match=r"any app: call.*init_app"):
            use()


def test_in_the_context_of_an_unknown_app(executor: Executor) -> None:
    """In the context of an app that was never initialised the error names it."""
    other = Flask("other")
    for context in (other.app_context(), other.test_request_context("/")):
        with context:
            with pytest.raises(ExecutorNotInitialized, match=r"'other'.*init_app"):
                executor.submit_stored("k", echo)
            with pytest.raises(RuntimeError, match="init_app"):
                list(executor.map(abs, [1]))
    assert len(executor.futures) == 0


def test_two_apps_have_their_own(app: Flask, executor: Executor) -> None:
    """Pool, futures and settings are those of the current app, else of the last."""
    other = Flask("other")
    other.config["EXECUTOR_MAX_WORKERS"] = 2
    executor.init_app(other)
    with app.app_context():
        executor.submit_stored("k", echo).result(LIMIT)
        assert executor._max_workers == 4 and "k" in executor.futures
    assert executor._max_workers == 2 and "k" not in executor.futures
    executor.shutdown()
    with pytest.raises(ExecutorShutDown):
        executor.submit(echo)
    with app.app_context():
        assert executor.submit(lambda: current_app.name).result(LIMIT) == "tests"
        executor.shutdown()


@pytest.mark.parametrize(
    "submit",
    [
        lambda executor: executor.submit(echo),
        lambda executor: executor.submit_stored("k", echo),
        lambda executor: executor.map(echo, [1]),
        lambda executor: executor.map(echo, [1], chunksize=2),
        lambda executor: executor.job(echo).submit(),
    ],
)
def test_submit_after_shutdown(
    executor: Executor, submit: t.Callable[[Executor], object]
) -> None:
    """It is a RuntimeError in the standard library's words, with the next step."""
    executor.shutdown()
    executor.shutdown()
    match = r"cannot schedule new futures after shutdown.*init_app"
    with pytest.raises(RuntimeError, match=match):
        submit(executor)
    assert len(executor.futures) == 0 and executor._shutdown is True


def test_as_a_with_block(app: Flask) -> None:
    """Leaving the block waits for what was accepted, and accepts nothing more."""
    with Executor(app) as executor:
        future = executor.submit(abs, -1)
    assert future.done() and future.result() == 1
    with pytest.raises(ExecutorShutDown):
        executor.submit(abs, 1)


@pytest.mark.holds("g-init-again")
def test_shutdown_per_test(app: Flask, executor: Executor) -> None:
    """init_app again and again starts with an empty registry and a new pool."""
    pools = set()
    for _ in range(3):
        assert executor.submit_stored("same", abs, -1).result(LIMIT) == 1
        pools.add(executor._self)
        executor.shutdown()
        executor.init_app(app)
    assert len(pools) == 3 and all(pool._shutdown for pool in pools)


def test_attributes_of_the_pool_while_it_works(
    executor: Executor, gate: threading.Event
) -> None:
    """_threads, _work_queue and _shutdown are the pool's own."""
    started = threading.Semaphore(0)
    for _ in range(6):
        executor.submit(lambda: (started.release(), gate.wait(LIMIT)))
    assert all(started.acquire(timeout=LIMIT) for _ in range(4))
    assert len(executor._threads) == 4 == executor._max_workers
    assert executor._work_queue.qsize() == 2
    assert executor._threads is executor._self._threads
    gate.set()
    executor.shutdown()
    assert executor._shutdown is True


def test_own_attributes(executor: Executor) -> None:
    """Attributes are set, read and deleted on the executor, not on its pool."""
    mine: t.Any = executor
    mine.flavour = "plain"
    assert mine.flavour == "plain" and not hasattr(executor._self, "flavour")
    del mine.flavour
    assert not hasattr(mine, "flavour")


def test_patching(executor: Executor) -> None:
    """Every verb can be patched by name."""
    for name in ("submit", "submit_stored", "map", "shutdown", "job"):
        with mock.patch.object(executor, name) as patched:
            getattr(executor, name)("k", echo)
        patched.assert_called_once_with("k", echo)
    assert executor.submit(abs, -1).result(LIMIT) == 1


def test_autospec(executor: Executor) -> None:
    """A mock with the executor's spec has the executor's own verbs."""
    spec = mock.create_autospec(executor)
    assert isinstance(spec, Executor)
    spec.submit_stored("k", echo, 1)
    spec.submit_stored.assert_called_once_with("k", echo, 1)
    assert {"submit_stored", "job", "futures", "init_app"} <= set(dir(executor))


def test_the_registry_can_be_patched(executor: Executor) -> None:
    """executor.futures can be replaced for a while, as the attribute it was."""
    before = executor.futures
    with mock.patch.object(executor, "futures") as patched:
        executor.futures.done("k")
    patched.done.assert_called_once_with("k")
    assert executor.futures is before


def test_an_executor_does_not_travel(executor: Executor) -> None:
    """Pickling an executor is an error at once, not half of an executor."""
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(executor)
    assert executor.submit(abs, -1).result(LIMIT) == 1


def test_submit_stored_of_no_callable(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """The slip's future is stored and fails; the log holds key and value, once."""
    future = executor.submit_stored("slip", t.cast(t.Any, {"sent": True}))
    assert isinstance(executor.futures.exception("slip", timeout=LIMIT), NotCallable)
    assert future in executor.futures
    (record,) = caplog.records
    assert "key 'slip'" in record.getMessage()
    assert "{'sent': True} was submitted" in caplog.text
    with pytest.raises(TypeError, match="not callable"):
        future.result(LIMIT)


# more of map


def test_map_takes_the_shortest(executor: Executor) -> None:
    """As zip: the shortest iterable ends it; no items make no calls."""
    assert list(executor.map(pow, [2, 3, 4], [2])) == [4]
    assert list(executor.map(abs, [])) == []
    assert list(executor.map(abs, [-1, -2, -3], chunksize=100)) == [1, 2, 3]


def test_map_reads_its_items_at_once(executor: Executor) -> None:
    """The iterables are read before map returns, and an error in one is raised."""
    read: list[int] = []
    executor.map(abs, (read.append(n) or n for n in range(3)))  # type: ignore[func-returns-value]
    assert read == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        executor.map(abs, (1 // n for n in (1, 0)))


@pytest.mark.parametrize("chunksize", [0, -1])
def test_a_chunksize_below_one(executor: Executor, chunksize: int) -> None:
    """It is a ValueError that names the rule and the value; nothing runs."""
    ran = mock.Mock()
    match = rf"chunksize .*>= 1, not {chunksize}"
    with pytest.raises(ValueError, match=match):
        executor.map(ran, [1], chunksize=chunksize)
    with pytest.raises(ValueError, match=match):
        executor.job(ran).map([1], chunksize=chunksize)
    executor.shutdown()
    ran.assert_not_called()


@pytest.mark.holds("g-map")
def test_map_failure_cancels_the_rest(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """When a result is a failure, what has not started is cancelled."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    ran: list[int] = []

    def run(n: int) -> None:
        if n == 0:
            raise ValueError
        if n == 1:
            assert gate.wait(LIMIT)
        ran.append(n)

    with pytest.raises(ValueError):
        next(executor.map(run, range(5)))
    gate.set()
    executor.shutdown()
    assert ran in ([], [1])


def test_map_timeout_cancels_the_rest(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """After the timeout, what has not started is cancelled, chunked or not."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    ran: list[int] = []

    def run(n: int) -> None:
        ran.append(n)
        assert gate.wait(LIMIT)

    for chunksize in (1, 2):
        ran.clear()
        gate.clear()
        results = executor.map(run, range(6), timeout=0.01, chunksize=chunksize)
        with pytest.raises(concurrent.futures.TimeoutError):
            next(results)
        gate.set()
        executor.submit(echo).result(LIMIT)
        assert len(ran) <= chunksize


def test_closing_a_chunked_map_cancels_the_rest(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """A map with a chunksize can be closed as one without."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    ran: list[int] = []

    def run(n: int) -> int:
        if n == 2:
            assert gate.wait(LIMIT)
        ran.append(n)
        return n

    results: t.Any = executor.map(run, range(10), chunksize=2)
    assert next(results) == 0
    results.close()
    gate.set()
    executor.shutdown()
    assert 9 not in ran


@pytest.mark.holds("g-map-chunk")
def test_a_failure_loses_the_results_of_its_chunk(executor: Executor) -> None:
    """The results of the chunks before it are given."""
    results = executor.map(lambda n: 1 // n, [2, 1, 1, 0], chunksize=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("chunksize", [1, 3])
def test_map_drops_results(executor: Executor, chunksize: int) -> None:
    """A result that was read is no longer referred to by the map."""

    class Thing:
        def __init__(self, _: int) -> None: ...

    gc.disable()
    try:
        results = executor.map(Thing, range(3), chunksize=chunksize)
        first = weakref.ref(next(results))
        executor.shutdown()
        assert first() is None
        assert len(list(results)) == 2
    finally:
        gc.enable()


def test_map_of_failures_is_logged_with_the_functions_name(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed call of a map is logged once, under its own name, chunked too."""
    for chunksize in (1, 2):
        caplog.clear()
        with pytest.raises(ZeroDivisionError):
            list(executor.map(divmod, [1], [0], chunksize=chunksize))
        executor.submit(echo).result(LIMIT)
        (record,) = caplog.records
        assert "builtins.divmod" in record.getMessage()


# more of callbacks


@pytest.mark.holds("g-callbacks")
def test_default_callbacks_keep_their_order(
    executor: Executor, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """They run in the order added, before those of the future; none stops another."""
    seen: list[str] = []

    def fail(future: t.Any) -> None:
        seen.append("fail")
        raise ValueError("in a callback")

    executor.add_default_done_callback(lambda f: seen.append("first"))
    executor.add_default_done_callback(fail)
    executor.add_default_done_callback(lambda f: seen.append("last"))
    future = executor.submit(gate.wait, LIMIT)
    future.add_done_callback(lambda f: seen.append("own"))
    gate.set()
    executor.shutdown()
    assert seen == ["first", "fail", "last", "own"]
    (record,) = caplog.records
    assert record.name == "tests" and "fail" in record.getMessage()
    assert "in a callback" in caplog.text


@pytest.mark.holds("g-key-first")
def test_default_callbacks_of_every_kind_of_call(executor: Executor) -> None:
    """Jobs, stored calls, coroutines, chunks and failures have them; keys are set."""
    keys: list[t.Any] = []
    executor.add_default_done_callback(lambda f: keys.append((f.key, f.done())))

    async def coroutine() -> None: ...

    executor.job(echo).submit_stored("job")
    executor.submit_stored("coroutine", coroutine)
    executor.submit_stored("failure", divmod, 1, 0)
    executor.submit_stored("slip", t.cast(t.Any, None))
    list(executor.map(abs, range(4), chunksize=2))
    executor.shutdown()
    names = ["coroutine", "failure", "job", "slip", None, None]
    assert sorted(keys, key=str) == sorted(((n, True) for n in names), key=str)


def test_a_callback_gets_the_future_itself(executor: Executor) -> None:
    """The argument is the very future; its result and its key can be asked."""
    seen: list[t.Any] = []
    future = executor.submit_stored("k", abs, -1)
    future.add_done_callback(lambda f: seen.append((f, f.result(), f.key)))
    future.result(LIMIT)
    executor.shutdown()
    assert seen == [(future, 1, "k")] and seen[0][0] is future


@pytest.mark.holds("g-callbacks")
def test_a_callback_of_a_cancelled_call(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """Cancelling runs the callbacks in the submitter's context, once."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    seen: list[t.Any] = []
    executor.add_default_done_callback(
        lambda f: seen.append((request.path, f.cancelled()))
    )
    with app.test_request_context("/from"):
        executor.submit(gate.wait, LIMIT)
        waiting = executor.submit_stored("w", echo)
        assert executor.futures.cancel("w") is True
    assert seen == [("/from", True)]
    gate.set()
    executor.shutdown()
    assert seen == [("/from", True), ("/from", False)] and waiting.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        waiting.result(LIMIT)


def test_a_callback_that_exits_on_a_finished_future(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """What a callback raises at once is logged, and not raised where it is added."""
    future = executor.submit(echo)
    future.result(LIMIT)
    future.add_done_callback(lambda f: exit(3))
    assert "SystemExit" in caplog.text


def test_callbacks_may_submit(executor: Executor) -> None:
    """A callback may submit the next call."""
    results: list[t.Any] = []
    following = threading.Event()

    def chain(future: t.Any) -> None:
        if future.result() < 3:
            executor.submit(lambda n: n + 1, future.result()).add_done_callback(chain)
        else:
            results.append(future.result())
            following.set()

    executor.submit(abs, 0).add_done_callback(chain)
    assert following.wait(LIMIT) and results == [3]


# more failures


def test_propagated_in_the_calls_context(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """Propagation replaces the log line of the task, for a key and a map too."""
    app.config["EXECUTOR_PROPAGATE_EXCEPTIONS"] = True
    executor.submit_stored("k", divmod, 1, 0)
    executor.map(divmod, [1], [0])
    executor.shutdown()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert all("propagate_exceptions_callback" in message for message in messages)
    assert caplog.text.count("ZeroDivisionError") >= 2


def test_exit_leaves_the_submitter_alone(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """sys.exit() in a task is logged as its failure; its worker thread goes on."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    before = executor.submit(threading.get_ident).result(LIMIT)
    for _ in range(3):
        assert isinstance(executor.submit(sys.exit, 1).exception(LIMIT), SystemExit)
    assert executor.submit(threading.get_ident).result(LIMIT) == before
    assert len([r for r in caplog.records if "sys.exit" in r.getMessage()]) == 3


def test_sync_failures(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """With 'sync' a failure stays in the future and is logged once, as elsewhere."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)
    seen: list[t.Any] = []
    executor.add_default_done_callback(seen.append)
    future = executor.submit_stored("k", divmod, 1, 0)
    assert seen == [future] and future.done() and not future.cancel()
    assert isinstance(future.exception(0), ZeroDivisionError)
    assert "k" in executor.futures
    (record,) = caplog.records
    assert record.getMessage() == "Task builtins.divmod (key 'k') failed"
    assert list(executor.map(abs, [-1, -2])) == [1, 2]
    with pytest.raises(DuplicateKey):
        executor.submit_stored("k", abs, 1)
    executor.shutdown()


def test_sync_keeps_the_callers_session_open(app: Flask) -> None:
    """With 'sync' in a context, no teardown runs and g is the caller's own."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)
    teardown = mock.Mock()
    app.teardown_appcontext(teardown)
    with app.test_request_context("/"):
        g.session = object()
        assert executor.submit(lambda: g.session).result(0) is g.session
        assert executor.submit(divmod, 1, 0).exception(0)
        teardown.assert_not_called()
    teardown.assert_called_once()
    executor.shutdown()


def test_sync_spares_what_its_caller_handles(app: Flask) -> None:
    """A 'sync' failure inside an except block leaves the caller's own error whole."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)

    def risky() -> None:
        detail = "kept"
        raise ValueError(detail)

    try:
        risky()
    except ValueError as error:
        executor.submit(divmod, 1, 0).exception(0)
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        assert frame.f_locals == {"detail": "kept"}
    executor.shutdown()


def test_thread_names(app: Flask, executor: Executor) -> None:
    """Workers and the event loop's thread carry the executor's name."""

    async def loop_name() -> str:
        return threading.current_thread().name

    mail = Executor(app, name="mail")
    for each, prefix in ((executor, "executor"), (mail, "mail-executor")):
        name = each.submit(lambda: threading.current_thread().name).result(LIMIT)
        assert name == f"{prefix}_0"
        assert each.submit(loop_name).result(LIMIT) == f"{prefix}_loop"
    mail.shutdown()


def test_nothing_starts_before_first_use(app: Flask) -> None:
    """init_app and its attributes start no thread."""
    before = threading.active_count()
    executor = Executor(app)
    assert executor._max_workers == 4 and len(executor.futures) == 0
    assert isinstance(executor, ThreadPoolExecutor)
    assert threading.active_count() == before
    executor.shutdown()


def test_wait_for_the_first_failure(executor: Executor, gate: threading.Event) -> None:
    """concurrent.futures.wait sees failures and cancellations."""
    running = executor.submit(gate.wait, LIMIT)
    failed = executor.submit(divmod, 1, 0)
    done, pending = concurrent.futures.wait(
        [running, failed], LIMIT, return_when=concurrent.futures.FIRST_EXCEPTION
    )
    assert done == {failed} and pending == {running}
    with pytest.raises(concurrent.futures.TimeoutError):
        list(concurrent.futures.as_completed([running], timeout=0))


def test_run_in_executor_keeps_the_context(app: Flask, executor: Executor) -> None:
    """run_in_executor and to_thread from an async view see its request."""

    async def view() -> tuple[str, str]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(t.cast(ThreadPoolExecutor, executor))
        name = await loop.run_in_executor(None, lambda: request.path)
        return name, await asyncio.to_thread(lambda: request.path)

    with app.test_request_context("/async"):
        assert asyncio.run(asyncio.wait_for(view(), LIMIT)) == ("/async", "/async")


def test_representation(app: Flask, executor: Executor) -> None:
    """It names itself and its app."""
    mail = Executor(app, name="mail")
    assert repr(mail) == "<Executor 'mail' of <Flask 'tests'>>"
    assert repr(Executor(name="idle")) == "<Executor 'idle' of None>"
    mail.shutdown()
