"""The ``with`` block of a group: it waits for all members, and raises what failed."""

from __future__ import annotations

import asyncio
import contextlib
import typing as t
from concurrent.futures import CancelledError

from .attempt import Attempt
from .current import running
from .errors import TaskCancelled
from .members import Members

_PASS_THROUGH = (KeyboardInterrupt, SystemExit, GeneratorExit)
_CANCELLED = (CancelledError, asyncio.CancelledError)


class Block:
    """The end of a group's ``with`` block.

    :param group: only its ``repr`` is used, in messages.
    """

    def __init__(self, group: object, members: Members) -> None:
        self._group = group
        self._members = members

    def leave(self, error: BaseException | None) -> None:
        """Wait for the members, and raise what failed.

        :param error: what the block itself raised, or None.
        """
        members = self._members
        if error is not None:
            members.stop()
        try:
            self._outlast()
        finally:
            members.close(by_force=True)
        self._raise_failures(error)

    async def leave_awaiting(self, error: BaseException | None) -> None:
        """Do what :meth:`leave` does, without blocking the event loop."""
        members = self._members
        if error is not None:
            members.stop()
        try:
            await self._outlast_awaiting()
        except asyncio.CancelledError as cancelled:
            self._raise_failures(cancelled if error is None else error)
            raise
        finally:
            members.close(by_force=True)
        self._raise_failures(error)

    def _outlast(self) -> None:
        members = self._members
        undo = self._stop_with_task()
        try:
            while not members.close():
                members.wait(None)
        except BaseException:
            # As at Ctrl-C in asyncio and trio: no member outlives the block.
            members.stop()
            members.wait(None)
            raise
        finally:
            undo()

    async def _outlast_awaiting(self) -> None:
        members = self._members
        try:
            while not members.close():
                await members.all_ended()
        except asyncio.CancelledError:
            members.stop()
            while not members.close():
                with contextlib.suppress(asyncio.CancelledError):
                    await members.all_ended()
            raise

    def _stop_with_task(self) -> t.Callable[[], None]:
        """Ask the members to stop as soon as the task that waits here is asked to.

        :return: a function that undoes this.
        """
        inside = running.get()
        if isinstance(inside, Attempt):
            return inside.call_on_stop(self._members.stop_with_task)
        return lambda: None

    def _raise_failures(self, error: BaseException | None) -> None:
        """Raise what failed, together.

        :param error: what the block itself raised. If nothing else is raised, it goes
            on by itself.
        """
        if isinstance(error, _PASS_THROUGH):
            return
        failures = self._members.failures()
        if not (
            error is None
            or isinstance(error, _CANCELLED)
            # The block may have asked a member for its result.
            or any(error is one for one in failures)
        ):
            failures.append(error)
        if failures:
            self._raise_together(failures)
        inside = running.get()
        if self._members.told_to_stop and error is None and inside is not None:
            raise TaskCancelled(inside.name)

    def _raise_together(self, failures: list[BaseException]) -> t.NoReturn:
        message = f"failures in {self._group!r}"
        try:
            raise BaseExceptionGroup(message, failures) from None
        finally:
            # The traceback keeps this frame, which must not keep the failures.
            del failures
