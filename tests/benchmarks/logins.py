"""What log-ins do to everyone else, and what their timing gives away."""

import asyncio
import time
from collections.abc import Callable, Sequence
from statistics import median
from urllib.parse import urlencode

import orjson
from tests.benchmarks.data import EMAIL, PASSWORD
from tests.benchmarks.findings import Finding, at_least, at_most
from tests.benchmarks.load import Connection, Pacer, Tally, ask_once, connections, saturate
from tests.benchmarks.servers import Server
from tests.benchmarks.works import request

_AT_ONCE = 50
_ROUNDS = 3
_SECONDS = 2.0
_TRIES = 200
_READERS = 16
# Reads are asked for at half the rate that saturates the server: as for a service with room left.
_SHARE_OF_PEAK = 0.5


def log_in(email: str, password: str) -> bytes:
    """Return the request of a log-in."""
    form = urlencode({"username": email, "password": password}).encode()
    return request("POST", "/v1/auth/token", "", form, "application/x-www-form-urlencoded")


async def open_session(server: Server) -> str:
    """Log in and return the token."""
    status, body = await ask_once(server.port, log_in(EMAIL, PASSWORD))
    if status >= 300:
        message = f"no log-in: {status} {body.decode()}"
        raise RuntimeError(message)
    return str(orjson.loads(body)["access_token"])


async def measure_crowd(server: Server, reads: Sequence[bytes]) -> list[Finding]:
    """Read at a steady rate: idle, while 50 log in, while 50 log in at once."""
    peak = await saturate(server.port, reads, seconds=2)
    rate = peak.rate * _SHARE_OF_PEAK
    quiet, busy, rush = Tally(), Tally(), Tally()
    async with (
        connections(server.port, _READERS) as readers,
        connections(server.port, _AT_ONCE) as people,
    ):
        pacer = Pacer(readers, reads)
        await _log_in_at_once(people)
        for _ in range(_ROUNDS):
            quiet.merge(await pacer.run(rate, asyncio.sleep(_SECONDS)))
            rush.merge(await pacer.run(rate, _log_in_at_once(people)))
        for _ in range(_ROUNDS):
            quiet.merge(await pacer.run(rate, asyncio.sleep(_SECONDS)))
            busy.merge(await pacer.run(rate, _log_in_all_the_time(people)))
    return _compare(quiet, busy, rush)


def _compare(quiet: Tally, busy: Tally, rush: Tally) -> list[Finding]:
    idle, crowded = quiet.percentile(0.99), busy.percentile(0.99)
    return [
        at_least(0.9, busy.rate / quiet.rate, "rate of reads while 50 log in, times idle"),
        at_most(2, crowded / idle, f"their p99, times idle ({idle:.1f} ms)"),
        at_most(
            150, rush.percentile(0.99), "their p99 while 50 log-ins that came at once pass, ms"
        ),
    ]


async def _log_in_at_once(people: Sequence[Connection]) -> None:
    """Let everyone log in once, all at the same moment."""
    await asyncio.gather(*(_log_in(person) for person in people))


async def _log_in_all_the_time(people: Sequence[Connection]) -> None:
    """Let everyone log in again and again; they come one by one, and then 50 are under way."""
    ends_at = time.perf_counter() + _SECONDS * 2

    async def keep_on(person: Connection, late_seconds: float) -> None:
        await asyncio.sleep(late_seconds)
        while time.perf_counter() < ends_at:
            await _log_in(person)

    gap = _SECONDS / len(people)
    await asyncio.gather(*(keep_on(one, gap * place) for place, one in enumerate(people)))


async def _log_in(person: Connection) -> None:
    status, _ = await _answer(person, log_in(EMAIL, PASSWORD))
    if status >= 300:
        message = f"a log-in was refused: {status}"
        raise RuntimeError(message)


def _answer(connection: Connection, asked: bytes) -> asyncio.Future[tuple[int, float]]:
    """Ask, and return the status and the latency in seconds."""
    answer: asyncio.Future[tuple[int, float]] = asyncio.get_running_loop().create_future()
    connection.on_answer = lambda status, latency: answer.set_result((status, latency))
    connection.ask(asked)
    return answer


async def measure_timing(server: Server) -> list[Finding]:
    """Name an account that exists and ones that do not, in turn, where a stranger may name any."""
    return [
        await _compare_timing(server, "log-in", lambda email: log_in(email, "not the password")),
        await _compare_timing(server, "password reset", reset),
    ]


def reset(email: str) -> bytes:
    """Return the request for a mail that resets a password."""
    return request("POST", "/v1/auth/password-reset", body=orjson.dumps({"email": email}))


async def _compare_timing(server: Server, what: str, ask: Callable[[str], bytes]) -> Finding:
    known: list[float] = []
    unknown: list[float] = []
    async with connections(server.port, 1) as (connection,):
        for number in range(_TRIES):
            for email, latencies in ((EMAIL, known), (f"nobody-{number}@example.com", unknown)):
                _, latency = await _answer(connection, ask(email))
                latencies.append(1000 * latency)
    gap = abs(median(known) - median(unknown))
    name = f"{what}, known less unknown account, medians, ms; known {median(known):.1f}"
    return at_most(5, gap, name)
