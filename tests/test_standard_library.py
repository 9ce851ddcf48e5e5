"""An executor wherever the standard library's own, and what is built on it, can be."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import typing as t
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from flask import Flask, request
from limits import LIMIT

from flask_executor import (
    Executor,
)

pytest_plugins = ["pytester"]


@pytest.mark.holds("g-stdlib")
def test_it_answers_for_its_pool(executor: Executor) -> None:
    """isinstance and the pool's attributes hold before the pool has started."""
    assert isinstance(executor, ThreadPoolExecutor)
    assert isinstance(executor, concurrent.futures.Executor)
    assert isinstance(executor, Executor)
    assert executor._threads == set()
    assert executor._shutdown is False
    assert executor._work_queue.qsize() == 0
    assert executor._self._max_workers == 4
    with pytest.raises(AttributeError):
        executor.nonsense  # noqa: B018


@pytest.mark.holds("g-stdlib")
def test_it_answers_for_a_process_pool(app: Flask) -> None:
    """The same where the type is process; nothing has started."""
    app.config["EXECUTOR_TYPE"] = "Process"
    executor = Executor(app)
    assert isinstance(executor, ProcessPoolExecutor)
    assert executor._processes == {}
    executor.shutdown()


def test_attributes_of_the_pool_while_it_works(
    executor: Executor, gate: threading.Event
) -> None:
    """_threads, _work_queue and _shutdown are the pool's own."""
    started = threading.Semaphore(0)
    for _ in range(6):
        executor.submit(lambda: (started.release(), gate.wait(LIMIT)))
    assert all(started.acquire(timeout=LIMIT) for _ in range(4))
    assert len(executor._threads) == 4 == executor._max_workers
    assert executor._work_queue.qsize() == 2
    assert executor._threads is executor._self._threads
    gate.set()
    executor.shutdown()
    assert executor._shutdown is True


@pytest.mark.holds("g-stdlib")
def test_wait_and_as_completed(executor: Executor) -> None:
    """The futures work with concurrent.futures' own functions."""
    futures = [executor.submit(abs, -n) for n in range(5)]
    done, pending = concurrent.futures.wait(futures, LIMIT)
    assert done == set(futures) and not pending
    results = [f.result() for f in concurrent.futures.as_completed(futures, LIMIT)]
    assert sorted(results) == list(range(5))


def test_wait_for_the_first_failure(executor: Executor, gate: threading.Event) -> None:
    """concurrent.futures.wait sees failures and cancellations."""
    running = executor.submit(gate.wait, LIMIT)
    failed = executor.submit(divmod, 1, 0)
    done, pending = concurrent.futures.wait(
        [running, failed], LIMIT, return_when=concurrent.futures.FIRST_EXCEPTION
    )
    assert done == {failed} and pending == {running}
    with pytest.raises(concurrent.futures.TimeoutError):
        list(concurrent.futures.as_completed([running], timeout=0))


@pytest.mark.holds("g-stdlib")
def test_asyncio(app: Flask, executor: Executor) -> None:
    """await future, wrap_future, run_in_executor and set_default_executor work."""

    async def main() -> list[t.Any]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(t.cast(ThreadPoolExecutor, executor))
        return [
            await executor.submit(abs, -1),
            await asyncio.wrap_future(executor.submit(abs, -2)),
            await loop.run_in_executor(executor, abs, -3),
            await asyncio.to_thread(abs, -4),
        ]

    assert asyncio.run(asyncio.wait_for(main(), LIMIT)) == [1, 2, 3, 4]


def test_run_in_executor_keeps_the_context(app: Flask, executor: Executor) -> None:
    """run_in_executor and to_thread from an async view see its request."""

    async def view() -> tuple[str, str]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(t.cast(ThreadPoolExecutor, executor))
        name = await loop.run_in_executor(None, lambda: request.path)
        return name, await asyncio.to_thread(lambda: request.path)

    with app.test_request_context("/async"):
        assert asyncio.run(asyncio.wait_for(view(), LIMIT)) == ("/async", "/async")


@pytest.mark.holds("g-stdlib")
def test_requests_futures(app: Flask, executor: Executor) -> None:
    """requests-futures takes the executor as its own."""
    from requests_futures.sessions import FuturesSession
    from werkzeug.serving import make_server

    app.add_url_rule("/", view_func=lambda: "hello")
    server = make_server("127.0.0.1", 0, app)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with FuturesSession(executor=executor) as session:
            response = session.get(f"http://127.0.0.1:{server.port}/")
            assert response.result(LIMIT).text == "hello"
    finally:
        server.shutdown()
        thread.join(LIMIT)
        server.server_close()


def test_with_pytest_flask(pytester: pytest.Pytester) -> None:
    """Inside pytest-flask's pushed request context the executor works as in a view."""
    pytester.makepyfile(
        """
        import pytest
        from flask import Flask, request
        from flask_executor import Executor

        @pytest.fixture
        def app():
            return Flask(__name__)

        def test_it(app):
            executor = Executor(app)
            assert executor.submit(lambda: request.path).result(30) == "/"
            executor.shutdown()
        """
    )
    pytester.runpytest_subprocess("-p", "flask").assert_outcomes(passed=1)
