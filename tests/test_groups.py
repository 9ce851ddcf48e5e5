"""Groups: many tasks, one handle; collected, and structured as a with block."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import typing as t
import weakref
from concurrent.futures import CancelledError, Future

import pytest
from flask import Flask, g, request
from limits import LIMIT

from flask_executor import (
    DuplicateKey,
    Executor,
    ExecutorNotInitialized,
    Group,
    TaskFuture,
    current_task,
)
from flask_executor.errors import (
    LoopBlocked,
    NotCallable,
    TaskCancelled,
    UnsupportedOption,
)

MANY = 5_000
var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


@pytest.fixture
def single(app: Flask) -> t.Iterator[Executor]:
    """An executor with one worker."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    executor = Executor(app)
    yield executor
    executor.shutdown()


@pytest.fixture(params=["thread", "sync", "process", "coroutine"])
def anyhow(request: pytest.FixtureRequest, app: Flask) -> t.Iterator[t.Any]:
    """An executor of each kind, and a function of its kind that fails."""
    if request.param != "coroutine":
        app.config["EXECUTOR_TYPE"] = request.param
    executor = Executor(app)
    yield executor, fail_awaited if request.param == "coroutine" else fail
    executor.shutdown()


def fail(text: str = "failed") -> t.NoReturn:
    raise ValueError(text)


async def fail_awaited() -> t.NoReturn:
    fail()


def until_asked(begun: threading.Event | None = None) -> None:
    """Run until the task is asked to stop."""
    if begun is not None:
        begun.set()
    asked = threading.Event()
    while not current_task.cancel_requested:
        asked.wait(0.001)
    current_task.raise_if_cancelled()


def texts(errors: t.Iterable[BaseException]) -> list[str]:
    return [str(error) for error in errors]


# Collected


def test_it_collects_what_it_submits(executor: Executor) -> None:
    """All its verbs make members, which it keeps in order."""
    group = executor.group("sums")
    one = group.submit(abs, -1)
    two = group.submit_stored("two", abs, -2)
    three, four = group.map(pow, [3, 2], [1, 2])
    five = group.add(executor.submit(abs, -5))
    six = group.using(name="six").submit(abs, -6)
    members = [one, two, three, four, five, six]
    assert group.results(LIMIT) == [1, 2, 3, 4, 5, 6]
    assert group.futures == list(group) == members
    assert len(group) == 6 and five in group and executor.submit(abs, 1) not in group
    assert executor.futures["two"] is two
    assert six.task is not None and six.task.name == "six"
    assert group.name == "sums"


def test_its_repr(executor: Executor, gate: threading.Event) -> None:
    """It shows the name, and how many are done."""
    group = executor.group("sums")
    group.submit(abs, 1).result(LIMIT)
    assert group.wait(LIMIT)
    group.submit(gate.wait)
    assert repr(group) == "<Group 'sums' 1 of 2 done>"
    assert repr(executor.group()) == "<Group 0 of 0 done>"


def test_a_view_of_the_executor_makes_groups(executor: Executor) -> None:
    """What was given to the view counts for the members."""
    group = executor.using(name="given").group()
    task = group.submit(abs, 1).task
    assert task is not None and task.name == "given"


def test_a_member_is_added_once(executor: Executor) -> None:
    """Adding it again changes nothing."""
    group = executor.group()
    future = group.submit(abs, -1)
    assert group.add(future) is future
    assert group.results(LIMIT) == [1]


def test_a_future_that_has_ended_is_added(executor: Executor) -> None:
    """It counts as ended at once, whoever made it."""
    group = executor.group()
    future = executor.submit(abs, -1)
    future.result(LIMIT)
    group.add(future)
    made: TaskFuture[int] = TaskFuture(future.app)
    made.set_result(2)
    group.add(made)
    assert group.done() and group.progress == (2, 2, "")
    assert group.results(0) == [1, 2]


def test_a_future_without_a_task_is_waited_for(executor: Executor, app: Flask) -> None:
    """It ends when somebody ends it, and can be cancelled."""
    group = executor.group()
    futures: list[TaskFuture[int]] = [TaskFuture(app), TaskFuture(app)]
    for future in futures:
        group.add(future)
    assert group.progress == (0, 2, "") and not group.done()
    futures[0].set_result(1)
    assert group.cancel() and futures[1].cancelled()
    assert group.wait(0)


def test_only_own_futures_are_added(executor: Executor) -> None:
    """Anything else is a TypeError that shows it."""
    other: t.Any = Future()
    with pytest.raises(TypeError, match=r"<Future.*what executor\.submit returned"):
        executor.group().add(other)


