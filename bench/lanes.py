"""What the soak has each pool do."""

from __future__ import annotations

import typing as t

import chores
from chores import Boom

from flask_executor.errors import TaskTimeout, WorkerLost
from flask_executor.options import Retry

SOON = Retry(attempts=3, delay=0.002)
TWICE = Retry(attempts=2, delay=0.0)
SLOWLY = Retry(attempts=3, delay=0.05)


class Kind(t.NamedTuple):
    """Tasks of one kind: what they do, how they may end, and how many there are.

    :param act: what becomes of each after its submit: ``'cancel'`` at once, or
        ``'ask'``, a request from another thread a little later.
    :param how: it is submitted by ``'submit'``, ``'stored'``, or as a ``'job'``.
    """

    chore: t.Callable[..., t.Any]
    ends: str
    weight: float
    options: dict[str, t.Any] = {}  # noqa: RUF012
    act: str = ""
    how: str = "submit"
    error: type[Exception] = Boom


def common(c: t.Any) -> list[Kind]:
    """What runs on every pool.

    :param c: has the chores, as functions or as coroutine functions.
    """
    return [
        Kind(c.echo, "succeeded", 700),
        Kind(c.see_request, "succeeded", 60),
        Kind(c.fail, "failed", 40),
        Kind(c.recover, "succeeded", 30, {"retry": SOON}),
        Kind(c.fail, "failed", 10, {"retry": TWICE, "name": "hopeless"}),
        Kind(c.echo, "succeeded", 30, {"timeout": 600}),
        Kind(c.echo, "succeeded", 10, how="stored"),
        Kind(c.count_up, "succeeded", 5),
    ]


def waiting(c: t.Any) -> list[Kind]:
    """What runs where tasks can wait."""
    hour = {"delay": 3600}
    return [
        Kind(c.echo, "succeeded", 20, {"priority": 50}),
        Kind(c.echo, "succeeded", 20, {"priority": -50}),
        Kind(c.echo, "succeeded cancelled", 20, act="cancel"),
        Kind(c.echo, "succeeded", 20, {"delay": 0.01}),
        Kind(c.echo, "cancelled", 5, hour, act="cancel"),
        Kind(c.echo, "cancelled", 2, hour, act="ask"),
        Kind(c.echo, "succeeded cancelled", 5, {"delay": 0.005}, act="ask"),
        Kind(c.fail, "failed cancelled", 5, {"retry": SLOWLY}, act="ask"),
        Kind(c.go_on, "cancelled", 1, act="ask"),
        Kind(c.go_on, "timed_out", 0.5, {"timeout": 0.01}),
    ]


def crowds(echo: t.Any, recover: t.Any) -> list[Kind]:
    """Jobs of which two tasks run at once."""
    two = {"max_concurrency": 2}
    return [
        Kind(echo, "succeeded", 10, two, how="job"),
        Kind(recover, "succeeded", 5, {**two, "retry": SOON}, how="job"),
    ]


def on_workers() -> list[Kind]:
    """What only a worker process survives, or does not."""
    return [
        Kind(chores.die, "failed", 2, error=WorkerLost),
        Kind(chores.die_once, "succeeded", 2, {"retry": SOON}),
    ]


class Coroutines:
    """The chores as coroutine functions."""

    echo = chores.a_echo
    see_request = chores.a_see_request
    fail = chores.a_fail
    recover = chores.a_recover
    count_up = chores.a_count_up
    go_on = chores.a_go_on


def FAMILY(number: int) -> int:
    """A task that submits three others and waits for them; the runner does it."""
    raise NotImplementedError


OVERRUN = Kind(chores.stay, "timed_out succeeded", 1, {"timeout": 0.005})
NEVER = {"timeout": 0.1}
SECOND_RUN = {"timeout": 1, "retry": Retry(attempts=2, delay=0.0, on=(TaskTimeout,))}
SECOND_SOON = {**SECOND_RUN, "timeout": 0.05}
SECOND = "succeeded timed_out"


