"""The executor as users of Flask-Executor 1.0.0 know it: names, verbs and keywords."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import threading
import typing as t
from functools import partial
from unittest import mock

import pytest
from callables import echo
from flask import Flask, request
from limits import LIMIT

from flask_executor import (
    DuplicateKey,
    Executor,
    InvalidName,
)

WORDS = {"fn": 1, "self": 2, "timeout": 3, "future_key": 4, "key": 5}


def test_names_of_1_0_0() -> None:
    """Everything that 1.0.0 exported is where it was."""
    from flask_executor.executor import Executor as SameExecutor
    from flask_executor.executor import ExecutorJob
    from flask_executor.futures import Future, FutureCollection, FutureProxy
    from flask_executor.helpers import InstanceProxy, str2bool

    assert SameExecutor is Executor and Future is concurrent.futures.Future
    for name in (ExecutorJob, FutureCollection, FutureProxy, InstanceProxy, str2bool):
        assert callable(name)


@pytest.mark.parametrize("name", ["with space", "dash-ed", "dot.ted", None])
def test_names(name: t.Any) -> None:
    """A name of anything but letters, digits and underscores is refused."""
    with pytest.raises(InvalidName, match="letters, digits and underscores") as info:
        Executor(name=name)
    assert isinstance(info.value, ValueError)


def test_a_name_is_ascii() -> None:
    """A name becomes part of config keys: a trailing newline is no letter."""
    for name in ("mail\n", "é", "a b"):
        with pytest.raises(ValueError, match="cannot name an executor"):
            Executor(name=name)


def test_named_executor(app: Flask) -> None:
    """A name stands before the config keys and in app.extensions."""
    app.config["MAIL_1_EXECUTOR_MAX_WORKERS"] = "3"
    mail = Executor(app, name="mail_1")
    assert app.extensions["mail_1executor"] is mail
    assert mail._max_workers == 3
    mail.shutdown()


def test_keywords_belong_to_the_callable(executor: Executor) -> None:
    """fn, self, timeout, future_key and key reach the callable."""
    job = executor.job(echo)
    for future in (
        executor.submit(echo, 1, **WORDS),
        executor.submit_stored("a", echo, 1, **WORDS),
        job.submit(1, **WORDS),
        job.submit_stored("b", 1, **WORDS),
    ):
        assert future.result(LIMIT) == ((1,), WORDS)


def test_keywords_of_coroutines_and_sync_calls(app: Flask, executor: Executor) -> None:
    """A coroutine function and a call at once get their keywords whole as well."""

    async def take(**kwargs: int) -> dict[str, int]:
        return kwargs

    app.config["NOW_EXECUTOR_TYPE"] = "sync"
    for each in (executor, Executor(app, name="now")):
        assert each.submit(take, **WORDS).result(LIMIT) == WORDS
        assert each.submit_stored("k", take, **WORDS).result(LIMIT) == WORDS
        assert each.submit(echo, **WORDS).result(LIMIT) == ((), WORDS)
        each.shutdown()


def test_submit_does_not_wait(executor: Executor, gate: threading.Event) -> None:
    """A submit returns while its call still runs."""
    future = executor.submit(gate.wait, LIMIT)
    assert not future.done()
    gate.set()
    assert future.result(LIMIT) is True


def test_coroutine_functions(app: Flask, executor: Executor) -> None:
    """Coroutine functions are tasks like any other, mapped ones too."""

    async def path(suffix: str = "") -> str:
        await asyncio.sleep(0)
        return request.path + suffix

    with app.test_request_context("/co"):
        assert executor.submit(path).result(LIMIT) == "/co"
        assert executor.submit(partial(path, "!")).result(LIMIT) == "/co!"
        assert list(executor.map(path, "abc", chunksize=2)) == ["/coa", "/cob", "/coc"]


def test_threads_carry_the_name(app: Flask) -> None:
    """Worker threads are named after the executor."""
    executor = Executor(app, name="mail")
    name = executor.submit(lambda: threading.current_thread().name).result(LIMIT)
    assert name.startswith("mail-executor")
    executor.shutdown()


def test_thread_names(app: Flask, executor: Executor) -> None:
    """Workers and the event loop's thread carry the executor's name."""

    async def loop_name() -> str:
        return threading.current_thread().name

    mail = Executor(app, name="mail")
    for each, prefix in ((executor, "executor"), (mail, "mail-executor")):
        name = each.submit(lambda: threading.current_thread().name).result(LIMIT)
        assert name == f"{prefix}_0"
        assert each.submit(loop_name).result(LIMIT) == f"{prefix}_loop"
    mail.shutdown()


@pytest.mark.holds("g-key-taken")
def test_taken_key_schedules_nothing(executor: Executor) -> None:
    """A taken key is refused before anything runs, and is in the message."""
    executor.submit_stored("key", echo).result(LIMIT)
    ran = mock.Mock()
    with pytest.raises(DuplicateKey, match="'key' is taken"):
        executor.submit_stored("key", ran)
    executor.shutdown()
    ran.assert_not_called()


@pytest.mark.holds("g-key-taken")
def test_two_threads_race_for_a_key(app: Flask, executor: Executor) -> None:
    """Of two racing threads one gets the key; only its call runs."""
    ran: list[int] = []
    barrier = threading.Barrier(8)
    refused: list[DuplicateKey] = []

    def race() -> None:
        barrier.wait(LIMIT)
        try:
            executor.submit_stored("key", ran.append, 1)
        except DuplicateKey as error:
            refused.append(error)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    executor.shutdown()
    assert (len(ran), len(refused)) == (1, 7)


def test_mock_and_own_attributes(executor: Executor) -> None:
    """submit_stored can be patched, and attributes of one's own stay."""
    executor.mine = 1  # type: ignore[attr-defined]
    with mock.patch.object(executor, "submit_stored") as patched:
        executor.submit_stored("key", echo)
    patched.assert_called_once_with("key", echo)
    assert executor.mine == 1  # type: ignore[attr-defined]


