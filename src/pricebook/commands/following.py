"""Follows a job to its end: by its stream, and by asking again and again where there is none."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

from pricebook.commands.client import ApiAwayError, ApiRefusedError, Client
from pricebook.core.mendable import MendableError

Job = dict[str, Any]

# A restart of the service takes less, and the job goes on whether or not anyone looks.
_PATIENCE_SECONDS = 120.0
_PAUSE_SECONDS = 0.5
_PASSING = {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY}


class LostSightError(MendableError):
    """The service was away for too long; what becomes of the job is not known here."""

    def __init__(self, job_id: str, reason: Exception) -> None:
        """Say how to look at it later."""
        super().__init__(f"{reason}; job {job_id} may go on: look with `pricebook jobs`")


async def states(client: Client, job_id: str) -> AsyncGenerator[Job, None]:
    """Yield the job as it goes on, to its end.

    Raises:
        LostSightError: The service is away for too long.

    """
    seen_at = time.monotonic()
    while True:
        try:
            async with aclosing(_streamed(client, job_id)) as streamed:
                async for job in streamed:
                    seen_at = time.monotonic()
                    yield job
                    if is_over(job):
                        return
        except (ApiAwayError, ApiRefusedError) as error:
            is_passing = isinstance(error, ApiAwayError) or error.status in _PASSING
            if not is_passing:
                raise
            if time.monotonic() - seen_at > _PATIENCE_SECONDS:
                raise LostSightError(job_id, error) from error
        await asyncio.sleep(_PAUSE_SECONDS)


def is_over(job: Job) -> bool:
    """Whether nothing more happens to it by itself."""
    return job["finished_at"] is not None


async def _streamed(client: Client, job_id: str) -> AsyncGenerator[Job, None]:
    """Ask once, then follow the stream as long as it goes."""
    yield await client.get(f"/jobs/{job_id}")
    async for event in client.events(f"/jobs/{job_id}/stream"):
        yield json.loads(event.data)