class Lane(t.NamedTuple):
    """What one pool has to do.

    :param share: of all tasks.
    :param window: how many are outstanding at most.
    """

    kind: str
    share: float
    window: int
    workers: int
    kinds: list[Kind]
    config: dict[str, t.Any] = {}  # noqa: RUF012


LANES = {
    "thread": Lane(
        "thread",
        0.5,
        1000,
        8,
        [
            *common(chores),
            *waiting(chores),
            *crowds(chores.echo, chores.recover),
            OVERRUN,
            Kind(FAMILY, "succeeded", 5),
        ],
    ),
    "loop": Lane(
        "thread",
        0.345,
        1000,
        2,
        [
            *common(Coroutines),
            *waiting(Coroutines),
            *crowds(chores.a_echo, chores.a_recover),
            Kind(chores.a_nap, "succeeded", 100),
            Kind(chores.a_second_time, SECOND, 2, SECOND_SOON, how="job"),
        ],
    ),
    "process": Lane(
        "process",
        0.03,
        200,
        2,
        [
            *common(chores),
            *waiting(chores),
            *crowds(chores.process_crowd, chores.process_crowd_recovers),
            *on_workers(),
            OVERRUN,
        ],
    ),
    "pebble": Lane(
        "pebble",
        0.02,
        200,
        2,
        [
            *common(chores),
            *waiting(chores),
            *crowds(chores.pebble_crowd, chores.pebble_crowd_recovers),
            *on_workers(),
            Kind(chores.sleep_on, "timed_out", 1, NEVER),
            Kind(chores.sleep_on, "cancelled", 1, act="ask"),
            Kind(chores.stay_once, SECOND, 0.5, SECOND_RUN),
        ],
    ),
    "sync": Lane(
        "sync",
        0.105,
        1,
        1,
        [*common(chores), Kind(chores.a_echo, "succeeded", 5), OVERRUN],
    ),
}

AGAIN = {"guarantee": "at_least_once"}
ONCE = {"guarantee": "at_most_once"}
MAYBE = "succeeded interrupted"
LATE = {**AGAIN, "delay": 3600}
SAVED = [
    Kind(chores.echo, "succeeded", 300, AGAIN),
    Kind(chores.echo, MAYBE, 100, ONCE),
    Kind(chores.echo, "succeeded", 30, AGAIN, how="stored"),
    Kind(chores.echo, "succeeded", 30, how="stored"),
    Kind(chores.see_request, "succeeded", 30, AGAIN),
    Kind(chores.a_nap, "succeeded", 50, AGAIN),
    Kind(chores.stay, "succeeded", 100, AGAIN),
    Kind(chores.stay, MAYBE, 50, ONCE),
    Kind(chores.fail, "failed", 40, AGAIN),
    Kind(chores.fail, "failed interrupted", 10, ONCE),
    Kind(chores.fail, "failed", 10, {**AGAIN, "retry": TWICE}),
    Kind(chores.recover, "succeeded", 30, {**AGAIN, "retry": SOON}),
    Kind(chores.count_up, "succeeded", 20, AGAIN),
    Kind(chores.echo, "succeeded", 20, {**AGAIN, "priority": 50}),
    Kind(chores.echo, "succeeded", 20, {**AGAIN, "priority": -50}),
    Kind(chores.echo, "succeeded", 20, {**AGAIN, "delay": 0.05}),
    Kind(chores.echo, "succeeded cancelled", 20, AGAIN, act="cancel"),
    Kind(chores.echo, "cancelled", 5, LATE, act="cancel"),
    Kind(chores.echo, "cancelled", 5, LATE, act="ask"),
    Kind(chores.go_on, "cancelled", 5, AGAIN, act="ask"),
    Kind(chores.go_on, "timed_out", 5, {**AGAIN, "timeout": 0.05}),
    Kind(FAMILY, "succeeded", 10, AGAIN),
]
"""What is saved in a store, and runs in any of several processes."""
