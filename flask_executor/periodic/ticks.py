"""Who runs a tick, and which jobs are paused: the place where a store takes over.

A store has the same methods (see ``sharing/ticks``): ``submit`` makes a row for the job
and the tick together with the task, and returns False if another process was first;
``last`` and ``is_paused`` are what all processes know. These two are asked on the
timer's thread, so a store answers from what it has read last. ``submit`` may take its
time. The function that it is given submits on the thread that calls it, in an empty
context.
"""

from __future__ import annotations

import typing as t


class Ticks(t.Protocol):
    """What is known of the ticks of the periodic jobs of an executor."""

    is_shared: bool
    """True if a tick runs once, whatever the number of processes."""
    is_ready: bool
    """True if the last ticks are known."""

    def begin(self, specs: t.Mapping[str, str], then: t.Callable[[], object]) -> None:
        """Note which jobs there are, and call a function when their ticks are known.

        :param specs: their schedules as text, by name.
        """

    def refresh(self) -> None:
        """Read what other processes have done meanwhile."""

    def submit(self, name: str, tick: float, submit: t.Callable[[], object]) -> bool:
        """Submit the task of a tick, unless another process has.

        :param name: the name of the job.
        :param submit: submits the task, once, and may raise.
        :return: False if another process has.
        """

    def last(self, name: str) -> float | None:
        """Return the last tick that was submitted, or None."""

    def is_paused(self, name: str) -> bool:
        """Return True if ticks of that job are left out."""

    def pause(self, name: str, paused: bool) -> None:
        """Leave out the ticks of a job from now on, or do so no longer."""


class OwnTicks:
    """The ticks of this process alone."""

    is_shared: bool = False
    is_ready: bool = True

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._paused: dict[str, None] = {}

    def begin(self, specs: t.Mapping[str, str], then: t.Callable[[], object]) -> None:
        """Call a function at once: there is nothing to read."""
        then()

    def refresh(self) -> None:
        """Do nothing: there are no others."""

    def submit(self, name: str, tick: float, submit: t.Callable[[], object]) -> bool:
        """Submit the task of a tick: this process runs each."""
        submit()
        self._last[name] = tick
        return True

    def last(self, name: str) -> float | None:
        """Return the last tick that was submitted, or None."""
        return self._last.get(name)

    def is_paused(self, name: str) -> bool:
        """Return True if ticks of that job are left out."""
        return name in self._paused

    def pause(self, name: str, paused: bool) -> None:
        """Leave out the ticks of a job from now on, or do so no longer."""
        if paused:
            self._paused[name] = None
        else:
            self._paused.pop(name, None)
