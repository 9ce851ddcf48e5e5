"""What may be asked of a task, where, and which of several wishes counts."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import threading
import typing as t
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import control_app
import pytest
from control import with_clock
from flask import Flask
from internals import OPTIONS, Options, checked
from limits import LIMIT
from requests import Session
from requests.adapters import BaseAdapter
from requests.models import PreparedRequest, Response
from requests_futures.sessions import FuturesSession

from flask_executor import (
    DuplicateKey,
    Executor,
    ExecutorView,
    InvalidOption,
    JobNotStorable,
    Retry,
    Task,
    TaskTimeout,
    UnknownOption,
    UnsupportedOption,
)

WEST, EAST = (timezone(timedelta(hours=hours)) for hours in (-5, 5))
MOMENT = datetime(2030, 1, 1, tzinfo=UTC)


def echo(*args: t.Any, **kwargs: t.Any) -> t.Any:
    return args, kwargs


async def echo_async(*args: t.Any, **kwargs: t.Any) -> t.Any:
    return args, kwargs


def task_of(future: t.Any) -> Task:
    future.exception(LIMIT)
    task: Task = future.task
    return task


# Views


def test_a_view_is_an_executor(app: Flask, executor: Executor) -> None:
    """executor.using() has every verb of the executor, and its futures."""
    view = executor.using(name="view")
    assert isinstance(view, concurrent.futures.Executor)
    assert isinstance(view, ExecutorView) and view.executor is executor
    future = view.submit(echo, 1, two=2)
    assert future.result(LIMIT) == ((1,), {"two": 2})
    assert task_of(future).name == "view"
    assert view.submit_stored("key", echo).result(LIMIT) == ((), {})
    assert view.futures is executor.futures and "key" in view.futures
    assert list(view.map(echo, [1], [2])) == [((1, 2), {})]
    assert "view" in repr(view) and repr(executor) in repr(view)
    view.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(echo)


@pytest.mark.parametrize("fn", [echo, echo_async])
def test_options_never_take_a_keyword(executor: Executor, fn: t.Any) -> None:
    """A callable gets its keyword arguments whole, those named as options too."""
    words: dict[str, t.Any] = {name: name for name in OPTIONS}
    words |= {"fn": 1, "self": 2, "future_key": 3, "job": 4, "options": 5, "given": 6}
    job = executor.job(priority=1)(fn)
    for n, submitting in enumerate((executor, executor.using(priority=2))):
        assert submitting.submit(fn, **words).result(LIMIT) == ((), words)
        stored = submitting.submit_stored(n, fn, **words)
        assert stored.result(LIMIT) == ((), words)
    for name, view in (("a", job), ("b", job.using(timeout=LIMIT))):
        assert view.submit(**words).result(LIMIT) == ((), words)
        assert view.submit_stored(name, **words).result(LIMIT) == ((), words)


def test_views_do_not_change(executor: Executor) -> None:
    """A view of a view adds to its options; those it came from stay as they were."""
    first = executor.using(priority=1, name="first")
    second = first.using(name="second")
    assert dict(executor.options) == {}
    assert dict(first.options) == {"priority": 1, "name": "first"}
    assert dict(second.options) == {"priority": 1, "name": "second"}
    assert task_of(second.submit(echo)).options.priority == 1
    assert task_of(executor.submit(echo)).options == Options()


def test_views_of_jobs_do_not_change(executor: Executor) -> None:
    """job.using() is a job itself: callable, with the function's name and options."""
    job = executor.job(priority=1, timeout=5)(echo)
    view = job.using(priority=2).using(name="other")
    assert job.options == {"priority": 1, "timeout": 5.0}
    assert view.options == {"priority": 2, "timeout": 5.0, "name": "other"}
    assert view(1) == ((1,), {}) and view.__name__ == "echo"
    assert view.declared is job and job.declared is job
    options = task_of(view.submit()).options
    assert (options.priority, options.timeout) == (2, 5.0)


def test_in_an_event_loop(executor: Executor) -> None:
    """A view goes into loop.run_in_executor, as an Executor does."""
    view = executor.using(name="from the loop")

    def name() -> str:
        return threading.current_thread().name

    async def main() -> str:
        return await asyncio.get_running_loop().run_in_executor(view, name)

    assert asyncio.run(main()).startswith("executor_")


