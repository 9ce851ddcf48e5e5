"""Jobs that come back: by a cron expression, or every so many seconds."""

from .jobs import PeriodicJob as PeriodicJob
from .jobs import PeriodicJobs as PeriodicJobs
from .planning import Planning as Planning
from .verbs import HasPeriodicJobs as HasPeriodicJobs
