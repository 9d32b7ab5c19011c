"""The brakes on guessing passwords, which do not lock out who knows them."""

import asyncio
from collections.abc import Iterator

import httpx2
import pytest
from tests.conftest import PASSWORD

from pricebook.core.settings import AuthSettings

LIMITS = AuthSettings(
    failures_per_account_and_network=3, failures_per_account=6, failures_per_network=8
)


@pytest.fixture
def limits(app, settings, request) -> Iterator[AuthSettings]:
    chosen = LIMITS.model_copy(update=getattr(request, "param", {}))
    app.state.settings = settings.model_copy(update={"auth": chosen})
    yield chosen
    app.state.settings = settings


@pytest.fixture
def log_in(app, database):
    """Log in from an address."""

    async def try_it(username, password="a wrong password", address="192.0.2.1", **headers):
        transport = httpx2.ASGITransport(app=app, client=(address, 50_000))
        async with httpx2.AsyncClient(transport=transport, base_url="http://pricebook.test") as one:
            form = {"username": username, "password": password}
            return await one.post("/v1/auth/token", data=form, headers=headers)

    return try_it


async def fail(log_in, email: str, times: int, **origin) -> None:
    for _ in range(times):
        assert (await log_in(email, **origin)).status_code == 401


def network(number: int) -> str:
    return f"198.51.100.{number}"


@pytest.mark.parametrize("email", ["viewer", "nobody@example.com"])
async def test_an_account_is_guessed_at_so_often_from_one_network(limits, log_in, viewer, email):
    email = viewer.email if email == "viewer" else email
    await fail(log_in, email, limits.failures_per_account_and_network)
    refused = await log_in(email)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= limits.failure_window_seconds
    assert (await log_in(email, PASSWORD)).status_code == 429
    assert (await log_in(email, address="192.0.2.2")).status_code == 401


async def test_the_refusal_does_not_say_whether_the_user_exists(limits, log_in, viewer):
    bodies = []
    for email in (viewer.email, "nobody@example.com"):
        await fail(log_in, email, limits.failures_per_account_and_network)
        body = (await log_in(email)).json()
        bodies.append({name: body[name] for name in body if name != "request_id"})
    assert bodies[0] == bodies[1]


async def test_knowing_the_password_starts_the_count_anew(limits, log_in, viewer):
    for _ in range(3):
        await fail(log_in, viewer.email, limits.failures_per_account_and_network - 1)
        assert (await log_in(viewer.email, PASSWORD)).status_code == 200


async def test_a_guesser_with_many_addresses_is_stopped_and_the_owner_is_not(
    limits, log_in, viewer
):
    home = "203.0.113.7"
    assert (await log_in(viewer.email, PASSWORD, home)).status_code == 200
    for number in range(limits.failures_per_account):
        await fail(log_in, viewer.email, 1, address=network(number))
    assert (await log_in(viewer.email, PASSWORD, network(99))).status_code == 429
    assert (await log_in(viewer.email, PASSWORD, home)).status_code == 200


async def test_a_network_fails_so_often_whatever_the_accounts(limits, log_in, viewer):
    for number in range(limits.failures_per_network):
        await fail(log_in, f"{number}@example.com", 1)
    assert (await log_in("another@example.com")).status_code == 429
    assert (await log_in("another@example.com", address="192.0.2.2")).status_code == 401


async def test_the_addresses_of_one_ipv6_host_are_one_network(limits, log_in):
    for number in range(limits.failures_per_network):
        await fail(log_in, f"{number}@example.com", 1, address=f"2001:db8:1:2::{number:x}")
    assert (await log_in("x@example.com", address="2001:db8:1:2:ffff::1")).status_code == 429
    assert (await log_in("x@example.com", address="2001:db8:1:3::1")).status_code == 401


async def test_ipv4_callers_of_an_ipv6_socket_are_told_apart(limits, log_in):
    for number in range(limits.failures_per_network):
        await fail(log_in, f"{number}@example.com", 1, address="::ffff:192.0.2.1")
    assert (await log_in("x@example.com", address="192.0.2.1")).status_code == 429
    assert (await log_in("x@example.com", address="::ffff:192.0.2.2")).status_code == 401


async def test_a_forged_forwarding_header_gains_nothing(limits, log_in, viewer):
    for number in range(limits.failures_per_account_and_network):
        forged = {"X-Forwarded-For": network(number), "Forwarded": f"for={network(number)}"}
        assert (await log_in(viewer.email, **forged)).status_code == 401
    assert (await log_in(viewer.email, **{"X-Forwarded-For": network(77)})).status_code == 429


async def test_fifty_racing_guesses_get_no_more_tries_than_one_after_the_other(
    limits, log_in, viewer
):
    replies = await asyncio.gather(*(log_in(viewer.email) for _ in range(50)))
    statuses = [reply.status_code for reply in replies]
    assert statuses.count(401) == limits.failures_per_account_and_network
    assert statuses.count(429) == 50 - limits.failures_per_account_and_network


async def test_many_right_log_ins_at_once_are_no_failures(limits, log_in, viewer):
    replies = await asyncio.gather(*(log_in(viewer.email, PASSWORD) for _ in range(20)))
    assert {reply.status_code for reply in replies} == {200}


@pytest.mark.parametrize("limits", [{"failure_window_seconds": 1}], indirect=True)
async def test_the_count_ends_with_its_window(limits, log_in, viewer):
    await fail(log_in, viewer.email, limits.failures_per_account_and_network)
    refused = await log_in(viewer.email, PASSWORD)
    assert refused.headers["Retry-After"] == "1"
    await asyncio.sleep(1)
    assert (await log_in(viewer.email, PASSWORD)).status_code == 200
