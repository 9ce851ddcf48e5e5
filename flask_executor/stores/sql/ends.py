"""The ends of attempts and of tasks, each written once.

Every statement here tests the fence in its own ``WHERE``. In PostgreSQL an update that
has waited for another transaction tests it again on the row as that has left it. So of
a late worker, the reaper and a cancellation one is first, and the others find a task
that has ended, or an epoch that is not theirs.

The result, the row of the attempt and the count of the group are written in the same
transaction as the end. Groups are counted in the order of their ids, so that two
transactions never wait for each other.
"""

from __future__ import annotations

import json
import typing as t

from sqlalchemy import Connection

from ..records import Fence, Finish, RetryLater
from .claims import FENCE, fence_row
from .statements import Statements
from .stats import Stats

_FENCED = """
    t.id = g.task_id AND t.owner = g.held_by AND t.epoch = g.at_epoch
    AND t.finished IS NULL
"""
_FINISH = """
    UPDATE {task} AS t {by_id} SET state = g.ends_as, finished = {now}, result_size =
    g.size,
        error_class = g.why_class, error_text = g.why_text, traceback = g.trace
    FROM %s WHERE %s
    RETURNING {ended}, error_class
"""
# The reply to a commit may be lost. Then the same end comes again.
_WRITTEN = """
    SELECT t.id FROM {task} AS t JOIN %s ON t.id = g.task_id
    WHERE t.owner = g.held_by AND t.epoch = g.at_epoch AND t.state = g.ends_as
"""
# A task of others may run anywhere next; nobody else has the call of an ephemeral one.
_RETRY = """
    UPDATE {task} AS t {by_id} SET state = 'retrying', due = {now} + g.pause,
        owner = CASE WHEN t.guarantee = 'ephemeral' THEN t.owner END,
        error_class = g.why_class, error_text = g.why_text
    FROM %s WHERE %s AND t.state = 'running'
    RETURNING id
"""
_RELEASE = """
    UPDATE {task} AS t {by_id} SET owner = NULL, claimed = NULL,
        state = CASE WHEN t.cancel = 1 THEN 'cancelled' ELSE 'waiting' END,
        finished = CASE WHEN t.cancel = 1 THEN {now} END
    FROM %s WHERE %s AND t.state = 'held' AND t.guarantee <> 'ephemeral'
    RETURNING {ended}
"""
_PROGRESS = """
    UPDATE {task} AS t {by_id} SET progress = g.progress
    FROM %s WHERE %s AND t.state = 'running' RETURNING id
"""
# In one statement: between two, somebody could claim it.
_CANCEL = """
    UPDATE {task} SET cancel = 1,
        state = CASE WHEN owner IS NULL THEN 'cancelled' ELSE state END,
        finished = CASE WHEN owner IS NULL THEN {now} END
    WHERE uid = :uid AND finished IS NULL RETURNING {ended}
"""
ENDED = "id, job, state, group_id, due, submitted, begun, finished"
"""What :meth:`Ends.ended` must know of a task."""
_FAILED = ("failed", "timed_out", "interrupted")


class Progress(t.NamedTuple):
    """The progress of a running task."""

    fence: Fence
    value: t.Any


