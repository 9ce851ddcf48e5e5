"""The verb of an executor that declares jobs, and the check of options."""

from __future__ import annotations

import typing as t

from .errors import NotCallable, UnsupportedOption
from .job_names import JobNames, checked_aliases
from .jobs import ExecutorJob
from .options import MISSING, Given, JobOptions, checked
from .overrides import SeenBySubmit
from .state import AppState

P = t.ParamSpec("P")
T = t.TypeVar("T")

_OF_JOBS = {
    "max_concurrency": "it counts the tasks of a job: @executor.job(max_concurrency=2)",
    "aliases": "it names a job: @executor.job(aliases=('mail.deliver',))",
}
"""The options that only a job may have, and how to write them."""


class HasJobs(SeenBySubmit):
    """An executor on which jobs are declared."""

    _job_names: JobNames

    def _known_state(self) -> AppState | None:
        """Return what is kept for the current app, or None if no app is known."""
        raise NotImplementedError

    @t.overload
    def job(self, fn: t.Callable[P, T]) -> ExecutorJob[P, T]: ...

    @t.overload
    def job(
        self, /, **options: t.Unpack[JobOptions]
    ) -> t.Callable[[t.Callable[P, T]], ExecutorJob[P, T]]: ...

    def job(self, fn: t.Any = MISSING, **options: t.Any) -> t.Any:
        """Declare a job: a function with ``submit``, ``submit_stored`` and ``map``.

        Options, as in ``@executor.job(priority=5)``, count for each of its tasks unless
        the call has others. A job can be declared before :meth:`init_app`.

        Its tasks are saved under its name: the option ``name``, or else the module and
        qualified name of the function. ``aliases`` are names that it had before.

        :raises NotCallable: a :exc:`TypeError`.
        :raises DuplicateJobName: a :exc:`ValueError`, if another function is declared
            under the same name.
        :raises CallNotPicklable: if the pool has worker processes and the function is
            not at the top level of its module.
        :raises UnknownOption: a :exc:`TypeError`, if an option does not exist.
        :raises InvalidOption: a :exc:`ValueError`, if a value is not allowed.
        :raises UnsupportedOption: a :exc:`ValueError`, if the pool does not support an
            option; at submit, if the app is not known yet.
        """
        if fn is MISSING:
            return lambda fn: self._declare(fn, options)
        return self._declare(fn, options)

    def _declare(self, fn: t.Any, options: Given) -> ExecutorJob[..., t.Any]:
        if not callable(fn):
            raise NotCallable(fn)
        state = self._known_state()
        if state is not None:
            state.check_job(fn)
        own = dict(options)
        aliases = checked_aliases(own.pop("aliases", ()))
        job = ExecutorJob(self, fn, self._checked(own, fn))
        self._job_names.add(job, aliases)
        return job

    def check_call(self, options: Given, fn: t.Any = None) -> Given:
        """Check the options of a call; see :meth:`.Submitter.check_call`."""
        for name, instead in _OF_JOBS.items():
            if name in options:
                raise UnsupportedOption(name, "one call", instead)
        return self._checked(options, fn)

    def _checked(self, options: Given, fn: t.Any) -> Given:
        given = checked(options)
        state = self._known_state()
        if given and state is not None:
            state.refuse_unsupported(given, fn)
        return given
