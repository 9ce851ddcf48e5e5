"""Counting what an executor does, and the page that Prometheus reads."""

from __future__ import annotations

import atexit
import os
import typing as t
import weakref

from flask import Blueprint, Response, abort, current_app, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from ..dispatch import Dispatcher
from ..executor import Executor
from ..store_errors import StoreUnavailable
from ..web.access import Access, Authorize
from .counts import Labels, TaskCounts, ToldCounts
from .families import Families, Shown


class Metrics(Blueprint):
    """Metrics of an executor for Prometheus, and a page ``/metrics`` with them.

    They are counted from the moment when this is made. The page is there once the
    blueprint is registered; its URL can be changed as that of any blueprint. Nobody may
    read it unless ``authorize`` says so, except a browser on the same machine while the
    app is in debug mode.

    With the environment variable ``PROMETHEUS_MULTIPROC_DIR``, the page shows the sum
    over all processes of a server.

    :param executor: the executor. What it does for all its apps is counted together.
    :param registry: where the metrics are registered.
    :param authorize: called with ``'view'`` in each request for the page. It returns
        True, False, or a response to send instead.

    .. versionadded:: 2.0
    """

    def __init__(
        self,
        executor: Executor,
        *,
        registry: CollectorRegistry = REGISTRY,
        authorize: Authorize | None = None,
    ) -> None:
        super().__init__(f"{executor.name}executor_metrics", __name__)
        self._authorize = authorize
        self._registry = registry
        self._shown = Shown.of(registry)
        self._shown.add(_Counted(executor, self._shown))
        self.add_url_rule("/metrics", "metrics", self._page)

    def registry(self) -> CollectorRegistry:
        """Return the registry to show in a scrape, for a page of your own.

        In multiprocess mode that is a new one, with the sum over all processes, and
        what the store knows. Otherwise it is the registry that was given.
        """
        if not _is_multiprocess():
            return self._registry
        self._shown.update()
        made = CollectorRegistry()
        MultiProcessCollector(made)  # type: ignore[no-untyped-call]
        made.register(t.cast(t.Any, self._shown.of_store))
        return made

    def _page(self) -> Response:
        app = t.cast(t.Any, current_app)._get_current_object()
        answer = Access(app, self._authorize, request.environ).answer("view")
        if answer is False:
            abort(404)
        if answer is not True:
            return t.cast(Response, answer)
        text = generate_latest(self.registry())
        headers = {"Cache-Control": "no-store"}
        return Response(text, headers=headers, content_type=CONTENT_TYPE_LATEST)


class _Counted:
    """One executor: what was counted in this process, and what its store knows."""

    def __init__(self, executor: Executor, shown: Shown) -> None:
        self.name: str = executor.name
        # Weak: a registry lasts as long as the process, and an app may not.
        self.executor: weakref.ref[Executor] = weakref.ref(executor)
        self._labels = Labels(executor._job_names)
        self._counts: list[TaskCounts] = []
        # In multiprocess mode nobody asks this process for what it has counted.
        self._report = shown.update if _is_multiprocess() else None

    def start(self) -> None:
        """Count from now on."""
        t.cast(Executor, self.executor())._attached.add(self._attach)
        if self._report is not None:
            atexit.register(self._report)

    def _attach(self, dispatcher: Dispatcher) -> None:
        made = TaskCounts if self._report is None else ToldCounts
        counts = made(dispatcher, self._labels, self._report)
        dispatcher.events.add(counts)
        self._counts.append(counts)

    def update(self, families: Families) -> tuple[int, int]:
        """Hand over what has happened; return how many attempts run, and overrun."""
        running = overrun = 0
        for counts in self._counts.copy():
            # First: nothing more happens to what is over now.
            if counts.is_over:
                self._counts.remove(counts)
            if counts.pid == os.getpid():
                for job, row in counts.take().items():
                    families.add(self.name, job, row)
                running += counts.count_running()
                overrun += counts.count_overrun()
        return running, overrun

    def ask_store(self) -> t.Mapping[str, t.Any] | None:
        """Return what the store knows, or None if there is no store."""
        executor = self.executor()
        state = None if executor is None else executor._known_state()
        if executor is None or state is None or state.settings.store is None:
            return None
        try:
            return {
                "store_tasks": executor.counts(),
                "store_oldest_wait_seconds": executor.oldest_wait() or 0.0,
                "store_workers": len(executor.workers()),
                "store_up": 1,
            }
        except StoreUnavailable:
            return {"store_up": 0}


def _is_multiprocess() -> bool:
    """Return True if ``prometheus_client`` keeps what it counts in files."""
    return bool(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
