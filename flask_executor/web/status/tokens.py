"""The last part of a status URL: which task, signed for those who may ask for it.

The signature covers the API, the executor, the task, its process, the owner and the
time. The owner is not in the token: it is a part of the key. So a token of somebody
else looks exactly like a forged one, and nothing can be read out of it.
"""

from __future__ import annotations

import math
import os
import typing as t
from hashlib import sha256
from secrets import token_hex

from flask import Flask
from itsdangerous import BadSignature, TimestampSigner

ANY_PROCESS = "0"
"""Stands for a task that is in a store, which every process can ask."""


class Ticket(t.NamedTuple):
    """What a token says."""

    task: str
    """The id of the task."""
    process: str
    """The process that knows it, or :data:`ANY_PROCESS`."""


class Tokens:
    """Signs and reads the tokens of one API.

    :param scope: names the API and its executor: other scopes have other signatures.
    :param max_age: the seconds for which a token is good, or None.
    """

    def __init__(self, scope: str, max_age: float | None) -> None:
        self._scope = f"flask-executor.status:{scope}:".encode()
        self._max_age = max_age

    def sign(self, app: Flask, owner: str, ticket: Ticket) -> str:
        """Return a token with which only this owner can ask."""
        return self._signer(app, owner).sign(".".join(ticket)).decode()

    def read(self, app: Flask, owner: str, token: str) -> Ticket | None:
        """Return what a token says; None if it is old, or not signed for this owner."""
        try:
            text = self._signer(app, owner).unsign(token, max_age=self._limit)
        except BadSignature:  # also what is too old, and what is not even text
            return None
        task, _, process = text.decode().rpartition(".")
        return Ticket(task, process)

    @property
    def _limit(self) -> int | None:
        return None if self._max_age is None else math.ceil(self._max_age)

    def _signer(self, app: Flask, owner: str) -> TimestampSigner:
        fallbacks = app.config.get("SECRET_KEY_FALLBACKS") or ()
        return TimestampSigner(
            [*fallbacks, t.cast(t.Any, app.secret_key)],
            # A digest, so that an owner cannot contain the end of a scope.
            self._scope + sha256(owner.encode()).digest(),
            key_derivation="hmac",
            digest_method=sha256,
        )


_ids: dict[int, str] = {}


def this_process() -> str:
    """Return the random name of this process; a forked child has another one."""
    pid = os.getpid()
    # Of two threads that make one, both get the first.
    return _ids.get(pid) or _ids.setdefault(pid, token_hex(6))
