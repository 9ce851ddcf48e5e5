"""The part of ``g`` that a task gets."""

from __future__ import annotations

import typing as t

from flask.sessions import SessionMixin

from .copying import PLAIN, is_proxy


def copy_of_g(
    g: t.Any, which: str, session: SessionMixin | None = None
) -> dict[str, t.Any]:
    """Return the names of ``g`` that a task gets, with their values.

    :param which: ``'safe'``, ``'all'`` or ``'none'``.
    :param session: the session of the request, from which Flask-Login loads the user.
    """
    if which == "none":
        return {}
    # A copy first: looking at a value may run code that sets names of g.
    names: dict[str, t.Any] = vars(g).copy()
    if which == "all" or PLAIN.issuperset(map(type, names.values())):
        return names
    own = {k: v for k, v in names.items() if type(v) in PLAIN or not _has_close(v)}
    if "_login_user" in own and _reloads(own["_login_user"], session):
        del own["_login_user"]
    return own


def _has_close(value: t.Any) -> bool:
    # A proxy's object is not in g: a task sees the object of its own context.
    if is_proxy(value):
        return False
    try:
        return hasattr(value, "close")
    except Exception:  # its own lookup fails
        return False


def _reloads(user: t.Any, session: SessionMixin | None) -> bool:
    """Return True if Flask-Login loads that user again when its ``g`` has none.

    A model object belongs to the database session of the view: a task can neither
    load more of it nor commit it.
    """
    if session is None or is_proxy(user) or not hasattr(user, "_sa_instance_state"):
        return False
    try:
        return bool(dict(session)["_user_id"] == user.get_id())
    except Exception:
        return False
