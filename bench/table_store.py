"""The measures of the store; each side imports what it needs."""

from __future__ import annotations

from sides import (
    Round,
    in_request,
    make_executor,
    measure,
    windowed,
)


@measure
def durable(side: str) -> Round:
    """One durable submit, from one thread."""
    import stored

    return stored.submits(stored.side(side))


@measure
def durable_32(side: str) -> Round:
    """One durable submit, from 32 threads or from one."""
    import stored

    kind, _, who = side.partition("-")
    one = stored.side(f"{kind}-million" if who == "million" else kind)
    return stored.submits(one, 1 if who == "one" else 32)


@measure
def durable_read(side: str) -> Round:
    """One look at the state of a task by its key."""
    import stored

    return stored.reads(stored.side(side))


@measure
def ended(side: str) -> Round:
    """One durable task, from its submit to its end, among many of one process."""
    import stored

    return stored.ends(stored.side(side, runs=True))


@measure
def started(side: str) -> Round:
    """From the submit of a task until it begins in another process."""
    import stored

    return stored.starts(side)


@measure
def beside_store(side: str) -> Round:
    """Submit to result of a task that is not saved, with a store or without."""
    import databases

    config = {"EXECUTOR_STORE": databases.url_of("sqlite")} if side == "store" else {}
    one = make_executor("thread", **config).submit
    return in_request(one, lambda: windowed(one, 5_000))


@measure
def synced(side: str) -> Round:
    """One write to the disk of a database, synced."""
    import disk

    return disk.syncs(side)
