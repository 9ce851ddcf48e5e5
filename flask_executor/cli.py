"""The commands ``flask executor ...``.

This module is loaded for each command of ``flask``, so it imports the store only where
that is needed.
"""

from __future__ import annotations

import typing as t

import click
from flask.cli import with_appcontext

from .contexts import current_app
from .settings import config_key, prefix_of

_name = click.option(
    "--executor", "name", default="", metavar="NAME", help="The name of the executor."
)


@click.group("executor")
def executor() -> None:
    """Run saved tasks, and look after the store of Flask-Executor."""


@executor.command("worker")
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    help="How many tasks run at once. Default: EXECUTOR_MAX_WORKERS.",
)
@click.option("--name", "shown", default="", help="What people call this worker.")
@_name
@with_appcontext
def worker(concurrency: int | None, shown: str, name: str) -> None:
    """Run saved tasks until SIGTERM or Ctrl-C.

    The first signal lets it end what runs, within EXECUTOR_DRAIN_TIMEOUT; what has not
    begun goes back at once. The second one ends it at once.
    """
    from .sharing.worker import Worker

    state = _state_of(name, {"max_workers": concurrency} if concurrency else {})
    _refuse_pools_without_workers(state, name)
    _start_periodic(name)
    raise SystemExit(Worker(state.dispatcher, shown).run())


@executor.group("store")
def store() -> None:
    """Look after the tables of the store."""


@store.command("upgrade")
@_name
@with_appcontext
def upgrade(name: str) -> None:
    """Bring the tables up to date, and make them if there are none."""
    opened = _store_of(name)
    steps = _explained(opened.upgrade)
    what = "are up to date" if not steps else "were brought up to date"
    click.echo(f"The tables in {opened.database.shown} {what}.")


@store.command("check")
@_name
@with_appcontext
def check(name: str) -> None:
    """Say what is missing in the tables; the exit code is 1 then."""
    opened = _store_of(name)
    missing = _explained(opened.check)
    for one in missing:
        click.echo(f"missing: {one}")
    if missing:
        click.echo("Run 'flask executor store upgrade'.", err=True)
        raise SystemExit(1)
    click.echo(f"The tables in {opened.database.shown} are complete.")


def _state_of(name: str, settings: t.Mapping[str, t.Any]) -> t.Any:
    """Return the state of an executor with a store, for the current app.

    :param settings: what counts more than the config, by field.
    """
    app = t.cast(t.Any, current_app())
    found = app.extensions.get(f"{name}executor")
    if found is None:
        raise click.ClickException(_unknown(app, name))
    state, prefix = found._state(), prefix_of(name)
    for field, value in settings.items():
        app.config[config_key(prefix, field)] = value
    if _explained(lambda: state.settings).store is None:
        raise click.ClickException(
            f"{config_key(prefix, 'store')} is not set, so there is no store: set it,"
            " for example to 'sqlite:///tasks.db'."
        )
    for field, value in settings.items():
        if getattr(state.settings, field) != value:
            raise click.ClickException(
                f"{config_key(prefix, field)} cannot become {value!r} any more: the app"
                " used the executor while it was imported. Set it in the config."
            )
    _explained(lambda: state.dispatcher)
    return state


def _start_periodic(name: str) -> None:
    """Run the periodic jobs at their times, if there are any."""
    found = t.cast(t.Any, current_app()).extensions[f"{name}executor"]
    if _explained(lambda: len(found.periodic)):
        found.periodic.start()


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


def _refuse_pools_without_workers(state: t.Any, name: str) -> None:
    if state.pool_class.runs_in_caller:
        key = config_key(prefix_of(name), "type")
        raise click.ClickException(
            f"{key} is {state.kind!r}, which runs each call where it is submitted: a"
            " worker needs 'thread', 'process' or 'pebble'."
        )


def _store_of(name: str) -> t.Any:
    return _state_of(name, {}).dispatcher.node.store


def _explained(fn: t.Callable[[], t.Any]) -> t.Any:
    """Call a function; end the command with the text of what goes wrong."""
    try:
        return fn()
    except (ValueError, RuntimeError, ConnectionError) as error:
        raise click.ClickException(str(error)) from error
