"""What a test sees of a task that was submitted."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ..calls import Call, Chunk
from ..contexts import open_uploads
from ..futures import TaskFuture
from ..jobs import ExecutorJob
from ..options import Options
from ..task import Task


@dataclass(frozen=True, slots=True, eq=False)
class Submitted:
    """One task that was submitted."""

    name: str
    """Its name in logs: the option ``name``, or the name of the function."""
    fn: t.Any
    """The function, or the job, that was submitted."""
    args: tuple[t.Any, ...]
    """Its positional arguments."""
    kwargs: dict[str, t.Any]
    """Its keyword arguments."""
    key: t.Hashable | None
    """The key under which its future is stored, or None."""
    options: Options
    """Its options: those of the call, the job and the config together."""
    future: TaskFuture[t.Any]
    """Its future."""

    def __repr__(self) -> str:
        key = "" if self.key is None else f" (key {self.key!r})"
        given = [*map(repr, self.args), *(f"{k}={v!r}" for k, v in self.kwargs.items())]
        return f"<Submitted {self.name}({', '.join(given)}){key}>"


def submitted_by(task: Task, options: Options) -> Submitted:
    """Return what a test sees of a task, with the options that were given."""
    call: Call = task._call
    fn = call.fn.func if isinstance(call.fn, Chunk) else call.fn
    return Submitted(
        name=task.name,
        fn=fn.declared if type(fn) is ExecutorJob else fn,
        args=tuple(open_uploads(call.args)),
        kwargs=open_uploads(call.kwargs),
        key=task.key,
        options=options,
        future=task.future,
    )
