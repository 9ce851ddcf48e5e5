"""Running a saved task once more, as a new task.

What is saved of a call is signed for the id of its task. So it is checked and read with
the old id, and signed again for the new one.
"""

from __future__ import annotations

import os
import typing as t

from ..current import running
from ..errors import DuplicateKey, NotUnique
from ..store_errors import RetryRefused
from ..stores.records import NewTask, Record, Sealed, Taken
from .futures import StoredFuture
from .remote import key_of


def run_again(node: t.Any, record: Record) -> StoredFuture[t.Any]:
    """Insert a task that has ended once more; return the future of the new one.

    :raises RetryRefused: if it has not ended, or nothing is saved of its call.
    :raises PayloadRefused: if what is saved is forged or damaged.
    :raises DuplicateKey: if somebody else has run it again at the same moment.
    :raises NotUnique: if its ``unique`` value is taken.
    """
    sealed = _payload_of(node, record)
    new = _new(node, record, sealed)
    [outcome] = node.store.wait(node.store.insert([new]))
    if isinstance(outcome, Taken):
        if outcome.what == "key":
            raise DuplicateKey(key_of(record))
        holder = f"task {outcome.uid}"
        raise NotUnique(record.unique_key, holder, outcome.state, "raise")
    future = node.future_of(node.find("uid", new.uid))
    node.wake()
    return t.cast("StoredFuture[t.Any]", future)


def _payload_of(node: t.Any, record: Record) -> Sealed:
    if record.finished is None:
        reason = f"it is {record.state}, and has not ended. Cancel it first"
        raise RetryRefused(record.uid, record.name, reason)
    sealed: Sealed | None = node.store.payload(record.id)
    if sealed is None:
        reason = (
            "its arguments were not saved, because its guarantee is 'ephemeral'. Submit"
            " it again"
        )
        raise RetryRefused(record.uid, record.name, reason)
    return sealed


def _new(node: t.Any, record: Record, sealed: Sealed) -> NewTask:
    uid, job, parent = os.urandom(16).hex(), t.cast(str, record.job), running.get()
    saved = node.payloads.open_call(record.uid, job, sealed)
    source = dict(record.source or {})
    node.dispatcher.events.saving(uid, record.name, source)
    payload = node.payloads.seal_call(uid, job, saved.args, saved.kwargs, saved.context)
    return NewTask(
        uid=uid,
        name=record.name,
        guarantee=record.guarantee,
        job=job,
        key=record.key,
        meta=record.meta,
        priority=record.priority,
        parent=None if parent is None else parent.id,
        source=source or None,
        request=record.request,
        timeout=record.timeout,
        retry=record.retry,
        unique_key=record.unique_key,
        retried_from=record.uid,
        payload=payload,
    )
