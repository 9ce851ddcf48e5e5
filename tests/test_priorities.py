"""Which task is next: priorities, delays, limits per job, and a queue that is full."""

from __future__ import annotations

import asyncio
import queue
import threading
import typing as t
from concurrent.futures import wait
from datetime import UTC, datetime, timedelta
from unittest import mock

import control_app
import pytest
from control import Door, HandClock, Journal, occupy, with_clock
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from internals import Call, Limit, Options, Place, PriorityQueue, Task
from limits import LIMIT
from werkzeug.exceptions import ServiceUnavailable

from flask_executor import Executor, ExecutorShutDown, QueueFull

Doors = t.Iterator[Door]


@pytest.fixture
def door() -> Doors:
    door = Door()
    yield door
    door.close()


def one_worker(app: Flask, kind: str = "thread") -> None:
    app.config.update(EXECUTOR_MAX_WORKERS=1, EXECUTOR_TYPE=kind)


def bare_task(**options: t.Any) -> Task:
    """A task that nobody owns."""
    nobody: t.Any = None
    return Task(nobody, Call(len, (), {}), nobody, Options(**options))


def places(limit: Limit, count: int) -> list[Place]:
    """Places of so many tasks under a limit."""
    made = [Place(limit, bare_task()) for _ in range(count)]
    for place in made:
        place.task._place = place
    return made


def all_done(futures: t.Iterable[t.Any]) -> None:
    assert not wait(futures, LIMIT).not_done


# Priorities

PRIORITIES = [0, 5, -3, 0, 100, 5, -100, 0]
BY_PRIORITY = sorted(range(8), key=lambda n: -PRIORITIES[n])


@pytest.mark.holds("g-priority")
def test_priorities_on_threads(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """The larger is sooner, and among equals who came first, past a long line."""
    one_worker(app)
    occupy(executor, gate)
    order: list[int] = []
    line = [executor.submit(order.append, 1000 + n) for n in range(1000)]
    futures = [
        executor.using(priority=priority).submit(order.append, n)
        for n, priority in enumerate(PRIORITIES)
    ]
    gate.set()
    all_done(line + futures)
    ahead = [n for n in BY_PRIORITY if PRIORITIES[n] > 0]
    behind = [n for n in BY_PRIORITY if PRIORITIES[n] < 0]
    equal = [n for n in BY_PRIORITY if PRIORITIES[n] == 0]
    assert order == [*ahead, *range(1000, 2000), *equal, *behind]


@pytest.mark.holds("g-priority")
def test_priorities_on_processes(app: Flask, door: Door) -> None:
    """The same where workers are processes."""
    one_worker(app, "process")
    executor = Executor(app)
    with Journal(app) as journal:
        first = executor.submit(control_app.wait_at, door.port)
        door.reached()
        line = [executor.using(name="line").submit(control_app.pid) for _ in range(50)]
        futures = [
            executor.using(priority=priority).submit(control_app.pid)
            for priority in PRIORITIES
        ]
        door.open()
        all_done([first, *line, *futures])
    started = [task for name, task, _ in journal.entries if name == "started"]
    index = {id(future.task): n for n, future in enumerate(futures)}
    order = [index[id(task)] for task in started if id(task) in index]
    assert order == BY_PRIORITY
    assert [task.name for task in started[4:54]] == ["line"] * 50
    executor.shutdown()


@pytest.mark.holds("g-priority")
def test_priorities_on_the_event_loop(
    executor: Executor, gate: threading.Event
) -> None:
    """Coroutines that came while the loop was busy start by priority."""
    order: list[int] = []
    busy = threading.Event()

    async def block() -> None:
        busy.set()
        gate.wait(LIMIT)

    async def note(n: int) -> None:
        order.append(n)

    executor.submit(block)
    assert busy.wait(LIMIT)
    futures = [
        executor.using(priority=priority).submit(note, n)
        for n, priority in enumerate(PRIORITIES)
    ]
    gate.set()
    all_done(futures)
    assert order == BY_PRIORITY


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "first", "take", "remove", "again"]),
            st.integers(-3, 3),
            st.integers(0, 99),
        ),
        max_size=60,
    )
)
def test_the_queue(moves: list[tuple[str, int, int]]) -> None:
    """Whatever is put in, taken out and put in again, the first of the highest priority
    is next.
    """
    queue, model, removed = PriorityQueue(), list[Task](), list[Task]()
    for move, priority, which in moves:
        if move == "take":
            expected = max(model, key=lambda task: task.options.priority, default=None)
            if expected is not None:
                model.remove(expected)
            assert queue.take() is expected
        elif move == "remove" and model:
            removed.append(model.pop(which % len(model)))
            assert queue.remove(removed[-1]) and not queue.remove(removed[-1])
        elif move != "remove":
            task = bare_task(priority=priority)
            if move == "again" and removed:
                task = removed.pop(which % len(removed))
            queue.put(task, first=move == "first")
            model.insert(0 if move == "first" else len(model), task)
        assert len(queue) == len(model)
    assert queue.copy() == sorted(model, key=lambda task: -task.options.priority)


