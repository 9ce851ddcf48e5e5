"""From a schedule to its ticks: calendars, time zones, and what was missed."""

from __future__ import annotations

import itertools
import sys
import typing as t
from datetime import UTC, datetime, timedelta
from unittest import mock
from zoneinfo import ZoneInfo

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from internals import Cron, Every, due_ticks, latest_tick

from flask_executor import InvalidSchedule, PeriodicNotInstalled

MINUTE = 60
BERLIN = "Europe/Berlin"
ZONES = [
    *("UTC", BERLIN, "America/New_York", "America/St_Johns", "America/Sao_Paulo"),
    *("Australia/Lord_Howe", "Africa/Casablanca", "Asia/Gaza", "Asia/Kolkata"),
    *("Pacific/Apia", "Pacific/Chatham", "Europe/Dublin", "Africa/Cairo"),
]
"""Half hours, changes at midnight, twice in weeks, a day left out, winter in summer."""


def at(text: str, zone: str = BERLIN, fold: int = 0) -> float:
    """The moment at which the clock of a zone shows a time, the first time or again."""
    shown = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return shown.timestamp()


def ticks(schedule: t.Any, since: float, count: int) -> list[float]:
    found: list[float] = []
    for _ in range(count):
        since = schedule.after(since)
        found.append(since)
    return found


def in_utc(moments: list[float]) -> list[str]:
    return [f"{datetime.fromtimestamp(one, UTC):%d %H:%M}" for one in moments]


# Cron, on days without a change


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("*/20 * * * *", ["01 00:20", "01 00:40", "01 01:00"]),
        ("5 4 * * *", ["01 04:05", "02 04:05", "03 04:05"]),
        ("0 22 * * 1-5", ["02 22:00", "03 22:00", "04 22:00"]),
        ("0 0 L * *", ["30 00:00", "31 00:00", "31 00:00"]),
        ("0 9 * * mon#1", ["02 09:00", "07 09:00", "04 09:00"]),
        ("0 4-4 * * sun-SUN", ["01 04:00", "08 04:00", "15 04:00"]),
        ("5-5/2 3,4-4 * * *", ["01 03:05", "01 04:05", "02 03:05"]),
        ("@daily", ["02 00:00", "03 00:00", "04 00:00"]),
        ("0 12 1 * 1", ["01 12:00", "02 12:00", "09 12:00"]),
    ],
)
def test_the_calendar_is_croniter_s(expression: str, found: list[str]) -> None:
    """Steps, ranges, names, last days: a tick is after the moment, never at it."""
    since = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
    assert in_utc(ticks(Cron(expression), since, 3)) == found


def test_a_tick_is_never_the_moment_itself() -> None:
    """after() goes on from a tick, and from parts of a second beside it."""
    cron, noon = Cron("0 12 * * *"), at("2026-05-05 12:00", "UTC")
    day = timedelta(days=1).total_seconds()
    assert cron.after(noon - 0.001) == noon
    assert cron.after(noon) == cron.after(noon + 0.999) == noon + day


def test_times_are_those_of_the_zone() -> None:
    """9 o'clock is that of Berlin, in winter and in summer."""
    cron = Cron("0 9 * * *", BERLIN)
    assert cron.after(at("2026-01-10 00:00")) == at("2026-01-10 09:00")
    assert in_utc([cron.after(at("2026-01-10 00:00"))]) == ["10 08:00"]
    assert in_utc([cron.after(at("2026-07-10 00:00"))]) == ["10 07:00"]
    assert Cron("0 9 * * *", ZoneInfo(BERLIN)).after(0) == cron.after(0)


# The clock is set: on 29 March 2026 from 2 to 3, on 25 October from 3 to 2


def test_a_skipped_time_comes_right_after() -> None:
    """A job at half past two runs at three on that day, once."""
    cron = Cron("30 2 * * *", BERLIN)
    assert ticks(cron, at("2026-03-28 12:00"), 3) == [
        at("2026-03-29 03:00"),
        at("2026-03-30 02:30"),
        at("2026-03-31 02:30"),
    ]


