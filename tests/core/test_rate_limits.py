"""Rate limits: counted for all processes together through Valkey, and by each without it."""

import asyncio
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from pricebook.core.errors import TooManyRequests
from pricebook.core.rate_limits import RateLimiter
from pricebook.core.settings import LimitSettings

LIMITS = LimitSettings(window_seconds=60, requests=10, anonymous_requests=3)
START_OF_A_WINDOW = 60 * 1_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = START_OF_A_WINDOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def valkey(settings):
    async with Redis.from_url(settings.redis_url.get_secret_value()) as client:
        await client.flushdb()
        yield client
        await client.flushdb()


def take(limiter: RateLimiter, caller, times: int) -> int:
    """Make requests; return how many were let through."""
    for number in range(times):
        try:
            limiter.count_credential(caller)
        except TooManyRequests:
            return number
    return times


def test_a_caller_past_the_limit_waits_for_the_next_window(clock):
    limiter, caller = RateLimiter(LIMITS, clock=clock), uuid4()
    clock.now += 15
    assert take(limiter, caller, 12) == 10
    with pytest.raises(TooManyRequests) as refusal:
        limiter.count_credential(caller)
    assert refusal.value.headers() == {"Retry-After": "45"}
    assert take(limiter, uuid4(), 10) == 10
    clock.now += 45
    assert take(limiter, caller, 12) == 10


def test_addresses_without_credentials_have_a_limit_of_their_own(clock):
    limiter = RateLimiter(LIMITS, clock=clock)
    for _ in range(3):
        limiter.count_network("192.0.2.1")
    with pytest.raises(TooManyRequests):
        limiter.count_network("192.0.2.1")
    limiter.count_network("192.0.2.2")


async def test_processes_count_together(valkey, clock):
    one, other = (RateLimiter(LIMITS, valkey, clock) for _ in range(2))
    caller = uuid4()
    assert take(one, caller, 6) == 6
    await one.share_once()
    assert take(other, caller, 1) == 1
    await other.share_once()
    assert take(other, caller, 10) == 3
    await other.share_once()
    await one.share_once()
    assert take(one, caller, 1) == 1, "one hears of the others with its own next count"
    await one.share_once()
    assert take(one, caller, 1) == 0


async def test_counts_lie_in_valkey_no_longer_than_they_matter(valkey, clock):
    limiter = RateLimiter(LIMITS, valkey, clock)
    take(limiter, uuid4(), 1)
    await limiter.share_once()
    (key,) = await valkey.keys()
    assert 0 < await valkey.ttl(key) <= 2 * LIMITS.window_seconds


async def test_without_valkey_each_process_counts_alone(clock):
    async with Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=0.2) as nobody:
        limiter, caller, stopping = RateLimiter(LIMITS, nobody, clock), uuid4(), asyncio.Event()
        with capture_logs() as lines:
            sharing = asyncio.create_task(limiter.share(stopping))
            assert take(limiter, caller, 4) == 4
            async with asyncio.timeout(10):
                while not lines:  # noqa: ASYNC110 -- the log sets no Event
                    await asyncio.sleep(0.01)
            assert take(limiter, caller, 12) == 6
            stopping.set()
            await sharing
    assert [line["event"] for line in lines] == ["rate limits are counted by process"]


async def test_memory_is_bounded_however_many_call(clock, monkeypatch):
    monkeypatch.setattr("pricebook.core.rate_limits._MOST_CALLERS", 100)
    limiter = RateLimiter(LIMITS, clock=clock)
    for number in range(1_000):
        limiter.count_network(str(number))
    assert len(limiter._counts) == 100


async def test_answers_tell_how_much_is_left(make_api, viewer):
    limited = (await make_api(limits={"requests": 3})).as_(viewer)
    replies = [await limited.get("/v1/items") for _ in range(4)]
    assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
    for left, reply in zip((2, 1, 0, 0), replies, strict=True):
        assert reply.headers["ratelimit-policy"] == '"credential";q=3;w=60'
        assert reply.headers["ratelimit"].startswith(f'"credential";r={left};t=')
    refused = replies[-1]
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["type"] == "/problems/too-many-requests"
    assert 1 <= int(refused.headers["retry-after"]) <= 60


async def test_wrong_tokens_and_repeats_are_counted_too(make_api, editor):
    limited = await make_api(limits={"requests": 3, "anonymous_requests": 3})
    strangers = [await limited.with_token("pbs_wrong").get("/v1/items") for _ in range(4)]
    assert [reply.status_code for reply in strangers] == [401, 401, 401, 429]
    new = {"sku": "H-1", "name": "Hammer", "price": "1", "currency": "EUR"}
    key = {"Idempotency-Key": "once"}
    repeats = [await limited.as_(editor).post("/v1/items", json=new, headers=key) for _ in range(4)]
    assert [reply.status_code for reply in repeats] == [201, 201, 201, 429]


async def test_health_is_answered_whatever_the_limit(make_api):
    limited = await make_api(limits={"anonymous_requests": 1})
    for path in ("/ping", "/health", "/health/live", "/health/ready"):
        assert [(await limited.get(path)).status_code for _ in range(3)] == [200, 200, 200]
