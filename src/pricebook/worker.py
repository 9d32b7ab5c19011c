"""The worker process: arq, and what it wakes: the dispatcher and the runner of jobs."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
import uvloop
from arq import cron, func
from arq.worker import Worker
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.auth.service import prune_expired
from pricebook.core import idempotency
from pricebook.core.database import Database, is_outage, open_database
from pricebook.core.dispatch import Dispatcher
from pricebook.core.files import Files
from pricebook.core.lanes import Lane
from pricebook.core.logging import configure_logging
from pricebook.core.principal import Role
from pricebook.core.queue import (
    DRAIN,
    JOBS_QUEUE,
    WORK,
    deserialize,
    serialize,
    worker_connection,
)
from pricebook.core.sealing import Sealer
from pricebook.core.settings import RetentionSettings, Settings, load_settings
from pricebook.events import service as events
from pricebook.exports.tasks import export_file
from pricebook.imports.tasks import import_items
from pricebook.jobs.pruning import prune_jobs, prune_orphans
from pricebook.jobs.run import Task, Tasks, Tools
from pricebook.jobs.runner import Runner
from pricebook.notifications import service as notifications
from pricebook.notifications.lane import MailLane
from pricebook.subscriptions import SUBSCRIPTIONS
from pricebook.webhooks import deliveries
from pricebook.webhooks.lane import WebhookLane
from pricebook.webhooks.service import tend_secrets

Context = dict[str, Any]
Pruner = Callable[[AsyncSession], Awaitable[int]]
Sweeper = Callable[[Database], Awaitable[int]]

_JOB_TIMEOUT_SECONDS = 60
_SWEEP_TIMEOUT_SECONDS = 600
_GOODBYE_SECONDS = 1.0
_CANCEL_SECONDS = 0.5
_EACH_SECOND = set(range(60))

TASKS: Tasks = {
    "export_file": Task(Role.VIEWER, export_file),
    "import_items": Task(Role.EDITOR, import_items),
}
"""Every kind of job, and who does it."""

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


def sweepers(settings: Settings) -> Sequence[Sweeper]:
    """Return what deletes files each hour: no transaction is open while it does."""
    files = Files(settings)
    return (
        partial(prune_jobs, files=files, days=settings.retention.jobs_days),
        partial(prune_orphans, files=files),
    )


def make_lanes(settings: Settings, database: Database) -> Sequence[Lane[Any, Any]]:
    """Return the ways that deliveries go out, within the loop that they are to run on."""
    return (WebhookLane(settings, Sealer(settings)), MailLane(settings, database))


async def drain(ctx: Context) -> None:
    """Carry what is new to its receivers: wakes the dispatcher, which never sleeps for long."""
    dispatcher: Dispatcher = ctx["dispatcher"]
    dispatcher.wake()


async def start_jobs(ctx: Context) -> None:
    """Start what waits: wakes the runner of jobs, which never sleeps for long."""
    runner: Runner = ctx["runner"]
    runner.wake()


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


def make_worker(settings: Settings, database: Database, dispatcher: Dispatcher) -> Worker:
    """Make the worker, within the loop that it is to run on."""
    return Worker(
        functions=[func(drain, name=DRAIN)],
        cron_jobs=[
            cron(drain, name="beat", second=_EACH_SECOND),
            cron(prune, name="prune", minute=0),
            cron(sweep, name="sweep", minute=5, timeout=_SWEEP_TIMEOUT_SECONDS),
        ],
        redis_settings=worker_connection(settings),
        ctx={
            "database": database,
            "dispatcher": dispatcher,
            "sweepers": sweepers(settings),
            "pruners": (
                *pruners(settings.retention),
                partial(tend_secrets, sealer=Sealer(settings)),
            ),
        },
        job_serializer=serialize,
        job_deserializer=deserialize,
        job_timeout=_JOB_TIMEOUT_SECONDS,
        job_completion_wait=int(settings.stop_seconds),
        health_check_interval=5,
        keep_result=0,
        max_jobs=20,
        poll_delay=0.02,
    )


def make_job_worker(settings: Settings, runner: Runner) -> Worker:
    """Make the worker of the queue of jobs, which wakes the runner; its own end stops neither."""
    return Worker(
        functions=[func(start_jobs, name=WORK)],
        queue_name=JOBS_QUEUE,
        redis_settings=worker_connection(settings),
        ctx={"runner": runner},
        job_serializer=serialize,
        job_deserializer=deserialize,
        handle_signals=False,
        health_check_interval=5,
        keep_result=0,
        poll_delay=0.1,
    )


async def work(settings: Settings, tasks: Tasks = TASKS) -> None:
    """Run the worker until SIGTERM or SIGINT has stopped it; it does the jobs of `tasks`."""
    async with (
        open_database(settings, "pricebook-worker") as database,
        open_database(settings, "pricebook-jobs", is_patient=True) as patient,
    ):
        lanes = make_lanes(settings, database)
        dispatcher = Dispatcher(database, SUBSCRIPTIONS, lanes, settings.delivery)
        runner = Runner(database, Tools(settings, patient, Files(settings)), tasks)
        worker = make_worker(settings, database, dispatcher)
        job_worker = make_job_worker(settings, runner)
        delivering = asyncio.create_task(dispatcher.run(settings.stop_seconds / 2))
        running = asyncio.create_task(runner.run())
        listening = asyncio.create_task(_listen(job_worker, settings))
        log.info("worker started")
        try:
            with suppress(asyncio.CancelledError):
                await worker.async_run()
        finally:
            dispatcher.stop()
            runner.stop()
            await _cancelled(listening)
            await asyncio.gather(_goodbye(worker), _goodbye(job_worker))
            await asyncio.gather(delivering, running)
            log.info("worker stopped")


async def _listen(job_worker: Worker, settings: Settings) -> None:
    """Wake the runner, and give a sign that there is one, if it takes jobs at all."""
    if settings.jobs.concurrency:
        await job_worker.async_run()


async def _cancelled(listening: asyncio.Task[None]) -> None:
    """End it, though redis-py may take a cancellation for a time that is up."""
    while not listening.done():
        listening.cancel()
        await asyncio.wait([listening], timeout=_CANCEL_SECONDS)


async def _goodbye(worker: Worker) -> None:
    """Let arq close; with Valkey away its goodbye would be tried for ever."""
    with suppress(asyncio.CancelledError, RedisError, TimeoutError):
        async with asyncio.timeout(_GOODBYE_SECONDS):
            await worker.close()


def main() -> None:
    """Be the worker process."""
    settings = load_settings()
    configure_logging(settings.log)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(settings))


if __name__ == "__main__":
    main()
