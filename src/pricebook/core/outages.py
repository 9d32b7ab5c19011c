"""What work that never ends does when the database is away: it says so, waits, and tries again."""

import structlog

from pricebook.core.database import is_outage

OUTAGE_PAUSE_SECONDS = 0.5
"""How long to leave the database alone when it is away."""

log = structlog.get_logger(__name__)


def tell(what: str, error: Exception, **context: str) -> None:
    """Log what could not be done and is tried again; an outage needs no traceback."""
    if is_outage(error):
        log.warning(what, error=type(error).__name__, **context)
    else:
        log.error(what, exc_info=error, **context)
