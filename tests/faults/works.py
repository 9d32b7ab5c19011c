"""Kinds of jobs for worker processes of the tests."""

import asyncio
from pathlib import Path
from typing import Any, ClassVar

from tests.processes import ForkedWorker

from pricebook.core.principal import Role
from pricebook.items.models import Item
from pricebook.jobs.backfilling import Backfill, tasks_of
from pricebook.jobs.run import Run, Task, Tasks


async def add_item(run: Run) -> dict[str, Any]:
    """Add an item named for the lease, in a transaction that stays open until the file is there."""
    async with run.tools.database.sessions.begin() as session:
        sku = f"LEASE-{run.lease.lease}"
        session.add(Item(sku=sku, name="Hammer", price=1, currency="EUR"))
        await session.flush()
        run.progress("waiting", 1, 2)
        while not _is_there(run.params["until"]):  # noqa: ASYNC110 -- another process makes it
            await asyncio.sleep(0.02)
        await run.complete(session, {"sku": sku})
    return {}


def _is_there(path: str) -> bool:
    return Path(path).exists()


VISITS = Backfill(
    title="How often each item was visited",
    table="items",
    statement="UPDATE items SET cost = coalesce(cost, 0) + 1 FROM batch "
    "WHERE items.id = batch.id AND pg_sleep(0.002) IS NOT NULL",
)


async def do_nothing(_run: Run) -> None:
    """Be done at once."""


class WorkerOfTests(ForkedWorker):
    """A worker process that knows these kinds."""

    tasks: ClassVar[Tasks] = {
        "add_item": Task(Role.EDITOR, add_item),
        "do_nothing": Task(Role.VIEWER, do_nothing),
        **tasks_of({"visits": VISITS}),
    }
