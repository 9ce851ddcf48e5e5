"""For tests of apps that have a store: captured tasks, and a store in a file."""

from __future__ import annotations

import sys
import threading
import time
import typing as t
from concurrent.futures import CancelledError
from itertools import pairwise
from pathlib import Path

import pytest
from flask import Flask, g
from limits import LIMIT
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from flask_executor import (
    ArgumentsNotStorable,
    DuplicateKey,
    Executor,
    JobNotStorable,
    NoSecretKey,
    NotUnique,
    Retry,
    StoreRefused,
    UnsupportedOption,
    current_task,
    task_submitted,
)
from flask_executor.testing import CapturedTasks, NotReleased, TasksLeftBehind, capture
from flask_executor.testing import executor_store as executor_store
from flask_executor.testing import executor_tasks as executor_tasks

pytest_plugins = ["pytester"]
NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:9/nothing"
"""A database that is not there: nobody must ask for it."""
Job = t.Any
_failures: list[Exception] = []
_ran: list[t.Any] = []


def work(value: t.Any = None) -> t.Any:
    if _failures:
        raise _failures.pop()
    _ran.append(value)
    return value


@pytest.fixture(autouse=True)
def _clean() -> t.Iterator[None]:
    _failures.clear()
    _ran.clear()
    yield


@pytest.fixture
def app(app: Flask) -> Flask:
    app.config["EXECUTOR_STORE"] = NOWHERE
    return app


@pytest.fixture
def job(executor: Executor) -> Job:
    return executor.job(name="work", guarantee="at_least_once")(work)


