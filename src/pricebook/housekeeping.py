"""Housekeeping: what a worker deletes each hour, and the secrets that it seals anew."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.auth.service import prune_expired
from pricebook.core import idempotency
from pricebook.core.database import Database, is_outage
from pricebook.core.files import Files
from pricebook.core.sealing import Sealer
from pricebook.core.settings import RetentionSettings, Settings
from pricebook.events import service as events
from pricebook.jobs.pruning import prune_jobs, prune_orphans
from pricebook.notifications import service as notifications
from pricebook.webhooks import deliveries
from pricebook.webhooks.service import tend_secrets

Context = dict[str, Any]
Pruner = Callable[[AsyncSession], Awaitable[int]]
Sweeper = Callable[[Database], Awaitable[int]]

log = structlog.get_logger(__name__)


def pruners(retention: RetentionSettings) -> Sequence[Pruner]:
    """Return what the hourly housekeeping deletes: each takes a session, and tells how many rows.

    It is called, a transaction each time, until it finds no more; so it may delete in batches.
    """
    return (
        idempotency.prune,
        prune_expired,
        partial(events.prune, days=retention.events_days),
        partial(deliveries.prune, days=retention.deliveries_days),
        partial(notifications.prune_notifications, days=retention.notifications_days),
        partial(notifications.prune_mails, days=retention.deliveries_days),
    )


def secrets_tender(settings: Settings) -> Pruner:
    """Return what seals secrets anew, until none is left under an old key."""
    return partial(tend_secrets, sealer=Sealer(settings))


def sweepers(settings: Settings) -> Sequence[Sweeper]:
    """Return what deletes files each hour: no transaction is open while it does."""
    files = Files(settings)
    return (
        partial(prune_jobs, files=files, days=settings.retention.jobs_days),
        partial(prune_orphans, files=files),
    )


async def prune(ctx: Context) -> None:
    """Delete what has expired; what cannot be deleted now is left to the next hour."""
    database: Database = ctx["database"]
    for pruner in ctx["pruners"]:
        name = _name_of(pruner)
        try:
            rows = await _prune_all(database, pruner)
        except Exception as error:
            if not is_outage(error):
                raise
            log.warning("nothing pruned, the database is away", pruner=name)
        else:
            log.info("pruned", pruner=name, rows=rows)


async def sweep(ctx: Context) -> None:
    """Delete files that are no longer kept, and what tells of them; the next hour does the rest."""
    for sweeper in ctx["sweepers"]:
        name = _name_of(sweeper)
        try:
            count = await sweeper(ctx["database"])
        except Exception as error:
            if not is_outage(error):
                raise
            log.warning("nothing swept, the database or the files are away", sweeper=name)
        else:
            log.info("swept", sweeper=name, count=count)


async def _prune_all(database: Database, pruner: Pruner) -> int:
    rows = 0
    while True:
        async with database.sessions.begin() as session:
            deleted = await pruner(session)
        if not deleted:
            return rows
        rows += deleted


def _name_of(pruner: Pruner | Sweeper) -> str:
    function = pruner.func if isinstance(pruner, partial) else pruner
    return f"{function.__module__}.{function.__name__}"
