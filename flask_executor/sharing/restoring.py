"""Saved tasks as calls with options, in a process that has claimed them."""

from __future__ import annotations

import dataclasses
import typing as t

from ..calls import Call
from ..options import NoKey, Options
from ..retry import Retry
from ..store_errors import PayloadRefused
from ..stores.records import Claimed
from .remote import key_of

_NUMBERS = ("attempts", "delay", "backoff", "max_delay", "jitter")


def retry_numbers(retry: Retry | None) -> dict[str, t.Any] | None:
    """Return the numbers of a retry policy as a JSON value.

    Its exceptions are not saved: they are those of the job.
    """
    if retry is None:
        return None
    return {name: getattr(retry, name) for name in _NUMBERS}


def restored(node: t.Any, claimed: Claimed, job: t.Any) -> tuple[Call, Options]:
    """Return the call of a task that was claimed, and its options.

    :param job: the job under whose name it was saved.
    :raises PayloadRefused: if its payload is forged, damaged or not readable here.
    """
    if claimed.payload is None:
        reason = "there is none"
        raise PayloadRefused(claimed.uid, "payload", claimed.job, reason)
    saved = node.payloads.open_call(claimed.uid, claimed.job, claimed.payload)
    snapshot = saved.context.restore(node.app, claimed.request)
    call = Call(job.declared, saved.args, saved.kwargs, snapshot)
    return call, _options(node, claimed, job)


def _options(node: t.Any, claimed: Claimed, job: t.Any) -> Options:
    own: Options = node.dispatcher.options_of(job, {})
    key = key_of(t.cast(t.Any, claimed))
    return dataclasses.replace(
        own,
        name=claimed.name,
        key=NoKey if key is None else key,
        priority=claimed.priority,
        timeout=claimed.timeout,
        retry=_retry(own.retry, claimed.retry),
        guarantee=claimed.guarantee,
        meta=claimed.meta,
        delay=None,
        run_at=None,
        unique=None,
        session=None,
    )


def _retry(own: Retry | None, numbers: dict[str, t.Any] | None) -> Retry | None:
    if numbers is None:
        return None
    return dataclasses.replace(own or Retry(), **numbers)
