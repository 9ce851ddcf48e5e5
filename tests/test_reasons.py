"""Why a task does not run: the rules by themselves, from facts to a sentence."""

from __future__ import annotations

import json
import typing as t

import pytest

from flask_executor.verbs.reasons import Facts, explain

CASES: list[tuple[dict[str, t.Any], str, str]] = [
    ({"state": "succeeded"}, "ended", "It has ended: it has succeeded."),
    (
        {"state": "failed", "error_class": "KeyError"},
        "ended",
        "It has ended: it has failed with KeyError.",
    ),
    ({"state": "timed_out"}, "ended", "It has ended: its timeout was over."),
    ({"state": "cancelled"}, "ended", "It has ended: it was cancelled."),
    ({"state": "interrupted"}, "ended", "It has ended: its process has died."),
    ({"state": "running", "attempt": 1}, "running", "It runs."),
    (
        {"state": "running", "attempt": 2, "process": "web:7"},
        "running",
        "It runs in process web:7. This is attempt 2.",
    ),
    (
        {"state": "running", "cancel": True},
        "stopping",
        "It was asked to stop, and still runs.",
    ),
    (
        {"away": "connection refused"},
        "store_away",
        "The store is away (connection refused). It goes on when that is back.",
    ),
    (
        {"uncommitted": True},
        "transaction",
        "The transaction that submitted it is not committed, or was rolled back.",
    ),
    (
        {"state": "delayed", "due_in": 61.0},
        "delayed",
        "It is not due: that is in 61 seconds.",
    ),
    (
        {"state": "delayed", "due_in": 7200.0},
        "delayed",
        "It is not due: that is in 2 hours.",
    ),
    (
        {"state": "delayed", "due_in": 3e5},
        "delayed",
        "It is not due: that is in 3 days.",
    ),
    (
        {"state": "retrying", "due_in": 1.0, "attempt": 2},
        "retrying",
        "Attempt 2 has failed; the next one is in 1 second.",
    ),
    (
        {"paused": True, "job": "mail"},
        "paused",
        "The job mail is paused; executor.resume('mail') ends that.",
    ),
    (
        {"is_lost": True, "process": "web:7"},
        "lost",
        "Process web:7 had it, and is dead. Others take it up soon.",
    ),
    (
        {"runners": 0},
        "no_process",
        "No process is there that runs saved tasks: start a server or a worker.",
    ),
    (
        {"runners": 1, "job": "mail"},
        "unknown_job",
        "The process that runs saved tasks does not know the job mail.",
    ),
    (
        {"runners": 3, "job": "mail"},
        "unknown_job",
        "None of 3 processes that run saved tasks knows the job mail.",
    ),
    (
        {"runners": 1, "knowing": 1, "locked": True},
        "transaction",
        "Another transaction of the database holds it: somebody must commit that.",
    ),
    (
        {"limit_reached": True, "limit": 2, "limited_by": ["a", "b"]},
        "limit",
        "Its job runs 2 at once, and these run: a, b.",
    ),
    (
        {"limit_reached": True, "process": "web:7"},
        "limit",
        "Its job runs no more than max_concurrency at once in process web:7.",
    ),
    (
        {"is_busy": True, "slots": 4, "busy_with": [*"abcde"], "ahead": 2},
        "busy",
        "All 4 workers are busy with a, b, c and 2 more; 2 tasks come first.",
    ),
    (
        {"is_busy": True, "slots": 1, "busy_with": ["a"], "process": "web:7"},
        "busy",
        "The worker in process web:7 is busy with a.",
    ),
    ({"is_busy": True, "slots": 2}, "busy", "Both workers are busy."),
    ({"ahead": 1}, "ahead", "1 task comes first."),
    ({"ahead": 5, "process": "web:7"}, "ahead", "5 tasks come first in process web:7."),
    ({}, "next", "Nothing is in its way: it begins at once."),
    (
        {"state": "delayed", "due_in": -0.1},
        "next",
        "Nothing is in its way: it begins at once.",
    ),
]


@pytest.mark.parametrize(("facts", "code", "sentence"), CASES)
def test_each_reason_has_a_code_and_a_sentence(
    facts: dict[str, t.Any], code: str, sentence: str
) -> None:
    """The values in the sentence are facts of the reason, which JSON can carry."""
    reason = explain(Facts(**({"name": "mail", "state": "waiting"} | facts)))
    assert (reason.code, str(reason)) == (code, sentence)
    assert json.loads(json.dumps(reason.facts)) == reason.facts


def test_the_first_rule_that_applies_counts() -> None:
    """What ends a wait for certain comes before what may only be slow."""
    everything = {
        "away": "x",
        "uncommitted": True,
        "due_in": 5.0,
        "paused": True,
        "is_lost": True,
        "runners": 0,
        "locked": True,
        "limit_reached": True,
        "is_busy": True,
        "ahead": 1,
    }
    gone = ["away", "uncommitted", "due_in", "paused", "is_lost", "runners", "locked"]
    gone += ["limit_reached", "is_busy", "ahead"]
    codes = []
    facts: dict[str, t.Any] = {"name": "mail", "state": "retrying"} | everything
    for name in gone:
        codes.append(explain(Facts(**facts)).code)
        del facts[name]
        facts["knowing"] = 1
    assert codes == [
        "store_away",
        "transaction",
        "retrying",
        "paused",
        "lost",
        "no_process",
        "transaction",
        "limit",
        "busy",
        "ahead",
    ]
    for state in ("running", "succeeded"):
        assert explain(Facts(name="mail", state=state, paused=True)).code != "paused"