def test_the_queue_gives_a_task_once() -> None:
    """A task is taken or removed, not both; one that is put first is next of its
    priority.
    """
    queue = PriorityQueue()
    first, second, high = bare_task(), bare_task(), bare_task(priority=1)
    for task in (second, high):
        queue.put(task)
    queue.put(first, first=True)
    assert queue.copy() == [high, first, second]
    assert queue.remove(first) and not queue.remove(first)
    assert queue.take() is high and not queue.remove(high)
    assert queue.take() is second and queue.take() is None


def test_the_queue_under_many_threads() -> None:
    """Code that puts a task in before it takes one always finds one; none is lost or
    taken twice.
    """
    queue = PriorityQueue()
    taken: list[Task] = []
    barrier = threading.Barrier(8)
    problems: list[object] = []

    def work(seed: int) -> None:
        barrier.wait(LIMIT)
        for n in range(2000):
            queue.put(bare_task(priority=(seed * 7919 + n * 31) % 201 - 100))
            task = queue.take()
            if task is None:
                problems.append((seed, n))
            else:
                taken.append(task)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert not problems and len(set(taken)) == 16_000 and queue.take() is None


# Delays


@pytest.mark.holds("g-delay")
def test_a_delayed_task(executor: Executor) -> None:
    """It is delayed until its time, then runs; nobody works for it meanwhile."""
    clock = with_clock(executor)
    future = executor.using(delay=60).submit(threading.get_ident)
    task = future.task
    assert task is not None
    assert (task.state, task.attempt, task.started_at) == ("delayed", 0, None)
    assert not future.running() and not future.done()
    clock.advance(59.9)
    assert task.state == "delayed" and executor._threads == set()
    clock.advance(0.1)
    assert future.result(LIMIT) and task.state == "succeeded"
    assert task.started_at == task.submitted_at + timedelta(seconds=60)
    assert clock.is_idle


@pytest.mark.holds("g-delay")
def test_run_at(executor: Executor) -> None:
    """Not before that moment, in whatever time zone; at once where it is over."""
    clock = with_clock(executor)
    moment = datetime.fromtimestamp(clock.time() + 30, UTC)
    future = executor.using(run_at=moment).submit(abs, -1)
    clock.advance(29)
    assert future.task is not None and future.task.state == "delayed"
    clock.advance(1)
    assert future.result(LIMIT) == 1
    past = moment - timedelta(days=1)
    assert executor.using(run_at=past).submit(abs, -2).result(LIMIT) == 2
    assert executor.using(delay=0).submit(abs, -3).result(LIMIT) == 3