def test_map_refuses_a_key(executor: Executor) -> None:
    """A key names one task: nothing is submitted."""
    group = executor.group().using(key="one")
    with pytest.raises(UnsupportedOption, match="submit_stored"):
        group.map(abs, [1, 2])
    assert len(group) == 0


def test_a_refused_submit_leaves_no_member(executor: Executor) -> None:
    """Where submit raises, there is none."""
    group = executor.group()
    group.submit_stored("key", abs, 1)
    with pytest.raises(DuplicateKey):
        group.submit_stored("key", abs, 1)
    assert len(group) == 1


def test_progress(executor: Executor, gate: threading.Event) -> None:
    """Members that ended count whole, well or not, running ones as they report."""
    reported = threading.Barrier(3)

    def work(done: float, total: float | None) -> None:
        current_task.progress(done, total)
        reported.wait(LIMIT)
        gate.wait(LIMIT)

    group = executor.group()
    assert group.progress == (0, 0, "")
    failed = group.submit(fail)
    assert failed.exception(LIMIT) and group.progress == (1, 1, "")
    group.submit(work, 1, 4)
    group.submit(work, 3, None)
    reported.wait(LIMIT)
    assert group.progress == (1.25, 3, "")
    gate.set()
    assert group.wait(LIMIT)
    assert group.progress == (3, 3, "") and group.progress.fraction == 1


def test_what_has_ended_is_known_at_once(
    executor: Executor, gate: threading.Event
) -> None:
    """Who was woken by a future finds it counted, though callbacks still run."""
    calling, called = threading.Event(), threading.Event()

    def slow(future: object) -> None:
        calling.set()
        called.wait(LIMIT)

    executor.add_default_done_callback(slow)
    group = executor.group()
    future = group.submit(gate.wait)
    gate.set()
    assert future.result(LIMIT) and calling.wait(LIMIT)
    assert group.progress.done == 1
    assert group.done() and group.wait(0) and group.results(0) == [True]
    called.set()


def test_wait(executor: Executor, gate: threading.Event) -> None:
    """It says whether all have ended in the time given."""
    group = executor.group()
    assert group.wait() and group.done()
    group.submit(gate.wait)
    assert not group.wait(0) and not group.wait(0.01) and not group.done()
    gate.set()
    assert group.wait(LIMIT) and group.done()


def test_results_raise_the_first_failure(
    executor: Executor, gate: threading.Event
) -> None:
    """The first in order raises what it raised, before the later ones have ended."""
    group = executor.group()
    group.submit(abs, 1)
    group.submit(fail)
    late = group.submit(gate.wait)
    with pytest.raises(ValueError, match="failed"):
        group.results(LIMIT)
    assert not late.done()


def test_results_in_time(executor: Executor, gate: threading.Event) -> None:
    """When the time is over, a TimeoutError shows how far the group is."""
    group = executor.group("slow")
    group.submit(abs, 1).result(LIMIT)
    group.submit(gate.wait)
    with pytest.raises(TimeoutError, match="'slow' 1 of 2 done"):
        group.results(0.01)
    with pytest.raises(TimeoutError, match="'slow' 1 of 2 done"):
        group.exceptions(0.01)


def test_a_timeout_of_a_member_is_its_own(executor: Executor) -> None:
    """A TimeoutError that a member raised rises as it is."""
    error = TimeoutError("its own")

    def run_out() -> t.NoReturn:
        raise error

    group = executor.group()
    group.submit(run_out)
    with pytest.raises(TimeoutError, match="its own"):
        group.results(LIMIT)
    assert group.exceptions(LIMIT) == [error]


def test_exceptions(executor: Executor, gate: threading.Event) -> None:
    """Failures in the members' order; a cancelled one is none."""
    group = executor.group()
    group.submit(gate.wait)
    group.using(delay=LIMIT).submit(abs, 1).cancel()
    group.submit(fail, "one")
    group.submit(fail, "two")
    gate.set()
    assert texts(group.exceptions(LIMIT)) == ["one", "two"]
    with pytest.raises(CancelledError):
        group.results(LIMIT)


def test_as_completed(executor: Executor) -> None:
    """Each as it ends, those that had ended first, and those that come meanwhile."""
    gates = [threading.Event() for _ in range(3)]
    group = executor.group()
    futures = [group.submit(gate.wait, LIMIT) for gate in gates]
    gates[1].set()
    completed = group.as_completed(LIMIT)
    assert next(completed) is futures[1]
    gates[2].set()
    assert next(completed) is futures[2]
    more = group.submit(abs, 1)
    assert next(completed) is more
    gates[0].set()
    assert list(completed) == [futures[0]]
    assert set(group.as_completed()) == {*futures, more}
    assert list(executor.group().as_completed()) == []


