"""The metrics in a registry of Prometheus: for all executors that are counted there."""

from __future__ import annotations

import os
import threading
import typing as t
import weakref

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily

from .counts import BOUNDS, Row

PREFIX = "flask_executor_"
_JOB = ("executor", "job")
_STORE = (
    ("store_up", "1 if the store has answered, otherwise 0", ()),
    ("store_tasks", "Saved tasks, at most 10,000 of each state", ("state",)),
    ("store_oldest_wait_seconds", "How long a task waits that is due", ()),
    ("store_workers", "Processes that are alive", ()),
)


class Source(t.Protocol):
    """One executor that is counted."""

    name: str
    """The name of the executor."""

    executor: weakref.ref[t.Any]
    """The executor."""

    def start(self) -> None:
        """Count from now on."""

    def update(self, families: Families) -> tuple[int, int]:
        """Hand over what has happened; return how many attempts run, and overrun."""

    def ask_store(self) -> t.Mapping[str, t.Any] | None:
        """Return what the store knows, or None if there is no store."""


class Families:
    """The metrics that are counted in this process.

    In the multiprocess mode of ``prometheus_client`` they lie in files that all
    processes read.
    """

    def __init__(self) -> None:
        def family(
            of: t.Any, name: str, text: str, *labels: str, **more: t.Any
        ) -> t.Any:
            return of(PREFIX + name, text, labels, registry=None, **more)

        self._submitted = family(
            Counter, "tasks_submitted", "Tasks that were accepted", *_JOB
        )
        self._ended = family(
            Counter, "tasks_ended", "Tasks that have ended", *_JOB, "state"
        )
        self._retried = family(
            Counter, "tasks_retried", "Attempts that another one followed", *_JOB
        )
        self._wait = family(
            *(Histogram, "task_wait_seconds", "From due to the first attempt", *_JOB),
            buckets=BOUNDS,
        )
        self._run = family(
            *(Histogram, "task_run_seconds", "How long attempts have run", *_JOB),
            buckets=BOUNDS,
        )
        live = {"multiprocess_mode": "livesum"}
        self._running = family(
            Gauge, "tasks_running", "Attempts that run now", "executor", **live
        )
        self._overrun = family(
            *(Gauge, "tasks_overrun", "Runs that go on after their timeout"),
            "executor",
            **live,
        )

    def add(self, executor: str, job: str, row: Row) -> None:
        """Add what has happened to the tasks of one job."""
        self._submitted.labels(executor, job).inc(row.submitted)
        self._retried.labels(executor, job).inc(row.retried)
        # With zeros: a counter that begins with its first failure shows no increase.
        for state, count in row.ended.items():
            self._ended.labels(executor, job, state).inc(count)
        _observe(self._wait.labels(executor, job), row.wait, row.waits)
        _observe(self._run.labels(executor, job), row.run, row.runs)

    def set_running(self, executor: str, running: int, overrun: int) -> None:
        """Set how many attempts run."""
        self._running.labels(executor).set(running)
        self._overrun.labels(executor).set(overrun)

    def collect(self) -> t.Iterator[Metric]:
        """Yield the metrics as they are."""
        for family in vars(self).values():
            yield from family.collect()


def _observe(histogram: t.Any, total: float, counts: list[int]) -> None:
    """Add many observations at once, for which Histogram has no method."""
    histogram._sum.inc(total)
    for bucket, count in zip(histogram._buckets, counts, strict=True):
        if count:
            bucket.inc(count)


class Shown:
    """What a registry shows of executors; each registry has one."""

    _made: t.ClassVar[weakref.WeakKeyDictionary[CollectorRegistry, Shown]] = (
        weakref.WeakKeyDictionary()
    )
    _making: t.ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self.families: Families = Families()
        self._sources: list[Source] = []
        self._renew()

    def _renew(self) -> None:
        # Reentrant: the garbage collector may come back in here on the same thread.
        self._updating = threading.RLock()
        self._pid = os.getpid()

    @classmethod
    def of(cls, registry: CollectorRegistry) -> Shown:
        """Return that of a registry; it is made and registered at first use."""
        with cls._making:
            if (found := cls._made.get(registry)) is None:
                found = cls._made[registry] = cls()
                registry.register(t.cast(t.Any, found))
            return found

    def add(self, source: Source) -> None:
        """Show one more executor; twice is once."""
        executor = source.executor()
        if all(one.executor() is not executor for one in self._sources):
            source.start()
            self._sources.append(source)

    def describe(self) -> list[Metric]:
        """Return nothing: a registry must not ask a store when this is registered."""
        return []

    def update(self) -> None:
        """Take over what was counted in this process."""
        if self._pid != os.getpid():  # in a forked child the lock may stay locked
            self._renew()
        with self._updating:
            names = [source.name for source in self._sources]
            running: dict[str, int] = dict.fromkeys(names, 0)
            overrun = running.copy()
            for source in self._sources:
                now, late = source.update(self.families)
                running[source.name] += now
                overrun[source.name] += late
            for name in running:
                self.families.set_running(name, running[name], overrun[name])
            there = [one for one in self._sources if one.executor() is not None]
            self._sources = there

    def collect(self) -> t.Iterator[Metric]:
        """Yield all metrics as they are now."""
        self.update()
        yield from self.families.collect()
        yield from self.of_store.collect()

    @property
    def of_store(self) -> Stores:
        """What the stores know, for a registry of its own."""
        return Stores(self._sources)


class Stores:
    """What the stores of executors know; asked for each scrape.

    It is the same in all processes. So it is not added up, as what they have counted.
    """

    def __init__(self, sources: t.Sequence[Source]) -> None:
        self._sources = sources

    def describe(self) -> list[Metric]:
        """Return nothing: see :meth:`.Shown.describe`."""
        return []

    def collect(self) -> t.Iterator[Metric]:
        """Ask the stores."""
        found = {source.name: source.ask_store() for source in self._sources}
        known = {name: facts for name, facts in found.items() if facts is not None}
        for name, text, labels in _STORE if known else ():
            family = GaugeMetricFamily(
                PREFIX + name, text, labels=["executor", *labels]
            )
            for executor, facts in known.items():
                _add(family, executor, facts.get(name))
            yield family


def _add(family: GaugeMetricFamily, executor: str, value: t.Any) -> None:
    """Add a number, or a number for each value of the other label; None: nothing."""
    if isinstance(value, t.Mapping):
        for label, number in value.items():
            family.add_metric([executor, label], number)
    elif value is not None:
        family.add_metric([executor], value)