def test_with_requests_futures(executor: Executor) -> None:
    """A view goes into a FuturesSession."""

    class Adapter(BaseAdapter):
        def send(self, request: PreparedRequest, **kwargs: t.Any) -> Response:  # type: ignore[override]
            response = Response()
            response.status_code = 200
            response.url = t.cast(str, request.url)
            response.request = request
            return response

        def close(self) -> None: ...

    inner = Session()
    inner.mount("http://", Adapter())
    view = executor.using(name="request", timeout=LIMIT)
    with FuturesSession(executor=view, session=inner) as session:
        future = session.get("http://tests/")
        assert future.result(LIMIT).status_code == 200
    assert t.cast(t.Any, future).task.name == "request"


def test_a_view_before_init_app(app: Flask) -> None:
    """A view can be made before there is an app."""
    executor = Executor()
    view = executor.using(priority=3)
    executor.init_app(app)
    assert task_of(view.submit(echo)).options.priority == 3
    executor.shutdown()


def test_a_view_works_for_each_app(app: Flask) -> None:
    """A view finds the app as its executor does: through current_app."""
    executor = Executor(app)
    other = Flask("other")
    executor.init_app(other)
    view = executor.using(name="view")
    for each in (app, other):
        with each.app_context():
            assert view.submit(echo).app is each
            executor.shutdown()


# Precedence


def test_call_over_job_over_config(app: Flask, executor: Executor) -> None:
    """The last word counts: the call's, then the job's, then the config's."""
    app.config.update(EXECUTOR_TIMEOUT="20", EXECUTOR_RETRY=2)
    job = executor.job(timeout=10)(echo)
    assert task_of(executor.submit(echo)).options.timeout == 20
    assert task_of(executor.submit(job)).options.timeout == 10
    assert task_of(job.submit()).options.timeout == 10
    assert task_of(job.using(timeout=5).submit()).options.timeout == 5
    assert task_of(executor.using(timeout=6).submit(job)).options.timeout == 6
    view = executor.using(timeout=6)
    assert task_of(view.submit(job.using(timeout=7))).options.timeout == 6
    assert task_of(executor.using(timeout=None).submit(job)).options.timeout is None
    for future in (executor.submit(echo), job.submit()):
        assert task_of(future).options.retry == Retry(attempts=2)


def test_options_of_a_job_hold_in_map(executor: Executor) -> None:
    """map of a job has the job's options, with a chunksize too."""
    seen = []
    job = executor.job(name="mapped")(lambda n: n)
    executor.add_default_done_callback(lambda future: seen.append(future.task.name))
    assert [*job.map([1, 2]), *job.map([1, 2, 3], chunksize=2)] == [1, 2, 1, 2, 3]
    assert list(executor.using(name="viewed").map(job, [1])) == [1]
    executor.shutdown()
    assert sorted(seen) == ["mapped"] * 4 + ["viewed"]


def test_run_at_and_delay_take_each_others_place(executor: Executor) -> None:
    """A call's delay counts in place of its job's run_at, and the other way round."""
    settings = executor._state().settings
    by_time = Options.of(settings).overlaid({"run_at": MOMENT}, {"delay": 5.0})
    assert (by_time.run_at, by_time.delay) == (None, 5.0)
    by_delay = Options.of(settings).overlaid({"delay": 5.0}, {"run_at": MOMENT})
    assert (by_delay.run_at, by_delay.delay) == (MOMENT, None)
    assert by_delay.wait(MOMENT.timestamp() - 3) == 3
    assert by_delay.wait(MOMENT.timestamp() + 3) == 0
    none = Options.of(settings).overlaid({"delay": 5.0}, {"run_at": None})
    assert none.wait(0) is None


def test_the_name_and_the_key(executor: Executor) -> None:
    """name is what the task is called, key is where its future is stored."""
    future = executor.using(name="the report", key=7).submit(echo)
    assert executor.futures[7] is future and future.key == 7
    task = task_of(future)
    assert (task.name, task.key) == ("the report", 7)
    assert repr(task) == "<Task the report (key 7) succeeded>"
    with pytest.raises(DuplicateKey, match="7"):
        executor.using(key=7).submit(echo)
    assert executor.using(key=7).submit_stored(8, echo).key == 8
    assert executor.using(key=None).submit(echo).key is None
    assert None in executor.futures


def test_a_key_of_a_job(executor: Executor) -> None:
    """A job may have a key: then one of its tasks is there at a time."""
    job = executor.job(key="only")(echo)
    assert job.submit().result(LIMIT)
    with pytest.raises(DuplicateKey):
        job.submit()
    assert executor.futures.pop("only")
    assert job.submit().key == "only"


def test_map_refuses_a_key(executor: Executor) -> None:
    """map makes many tasks, and a key names one."""
    job = executor.job(key="only")(echo)
    for wrong in (lambda: executor.using(key=1).map(echo, [1]), lambda: job.map([1])):
        with pytest.raises(UnsupportedOption, match="key is not supported by map"):
            wrong()