def test_a_repeated_time_comes_once() -> None:
    """A job at half past two runs at the first of the two."""
    cron = Cron("30 2 * * *", BERLIN)
    assert ticks(cron, at("2026-10-24 12:00"), 2) == [
        at("2026-10-25 02:30", fold=0),
        at("2026-10-26 02:30"),
    ]
    assert cron.after(at("2026-10-25 02:10", fold=1)) == at("2026-10-26 02:30")


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_every_quarter_follows_the_time_that_passes(day: str) -> None:
    """A job with a * goes on every 15 minutes, whatever the clock shows."""
    cron = Cron("*/15 * * * *", BERLIN)
    found = ticks(cron, at(f"{day} 00:00"), 30)
    assert {b - a for a, b in itertools.pairwise(found)} == {900.0}


def test_each_hour_runs_in_both_of_the_repeated() -> None:
    """A job at half past each hour runs in each hour that passes."""
    found = ticks(Cron("30 * * * *", BERLIN), at("2026-10-25 00:00"), 5)
    assert {b - a for a, b in itertools.pairwise(found)} == {3600.0}


def test_ticks_at_one_moment_are_one() -> None:
    """Two skipped times, and one that is due at that moment anyway, are one tick."""
    cron = Cron("0,30 2,3 * * *", BERLIN)
    assert ticks(cron, at("2026-03-29 00:00"), 2) == [
        at("2026-03-29 03:00"),
        at("2026-03-29 03:30"),
    ]


def test_a_day_that_a_zone_left_out() -> None:
    """Samoa had no 30 December 2011; its job runs when the 31st begins."""
    found = ticks(Cron("0 12 * * *", "Pacific/Apia"), at("2011-12-29 00:00", "UTC"), 4)
    zone = ZoneInfo("Pacific/Apia")
    shown = [f"{datetime.fromtimestamp(one, zone):%d %H:%M}" for one in found]
    assert shown == ["29 12:00", "31 00:00", "31 12:00", "01 12:00"]


# Against a cron that lives through every minute


class Fields(t.NamedTuple):
    """A cron expression as sets; with day of month and of week, one is enough."""

    text: str
    minutes: set[int]
    hours: set[int]
    days: set[int] | None
    weekdays: set[int] | None

    def names(self, shown: datetime) -> bool:
        if shown.minute not in self.minutes or shown.hour not in self.hours:
            return False
        by_day = self.days is not None and shown.day in self.days
        by_week = self.weekdays is not None and shown.isoweekday() % 7 in self.weekdays
        return by_day or by_week or (self.days is None and self.weekdays is None)


@st.composite
def field(draw: st.DrawFn, size: int, usual: int) -> tuple[str, set[int]]:
    """One field, as text and as the numbers that it names; most are below ``usual``."""
    kind = draw(st.sampled_from(["*", "step", "list", "list", "range"]))
    if kind == "*":
        return "*", {*range(size)}
    if kind == "step":
        step = draw(st.integers(1, size))
        return f"*/{step}", {*range(0, size, step)}
    some = draw(st.sets(st.integers(0, usual - 1), min_size=1, max_size=3))
    if kind == "list":
        return ",".join(map(str, sorted(some))), some
    return f"{min(some)}-{max(some)}", {*range(min(some), max(some) + 1)}


@st.composite
def fields(draw: st.DrawFn) -> Fields:
    minute, minutes = draw(field(60, 60))
    hour, hours = draw(field(24, 5))
    day, days = draw(st.sampled_from([("*", None), ("1-28", {*range(1, 29)})]))
    weekday, weekdays = draw(
        st.sampled_from([("*", None), ("0", {0}), ("1-6", {*range(1, 7)})])
    )
    text = f"{minute} {hour} {day} * {weekday}"
    return Fields(text, minutes, hours, days, weekdays)


