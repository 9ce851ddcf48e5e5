"""Snapshots: taken where a call is submitted, restored where it runs."""

from __future__ import annotations

import contextvars
import operator
import pickle
import typing as t
from sys import modules

from flask import Flask
from flask.sessions import SessionMixin
from flask.wrappers import Request

from ..current import Inside, running
from .copying import same
from .flask_versions import Leave, OnDemand, contexts, session_of
from .g import copy_of_g
from .pickling import deserialize, serialize
from .request import Origin, PortableRequest, RequestCopy, give_id

T = t.TypeVar("T")

_LAST = "_flask_executor_last"
"""The attribute of a context that holds its last snapshot."""


class Snapshot:
    """The app, ``g``, request, session and context variables that a call sees.

    Taken once, it can be restored any number of times, on any thread. Each restore is
    a fresh context that shares nothing with the view or with another restore.
    """

    __slots__ = ("_g", "_request", "_serialized", "_variables", "app")

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
        self._serialized: bytes | None = None

    @classmethod
    def take(cls, app: Flask, *, copy_g: str = "safe") -> Snapshot:
        """Copy what the running code sees now.

        If a view submits again and nothing has changed, it returns the last snapshot:
        less to keep, and less for the garbage collector to visit.

        :param app: the app to use if no context is current.
        :param copy_g: ``'safe'``, ``'all'`` or ``'none'``.
        :raises werkzeug.exceptions.HTTPException: if nobody has read the body yet, and
            it is too large, or the client broke it off.
        """
        variables = contexts.variables()
        seen = contexts.seen()
        if seen is None:
            return cls(app, {}, None, variables)
        seen_app, g, context = seen
        if context is None:
            return cls(seen_app, copy_of_g(g, copy_g), None, variables)
        if isinstance(context, OnDemand) and context.untouched_copy:
            untouched = context.untouched_copy
            return cls(seen_app, copy_of_g(g, copy_g), untouched, variables)
        session, request = session_of(context), context.request
        if getattr(context, _LAST, None) is None:  # the first submit of the view
            give_id(request)
            copy = RequestCopy(request, session)
        else:
            last = Reusable.of(context)
            if last.serves(request, session, g, variables, copy_g):
                return last.snapshot
            copy = RequestCopy(request, session, last.copy)
        snapshot = cls(seen_app, copy_of_g(g, copy_g, session), copy, variables)
        # On the context, which the request does not refer to: no cycle.
        setattr(context, _LAST, snapshot)
        return snapshot

    @property
    def origin(self) -> Origin | None:
        """The request that it was taken in, or None."""
        return None if self._request is None else self._request.origin

    def variables(self) -> contextvars.Context:
        """A copy of the submitter's context variables, without Flask's."""
        return self._variables.copy()

    def changed(self, change: t.Callable[[], object]) -> Snapshot:
        """Return this snapshot with other context variables.

        :param change: sets them; it runs in a copy of these.
        """
        variables = self._variables.copy()
        variables.run(change)
        return Snapshot(self.app, self._g, self._request, variables)

    def enter(self) -> Leave:
        """Make the copies current, within a context from :meth:`variables`.

        :return: a function that must be called at the end, with the exception of the
            call or None; it runs the app's ``teardown_appcontext`` functions.
        """
        if "sentry_sdk" not in modules:
            return contexts.enter(self.app, self._g, self._request)
        from .sentry import enter_with_own_scope

        return enter_with_own_scope(contexts.enter, self.app, self._g, self._request)

    def run(
        self,
        fn: t.Callable[..., T],
        args: t.Sequence[t.Any],
        kwargs: dict[str, t.Any],
        inside: Inside | None = None,
    ) -> T:
        """Call a function in a fresh restore, on this thread.

        :param inside: the task that runs it, or None.
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
        if "sentry_sdk" in modules:
            leave = self.enter()
        else:  # one call less in what every task does
            leave = contexts.enter(self.app, self._g, self._request)
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            if inside is not None:
                inside.raised(error)
            leave(error)
            raise
        leave(None)
        return result

    def serialize(self) -> bytes:
        """Return the part that is sent to another process, pickled; made once.

        It unpickles to a :class:`PortableSnapshot`.
        """
        if self._serialized is None:
            request = None if self._request is None else self._request.portable()
            sent = PortableSnapshot(serialize(self._g, "g"), request)
            self._serialized = pickle.dumps(sent)
        return self._serialized


class PortableSnapshot(t.NamedTuple):
    """The part of a snapshot that is sent to another process.

    It can be pickled, and refers to no app.
    """

    g: dict[str, t.Any]
    request: PortableRequest | None

    def rebuild(
        self, app: Flask, variables: contextvars.Context | None = None
    ) -> Snapshot:
        """Return the snapshot again, in a process that has made its own app.

        :param variables: the context variables that a call sees; None: those of here.
        """
        request = None if self.request is None else self.request.rebuild(app)
        variables = contexts.variables() if variables is None else variables
        return Snapshot(app, deserialize(self.g), request, variables)


class Reusable:
    """A snapshot that is used again as long as the view still looks like it.

    Most requests submit once, so the first submit prepares nothing for this. The second
    one compares all of the view with the copies. If they are equal, it notes which
    objects it has seen, so that later submits only look for other objects.
    """

    __slots__ = ("_seen", "copy", "snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot: Snapshot = snapshot
        self.copy: RequestCopy = t.cast(RequestCopy, snapshot._request)
        self._seen: _Seen | None = None

    @classmethod
    def of(cls, context: t.Any) -> Reusable:
        """Return the last snapshot of a context, prepared for this."""
        last: Snapshot | Reusable = getattr(context, _LAST)
        if isinstance(last, Snapshot):
            last = cls(last)
            setattr(context, _LAST, last)
        return last

    def serves(
        self,
        request: Request,
        session: SessionMixin | None,
        g: t.Any,
        variables: contextvars.Context,
        copy_g: str,
    ) -> bool:
        """Return True if a snapshot taken now would show the same."""
        try:
            rows = _rows_of(request, session, g, variables, copy_g)
            if self._seen is not None:
                return self._seen.again(request.environ, *rows)
            own_g = copy_of_g(g, copy_g, session)
            if not self._shows(request, session, own_g, variables):
                return False
            containers = self.copy.changeable(request, session)
        except RecursionError:  # a container that holds itself
            return False
        self._seen = _Seen(*rows, request.environ.copy(), containers)
        return True

    def _shows(
        self,
        request: Request,
        session: SessionMixin | None,
        g: dict[str, t.Any],
        variables: contextvars.Context,
    ) -> bool:
        snapshot = self.snapshot
        return (
            _same_objects(snapshot._g, g)
            and _same_objects(dict(snapshot._variables), dict(variables))
            and self.copy.shows(request, session)
        )


def _same_objects(own: dict[t.Any, t.Any], now: dict[t.Any, t.Any]) -> bool:
    return list(own) == list(now) and all(map(operator.is_, own.values(), now.values()))


def _rows_of(
    request: Request,
    session: SessionMixin | None,
    g: t.Any,
    variables: contextvars.Context,
    copy_g: str,
) -> tuple[tuple[t.Any, ...], tuple[t.Any, ...]]:
    """Return the names and the values of all that a snapshot copies.

    The WSGI environment is left out.
    """
    # Another thread of the view may change ``g`` at this moment, but not the others.
    attributes, of_g = vars(request), vars(g).copy()
    flags: dict[str, t.Any] = {} if session is None else vars(session)
    data: t.Mapping[str, t.Any] = {} if session is None else session
    # A value that moves from one part to the next is a change.
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


class _Seen(t.NamedTuple):
    """The objects of a view; those that can be changed in place each have a copy."""

    names: tuple[t.Any, ...]
    values: tuple[t.Any, ...]
    environ: dict[str, t.Any]
    containers: list[tuple[t.Any, t.Any]]

    def again(
        self,
        environ: dict[str, t.Any],
        names: tuple[t.Any, ...],
        values: tuple[t.Any, ...],
    ) -> bool:
        """Return True if the view has the same objects, with the same content."""
        return (
            names == self.names
            and all(map(operator.is_, values, self.values))
            # WSGI has plain values there, which may as well be equal.
            and environ == self.environ
            and self._containers_same()
        )

    def _containers_same(self) -> bool:
        for value, own in self.containers:
            if (value or own) and not same(own, value):
                return False
        return True