def test_seconds_and_timedeltas(executor: Executor) -> None:
    """A timedelta is as good as a number of seconds."""
    clock = with_clock(executor)
    view = executor.using(timeout=timedelta(minutes=1), delay=timedelta(hours=1))
    future = view.submit(echo)
    assert future.task is not None and future.task.options.timeout == 60.0
    clock.advance(3599.9)
    assert future.task.state == "delayed"
    clock.advance(0.1)
    assert future.result(LIMIT) == ((), {})


def test_a_number_of_attempts() -> None:
    """retry=3 is Retry(attempts=3)."""
    assert checked({"retry": 3}) == {"retry": Retry(attempts=3)}
    assert checked({"retry": None}) == {"retry": None}


# Refusals

VERBS: dict[str, t.Callable[[Executor, t.Any], t.Any]] = {
    "using": lambda executor, options: executor.using(**options),
    "job": lambda executor, options: executor.job(**options)(echo),
    "job.using": lambda executor, options: executor.job(echo).using(**options),
}


@pytest.fixture(params=VERBS)
def write(request: pytest.FixtureRequest, executor: Executor) -> t.Any:
    """Write options in one of the places where they can be written."""
    return lambda **options: VERBS[request.param](executor, options)


@pytest.mark.parametrize("initialized", [True, False])
def test_an_unknown_option(app: Flask, initialized: bool, write: t.Any) -> None:
    """It is refused where it is written, by name, with those that there are."""
    with pytest.raises(UnknownOption) as info:
        write(priorty=1)
    assert isinstance(info.value, TypeError)
    message = str(info.value)
    assert message.startswith("'priorty' is not an option of a task. The options are")
    assert all(name in message for name in OPTIONS) and "submit" in message


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("priority", 101, "a whole number from -100 to 100"),
        ("priority", -101, "a whole number from -100 to 100"),
        ("priority", 1.5, "a whole number from -100 to 100"),
        ("priority", "high", "a whole number from -100 to 100"),
        ("priority", None, "a whole number from -100 to 100"),
        ("timeout", 0, "None, or more than 0 seconds"),
        ("timeout", -1, "0 or more, or a timedelta"),
        ("timeout", "5", "a number of seconds"),
        ("timeout", True, "a number of seconds"),
        ("timeout", float("nan"), "a number of seconds"),
        ("timeout", float("inf"), "a number of seconds"),
        ("delay", timedelta(seconds=-1), "0 or more, or a timedelta"),
        ("delay", MOMENT, "a number of seconds, 0 or more, or a timedelta"),
        ("run_at", datetime(2030, 1, 1), "a datetime with a time zone"),
        ("run_at", 1_900_000_000, "a datetime with a time zone"),
        ("run_at", datetime.max, "a datetime with a time zone"),
        ("run_at", datetime.max.replace(tzinfo=WEST), "within the years 1 to 9999"),
        ("run_at", datetime.min.replace(tzinfo=EAST), "within the years 1 to 9999"),
        ("retry", 0, "None, a number of attempts above 0, or a Retry"),
        ("retry", True, "None, a number of attempts above 0, or a Retry"),
        ("retry", [1, 2], "None, a number of attempts above 0, or a Retry"),
        ("guarantee", "exactly_once", "'ephemeral', 'at_most_once' or 'at_least_once'"),
        ("guarantee", None, "'ephemeral', 'at_most_once' or 'at_least_once'"),
        ("meta", {1, 2}, "a JSON value of at most 2,000 characters, as {'user': 7}"),
        ("meta", {1: 2}, "a JSON value of at most 2,000 characters, as {'user': 7}"),
        ("meta", float("nan"), "a JSON value"),
        ("meta", "x" * 1_999, "a JSON value of at most 2,000 characters"),
        ("name", "", "a text"),
        ("name", 3, "a text"),
    ],
)
def test_a_value_that_is_not_allowed(
    write: t.Any, name: str, value: t.Any, allowed: str
) -> None:
    """It is refused where it is written, with the value and what is allowed."""
    with pytest.raises(InvalidOption) as info:
        write(**{name: value})
    assert isinstance(info.value, ValueError)
    assert info.value.option == name
    assert repr(info.value.value) in str(info.value)
    assert allowed in str(info.value)


