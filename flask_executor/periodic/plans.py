"""Plans: which job runs when; as it was declared, or from the config."""

from __future__ import annotations

import inspect
import pkgutil
import typing as t
from dataclasses import dataclass

from ..checks import seconds
from ..errors import InvalidOption, InvalidSchedule, InvalidSetting
from ..jobs import ExecutorJob
from ..task import name_of
from .cron import Cron
from .schedules import Every, Missed, Schedule

AnyJob = ExecutorJob[..., t.Any]
T = t.TypeVar("T")
_KEYS = ("job", "cron", "timezone", "every", "missed", "jitter")


@dataclass(frozen=True, slots=True)
class Plan:
    """One periodic job: what runs, when, and what happens to missed ticks."""

    name: str
    """What it is called in ``executor.periodic`` and in the log."""
    job: AnyJob
    schedule: Schedule
    missed: Missed = "latest"
    jitter: float = 0.0
    """The most seconds by which a task starts later than its tick."""

    @classmethod
    def of(
        cls, job: AnyJob, schedule: Schedule, missed: object, jitter: object, name: str
    ) -> Plan:
        """Make a plan of what people write.

        :param name: its name; ``''`` for that of the job.
        :raises InvalidSchedule: if a value is not allowed, or the job needs arguments.
        """
        if missed not in t.get_args(Missed):
            raise InvalidSchedule("missed", missed, "'latest', 'all' or 'skip'")
        _refuse_arguments(job)
        try:
            most = 0.0 if jitter is None else seconds("jitter", jitter)
        except InvalidOption as error:
            raise InvalidSchedule("jitter", jitter, error.allowed) from None
        return cls(
            name or name_of_job(job), job, schedule, t.cast(Missed, missed), most
        )


def name_of_job(job: AnyJob) -> str:
    """Return the name of a job's tasks."""
    return t.cast("str | None", job.options.get("name")) or name_of(job.fn)


def _refuse_arguments(job: AnyJob) -> None:
    try:
        signature = inspect.signature(job.fn)
    except (TypeError, ValueError):  # a builtin that does not tell
        return
    try:
        signature.bind()
    except TypeError as error:
        allowed = f"a function that needs no arguments ({error})"
        raise InvalidSchedule("job", name_of(job.fn), allowed) from None


class Configured:
    """A plan as the config has it; the job is imported at first use.

    :param key: the config key, for messages.
    :param value: the entry there.
    :raises InvalidSetting: if the entry is not understood.
    """

    def __init__(self, key: str, name: object, value: object) -> None:
        self._key = f"{key}[{name!r}]"
        self._value = value
        if not (isinstance(name, str) and name):
            raise InvalidSetting(key, name, "a text as the name of each job")
        if not isinstance(value, dict) or not {*value} <= {*_KEYS}:
            raise self._refused("a dictionary with the keys " + ", ".join(_KEYS))
        if not value.get("job") or ("cron" in value) == ("every" in value):
            raise self._refused("'job', and either 'cron' or 'every'")
        self.name: str = name
        self._schedule = self._checked(lambda: _schedule_of(value))

    def plan(self, declare: t.Callable[[t.Any], AnyJob]) -> Plan:
        """Import the job, and make the plan.

        :param declare: makes a job of a function.
        :raises InvalidSetting: if there is no such job, or a value is not allowed.
        """
        value = t.cast("dict[str, t.Any]", self._value)
        found = value["job"]
        if isinstance(found, str):
            try:
                found = pkgutil.resolve_name(found)
            except (ImportError, AttributeError, ValueError) as error:
                allowed = f"'module:function' as the job ({error})"
                raise self._refused(allowed) from error
        if not callable(found):
            raise self._refused("a job, a function, or 'module:function' as the job")
        job = found if type(found) is ExecutorJob else declare(found)
        missed, jitter = value.get("missed", "latest"), value.get("jitter")
        return self._checked(
            lambda: Plan.of(job, self._schedule, missed, jitter, self.name)
        )

    def _checked(self, make: t.Callable[[], T]) -> T:
        try:
            return make()
        except InvalidSchedule as error:
            raise self._refused(f"{error.allowed} as {error.what!r}") from error

    def _refused(self, allowed: str) -> InvalidSetting:
        return InvalidSetting(self._key, self._value, allowed)


def _schedule_of(value: dict[str, t.Any]) -> Schedule:
    if "every" not in value:
        return Cron(value["cron"], value.get("timezone", "UTC"))
    if "timezone" in value:
        raise InvalidSchedule("timezone", value["timezone"], "it with cron only")
    return Every.of(value["every"])
