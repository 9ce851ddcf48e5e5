"""Sentry: each task has its own scope.

Imported only if ``sentry_sdk`` is loaded. It keeps its scopes in context variables,
and a copy of those refers to the same scopes: without this, tasks that run at once
would set each other's tags, and the view would get their breadcrumbs.
"""

from __future__ import annotations

import typing as t
from contextlib import ExitStack
from sys import modules

Leave = t.Callable[[BaseException | None], None]


def enter_with_own_scope(enter: t.Callable[..., Leave], *args: t.Any) -> Leave:
    """Enter a context, with copies of the scopes that are current.

    :return: a function that must be called at the end; it restores the old scopes.
    """
    # None in version 1, and while another thread imports the module.
    isolation_scope = getattr(modules["sentry_sdk"], "isolation_scope", None)
    if isolation_scope is None:
        return enter(*args)
    with ExitStack() as entered:
        entered.enter_context(isolation_scope())
        leave = enter(*args)
        scopes = entered.pop_all()

    def leave_both(error: BaseException | None) -> None:
        with scopes:  # reports of teardown functions belong to the task, too
            leave(error)

    return leave_both
