"""Groups that are saved: every process finds them by their name."""

from __future__ import annotations

import threading
import typing as t

import pytest
from limits import LIMIT
from processes import NewProcess, Process, reached, until
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from flask_executor import Group, Progress


def double(number: int) -> int:
    if number < 0:
        raise ValueError(number)
    return 2 * number


@pytest.fixture
def job(one: Process) -> t.Any:
    return one.job(double)


def named(process: Process, name: str = "import") -> Group:
    with process.app.app_context():
        found = process.executor.group_named(name)
    assert found is not None
    return found


def fill(process: Process, job: t.Any, numbers: t.Iterable[int]) -> Group:
    with process.app.app_context():
        group = process.executor.group("import")
        group.map(job, numbers)
    return group


def test_progress_and_results(one: Process, other: Process, job: t.Any) -> None:
    """Another process knows the members, their progress and their results."""
    with one.app.app_context(), one.executor.group("import") as group:
        group.map(job, range(5))
    found = named(other)
    assert found.progress == Progress(5, 5)
    assert found.done()
    with other.app.app_context():
        assert found.results(LIMIT) == [0, 2, 4, 6, 8]
        assert len(other.executor.tasks(group="import")) == len(found) == 5
        assert [one.task.id for one in found] == [one.task.id for one in group]


def test_progress_reads_no_result(one: Process, other: Process, job: t.Any) -> None:
    """Who polls the progress unpickles nothing."""
    fill(one, job, range(3)).wait(LIMIT)
    found = named(other)

    def read(id: int) -> t.NoReturn:
        raise AssertionError("a result was read")

    other.store.result = read
    assert (found.progress.fraction, found.done(), found.cancel()) == (1, True, False)


def test_cancel_from_elsewhere(one: Process, other: Process) -> None:
    """Another process cancels what waits, and asks what runs to stop."""
    begun, stopped = threading.Event(), threading.Event()

    def run() -> None:
        from flask_executor import current_task

        begun.set()
        until(lambda: current_task.cancel_requested)
        stopped.set()
        current_task.raise_if_cancelled()

    job = one.job(run)
    with one.app.app_context():
        group = one.executor.group("import")
        running = group.submit(job)
        waiting = group.using(delay=3600).submit(job)
    reached(begun)
    assert named(other).cancel()
    reached(stopped)
    assert group.wait(LIMIT)
    assert (running.cancelled(), waiting.cancelled()) == (True, True)
    assert named(other).progress == Progress(2, 2)


def test_failures_are_members_too(one: Process, other: Process, job: t.Any) -> None:
    """The errors of members are raised wherever somebody asks."""
    fill(one, job, [1, -2, 3]).wait(LIMIT)
    with other.app.app_context():
        [error] = named(other).exceptions(LIMIT)
        assert isinstance(error, ValueError)
        with pytest.raises(ValueError, match="-2"):
            named(other).results(LIMIT)


def test_members_that_come_later(one: Process, other: Process, job: t.Any) -> None:
    """A group that was found has those, too, and can be submitted to."""
    fill(one, job, [1]).wait(LIMIT)
    found, again = named(other), other.job(double)
    assert len(found) == 1
    with one.app.app_context():
        named(one).submit(job, 2).result(LIMIT)
    assert len(found) == 2
    with other.app.app_context():
        found.submit(again, 3)
        assert found.results(LIMIT) == [2, 4, 6]
    assert named(one).progress.total == 3


def test_the_newest_of_a_name(one: Process, other: Process, job: t.Any) -> None:
    """Each group is one of its own; the name finds the last one."""
    fill(one, job, range(3)).wait(LIMIT)
    fill(one, job, range(2)).wait(LIMIT)
    assert named(other).progress == Progress(2, 2)
    with other.app.app_context():
        assert other.executor.group_named("export") is None


def test_who_is_no_member(one: Process, other: Process, job: t.Any) -> None:
    """What a member submits is no member, nor is what a group without a name has."""

    def parent() -> None:
        job.submit(1).result(LIMIT)

    outer = one.job(parent, name="parent")
    with one.app.app_context():
        one.executor.group().submit(job, 1).result(LIMIT)
        group = one.executor.group("import")
        group.submit(outer).result(LIMIT)
        job.submit(2).result(LIMIT)
        one.executor.using(key="k").submit(abs, -1).result(LIMIT)
    assert named(other).progress == Progress(1, 1)


def test_it_survives_its_process(process: NewProcess, other: Process) -> None:
    """Members that were not begun when their process ended run elsewhere."""
    first = process(EXECUTOR_STORE_RUN=False)
    fill(first, first.job(double), range(4))
    first.close()
    second = process()
    second.job(double)
    second.serve()
    with other.app.app_context():
        assert sorted(named(other).results(LIMIT)) == [0, 2, 4, 6]


def test_members_in_a_transaction(
    one: Process, other: Process, job: t.Any, url: str
) -> None:
    """They count when their session commits, in a group that has a row already."""
    engine = create_engine(url)
    with one.app.app_context(), Session(engine) as session:
        group = one.executor.group("import")
        in_session = group.using(session=session)
        in_session.submit(job, 1)
        session.commit()
        assert other_knows(other) is None
        group.submit(job, 2)
        in_session.submit(job, 3)
        session.rollback()
        in_session.submit(job, 4)
        session.commit()
        assert group.wait(LIMIT)
    engine.dispose()
    assert named(other).progress == Progress(2, 2)


def other_knows(other: Process) -> Group | None:
    with other.app.app_context():
        return other.executor.group_named("import")
