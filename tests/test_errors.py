"""Every exception: what it inherits, what it says, and that it travels."""

from __future__ import annotations

import copy
import pickle
import queue
import typing as t
from concurrent.futures import BrokenExecutor, CancelledError

import pytest
from flask import Flask

import flask_executor
from flask_executor import errors, pool_errors, run_errors, store_errors

CASES: list[tuple[Exception, type[Exception], list[str]]] = [
    (errors.InvalidName("a-b"), ValueError, ["'a-b'", "letters, digits", "'mail'"]),
    (
        errors.InvalidSetting("EXECUTOR_TYPE", "x", "'thread'"),
        ValueError,
        ["EXECUTOR_TYPE = 'x'", "is not understood: use 'thread'"],
    ),
    (errors.ExecutorNotInitialized(), RuntimeError, ["any app", "init_app(app)"]),
    (
        errors.ExecutorShutDown("m.f"),
        RuntimeError,
        ["after shutdown", "'m.f'", "init_app(app)"],
    ),
    (errors.NotCallable(None), TypeError, ["None was submitted", "submit(send,"]),
    (errors.DuplicateKey(("k", 1)), ValueError, ["('k', 1) is taken", "pop"]),
    (
        errors.NotUnique("order-7", "m.f", "running", "raise"),
        ValueError,
        [
            *("unique = 'order-7' is taken by m.f, which is running", "another value"),
            *("on_taken='return'", "'replace' to cancel it"),
        ],
    ),
    (
        errors.InvalidSchedule("every", 0, "seconds above 0"),
        ValueError,
        ["every = 0 cannot be scheduled", "use seconds above 0"],
    ),
    (
        errors.PeriodicNotInstalled(),
        ImportError,
        ["executor.cron needs croniter", "pip install 'Flask-Executor[periodic]'"],
    ),
    (
        errors.SurfaceNotInstalled("metrics", "prometheus-client"),
        ImportError,
        [
            "flask_executor.metrics needs prometheus-client",
            "pip install 'Flask-Executor[metrics]'",
        ],
    ),
    (
        errors.CallNotPicklable("m.f", "it is local"),
        pickle.PicklingError,
        ["m.f", "it is local", "top level"],
    ),
    (
        errors.ResultNotPicklable("m.f", "its result", "a lock"),
        pickle.PicklingError,
        ["m.f", "its result", "a lock", "plain data"],
    ),
    (
        errors.WorkerLost("m.f", 7, -9),
        BrokenExecutor,
        ["m.f was lost", "7", "-9", "Submit it again"],
    ),
    (
        errors.ChildrenNotAllowed("m.f", "Process-1"),
        RuntimeError,
        [
            *("m.f was not accepted", "this process, 'Process-1', is a daemonic"),
            *("--workers 0", "another server", "EXECUTOR_TYPE = 'thread'"),
        ],
    ),
    (
        errors.AppNotFound("m:app", "no module"),
        RuntimeError,
        ["EXECUTOR_APP = 'm:app'", "no module", "module:factory"],
    ),
    (
        errors.ArgumentsNotPicklable("m.f", "a lock"),
        errors.CallNotPicklable,
        ["m.f", "a lock", "plain data"],
    ),
    (
        errors.UnknownOption("urgency", ("priority", "timeout")),
        TypeError,
        [
            "'urgency' is not an option of a task",
            "priority, timeout",
            "submit, not to using",
        ],
    ),
    (
        errors.InvalidOption("priority", 101, "a whole number"),
        ValueError,
        ["priority = 101", "a whole number"],
    ),
    (
        errors.UnsupportedOption("retry", "EXECUTOR_TYPE = 'dask'", "use 'thread'"),
        ValueError,
        ["retry is not supported", "by EXECUTOR_TYPE = 'dask'", "use 'thread'"],
    ),
    (
        errors.QueueFull("m.f", 100),
        queue.Full,
        ["m.f was not accepted", "100 tasks wait", "EXECUTOR_MAX_PENDING"],
    ),
    (
        errors.TaskTimeout("m.f", 1.5),
        TimeoutError,
        ["m.f ran for longer", "1.5 seconds", "raise the timeout"],
    ),
    (errors.TaskCancelled("m.f"), CancelledError, ["m.f was asked to stop"]),
    (errors.NoCurrentTask(), RuntimeError, ["No task runs here", "future.task"]),
    (errors.LoopBlocked("m.f"), RuntimeError, ["Waiting for m.f", "`await future`"]),
    (
        errors.WaitsForItself("drain"),
        RuntimeError,
        ["drain waits", "outside its tasks"],
    ),
    (
        errors.PoolNotInstalled("pebble"),
        ImportError,
        ["'pebble'", "pip install 'Flask-Executor[pebble]'"],
    ),
    (
        store_errors.KeyNotStorable("None", "builtins.NoneType", "it is odd"),
        ValueError,
        ["key None (builtins.NoneType)", "it is odd", "Use a text, a whole number"],
    ),
    (
        store_errors.KeyNotReadable("e:m:X.A", "not imported"),
        LookupError,
        ["'e:m:X.A' is no key in this process", "not imported", "by its id"],
    ),
    (
        store_errors.NoSecretKey("shop"),
        RuntimeError,
        ["'shop' has no SECRET_KEY", "set app.config['SECRET_KEY']"],
    ),
    (
        store_errors.PayloadRefused("t1", "payload", "m.f", "it is forged"),
        ValueError,
        ["payload of task t1 (m.f)", "it is forged", "Other tasks", "Submit it again"],
    ),
    (
        store_errors.PayloadTooLarge("m.f", "its result", 11, 10),
        ValueError,
        [
            *("m.f cannot be saved", "11 bytes", "its result"),
            *("EXECUTOR_STORE_MAX_BYTES is 10", "path or its id"),
        ],
    ),
    (
        store_errors.ArgumentsNotStorable("m.f", "args[0] is a lock"),
        errors.ArgumentsNotPicklable,
        ["m.f cannot be saved: args[0] is a lock."],
    ),
    (
        store_errors.ResultNotStorable("m.f", "its result", "a lock"),
        errors.ResultNotPicklable,
        ["m.f ran, but its result cannot be saved: a lock", "return its id"],
    ),
    (
        store_errors.FailedElsewhere("m.f", "KeyError", "'x'"),
        Exception,
        ["m.f failed with KeyError: 'x'", "traceback is below"],
    ),
    (
        store_errors.DuplicateJobName("mail", "m.f", "m.g"),
        ValueError,
        ["'mail' is the name of the job m.f already", "m.g needs another one"],
    ),
    (
        store_errors.TaskInterrupted("m.f"),
        RuntimeError,
        ["process that ran m.f has died", "guarantee is not 'at_least_once'"],
    ),
    (
        store_errors.StoreUnavailable("sqlite:///t.db", "disk full"),
        ConnectionError,
        ["sqlite:///t.db is not available (disk full)", "try again later"],
    ),
    (
        store_errors.StoreRefused("mysql://x", "mysql is not supported"),
        ValueError,
        ["EXECUTOR_STORE = 'mysql://x' cannot be used: mysql is not supported"],
    ),
    (
        store_errors.TaskForgotten("m.f", "abc"),
        LookupError,
        ["The store knows m.f (abc) no more", "EXECUTOR_STORE_KEEP"],
    ),
    (
        store_errors.RetryRefused("abc", "m.f", "it has not ended"),
        ValueError,
        ["Task abc (m.f) cannot be run again: it has not ended"],
    ),
    (
        errors.UnknownTask("abc"),
        LookupError,
        ["There is no task 'abc'", "executor.tasks()"],
    ),
    (
        errors.StatusRefused("there is no request. Call it in a view"),
        RuntimeError,
        ["No status URL was made: there is no request. Call it in a view."],
    ),
    (
        errors.UnknownWorker("abc"),
        LookupError,
        ["There is no process 'abc', or it has ended", "executor.workers()"],
    ),
    (
        store_errors.NoAnswer("host:7", "stacks", 10.0),
        TimeoutError,
        [
            *("Process host:7 has not told its stacks within 10 seconds",),
            *("a sixth of EXECUTOR_STORE_LEASE", "give it more time"),
        ],
    ),
    (
        store_errors.StoreLocked("m.f", "sqlite:///t.db"),
        RuntimeError,
        ["m.f was not accepted", "sqlite:///t.db", "Commit", "session=db.session"],
    ),
    (
        store_errors.SessionRefused("sqlite:///t.db", "sqlite:///u.db", "it differs"),
        ValueError,
        ["session of sqlite:///u.db", "the store is sqlite:///t.db", "it differs"],
    ),
    (
        store_errors.SchemaMismatch("sqlite:///t.db", 1, 2),
        RuntimeError,
        ["sqlite:///t.db have version 1", "version 2", "flask executor store upgrade"],
    ),
    (
        store_errors.JobNotStorable("m.f", "it is not declared"),
        ValueError,
        ["Tasks of m.f cannot be saved: it is not declared", "by its name"],
    ),
]
IDS = [type(error).__name__ for error, *_ in CASES]


@pytest.mark.parametrize(("error", "builtin", "words"), CASES, ids=IDS)
def test_it_says_what_to_do(
    error: Exception, builtin: type[Exception], words: list[str]
) -> None:
    """It is the builtin people catch, and holds the value, the rule, the next step."""
    assert isinstance(error, builtin)
    for word in words:
        assert word in str(error)


@pytest.mark.parametrize("error", [error for error, *_ in CASES], ids=IDS)
def test_it_travels(error: Exception) -> None:
    """It keeps its message and its facts when copied or pickled."""
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)


def test_the_app_is_named() -> None:
    """An app that the executor does not know is in the message."""
    assert "<Flask 'shop'>" in str(errors.ExecutorNotInitialized(Flask("shop")))


def test_all_are_importable_from_the_package() -> None:
    """Every exception is a name of the package, and tested here."""
    own = {
        name: value
        for module in (errors, pool_errors, run_errors, store_errors)
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    }
    assert own.keys() == set(IDS)
    assert own.keys() <= set(flask_executor.__all__)
    exported: t.Any = flask_executor
    assert all(getattr(exported, name) is value for name, value in own.items())
