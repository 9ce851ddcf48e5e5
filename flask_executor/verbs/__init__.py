"""The verbs about tasks that are known: list, explain, cancel, pause and retry them."""

from .base import TaskFilters as TaskFilters
from .executor import HasTasks as HasTasks
from .reasons import Reason as Reason
from .records import BUCKETS as BUCKETS
from .records import AttemptInfo as AttemptInfo
from .records import GroupInfo as GroupInfo
from .records import MinuteStatistics as MinuteStatistics
from .records import TaskRecord as TaskRecord
from .records import ThreadStack as ThreadStack
from .records import WorkerInfo as WorkerInfo

__all__ = [
    "BUCKETS",
    "AttemptInfo",
    "GroupInfo",
    "HasTasks",
    "MinuteStatistics",
    "Reason",
    "TaskFilters",
    "TaskRecord",
    "ThreadStack",
    "WorkerInfo",
]
