"""The dispatcher: expands what is new in the log, and keeps each lane full of what is due.

One runs in each worker process. Whoever wakes it saves it the rest of its beat; it needs no one.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pricebook.core.database import Database
from pricebook.core.expansion import Expander, Subscriptions
from pricebook.core.lanes import OUTAGE_PAUSE_SECONDS, Lane, Runner, tell
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
        self._woken = asyncio.Event()
        self._stopping = False
        self._runners = [Runner(lane, database, self.wake) for lane in lanes]

    def wake(self) -> None:
        """Look for work now, and not only at the next beat."""
        self._woken.set()

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self.wake()

    async def run(self, finish_seconds: float) -> None:
        """Work until stopped, then finish what is under way within about `finish_seconds`."""
        aside = [
            asyncio.create_task(work())
            for runner in self._runners
            for work in (runner.record, runner.renew)
        ]
        try:
            while not self._stopping:
                await self._work_once()
            await asyncio.gather(*(runner.finish(finish_seconds) for runner in self._runners))
        finally:
            for task in aside:
                task.cancel()
            await asyncio.gather(*aside, return_exceptions=True)
            for runner in self._runners:
                await runner.hand_back()

    async def _work_once(self) -> None:
        self._woken.clear()
        try:
            has_more = await self._expander.expand()
            for runner in self._runners:
                has_more |= await runner.fill()
        except Exception as error:  # noqa: BLE001 -- told, and tried again: a worker that ends helps nobody
            tell("could not look for work", error, "all")
            await asyncio.sleep(OUTAGE_PAUSE_SECONDS)
            return
        if not has_more:
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._woken.wait()
