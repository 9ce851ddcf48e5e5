"""The command that runs saved tasks: ``flask executor worker``."""

from __future__ import annotations

import typing as t

import click
from flask.cli import with_appcontext

from ..contexts import current_app
from ..settings import config_key, prefix_of
from .common import (
    NO,
    Ended,
    executor_here,
    executor_option,
    explained,
    require_store,
)


@click.command("worker")
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    help="How many tasks run at once. Default: EXECUTOR_MAX_WORKERS.",
)
@click.option("--name", "shown", default="", help="What people call this worker.")
@executor_option
@with_appcontext
def worker(concurrency: int | None, shown: str, name: str) -> None:
    """Run saved tasks until SIGTERM or Ctrl-C.

    The first signal lets it end what runs, within EXECUTOR_DRAIN_TIMEOUT; what has not
    begun goes back at once. The second one ends it at once.
    """
    with explained():
        from ..sharing.worker import Worker

        found = executor_here(name)
        state = _state_of(found, {"max_workers": concurrency} if concurrency else {})
        _refuse_pools_without_workers(state, name)
        if len(found.periodic):
            found.periodic.start()
    raise SystemExit(Worker(state.dispatcher, shown).run())


def _state_of(executor: t.Any, settings: t.Mapping[str, t.Any]) -> t.Any:
    """Return the state of an executor with a store.

    :param settings: what counts more than the config, by field.
    """
    app, prefix = t.cast(t.Any, current_app()), prefix_of(executor.name)
    for field, value in settings.items():
        app.config[config_key(prefix, field)] = value
    require_store(executor)
    state = executor._state()
    for field, value in settings.items():
        if getattr(state.settings, field) != value:
            raise Ended(
                NO,
                f"{config_key(prefix, field)} cannot become {value!r} any more: the app"
                " used the executor while it was imported. Set it in the config.",
            )
    return state


def _refuse_pools_without_workers(state: t.Any, name: str) -> None:
    if state.pool_class.runs_in_caller:
        key = config_key(prefix_of(name), "type")
        raise Ended(
            NO,
            f"{key} is {state.kind!r}, which runs each call where it is submitted: a"
            " worker needs 'thread', 'process' or 'pebble'.",
        )


COMMANDS: dict[str, click.Command] = {"worker": worker}
