"""Who asks: the one for whom a token is signed."""

from __future__ import annotations

import typing as t
from secrets import token_urlsafe

from flask import has_request_context, session

from ...errors import StatusRefused

OwnerCallable = t.Callable[[], t.Any]


class Owner(t.Protocol):
    """Names who makes the current request."""

    def now(self) -> str | None:
        """Return who asks, or None: nobody."""

    def made(self) -> str:
        """Return who asks, for a new token.

        :raises StatusRefused: if nobody can be named.
        """


class SessionOwner:
    """A random text in the session of the browser, made with its first token."""

    NAME = "executor_owner"

    def now(self) -> str | None:
        """Return the text in the session, or None."""
        found = session.get(self.NAME)
        return found if isinstance(found, str) else None

    def made(self) -> str:
        """Return the text in the session, which is put there if there is none."""
        if not has_request_context():
            raise StatusRefused(
                "there is no request, and so no session. Call it in a view, or pass"
                " owner= to StatusAPI"
            )
        return self.now() or self._put()

    def _put(self) -> str:
        made = token_urlsafe(16)
        try:
            session[self.NAME] = made
        except RuntimeError:  # Flask's NullSession
            raise StatusRefused(
                "this app has no session to write to. Pass owner= to StatusAPI"
            ) from None
        return made


class GivenOwner:
    """What a function of the app returns, such as the id of a user.

    :param ask: returns it; None means nobody.
    """

    def __init__(self, ask: OwnerCallable) -> None:
        self._ask = ask

    def now(self) -> str | None:
        """Return what the function returns, as a text; None if that is empty."""
        found = self._ask()
        return None if found is None else str(found) or None

    def made(self) -> str:
        """Return what the function returns."""
        if (found := self.now()) is None:
            raise StatusRefused(
                "owner() returned None, so nobody could ask for it. Let only those"
                " start tasks for whom it returns an id"
            )
        return found


class AnyOwner:
    """Everybody who knows the URL."""

    def now(self) -> str:
        """Return the same for everybody."""
        return ""

    def made(self) -> str:
        """Return the same for everybody."""
        return ""


def owner_of(owner: OwnerCallable | str | None) -> Owner:
    """Return the owner for the parameter ``owner`` of :class:`.StatusAPI`."""
    if owner is None:
        return AnyOwner()
    return GivenOwner(owner) if callable(owner) else SessionOwner()