def test_own_attributes(executor: Executor) -> None:
    """Attributes are set, read and deleted on the executor, not on its pool."""
    mine: t.Any = executor
    mine.flavour = "plain"
    assert mine.flavour == "plain" and not hasattr(executor._self, "flavour")
    del mine.flavour
    assert not hasattr(mine, "flavour")


def test_patching(executor: Executor) -> None:
    """Every verb can be patched by name."""
    for name in ("submit", "submit_stored", "map", "shutdown", "job"):
        with mock.patch.object(executor, name) as patched:
            getattr(executor, name)("k", echo)
        patched.assert_called_once_with("k", echo)
    assert executor.submit(abs, -1).result(LIMIT) == 1


def test_autospec(executor: Executor) -> None:
    """A mock with the executor's spec has the executor's own verbs."""
    spec = mock.create_autospec(executor)
    assert isinstance(spec, Executor)
    spec.submit_stored("k", echo, 1)
    spec.submit_stored.assert_called_once_with("k", echo, 1)
    assert {"submit_stored", "job", "futures", "init_app"} <= set(dir(executor))


def test_the_registry_can_be_patched(executor: Executor) -> None:
    """executor.futures can be replaced for a while, as the attribute it was."""
    before = executor.futures
    with mock.patch.object(executor, "futures") as patched:
        executor.futures.done("k")
    patched.done.assert_called_once_with("k")
    assert executor.futures is before


def test_an_executor_does_not_travel(executor: Executor) -> None:
    """Pickling an executor is an error at once, not half of an executor."""
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(executor)
    assert executor.submit(abs, -1).result(LIMIT) == 1


def test_representation(app: Flask, executor: Executor) -> None:
    """It names itself and its app."""
    mail = Executor(app, name="mail")
    assert repr(mail) == "<Executor 'mail' of <Flask 'tests'>>"
    assert repr(Executor(name="idle")) == "<Executor 'idle' of None>"
    mail.shutdown()
