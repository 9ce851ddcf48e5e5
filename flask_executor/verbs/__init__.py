"""The verbs about tasks that are known: list, explain, cancel, pause and retry them."""

from .executor import HasTasks as HasTasks
from .reasons import Reason as Reason
from .records import TaskRecord as TaskRecord
from .records import WorkerInfo as WorkerInfo

__all__ = ["HasTasks", "Reason", "TaskRecord", "WorkerInfo"]
