"""What is left of a process that shares tasks, when it ends or forks."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import pytest
from limits import LIMIT
from processes import NewProcess, Process, reached, until

from flask_executor import Retry, current_task


def threads_since(before: set[threading.Thread]) -> set[threading.Thread]:
    return {*threading.enumerate()} - before


def test_a_dropped_app_leaves_nothing(url: str) -> None:
    """An app that nobody uses any more takes its threads and its lease along."""
    before = {*threading.enumerate()}
    observer = Process(url)
    observer.futures.keys()
    process = Process(url).serve()
    process.executor.submit_stored("k", int).result(LIMIT)
    assert observer.store.workers()
    gone = weakref.ref(process.app)
    node = weakref.ref(process.node)
    del process

    def is_gone() -> bool:
        gc.collect()
        return gone() is None and node() is None

    until(is_gone)
    until(lambda: not observer.store.workers())
    observer.close()
    until(lambda: not threads_since(before))


def test_shutdown_ends_the_threads(process: NewProcess) -> None:
    """After a shutdown nothing of the process runs, and its futures can be read."""
    one = process()
    before = {*threading.enumerate()}
    one.serve()
    future = one.job(lambda: 7).submit_stored("k")
    one.executor.shutdown()
    assert future.result(0) == 7
    assert one.futures["k"] is future
    with pytest.raises(RuntimeError, match="shut"):
        one.executor.submit_stored("x", int)
    with pytest.raises(RuntimeError, match="shut"):
        one.job(int, name="x").submit()
    assert not one.store.workers()
    one.close()
    until(lambda: not threads_since(before))


def test_a_drain_hands_over(process: NewProcess) -> None:
    """What has not begun, or is to be tried again, runs in another process."""
    first, second = process(), process(EXECUTOR_STORE_RUN=False)
    first.serve()
    gate, begun = threading.Event(), threading.Event()

    def work(fails: bool) -> str:
        begun.set()
        reached(gate)
        if fails:
            raise ValueError("again")
        return "first"

    options = {"retry": Retry(attempts=2)}
    job = first.job(work, **options)
    second.job(lambda fails: "second", **options)
    runs, fails = job.submit(False), job.submit(True)
    reached(begun)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(first.node.holding, "room", lambda: 1)
        waits = [job.submit(False) for _ in range(3)]
    until(lambda: len(first.node.dispatcher.table.running) == 2)
    first.node.leaving.hand_back()
    threading.Timer(0.1, gate.set).start()
    drained = first.executor.drain(LIMIT)
    assert not drained.running
    assert not drained.cancelled
    assert runs.result(0) == "first"
    second.node.work()
    assert [future.result(LIMIT) for future in (fails, *waits)] == ["second"] * 4


def test_a_task_that_is_asked_to_leave(process: NewProcess) -> None:
    """A task that stops because its process ends runs again in another one."""
    first, second = process().serve(), process(EXECUTOR_STORE_RUN=False)
    begun = threading.Event()

    def work() -> None:
        begun.set()
        while True:
            current_task.raise_if_cancelled()

    second.job(lambda: "second")
    future = first.job(work).submit_stored("k")
    reached(begun)
    first.node.leaving.ask(future.task)
    until(lambda: not first.node.dispatcher.table.running)
    first.node.leaving.rest()
    second.node.work()
    assert second.futures.result("k", timeout=LIMIT) == "second"


def test_a_fork_begins_anew(process: NewProcess) -> None:
    """A child that was forked after the first use has a node of its own."""
    one = process().serve()
    one.executor.submit_stored("before", int).result(LIMIT)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            future = one.executor.submit_stored("child", os.getpid)
            done = future.result(LIMIT) == os.getpid() and one.futures.done("before")
            os.write(write, one.node.presence.me.encode())
            one.node.leaving.close()
            status = 0 if done else 2
        finally:
            os._exit(status)
    os.close(write)
    _, status = os.waitpid(child, 0)
    me = os.read(read, 100).decode()
    os.close(read)
    assert os.waitstatus_to_exitcode(status) == 0
    assert me != one.node.presence.me
    assert one.futures.result("child", timeout=LIMIT) == child
    assert one.executor.submit_stored("after", int).result(LIMIT) == 0