def test_as_completed_in_time(executor: Executor, gate: threading.Event) -> None:
    """When the time is over it raises, and what has ended by then was given."""
    group = executor.group()
    future = group.submit(abs, 1)
    future.result(LIMIT)
    group.submit(gate.wait)
    given = []
    with pytest.raises(TimeoutError, match="1 of 2 done"):
        for one in group.as_completed(0.01):
            given.append(one)
    assert given == [future]


def test_as_completed_can_be_left(executor: Executor, gate: threading.Event) -> None:
    """Nothing is kept for who does not listen any more."""
    group = executor.group()
    group.submit(abs, 1)
    group.submit(gate.wait)
    for _ in group.as_completed(LIMIT):
        break
    assert group._members._watchers == []


def test_cancel(single: Executor) -> None:
    """What waits is cancelled, what runs asked to stop; False when all have ended."""
    begun = threading.Event()
    group = single.group()
    running, waiting = group.submit(until_asked, begun), group.submit(abs, 1)
    delayed = group.using(delay=LIMIT).submit(abs, 1)
    assert begun.wait(LIMIT)
    assert group.cancel() is True
    assert waiting.cancelled() and delayed.cancelled()
    assert group.wait(LIMIT) and running.cancelled()
    assert group.exceptions(LIMIT) == []
    assert group.cancel() is False
    assert group.submit(abs, -1).result(LIMIT) == 1  # it is no with block


def test_a_failure_stops_nothing_outside_a_block(
    executor: Executor, gate: threading.Event
) -> None:
    """Where nobody made it a with block, members do not touch each other."""
    group = executor.group()
    running = group.submit(gate.wait, LIMIT)
    waiting = group.using(delay=LIMIT).submit(abs, 1)
    failed = group.submit(fail)
    assert next(group.as_completed(LIMIT)) is failed
    assert running.task is not None and not running.task.cancel_requested
    assert not waiting.done()
    gate.set()
    assert running.result(LIMIT) is True and waiting.cancel()


# Callbacks


def test_callback_when_all_are_done(executor: Executor, gate: threading.Event) -> None:
    """It is called once, with the group, when the last member has ended."""
    called: list[Group] = []
    end = threading.Event()
    group = executor.group()
    group.submit(abs, 1).result(LIMIT)
    group.submit(gate.wait)
    group.add_done_callback(called.append)
    group.add_done_callback(lambda group: end.set())
    assert called == []
    gate.set()
    assert end.wait(LIMIT) and called == [group]
    group.submit(abs, 1).result(LIMIT)
    assert group.wait(LIMIT) and called == [group]


def test_callback_at_once(app: Flask, executor: Executor) -> None:
    """Where all have ended, or there are none, it is called now."""
    seen = []
    with app.app_context():
        g.own = 1
        executor.group().add_done_callback(lambda group: seen.append(g.own))
        group = executor.group()
        group.submit(abs, 1).result(LIMIT)
        group.add_done_callback(lambda group: seen.append(g.own))
    group.add_done_callback(lambda group: seen.append("no context"))
    assert seen == [1, 1, "no context"]


