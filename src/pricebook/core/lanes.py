"""Lanes: from deliveries to one kind of receiver, under leases that are renewed while it lasts."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import ClassVar, Generic, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core import deliveries, leases, tracing
from pricebook.core.context import RequestContext, enter_context
from pricebook.core.database import Database, is_outage
from pricebook.core.deliveries import Claim, Delivery, Outcome, Status, Verdict, judge
from pricebook.core.metrics import note_attempt
from pricebook.core.outages import OUTAGE_PAUSE_SECONDS, tell

_RENEWALS_A_LEASE = 3
_FAREWELL_SECONDS = 2.0

C = TypeVar("C", bound=Claim)
R = TypeVar("R", bound=Outcome)

log = structlog.get_logger(__name__)


class Lane(ABC, Generic[C, R]):
    """One kind of receiver: how deliveries to it are claimed, sent and written down."""

    name: ClassVar[str]
    table: ClassVar[type[Delivery]]
    capacity: int
    """Deliveries that one process holds at once."""
    delays_seconds: Sequence[float]
    """The waits after failed attempts; after the last the delivery is dead."""
    lease_seconds: float

    @abstractmethod
    async def claim(self, session: AsyncSession, held: Sequence[C], room: int) -> Sequence[C]:
        """Take the lease of at most `room` deliveries, besides those that are held already."""

    @abstractmethod
    async def send(self, claim: C) -> R:
        """Try once, outside any transaction, within a bounded time."""

    @abstractmethod
    def broken(self, error: Exception) -> R:
        """Return the outcome of a `send` that raised, which none should."""

    @abstractmethod
    async def settled(self, session: AsyncSession, results: Sequence[tuple[C, R, Verdict]]) -> None:
        """Write down what else follows from outcomes, in the transaction that records them."""

    async def close(self) -> None:
        """Let go of connections."""


@contextmanager
def attempt_span(name: str, claim: Claim) -> Iterator[tracing.Span]:
    """Make the span of an attempt at a delivery, in the trace of what led to it."""
    facts: dict[str, str | int] = {f"pricebook.{key}": one for key, one in claim.names().items()}
    facts["pricebook.attempt"] = claim.attempts + 1
    with tracing.span(name, tracing.SpanKind.CLIENT, claim.causes, facts) as span:
        yield span


class Runner(Generic[C, R]):
    """Keeps one lane full, renews what it holds, and records how each attempt went."""

    def __init__(self, lane: Lane[C, R], database: Database) -> None:
        """Work for `lane`."""
        self.lane = lane
        self.on_room: Callable[[], None] = _nothing
        self._sessions = database.sessions
        self._sending: dict[UUID, asyncio.Task[None]] = {}
        self._claims: dict[UUID, C] = {}
        self._results: list[tuple[C, R]] = []
        self._has_results = asyncio.Event()

    async def fill(self) -> bool:
        """Claim what there is room for, and begin to send it; return whether there may be more."""
        room = self.lane.capacity - len(self._claims)
        if room <= 0:
            return False
        async with self._sessions.begin() as session:
            claims = await self.lane.claim(session, list(self._claims.values()), room)
        for claim in claims:
            self._claims[claim.id] = claim
            self._sending[claim.id] = asyncio.create_task(self._send(claim))
        return bool(claims)

    async def _send(self, claim: C) -> None:
        began = time.perf_counter()
        enter_context(RequestContext(claim.request_id or "", about=claim.names()))
        try:
            outcome = await self.lane.send(claim)
        except Exception as error:
            log.exception("delivery broke", lane=self.lane.name)
            outcome = self.lane.broken(error)
        self._sending.pop(claim.id, None)
        verdict = judge(self.lane.delays_seconds, claim.attempts, outcome)
        note_attempt(self.lane.name, verdict.status, time.perf_counter() - began)
        _tell(self.lane.name, claim, outcome, verdict)
        self._results.append((claim, outcome))
        self._has_results.set()

    async def record(self) -> None:
        """Record outcomes as they come, many in one transaction, until cancelled."""
        while True:
            await self._has_results.wait()
            await self._record_all()

    async def _record_all(self) -> None:
        while self._results:
            results = list(self._results)
            try:
                await self._settle_whatever_comes(results)
            except Exception as error:  # noqa: BLE001 -- told, and tried again
                # The outcomes stay here, and their leases are renewed, until they are written.
                tell("outcomes not recorded yet", error, lane=self.lane.name)
                await asyncio.sleep(OUTAGE_PAUSE_SECONDS)
                continue
            del self._results[: len(results)]
            for claim, _outcome in results:
                self._claims.pop(claim.id, None)
            self.on_room()
        self._has_results.clear()

    async def _settle_whatever_comes(self, results: Sequence[tuple[C, R]]) -> None:
        """Record outcomes; one that the lane cannot write down holds up no other."""
        try:
            await self._settle(results)
        except Exception as error:
            if is_outage(error):
                raise
            log.exception("outcomes spoil their batch; one by one now", lane=self.lane.name)
        else:
            return
        for result in results:
            try:
                await self._settle([result])
            except Exception as error:
                if is_outage(error):
                    raise
                log.exception("outcome not written down", **result[0].names())
                await self._settle([result], is_told=False)

    async def _settle(self, results: Sequence[tuple[C, R]], *, is_told: bool = True) -> None:
        judged = [
            (claim, outcome, judge(self.lane.delays_seconds, claim.attempts, outcome))
            for claim, outcome in results
        ]
        verdicts = [(claim, verdict) for claim, _outcome, verdict in judged]
        async with self._sessions.begin() as session:
            statement = deliveries.settled(self.lane.table, verdicts)
            held = set(await session.scalars(statement))
            counted = [one for one in judged if one[0].id in held]
            if counted and is_told:
                await self.lane.settled(session, counted)
        if len(held) < len(results):
            log.warning("leases lost", lane=self.lane.name, count=len(results) - len(held))

    async def renew(self) -> None:
        """Keep the leases of what is held, until cancelled."""
        while True:
            await asyncio.sleep(self.lane.lease_seconds / _RENEWALS_A_LEASE)
            held = list(self._claims.values())
            if not held:
                continue
            try:
                async with self._sessions.begin() as session:
                    statement = leases.renewed(self.lane.table, held, self.lane.lease_seconds)
                    kept = set(await session.scalars(statement))
            except Exception as error:  # noqa: BLE001 -- told, and tried again
                tell("leases not renewed yet", error, lane=self.lane.name)
                continue
            self._drop(claim for claim in held if claim.id not in kept)

    def _drop(self, lost: Iterable[C]) -> None:
        """Stop sending what another worker has taken over; what is done settles by itself."""
        for claim in lost:
            # Settled and claimed anew meanwhile, it is another claim under the same id.
            if claim.id in self._sending and self._claims[claim.id] is claim:
                self._sending.pop(claim.id).cancel()
                del self._claims[claim.id]

    async def finish(self, seconds: float) -> None:
        """Let what is being sent end within `seconds`; the outcomes are recorded as they come."""
        if self._sending:
            await asyncio.wait(list(self._sending.values()), timeout=seconds)
        for task in self._sending.values():
            task.cancel()

    async def hand_back(self) -> None:
        """Record what is not recorded yet, and give up the leases of the rest."""
        unfinished = [self._claims[one] for one in self._sending]
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._record_all()
                if unfinished:
                    async with self._sessions.begin() as session:
                        await session.execute(leases.released(self.lane.table, unfinished))
        await self.lane.close()


def _tell(lane: str, claim: Claim, outcome: Outcome, verdict: Verdict) -> None:
    """Log how an attempt went; the context has its ids."""
    facts = {"lane": lane, "attempt": claim.attempts + 1, "error": outcome.error}
    if outcome.is_delivered:
        log.debug("delivered", lane=lane, attempt=claim.attempts + 1)
    elif not outcome.is_tried or not outcome.is_needed:
        log.debug("not sent", **facts)
    elif verdict.status is Status.DEAD:
        log.warning("delivery is dead", **facts)
    else:
        log.info("attempt failed", **facts)


def _nothing() -> None:
    """Wake nobody."""
