"""A caller may make so many requests in a window, whichever process they meet."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from fastapi import FastAPI
from redis.asyncio import Redis
from redis.exceptions import RedisError
from tests.conftest import Api, MakeUser

from pricebook.core.errors import TooManyRequests
from pricebook.core.rate_limits import RateLimiter
from pricebook.core.settings import LimitSettings, Settings

WINDOW_SECONDS = 60
FEW = LimitSettings(window_seconds=WINDOW_SECONDS, requests=5, anonymous_requests=3)


class Clock:
    """Begins at a window none has used, so that tests share no counts."""

    def __init__(self) -> None:
        self.now = float(uuid4().int % 10**12 * WINDOW_SECONDS)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def valkey(settings: Settings) -> AsyncIterator[Redis]:
    assert settings.redis_url is not None
    async with Redis.from_url(settings.redis_url.get_secret_value()) as client:
        yield client


@pytest.fixture
def few(app: FastAPI) -> Iterator[None]:
    """Let the application answer a few requests only."""
    usual, app.state.limiter = app.state.limiter, RateLimiter(FEW)
    yield
    app.state.limiter = usual


def test_past_the_limit_a_caller_is_told_when_to_come_back() -> None:
    clock, caller = Clock(), uuid4()
    limiter = RateLimiter(FEW, clock=clock)
    for _ in range(5):
        limiter.count_credential(caller)
    clock.now += 20
    with pytest.raises(TooManyRequests) as refused:
        limiter.count_credential(caller)
    assert refused.value.headers() == {"Retry-After": "40"}
    limiter.count_credential(uuid4())
    clock.now += 40
    limiter.count_credential(caller)


def test_callers_without_credentials_have_a_limit_of_their_own() -> None:
    limiter = RateLimiter(FEW, clock=Clock())
    for _ in range(3):
        limiter.count_network("192.0.2.1")
    with pytest.raises(TooManyRequests):
        limiter.count_network("192.0.2.1")
    limiter.count_network("192.0.2.2")


async def test_processes_count_together(valkey: Redis) -> None:
    clock, caller = Clock(), uuid4()
    here, there = RateLimiter(FEW, valkey, clock), RateLimiter(FEW, valkey, clock)
    for limiter in (here, there):
        limiter.count_credential(caller)
        limiter.count_credential(caller)
        await limiter.share_once()
    there.count_credential(caller)
    with pytest.raises(TooManyRequests):
        there.count_credential(caller)
    here.count_credential(caller)
    await there.share_once()
    await here.share_once()
    with pytest.raises(TooManyRequests):
        here.count_credential(caller)


async def test_a_count_is_forgotten_after_its_window(valkey: Redis) -> None:
    clock, caller = Clock(), uuid4()
    limiter = RateLimiter(FEW, valkey, clock)
    limiter.count_credential(caller)
    await limiter.share_once()
    (key,) = [key async for key in valkey.scan_iter(f"*{caller}")]
    assert 0 < await valkey.ttl(key) <= 2 * WINDOW_SECONDS


async def test_without_valkey_each_process_counts_alone() -> None:
    """Nothing listens on port 1."""
    caller = uuid4()
    async with Redis.from_url("redis://127.0.0.1:1") as nobody:
        limiter = RateLimiter(FEW, nobody, Clock())
        for _ in range(5):
            limiter.count_credential(caller)
        with pytest.raises(RedisError):
            await limiter.share_once()
        stopping = asyncio.Event()
        sharing = asyncio.create_task(limiter.share(stopping))
        await asyncio.sleep(0.6)
        assert not sharing.done()
        stopping.set()
        await sharing
        with pytest.raises(TooManyRequests):
            limiter.count_credential(caller)


@pytest.mark.usefixtures("few")
async def test_an_answer_says_how_many_requests_are_left(api: Api, make_user: MakeUser) -> None:
    client = api.as_(await make_user())
    replies = [await client.get("/v1/users/me") for _ in range(6)]
    assert [reply.status_code for reply in replies] == [200] * 5 + [429]
    assert replies[0].headers["ratelimit-policy"] == '"credential";q=5;w=60'
    assert [reply.headers["ratelimit"].partition(";t=")[0] for reply in replies] == [
        f'"credential";r={left}' for left in (4, 3, 2, 1, 0, 0)
    ]
    assert replies[-1].json()["type"] == "/problems/too-many-requests"
    assert 1 <= int(replies[-1].headers["retry-after"]) <= WINDOW_SECONDS


@pytest.mark.usefixtures("few")
async def test_guessing_tokens_uses_up_the_networks_limit(api: Api) -> None:
    tries = [await api.with_token(f"pbs_{number}").get("/v1/users/me") for number in range(4)]
    assert [reply.status_code for reply in tries] == [401, 401, 401, 429]
