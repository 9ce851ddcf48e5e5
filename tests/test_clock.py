"""The clocks: the machine's, the timer that goes by one, and the one moved by hand."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import typing as t
import weakref
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from internals import Clock, Timer
from limits import LIMIT

from flask_executor.testing import ManualClock


@pytest.fixture
def timer() -> t.Iterator[Timer]:
    """A timer of the machine's clock; its thread is gone when the test has ended."""
    timer = Timer(Clock(), "executor_timer")
    yield timer
    timer.close(wait=True)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def driven(clock: ManualClock) -> Timer:
    """A timer that goes by the clock moved by hand."""
    return Timer(clock, "executor_timer")


def names_of_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


class Gone:
    """Something whose end can be seen."""


class TestTimer:
    def test_what_is_due_happens_on_its_thread(self, timer: Timer) -> None:
        """It happens once, on a thread that has the timer's name."""
        names: list[str] = []
        happened = threading.Event()

        def note(argument: str) -> None:
            names.append(f"{argument} {threading.current_thread().name}")
            happened.set()

        timer.at(timer.clock.monotonic(), note, "on")
        assert happened.wait(LIMIT)
        assert names == ["on executor_timer"]
        assert timer.next_due() is None

    def test_the_earlier_goes_first(self, timer: Timer) -> None:
        """One that comes later and is due earlier is not kept waiting."""
        due = timer.clock.monotonic() + 10 * LIMIT
        happened = threading.Event()
        far = timer.at(due, lambda _: None, None)
        timer.at(timer.clock.monotonic(), lambda _: happened.set(), None)
        assert happened.wait(LIMIT)
        assert timer.next_due() == due
        timer.cancel(far)

    def test_one_thread_serves_all(self, timer: Timer) -> None:
        """A second call does not start a second thread."""
        threads: list[threading.Thread] = []
        both = threading.Barrier(2)

        def note(_: object) -> None:
            threads.append(threading.current_thread())
            both.wait(LIMIT)

        for _ in range(2):
            timer.at(timer.clock.monotonic(), note, None)
            both.wait(LIMIT)
        assert threads[0] is threads[1]

    def test_with_no_calls_there_is_no_thread(self, timer: Timer) -> None:
        """The thread starts with the first call, and ends after the last one once
        the timer is closed.
        """
        assert "executor_timer" not in names_of_threads()
        handle = timer.at(timer.clock.monotonic() + 10 * LIMIT, lambda _: None, None)
        assert "executor_timer" in names_of_threads()
        timer.cancel(handle)
        timer.close(wait=True)
        assert "executor_timer" not in names_of_threads()

    def test_closed_it_does_what_is_left(self, timer: Timer) -> None:
        """What is not due yet when it is closed happens all the same."""
        happened: list[float] = []
        due = timer.clock.monotonic() + 0.01
        timer.at(due, lambda _: happened.append(time.monotonic()), None)
        timer.close(wait=True)
        (at,) = happened
        assert at >= due

    def test_it_may_be_closed_by_what_it_calls(self, timer: Timer) -> None:
        """Its own thread, which it can tell, does not wait for itself."""
        closed = threading.Event()

        def close(_: object) -> None:
            assert timer.is_own_thread
            timer.close(wait=True)
            closed.set()

        timer.at(timer.clock.monotonic(), close, None)
        assert closed.wait(LIMIT)
        assert not timer.is_own_thread

    def test_an_idle_thread_ends_and_a_new_one_follows(
        self, timer: Timer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With nothing to wait for the thread ends; the next call starts another."""
        monkeypatch.setattr("flask_executor.dispatch.timer._IDLE", 0.001)
        threads: list[threading.Thread] = []
        for count in (1, 2):
            happened = threading.Event()

            def note(_: object, happened: threading.Event = happened) -> None:
                threads.append(threading.current_thread())
                happened.set()

            timer.at(timer.clock.monotonic(), note, None)
            assert happened.wait(LIMIT)
            threads[-1].join(LIMIT)
            assert not threads[-1].is_alive()
            assert len(set(threads)) == count


class TestDrivenTimer:
    def test_it_has_no_thread(self, driven: Timer) -> None:
        """A clock moved by hand calls what is due itself."""
        driven.at(driven.clock.monotonic(), lambda _: None, None)
        assert "executor_timer" not in names_of_threads()
        driven.close(wait=True)

    def test_cancelled(self, clock: ManualClock, driven: Timer) -> None:
        """A call that is cancelled does not happen, and its argument is released."""
        happened: list[object] = []
        argument = Gone()
        gone = weakref.ref(argument)
        handle = driven.at(clock.monotonic() + 1, happened.append, argument)
        del argument
        driven.cancel(handle)
        gc.collect()
        assert gone() is None
        assert driven.next_due() is None
        clock.advance(2)
        assert happened == []

    def test_cancelled_too_late(self, clock: ManualClock, driven: Timer) -> None:
        """Cancelling one that has happened changes nothing."""
        happened: list[object] = []
        handle = driven.at(clock.monotonic() + 1, happened.append, "once")
        clock.advance(1)
        driven.cancel(handle)
        driven.cancel(handle)
        clock.advance(1)
        assert happened == ["once"]

    def test_what_happened_is_let_go(self, clock: ManualClock, driven: Timer) -> None:
        """Nothing refers to the argument of a call that has happened."""
        argument = Gone()
        gone = weakref.ref(argument)
        handle = driven.at(clock.monotonic(), lambda _: None, argument)
        del argument
        clock.advance(0)
        gc.collect()
        assert gone() is None
        assert handle.take() is None

    def test_many_cancelled_take_no_room(
        self, clock: ManualClock, driven: Timer
    ) -> None:
        """Those cancelled are thrown out once they are the greater part; the others
        happen all the same.
        """
        happened: list[object] = []
        start = clock.monotonic()
        kept = [driven.at(start + n, happened.append, n) for n in range(10)]
        for n in range(1000):
            driven.cancel(driven.at(start + n, happened.append, n))
        assert len(driven._heap) < 250
        clock.advance(1000)
        assert happened == list(range(len(kept)))

    def test_a_failure_stops_no_other(
        self, clock: ManualClock, driven: Timer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What raises is told on the standard error, and the next one happens."""
        happened: list[object] = []

        def fail(_: object) -> None:
            raise SystemExit("one of them")

        driven.at(clock.monotonic() + 1, fail, None)
        driven.at(clock.monotonic() + 1, happened.append, "next")
        clock.advance(1)
        assert happened == ["next"]
        assert "SystemExit: one of them" in capsys.readouterr().err


class TestManualClock:
    def test_it_begins_now_and_stands_still(self, clock: ManualClock) -> None:
        """It shows the time of the machine at which it was made, and stays there."""
        assert abs(clock.monotonic() - time.monotonic()) < LIMIT
        assert abs(clock.time() - time.time()) < LIMIT
        first = clock.monotonic(), clock.time()
        while time.monotonic() == first[0] or time.time() == first[1]:
            pass
        assert (clock.monotonic(), clock.time()) == first

    def test_both_times_move(self, clock: ManualClock) -> None:
        """Seconds or a timedelta move the monotonic time and that of the day."""
        before, moment = clock.monotonic(), clock.now()
        clock.advance(0.5)
        clock.advance(timedelta(minutes=1))
        assert clock.monotonic() == pytest.approx(before + 60.5)
        passed = clock.now() - moment
        assert passed.total_seconds() == pytest.approx(60.5, abs=1e-5)
        assert clock.now().tzinfo is UTC
        assert clock.now().timestamp() == pytest.approx(clock.time(), abs=1e-5)

    def test_to_a_moment(self, clock: ManualClock) -> None:
        """It can be moved to a moment in any time zone."""
        moment = datetime(2100, 1, 1, 3, tzinfo=UTC)
        clock.advance_to(moment.astimezone())
        assert abs(clock.now() - moment) < timedelta(milliseconds=1)
        assert "2100-01-01" in repr(clock) or "2099-12-31 23:59:59.99" in repr(clock)

    def test_never_back(self, clock: ManualClock) -> None:
        """A clock does not go back, and a moment without a time zone is none."""
        with pytest.raises(ValueError, match=r"advance\(-1\): a clock does not go"):
            clock.advance(-1)
        with pytest.raises(ValueError, match="a clock does not go back"):
            clock.advance_to(datetime(2000, 1, 1, tzinfo=UTC))
        with pytest.raises(ValueError, match="the time zone is missing"):
            clock.advance_to(datetime(2100, 1, 1))

    def test_on_the_way(self, clock: ManualClock, driven: Timer) -> None:
        """Each call happens at its own time and on this thread; one that is set on
        the way and due on the way happens, too.
        """
        start = clock.monotonic()
        seen: list[tuple[str, float, int]] = []

        def note(name: str) -> None:
            seen.append((name, clock.monotonic() - start, threading.get_ident()))

        def chain(name: str) -> None:
            note(name)
            driven.at(clock.monotonic() + 2, note, "chained")

        driven.at(start + 5, note, "last")
        driven.at(start + 1, chain, "first")
        driven.at(start + 7, note, "not yet")
        clock.advance(6)
        here = threading.get_ident()
        names = [name for name, *_ in seen]
        assert names == ["first", "chained", "last"]
        assert [at for _, at, _ in seen] == pytest.approx([1, 3, 5])
        assert {thread for *_, thread in seen} == {here}
        assert clock.monotonic() == pytest.approx(start + 6)

    def test_timers_share_the_order(self, clock: ManualClock) -> None:
        """What several timers have is done in one order; equals as the timers came."""
        timers = [Timer(clock, "executor_timer") for _ in range(2)]
        seen: list[str] = []
        start = clock.monotonic()
        timers[1].at(start + 1, seen.append, "1 at 1")
        timers[1].at(start + 3, seen.append, "1 at 3")
        timers[0].at(start + 2, seen.append, "0 at 2")
        timers[0].at(start + 3, seen.append, "0 at 3")
        clock.advance(3)
        assert seen == ["1 at 1", "0 at 2", "0 at 3", "1 at 3"]

    def test_moved_by_what_happens(self, clock: ManualClock, driven: Timer) -> None:
        """What happens may move the clock itself, and it never goes back."""
        start = clock.monotonic()
        seen: list[str] = []
        driven.at(start + 1, clock.advance, 10)
        driven.at(start + 5, seen.append, "in between")
        clock.advance(2)
        assert seen == ["in between"]
        assert clock.monotonic() == pytest.approx(start + 11)

    def test_timers_are_not_kept(self, clock: ManualClock) -> None:
        """A timer that nobody needs is gone, and what it had does not happen."""
        timer = Timer(clock, "executor_timer")
        seen: list[str] = []
        timer.at(clock.monotonic() + 1, seen.append, "lost")
        gone = weakref.ref(timer)
        del timer
        gc.collect()
        assert gone() is None
        clock.advance(2)
        assert seen == []

    @given(
        dues=st.lists(st.decimals(0, 10_000, places=3), min_size=1, max_size=20),
        cuts=st.lists(st.decimals(0, 10_000, places=3), max_size=20),
    )
    def test_steps_add_up(self, dues: list[t.Any], cuts: list[t.Any]) -> None:
        """However the way is cut into steps, what is due by then has happened, in
        order, and nothing else.
        """
        clock = ManualClock()
        timer = Timer(clock, "executor_timer")
        start = clock.monotonic()
        seen: list[t.Any] = []
        for due in dues:
            timer.at(start + float(due), seen.append, due)
        for here, there in itertools.pairwise([0, *sorted(cuts)]):
            clock.advance(float(there - here))
            assert seen == sorted(due for due in dues if due <= there)
