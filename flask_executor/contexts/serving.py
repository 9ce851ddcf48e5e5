"""Requests that begin, for what starts with the process that serves them."""

from __future__ import annotations

import typing as t

from flask import Flask, request, request_started


def at_each_request(
    app: Flask, fn: t.Callable[[Flask, t.Mapping[str, t.Any]], object]
) -> object:
    """Call ``fn(app, environ)`` at the beginning of each request of an app.

    :return: an object that must be kept for as long as this is wanted.
    """

    def begins(sender: Flask, **_: object) -> None:
        fn(sender, request.environ)

    request_started.connect(begins, sender=app)
    return begins
