"""Why a task does not run: a pure function from facts to a code and a sentence.

The rules are asked in order. The first one that applies is the reason.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

_MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a task, and of what may be in its way."""

    name: str
    state: str
    error_class: str | None = None
    attempt: int = 0
    cancel: bool = False
    """It was asked to stop."""
    away: str | None = None
    """Why the store is not available."""
    uncommitted: bool = False
    """Its row is not visible: the transaction that inserts it is open."""
    locked: bool = False
    """Another transaction has locked its row, or the whole file."""
    due_in: float | None = None
    """Seconds until it is due."""
    job: str | None = None
    paused: bool = False
    process: str | None = None
    """The other process that has it: host and process id; None: this one, or none."""
    is_lost: bool = False
    """The process that has it is dead."""
    runners: int | None = None
    """How many processes run saved tasks; None: one process has it already."""
    knowing: int = 0
    """How many of these know its job."""
    limit: int | None = None
    """``max_concurrency`` of its job, if that is reached."""
    limit_reached: bool = False
    limited_by: t.Sequence[str] = ()
    """The tasks that run under that limit, by name."""
    slots: int | None = None
    """How many workers there are, if none of them is free."""
    is_busy: bool = False
    busy_with: t.Sequence[str] = ()
    """What runs, by name."""
    ahead: int = 0
    """How many tasks come before it."""


@dataclass(frozen=True)
class Reason:
    """Why a task does not run; ``str()`` of it is the sentence.

    .. versionadded:: 2.0
    """

    code: str
    """One of the codes that are listed in :doc:`/howto/tasks`."""
    sentence: str
    """The same for people. It has names of tasks, and no keys, arguments or errors."""
    facts: dict[str, t.Any] = field(default_factory=dict)
    """The values in the sentence, by name."""

    def __str__(self) -> str:
        return self.sentence


def explain(facts: Facts) -> Reason:
    """Return why a task does not run."""
    for rule in _RULES:
        if (reason := rule(facts)) is not None:
            return reason
    return Reason("next", "Nothing is in its way: it begins at once.")


def _ended(facts: Facts) -> Reason | None:
    sentence = _ENDED.get(facts.state)
    if sentence is None:
        return None
    with_error = f" with {facts.error_class}" if facts.error_class else ""
    shown = {"state": facts.state, "error_class": facts.error_class}
    return Reason("ended", f"It has ended: {sentence}{with_error}.", shown)


def _runs(facts: Facts) -> Reason | None:
    if facts.state != "running":
        return None
    shown = {"attempt": facts.attempt, "process": facts.process}
    where = f" in process {facts.process}" if facts.process else ""
    if facts.cancel:
        return Reason(
            "stopping", f"It was asked to stop, and still runs{where}.", shown
        )
    number = f" This is attempt {facts.attempt}." if facts.attempt > 1 else ""
    return Reason("running", f"It runs{where}.{number}", shown)


def _store_is_away(facts: Facts) -> Reason | None:
    if facts.away is None:
        return None
    sentence = f"The store is away ({facts.away}). It goes on when that is back."
    return Reason("store_away", sentence, {"reason": facts.away})


def _is_uncommitted(facts: Facts) -> Reason | None:
    if not facts.uncommitted:
        return None
    sentence = "The transaction that submitted it is not committed, or was rolled back."
    return Reason("transaction", sentence, {"committed": False})


def _waits_for_its_time(facts: Facts) -> Reason | None:
    if facts.state not in ("delayed", "retrying") or (facts.due_in or 0.0) <= 0:
        return None
    wait = max(0.0, facts.due_in or 0.0)
    shown: dict[str, t.Any] = {"seconds": wait}
    if facts.state == "delayed":
        return Reason("delayed", f"It is not due: that is in {_time(wait)}.", shown)
    shown["attempt"] = facts.attempt + 1
    sentence = f"Attempt {facts.attempt} has failed; the next one is in {_time(wait)}."
    return Reason("retrying", sentence, shown)


