"""Two API processes are one service: what one counts, stores, ends or changes, the other knows."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
from tests.conftest import PASSWORD, Api
from tests.faults.conftest import eventually
from tests.processes import ForkedApi

from pricebook.core.settings import AuthSettings, LimitSettings, Settings, StreamSettings
from pricebook.users.models import User

REVOKED_WITHIN_SECONDS = 1
SHARED_WITHIN_SECONDS = 0.5
LIMIT = 100
NEW = {"sku": "ONE-FOR-BOTH", "name": "Rope", "price": "1", "currency": "EUR"}

Pair = tuple[httpx2.AsyncClient, httpx2.AsyncClient]


@pytest.fixture
async def pair(
    settings: Settings, start: Callable[..., ForkedApi], api: Api, editor: User
) -> AsyncIterator[Pair]:
    """An editor who talks to either of two processes."""
    shared = settings.model_copy(
        update={
            "stream": StreamSettings(),
            "limits": LimitSettings(requests=LIMIT, window_seconds=3_600),
            "auth": AuthSettings(failures_per_account_and_network=4),
        }
    )
    headers = {"Authorization": f"Bearer {api.tokens[editor.id]}"}
    urls = [start(ForkedApi, shared).url for _ in range(2)]
    async with (
        httpx2.AsyncClient(base_url=urls[0], headers=headers, timeout=30) as one,
        httpx2.AsyncClient(base_url=urls[1], headers=headers, timeout=30) as other,
    ):
        for client in (one, other):
            assert (await client.get("/ping")).text == "pong"
        yield one, other


def left(reply: httpx2.Response) -> int:
    return int(reply.headers["ratelimit"].partition("r=")[2].partition(";")[0])


async def test_a_rate_limit_counts_what_came_to_either(pair: Pair) -> None:
    for _ in range(LIMIT // 2 - 5):
        for client in pair:
            assert (await client.get("/v1/users/me")).status_code == 200
    await asyncio.sleep(SHARED_WITHIN_SECONDS)
    # Each learns the sum with its own next count.
    for _ in range(2):
        for client in pair:
            assert (await client.get("/v1/users/me")).status_code == 200
        await asyncio.sleep(SHARED_WITHIN_SECONDS)
    last = [await client.get("/v1/users/me") for client in pair]
    assert all(left(reply) <= 6 for reply in last)
    statuses = [(await client.get("/v1/users/me")).status_code for _ in range(8) for client in pair]
    assert statuses[-1] == statuses[-2] == 429


async def test_a_repeat_at_the_other_gets_the_first_answer(pair: Pair) -> None:
    key = {"Idempotency-Key": "once"}
    first, repeat = [await client.post("/v1/items", json=NEW, headers=key) for client in pair]
    assert (first.status_code, repeat.status_code) == (201, 201)
    assert repeat.json() == first.json()
    assert repeat.headers["idempotency-replayed"] == "true"


async def test_repeats_that_race_make_one_row(pair: Pair) -> None:
    key = {"Idempotency-Key": "raced"}
    racing = [client.post("/v1/items", json=NEW, headers=key) for client in pair for _ in range(10)]
    replies = await asyncio.gather(*racing)
    assert {reply.status_code for reply in replies} <= {201, 409}
    assert len({reply.json()["id"] for reply in replies if reply.status_code == 201}) == 1


async def test_a_log_out_at_one_ends_the_session_at_the_other(pair: Pair) -> None:
    one, other = pair
    assert (await other.get("/v1/users/me")).status_code == 200
    assert (await one.delete("/v1/auth/token")).status_code == 204
    began = time.monotonic()

    async def is_refused() -> bool:
        return (await other.get("/v1/users/me")).status_code == 401

    await eventually(is_refused, 5)
    assert time.monotonic() - began < REVOKED_WITHIN_SECONDS


async def test_a_stream_of_one_tells_what_the_other_changed(pair: Pair) -> None:
    one, other = pair
    async with asyncio.timeout(10), one.stream("GET", "/v1/events/stream") as stream:
        assert stream.status_code == 200
        made = await other.post("/v1/items", json=NEW)
        assert made.status_code == 201
        async for line in stream.aiter_lines():
            if made.json()["id"] in line:
                return
    pytest.fail("the stream ended first")


async def test_guesses_at_either_count_as_one(pair: Pair, editor: User) -> None:
    wrong = {"username": editor.email, "password": "a wild guess at it"}
    for client in (*pair, *pair):
        assert (await client.post("/v1/auth/token", data=wrong)).status_code == 401
    right = wrong | {"password": PASSWORD}
    for client in pair:
        refused = await client.post("/v1/auth/token", data=right)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
