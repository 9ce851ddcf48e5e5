"""Overview: how much there is of everything, what runs now, and what needs a look."""

from __future__ import annotations

import math
import typing as t
from collections import Counter
from datetime import datetime, timedelta

from werkzeug.wrappers import Response

from ....unclaimed import Unclaimed
from ....verbs.records import BUCKETS, MinuteStatistics
from ..charts import Bar, bars
from ..rendering import page
from ..site import Site
from ..words import FAILURES, duration, number

LIMIT = 10_000
"""The highest number that tasks are counted to."""
_MINUTES = 60
_RUNNING = 25
_KINDS = {"succeeded": "good", "cancelled": "off"}


class Warning(t.NamedTuple):
    """Something that somebody should look at."""

    title: str
    sentence: str


def view(site: Site) -> Response:
    """Show the overview."""
    executor = site.executor
    found: list[MinuteStatistics] = executor.statistics(minutes=_MINUTES)
    facts: dict[str, t.Any] = {
        "counts": executor.counts(limit=LIMIT),
        "limit": LIMIT,
        "running": executor.tasks(state="running", limit=_RUNNING),
        "waits": _oldest(executor.oldest_wait()),
        "warnings": [*_overran(site), *_unknown(site)],
        "ended": _ended(found, site.now),
        "totals": _totals(found),
        "wait": _histogram([one.waits for one in found], "How long tasks waited"),
        "run": _histogram([one.runs for one in found], "How long tasks ran"),
        "mean_wait": _mean(found, "wait_sum", "waits"),
        "mean_run": _mean(found, "run_sum", "runs"),
    }
    return page(site, "overview.html", **facts)


def _oldest(seconds: float | None) -> str:
    if seconds is None:
        return "Nothing waits."
    return f"The task that waits longest has waited for {duration(seconds)}."


def _overran(site: Site) -> t.Iterator[Warning]:
    """Tell of threads of this process that hang; of others, their pages tell."""
    late = [one for one in site.executor.stacks() if one.overran]
    if late:
        names = ", ".join(sorted({one.task_name or "a task" for one in late}))
        title = f"{len(late)} thread{'s' * (len(late) > 1)} past the timeout:"
        yield Warning(title, f"{names}. See Workers, Threads.")


def _unknown(site: Site) -> t.Iterator[Warning]:
    """Tell of jobs that wait, and that no process knows that could run them."""
    if not site.knows_all:
        return
    names = ", ".join(Unclaimed.of(site.executor, site.workers).unknown)
    if names:
        sentence = f"{names}. Their tasks wait until one that does is started."
        yield Warning("Jobs that no process knows:", sentence)


def _ended(found: t.Sequence[MinuteStatistics], now: datetime) -> str:
    """Draw how many have ended in each minute."""
    last = now.replace(second=0, microsecond=0)
    minutes = [last - timedelta(minutes=back) for back in range(_MINUTES)][::-1]
    counts: Counter[tuple[datetime, str]] = Counter()
    for one in found:
        counts[one.minute, _KINDS.get(one.end, "bad")] += one.count
    drawn = [_minute(minute, counts) for minute in minutes]
    return bars(drawn, f"Tasks that ended in each minute: {_totals(found)}")


def _minute(minute: datetime, counts: Counter[tuple[datetime, str]]) -> Bar:
    parts = [(kind, counts[minute, kind]) for kind in ("good", "bad", "off")]
    good, bad, off = (size for _, size in parts)
    at = f"{minute:%H:%M}"
    title = f"{at}: {good} succeeded, {bad} failed, {off} cancelled"
    return Bar(parts, title, at if minute.minute % 15 == 0 else "")


def _totals(found: t.Sequence[MinuteStatistics]) -> str:
    ended = sum(one.count for one in found)
    failed = sum(one.count for one in found if one.end in FAILURES)
    return f"{number(ended)} in all, {number(failed)} of them failed"


def _mean(found: t.Sequence[MinuteStatistics], sums: str, counts: str) -> str:
    count = sum(sum(getattr(one, counts)) for one in found)
    if not count:
        return ""
    return f"{duration(sum(getattr(one, sums) for one in found) / count)} on average"


def _histogram(rows: t.Sequence[t.Sequence[int]], label: str) -> str:
    """Draw how many tasks took how long, from the shortest to the longest."""
    sums = [sum(column) for column in zip(*rows, strict=True)]
    used = [i for i, count in enumerate(sums) if count]
    if not used:
        return bars([], f"{label}: nothing has ended in the last hour.")
    # At least some bars, so that a single one is not as wide as the page.
    first = max(min(used[0], used[-1] - 11), 0)
    last = max(used[-1], first + 11)
    every = max(2, (last - first) // 5)
    drawn = [_column(i, sums[i], i % every == 0) for i in range(first, last + 1)]
    most = max(used, key=lambda i: sums[i])
    return bars(drawn, f"{label}: most of them {_below(most)}.")


def _column(i: int, count: int, has_word: bool) -> Bar:
    word = _short(BUCKETS[i]) if has_word and not math.isinf(BUCKETS[i]) else ""
    return Bar([("plain", count)], f"{_below(i)}: {number(count)}", word)


def _below(i: int) -> str:
    if math.isinf(BUCKETS[i]):
        return f"{_short(BUCKETS[i - 1])} and more"
    return f"below {_short(BUCKETS[i])}"


def _short(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds * 1000:.0f} ms"
