"""Snapshots: taken where a call is submitted, restored where it runs."""

from __future__ import annotations

import contextvars
import operator
import pickle
import typing as t

from flask import Flask
from flask.sessions import SessionMixin
from flask.wrappers import Request

from ..current import Inside, running
from .copying import is_proxy, same
from .flask_versions import OnDemand, Scope, contexts, session_of
from .pickling import packed, unpacked
from .request import PortableRequest, RequestCopy

T = t.TypeVar("T")

_LAST = "_flask_executor_last"
"""The attribute of a context that holds its last snapshot."""


class Snapshot:
    """What a call sees: the app, ``g``, the request, the session, context variables.

    Taken once, it can be restored any number of times, on any thread; each restore is
    a fresh context that shares nothing with the view or with another restore.
    """

    __slots__ = ("_g", "_packed", "_request", "_variables", "app")

    def __init__(
        self,
        app: Flask,
        g: dict[str, t.Any],
        request: RequestCopy | None,
        variables: contextvars.Context,
    ) -> None:
        self.app: Flask = app
        self._g = g
        self._request = request
        self._variables = variables
        self._packed: bytes | None = None

    @classmethod
    def take(cls, app: Flask, *, copy_g: str = "safe") -> Snapshot:
        """Copy what the running code sees now.

        Where a view submits again and nothing has changed, the snapshot taken then
        serves again: less to keep, and less for the garbage collector to walk.

        :param app: the app to use where no context is current.
        :param copy_g: ``'safe'``, ``'all'`` or ``'none'``.
        :raises werkzeug.exceptions.HTTPException: where a body that nobody has read
            yet cannot be read: it is too large, or the client broke it off.
        """
        variables = _variables()
        seen = contexts.seen()
        if seen is None:
            return cls(app, {}, None, variables)
        seen_app, g, context = seen
        if context is None:
            return cls(seen_app, _copy_g(g, copy_g), None, variables)
        if isinstance(context, OnDemand) and context.untouched_copy:
            untouched = context.untouched_copy
            return cls(seen_app, _copy_g(g, copy_g), untouched, variables)
        session = session_of(context)
        request: Request = context.request
        names, values = _rows_of(request, session, g, variables, copy_g)
        last: _LastSnapshot | None = getattr(context, _LAST, None)
        if last is not None and last.still_shows(request.environ, names, values):
            return last.snapshot
        copy = RequestCopy.of(request, session, None if last is None else last.copy)
        snapshot = cls(seen_app, _copy_g(g, copy_g, session), copy, variables)
        noted = _LastSnapshot(snapshot, copy, names, values, request, session)
        # On the context, which the request does not refer to: no cycle.
        setattr(context, _LAST, noted)
        return snapshot

    def variables(self) -> contextvars.Context:
        """A copy of the submitter's context variables, without Flask's."""
        return self._variables.copy()

    def enter(self) -> Scope:
        """Make the copies current, within a context from :meth:`variables`.

        :return: what must be called at the end, with the exception of the call or
            None; it runs the app's ``teardown_appcontext`` functions.
        """
        return contexts.enter(self.app, self._g, self._request)

    def run(
        self,
        fn: t.Callable[..., T],
        args: t.Sequence[t.Any],
        kwargs: dict[str, t.Any],
        inside: Inside | None = None,
    ) -> T:
        """Call a function in a fresh restore, on this thread.

        :param inside: the task whose code this is, or None.
        """
        return self._variables.copy().run(self._run, fn, args, kwargs, inside)

    def _run(
        self,
        fn: t.Callable[..., T],
        args: t.Sequence[t.Any],
        kwargs: dict[str, t.Any],
        inside: Inside | None,
    ) -> T:
        running.set(inside)
        leave = contexts.enter(self.app, self._g, self._request)
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            leave(error)
            raise
        leave(None)
        return result

    def packed(self) -> bytes:
        """The part of it that travels to another process, pickled; made once.

        It unpickles to a :class:`PortableSnapshot`.
        """
        if self._packed is None:
            request = None if self._request is None else self._request.portable()
            travels = PortableSnapshot(packed(self._g, "g"), request)
            self._packed = pickle.dumps(travels)
        return self._packed


