"""The usual way to tell others, to compare with: a job for each receiver, enqueued after commit."""

import asyncio
from typing import Any

import aiohttp
from arq import Retry, func
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.worker import Worker

from pricebook.core.queue import deserialize, serialize

DELAYS = (0.2, 0.5, 1, 2)


async def deliver(ctx: dict[str, Any], url: str, event_id: str, payload: dict[str, Any]) -> None:
    """Send once; have arq try again, up to the five times that are its default."""
    headers = {"webhook-id": event_id}
    async with ctx["client"].post(url, json=payload, headers=headers) as reply:
        if reply.status != 200:
            raise Retry(defer=DELAYS[min(ctx["job_try"], len(DELAYS)) - 1])


async def _start(ctx: dict[str, Any]) -> None:
    ctx["client"] = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15))


async def _stop(ctx: dict[str, Any]) -> None:
    await ctx["client"].close()


async def open_queue(redis_url: str) -> ArqRedis:
    """Return the queue that writers enqueue to."""
    return await create_pool(
        RedisSettings.from_dsn(redis_url), job_serializer=serialize, job_deserializer=deserialize
    )


async def enqueue(queue: ArqRedis, urls: list[str], event_id: str, payload: Any) -> None:
    """Enqueue what is told of one event; called once its transaction is committed."""
    for url in urls:
        await queue.enqueue_job("deliver", url, event_id, payload)


def be_worker(redis_url: str, tuning: dict[str, Any]) -> None:
    """Be a worker process of arq, with its defaults but for `tuning`."""

    async def work() -> None:
        worker = Worker(
            functions=[func(deliver, name="deliver")],
            redis_settings=RedisSettings.from_dsn(redis_url),
            on_startup=_start,
            on_shutdown=_stop,
            job_serializer=serialize,
            job_deserializer=deserialize,
            **tuning,
        )
        await worker.async_run()

    asyncio.run(work())
