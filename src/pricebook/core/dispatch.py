"""The dispatcher: expands what is new in the log, and keeps each lane full of what is due.

One runs in each worker process. Whoever wakes it saves it the rest of its beat; it needs no one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from pricebook.core.database import Database
from pricebook.core.expansion import Expander, Subscriptions
from pricebook.core.lanes import Lane, Runner
from pricebook.core.outages import OUTAGE_PAUSE_SECONDS, tell
from pricebook.core.settings import DeliverySettings

BEAT_SECONDS = 1.0
"""How often work is looked for when nobody says that there is some."""


class Dispatcher:
    """Expands and delivers until it is told to stop."""

    def __init__(
        self,
        database: Database,
        subscriptions: Subscriptions,
        lanes: Sequence[Lane[Any, Any]],
        settings: DeliverySettings,
    ) -> None:
        """Deliver over `lanes` what `subscriptions` make of events."""
        self._expander = Expander(database, subscriptions, settings.expansion_batch)
        self._expanding = _Lookout("expansion", self._expand)
        self._runners = [Runner(lane, database) for lane in lanes]
        self._filling = [_Lookout(runner.lane.name, runner.fill) for runner in self._runners]
        for runner, lookout in zip(self._runners, self._filling, strict=True):
            runner.on_room = lookout.wake
        self._stopped = asyncio.Event()

    def wake(self) -> None:
        """Look for work now, and not only at the next beat."""
        self._expanding.wake()

    def stop(self) -> None:
        """Claim nothing more."""
        for lookout in (self._expanding, *self._filling):
            lookout.stop()
        self._stopped.set()

    async def run(self, finish_seconds: float) -> None:
        """Work until stopped, then finish what is under way within about `finish_seconds`."""
        looking = [asyncio.create_task(one.keep()) for one in (self._expanding, *self._filling)]
        aside = [
            asyncio.create_task(work())
            for runner in self._runners
            for work in (runner.record, runner.renew)
        ]
        try:
            await self._stopped.wait()
            await self._finish(looking, finish_seconds)
        finally:
            for task in (*looking, *aside):
                task.cancel()
            await asyncio.gather(*looking, *aside, return_exceptions=True)
            await asyncio.gather(*(runner.hand_back() for runner in self._runners))

    async def _finish(self, looking: Sequence[asyncio.Task[None]], seconds: float) -> None:
        """Let what was looked for come, unless the database is silent; then let it be sent."""
        until = asyncio.get_running_loop().time() + seconds
        await asyncio.wait(looking, timeout=seconds)
        left = max(0, until - asyncio.get_running_loop().time())
        await asyncio.gather(*(runner.finish(left) for runner in self._runners))

    async def _expand(self) -> bool:
        has_more = await self._expander.expand()
        for lookout in self._filling:
            lookout.wake()
        return has_more


class _Lookout:
    """Looks for one kind of work, whatever becomes of the others."""

    def __init__(self, name: str, look: Callable[[], Awaitable[bool]]) -> None:
        """Do what `look` finds; it tells whether there may be more."""
        self._name = name
        self._look = look
        self._woken = asyncio.Event()
        self._is_stopping = False

    def wake(self) -> None:
        self._woken.set()

    def stop(self) -> None:
        self._is_stopping = True
        self.wake()

    async def keep(self) -> None:
        """Look when woken, at each beat, and for as long as there is more; until stopped."""
        while not self._is_stopping:
            self._woken.clear()
            try:
                has_more = await self._look()
            except Exception as error:  # noqa: BLE001 -- told, and tried again: a worker that ends helps nobody
                tell("could not look for work", error, lane=self._name)
                await asyncio.sleep(OUTAGE_PAUSE_SECONDS)
                continue
            if not has_more:
                with suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_SECONDS):
                        await self._woken.wait()
