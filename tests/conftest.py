"""Fixtures: an app, an executor, and a check that no test leaves anything behind."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import threading
import typing as t

import pytest
from control import SIGNALS
from flask import Flask
from flask.globals import _cv_app
from limits import LIMIT
from scripts import measure_only_what_asks

from flask_executor import Executor

# Each worker process would import these by itself, which takes longer than most tests
# of one. What is ours they import as everywhere.
if "forkserver" in multiprocessing.get_all_start_methods():
    multiprocessing.set_forkserver_preload(["__main__", "flask", "pebble", "coverage"])


def pytest_collection_finish() -> None:
    """Measure from here on what asks for it, and freeze what was imported."""
    measure_only_what_asks()
    freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Freeze what the tests of a module have imported."""
    if nextitem is not None and nextitem.path != item.path:
        freeze()


def freeze() -> None:
    """Take what is there out of every later collection: each test collects."""
    gc.collect()
    gc.freeze()


# A shell that starts the tests in the background lets them ignore Ctrl-C, and what they
# start inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def app() -> Flask:
    app = Flask("tests")
    app.config.update(TESTING=True, SECRET_KEY="tests", EXECUTOR_MAX_WORKERS=4)
    return app


@pytest.fixture
def executor(app: Flask) -> t.Iterator[Executor]:
    executor = Executor(app)
    yield executor
    executor.shutdown()


@pytest.fixture
def gate() -> t.Iterator[threading.Event]:
    """An event that tasks wait for; opened at the end in any case."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> t.Iterator[None]:
    """No test leaks a context, a receiver, a thread of an executor or a process."""
    before = set(threading.enumerate())
    yield
    assert _cv_app.get(None) is None, "a context is still pushed"
    gc.collect()
    left = [sent for sent in SIGNALS if sent.receivers]
    for sent in left:
        sent.receivers.clear()  # so that the next test is not blamed
    assert not left, f"{left} have receivers"
    for thread in set(threading.enumerate()) - before:
        if "executor" in thread.name:
            t.cast(t.Any, thread)._started.wait(LIMIT)  # it may just be starting
            thread.join(LIMIT)
            assert not thread.is_alive(), f"{thread} is still running"
    for process in multiprocessing.active_children():
        process.join(LIMIT)
        assert not process.is_alive(), f"{process} is still running"
