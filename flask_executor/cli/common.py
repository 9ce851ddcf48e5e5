"""What commands share: the executor they are about, and how they end."""

from __future__ import annotations

import contextlib
import functools
import typing as t

import click
from flask.cli import with_appcontext

from ..contexts import current_app
from ..errors import (
    DuplicateKey,
    InvalidOption,
    NotUnique,
    UnknownTask,
    UnknownWorker,
)
from ..settings import config_key, prefix_of
from ..store_errors import NoAnswer, RetryRefused, StoreUnavailable
from .showing import Out, escaped

NO: t.Final = 1
USAGE: t.Final = 2
NOT_FOUND: t.Final = 3
AWAY: t.Final = 4
CONFLICT: t.Final = 5
_CODES: dict[type[Exception], int] = {
    StoreUnavailable: AWAY,
    NoAnswer: NO,
    UnknownTask: NOT_FOUND,
    UnknownWorker: NOT_FOUND,
    RetryRefused: CONFLICT,
    DuplicateKey: CONFLICT,
    NotUnique: CONFLICT,
    InvalidOption: USAGE,
    ValueError: NO,
    RuntimeError: NO,
}
"""What ends a command with its text, and with which code: the first that fits."""

executor_option: t.Callable[[t.Any], t.Any] = click.option(
    "--executor", "name", default="", metavar="NAME", help="The name of the executor."
)


class Ended(click.ClickException):
    """The end of a command that has not done what it was to do.

    :param code: its exit code.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(escaped(message))
        vars(self)["exit_code"] = code  # which click declares for its class


@contextlib.contextmanager
def explained() -> t.Iterator[None]:
    """End the command with the text of what goes wrong, without a traceback."""
    try:
        yield
    except tuple(_CODES) as error:
        fitting = [code for kind, code in _CODES.items() if isinstance(error, kind)]
        raise Ended(fitting[0], str(error)) from error


def verb(
    *, needs_store: bool = True
) -> t.Callable[[t.Callable[..., None]], t.Callable[..., None]]:
    """Make a command of ``fn(executor, out, ...)``, with what all commands have.

    :param needs_store: False if it is of use without a store.
    """

    def decorate(fn: t.Callable[..., None]) -> t.Callable[..., None]:
        @executor_option
        @click.option(
            "--json", "as_json", is_flag=True, help="Print a JSON object per line."
        )
        @with_appcontext
        @functools.wraps(fn)
        def run(name: str, as_json: bool, **given: t.Any) -> None:
            with explained():
                found = executor_here(name)
                if needs_store:
                    require_store(found)
                fn(found, Out(as_json), **given)

        return t.cast("t.Callable[..., None]", run)

    return decorate


def executor_here(name: str) -> t.Any:
    """Return an executor of the current app, which claims no tasks in this process."""
    app = t.cast(t.Any, current_app())
    found = app.extensions.get(f"{name}executor")
    if found is None:
        raise Ended(NOT_FOUND, _unknown(app, name))
    # A command runs the tasks of others only if that is its purpose.
    app.config[config_key(prefix_of(name), "store_run")] = False
    return found


def require_store(executor: t.Any) -> None:
    """End the command if the executor has no store, and say why that matters."""
    if executor._state().settings.store is None:
        key = config_key(prefix_of(executor.name), "store")
        raise Ended(
            NO,
            f"{key} is not set, so there is no store, and this process cannot see the"
            " tasks of any other: each process knows only its own. Set it, for example"
            " to 'sqlite:///tasks.db'.",
        )


def node_of(executor: t.Any) -> t.Any:
    """Return what ties this process to the store."""
    return executor._state().dispatcher.node


def id_of(executor: t.Any, word: str) -> str:
    """Return the id of a task, of which the id or the key is given.

    :raises UnknownTask: if there is neither.
    """
    if executor.task(word) is not None:
        return word
    future = executor.futures.get(word)
    if future is None or future.task is None:
        raise UnknownTask(word)
    return t.cast(str, future.task.id)


def _unknown(app: t.Any, name: str) -> str:
    known = [
        key.removesuffix("executor") or "''"
        for key, value in app.extensions.items()
        if key.endswith("executor") and hasattr(value, "submit_stored")
    ]
    if not known:
        return f"The app {app.name!r} has no executor: call Executor(app) in it."
    return (
        f"The app {app.name!r} has no executor named {name!r}, only"
        f" {', '.join(known)}: choose one with --executor."
    )
