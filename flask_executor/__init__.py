"""Background work for Flask, behind the :mod:`concurrent.futures` API."""

from .errors import AppNotFound as AppNotFound
from .errors import CallNotPicklable as CallNotPicklable
from .errors import DuplicateKey as DuplicateKey
from .errors import ExecutorNotInitialized as ExecutorNotInitialized
from .errors import ExecutorShutDown as ExecutorShutDown
from .errors import InvalidName as InvalidName
from .errors import InvalidSetting as InvalidSetting
from .errors import NotCallable as NotCallable
from .errors import ResultNotPicklable as ResultNotPicklable
from .errors import WorkerLost as WorkerLost
from .executor import Executor as Executor
from .futures import FutureCollection as FutureCollection
from .futures import TaskFuture as TaskFuture
from .jobs import ExecutorJob as ExecutorJob

__all__ = [
    "AppNotFound",
    "CallNotPicklable",
    "DuplicateKey",
    "Executor",
    "ExecutorJob",
    "ExecutorNotInitialized",
    "ExecutorShutDown",
    "FutureCollection",
    "InvalidName",
    "InvalidSetting",
    "NotCallable",
    "ResultNotPicklable",
    "TaskFuture",
    "WorkerLost",
]