def test_meta_is_kept_with_the_task(executor: Executor) -> None:
    """meta is a JSON value that the task has, of its job or of its call."""
    job = executor.job(meta={"kind": "mail"})(echo)
    owned = executor.using(meta={"user": 7, "tags": ["a", None, 1.5, True]})
    assert task_of(job.submit()).options.meta == {"kind": "mail"}
    assert task_of(owned.submit(job)).options.meta["user"] == 7
    assert task_of(executor.submit(echo)).options.meta is None
    assert checked({"meta": "x" * 1_998}) == {"meta": "x" * 1_998}


def test_a_guarantee_needs_a_store(app: Flask, executor: Executor) -> None:
    """Without a store it is refused where it is written; the config has no effect."""
    match = "guarantee is not supported by an executor without a store: set EXECUTOR_ST"
    for guarantee in ("at_most_once", "at_least_once"):
        for write in VERBS.values():
            with pytest.raises(UnsupportedOption, match=match):
                write(executor, {"guarantee": guarantee})
    assert executor.using(guarantee="ephemeral").submit(echo).result(LIMIT)
    app.config["EXECUTOR_GUARANTEE"] = "at_least_once"
    with Executor(app) as other:
        assert task_of(other.submit(echo)).options.guarantee == "ephemeral"


def test_a_guarantee_in_tests(app: Flask) -> None:
    """On 'sync' a guarantee is accepted without a store: nothing outlives a call."""
    app.config["EXECUTOR_TYPE"] = "sync"
    with Executor(app) as executor:
        view = executor.using(guarantee="at_least_once")
        assert view.submit(echo, 1).result() == ((1,), {})


def test_a_guarantee_needs_a_job(app: Flask, tmp_path: Path) -> None:
    """Another process finds the function by its name, so it must be declared."""
    app.config["EXECUTOR_STORE"] = f"sqlite:///{tmp_path / 'tasks.db'}"
    with Executor(app) as executor:
        view = executor.using(guarantee="at_least_once")
        with pytest.raises(JobNotStorable) as info:
            view.submit(echo)
        assert "echo cannot be saved: " in str(info.value)
        assert "@executor.job" in str(info.value)
        app.config["EXECUTOR_GUARANTEE"] = "at_least_once"
    with Executor(app) as executor:
        assert executor._state().dispatcher.defaults.guarantee == "at_least_once"
        with pytest.raises(JobNotStorable):
            executor.submit(echo)
        assert executor.using(guarantee="ephemeral").submit(echo, 1).result(LIMIT)
        job = executor.job(echo)
        task = task_of(job.submit(1))
        assert (task.state, task.options.guarantee) == ("succeeded", "at_least_once")


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_max_concurrency_is_a_number(executor: Executor, value: t.Any) -> None:
    """It is a whole number above 0, or None."""
    with pytest.raises(InvalidOption, match="None or a whole number above 0"):
        executor.job(max_concurrency=value)(echo)
    job: t.Any = executor.job(max_concurrency=None)(echo)
    assert job.submit().result(LIMIT)


def test_an_unhashable_key(write: t.Any) -> None:
    """A key that cannot be one is refused where it is written."""
    with pytest.raises(TypeError, match="unhashable"):
        write(key=[])


def test_delay_and_run_at_together(write: t.Any) -> None:
    """They say the same thing, so only one can be given."""
    with pytest.raises(InvalidOption, match="use either delay or run_at"):
        write(delay=1, run_at=MOMENT)
    write(delay=None, run_at=MOMENT)


@pytest.mark.parametrize("value", ["some", "SAFE", None, True, []])
def test_request_is_one_of_three_words(executor: Executor, value: t.Any) -> None:
    """What a saved task sees of the request is 'safe', 'all' or 'none'."""
    with pytest.raises(InvalidOption, match=r"request = .*'safe', 'all' or 'none'"):
        executor.using(request=value)


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_request_needs_a_store(app: Flask, kind: str) -> None:
    """Without a store it is refused where it is written, or else at submit."""
    app.config["EXECUTOR_TYPE"] = kind
    early = Executor()
    view, job = early.using(request="none"), early.job(request="all")(echo)
    early.init_app(app)
    for refused in (
        lambda: early.using(request="safe"),
        lambda: job.using(request="safe"),
        lambda: early.job(request="safe")(echo),
        lambda: view.submit(echo),
        job.submit,
    ):
        with pytest.raises(UnsupportedOption, match=r"request is not.*EXECUTOR_STORE"):
            refused()
    early.shutdown()


def test_request_in_tests(app: Flask) -> None:
    """With EXECUTOR_TYPE = 'sync' it is accepted, as every option is."""
    app.config["EXECUTOR_TYPE"] = "sync"
    with Executor(app) as executor:
        view = executor.using(request="none")
        assert view.submit(echo).result(LIMIT) == ((), {})


