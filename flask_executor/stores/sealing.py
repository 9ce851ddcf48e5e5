"""Signatures of saved bytes: which process may unpickle them, and for which task.

Who can write into the database could otherwise run code in every process, because
loading a pickle can run anything. So each saved value is signed with the app's
``SECRET_KEY``, and the signature is checked before anything is loaded. It covers where
the bytes belong, so that those of one row are refused in any other.
"""

from __future__ import annotations

import hmac
import json
import typing as t
from hashlib import sha256

from flask import Flask
from itsdangerous import Signer

from ..store_errors import NoSecretKey, PayloadRefused
from .records import Sealed


class Label(t.NamedTuple):
    """Where saved bytes belong; another place makes another signature."""

    task: str
    """The id of the task."""
    kind: t.Literal["payload", "result"]
    """Of the task: its arguments and context, or what became of it."""
    job: str
    """The registered name of the job: the same arguments for another job are forged."""
    format: str
    """How they are read: JSON that somebody chose must not be read as a pickle."""


class Signatures:
    """Signs with the newest key, and accepts the older ones, too.

    :param secret_keys: from the oldest to the newest.
    """

    def __init__(self, secret_keys: t.Sequence[str | bytes]) -> None:
        signer = Signer(
            t.cast(t.Any, secret_keys),
            b"flask-executor.store",
            key_derivation="hmac",
            digest_method=sha256,
        )
        # Derived once: Signer itself does it for each signature, which takes longer
        # than all the rest.
        self._keys = [signer.derive_key(key) for key in reversed(signer.secret_keys)]

    @classmethod
    def of(cls, app: Flask) -> Signatures:
        """Use an app's ``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``, as sessions do.

        :raises NoSecretKey: a :exc:`RuntimeError`.
        """
        if not app.secret_key:
            raise NoSecretKey(app.name)
        fallbacks = app.config.get("SECRET_KEY_FALLBACKS") or ()
        return cls([*fallbacks, app.secret_key])

    def sign(self, label: Label, data: bytes) -> Sealed:
        """Return bytes with the signature for their place."""
        signature = hmac.digest(self._keys[0], _signed(label, data), "sha256")
        return Sealed(label.format, data, signature)

    def check(self, label: Label, sealed: Sealed) -> bytes:
        """Return the bytes if they were signed for this place, by this app.

        :raises PayloadRefused: a :exc:`ValueError`.
        """
        data = bytes(sealed.data)  # some drivers return a memoryview
        signed, signature = _signed(label, data), bytes(sealed.signature)
        for key in self._keys:
            if hmac.compare_digest(hmac.digest(key, signed, "sha256"), signature):
                return data
        raise PayloadRefused(
            label.task,
            label.kind,
            label.job,
            "its signature does not match. It was changed, or copied from another row,"
            " or signed with a key that is neither SECRET_KEY nor one of"
            " SECRET_KEY_FALLBACKS",
        )


def _signed(label: Label, data: bytes) -> bytes:
    # As JSON, so that no two labels look alike when they are joined.
    return json.dumps(label).encode() + sha256(data).digest()