@pytest.fixture
def tasks(executor: Executor, app: Flask) -> t.Iterator[CapturedTasks]:
    with app.app_context(), capture(executor) as tasks:
        yield tasks


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who would start a thread or sleep fails."""

    def refuse(*args: object, **kwargs: object) -> t.NoReturn:
        raise AssertionError("not in a test that captures")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(time, "sleep", refuse)


@pytest.mark.usefixtures("no_threads")
def test_a_saved_task_runs_before_submit_returns(
    tasks: CapturedTasks, job: Job, executor: Executor
) -> None:
    """No database and no thread is needed; all verbs answer as with the store."""
    future = job.using(meta={"owner": 1}).submit_stored("k", 4)
    assert (future.done(), future.result(), _ran) == (True, 4, [4])
    [submitted] = tasks.submitted
    assert (submitted.fn, submitted.key, submitted.future) == (job, "k", future)
    assert executor.futures["k"] is future
    assert executor.futures.result("k") == 4
    [record] = executor.tasks(state="succeeded")
    assert (record.id, record.job, record.meta) == (
        future.task.id,
        "work",
        {"owner": 1},
    )
    assert executor.counts()["succeeded"] == 1
    assert executor.futures.pop("k") is future
    assert "k" not in executor.futures


@pytest.mark.usefixtures("no_threads")
def test_a_task_with_a_key_needs_no_job(
    tasks: CapturedTasks, executor: Executor
) -> None:
    """What has no guarantee is captured as without a store, whatever it is given."""
    tasks.hold = True
    future = executor.submit_stored("k", lambda: "made here")
    assert executor.futures._state("k") == "PENDING"
    assert executor.counts()["waiting"] == 1
    tasks.release()
    assert executor.futures.result("k") == future.result() == "made here"


@pytest.mark.usefixtures("tasks")
def test_what_the_store_refuses_is_refused(job: Job, executor: Executor) -> None:
    """A test sees what would be refused in production; nothing of it was submitted."""
    with pytest.raises(ArgumentsNotStorable, match=r"args\[0\] \(function\)"):
        job.submit(lambda: None)
    with pytest.raises(JobNotStorable, match="work"):
        executor.using(guarantee="at_least_once").submit(work)
    job.submit_stored("k")
    with pytest.raises(DuplicateKey, match="'k'"):
        executor.submit_stored("k", work)
    assert len(_ran) == 1


def test_unique_and_its_holder(tasks: CapturedTasks, job: Job) -> None:
    """One of a kind, among all that have not ended."""
    tasks.hold = True
    first = job.using(unique="order-7").submit(1)
    with pytest.raises(NotUnique, match=r"'order-7' is taken .* which is waiting"):
        job.using(unique="order-7").submit(2)
    assert job.using(unique="order-7", on_taken="return").submit(3) is first
    tasks.release()
    assert job.using(unique="order-7").submit(4).done() is False
    tasks.release()
    assert _ran == [1, 4]


@pytest.mark.usefixtures("no_threads")
def test_delays_follow_the_clock(
    tasks: CapturedTasks, job: Job, executor: Executor
) -> None:
    """A delayed task is due when the clock of the test says so, to the second."""
    future = job.using(delay=3600).submit("later")
    assert executor.task(future.task.id).state == "delayed"  # type: ignore[union-attr]
    assert tasks.unfinished == [future.task]
    tasks.clock.advance(3599)
    assert _ran == []
    tasks.clock.advance(1)
    assert (_ran, future.result()) == (["later"], "later")


@pytest.mark.parametrize("guarantee", ["ephemeral", "at_most_once", "at_least_once"])
@pytest.mark.usefixtures("no_threads")
def test_retries_follow_the_clock(
    tasks: CapturedTasks, executor: Executor, guarantee: t.Any
) -> None:
    """Pauses have no random share, and the future is the same throughout."""
    retry = Retry(attempts=3, delay=10, backoff=2, jitter=0.5)
    options = {"name": "work", "guarantee": guarantee, "retry": retry}
    job = executor.job(**options)(work)
    _failures.extend([OSError("second"), OSError("first")])
    future = job.submit_stored("k", 1)
    assert future.task.state == "retrying"
    assert [task.id for task in tasks.unfinished] == [future.task.id]
    tasks.clock.advance(10)
    assert executor.task(future.task.id).attempt == 2  # type: ignore[union-attr]
    tasks.clock.advance(19)
    assert not future.done()
    tasks.clock.advance(1)
    assert (future.result(), future.task.attempt, len(tasks.submitted)) == (1, 3, 1)
    assert executor.futures["k"] is future


def test_many_retries_at_once(tasks: CapturedTasks, executor: Executor) -> None:
    """Attempts without a pause follow each other, however many."""
    job = executor.job(guarantee="at_least_once", retry=Retry(attempts=500, delay=0))(
        work
    )
    _failures.extend(OSError("again") for _ in range(400))
    future = job.submit(1)
    assert (future.result(), future.task.attempt) == (1, 401)
    assert future.task.state == "succeeded"
    [record] = executor.tasks()
    assert (record.state, record.attempt) == ("succeeded", 401)


def test_a_task_that_is_left_behind(executor: Executor, app: Flask, job: Job) -> None:
    """What waits in the store is named, too, and can be cancelled."""
    _failures.append(OSError("once"))
    with app.app_context():
        with pytest.raises(TasksLeftBehind, match="work retrying"), capture(executor):
            job.using(retry=2).submit()
        _failures.append(OSError("once"))
        with capture(executor) as tasks:
            future = job.using(retry=2).submit()
            tasks.cancel()
    assert future.cancelled()
    assert _ran == []


@pytest.mark.usefixtures("no_threads")
def test_waits_that_would_never_end(tasks: CapturedTasks, job: Job) -> None:
    """A test does not hang when it waits for an attempt that only the clock brings."""
    _failures.append(OSError("once"))
    future = job.using(retry=2).submit("done")
    with pytest.raises(NotReleased, match="work retrying"):
        future.result()
    with pytest.raises(TimeoutError):
        future.result(timeout=LIMIT)
    tasks.clock.advance(60)
    assert future.result() == "done"


@pytest.mark.usefixtures("no_threads")
def test_cancel_and_retry_by_id(
    tasks: CapturedTasks, job: Job, executor: Executor
) -> None:
    """A dead letter runs again as a new task, which is listed as submitted."""
    tasks.hold = True
    first = job.submit(1)
    assert executor.cancel(first.task.id)
    assert first.cancelled()
    again = executor.retry(first.task.id)
    [_, submitted] = tasks.submitted
    assert (submitted.future, submitted.args) == (again, (1,))
    tasks.release()
    assert again.result() == 1
    record = executor.task(again.task.id)
    assert record is not None
    assert record.retried_from == first.task.id


def test_groups_are_found_by_name(
    tasks: CapturedTasks, job: Job, executor: Executor
) -> None:
    """A captured task is a member of the group that submitted it, and no other."""
    tasks.hold = True
    executor.group("import").map(job, range(3))
    job.submit(4)
    found = executor.group_named("import")
    assert found is not None
    tasks.release(2)
    assert (found.progress.done, found.progress.total, len(found)) == (2, 3, 3)
    assert found.cancel()
    tasks.release()
    assert (found.done(), _ran) == (True, [0, 1, 4])


def test_paused_jobs_wait(tasks: CapturedTasks, job: Job, executor: Executor) -> None:
    """A paused job begins when it is resumed; why() says what it waits for."""
    executor.pause("work")
    future = job.submit(1)
    assert (_ran, executor.why(future.task.id).code) == ([], "paused")
    executor.resume("work")
    assert (_ran, future.result()) == ([1], 1)


def test_a_saved_task_sees_what_is_saved(
    tasks: CapturedTasks, executor: Executor, app: Flask
) -> None:
    """The context is the safe one, in the first attempt as in the next."""

    def look() -> t.Any:
        seen.append((g.get("user"), g.get("secret"), current_task.attempt))
        if len(seen) == 1:
            raise OSError("once")

    seen: list[t.Any] = []
    job = executor.job(name="look", guarantee="at_least_once", retry=2)(look)
    with app.test_request_context("/"):
        g.user, g.secret = "Ada", object()
        job.submit()
    tasks.clock.advance(60)
    assert seen == [("Ada", None, 1), ("Ada", None, 2)]


def test_each_test_begins_with_an_empty_store(
    executor: Executor, app: Flask, job: Job
) -> None:
    """Nothing is left for the next block; its own results stay readable."""
    with app.app_context():
        with capture(executor):
            first = job.submit_stored("k", 1)
        with capture(executor):
            assert "k" not in executor.futures
            second = job.submit_stored("k", 2)
    assert (first.result(), second.result()) == (1, 2)


def test_signals_come_once(tasks: CapturedTasks, job: Job, app: Flask) -> None:
    """A task that is tried again was submitted once."""
    told: list[t.Any] = []

    def submitted(sender: Flask, **facts: t.Any) -> None:
        told.append(facts)

    with task_submitted.connected_to(submitted, app):
        _failures.append(OSError("once"))
        job.using(retry=2).submit()
        tasks.clock.advance(60)
    assert (len(told), len(_ran)) == (1, 1)


def test_other_threads_submit(tasks: CapturedTasks, job: Job, app: Flask) -> None:
    """Threads of the app share the store of the test."""

    def submit(number: int) -> None:
        with app.app_context():
            for value in range(20):
                job.submit_stored((number, value), value)

    threads = [threading.Thread(target=submit, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert len(_ran) == len(tasks.submitted) == 80


@pytest.mark.parametrize("guarantee", ["at_most_once", "at_least_once"])
@pytest.mark.usefixtures("no_threads")
def test_saved_coroutines(
    tasks: CapturedTasks, executor: Executor, guarantee: t.Any
) -> None:
    """A coroutine function runs to its end, in its next attempt, too."""

    async def run(value: int) -> int:
        return t.cast(int, work(value))

    _failures.append(OSError("once"))
    future = executor.job(name="run", guarantee=guarantee, retry=2)(run).submit(3)
    tasks.clock.advance(60)
    assert (future.result(), future.task.attempt) == (3, 2)


def test_drain(tasks: CapturedTasks, job: Job, executor: Executor) -> None:
    """What is saved and not due is cancelled by a drain, as without a store."""
    done, late = job.submit(1), job.using(delay=60).submit(2)
    drained = executor.drain(timeout=LIMIT)
    assert [task.id for task in drained.cancelled] == [late.task.id]
    assert (done.result(), late.cancelled(), tasks.unfinished) == (1, True, [])


def test_no_secret_key() -> None:
    """What would not start in production does not start in a test."""
    app = Flask("tests")
    app.config["EXECUTOR_STORE"] = NOWHERE
    executor = Executor(app)
    refused = pytest.raises(NoSecretKey, match="SECRET_KEY")
    with app.app_context(), capture(executor), refused:
        executor.submit_stored("k", work)


@pytest.fixture
def session() -> t.Iterator[Session]:
    """A session of the test's own database."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE app_order (id INTEGER)"))
    with Session(engine) as session:
        yield session
    engine.dispose()


