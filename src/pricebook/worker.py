"""The worker process: arq, and what it wakes: the dispatcher and the runner of jobs."""

import asyncio
import ctypes
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog
import uvloop
from arq import cron, func
from arq.worker import Worker
from redis.exceptions import RedisError, WatchError

from pricebook.core.database import Database, open_database
from pricebook.core.dispatch import Dispatcher
from pricebook.core.files import Files
from pricebook.core.lanes import Lane
from pricebook.core.logging import configure_logging
from pricebook.core.metrics import note_process
from pricebook.core.primary import watching
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
from pricebook.core.settings import Settings, load_settings
from pricebook.exports.tasks import export_file
from pricebook.housekeeping import prune, pruners, secrets_tender, sweep, sweepers
from pricebook.imports.tasks import import_items
from pricebook.jobs.run import Task, Tasks, Tools
from pricebook.jobs.runner import Runner
from pricebook.notifications.lane import MailLane
from pricebook.subscriptions import SUBSCRIPTIONS
from pricebook.webhooks.lane import WebhookLane
from pricebook.worker_port import open_port

Context = dict[str, Any]

_JOB_TIMEOUT_SECONDS = 60
_SWEEP_TIMEOUT_SECONDS = 600
_GOODBYE_SECONDS = 1.0
_CANCEL_SECONDS = 0.5
_EACH_SECOND = set(range(60))
_M_ARENA_MAX = -8

TASKS: Tasks = {
    "export_file": Task(Role.VIEWER, export_file),
    "import_items": Task(Role.EDITOR, import_items),
}
"""Every kind of job, and who does it."""

log = structlog.get_logger(__name__)


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


def make_worker(settings: Settings, database: Database, dispatcher: Dispatcher) -> Worker:
    """Make the worker, within the loop that it is to run on."""
    return _Worker(
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
            "pruners": (*pruners(settings.retention), secrets_tender(settings)),
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
    return _Worker(
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
        watching(settings),
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
        note_process("worker")
        log.info("worker started")
        try:
            async with open_port(settings.metrics):
                await _run(worker, settings.stop_seconds + _GOODBYE_SECONDS)
        finally:
            dispatcher.stop()
            runner.stop()
            await _cancelled(listening)
            await asyncio.gather(_goodbye(worker), _goodbye(job_worker))
            await asyncio.gather(delivering, running)
            log.info("worker stopped")


class _Worker(Worker):
    """Outlives a connection that breaks just as a job is taken, which arq does not foresee."""

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        try:
            await super().start_jobs(job_ids)
        except WatchError:
            # As arq itself does where another worker was faster.
            self.job_counter -= 1
            self.sem.release()


async def _run(worker: Worker, stop_seconds: float) -> None:
    """Run arq until a signal has ended it; it has so long for that, whatever Valkey does."""
    running = asyncio.create_task(worker.async_run())
    try:
        while worker.allow_pick_jobs and not running.done():
            await asyncio.wait([running], timeout=_CANCEL_SECONDS)
        await asyncio.wait([running], timeout=stop_seconds)
    finally:
        await _cancelled(running)
    if not running.cancelled():
        running.result()


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


def _keep_memory_together() -> None:
    """Have all threads share two heaps: glibc would give each its own, and hand little back.

    See M_ARENA_MAX in mallopt(3); other C libraries have no such thing.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def main() -> None:
    """Be the worker process."""
    _keep_memory_together()
    settings = load_settings()
    configure_logging(settings.log)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(settings))


if __name__ == "__main__":
    main()
