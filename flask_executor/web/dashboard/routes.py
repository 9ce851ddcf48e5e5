"""The addresses of the dashboard, and what each needs beside ``view``."""

from __future__ import annotations

import typing as t

from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from ..access import Action
from . import actions, matching, rendering
from .pages import (
    failures,
    groups,
    jobs,
    overview,
    periodic,
    request,
    stacks,
    task,
    tasks,
    workers,
)
from .site import Site

_GET = ("GET", "HEAD")
_POST = ("POST",)


class Route(t.NamedTuple):
    """One address."""

    rule: str
    name: str
    view: t.Callable[..., Response]
    """Takes a :class:`Site` and the variables of the rule."""
    methods: tuple[str, ...] = _GET
    needs: Action | None = None


def _file(site: Site, name: str) -> Response:
    if name not in rendering.FILES:
        raise NotFound("There is no such file.")
    return rendering.file(name)


ROUTES = (
    Route("/", "overview", overview.view),
    Route("/tasks", "tasks", tasks.view),
    Route("/tasks/<id>", "task", task.view),
    Route("/requests/<id>", "request", request.view),
    Route("/failures", "failures", failures.view),
    Route("/jobs", "jobs", jobs.view),
    Route("/groups", "groups", groups.view),
    Route("/periodic", "periodic", periodic.view),
    Route("/workers", "workers", workers.view),
    Route("/workers/<id>", "stacks", stacks.view, needs="stacks"),
    Route("/files/<name>", "file", _file),
    Route("/matching", "all_that_match", matching.view),
    Route("/matching/do", "do_all", matching.do, _POST),
    Route("/chosen", "chosen", actions.chosen, _POST),
    Route("/tasks/<id>/cancel", "cancel", actions.cancel, _POST, "cancel"),
    Route("/tasks/<id>/retry", "retry", actions.retry, _POST, "retry"),
    Route("/jobs/pause", "pause", actions.pause, _POST, "pause"),
    Route("/jobs/resume", "resume", actions.resume, _POST, "pause"),
    Route("/periodic/run", "run_now", actions.run_now, _POST, "run"),
    Route("/periodic/pause", "pause_ticks", actions.pause_ticks, _POST, "pause"),
    Route("/periodic/resume", "resume_ticks", actions.resume_ticks, _POST, "pause"),
)
