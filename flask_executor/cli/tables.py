"""The commands about what is stored: ``purge`` and ``store``."""

from __future__ import annotations

import re
import typing as t

import click

from ..verbs.records import ENDS
from .common import NO, node_of, verb
from .showing import Out, escaped, number

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MOST = 10_000


def _age(_: object, __: object, value: str | None) -> float | None:
    """Return the seconds of an age such as ``90s``, ``15m``, ``12h`` or ``30d``."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value)
    if found is None:
        text = f"{value!r} is no age: write it as 90s, 15m, 12h or 30d."
        raise click.BadParameter(text)
    return float(found[1]) * _UNITS[found[2]]


@click.command("purge")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(ENDS),
    help="Only tasks that have ended like this. Can be given several times.",
)
@click.option(
    "--older",
    callback=_age,
    metavar="AGE",
    help="Only what ended so long ago: 90s, 15m, 12h, 30d. Default:"
    " EXECUTOR_STORE_KEEP.",
)
@click.option("--yes", is_flag=True, help="Do it, after the number is known.")
@verb()
def purge(
    executor: t.Any, out: Out, states: tuple[str, ...], older: float | None, yes: bool
) -> None:
    """Remove tasks that have ended, with what is saved of them.

    It says how many these are, and removes nothing without --yes.
    """
    node = node_of(executor)
    keep = {
        state: node.settings.keep_times.get(state) if older is None else older
        for state in states or ENDS
    }
    ages = {state: age for state, age in keep.items() if age is not None}
    counts = {s: node.store.count_ended(s, age, _MOST) for s, age in ages.items()}
    found = sum(counts.values())
    removed = _remove(node.store, ages) if yes and found else 0
    or_more = " or more" if _MOST in counts.values() else ""
    lines = [f"{number(found, 'task')}{or_more} ended so long ago."]
    if removed:
        lines = [f"{number(removed, 'task')} removed."]
    elif found:
        lines.append("Nothing was removed: add --yes.")
    out.tell({"matched": found, "done": removed}, *lines)
    if found and not yes:
        raise SystemExit(NO)


def _remove(store: t.Any, ages: dict[str, float]) -> int:
    removed = 0
    while some := store.prune(ages):
        removed += some
    return removed


@click.group("store")
def store() -> None:
    """Look after the tables of the store."""


@store.command("upgrade")
@verb()
def upgrade(executor: t.Any, out: Out) -> None:
    """Bring the tables up to date, and make them if there are none."""
    opened = node_of(executor).store
    steps, where = opened.upgrade(), opened.database.shown
    what = "are up to date" if not steps else "were brought up to date"
    text = f"The tables in {escaped(where)} {what}."
    out.tell({"store": where, "steps": steps}, text)


@store.command("check")
@verb()
def check(executor: t.Any, out: Out) -> None:
    """Say what is missing in the tables; the exit code is 1 then."""
    opened = node_of(executor).store
    missing, where = opened.check(), opened.database.shown
    out.tell({"store": where, "missing": missing})
    out.print(*(f"missing: {escaped(one)}" for one in missing))
    if missing:
        click.echo("Run 'flask executor store upgrade'.", err=True)
        raise SystemExit(NO)
    out.print(f"The tables in {escaped(where)} are complete.")


COMMANDS: dict[str, click.Command] = {"purge": purge, "store": store}
