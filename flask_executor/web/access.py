"""Who may see and do what over HTTP: nobody, until the app says otherwise.

The dashboard and the metrics use it.
"""

from __future__ import annotations

import ipaddress
import logging
import typing as t

from flask import Flask
from werkzeug.wrappers import Response

from ..log import Log

Action = t.Literal["view", "details", "stacks", "cancel", "retry", "run", "pause"]
"""``view`` is asked for every page, and the others for what is on it: ``details`` for
keys, ``meta``, paths, messages, the texts of errors and tracebacks, ``stacks`` for what
threads do now, ``run`` for a tick of a periodic job by hand."""
ACTIONS: tuple[str, ...] = t.get_args(Action)

Answer = bool | Response
Authorize = t.Callable[[str], Answer]

_FORWARDING = (
    *("HTTP_X_FORWARDED", "HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP"),
    *("HTTP_X_CLIENT_IP", "HTTP_X_CLUSTER_CLIENT", "HTTP_TRUE_CLIENT_IP", "HTTP_CF_"),
    *("HTTP_X_ORIGINAL", "HTTP_X_PROXY", "HTTP_FASTLY_CLIENT_IP", "HTTP_X_APPENGINE"),
)
"""How the headers begin that a proxy adds."""


class Access:
    """What one request may do; each action is asked at most once.

    :param authorize: what the app gave to the surface, or None.
    """

    def __init__(
        self, app: Flask, authorize: Authorize | None, environ: dict[str, t.Any]
    ) -> None:
        self._app = app
        self._authorize = authorize
        self._environ = environ
        self._answers: dict[str, Answer] = {}

    def may(self, action: Action) -> bool:
        """Return True if the request may do something."""
        return self.answer(action) is True

    def answer(self, action: Action) -> Answer:
        """Return what the app says: True, False, or a response to send instead.

        What is neither of these is no, and so is an exception; both are in the log.
        """
        if action not in self._answers:
            self._answers[action] = self._ask(action)
        return self._answers[action]

    def _ask(self, action: Action) -> Answer:
        if self._authorize is None:
            return self._app.debug and is_local(self._environ)
        try:
            found: t.Any = self._authorize(action)
        except Exception as error:
            message = "authorize(%r) has raised, so the answer is no"
            Log(self._app).write(logging.ERROR, message, action, error=error)
            return False
        if isinstance(found, bool | Response):
            return found
        message = (
            "authorize(%r) has returned a %s, so the answer is no:"
            " return True, False or a response"
        )
        named = type(found).__name__
        Log(self._app).write(logging.ERROR, message, action, named)
        return False


def is_local(environ: dict[str, t.Any]) -> bool:
    """Return True if a browser on this machine asks, and no proxy is in between.

    It reads what the server has written. ``ProxyFix`` writes the address of the client
    that a header claims over that of the peer, so its own note is read instead.
    """
    raw = {**environ, **(environ.get("werkzeug.proxy_fix.orig") or {})}
    return (
        _is_loopback(raw.get("REMOTE_ADDR"))
        and _is_local_host(raw.get("HTTP_HOST"))
        # nginx asks with it unless it is told otherwise, and no browser does.
        and raw.get("SERVER_PROTOCOL") != "HTTP/1.0"
        and not any(name.startswith(_FORWARDING) for name in environ)
    )


def _is_loopback(address: str | None) -> bool:
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:  # nothing, or the path of a socket
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


def _is_local_host(host: str | None) -> bool:
    """Return True if a browser was sent here by a name that no DNS can give away."""
    name = (host or "").lower()
    name = name[1:].partition("]")[0] if name[:1] == "[" else name.partition(":")[0]
    return name == "localhost" or _is_loopback(name)