def test_callback_sees_where_it_was_added(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """It runs in a copy of the context that it was added in."""
    seen: list[t.Any] = []
    end = threading.Event()

    def look(group: Group) -> None:
        seen.append((request.path, g.own, var.get()))
        end.set()

    group = executor.group()
    group.submit(gate.wait)
    with app.test_request_context("/here"):
        g.own = 1
        token = var.set("set")
        group.add_done_callback(look)
        var.reset(token)
    gate.set()
    assert end.wait(LIMIT) and seen == [("/here", 1, "set")]


def test_a_callback_that_raises(
    executor: Executor, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with the group, and the next one is called."""
    end = threading.Event()
    group = executor.group("mine")
    group.submit(gate.wait)
    group.add_done_callback(lambda group: fail("in the callback"))
    group.add_done_callback(lambda group: end.set())
    with caplog.at_level(logging.ERROR):
        gate.set()
        assert end.wait(LIMIT)
    assert "<Group 'mine' 1 of 1 done> failed" in caplog.text
    assert "in the callback" in caplog.text


def test_callback_of_a_block(executor: Executor) -> None:
    """It waits for the block to be left, and is called before the failures rise."""
    called: list[str] = []
    with pytest.raises(ExceptionGroup), executor.group() as group:
        group.add_done_callback(lambda group: called.append("left"))
        group.submit(fail).exception(LIMIT)
        group.wait(LIMIT)
        called.append("inside")
    assert called == ["inside", "left"]


def test_callback_without_an_app() -> None:
    """There is nobody to log what it raises."""
    with pytest.raises(ExecutorNotInitialized, match="init_app"):
        Executor().group().add_done_callback(print)


# Structured


def test_a_block_waits(executor: Executor, gate: threading.Event) -> None:
    """Leaving it returns when all members have ended."""
    with executor.group() as group:
        waits = group.submit(gate.wait, LIMIT)
        group.submit(gate.set)
    assert waits.done() and group.results(0) == [True, None]


def test_an_empty_block(executor: Executor) -> None:
    """Nothing is waited for, nothing rises."""
    with executor.group() as group:
        pass
    assert group.done() and group.results() == []


def test_the_first_failure_cancels_the_rest(single: Executor) -> None:
    """What waits is cancelled, what runs is asked to stop, and the failure rises."""
    begun = threading.Event()
    with (
        pytest.raises(ExceptionGroup, match="Group 'mine' 3 of 3 done") as caught,
        single.group("mine") as group,
    ):
        running = group.submit(until_asked, begun)
        waiting = group.submit(abs, 1)
        assert begun.wait(LIMIT)

        async def fail_now() -> None:
            fail()

        group.submit(fail_now)
    assert texts(caught.value.exceptions) == ["failed"]
    assert running.cancelled() and waiting.cancelled()


def test_failures_rise_together(executor: Executor) -> None:
    """All that failed is in the group, in the members' order, the block's last."""
    barrier = threading.Barrier(3)

    def meet_and_fail(text: str) -> None:
        barrier.wait(LIMIT)
        fail(text)

    with (
        pytest.raises(ExceptionGroup) as caught,
        executor.group() as group,
    ):
        group.map(meet_and_fail, ["one", "two"])
        barrier.wait(LIMIT)
        raise KeyError("three")
    assert texts(caught.value.exceptions) == ["one", "two", "'three'"]


def test_the_block_fails(single: Executor, gate: threading.Event) -> None:
    """What it raises cancels the members, and rises as a group of one."""
    with pytest.raises(ExceptionGroup) as caught, single.group() as group:
        running, waiting = group.submit(until_asked), group.submit(abs, 1)
        fail("the block")
    assert texts(caught.value.exceptions) == ["the block"]
    assert running.cancelled() and waiting.cancelled()


def test_a_failure_that_the_block_asked_for(executor: Executor) -> None:
    """What a member raised, and the block passed on, rises once."""
    with pytest.raises(ExceptionGroup) as caught, executor.group() as group:
        group.submit(fail).result(LIMIT)
    assert texts(caught.value.exceptions) == ["failed"]
    assert caught.value.__suppress_context__


def test_except_star(executor: Executor) -> None:
    """Failures are told apart as those of asyncio.TaskGroup are."""
    seen = []
    try:
        with executor.group() as group:
            group.submit(fail)
    except* KeyError:
        seen.append("KeyError")
    except* ValueError:
        seen.append("ValueError")
    assert seen == ["ValueError"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_leaving_in_a_hurry(executor: Executor, error: type[BaseException]) -> None:
    """They pass through the block as they are, when the members have ended."""
    begun = threading.Event()
    with pytest.raises(error), executor.group() as group:
        member = group.submit(until_asked, begun)
        assert begun.wait(LIMIT)
        raise error
    assert member.cancelled()


class Interrupted(TaskFuture[None]):
    """Ctrl-C is pressed while somebody waits for it."""

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.done():
            raise KeyboardInterrupt
        return super().exception(timeout)


def test_ctrl_c_while_leaving(app: Flask, executor: Executor) -> None:
    """KeyboardInterrupt cancels the members, and rises when they have ended."""
    begun = threading.Event()
    with pytest.raises(KeyboardInterrupt), executor.group() as group:
        group.add(Interrupted(app))
        member = group.submit(until_asked, begun)
        assert begun.wait(LIMIT)
    assert member.cancelled()
    with pytest.raises(RuntimeError, match="no more members"):
        group.submit(abs, 1)


def test_a_sys_exit_of_a_member(executor: Executor) -> None:
    """It is a failure like any other, though of no ExceptionGroup."""
    with pytest.raises(BaseExceptionGroup) as caught, executor.group() as group:
        group.submit(exit_now)
    assert [type(error) for error in caught.value.exceptions] == [SystemExit]
    assert not isinstance(caught.value, ExceptionGroup)


def exit_now() -> t.NoReturn:
    raise SystemExit


def test_a_cancelled_member_is_no_failure(executor: Executor) -> None:
    """The others go on, and nothing rises."""
    with executor.group() as group:
        cancelled = group.using(delay=LIMIT).submit(abs, 1)
        assert cancelled.cancel()
        other = group.submit(abs, -1)
    assert other.result(0) == 1


def test_the_block_asks_a_cancelled_member(executor: Executor) -> None:
    """The CancelledError rises by itself: it is no failure."""
    with pytest.raises(CancelledError), executor.group() as group:
        cancelled = group.using(delay=LIMIT).submit(abs, 1)
        cancelled.cancel()
        cancelled.result(LIMIT)


def test_cancel_in_a_block(executor: Executor) -> None:
    """It counts for later members, too; nothing rises."""
    ran = []
    with executor.group() as group:
        delayed = group.using(delay=LIMIT).submit(ran.append, 1)
        assert group.cancel()
        later = group.submit(ran.append, 2)
    assert delayed.cancelled() and later.cancelled() and ran == []


def test_submit_after_a_failure(anyhow: t.Any, tmp_path: t.Any) -> None:
    """The member is cancelled without having run, on every pool, its key with it."""
    executor, failing = anyhow
    left = tmp_path / "left"
    with pytest.raises(ExceptionGroup) as caught, executor.group() as group:
        group.submit(failing).exception(LIMIT)
        assert group.wait(LIMIT)
        late = [
            group.submit(left.touch),
            group.submit_stored("key", left.touch),
            group.submit(touch_awaited, left),
            *group.map(left.touch),
            *group.map(abs, [1, 2]),
            group.add(executor.using(delay=LIMIT).submit(abs, 1)),
        ][:-1]
    assert texts(caught.value.exceptions) == ["failed"]
    assert all(one.cancelled() for one in late) and not left.exists()
    assert executor.futures.cancelled("key") is True
    assert late[0].task.state == "cancelled" and "touch" in late[0].task.name


async def touch_awaited(path: t.Any) -> None:
    path.touch()


def test_a_job_after_a_failure(executor: Executor) -> None:
    """A job is cancelled as any other call is; what cannot be called is refused."""

    @executor.job
    def job() -> None:
        raise AssertionError

    with pytest.raises(ExceptionGroup) as caught, executor.group() as group:
        group.submit(fail).exception(LIMIT)
        assert group.wait(LIMIT)
        late = group.submit(job)
        nothing = group.submit(t.cast(t.Any, None))
    assert late.cancelled()
    assert [type(error) for error in caught.value.exceptions] == [
        ValueError,
        NotCallable,
    ]
    assert "job" in t.cast(t.Any, late.task).name and nothing.exception(0)


def test_members_submit_members(executor: Executor) -> None:
    """A member may add to the block that is being left: it is waited for, too."""

    def count_down(group: Group, number: int) -> int:
        if number:
            group.submit(count_down, group, number - 1)
        return number

    with executor.group() as group:
        group.submit(count_down, group, 50)
    assert group.results(0) == [*range(50, -1, -1)]


def test_a_block_that_was_left_is_closed(executor: Executor) -> None:
    """It takes no member, and cannot be entered again."""
    with executor.group() as group:
        pass
    for late in (group.submit, group.using(priority=1).submit, group.map):
        with pytest.raises(RuntimeError, match="no more members"):
            late(abs, [1])
    with pytest.raises(RuntimeError, match="no more members"):
        group.add(executor.submit(abs, 1))
    with pytest.raises(RuntimeError, match="entered before"):
        group.__enter__()


def test_a_block_is_entered_once(executor: Executor) -> None:
    """Entering it within itself is refused."""
    with executor.group() as group:
        with pytest.raises(RuntimeError, match="entered before"):
            group.__enter__()
        assert group.submit(abs, -1).result(LIMIT) == 1


def test_a_group_with_members_becomes_a_block(executor: Executor) -> None:
    """What it has counts: one that failed before cancels the rest."""
    group = executor.group()
    running = group.submit(until_asked)
    assert group.submit(fail).exception(LIMIT)
    completed = next(group.as_completed(LIMIT))
    assert completed.exception(LIMIT)
    with pytest.raises(ExceptionGroup), group:
        pass
    assert running.cancelled()


def test_nested_blocks(executor: Executor) -> None:
    """The inner's failures are one failure of the outer."""
    with pytest.raises(ExceptionGroup) as caught, executor.group("outer") as outer:
        rest = outer.submit(until_asked)
        with executor.group("inner") as inner:
            inner.submit(fail)
    (error,) = caught.value.exceptions
    assert isinstance(error, ExceptionGroup) and texts(error.exceptions) == ["failed"]
    assert rest.cancelled()


# Within tasks


def test_blocks_nest_in_one_worker(single: Executor) -> None:
    """Members open groups of their own, and a pool of one worker runs them all."""

    def add_up(depth: int) -> int:
        if not depth:
            return 1
        with single.group() as group:
            group.map(add_up, [depth - 1] * 3)
        return sum(group.results())

    assert single.submit(add_up, 5).result(LIMIT) == 3**5


def test_failures_nest_in_one_worker(single: Executor) -> None:
    """A failure deep down rises through each block, and cancels what waits in it."""

    def descend(depth: int) -> None:
        with single.group(str(depth)) as group:
            group.submit(descend, depth - 1) if depth else group.submit(fail)
            rest.append(group.submit(abs, 1))

    rest: list[TaskFuture[int]] = []
    error = single.submit(descend, 3).exception(LIMIT)
    for _ in range(4):
        assert isinstance(error, ExceptionGroup)
        (error,) = error.exceptions
    assert isinstance(error, ValueError)
    assert [future.cancelled() for future in rest] == [True] * 4


@pytest.mark.parametrize("timeout", [None, LIMIT])
@pytest.mark.parametrize(
    "wait",
    [
        lambda group, timeout: group.results(timeout),
        lambda group, timeout: group.wait(timeout) and group.results(),
        lambda group, timeout: sorted(
            future.result(timeout) for future in group.as_completed(timeout)
        ),
        lambda group, timeout: asyncio.run(await_group(group)),
    ],
    ids=["results", "wait", "as_completed", "await"],
)
def test_waiting_in_one_worker(
    single: Executor, wait: t.Any, timeout: float | None
) -> None:
    """Each way to wait in a task has the members run."""

    def gather() -> t.Any:
        group = single.group()
        group.map(abs, range(0, -50, -1))
        group.using(delay=0.01).submit(abs, -50)
        return wait(group, timeout)

    assert single.submit(gather).result(LIMIT) == [*range(51)]


async def await_group(group: Group) -> list[t.Any]:
    return await group


def test_an_async_block_in_one_worker(single: Executor) -> None:
    """An event loop on a worker's thread leaves that worker to the members."""

    async def gather() -> list[t.Any]:
        async with single.group() as group:
            group.map(abs, [-1, -2])
            return sorted([future.result() async for future in group])

    assert single.submit(asyncio.run, gather()).result(LIMIT) == [1, 2]


def test_as_completed_out_of_time_in_a_task(
    single: Executor, gate: threading.Event
) -> None:
    """The wait in a task ends in time, though a member goes on."""

    def gather() -> None:
        group = single.group()
        group.submit(gate.wait)
        list(group.as_completed(0.01))

    with pytest.raises(TimeoutError, match="0 of 1 done"):
        single.submit(gather).result(LIMIT)
    gate.set()


def test_members_of_a_job_that_runs_alone(executor: Executor) -> None:
    """A job that runs one at a time may open a group of itself."""

    @executor.job(max_concurrency=1)
    def add_up(depth: int) -> int:
        if not depth:
            return 1
        with executor.group() as group:
            group.map(add_up, [depth - 1] * 2)
        return sum(group.results())

    assert executor.submit(add_up, 3).result(LIMIT) == 8


def test_a_task_that_is_asked_to_stop_passes_it_on(executor: Executor) -> None:
    """Leaving a block it asks the members to stop, and is cancelled."""
    begun, inner_begun = threading.Event(), threading.Event()
    members: list[TaskFuture[t.Any]] = []

    def outer() -> None:
        with executor.group() as group:
            members.append(group.submit(until_asked, inner_begun))
            begun.set()
            assert inner_begun.wait(LIMIT)
            asked = threading.Event()
            while not current_task.cancel_requested:
                asked.wait(0.001)
        raise AssertionError("it goes on")

    future = executor.submit(outer)
    assert begun.wait(LIMIT) and future.request_cancel()
    with pytest.raises(CancelledError):
        future.result(LIMIT)
    assert members[0].cancelled()


def test_a_block_that_stops_by_itself(executor: Executor) -> None:
    """raise_if_cancelled() in a block cancels the members, and the task."""
    members: list[TaskFuture[t.Any]] = []

    def outer() -> None:
        with executor.group() as group:
            members.append(group.submit(until_asked))
            until_asked(begun)

    begun = threading.Event()
    future = executor.submit(outer)
    assert begun.wait(LIMIT) and future.request_cancel()
    with pytest.raises(CancelledError):
        future.result(LIMIT)
    assert future.cancelled() and members[0].cancelled()


# Coroutines


def test_a_block_in_a_coroutine_task(executor: Executor) -> None:
    """async with and async for, on the loop that the members run on, too."""

    async def square(number: int) -> int:
        await asyncio.sleep(0)
        return number**2

    async def gather() -> list[int]:
        async with executor.group() as group:
            group.map(square, range(4))
            group.submit(abs, -16)
            ended = [future.result() async for future in group]
        assert sorted(ended) == group.results() == await group
        return ended

    assert sorted(executor.submit(gather).result(LIMIT)) == [0, 1, 4, 9, 16]


def test_a_plain_block_in_a_coroutine_task(executor: Executor) -> None:
    """It would block the loop, and says so; nothing is left running."""
    members: list[TaskFuture[t.Any]] = []

    async def gather() -> None:
        with executor.group() as group:
            members.append(group.submit(asyncio.sleep, LIMIT))

    with pytest.raises(LoopBlocked, match="await"):
        executor.submit(gather).result(LIMIT)
    with pytest.raises(CancelledError):
        members[0].result(LIMIT)


def test_an_async_block_fails(executor: Executor) -> None:
    """A failure cancels coroutines and rises, the block's own with it."""

    async def gather() -> None:
        async with executor.group() as group:
            members.append(group.submit(asyncio.sleep, LIMIT))
            group.submit(fail)
            async for future in group:
                future.result()

    members: list[TaskFuture[t.Any]] = []
    error = executor.submit(gather).exception(LIMIT)
    assert isinstance(error, ExceptionGroup) and texts(error.exceptions) == ["failed"]
    assert members[0].cancelled()


def test_an_async_block_that_fails_itself(executor: Executor) -> None:
    """What it raises cancels the members, and rises as a group of one."""

    async def gather() -> None:
        async with executor.group() as group:
            members.append(group.submit(asyncio.sleep, LIMIT))
            fail("the block")

    members: list[TaskFuture[t.Any]] = []
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(gather())
    assert texts(caught.value.exceptions) == ["the block"]
    assert members[0].cancelled()


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("where", ["in it", "leaving it"])
def test_an_async_block_is_cancelled(
    executor: Executor, failing: bool, where: str
) -> None:
    """It cancels the members and rises when they have ended, however often it comes;
    a failure rises in its place.
    """
    begun, again = threading.Event(), threading.Event()

    def stop() -> None:
        try:
            until_asked(begun)
        except TaskCancelled:
            assert again.wait(LIMIT)
            if failing:
                fail()
            raise

    async def gather() -> None:
        async with executor.group() as group:
            members.append(group.submit(stop))
            assert await asyncio.to_thread(begun.wait, LIMIT)
            if where == "in it":
                entered.set()
                await asyncio.sleep(LIMIT)
            entered.set()

    async def cancel() -> None:
        nonlocal entered
        entered = asyncio.Event()
        task = asyncio.create_task(gather())
        await entered.wait()
        for _ in range(3):
            task.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
        again.set()
        await task

    entered: t.Any = None
    members: list[TaskFuture[t.Any]] = []
    with pytest.raises(ExceptionGroup if failing else asyncio.CancelledError):
        asyncio.run(cancel())
    assert members[0].cancelled() is not failing


def test_an_async_view(app: Flask, executor: Executor) -> None:
    """async with and async for work in a view, and give each member as it ends."""

    def shout(word: str, seen: threading.Event) -> str:
        assert seen.wait(LIMIT)
        return f"{request.args['hello']} {word}!"

    @app.get("/")
    async def view() -> list[str]:
        seen = [threading.Event() for _ in range(4)]
        words = []
        async with executor.group() as group:
            group.map(shout, ["three", "two", "one"], seen[2::-1])
            seen[0].set()
            async for future in group:
                words.append(future.result())
                seen[len(words)].set()
        return words

    words = app.test_client().get("/?hello=hey").json
    assert words == ["hey one!", "hey two!", "hey three!"]


def test_an_async_view_leaves_without_blocking(app: Flask, executor: Executor) -> None:
    """Leaving the block lets the loop go on, and so does awaiting a group."""

    @app.get("/<kind>")
    async def view(kind: str) -> list[bool]:
        ticked = threading.Event()
        group = executor.group()
        asyncio.get_running_loop().call_later(0.01, ticked.set)
        if kind == "await":
            group.submit(ticked.wait, LIMIT)
            return list(await group)
        async with group:
            group.submit(ticked.wait, LIMIT)
        return group.results()

    for kind in ("await", "leave"):
        assert app.test_client().get(f"/{kind}").json == [True]


def test_an_async_iteration_that_outlives_its_loop(
    executor: Executor, gate: threading.Event
) -> None:
    """A member that ends after the loop was closed harms nobody."""

    async def begin() -> t.Any:
        members = group.__aiter__()
        await members.__anext__()
        return members

    group = executor.group()
    group.submit(abs, 1)
    late = group.submit(gate.wait, LIMIT)
    loop = asyncio.new_event_loop()
    members = loop.run_until_complete(begin())
    loop.close()
    called = threading.Event()
    group.add_done_callback(lambda group: called.set())
    gate.set()
    assert late.result(LIMIT) and called.wait(LIMIT)
    with pytest.raises(StopIteration):
        members.aclose().send(None)


# Many


def test_thousands(executor: Executor) -> None:
    """5,000 members, asked for the progress of the whole as each of them ends."""
    dones = []
    with executor.group() as group:
        group.map(abs, range(0, -MANY, -1))
        for _ in group.as_completed(LIMIT):
            dones.append(group.progress.done)
    assert dones == sorted(dones) and dones[-1] == MANY
    assert group.results() == [*range(MANY)]


def test_thousands_in_one_worker(single: Executor) -> None:
    """5,000 members of a group within a task, and one worker for all of it."""

    def gather() -> int:
        with single.group() as group:
            group.map(abs, range(0, -MANY, -1))
        return len({future.result() for future in group.as_completed()})

    assert single.submit(gather).result(LIMIT) == MANY


def test_thousands_of_coroutines(executor: Executor) -> None:
    """One of 5,000 fails while all are under way; all others are cancelled."""

    async def arrive(number: int) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == MANY:
            fail()
        await asyncio.sleep(LIMIT)

    arrived = 0
    with pytest.raises(ExceptionGroup) as caught, executor.group() as group:
        group.map(arrive, range(MANY))
    assert texts(caught.value.exceptions) == ["failed"]
    assert sum(future.cancelled() for future in group) == MANY - 1


def test_one_failure_cancels_thousands(single: Executor) -> None:
    """None of those that wait runs."""
    ran: list[int] = []
    begun = threading.Event()
    with pytest.raises(ExceptionGroup), single.group() as group:
        group.submit(lambda: begun.wait(LIMIT) and fail())
        group.map(ran.append, range(MANY))
        begun.set()
    assert ran == [] and sum(future.cancelled() for future in group) == MANY


def test_thousands_in_an_async_block(executor: Executor) -> None:
    """5,000 members are iterated over on an event loop, each once."""

    async def gather() -> list[int]:
        async with executor.group() as group:
            group.map(abs, range(0, -MANY, -1))
            return [future.result() async for future in group]

    assert sorted(asyncio.run(gather())) == [*range(MANY)]


def test_many_threads_use_one_group(executor: Executor) -> None:
    """Members that come from many threads are each counted once."""
    group = executor.group()
    called = []

    def add() -> None:
        for number in range(100):
            group.submit(abs, number)
            assert group.progress.done <= len(group)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    group.add_done_callback(called.append)
    assert group.wait(LIMIT) and len(set(group.as_completed(LIMIT))) == 800
    assert group.progress == (800, 800, "") and called == [group]


def test_members_are_let_go_with_the_group(
    executor: Executor, gate: threading.Event
) -> None:
    """No cycle keeps a future alive, once its group is dropped: no collector needed."""
    called = threading.Event()
    gc.disable()
    try:
        group = executor.group()
        future = group.submit(gate.wait)
        group.add_done_callback(lambda group: called.set())
        gate.set()
        assert called.wait(LIMIT)
        list(group.as_completed(LIMIT))
        gone = [weakref.ref(future), weakref.ref(group), weakref.ref(group._members)]
        executor.shutdown()  # no worker's frame may hold it any more
        del future, group
        assert [ref() for ref in gone] == [None, None, None]
    finally:
        gc.enable()


def test_a_future_does_not_keep_its_group(
    executor: Executor, gate: threading.Event
) -> None:
    """A member that has ended refers to the group no more."""
    group = executor.group()
    future = group.submit(gate.wait)
    gate.set()
    assert group.wait(LIMIT)
    executor.shutdown()
    members = weakref.ref(group._members)
    del group
    gc.collect()
    assert members() is None and future.result() is True


# Processes


def test_members_in_processes(app: Flask) -> None:
    """Members that run in worker processes, and one that fails there."""
    app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=2)
    executor = Executor(app)
    with executor.group() as group:
        group.map(abs, range(0, -20, -1))
    assert group.results() == [*range(20)]
    with pytest.raises(ExceptionGroup) as caught, executor.group() as group:
        group.submit(divmod, 1, 0)
        group.using(delay=LIMIT).submit(abs, 1)
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
    assert group.futures[1].cancelled()
    executor.shutdown()


def test_no_group_is_found_without_a_store(app: Flask, executor: Executor) -> None:
    """Names of groups are known to a store only."""
    with app.app_context():
        group = executor.group("import")
        group.submit(abs, -1).result(LIMIT)
        assert executor.group_named("import") is None