def test_max_concurrency_is_the_jobs(executor: Executor) -> None:
    """It counts the tasks of a job, so one call cannot have it."""
    view: t.Any = executor.using
    job_view: t.Any = executor.job(max_concurrency=2)(echo).using
    for using in (view, job_view):
        for limit in (3, None):  # None would lift the job's
            with pytest.raises(UnsupportedOption, match=r"@executor\.job\(max_conc"):
                using(max_concurrency=limit)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": 1.5},
        {"delay": -1},
        {"backoff": -1},
        {"backoff": float("inf")},
        {"max_delay": "1"},
        {"jitter": 2},
        {"jitter": float("nan")},
        {"on": ()},
        {"on": "ValueError"},
        {"on": (ValueError, 3)},
        {"on": ValueError("x")},
    ],
)
def test_a_retry_that_is_not_allowed(wrong: dict[str, t.Any]) -> None:
    """A Retry refuses what it cannot mean, by the name of the field."""
    (name,) = wrong
    with pytest.raises(InvalidOption, match=f"^retry.{name} = "):
        Retry(**wrong)


def test_retrying_on_timeouts_needs_a_pool_that_stops_runs(executor: Executor) -> None:
    """Threads go on after a timeout, and must not run twice at once."""
    retry = Retry(on=(ValueError, TaskTimeout))
    with pytest.raises(UnsupportedOption) as info:
        executor.job(retry=retry)(echo)
    message = str(info.value)
    assert message.startswith("retry on TaskTimeout is not supported by")
    assert "EXECUTOR_TYPE = 'thread'" in message and "'pebble'" in message
    with pytest.raises(UnsupportedOption):
        executor.job(echo).using(retry=retry)
    executor.job(retry=retry)(echo_async).submit().result(LIMIT)
    # TimeoutError is what code raises itself; it needs no special pool.
    executor.using(retry=Retry(on=TimeoutError)).submit(echo).result(LIMIT)


def test_retrying_coroutines_on_timeouts_with_a_view(executor: Executor) -> None:
    """Where only the callable tells whether it can be honoured, that decides."""
    view = executor.using(retry=Retry(on=TaskTimeout))
    assert view.submit(echo_async, 1).result(LIMIT) == ((1,), {})
    with pytest.raises(UnsupportedOption, match="retry on TaskTimeout"):
        view.submit(echo)


def test_refused_at_submit_where_there_was_no_app(app: Flask) -> None:
    """What the pool cannot honour is refused at submit, where the job came first."""
    executor = Executor()
    job = executor.job(retry=Retry(on=TaskTimeout), key="key")(echo)
    executor.init_app(app)
    with pytest.raises(UnsupportedOption, match="retry on TaskTimeout"):
        job.submit()
    assert "key" not in executor.futures
    executor.shutdown()


def test_errors_travel() -> None:
    """They pickle with their facts, as all errors of the package."""
    for error in (
        UnknownOption("a", OPTIONS),
        InvalidOption("a", 1, "more"),
        UnsupportedOption("a", "there", "do that"),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert str(copy) == str(error) and vars(copy) == vars(error)


def test_options_of_a_job_in_a_worker_process() -> None:
    """A job with options, and a view of it, is what its name says in a worker."""
    job = control_app.job_pid
    try:
        for one in (job, job.using(priority=4, name="other")):
            assert one.submit().result(LIMIT) != control_app.pid()
        double = control_app.job_double.using(priority=4)
        assert [*double.map([1]), *double.map([1, 2], chunksize=2)] == [2, 2, 4]
    finally:
        control_app.executor.shutdown()
        control_app.executor.init_app(control_app.app)


# The decorator


def test_the_forms_of_the_decorator(executor: Executor) -> None:
    """@executor.job, @executor.job() and @executor.job(priority=1) declare a job."""

    @executor.job
    def plain() -> int:
        return 1

    @executor.job(priority=1)
    def with_options() -> int:
        return 2

    empty: t.Any = executor.job()

    @empty
    def with_parentheses() -> int:
        return 3

    jobs = (plain, with_options, with_parentheses)
    assert [job.submit().result(LIMIT) for job in jobs] == [1, 2, 3]


def test_options_are_those_at_the_time(executor: Executor) -> None:
    """A dictionary that was given can change afterwards, and nothing else does."""
    given: t.Any = {"priority": 1}
    view = executor.using(**given)
    given["priority"] = 2
    assert view.options["priority"] == 1
    assert task_of(view.submit(echo)).options.priority == 1
