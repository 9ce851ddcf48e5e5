"""Code written for Flask-Executor 1.0.0 runs unchanged."""

from __future__ import annotations

import asyncio
import configparser
import threading
import typing as t
from concurrent.futures import (
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from pathlib import Path
from unittest import mock

import pytest
from flask import Flask, current_app, g, request
from limits import LIMIT

import flask_executor
from flask_executor import (
    CallNotPicklable,
    DuplicateKey,
    Executor,
    ExecutorJob,
    TaskFuture,
)
from flask_executor.futures import FutureCollection, FutureProxy
from flask_executor.helpers import InstanceProxy


def echo(*args: t.Any, **kwargs: t.Any) -> t.Any:
    return args, kwargs


WORDS = {"fn": 1, "self": 2, "timeout": 3, "future_key": 4, "key": 5, "job": 6}


def without(*names: str) -> dict[str, int]:
    return {name: value for name, value in WORDS.items() if name not in names}


# Keywords


def test_what_is_missing_by_position_is_a_keyword(executor: Executor) -> None:
    """submit, submit_stored, job and a job's submit_stored take ours from there; every
    other keyword reaches the callable.
    """
    mine: t.Any = executor
    job: t.Any = executor.job(fn=echo)
    assert isinstance(job, ExecutorJob)
    rest = without("fn")
    assert mine.submit(fn=echo, **rest).result(LIMIT) == ((), rest)
    assert mine.submit_stored("a", fn=echo, **rest).result(LIMIT) == ((), rest)
    rest = without("fn", "future_key")
    future = mine.submit_stored(future_key="b", fn=echo, **rest)
    assert future.result(LIMIT) == ((), rest) and future.key == "b"
    rest = without("future_key")
    future = job.submit_stored(future_key="c", **rest)
    assert future.result(LIMIT) == ((), rest) and "c" in executor.futures
    group: t.Any = executor.group()
    rest = without("fn")
    assert group.submit(fn=echo, **rest).result(LIMIT) == ((), rest)
    view: t.Any = executor.using(priority=1)
    assert view.submit_stored(future_key="d", fn=bool).key == "d"


def test_what_is_given_by_position_is_ours(executor: Executor) -> None:
    """Then every keyword reaches the callable whole."""
    job: t.Any = executor.job(echo)
    for future in (
        executor.submit(echo, 1, **WORDS),
        executor.submit_stored("a", echo, 1, **WORDS),
        executor.using(priority=1).submit_stored("b", echo, 1, **WORDS),
        executor.group().submit_stored("c", echo, 1, **WORDS),
        job.submit(1, **WORDS),
        job.submit_stored("d", 1, **WORDS),
    ):
        assert future.result(LIMIT) == ((1,), WORDS)


def test_what_is_missing_altogether(executor: Executor) -> None:
    """A callable or key that is not there is a TypeError that names it."""
    mine: t.Any = executor
    with pytest.raises(TypeError, match=r"submit\(\) is missing the argument 'fn'"):
        mine.submit(timeout=3)
    match = (
        r"submit_stored\(\) is missing the argument 'future_key'.* or as future_key="
    )
    with pytest.raises(TypeError, match=match):
        mine.submit_stored(fn=echo)
    with pytest.raises(TypeError, match="'fn'"):
        mine.submit_stored("key", future_key="key")
    with pytest.raises(TypeError, match="'future_key'"):
        t.cast(t.Any, executor.job(echo)).submit_stored(key="key")
    with pytest.raises(TypeError, match=r"futures.done\(\) .* 'future_key'"):
        mine.futures.done()
    assert len(executor.futures) == 0


def test_the_registry_by_keyword(executor: Executor) -> None:
    """futures.done(future_key=…), and add and pop likewise."""
    future = executor.submit_stored("key", abs, -1)
    futures = executor.futures
    assert futures.result(future_key="key", timeout=LIMIT) == 1
    assert futures.done(future_key="key") is True
    assert futures.done(future_key="unknown") is None
    assert futures.pop(future_key="key") is future
    futures.add(future_key="again", future=future)
    assert futures._state(future_key="again") == "FINISHED"
    callback = mock.Mock()
    futures.add_done_callback(future_key="again", fn=callback)
    callback.assert_called_once_with(future)


# Overriding submit


class Seeing(Executor):
    """It notes what is submitted, and with what the key was then."""

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[t.Any] = []

    def submit(self, fn: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
        self.seen.append((fn, args, kwargs))
        return super().submit(fn, *args, **kwargs)


def test_who_overrides_submit_sees_all(app: Flask) -> None:
    """submit_stored, a job, a view and a group submit through it; keys and options are
    kept.
    """
    executor = Seeing(app)
    job = executor.job(echo)
    with executor.using(name="view") as view:
        stored = executor.submit_stored("a", echo, 1, x=2)
        of_job = job.submit(3)
        of_stored_job = job.using(name="job").submit_stored("b", 4)
        of_view = view.submit(echo, 5)
        of_stored_view = view.submit_stored("c", echo, 6)
        by_option = executor.using(key="d").submit(echo, 7)
        executor.group().submit_stored("e", echo, 8)
    assert [(args, kwargs) for _, args, kwargs in executor.seen] == [
        ((1,), {"x": 2}),
        *[((n,), {}) for n in range(3, 9)],
    ]
    assert stored.key == "a" and executor.futures["a"] is stored
    assert of_job.key is None and of_job.result(LIMIT) == ((3,), {})
    assert of_stored_job.key == "b" and "b" in executor.futures
    assert of_stored_job.task is not None and of_stored_job.task.name == "job"
    assert of_view.task is not None and of_view.task.name == "view"
    assert executor.futures["c"] is of_stored_view
    assert by_option.key == "d" and executor.futures["d"] is by_option
    assert "e" in executor.futures


def test_who_patches_submit_sees_all(executor: Executor) -> None:
    """unittest.mock on the object and on the class; what it returns is stored."""
    job = executor.job(echo)
    with mock.patch.object(executor, "submit") as patched:
        assert executor.submit_stored("a", echo, 1, x=2) is patched.return_value
        job.submit_stored("b", 3)
        job.submit(4)
    assert patched.call_args_list == [
        mock.call(echo, 1, x=2),
        mock.call(job, 3),
        mock.call(job, 4),
    ]
    assert executor.futures["a"] is patched.return_value
    with mock.patch.object(Executor, "submit", autospec=True) as on_the_class:
        executor.submit_stored("c", echo)
    on_the_class.assert_called_once_with(executor, echo)
    assert executor.submit_stored("d", abs, -1).result(LIMIT) == 1


def test_a_taken_key_is_refused_before_an_overridden_submit(app: Flask) -> None:
    """Nothing reaches it then; by one of two that race for the key, too."""
    executor = Seeing(app)
    executor.submit_stored("key", echo)
    with pytest.raises(DuplicateKey, match="'key'"):
        executor.submit_stored("key", echo)
    assert len(executor.seen) == 1
    inside, go_on = threading.Event(), threading.Event()

    def submit(fn: t.Any) -> Future[t.Any]:
        inside.set()
        assert go_on.wait(LIMIT)
        return Future()

    with mock.patch.object(executor, "submit", submit):
        first = threading.Thread(target=executor.submit_stored, args=("slow", echo))
        first.start()
        assert inside.wait(LIMIT)
        with pytest.raises(DuplicateKey, match="'slow'"):
            executor.submit_stored("slow", echo)
        with pytest.raises(DuplicateKey, match="'slow'"):
            executor.futures.add("slow", Future())
        assert "slow" not in executor.futures
        go_on.set()
        first.join(LIMIT)
    assert "slow" in executor.futures
    executor.shutdown()


def test_the_key_is_set_before_an_overridden_task_starts(app: Flask) -> None:
    """Also if the override wraps the callable."""
    app.config["EXECUTOR_TYPE"] = "sync"
    seen: list[t.Any] = []

    class Wrapping(Executor):
        def submit(self, fn: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
            def wrapped(*args: t.Any) -> t.Any:
                seen.append(("key" in self.futures, self.futures.key("key")))
                inner = self.submit_stored("inner", abs, -2)
                assert inner.key == "inner"
                return fn(*args)

            if fn is abs:
                return super().submit(fn, *args)
            return super().submit(wrapped, *args)

    executor = Wrapping(app)
    assert executor.submit_stored("key", max, 1, 2).result(0) == 2
    assert seen == [(True, "key")]
    assert executor.futures.result("inner") == 2
    assert executor.submit(abs, -3).key is None


def test_an_overridden_submit_that_raises(app: Flask) -> None:
    """The key is free again, whether it raises before or after calling ours."""

    class Raising(Executor):
        after = False

        def submit(self, fn: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
            if self.after:
                super().submit(fn, *args, **kwargs)
            raise LookupError("no")

    executor = Raising(app)
    for executor.after in (False, True):
        with pytest.raises(LookupError, match=r"^no$"):
            executor.submit_stored("key", echo)
        assert "key" not in executor.futures
    executor.futures.add("key", Future())
    executor.shutdown()


def test_an_overridden_submit_of_its_own_future(app: Flask, executor: Executor) -> None:
    """What it returns is what is stored, wherever it comes from."""
    other = Executor(app, name="other")

    class Routing(Executor):
        def submit(self, fn: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
            if fn is abs:
                return other.submit(fn, *args)
            super().submit(echo, "noted")
            return super().submit(fn, *args, **kwargs)

    routing = Routing(app, name="routing")
    future = routing.submit_stored("a", abs, -1)
    assert future.result(LIMIT) == 1
    assert future.key == "a" and routing.futures["a"] is future
    last = routing.submit_stored("b", max, 1, 2)
    assert routing.futures["b"] is last and last.result(LIMIT) == 2
    assert last.key == "b"
    other.shutdown()
    routing.shutdown()


def test_nothing_overridden_goes_straight(app: Flask, executor: Executor) -> None:
    """submit_stored does not go through submit where that is ours."""
    executor.submit_stored("key", echo).result(LIMIT)
    assert executor._overrides is None


# FutureProxy


def test_every_future_is_a_future_proxy(executor: Executor) -> None:
    """isinstance holds for what an executor returns, and for nothing else."""
    future = executor.submit(abs, -1)
    assert isinstance(future, FutureProxy) and issubclass(TaskFuture, FutureProxy)
    assert issubclass(FutureProxy, Future)
    assert not isinstance(Future(), FutureProxy)
    assert not issubclass(Future, FutureProxy)

    class Mine(FutureProxy):
        """Somebody's own."""

    assert not isinstance(future, Mine)


def test_a_future_proxy_of_a_plain_future(app: Flask, executor: Executor) -> None:
    """Attributes are the future's; a callback sees the context it was added in."""
    future: Future[int] = Future()
    proxy = FutureProxy(future, executor)
    seen: list[t.Any] = []
    assert isinstance(proxy, FutureProxy) and isinstance(proxy, Future)
    assert not proxy.done() and proxy._state == "PENDING"
    with app.test_request_context("/"):
        g.x = 1
        proxy.add_done_callback(lambda future: seen.append((g.x, future)))
    collection = FutureCollection(1, app=app)
    collection.add("key", proxy)
    assert collection.done("key") is False and proxy in collection
    proxy.set_result(3)
    assert seen == [(1, future)]
    assert future.result(0) == proxy.result(0) == 3 and proxy.done()
    assert collection.result("key", timeout=0) == 3
    assert collection._by_key.oldest_finished() is not None
    assert repr(proxy) == f"<FutureProxy of {future!r}>"
    proxy.note = "kept"  # type: ignore[attr-defined]
    assert future.note == "kept"  # type: ignore[attr-defined]


def test_a_future_proxy_of_a_task(app: Flask, executor: Executor) -> None:
    """It waits, is waited for and is awaited as the future itself."""
    future = executor.submit_stored("key", abs, -1)
    proxy = FutureProxy(future, executor)
    assert proxy.key == "key" and isinstance(proxy, TaskFuture)
    assert wait([proxy], LIMIT).done == {proxy}
    assert next(as_completed([proxy], LIMIT)) is proxy
    callback = mock.Mock()
    proxy.add_done_callback(callback)
    callback.assert_called_once_with(future)

    async def main() -> list[int]:
        plain: Future[int] = Future()
        plain.set_result(2)
        return [await proxy, await FutureProxy(plain, executor)]

    assert asyncio.run(asyncio.wait_for(main(), LIMIT)) == [1, 2]


def test_a_future_proxy_without_an_app() -> None:
    """Then a callback runs as that of any future."""
    future: Future[int] = Future()
    callback = mock.Mock()
    FutureProxy(future, Executor()).add_done_callback(callback)
    future.set_result(1)
    callback.assert_called_once_with(future)


# Names, and what one sees of them


def test_the_version_is_in_one_place() -> None:
    """flask_executor.__version__ is what setup.cfg reads."""
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parent.parent / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: flask_executor.__version__"
    assert flask_executor.__version__.startswith("2.")
    source = Path(flask_executor.__file__).read_text()
    # Setuptools reads a literal without importing the package.
    assert f'\n__version__ = "{flask_executor.__version__}"\n' in source


def test_the_repr_of_an_instance_proxy() -> None:
    """It names what the proxy stands for; a subclass by its own name."""

    class Mine(InstanceProxy):
        pass

    assert repr(InstanceProxy([1])) == "<InstanceProxy of [1]>"
    assert repr(Mine("pool")) == "<Mine of 'pool'>"


def test_the_repr_of_a_future(app: Flask, executor: Executor) -> None:
    """It names its task, its key and its state."""
    gate, started = threading.Event(), threading.Event()
    app.config["EXECUTOR_MAX_WORKERS"] = 1

    def wait() -> None:
        started.set()
        assert gate.wait(LIMIT)

    running = executor.using(name="report").submit_stored(("k", 1), wait)
    assert started.wait(LIMIT)
    waiting = executor.submit(abs, -1)
    assert repr(running) == "<TaskFuture of report (key ('k', 1)) running>"
    assert repr(waiting) == "<TaskFuture of builtins.abs waiting>"
    gate.set()
    executor.shutdown()
    assert repr(running) == "<TaskFuture of report (key ('k', 1)) succeeded>"
    assert repr(TaskFuture(app, "k")) == "<TaskFuture (key 'k') pending>"


def test_what_cannot_be_pickled_is_a_type_error(app: Flask) -> None:
    """As in 1.0.0, for who catches that."""
    app.config["EXECUTOR_TYPE"] = "process"
    executor = Executor(app)
    with pytest.raises(TypeError) as info:
        executor.submit(lambda: 1)
    assert isinstance(info.value, CallNotPicklable)
    with pytest.raises(TypeError):
        executor.job(lambda: 1)
    executor.shutdown()


# Hints


@pytest.mark.parametrize("verb", ["delay", "apply_async", "send", "enqueue"])
def test_the_verbs_of_other_queues(executor: Executor, verb: str) -> None:
    """job.delay and the like are an AttributeError that names job.submit."""
    job = executor.job(echo)
    with pytest.raises(AttributeError, match=rf"'{verb}' .* use job\.submit\(") as info:
        getattr(job, verb)
    assert info.value.name == verb
    assert not hasattr(job, verb) and verb not in dir(job)


def test_an_attribute_that_a_job_has_not(executor: Executor) -> None:
    """Any other one is an ordinary AttributeError; the function's own are there."""

    def work() -> None: ...

    work.delay = 3  # type: ignore[attr-defined]
    job: t.Any = executor.job(work)
    assert job.delay == 3 and "delay" in dir(job)
    with pytest.raises(AttributeError, match="nonsense"):
        job.nonsense  # noqa: B018


@pytest.mark.parametrize("option", ["timeout", "priority", "key"])
def test_an_option_among_the_keywords(
    executor: Executor, caplog: pytest.LogCaptureFixture, option: str
) -> None:
    """A callable that does not take it fails, and a note names using(...)."""

    async def coroutine() -> None: ...

    for fn in (bool, lambda: 1, coroutine):
        future = executor.submit(t.cast(t.Any, fn), **{option: 3})
        error = future.exception(LIMIT)
        assert isinstance(error, TypeError)
        if fn is not bool:  # "bool() takes no keyword arguments"
            (note,) = error.__notes__
            assert f"executor.using({option}=...).submit(...)" in note
    executor.shutdown()
    assert f"executor.using({option}=...)" in caplog.text


def test_other_type_errors_have_no_hint(executor: Executor) -> None:
    """Neither an unexpected keyword that is no option, nor one that was not given."""

    def inner() -> None:
        echo_one(timeout=3)  # type: ignore[call-arg]

    def echo_one(one: int = 0) -> None: ...

    for future in (
        executor.submit(inner),
        executor.submit(t.cast(t.Any, echo_one), two=2),
        executor.submit(t.cast(t.Any, echo_one), max_concurrency=2),
        executor.submit(int, "x"),
    ):
        assert not hasattr(future.exception(LIMIT), "__notes__")


# Apps


def test_an_app_that_answers_to_any_name() -> None:
    """Only a real proxy is unwrapped: not an app whose __getattr__ makes up names, as
    that of Eve.
    """

    class Eager(Flask):
        def __getattr__(self, name: str) -> t.Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return lambda *args: None

    app = Eager("eager")
    with Executor(app) as executor:
        assert executor.submit(lambda: current_app.name).result(LIMIT) == "eager"
        assert app.extensions["executor"] is executor
    with app.app_context(), Executor(t.cast(Flask, current_app)) as executor:
        assert executor.submit(abs, -1).result(LIMIT) == 1


# Where an executor is made, and what lies on it


def test_attributes_before_it_has_started(app: Flask) -> None:
    """They answer as those of a pool that has not started, and start nothing."""
    app.config.update(CPU_EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=2)
    executor, cpu = Executor(app), Executor(app, name="cpu")
    before = threading.active_count()
    assert isinstance(executor, ThreadPoolExecutor)
    assert issubclass(executor.__class__, ThreadPoolExecutor)
    assert isinstance(executor._self, ThreadPoolExecutor)
    assert executor._max_workers == 2 and executor._threads == set()
    assert executor._shutdown is False and executor._work_queue.qsize() == 0
    assert isinstance(cpu, ProcessPoolExecutor)
    assert cpu._max_workers >= 1 and cpu._processes == {}
    assert threading.active_count() == before
    executor.shutdown()
    cpu.shutdown()
    assert executor._shutdown is True


def test_one_made_lazily_in_a_view(app: Flask) -> None:
    """At the first request, kept in app.extensions, used by the next."""

    @app.get("/<int:number>")
    def view(number: int) -> dict[str, t.Any]:
        lazy = app.extensions.get("lazyexecutor") or Executor(app, name="lazy")
        future = lazy.submit_stored(number, lambda: request.path)
        return {"path": future.result(LIMIT), "stored": len(lazy.futures)}

    client = app.test_client()
    assert client.get("/1").json == {"path": "/1", "stored": 1}
    assert client.get("/2").json == {"path": "/2", "stored": 2}
    app.extensions["lazyexecutor"].shutdown()


def test_shut_down_and_made_again_per_test(app: Flask, executor: Executor) -> None:
    """Under a key that was taken before, with the callbacks and jobs there were."""
    called: list[t.Any] = []
    executor.add_default_done_callback(called.append)
    job = executor.job(echo)
    for _ in range(3):
        executor.init_app(app)
        future = job.submit_stored("key")
        assert future.result(LIMIT) == ((), {})
        executor.shutdown()
        assert called.pop() is future and not called


def test_a_coroutine_function_is_submitted_by_keyword(executor: Executor) -> None:
    """It runs on the event loop, however it is given."""

    async def where() -> str:
        return threading.current_thread().name

    future = t.cast(t.Any, executor).submit_stored(future_key="key", fn=where)
    assert future.result(LIMIT) == "executor_loop"
