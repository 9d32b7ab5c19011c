"""What can be wrong with a request about jobs."""

from pricebook.core.errors import Conflict, Forbidden, NotFound


class JobNotFound(NotFound):
    """There is no such job, or it is not yours to see."""


class JobIsOver(Conflict):
    """The job has ended; there is nothing left to cancel."""


class JobIsUnfinished(Conflict):
    """The job has not failed and was not cancelled; only then can it be tried again."""


class JobFilesGone(Conflict):
    """What the job was to work on is no longer there; ask for it anew."""


class JobBeyondScopes(Forbidden):
    """The API key's scopes would not have let it start this job."""
