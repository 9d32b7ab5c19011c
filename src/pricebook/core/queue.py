"""The only door to arq: how jobs travel over Valkey, which may vanish and return."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import structlog
from arq.connections import ArqRedis, RedisSettings
from arq.constants import default_queue_name, health_check_key_suffix
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as ValkeyConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as ValkeyTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.settings import Settings
from pricebook.core.valkey import primary_pool
from pricebook.core.valkey_urls import is_sentinel

DRAIN = "drain"
"""The arq job that wakes a worker's dispatcher."""
WORK = "work"
"""The arq job that wakes a worker's runner of jobs; it travels on a queue of its own."""
JOBS_QUEUE = "pricebook:jobs"

# Hints that come closer together than this become one.
_HINT_GAP_SECONDS = 0.02
_HINT_TRIES = 3
_FOREVER = -1
_GONE_SECONDS = 5.0
# redis-py leaves a refused connection out of what it tries again: it is an OSError.
_PASSING = (ValkeyConnectionError, ValkeyTimeoutError, OSError)

log = structlog.get_logger(__name__)


def serialize(job: dict[str, Any]) -> bytes:
    """Write a job as JSON; what JSON has no form for, such as an exception, by its repr."""
    return orjson.dumps(job, default=repr)


def deserialize(job: bytes) -> dict[str, Any]:
    """Read a job that `serialize` wrote."""
    return dict(orjson.loads(job))


def worker_connection(settings: Settings, queue: str = default_queue_name) -> dict[str, Any]:
    """Connect patiently: without it arq's worker ends with the first moment of an outage.

    What it returns is for arq's `Worker`.
    """
    if settings.redis_url is None:
        message = "PRICEBOOK_REDIS_URL is not set"
        raise RuntimeError(message)
    if is_sentinel(settings.redis_url.get_secret_value()):
        return {"redis_pool": _primary(settings.redis_url, queue)}
    connection = RedisSettings.from_dsn(settings.redis_url.get_secret_value())
    connection.retry = _LoggedRetry(ExponentialBackoff(cap=1, base=0.1))
    connection.retry_on_error = [*_PASSING]
    connection.retry_on_timeout = True
    return {"redis_settings": connection}


def _primary(url: SecretStr, queue: str) -> ArqRedis:
    """Follow the primary; arq's own way there tries nothing again, and has no password to ask with.

    One that is gone without a word is left after a while, though arq itself waits for none so long.
    """
    pool = primary_pool(
        url,
        retry=_LoggedRetry(ExponentialBackoff(cap=1, base=0.1)),
        retry_on_error=[*_PASSING],
        socket_timeout=_GONE_SECONDS,
        socket_connect_timeout=_GONE_SECONDS,
    )
    return ArqRedis(
        pool,
        job_serializer=serialize,
        job_deserializer=deserialize,
        default_queue_name=queue,
    )


async def sees_worker(valkey: Redis, queue: str = default_queue_name) -> bool:
    """Whether a worker of a queue has given a sign of life within the last seconds."""
    # arq's worker writes it every five seconds, and lets it live for six.
    return bool(await valkey.exists(queue + health_check_key_suffix))


_HAS_JOBS = "pricebook.has_jobs"


def expect_jobs(session: AsyncSession) -> None:
    """Have the workers told, after the commit, of a new job."""
    session.info[_HAS_JOBS] = True


def has_jobs(session: AsyncSession) -> bool:
    """Whether this session leaves a job to do."""
    return _HAS_JOBS in session.info


class Hints:
    """Tells the workers that there is something to do; they would see it within a second."""

    def __init__(self, valkey: Redis, job: str = DRAIN, queue: str = default_queue_name) -> None:
        """Send over the connections of `valkey`, which should give up soon."""
        self._job = job
        self._queue = ArqRedis(
            valkey.connection_pool, job_serializer=serialize, default_queue_name=queue
        )
        self._given = asyncio.Event()
        self._is_stopping = False

    async def give(self) -> None:
        """Have a hint sent soon; returns at once, and never fails."""
        self._given.set()

    def stop(self) -> None:
        """Send nothing more."""
        self._is_stopping = True
        self._given.set()

    async def send(self) -> None:
        """Send hints as they are given, until stopped.

        It is not to be cancelled: redis-py may take that for a time that is up.
        """
        while not self._is_stopping:
            await self._given.wait()
            self._given.clear()
            try:
                await self._enqueue()
            except (RedisError, OSError) as error:
                log.debug("hint lost", error=type(error).__name__)
            await asyncio.sleep(_HINT_GAP_SECONDS)

    async def _enqueue(self) -> None:
        """Enqueue under one name, so that without a worker no more than one lies there.

        One that is just being done may have looked before our commit: then once more.
        """
        for _ in range(_HINT_TRIES):
            if await self._queue.enqueue_job(self._job, _job_id=self._job):
                return
            await asyncio.sleep(_HINT_GAP_SECONDS)


class _LoggedRetry(Retry):
    """Tries for ever; says once for each outage that Valkey is away, and once that it is back."""

    __slots__ = ("_is_away",)

    def __init__(self, backoff: ExponentialBackoff) -> None:
        super().__init__(backoff, _FOREVER)
        self.update_supported_errors([*_PASSING])
        self._is_away = False

    async def call_with_retry(
        self, do: Callable[[], Any], fail: Callable[[RedisError], Any]
    ) -> Any:  # noqa: ANN401 -- whatever the call returns
        async def fail_loudly(error: RedisError) -> None:
            if not self._is_away:
                log.warning("valkey is away", error=type(error).__name__)
            self._is_away = True
            await fail(error)

        result = await super().call_with_retry(do, fail_loudly)
        if self._is_away:
            log.info("valkey is back")
        self._is_away = False
        return result
