"""What can be wrong with a request about jobs."""

from pricebook.core.errors import Conflict, NotFound


class JobNotFound(NotFound):
    """There is no such job, or it is not yours to see."""


class JobIsOver(Conflict):
    """The job has ended; there is nothing left to cancel."""


class JobIsUnfinished(Conflict):
    """The job has not failed and was not cancelled; only then can it be tried again."""