def order(session: Session) -> None:
    session.execute(text("INSERT INTO app_order VALUES (1)"))


def test_on_commit(tasks: CapturedTasks, job: Job, session: Session) -> None:
    """A task of a session runs when that commits, and then it is submitted."""
    order(session)
    future = job.using(session=session).submit(1)
    with pytest.raises(NotReleased):
        future.result()
    assert (_ran, tasks.submitted, len(tasks.unfinished)) == ([], [], 1)
    session.commit()
    assert (_ran, future.result(), len(tasks.submitted)) == ([1], 1, 1)


@pytest.mark.parametrize("end", ["rollback", "close"])
def test_not_on_rollback(
    tasks: CapturedTasks, job: Job, session: Session, end: str
) -> None:
    """A task whose transaction is undone does not exist."""
    order(session)
    future = job.using(session=session).submit(1)
    getattr(session, end)()
    assert future.cancelled()
    job.using(session=session).submit(2)
    session.commit()
    assert (_ran, len(tasks.submitted)) == ([2], 1)
    with pytest.raises(CancelledError):
        future.result()


def test_savepoints(tasks: CapturedTasks, job: Job, session: Session) -> None:
    """A savepoint that is rolled back takes its tasks with it, and no others."""
    job.using(session=session).submit("outer")
    with session.begin_nested():
        job.using(session=session).submit("kept")
    nested = session.begin_nested()
    with session.begin_nested():
        undone = job.using(session=session).submit("undone")
    assert _ran == []
    nested.rollback()
    assert undone.cancelled()
    session.commit()
    assert _ran == ["outer", "kept"]
    assert tasks.unfinished == []


