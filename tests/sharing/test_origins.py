"""Which request a task comes from: known to every process, with all that followed."""

from __future__ import annotations

import threading
import typing as t

import pytest
from flask import request
from limits import LIMIT
from processes import NewProcess, Process, declare, reached, until

from flask_executor import TaskRecord


def ids(records: t.Iterable[TaskRecord]) -> list[str]:
    return [record.id for record in records]


def record(process: Process, future: t.Any) -> TaskRecord:
    found = process.executor.task(future.task.id)
    assert found is not None
    return found


def request_of(process: Process, future: t.Any) -> str:
    found = record(process, future).request
    assert found is not None
    return found


def test_all_that_one_request_submits_has_one_id(one: Process, other: Process) -> None:
    """The next request has another; without a request there is none."""
    job = declare(one, abs)
    with one.app.test_request_context("/a"):
        first = [job.submit(1), job.submit_stored("k", 2)]
        with one.executor.group("g") as group:
            first += [group.submit(job, 3)]
    with one.app.test_request_context("/a"):
        second = job.submit(4)
    bare = job.submit(5)
    id = request_of(other, first[0])
    assert id != request_of(other, second)
    assert record(other, bare).request is None
    assert ids(other.executor.tasks(request=id)) == [f.task.id for f in first[::-1]]
    assert other.executor.count(request=id) == 3
    [newer, _] = other.executor.tasks(request=id, limit=2)
    assert ids(other.executor.tasks(request=id, before=newer.id, limit=1)) == [
        first[1].task.id
    ]
    assert other.executor.tasks(request=id, state="failed") == []
    assert other.executor.tasks(request="nobody") == []


def test_what_others_call_a_request_is_not_its_id(one: Process) -> None:
    """Two requests with the same ``X-Request-ID`` are two, and it is not saved."""
    job, made = declare(one, abs), []
    for _ in range(2):
        with one.app.test_request_context(headers={"X-Request-ID": "theirs"}):
            made.append(job.submit(1))
    first, second = (request_of(one, future) for future in made)
    assert first != second
    assert "theirs" not in (first, second)


def test_a_thread_of_a_view_belongs_to_its_request(one: Process) -> None:
    """Another context with the same request gives its tasks the same id."""
    job = declare(one, abs)
    with one.app.test_request_context("/a") as context:
        first = job.submit(1)
        with context.copy():
            second = job.submit(2)
    assert request_of(one, first) == request_of(one, second)


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("saved", ["safe", "none"])
def test_what_tasks_submit_belongs_to_their_request(
    process: NewProcess, one: Process, looks: bool, saved: str
) -> None:
    """Also if another process runs them, if they have looked at the request, or do not
    even have it; a repetition of one belongs to it as well.
    """
    other = process(EXECUTOR_STORE_RUN=False, EXECUTOR_STORE_REQUEST=saved)
    made: list[t.Any] = []
    done = threading.Event()
    child = declare(one, lambda: done.set(), name="child")

    def work() -> None:
        if looks and saved == "safe":
            assert request.path == "/a"
        made.append(child.submit())

    declare(one, work, name="parent")
    parent = declare(other, work, name="parent")
    with other.app.test_request_context("/a", method="POST"):
        future = parent.using(delay=0.01).submit()  # so that the other one has it
    reached(done)
    until(lambda: made and record(other, made[0]).has_ended)
    assert record(one, made[0]).parent == future.task.id
    assert request_of(one, made[0]) == request_of(one, future)
    until(lambda: record(other, future).has_ended)
    again = one.executor.retry(future.task.id)
    again.result(LIMIT)
    assert request_of(one, again) == request_of(one, future)


def test_a_path_may_be_kept_out(process: NewProcess, one: Process) -> None:
    """As the link of a password reset: with ``request='none'``, an option or the
    config, it is not even shown in lists.
    """
    never = process(EXECUTOR_STORE_REQUEST="none")
    made = []
    for app, job in (
        (one.app, declare(one, abs, request="none")),
        (one.app, declare(one, abs)),
        (never.app, declare(never, abs)),
    ):
        with app.test_request_context("/reset/secret"):
            made.append(job.submit_stored(len(made), 1))
    none = {"method": "GET", "endpoint": ""}
    wanted = [none, none | {"path": "/reset/secret"}, none]
    assert [record(one, future).source for future in made] == wanted


def test_tasks_that_are_not_saved_pass_it_on(one: Process) -> None:
    """A view submits a plain task, and that a saved one."""
    job, made = declare(one, abs), []
    with one.app.test_request_context("/a"):
        one.executor.submit(lambda: made.append(job.submit(1))).result(LIMIT)
        made.append(job.submit(2))
    first, second = (request_of(one, future) for future in made)
    assert first == second


def test_repetitions_of_a_task_are_found(one: Process, other: Process) -> None:
    """By the id of the task that they repeat, newest first; in every process."""
    future = declare(one, abs).submit(-1)
    until(lambda: record(one, future).has_ended)
    made = [one.executor.retry(future.task.id) for _ in range(2)]
    found = other.executor.tasks(retried_from=future.task.id)
    assert ids(found) == [again.task.id for again in made[::-1]]
    assert other.executor.count(retried_from=future.task.id) == 2
    assert other.executor.tasks(retried_from=made[0].task.id) == []
