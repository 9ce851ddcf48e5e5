"""Records in the log of an app, all from the package itself."""

from __future__ import annotations

import traceback
import typing as t
import weakref
from pathlib import Path

from flask import Flask

_PACKAGE = str(Path(__file__).parent)
"""The origin of log records: the package, which people know, not its modules."""


class Log:
    """Writes to the log of an app.

    :param app: the app; only a weak reference to it is kept.
    """

    def __init__(self, app: Flask) -> None:
        self._app = weakref.ref(app)

    @property
    def app(self) -> Flask:
        """The app."""
        return t.cast(Flask, self._app())

    def write(
        self,
        level: int,
        message: str,
        *values: t.Any,
        error: BaseException | None = None,
    ) -> None:
        """Write a record, with a traceback if there is an error."""
        try:
            logger = self.app.logger
            if logger.isEnabledFor(level):
                exc_info = None if error is None else _exc_info(error)
                record = logger.makeRecord(
                    logger.name, level, _PACKAGE, 0, message, values, exc_info
                )
                logger.handle(record)
        except BaseException:
            # Write to standard error, as logging does for its own faults.
            traceback.print_exc()

    def guard(self, fn: t.Callable[..., object], *args: t.Any) -> None:
        """Call a function; write what it raises to standard error."""
        try:
            fn(*args)
        except BaseException:
            traceback.print_exc()


def _exc_info(error: BaseException) -> t.Any:
    return type(error), error, error.__traceback__
