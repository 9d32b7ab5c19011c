"""The worker process: arq with our tasks and its clock, until it is told to stop."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog
import uvloop
from arq import cron
from arq.worker import Worker
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.auth.service import prune_expired
from pricebook.core import idempotency
from pricebook.core.database import Database, is_outage
from pricebook.core.logging import configure_logging
from pricebook.core.queue import deserialize, serialize, worker_connection
from pricebook.core.settings import Settings, load_settings

Context = dict[str, Any]
Pruner = Callable[[AsyncSession], Awaitable[int]]

# What the hourly housekeeping deletes: each takes a session and returns the number of rows.
PRUNERS: tuple[Pruner, ...] = (idempotency.prune, prune_expired)

_JOB_TIMEOUT_SECONDS = 60
_GOODBYE_SECONDS = 1.0

log = structlog.get_logger(__name__)


async def prune(ctx: Context) -> None:
    """Delete what has expired; what cannot be deleted now is left to the next hour."""
    database: Database = ctx["database"]
    for pruner in PRUNERS:
        name = f"{pruner.__module__}.{pruner.__name__}"
        try:
            async with database.sessions.begin() as session:
                rows = await pruner(session)
        except Exception as error:
            if not is_outage(error):
                raise
            log.warning("nothing pruned, the database is away", pruner=name)
        else:
            log.info("pruned", pruner=name, rows=rows)


def make_worker(settings: Settings, database: Database) -> Worker:
    """Make the worker, within the loop that it is to run on."""
    return Worker(
        cron_jobs=[cron(prune, name="prune", minute=0)],
        redis_settings=worker_connection(settings),
        ctx={"database": database},
        job_serializer=serialize,
        job_deserializer=deserialize,
        job_timeout=_JOB_TIMEOUT_SECONDS,
        job_completion_wait=int(settings.stop_seconds),
        health_check_interval=5,
        keep_result=0,
        max_jobs=20,
        poll_delay=0.05,
    )


async def work(settings: Settings) -> None:
    """Run the worker until SIGTERM or SIGINT has stopped it."""
    database = Database(settings, application="pricebook-worker")
    worker = make_worker(settings, database)
    log.info("worker started")
    try:
        with suppress(asyncio.CancelledError):
            await worker.async_run()
    finally:
        # With Valkey away its goodbye would be tried for ever.
        with suppress(asyncio.CancelledError, RedisError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await worker.close()
        await database.close()
        log.info("worker stopped")


def main() -> None:
    """Be the worker process."""
    settings = load_settings()
    configure_logging(settings.log)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(settings))


if __name__ == "__main__":
    main()
