"""Cancelling and retrying many tasks at once."""

from __future__ import annotations

import typing as t

import pytest
from limits import LIMIT
from processes import Process, declare, until

from flask_executor import InvalidOption, TaskCancelled, UnknownTask, bulk


def waiting(process: Process, number: int, **options: t.Any) -> list[t.Any]:
    """Submit tasks that no process claims."""
    job = declare(process, lambda: None)
    return [job.using(delay=600, **options).submit() for _ in range(number)]


def failed(process: Process, number: int) -> list[str]:
    """Let tasks fail; return their ids, oldest first."""
    job = declare(process, lambda: 1 // 0, name="bad")
    futures = [job.submit() for _ in range(number)]
    for future in futures:
        future.exception(LIMIT)
        until(lambda future=future: process.record(future).finished)
    return [future.task.id for future in futures]


def test_what_matches_is_cancelled(one: Process, other: Process) -> None:
    """The number is that which is counted before; all others stay as they are."""
    mine, others = waiting(one, 3, name="mine"), waiting(one, 2)
    assert bulk.count(other.executor, "cancel", name="mine") == 3
    assert bulk.count(other.executor, name="mine") == 3
    assert bulk.apply(other.executor, "cancel", name="mine") == (3, 0, 3, ())
    assert bulk.count(other.executor, "cancel", name="mine") == 0
    assert bulk.count(other.executor, name="mine") == 3, "without an action all count"
    until(lambda: all(future.cancelled() for future in mine))
    assert not any(future.done() for future in others)
    assert bulk.apply(other.executor, "cancel") == (2, 0, 2, ())


def test_what_has_failed_is_run_again(one: Process) -> None:
    """Oldest first; each new task names the old one."""
    old = failed(one, 3)
    assert bulk.count(one.executor, "retry") == 3
    one.executor.pause("bad")
    assert bulk.apply(one.executor, "retry", job="bad") == (3, 0, 3, ())
    new = one.executor.tasks(state="waiting")[::-1]
    assert [task.retried_from for task in new] == old
    one.executor.resume("bad")


def test_what_is_refused_is_counted_with_its_reason(one: Process) -> None:
    """It keeps none of the others from being run again."""
    [bad, *rest] = failed(one, 7)
    retry, seen = one.executor.retry, []

    def refuse(id: str) -> t.Any:
        seen.append(id)
        if id != rest[-1]:
            raise UnknownTask(id)
        return retry(id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one.executor, "retry", refuse)
        applied = bulk.apply(one.executor, "retry")
    assert seen == [bad, *rest]
    assert (applied.done, applied.unchanged, applied.matched) == (1, 6, 7)
    assert len(applied.reasons) == 5, "the first few"
    assert f"no task {bad!r}" in applied.reasons[0]


@pytest.mark.parametrize(
    ("action", "state", "words"),
    [
        ("cancel", "failed", "state = 'failed' .* delayed, waiting, .* to cancel"),
        ("retry", "running", "state = 'running' .* succeeded, .* to retry"),
        ("retry", "done", "state = 'done'"),
    ],
)
def test_a_state_that_does_not_fit(
    one: Process, action: t.Any, state: str, words: str
) -> None:
    """It would match nothing, which would look like success."""
    for call in (bulk.count, bulk.apply):
        with pytest.raises(InvalidOption, match=words):
            call(one.executor, action, state=state)


def test_it_goes_on_page_by_page(one: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to a limit; who is told after each batch may end it."""
    monkeypatch.setattr(bulk, "_BATCH", 2)
    waiting(one, 5)
    seen: list[bulk.Applied] = []

    def told(so_far: bulk.Applied) -> None:
        seen.append(so_far)
        if so_far.done == 4:
            raise TaskCancelled("bulk")

    with pytest.raises(TaskCancelled):
        bulk.apply(one.executor, "cancel", told=told)
    assert [one.done for one in seen] == [2, 4]
    waiting(one, 4)
    monkeypatch.setattr(bulk, "MOST", 3)
    assert bulk.count(one.executor, "cancel") == 3
    assert bulk.apply(one.executor, "cancel", told=None) == (3, 0, 3, ())
    assert one.executor.count(state="delayed") == 2


def test_a_page_whose_last_task_is_gone(
    one: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it begins anew, and takes all at once."""
    monkeypatch.setattr(bulk, "_BATCH", 2)
    waiting(one, 5)
    real, gone = one.executor.tasks, [True]

    def tasks(*, before: str | None = None, **more: t.Any) -> t.Any:
        if before is not None and gone:
            gone.clear()
            raise UnknownTask(before)
        return real(before=before, **more)

    monkeypatch.setattr(one.executor, "tasks", tasks)
    assert bulk.apply(one.executor, "cancel") == (5, 0, 5, ())
