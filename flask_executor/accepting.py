"""Accepting a call for one app: its options, its future, its context, its task."""

from __future__ import annotations

import typing as t
from functools import partial

from .app_config import done_callbacks
from .calls import Call
from .contexts import Snapshot, current_app, keep_uploads
from .dispatch import Dispatcher
from .futures import Callback, FutureCollection, TaskFuture
from .jobs import ExecutorJob
from .options import Given, NoKey, Options
from .state import AppState
from .task import Task


class Keeper(t.Protocol):
    """The parts of an executor that are the same for all its apps."""

    _default_done_callbacks: list[Callback]

    @property
    def futures(self) -> FutureCollection: ...


def accept(
    state: AppState,
    executor: Keeper,
    given: Given,
    fn: t.Any,
    args: t.Sequence[t.Any],
    kwargs: dict[str, t.Any],
    key: t.Any = NoKey,
    job: ExecutorJob[..., t.Any] | None = None,
    held_by: object = None,
) -> TaskFuture[t.Any]:
    """Accept a call; see :meth:`.Submitter._accept`.

    :param state: what the executor keeps for the app.
    :param executor: its callbacks are called, and its registry has the future.
    """
    dispatcher = state.ready or state.dispatcher
    if type(fn) is ExecutorJob:
        # Of all its views, only the job that was declared pickles by its name.
        job, fn = fn, fn.declared
    options, node = dispatcher.defaults, dispatcher.node
    if given or job is not None:
        options = dispatcher.options_of(job, given)
        key = options.key if key is NoKey else key
    call = Call(fn, args, kwargs)
    if node is not None and node.saves(options, key):
        _ = state.futures  # which has the keys of this process alone, too
        callbacks = done_callbacks(executor, dispatcher.settings)
        saves: t.Any = node.accepting_for(options)
        saved = saves.accept(call, options, key, job, callbacks, held_by)
        return t.cast("TaskFuture[t.Any]", saved)
    if job is not None:
        job = job.declared
    app: t.Any = state.app()
    future: TaskFuture[t.Any] = TaskFuture(app, None if key is NoKey else key)
    if options.unique is not None:
        return _submit_unique(
            dispatcher, executor, future, call, options, key, job, held_by
        )
    if key is NoKey:
        task = dispatcher.register(future, call, options)
        _submit(dispatcher, executor, future, task, call, job)
    else:
        _submit_stored(dispatcher, executor, future, call, options, job, held_by)
    return future


def _submit_unique(
    dispatcher: Dispatcher,
    executor: Keeper,
    future: TaskFuture[t.Any],
    call: Call,
    options: Options,
    key: t.Any,
    job: t.Any,
    held_by: object,
) -> TaskFuture[t.Any]:
    """Dispatch a call if its ``unique`` value is free; see :mod:`.dispatch.uniques`.

    The value comes before the key: who wants the task there is gets it, whatever the
    keys.
    """
    found = dispatcher.uniques.register(dispatcher.register, future, call, options)
    if found is not future:
        return found

    def store() -> None:
        executor.futures.reserve(key, future, instead_of=held_by)
        executor.futures.add(key, future)

    try:
        store_if = None if key is NoKey else store
        task = t.cast(Task, future.task)
        _submit(dispatcher, executor, future, task, call, job, store_if)
    except BaseException:
        executor.futures.discard(key, future)
        raise
    return future


def _submit_stored(
    dispatcher: Dispatcher,
    executor: Keeper,
    future: TaskFuture[t.Any],
    call: Call,
    options: Options,
    job: t.Any,
    held_by: object,
) -> None:
    key, futures = future.key, executor.futures
    futures.reserve(key, future, instead_of=held_by)
    try:
        task = dispatcher.register(future, call, options)
        store = partial(futures.add, key, future)
        _submit(dispatcher, executor, future, task, call, job, store)
    except BaseException:
        futures.discard(key, future)
        raise


def _submit(
    dispatcher: Dispatcher,
    executor: Keeper,
    future: TaskFuture[t.Any],
    task: Task,
    call: Call,
    job: t.Any,
    store: t.Callable[[], object] | None = None,
) -> None:
    """Take the context of a call, and dispatch its task.

    :param store: hands the future to others, once it can be cancelled.
    """
    try:
        if store is not None:
            store()
        if not dispatcher.pool.runs_in_caller or current_app() is None:
            call.snapshot = Snapshot.take(future.app, copy_g=dispatcher.g_carried)
            if call.args or call.kwargs:
                call.args = keep_uploads(call.args)
                call.kwargs = keep_uploads(call.kwargs)
        callbacks = done_callbacks(executor, dispatcher.settings)
        dispatcher.submit(task, callbacks, job=job)
    except BaseException:
        dispatcher.withdraw(task)
        raise
