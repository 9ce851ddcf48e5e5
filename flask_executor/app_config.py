"""The config of an app, as one executor reads it."""

from __future__ import annotations

import typing as t
from concurrent.futures import Future
from dataclasses import fields

from flask import Flask

from .errors import InvalidSetting
from .futures import Callback
from .options import Given, Options, unsupported
from .pools import POOLS
from .settings import Settings, config_key, misspelt, read_key


def kind_of(config: t.Mapping[str, t.Any], prefix: str) -> str:
    """Return which pool the type names.

    :raises InvalidSetting: if there is no such pool.
    """
    kind: str = read_key(config, prefix, "type")
    if kind not in POOLS:
        key = config_key(prefix, "type")
        allowed = "one of " + ", ".join(map(repr, POOLS))
        raise InvalidSetting(key, config[key], allowed)
    return kind


def show_defaults(config: t.MutableMapping[str, t.Any], prefix: str) -> None:
    """Put the default of each key in the config, where it is not set."""
    for spec in fields(Settings):
        config.setdefault(config_key(prefix, spec.name), spec.default)


def read_settings(app: Flask, prefix: str, kind: str) -> Settings:
    """Read all keys, and warn of what cannot be meant.

    :param kind: the pool that the type named when the app was initialised.
    :raises InvalidSetting: naming the key, the value and what is allowed.
    """
    for key, nearest in misspelt(app.config, prefix).items():
        app.logger.warning(
            "%s is not a setting of Flask-Executor: did you mean %s?", key, nearest
        )
    settings = Settings.read(app.config, prefix)
    if settings.type == kind:
        return settings
    key = config_key(prefix, "type")
    app.logger.warning(
        "%s was changed to %r after init_app; it stays %r. Set it before, or call"
        " init_app again.",
        key,
        settings.type,
        kind,
    )
    return Settings.read({**app.config, key: kind}, prefix)


def has_store(app: Flask, prefix: str) -> bool:
    """Return True if the config names a store, as it is now; no other key is read.

    :raises InvalidSetting: if what it names cannot be one.
    """
    return read_key(app.config, prefix, "store") is not None


def refuse_unsupported(given: Given, pools: t.Sequence[t.Any], *, stores: bool) -> None:
    """Refuse options that none of these pools can honour.

    :param stores: True if there is a store.
    :raises UnsupportedOption: naming the option, and what to use instead.
    """
    options = Options().overlaid(given)
    refusals = [unsupported(options, pool, has_store=stores) for pool in pools]
    if refusals[0] is not None and all(refusals):
        raise refusals[0]


def propagate_exceptions_callback(future: Future[t.Any]) -> None:
    """Raise what a task raised.

    It is a default done-callback if ``EXECUTOR_PROPAGATE_EXCEPTIONS`` is true.
    """
    if not future.cancelled() and (error := future.exception()) is not None:
        raise error


def done_callbacks(executor: t.Any, settings: Settings) -> list[Callback]:
    """Return what is called when a task of an executor has ended."""
    defaults: list[Callback] = executor._default_done_callbacks
    if settings.propagate_exceptions:
        return [*defaults, propagate_exceptions_callback]
    return defaults
