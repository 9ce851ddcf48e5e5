"""Copies of a session: one is kept, and each task opens it again."""

from __future__ import annotations

import typing as t

from flask import Flask
from flask.sessions import NullSession, SessionMixin
from flask.wrappers import Request

from .copying import own_copy, own_values, same
from .pickling import deserialize, serialize

PortableSession = tuple[dict[str, t.Any], dict[str, t.Any]]
"""The content of a session, and its attributes."""


class SessionCopy:
    """A session as it was; nothing is saved by those that tasks open."""

    __slots__ = ("_attributes", "_class", "_data")

    def __init__(self, session: SessionMixin) -> None:
        self._class = session.__class__
        self._attributes = attributes = vars(session).copy()
        own_values(attributes)
        self._data = _data_of(session)
        own_values(self._data)

    def open(self, app: Flask, request: t.Callable[[], Request]) -> SessionMixin:
        """Return a new session of the same class, with a deep copy of the data."""
        session = self._class.__new__(self._class)
        attributes = vars(session)
        attributes.update(self._attributes)
        own_values(attributes)
        if isinstance(session, dict):
            # Here, too: they note a change, or refuse one.
            dict.update(session, own_copy(self._data))
        return session

    def shows(self, session: SessionMixin) -> bool:
        """Return True if a session still looks like this copy."""
        return same(self._attributes, vars(session)) and same(
            self._data, _data_of(session)
        )

    def pairs(self, session: SessionMixin) -> t.Iterator[tuple[t.Any, t.Any]]:
        """Yield each value of the session that was just copied, and its copy."""
        yield from zip(vars(session).values(), self._attributes.values(), strict=False)
        yield from zip(session.values(), self._data.values(), strict=False)

    def portable(self) -> PortableSession:
        """Return the part of it that is sent to another process."""
        return (
            serialize(self._data, "session"),
            serialize(self._attributes, "session attributes"),
        )


def _data_of(session: SessionMixin) -> dict[str, t.Any]:
    # Not through the class's own methods, as dict.copy() may: they note that it was
    # looked at.
    return dict(dict.items(session)) if isinstance(session, dict) else {}


class TransferredSession:
    """A session that came from another process."""

    def __init__(self, portable: PortableSession) -> None:
        self._portable = portable

    def open(self, app: Flask, request: t.Callable[[], Request]) -> SessionMixin:
        """Return a session of the app's own class, with the content of the view's."""
        session = new_session(app, request())
        if not isinstance(session, NullSession):
            data, attributes = map(deserialize, self._portable)
            session.clear()
            session.update(data)
            vars(session).update(attributes)
        return session

    def portable(self) -> PortableSession:
        """Return the part of it that is sent to another process."""
        return self._portable


def new_session(app: Flask, request: Request) -> SessionMixin:
    """Open the session of a request as Flask does."""
    interface = app.session_interface
    session = interface.open_session(app, request)
    return interface.make_null_session(app) if session is None else session
