"""The dashboard as a blueprint: every request goes through one function here."""

from __future__ import annotations

import typing as t

from flask import Blueprint, abort, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from ...errors import UnknownTask
from ...executor import Executor
from ...store_errors import StoreUnavailable
from ..access import Access, Action, Authorize
from .rendering import protect, refusal
from .routes import ROUTES, Route
from .site import Site

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Dashboard(Blueprint):
    """Pages about the tasks of executors: what runs, what failed, why something waits.

    .. code-block:: python

        def may(action):
            return current_user.is_authenticated and current_user.is_admin


        app.register_blueprint(Dashboard(executor, authorize=may))

    It is closed until you say who may see it. Without ``authorize`` every address is
    404. The exception is a request in debug mode, from this machine, to ``localhost``,
    with no proxy in between.

    :param executors: one executor or several.
    :param authorize: is called in each request, with ``'view'``, ``'details'``,
        ``'stacks'``, ``'cancel'``, ``'retry'``, ``'run'`` or ``'pause'``. It returns
        True or False, or a response that is sent instead, such as a redirect to your
        login. Anything else is no, and so is an exception; both are logged.
    :param name: the name of the blueprint.
    :param url_prefix: where the pages are.
    :raises ValueError: if there is no executor, or if two have the same name.

    .. versionadded:: 2.0
    """

    def __init__(
        self,
        *executors: Executor,
        authorize: Authorize | None = None,
        name: str = "executor_dashboard",
        url_prefix: str = "/executor",
    ) -> None:
        super().__init__(name, __name__, url_prefix=url_prefix)
        self._authorize = authorize
        self._executors = _by_name(executors)
        for route in ROUTES:
            self._add(route)

    def _add(self, route: Route) -> None:
        """Answer at an address; for other executors than the first, below its name."""

        def view(which: str, **values: t.Any) -> Response:
            return self._answer(route, which, values)

        # All methods come here: a 405 of Flask's would tell that there is a dashboard.
        options: dict[str, t.Any] = {
            "view_func": view,
            "methods": _METHODS,
            "provide_automatic_options": False,
        }
        first = {"which": next(iter(self._executors))}
        self.add_url_rule(route.rule, route.name, defaults=first, **options)
        self.add_url_rule(f"/in/<which>{route.rule}", route.name, **options)

    def _answer(
        self, route: Route, which: str, values: t.Mapping[str, t.Any]
    ) -> Response:
        """Return the answer to one request, after asking if it may have one."""
        app = t.cast(t.Any, current_app)._get_current_object()
        access = Access(app, self._authorize, request.environ)
        answer = access.answer("view")
        if not isinstance(answer, bool):
            return answer
        if not answer or which not in self._executors:
            abort(404)
        site = Site(self._executors, which, access)
        return protect(_attempt(route, site, values))


def _attempt(route: Route, site: Site, values: t.Mapping[str, t.Any]) -> Response:
    """Return a page, or one that says why there is none."""
    try:
        return _refused(route, site) or route.view(site, **values)
    except UnknownTask:
        return refusal(site, 404, "There is no such task, or it is gone.")
    except StoreUnavailable:
        sentence = "The store is away. This page comes back with it."
        response = refusal(site, 503, sentence)
        response.headers["Retry-After"] = "5"
        return response
    except HTTPException as error:
        return refusal(site, error.code or 500, error.description or error.name)


def _refused(route: Route, site: Site) -> Response | None:
    """Return an answer to what may not be done, or None."""
    if request.method not in route.methods:
        response = refusal(site, 405, "This address takes no such request.")
        response.headers["Allow"] = ", ".join(route.methods)
        return response
    if route.needs is not None and (answer := _not_allowed(site, route.needs)):
        return answer
    if "POST" in route.methods and (why := site.forms.refusal()):
        return refusal(site, 403, why)
    return None


def _not_allowed(site: Site, action: Action) -> Response | None:
    answer = site.access.answer(action)
    if answer is True:
        return None
    if answer is False:
        return refusal(site, 403, f"You may not do this here: {action}.")
    return answer


def _by_name(executors: t.Sequence[Executor]) -> dict[str, Executor]:
    found = {one.name: one for one in executors}
    if not found:
        raise ValueError("A dashboard needs an executor: Dashboard(executor).")
    if len(found) < len(executors):
        names = ", ".join(repr(one.name) for one in executors)
        raise ValueError(
            f"The executors of a dashboard have the names {names}: each needs its own,"
            " as in Executor(app, name='mail')."
        )
    return found
