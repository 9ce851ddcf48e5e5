"""Background work for Flask, behind the :mod:`concurrent.futures` API."""

from .current import Progress as Progress
from .current import current_task as current_task
from .dispatch import Drained as Drained
from .errors import DuplicateKey as DuplicateKey
from .errors import ExecutorNotInitialized as ExecutorNotInitialized
from .errors import ExecutorShutDown as ExecutorShutDown
from .errors import InvalidName as InvalidName
from .errors import InvalidOption as InvalidOption
from .errors import InvalidSchedule as InvalidSchedule
from .errors import InvalidSetting as InvalidSetting
from .errors import LoopBlocked as LoopBlocked
from .errors import NoCurrentTask as NoCurrentTask
from .errors import NotCallable as NotCallable
from .errors import NotUnique as NotUnique
from .errors import PeriodicNotInstalled as PeriodicNotInstalled
from .errors import QueueFull as QueueFull
from .errors import StatusRefused as StatusRefused
from .errors import SurfaceNotInstalled as SurfaceNotInstalled
from .errors import TaskCancelled as TaskCancelled
from .errors import TaskTimeout as TaskTimeout
from .errors import UnknownOption as UnknownOption
from .errors import UnknownTask as UnknownTask
from .errors import UnknownWorker as UnknownWorker
from .errors import UnsupportedOption as UnsupportedOption
from .errors import WaitsForItself as WaitsForItself
from .executor import Executor as Executor
from .executor import ExecutorView as ExecutorView
from .futures import FutureCollection as FutureCollection
from .futures import TaskFuture as TaskFuture
from .groups import Group as Group
from .jobs import ExecutorJob as ExecutorJob
from .options import Retry as Retry
from .periodic import PeriodicJob as PeriodicJob
from .periodic import PeriodicJobs as PeriodicJobs
from .pool_errors import AppNotFound as AppNotFound
from .pool_errors import ArgumentsNotPicklable as ArgumentsNotPicklable
from .pool_errors import CallNotPicklable as CallNotPicklable
from .pool_errors import ChildrenNotAllowed as ChildrenNotAllowed
from .pool_errors import PoolNotInstalled as PoolNotInstalled
from .pool_errors import ResultNotPicklable as ResultNotPicklable
from .pool_errors import WorkerLost as WorkerLost
from .signals import task_cancelled as task_cancelled
from .signals import task_failed as task_failed
from .signals import task_progressed as task_progressed
from .signals import task_retrying as task_retrying
from .signals import task_started as task_started
from .signals import task_submitted as task_submitted
from .signals import task_succeeded as task_succeeded
from .signals import task_timed_out as task_timed_out
from .store_errors import ArgumentsNotStorable as ArgumentsNotStorable
from .store_errors import DuplicateJobName as DuplicateJobName
from .store_errors import FailedElsewhere as FailedElsewhere
from .store_errors import JobNotStorable as JobNotStorable
from .store_errors import KeyNotReadable as KeyNotReadable
from .store_errors import KeyNotStorable as KeyNotStorable
from .store_errors import NoAnswer as NoAnswer
from .store_errors import NoSecretKey as NoSecretKey
from .store_errors import PayloadRefused as PayloadRefused
from .store_errors import PayloadTooLarge as PayloadTooLarge
from .store_errors import ResultNotStorable as ResultNotStorable
from .store_errors import RetryRefused as RetryRefused
from .store_errors import SchemaMismatch as SchemaMismatch
from .store_errors import SessionRefused as SessionRefused
from .store_errors import StoreLocked as StoreLocked
from .store_errors import StoreRefused as StoreRefused
from .store_errors import StoreUnavailable as StoreUnavailable
from .store_errors import TaskForgotten as TaskForgotten
from .store_errors import TaskInterrupted as TaskInterrupted
from .task import Task as Task
from .verbs import BUCKETS as BUCKETS
from .verbs import AttemptInfo as AttemptInfo
from .verbs import GroupInfo as GroupInfo
from .verbs import MinuteStatistics as MinuteStatistics
from .verbs import Reason as Reason
from .verbs import TaskRecord as TaskRecord
from .verbs import ThreadStack as ThreadStack
from .verbs import WorkerInfo as WorkerInfo

__version__ = "2.0.0.dev0"

__all__ = [
    "BUCKETS",
    "AppNotFound",
    "ArgumentsNotPicklable",
    "ArgumentsNotStorable",
    "AttemptInfo",
    "CallNotPicklable",
    "ChildrenNotAllowed",
    "Drained",
    "DuplicateJobName",
    "DuplicateKey",
    "Executor",
    "ExecutorJob",
    "ExecutorNotInitialized",
    "ExecutorShutDown",
    "ExecutorView",
    "FailedElsewhere",
    "FutureCollection",
    "Group",
    "GroupInfo",
    "InvalidName",
    "InvalidOption",
    "InvalidSchedule",
    "InvalidSetting",
    "JobNotStorable",
    "KeyNotReadable",
    "KeyNotStorable",
    "LoopBlocked",
    "MinuteStatistics",
    "NoAnswer",
    "NoCurrentTask",
    "NoSecretKey",
    "NotCallable",
    "NotUnique",
    "PayloadRefused",
    "PayloadTooLarge",
    "PeriodicJob",
    "PeriodicJobs",
    "PeriodicNotInstalled",
    "PoolNotInstalled",
    "Progress",
    "QueueFull",
    "Reason",
    "ResultNotPicklable",
    "ResultNotStorable",
    "Retry",
    "RetryRefused",
    "SchemaMismatch",
    "SessionRefused",
    "StatusRefused",
    "StoreLocked",
    "StoreRefused",
    "StoreUnavailable",
    "SurfaceNotInstalled",
    "Task",
    "TaskCancelled",
    "TaskForgotten",
    "TaskFuture",
    "TaskInterrupted",
    "TaskRecord",
    "TaskTimeout",
    "ThreadStack",
    "UnknownOption",
    "UnknownTask",
    "UnknownWorker",
    "UnsupportedOption",
    "WaitsForItself",
    "WorkerInfo",
    "WorkerLost",
    "current_task",
    "task_cancelled",
    "task_failed",
    "task_progressed",
    "task_retrying",
    "task_started",
    "task_submitted",
    "task_succeeded",
    "task_timed_out",
]