def lived_through(fields: Fields, zone: str, since: int, until: int) -> list[float]:
    """What a daemon does that wakes each minute and looks at the clock on the wall.

    As cronie: if the clock is ahead of what it has seen, jobs at a fixed time run for
    each minute that was left out. If it is behind, they wait until it has caught up.
    """
    minute, hour = fields.text.split()[:2]
    wildcard = minute.startswith("*") or hour.startswith("*")
    tz = ZoneInfo(zone)

    def shown_at(moment: int) -> datetime:
        return datetime.fromtimestamp(moment, tz).replace(tzinfo=None)

    seen, found = shown_at(since), []
    for moment in range(since + MINUTE, until + 1, MINUTE):
        shown = shown_at(moment)
        if wildcard:
            due = fields.names(shown)
        else:
            due = False
            while seen < shown:
                seen += timedelta(minutes=1)
                due = fields.names(seen) or due
        if due:
            found.append(float(moment))
    return found


def changes(zone: str, year: int) -> list[int]:
    """The moments of a year, to the hour, after which the clock of a zone is set."""
    first = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    days = changed(zone, range(first, first + 367 * 86_400, 86_400))
    hours = (range(day, day + 25 * 3600, 3600) for day in days)
    return [hour for one in hours for hour in changed(zone, one)]


def changed(zone: str, moments: range) -> list[int]:
    """The moments between which and the next one the clock is set."""
    tz = ZoneInfo(zone)
    offsets = [datetime.fromtimestamp(one, tz).utcoffset() for one in moments]
    pairs = zip(moments, itertools.pairwise(offsets), strict=False)
    return [moment for moment, (before, after) in pairs if before != after]


@pytest.mark.holds("g-ticks")
@settings(deadline=None, max_examples=150, phases=[Phase.generate, Phase.shrink])
@given(fields(), st.sampled_from(ZONES), st.integers(1972, 2060), st.data())
def test_it_does_what_a_daemon_does(
    fields: Fields, zone: str, year: int, data: st.DataObject
) -> None:
    """When clocks are set, in many zones and years, no tick is lost or comes twice."""
    around = data.draw(st.sampled_from(changes(zone, year) or [86_400 * 20_000]))
    since = around - data.draw(st.integers(1, 6)) * 3600
    until = since + 10 * 3600
    cron = Cron(fields.text, zone)
    found, moment = [], float(since)
    while (moment := cron.after(moment)) <= until:
        found.append(moment)
    assert found == lived_through(fields, zone, since, until)


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(["0 0 29 2 *", "30 2 * * 0", "*/7 1-3 * * *", "15 0 1 */3 *"]),
    st.sampled_from(ZONES),
    st.integers(850_000_000, 2_800_000_000),
    st.integers(0, 40 * 86_400),
)
@example("30 2 * * 0", BERLIN, int(at("2026-03-29 01:00")), 7200)
def test_where_one_begins_changes_nothing(
    expression: str, zone: str, since: int, further: int
) -> None:
    """The next tick after any moment before it is the same: processes agree."""
    cron = Cron(expression, zone)
    tick = cron.after(since)
    assert tick > since
    assert cron.after(since + (tick - since) * 0.999) == tick
    between = since + further
    assert cron.after(between) >= tick if between >= since else True


# Every so many seconds


def test_every_counts_from_1970() -> None:
    """All processes have the same ticks, whenever they have started."""
    hourly = Every.of(timedelta(hours=1))
    assert in_utc(ticks(hourly, at("2026-05-05 12:34", "UTC"), 2)) == [
        "05 13:00",
        "05 14:00",
    ]
    assert Every.of(90).after(0) == 90 and str(Every.of(90)) == "every 90 s"


@given(st.floats(0.001, 1e7), st.floats(0, 4e9))
def test_every_always_goes_on(interval: float, moment: float) -> None:
    """A tick is after its moment, and at most one interval later, however odd."""
    tick = Every.of(interval).after(moment)
    assert moment < tick <= moment + interval * 1.001 + 1e-6