def test_a_commit_that_the_test_undoes(
    tasks: CapturedTasks, job: Job, session: Session
) -> None:
    """The commit of the app counts, even if the test rolls all of it back later."""
    with session.get_bind().connect() as connection:  # type: ignore[union-attr]
        outer = connection.begin()
        mode: t.Any = "create_savepoint"
        with Session(connection, join_transaction_mode=mode) as inner:
            order(inner)
            job.using(session=inner).submit(1)
            inner.commit()
        outer.rollback()
    assert _ran == [1]


@pytest.mark.usefixtures("tasks")
def test_what_a_session_refuses(job: Job, executor: Executor, session: Session) -> None:
    """Keys are refused at submit, and so is a task without a guarantee."""
    job.submit_stored("k")
    with pytest.raises(DuplicateKey):
        job.using(session=session).submit_stored("k")
    with pytest.raises(UnsupportedOption, match="without a guarantee"):
        executor.using(session=session).submit(work)


def test_sqlalchemy_is_missing(
    executor: Executor, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what to install, as without a test."""
    for name in ("memory", "commits", "nodes"):
        monkeypatch.delitem(sys.modules, f"flask_executor.testing.{name}", False)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    how = r"sqlalchemy is not installed: pip install 'Flask-Executor\[store\]'"
    refused = pytest.raises(StoreRefused, match=how)
    with app.app_context(), capture(executor), refused:
        executor.submit(work)


@pytest.mark.usefixtures("no_threads")
def test_periodic_jobs_follow_the_clock(
    executor: Executor, tasks: CapturedTasks, job: Job
) -> None:
    """Each tick is a task that is saved, at its time."""
    executor.every(3600)(job)
    executor.periodic.start()
    tasks.clock.advance(3 * 3600)
    found = executor.tasks(job="work", state="succeeded")
    times = [one.submitted_at for one in found]
    assert len(_ran) == len(found) == 3
    assert {round((a - b).total_seconds()) for a, b in pairwise(times)} == {3600}


# The fixture executor_store


def new_app(url: str) -> tuple[Flask, Executor, Job]:
    app = Flask("tests")
    app.config.update(TESTING=True, SECRET_KEY="tests", EXECUTOR_STORE=url)
    executor = Executor(app)
    return app, executor, executor.job(name="work", guarantee="at_least_once")(work)


def test_two_apps_share_a_real_store(executor_store: str) -> None:
    """Each app is a process for the store: a key is known to both."""
    app, one, job = new_app(executor_store)
    other_app, other, _ = new_app(executor_store)
    with app.app_context():
        job.submit_stored("k", 4)
    with other_app.app_context():
        assert other.futures.result("k", timeout=LIMIT) == 4
        [record] = other.tasks()
        assert record.key == "k"
    del one


def test_no_thread_is_left(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of the test, the threads of its apps end, and its file is closed."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makepyfile(
        """
        import threading

        import pytest
        from flask import Flask
        from flask_executor import Executor
        from flask_executor.testing import executor_store

        executor = Executor()

        @executor.job(guarantee="at_least_once")
        def double(number):
            return 2 * number

        @pytest.fixture
        def app(executor_store):
            app = Flask("tests")
            app.config.update(SECRET_KEY="t", EXECUTOR_STORE=executor_store)
            executor.init_app(app)
            return app

        def test_it(app):
            with app.app_context():
                future = double.submit_stored("k", 4)
                double.using(delay=3600).submit(5)
                assert future.result(timeout=30) == 8
            assert any("executor" in one.name for one in threading.enumerate())

        def test_again(app):
            left = [one.name for one in threading.enumerate() if "executor" in one.name]
            assert left == []
            with app.app_context():
                assert len(executor.futures) == 0
        """
    )
    pytester.runpytest_subprocess("-q", "-W", "error").assert_outcomes(passed=2)


def test_a_block_with_a_real_store(executor_store: str) -> None:
    """A captured block is apart from the real store, which is as it was afterwards."""
    app, executor, job = new_app(executor_store)
    with app.app_context():
        assert job.submit_stored("before", 1).result(LIMIT) == 1
        with capture(executor):
            assert "before" not in executor.futures
            job.submit_stored("within", 2)
        assert [*executor.futures] == ["before"]
        assert len(executor.tasks()) == 1


def test_what_a_member_submits_is_no_member(executor_store: str) -> None:
    """Not even if the member runs before the submit of the group returns."""
    app, executor, job = new_app(executor_store)
    app.config["EXECUTOR_TYPE"] = "sync"
    executor.init_app(app)
    with app.app_context():
        executor.group("import").submit(lambda: job.submit(1))
        assert (executor.group_named("import"), _ran) == (None, [1])
        executor.group("import").submit(job, 2)
        assert [one.result() for one in executor.group_named("import") or ()] == [2]
