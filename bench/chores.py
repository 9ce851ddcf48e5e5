"""What the tasks of the soak do; worker processes import it.

Most take the number of their task and give it back, so that a result that went to the
wrong future shows.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time

from flask import Flask, request

from flask_executor import current_task

PATIENCE = 60
"""Seconds after which a task that waits to be stopped gives up; it is then a loss."""

BLOCK = 50
"""How many tasks are submitted from one request."""


class Boom(Exception):
    """What tasks fail with."""


def make_app() -> Flask:
    """The app of the worker processes."""
    app = Flask("soak")
    app.secret_key = "soak"
    return app


def echo(number: int) -> int:
    """Succeed."""
    return number


def see_request(number: int) -> int:
    """Succeed where the request is that of the submitter."""
    return number if request.args["block"] == str(number // BLOCK) else -1


def fail(number: int) -> int:
    """Fail."""
    raise Boom(number)


def recover(number: int) -> int:
    """Fail in the first attempt only."""
    if current_task.attempt == 1:
        raise Boom(number)
    return number


def stay(number: int) -> int:
    """Run for longer than the timeout is, and return all the same."""
    time.sleep(0.02)
    return number


def go_on(number: int) -> int:
    """Run until asked to stop."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        current_task.raise_if_cancelled()
        time.sleep(0.002)
    return -1


def count_up(number: int) -> int:
    """Succeed, with progress."""
    return sum(1 for _ in current_task.track(range(3))) - 3 + number


def die(number: int) -> int:
    """Kill the worker process."""
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    return -1


def die_once(number: int) -> int:
    """Kill the worker process in the first attempt only."""
    return die(number) if current_task.attempt == 1 else number


async def a_echo(number: int) -> int:
    """Succeed, as a coroutine."""
    return number


async def a_nap(number: int) -> int:
    """Succeed after a moment."""
    await asyncio.sleep(0.001)
    return number


async def a_see_request(number: int) -> int:
    """Succeed where the request is that of the submitter."""
    await asyncio.sleep(0)
    return see_request(number)


async def a_fail(number: int) -> int:
    """Fail, as a coroutine."""
    await asyncio.sleep(0)
    raise Boom(number)


async def a_recover(number: int) -> int:
    """Fail in the first attempt only."""
    return recover(number)


async def a_go_on(number: int) -> int:
    """Run until cancelled."""
    await asyncio.sleep(PATIENCE)
    return -1


async def a_second_time(number: int) -> int:
    """Run into the timeout in the first attempt only."""
    if current_task.attempt == 1:
        await asyncio.sleep(PATIENCE)
    return number


async def a_count_up(number: int) -> int:
    """Succeed, with progress."""
    return count_up(number)


def stay_once(number: int) -> int:
    """Run into the timeout in the first attempt only, where a run can be killed."""
    if current_task.attempt == 1:
        time.sleep(PATIENCE)
    return number


def sleep_on(number: int) -> int:
    """Run on, without ever asking: until killed."""
    time.sleep(PATIENCE)
    return -1


# Jobs, which a worker process imports by their names: one function for each executor.


def process_crowd(number: int) -> int:
    """Succeed."""
    return number


def process_crowd_recovers(number: int) -> int:
    """Fail in the first attempt only."""
    return recover(number)


def pebble_crowd(number: int) -> int:
    """Succeed."""
    return number


def pebble_crowd_recovers(number: int) -> int:
    """Fail in the first attempt only."""
    return recover(number)