# What was missed


@pytest.mark.parametrize(
    ("late", "missed", "found"),
    [
        (0, "latest", [0]),
        (0, "all", [0]),
        (0, "skip", [0]),
        (1000, "latest", [900]),
        (1000, "all", [0, 300, 600, 900]),
        (1000, "skip", []),
        (930, "skip", [900]),
        (59, "skip", [0]),
    ],
)
def test_missed_ticks(late: int, missed: t.Any, found: list[int]) -> None:
    """Of the ticks that are due the last one runs, or all, or none that is late."""
    first = 300.0 * 1_000_000
    due = due_ticks(Every(300.0), first, first + late, missed)
    assert [tick - first for tick in due] == found


def test_there_is_an_end_to_what_is_made_up_for() -> None:
    """After a month, 'all' runs the newest thousand of the ticks each second."""
    now = 2_000_000_000.0
    due = due_ticks(Every(1.0), now - 100_000, now, "all")
    assert len(due) == 1000 and due[-1] == now


@given(
    st.sampled_from(["0 3 * * *", "*/5 * * * *", "0 0 1 1 *", "* 3 1 * *"]), st.data()
)
def test_the_latest_tick(expression: str, data: st.DataObject) -> None:
    """It is the last of all up to now, however long ago the first one was."""
    cron = Cron(expression, BERLIN)
    first = cron.after(data.draw(st.integers(1_700_000_000, 1_800_000_000)))
    now = first + data.draw(st.integers(0, 10 ** data.draw(st.integers(1, 8))))
    last = latest_tick(cron, first, now)
    assert first <= last <= now < cron.after(last)


# What is refused


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("* * * *", "five fields: minute, hour"),
        ("* * * * * *", "five fields: minute, hour"),
        ("", "five fields"),
        (None, "a text of five fields"),
        ("61 * * * *", "out of range"),
        ("0 0 30 2 *", "which name a date that comes"),
        ("x * * * *", "not acceptable"),
        ("@reboot", "five fields"),
        ("@every 5m", "five fields"),
        ("R * * * *", "R and H would differ"),
        ("H(0-5) 0 * * *", "R and H would differ"),
    ],
)
def test_expressions_that_are_refused(expression: t.Any, words: str) -> None:
    """What names no time is refused with the value, the rule and croniter's reason."""
    with pytest.raises(InvalidSchedule, match="cron = ") as caught:
        Cron(expression)
    assert words in str(caught.value) and caught.value.value == expression
    assert isinstance(caught.value, ValueError)


def test_names_are_not_taken_for_random_fields() -> None:
    """March, Friday and Thursday hold an R and an H, and are understood."""
    assert Cron("0 0 * mar fri,THU").after(0) > 0


@pytest.mark.parametrize("zone", ["Europe/Berln", "", "../etc", "Europe", None, UTC, 3])
def test_zones_that_are_refused(zone: t.Any) -> None:
    """What is no zone is refused with the value and the way to install zones."""
    with pytest.raises(InvalidSchedule, match=r"timezone = .*'Europe/Berlin'.*tzdata"):
        Cron("0 0 * * *", zone)


@pytest.mark.parametrize(
    "interval",
    [0, -1, timedelta(0), timedelta(-1), float("inf"), float("nan"), "30", True, None],
)
def test_intervals_that_are_refused(interval: t.Any) -> None:
    """An interval is above 0."""
    with pytest.raises(
        InvalidSchedule, match=r"every = .* a number of seconds above 0"
    ):
        Every.of(interval)


def test_without_croniter() -> None:
    """The error of an expression says what to install."""
    with (
        mock.patch.dict(sys.modules, croniter=None),
        pytest.raises(PeriodicNotInstalled, match=r"pip install 'Flask-Executor\[per"),
    ):
        Cron("0 0 * * *")
    assert issubclass(PeriodicNotInstalled, ImportError)