@pytest.mark.parametrize("kind", ["process", "loop"])
@pytest.mark.holds("g-delay")
def test_delays_elsewhere(app: Flask, kind: str) -> None:
    """Worker processes and coroutines wait for their time likewise."""
    if kind == "process":
        one_worker(app, kind)
    executor = Executor(app)
    clock = with_clock(executor)

    async def coroutine() -> int:
        return 1

    fn: t.Any = coroutine if kind == "loop" else control_app.pid
    future = executor.using(delay=5).submit(fn)
    clock.advance(4)
    assert future.task is not None and future.task.state == "delayed"
    clock.advance(1)
    assert future.result(LIMIT)
    executor.shutdown()


def test_delays_are_passed_over_in_sync(app: Flask) -> None:
    """Where submit runs the call, it does so at once."""
    one_worker(app, "sync")
    executor = Executor(app)
    future = executor.using(delay=3600, priority=5).submit(abs, -1)
    assert future.done() and future.result() == 1


@pytest.mark.holds("g-priority")
def test_due_tasks_keep_their_priority(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """What becomes due goes into the line where its priority puts it."""
    one_worker(app)
    clock = with_clock(executor)
    occupy(executor, gate)
    order: list[str] = []
    futures = [executor.submit(order.append, "waiting")]
    for name, priority, delay in (("late", 9, 2), ("low", -1, 1), ("high", 9, 1)):
        view = executor.using(priority=priority, delay=delay)
        futures.append(view.submit(order.append, name))
    clock.advance(2)
    gate.set()
    all_done(futures)
    assert order == ["high", "late", "waiting", "low"]


def test_delays_of_a_real_clock(executor: Executor) -> None:
    """Without a clock moved by hand, delayed tasks run in the order of their time."""
    order: list[int] = []
    delays = (0.06, 0.02, 0.04)
    futures = [
        executor.using(delay=delay).submit(order.append, n)
        for n, delay in enumerate(delays)
    ]
    all_done(futures)
    assert order == [1, 2, 0]


def test_thousands_of_delayed_tasks(executor: Executor) -> None:
    """They wait without a thread each: one timer thread is all that there is."""
    before = set(threading.enumerate())
    view = executor.using(delay=3600)
    futures = [view.submit(abs, n) for n in range(20_000)]
    (extra,) = set(threading.enumerate()) - before
    assert extra.name == "executor_timer"
    assert all(future.task.state == "delayed" for future in futures)  # type: ignore[union-attr]
    assert all(future.cancel() for future in futures[:10_000])
    executor.shutdown(wait=True, cancel_futures=True)
    assert all(future.cancelled() for future in futures)
    assert not extra.is_alive()


def test_no_timer_thread_where_nothing_is_timed(executor: Executor) -> None:
    """What a call does not use, it does not pay for."""
    executor.using(priority=5).submit(abs, -1).result(LIMIT)
    assert "executor_timer" not in {thread.name for thread in threading.enumerate()}


# How many tasks of a job run at once


def test_a_job_with_a_limit(executor: Executor, gate: threading.Event) -> None:
    """So many of its tasks run at once; the others hold no worker, and others run."""
    running = threading.Semaphore(0)
    order: list[int] = []

    @executor.job(max_concurrency=2)
    def limited(n: int) -> None:
        order.append(n)
        running.release()
        gate.wait(LIMIT)

    futures = [limited.submit(n) for n in range(6)]
    assert running.acquire(timeout=LIMIT) and running.acquire(timeout=LIMIT)
    # Four workers: with these two the held ones have been looked at.
    others = [executor.submit(abs, n) for n in range(20)]
    all_done(others)
    assert sorted(order) == [0, 1]
    assert [future.task.state for future in futures[2:]] == ["waiting"] * 4  # type: ignore[union-attr]
    assert not any(future.running() for future in futures[2:])
    gate.set()
    all_done(futures)
    assert sorted(order) == [*range(6)] and [n > 1 for n in order[2:]] == [True] * 4


@pytest.mark.holds("g-limit")
def test_the_limit_holds_at_any_moment(executor: Executor) -> None:
    """However tasks come and end, no more than the limit are inside."""
    lock = threading.Lock()
    inside = most = 0

    @executor.job(max_concurrency=3)
    def limited() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1

    all_done([limited.submit() for _ in range(500)])
    assert 1 <= most <= 3


def test_views_of_a_job_share_its_limit(
    executor: Executor, gate: threading.Event
) -> None:
    """The limit is the job's, whatever options its tasks have."""
    running: list[int] = []
    entered = threading.Event()

    @executor.job(max_concurrency=1)
    def limited(n: int) -> None:
        running.append(n)
        entered.set()
        gate.wait(LIMIT)

    futures = [
        limited.submit(0),
        limited.using(priority=1).submit(1),
        executor.using(priority=2).submit(limited, 2),
    ]
    assert entered.wait(LIMIT)
    all_done([executor.submit(abs, n) for n in range(20)])
    assert len(running) == 1
    gate.set()
    all_done(futures)


def test_each_job_has_its_own_limit(executor: Executor) -> None:
    """Tasks of one job do not count for another."""
    both = threading.Barrier(2)

    def meet() -> None:
        both.wait(LIMIT)

    first = executor.job(max_concurrency=1)(meet)
    second = executor.job(max_concurrency=1)(meet)
    all_done(futures := [first.submit(), second.submit()])
    assert [future.exception() for future in futures] == [None, None]


def test_held_tasks_keep_their_order(app: Flask, executor: Executor) -> None:
    """They go on by priority, then by arrival, before others of their priority."""
    app.config["EXECUTOR_MAX_WORKERS"] = 2
    order: list[str] = []
    inside, gate = threading.Event(), threading.Event()

    @executor.job(max_concurrency=1)
    def limited(name: str) -> None:
        order.append(name)
        inside.set()
        gate.wait(LIMIT)

    first = limited.submit("first")
    assert inside.wait(LIMIT)
    futures = [limited.submit(f"held {n}") for n in range(5)]
    futures += [limited.using(priority=1).submit(f"high {n}") for n in range(3)]
    all_done([executor.using(priority=-1).submit(abs, 1)])  # each has had its turn
    gate.set()
    all_done([first, *futures])
    assert order == ["first", *(f"high {n}" for n in range(3))] + [
        f"held {n}" for n in range(5)
    ]


@pytest.mark.holds("g-limit")
def test_a_limited_job_that_waits_for_itself(app: Flask, executor: Executor) -> None:
    """It does not count while it waits, so its own children may run."""

    @executor.job(max_concurrency=1)
    def factorial(n: int) -> int:
        return 1 if n < 2 else n * factorial.submit(n - 1).result()

    for workers in (1, 3):
        app.config["EXECUTOR_MAX_WORKERS"] = workers
        executor.init_app(app)
        assert factorial.submit(10).result(LIMIT) == 3_628_800
        futures = [factorial.submit(5) for _ in range(20)]
        assert {future.result(LIMIT) for future in futures} == {120}


def test_a_task_that_waited_comes_before_those_blocked() -> None:
    """A task that comes back from a wait goes on before any that has not begun."""
    woken: list[Task] = []
    limit = Limit(1, woken.append)
    waited, runs, blocked = places(limit, 3)
    assert limit.enter(waited)
    limit.start_waiting(waited, has_timeout=False)  # so its place is free
    assert limit.enter(runs) and not limit.enter(blocked)
    limit.stop_waiting(waited)
    back: list[str] = []
    assert not limit.come_back(waited, lambda: back.append("back"))
    limit.leave(runs)
    assert back == ["back"] and waited.held and woken == []
    limit.leave(waited)
    assert woken == [blocked.task] and blocked.held


def test_a_place_goes_to_the_next_task_in_one_step() -> None:
    """No task that comes meanwhile gets before the one whose turn it is."""
    woken: list[Task] = []
    limit = Limit(1, woken.append)
    runs, blocked, later, sooner = places(limit, 4)
    assert limit.enter(runs)
    assert not limit.enter(blocked) and not limit.enter(later)
    limit.leave(runs)
    assert woken == [blocked.task]
    assert not limit.enter(sooner)
    assert limit.enter(blocked)  # the place is its own already
    limit.leave(blocked)
    limit.leave(later)
    assert woken == [blocked.task, later.task, sooner.task]


def test_a_blocked_task_that_is_cancelled_takes_no_place() -> None:
    """It is passed over, also after it was given a place that it has not used."""
    woken: list[Task] = []
    limit = Limit(1, woken.append)
    runs, cancelled, last = places(limit, 3)
    assert limit.enter(runs)
    assert not limit.enter(cancelled) and not limit.enter(last)
    limit.leave(runs)
    limit.leave(cancelled)
    assert woken == [cancelled.task, last.task] and last.held


@pytest.mark.holds("g-limit")
def test_the_limit_of_coroutines(executor: Executor) -> None:
    """It holds for coroutine functions, too."""
    inside = most = 0
    both = asyncio.Barrier(2)

    @executor.job(max_concurrency=2)
    async def limited() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await both.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        inside -= 1

    all_done([limited.submit() for _ in range(50)])
    assert most == 2


@pytest.mark.holds("g-limit")
def test_the_limit_of_processes(door: Door) -> None:
    """And for worker processes."""
    app = control_app.app
    with mock.patch.dict(app.config, EXECUTOR_MAX_WORKERS=2):
        control_app.executor.init_app(app)
        job = control_app.limited_wait_at
        first, second = job.submit(door.port), job.submit(door.port)
        door.reached()
        control_app.executor.submit(control_app.pid).result(LIMIT)
        assert second.task is not None and second.task.state == "waiting"
        door.open()
        assert first.result(LIMIT) == b"x"
        door.reached()
        door.open()
        assert second.result(LIMIT) == b"x"
        control_app.executor.shutdown()
    control_app.executor.init_app(app)


def test_cancelling_a_held_task(executor: Executor, gate: threading.Event) -> None:
    """A held one that is cancelled lets the one behind it go on."""
    inside = threading.Event()
    ran: list[int] = []

    @executor.job(max_concurrency=1)
    def limited(n: int) -> None:
        ran.append(n)
        inside.set()
        gate.wait(LIMIT)

    futures = [limited.submit(n) for n in range(4)]
    assert inside.wait(LIMIT)
    all_done([executor.submit(abs, n) for n in range(20)])
    cancelled = [future for future in futures if future.cancel()]
    assert len(cancelled) == 3 and all(future.cancelled() for future in cancelled)
    last = limited.submit(9)
    gate.set()
    all_done([*futures, last])
    assert len(ran) == 2 and ran[1] == 9


def test_a_failing_task_makes_room(executor: Executor) -> None:
    """Room is made however a task ends."""

    @executor.job(max_concurrency=1)
    def limited(n: int) -> float:
        return 1 / n

    futures = [limited.submit(n % 2) for n in range(20)]
    all_done(futures)
    assert [type(future.exception()) for future in futures] == [
        ZeroDivisionError,
        type(None),
    ] * 10


@pytest.mark.holds("g-shutdown")
def test_shutdown_runs_held_tasks(executor: Executor, gate: threading.Event) -> None:
    """A shutdown waits for held tasks, too."""
    ran: list[int] = []
    inside = threading.Event()

    @executor.job(max_concurrency=1)
    def limited(n: int) -> None:
        ran.append(n)
        inside.set()
        gate.wait(LIMIT)

    futures = [limited.submit(n) for n in range(5)]
    assert inside.wait(LIMIT)
    executor.shutdown(wait=False)
    with pytest.raises(ExecutorShutDown):
        limited.submit(9)
    gate.set()
    executor.shutdown(wait=True)
    assert sorted(ran) == [*range(5)] and all(future.done() for future in futures)


# A line that is full


@pytest.mark.holds("g-exactly-once")
def test_a_full_line(app: Flask, executor: Executor, gate: threading.Event) -> None:
    """Where so many wait, one more is refused, and nothing of it is kept."""
    one_worker(app)
    app.config["EXECUTOR_MAX_PENDING"] = 2
    occupy(executor, gate)  # runs, so it does not count
    waiting = [executor.submit_stored(n, abs, n) for n in range(2)]
    with pytest.raises(QueueFull) as info:
        executor.submit_stored("key", abs, -1)
    assert isinstance(info.value, queue.Full)
    assert isinstance(info.value, ServiceUnavailable)
    assert "builtins.abs was not accepted, because 2 tasks wait" in str(info.value)
    assert "EXECUTOR_MAX_PENDING" in str(info.value)
    assert "key" not in executor.futures
    assert waiting[0].cancel()
    accepted = executor.submit(abs, -5)
    gate.set()
    assert accepted.result(LIMIT) == 5


def test_what_counts_as_waiting(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """Delayed and held tasks count, and those between two attempts."""
    app.config["EXECUTOR_MAX_PENDING"] = 3
    clock = with_clock(executor)
    inside = threading.Event()

    @executor.job(max_concurrency=1)
    def limited() -> None:
        inside.set()
        gate.wait(LIMIT)

    with Journal(app) as journal:
        running = limited.submit()
        assert inside.wait(LIMIT)
        held = limited.submit()
        retrying = executor.using(retry=2).submit(divmod, 1, 0)
        journal.wait("retrying")
        clock.armed()
        delayed = executor.using(delay=60).submit(abs, 1)
        with pytest.raises(QueueFull, match="3 tasks wait"):
            executor.submit(abs, 1)
    for future in (retrying, delayed, held):
        assert future.cancel()
    assert executor.submit(abs, -1).result(LIMIT) == 1
    gate.set()
    running.result(LIMIT)


def test_a_view_answers_503(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """A view that lets it through answers 503, with Retry-After."""
    one_worker(app)
    app.config.update(EXECUTOR_MAX_PENDING=1, TESTING=False)
    occupy(executor, gate)

    @app.get("/")
    def view() -> str:
        executor.submit(abs, -1)
        return "accepted"

    client = app.test_client()
    assert client.get("/").text == "accepted"
    response = client.get("/")
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert "EXECUTOR_MAX_PENDING" in response.text
    gate.set()
    executor.shutdown()
    executor.init_app(app)
    assert client.get("/").status_code == 200


@pytest.mark.holds("g-exactly-once")
def test_the_limit_of_the_line_under_many_threads(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """Of many who submit at once exactly as many are accepted as there is room."""
    one_worker(app)
    app.config["EXECUTOR_MAX_PENDING"] = 50
    occupy(executor, gate)
    accepted, refused = [], []
    barrier = threading.Barrier(8)

    def submit() -> None:
        barrier.wait(LIMIT)
        for _ in range(20):
            try:
                accepted.append(executor.submit(abs, -1))
            except QueueFull:
                refused.append(1)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert (len(accepted), len(refused)) == (50, 110)
    gate.set()
    all_done(accepted)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 3)), max_size=20))
def test_delays_and_priorities_together(tasks: list[tuple[int, int]]) -> None:
    """By due time first; among those due together by priority, then by arrival."""
    app = Flask("line")
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    executor = Executor(app)
    clock: HandClock = with_clock(executor)
    gate, order = threading.Event(), list[int]()
    futures = [
        executor.using(priority=priority, delay=delay + 1).submit(order.append, n)
        for n, (priority, delay) in enumerate(tasks)
    ]
    expected: list[int] = []
    for second in range(1, 5):
        gate.clear()
        occupied = occupy_at_once(executor, gate)
        clock.advance(1)
        gate.set()
        due = [n for n, (_, delay) in enumerate(tasks) if delay + 1 == second]
        expected += sorted(due, key=lambda n: -tasks[n][0])
        all_done([occupied, *(futures[n] for n in due)])
        assert order == expected
    executor.shutdown()


def occupy_at_once(executor: Executor, gate: threading.Event) -> t.Any:
    (occupied,) = occupy(executor, gate)
    return occupied
