"""`python -m tests.benchmarks.noop_jobs COUNT`: arq by itself, tuned, with jobs that do nothing."""

import asyncio
import os
import sys
import time
from typing import Any

from arq import func
from arq.connections import RedisSettings, create_pool
from arq.worker import Worker


async def nothing(ctx: dict[str, Any], *args: Any, **kwargs: Any) -> None:
    """Do nothing."""


async def run(url: str, count: int) -> float:
    """Enqueue jobs, then let one worker do them; return how many it did a second."""
    connection = RedisSettings.from_dsn(url)
    queue = await create_pool(connection)
    await queue.flushdb()
    for _ in range(count):
        await queue.enqueue_job("nothing")
    worker = Worker(
        functions=[func(nothing, name="nothing")],
        redis_settings=connection,
        burst=True,
        max_jobs=100,
        poll_delay=0.01,
        handle_signals=False,
    )
    began = time.perf_counter()
    await worker.async_run()
    seconds = time.perf_counter() - began
    assert worker.jobs_complete == count
    await worker.close()
    await queue.flushdb()
    await queue.aclose()
    return count / seconds


if __name__ == "__main__":
    rate = asyncio.run(run(os.environ["BENCHMARK_REDIS_URL"], int(sys.argv[1])))
    print(rate)  # noqa: T201 -- read by the benchmark
