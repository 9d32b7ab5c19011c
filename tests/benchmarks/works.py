"""The works that are measured against the ceiling, in short rounds that take turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import orjson
from tests.benchmarks.cost import cpu_seconds, family_cpu_seconds
from tests.benchmarks.load import saturate
from tests.benchmarks.servers import Field, Server

_WARM_UP_SECONDS = 0.5


@dataclass(frozen=True)
class Work:
    """One kind of request, and the share of the ceiling's rate that it has to reach."""

    name: str
    why: str
    requests: Sequence[bytes]
    target: float


@dataclass(frozen=True)
class Round:
    """One server's share of a round; processor times in microseconds a request."""

    rate: float
    cpu: float
    postgres_cpu: float
    p99_milliseconds: float


@dataclass(frozen=True)
class Measured:
    """The medians of a work's rounds, and how they compare."""

    work: Work
    pricebook: Round
    ceiling: Round
    rate_ratio: float
    cpu_ratio: float

    @property
    def is_met(self) -> bool:
        """Whether the target is reached."""
        return self.rate_ratio >= self.work.target


def request(
    method: str, path: str, token: str = "", body: bytes = b"", kind: str = "application/json"
) -> bytes:
    """Return a request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", "accept: */*"]
    if token:
        lines.append(f"authorization: Bearer {token}")
    if body:
        lines += [f"content-type: {kind}", f"content-length: {len(body)}"]
    return "\r\n".join((*lines, "", "")).encode() + body


def works(token: str, item_ids: Sequence[str]) -> dict[str, Work]:
    """Return the works by name."""
    names = (f"Hammer {number}" for number in range(10**9))
    return {
        work.name: work
        for work in (
            Work(
                "item",
                "GET /v1/items/{id} with a token, everything on; the ceiling checks no token",
                [request("GET", f"/v1/items/{item_id}", token) for item_id in item_ids],
                0.33,
            ),
            Work(
                "list",
                "GET /v1/items?limit=100 with a token",
                [request("GET", "/v1/items?limit=100", token)],
                0.38,
            ),
            Work(
                "patch",
                "PATCH of one field with its event; the ceiling runs the same three statements",
                [
                    request(
                        "PATCH", f"/v1/items/{item_id}", token, orjson.dumps({"name": next(names)})
                    )
                    for item_id in item_ids
                ],
                0.35,
            ),
        )
    }


async def measure(field: Field, work: Work, *, rounds: int, seconds: float) -> Measured:
    """Let both servers work in turn, so that what else the machine does disturbs both alike."""
    for server in (field.ceiling, field.pricebook):
        await _round(field, server, work, _WARM_UP_SECONDS)
    pairs = [
        (
            await _round(field, field.ceiling, work, seconds),
            await _round(field, field.pricebook, work, seconds),
        )
        for _ in range(rounds)
    ]
    return Measured(
        work,
        pricebook=_median([ours for _, ours in pairs]),
        ceiling=_median([theirs for theirs, _ in pairs]),
        rate_ratio=median(ours.rate / theirs.rate for theirs, ours in pairs),
        cpu_ratio=median(theirs.cpu / ours.cpu for theirs, ours in pairs),
    )


async def _round(field: Field, server: Server, work: Work, seconds: float) -> Round:
    cpu, postgres_cpu = cpu_seconds(server.pid), family_cpu_seconds(field.postgres_pid)
    tally = await saturate(server.port, work.requests, seconds=seconds)
    if tally.refused:
        message = f"{server.name} refused {work.name}: {tally.refused}"
        raise RuntimeError(message)
    return Round(
        rate=tally.rate,
        cpu=1e6 * (cpu_seconds(server.pid) - cpu) / tally.answers,
        postgres_cpu=1e6 * (family_cpu_seconds(field.postgres_pid) - postgres_cpu) / tally.answers,
        p99_milliseconds=tally.percentile(0.99),
    )


def _median(rounds: Sequence[Round]) -> Round:
    return Round(
        rate=median(one.rate for one in rounds),
        cpu=median(one.cpu for one in rounds),
        postgres_cpu=median(one.postgres_cpu for one in rounds),
        p99_milliseconds=median(one.p99_milliseconds for one in rounds),
    )