def _is_paused(facts: Facts) -> Reason | None:
    if not facts.paused:
        return None
    sentence = (
        f"The job {facts.job} is paused; executor.resume({facts.job!r}) ends that."
    )
    return Reason("paused", sentence, {"job": facts.job})


def _is_lost(facts: Facts) -> Reason | None:
    if not facts.is_lost:
        return None
    sentence = f"Process {facts.process} had it, and is dead. Others take it up soon."
    return Reason("lost", sentence, {"process": facts.process})


def _nobody_runs(facts: Facts) -> Reason | None:
    if facts.runners != 0:
        return None
    sentence = "No process is there that runs saved tasks: start a server or a worker."
    return Reason("no_process", sentence)


def _nobody_knows(facts: Facts) -> Reason | None:
    if facts.runners is None or facts.knowing:
        return None
    who = f"None of {facts.runners} processes that run saved tasks knows"
    if facts.runners == 1:
        who = "The process that runs saved tasks does not know"
    sentence = f"{who} the job {facts.job}."
    shown = {"job": facts.job, "processes": facts.runners}
    return Reason("unknown_job", sentence, shown)


def _is_locked(facts: Facts) -> Reason | None:
    if not facts.locked:
        return None
    sentence = (
        "Another transaction of the database holds it: somebody must commit that."
    )
    return Reason("transaction", sentence, {"committed": True})


def _limit_is_full(facts: Facts) -> Reason | None:
    if not facts.limit_reached:
        return None
    most = "no more than max_concurrency" if facts.limit is None else facts.limit
    sentence = f"Its job runs {most} at once{_in(facts)}"
    shown = {"job": facts.job, "limit": facts.limit, "by": [*facts.limited_by]}
    these = f", and these run: {_names(facts.limited_by)}" if facts.limited_by else ""
    return Reason("limit", f"{sentence}{these}.", shown | {"process": facts.process})


def _pool_is_busy(facts: Facts) -> Reason | None:
    if not facts.is_busy:
        return None
    count = "All workers" if facts.slots is None else _workers(facts.slots)
    sentence = f"{count}{_in(facts)} are busy"
    if facts.slots == 1:
        sentence = f"The worker{_in(facts)} is busy"
    sentence += f" with {_names(facts.busy_with)}" if facts.busy_with else ""
    sentence += f"; {_before(facts.ahead)}" if facts.ahead else ""
    shown = {"slots": facts.slots, "with": [*facts.busy_with], "ahead": facts.ahead}
    return Reason("busy", sentence + ".", shown | {"process": facts.process})


def _others_come_first(facts: Facts) -> Reason | None:
    if not facts.ahead:
        return None
    before = _before(facts.ahead)
    sentence = f"{before[0].upper()}{before[1:]}{_in(facts)}."
    return Reason("ahead", sentence, {"ahead": facts.ahead, "process": facts.process})


_ENDED = {
    "succeeded": "it has succeeded",
    "failed": "it has failed",
    "timed_out": "its timeout was over",
    "cancelled": "it was cancelled",
    "interrupted": "its process has died",
}
_RULES = (
    _ended,
    _runs,
    _store_is_away,
    _is_uncommitted,
    _waits_for_its_time,
    _is_paused,
    _is_lost,
    _nobody_runs,
    _nobody_knows,
    _is_locked,
    _limit_is_full,
    _pool_is_busy,
    _others_come_first,
)


def _in(facts: Facts) -> str:
    return f" in process {facts.process}" if facts.process else ""


def _workers(slots: int) -> str:
    return "Both workers" if slots == 2 else f"All {slots} workers"


def _before(ahead: int) -> str:
    return "1 task comes first" if ahead == 1 else f"{ahead} tasks come first"


def _names(names: t.Sequence[str]) -> str:
    named = ", ".join(names[:_MOST_NAMED])
    left = len(names) - _MOST_NAMED
    return f"{named} and {left} more" if left > 0 else named


def _time(seconds: float) -> str:
    """Return a number of seconds for people."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if round(seconds) >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return "1 second" if f"{seconds:.0f}" == "1" else f"{seconds:.0f} seconds"