class Ends:
    """The statements that end attempts and tasks."""

    def __init__(self, sql: Statements, stats: Stats) -> None:
        self._sql = sql
        self._stats = stats
        why = {"why_class": "text", "why_text": "text"}
        given = sql.given(ends_as="text", size="int", trace="text", **why, **FENCE)
        self._finish = sql.text(_FINISH % (given, _FENCED), ended=ENDED)
        self._written = sql.text(_WRITTEN % given)
        given = sql.given(pause="real", **why, **FENCE)
        self._retry = sql.text(_RETRY % (given, _FENCED))
        release = _RELEASE % (sql.given(**FENCE), _FENCED)
        self._release = sql.text(release, ended=ENDED)
        given = sql.given(progress="text", **FENCE)
        self._progress = sql.text(_PROGRESS % (given, _FENCED))
        self._cancel = sql.text(_CANCEL, ended=ENDED)
        self._result = sql.text(
            "INSERT INTO {result} (task_id, format, data, signature)"
            " VALUES (:task_id, :format, :data, :signature)"
        )
        self._attempt = sql.text(
            'INSERT INTO {attempt} (task_id, number, begun, ended, "end", error_class,'
            " error_text) SELECT t.id, t.attempt, t.begun, {now}, :end, :error_class,"
            " COALESCE(:error_text, t.error_text) FROM {task} AS t"
            " WHERE t.id = :task_id AND NOT EXISTS (SELECT 1"
            " FROM {attempt} AS a WHERE a.task_id = t.id AND a.number = t.attempt)"
        )
        self._counted = sql.text(
            "UPDATE {grp} SET done = done + :done, failed = failed + :failed"
            " WHERE id = :group_id"
        )

    def finish(self, db: Connection, ends: t.Sequence[Finish]) -> list[bool]:
        """Write ends; return for each if it is there."""
        rows = [_finish_row(end) for end in ends]
        written = {row.id: row for row in self._sql.run(db, self._finish, rows)}
        results = [
            {"task_id": end.fence.id, **end.result._asdict()}
            for end in ends
            if end.result is not None and end.fence.id in written
        ]
        if results:
            self._sql.run_for_each(db, self._result, results)
        for row in written.values():
            if row.state in _FAILED and row.begun is not None:
                self.note_attempt(db, row, row.state, row.error_class)
        self.ended(db, written.values())
        there = {*written}
        if len(written) < len(ends):
            late = [row for row in rows if row["task_id"] not in written]
            there |= {row.id for row in self._sql.run(db, self._written, late)}
        return [end.fence.id in there for end in ends]

    def retry_later(
        self, db: Connection, retries: t.Sequence[RetryLater]
    ) -> list[bool]:
        """Let tasks wait for their next attempt."""
        rows = [
            fence_row(
                one.fence,
                pause=one.pause,
                why_class=clean(one.error_class),
                why_text=clean(one.error_text),
            )
            for one in retries
        ]
        done = {row.id: row for row in self._sql.run(db, self._retry, rows)}
        for one in retries:
            if (row := done.get(one.fence.id)) is not None:
                self.note_attempt(db, row, one.end, clean(one.error_class))
        return [one.fence.id in done for one in retries]

    def release(self, db: Connection, fences: t.Sequence[Fence]) -> list[bool]:
        """Hand back tasks that have not begun."""
        rows = self._sql.run(db, self._release, [fence_row(one) for one in fences])
        self.ended(db, [row for row in rows if row.finished is not None])
        released = {row.id for row in rows}
        return [fence.id in released for fence in fences]

    def progress(self, db: Connection, reports: t.Sequence[Progress]) -> list[bool]:
        """Write progress; of several reports of one task the last one counts."""
        last = {one.fence: one.value for one in reports}
        rows = [
            fence_row(fence, progress=json.dumps(value))
            for fence, value in last.items()
        ]
        there = {row.id for row in self._sql.run(db, self._progress, rows)}
        return [one.fence.id in there for one in reports]

    def cancel(self, db: Connection, uids: t.Sequence[str]) -> list[t.Any]:
        """Cancel what nobody has, ask the owners of the rest; return the states."""
        found = []
        for uid in uids:
            rows = self._sql.run(db, self._cancel, uid=uid)
            self.ended(db, [row for row in rows if row.finished is not None])
            found.append(rows[0].state if rows else None)
        return found

    def note_attempt(
        self,
        db: Connection,
        row: t.Any,
        end: str,
        error_class: str | None,
        error_text: str | None = None,
    ) -> None:
        """Write down the last attempt, which did not succeed, unless that was done.

        :param error_text: if it is not that of the task.
        """
        self._sql.run(
            db,
            self._attempt,
            task_id=row.id,
            end=end,
            error_class=error_class,
            error_text=error_text,
        )

    def ended(self, db: Connection, rows: t.Iterable[t.Any]) -> None:
        """Count tasks that have ended, in the statistics and in their groups."""
        ended: dict[int, tuple[int, int]] = {}
        for row in rows:
            self._stats.note(row)
            if row.group_id is not None:
                done, failed = ended.get(row.group_id, (0, 0))
                ended[row.group_id] = done + 1, failed + (row.state in _FAILED)
        for group_id in sorted(ended):
            done, failed = ended[group_id]
            values: dict[str, t.Any] = {
                "done": done,
                "failed": failed,
                "group_id": group_id,
            }
            self._sql.run(db, self._counted, **values)


def _finish_row(end: Finish) -> dict[str, t.Any]:
    return fence_row(
        end.fence,
        ends_as=end.state,
        size=None if end.result is None else len(end.result.data),
        why_class=clean(end.error_class),
        why_text=clean(end.error_text),
        trace=clean(end.traceback),
    )


def clean(text: str | None) -> str | None:
    """Return a text that every database takes: an end must not fail for its message."""
    if text is None:
        return None
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")