class PortableSnapshot(t.NamedTuple):
    """A snapshot as it travels: it pickles, and knows no app."""

    g: dict[str, t.Any]
    request: PortableRequest | None

    def land(self, app: Flask) -> Snapshot:
        """The snapshot again, in a process that has made its own app."""
        request = self.request.land(app) if self.request is not None else None
        return Snapshot(app, unpacked(self.g), request, _variables())


def _rows_of(
    request: Request,
    session: SessionMixin | None,
    g: t.Any,
    variables: contextvars.Context,
    copy_g: str,
) -> tuple[tuple[t.Any, ...], tuple[t.Any, ...]]:
    """The names and the values of all that a snapshot copies, but for the WSGI
    environment.
    """
    attributes, of_g = vars(request).copy(), vars(g).copy()
    flags: dict[str, t.Any] = {} if session is None else vars(session).copy()
    data: t.Mapping[str, t.Any] = {} if session is None else dict(session)
    # What moves from one part to the next is a change.
    names = (*attributes, ..., *of_g, ..., *variables, ..., *flags, ..., *data)
    values = (
        *(copy_g, session),
        *attributes.values(),
        *of_g.values(),
        *variables.values(),
        *flags.values(),
        *data.values(),
    )
    return names, values


class _LastSnapshot:
    """A snapshot, and what tells whether the view still looks like that: the very same
    objects, and containers with the same content.
    """

    __slots__ = ("_containers", "_environ", "_names", "_values", "copy", "snapshot")

    def __init__(
        self,
        snapshot: Snapshot,
        copy: RequestCopy,
        names: tuple[t.Any, ...],
        values: tuple[t.Any, ...],
        request: Request,
        session: SessionMixin | None,
    ) -> None:
        self.snapshot = snapshot
        self.copy = copy
        self._names = names
        self._values = values
        self._environ = dict(request.environ)
        self._containers = copy.changeable(request, session)

    def still_shows(
        self,
        environ: dict[str, t.Any],
        names: tuple[t.Any, ...],
        values: tuple[t.Any, ...],
    ) -> bool:
        """Whether nothing has changed."""
        return (
            names == self._names
            and all(map(operator.is_, values, self._values))
            # WSGI has plain values there, which may as well be equal.
            and environ == self._environ
            and self._containers_same()
        )

    def _containers_same(self) -> bool:
        for value, copy in self._containers:
            if (value or copy) and not same(copy, value):
                return False
        return True


def _variables() -> contextvars.Context:
    """A copy of the context variables, without Flask's."""
    variables = contextvars.copy_context()
    return contexts.without_own(variables)


def _copy_g(
    g: t.Any, which: str, session: SessionMixin | None = None
) -> dict[str, t.Any]:
    if which == "none":
        return {}
    # A copy first: to look at a value may run code that sets names of g.
    copy: dict[str, t.Any] = vars(g).copy()
    if which == "all":
        return copy
    copy = {name: value for name, value in copy.items() if not _has_close(value)}
    if "_login_user" in copy and _reloads(copy["_login_user"], session):
        del copy["_login_user"]
    return copy


def _has_close(value: t.Any) -> bool:
    # What stands behind a proxy is not in g: a task sees what its own context gives.
    if is_proxy(value):
        return False
    try:
        return hasattr(value, "close")
    except Exception:  # its own lookup fails
        return False


def _reloads(user: t.Any, session: SessionMixin | None) -> bool:
    """Whether Flask-Login loads that user again where its ``g`` has none.

    A model object belongs to the database session of the view: a task can neither
    load more of it nor commit it.
    """
    if session is None or is_proxy(user) or not hasattr(user, "_sa_instance_state"):
        return False
    try:
        return bool(dict(session)["_user_id"] == user.get_id())
    except Exception:
        return False
