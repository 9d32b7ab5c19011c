"""Makers of the things that any operation speaks of, and a real API process."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from tests.contract.operations import Things

from pricebook.auth.models import ApiKey, Session
from pricebook.auth.one_time import issue_token
from pricebook.auth.service import open_session
from pricebook.core.clock import now
from pricebook.core.files import Files
from pricebook.core.principal import Principal, Role
from pricebook.core.settings import Settings
from pricebook.jobs.service import NewJob, enqueue
from pricebook.notifications.kinds import Kind
from pricebook.notifications.models import Notification
from pricebook.notifications.unsubscribing import Unsubscriber
from pricebook.serving import listen, url_of
from pricebook.users.models import User
from pricebook.webhooks.models import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookMessage,
)

MakeThings = Callable[[User], Awaitable[Things]]


@pytest.fixture
def make_things(
    session: AsyncSession, settings: Settings, make_item, make_key, make_user
) -> MakeThings:
    """Make an item, a webhook that was told of it, and a second session and an API key of a user.

    And tokens of mails to another.
    """

    async def make(owner: User) -> Things:
        forgetful = await make_user()
        mailed = {"user_id": forgetful.id, "email": forgetful.email}
        reset_token = await issue_token(session, purpose="password_reset", **mailed)
        proof_token = await issue_token(session, purpose="verify_email", **mailed)
        item = await make_item()
        await make_key(owner, "items:read")
        await open_session(session, owner, address="127.0.0.1", user_agent="tests")
        webhook_id, delivery_id = await a_delivery(session, owner)
        notification = Notification(
            user_id=owner.id, kind="security", event_id=uuid4(), data={}, is_in_inbox=True
        )
        session.add(notification)
        job_id, failed_job_id = await two_jobs(session, owner)
        link = Unsubscriber(settings).url(forgetful.id, Kind.PRICE_CHANGED) or ""
        unsubscribe_token = link.partition("?token=")[2]
        await session.commit()
        newest_key = select(ApiKey.id).where(ApiKey.user_id == owner.id).order_by(ApiKey.id.desc())
        newest = select(Session.id).where(Session.user_id == owner.id).order_by(Session.id.desc())
        return Things(
            user_id=owner.id,
            item_id=item.id,
            sku=item.sku,
            session_id=(await session.scalars(newest)).first(),
            api_key_id=(await session.scalars(newest_key)).first(),
            email=owner.email,
            reset_token=reset_token.get_secret_value(),
            proof_token=proof_token.get_secret_value(),
            webhook_id=webhook_id,
            delivery_id=delivery_id,
            notification_id=notification.id,
            tag="hand tools",
            unsubscribe_token=unsubscribe_token,
            job_id=job_id,
            failed_job_id=failed_job_id,
            import_id=await an_import(session, settings, owner),
            export_id=await an_export(session, settings, owner),
        )

    return make


async def two_jobs(session: AsyncSession, owner: User) -> tuple[UUID, UUID]:
    """Ask for two jobs, of which one has failed; return their ids."""
    asking = Principal(owner.id, Role(owner.role), owner.id)
    new = NewJob(kind="count_items", params={}, expected_seconds=1)
    waiting, failed = await enqueue(session, asking, new), await enqueue(session, asking, new)
    failed.status, failed.finished_at, failed.error = "failed", now(), "There is nothing to count."
    await session.flush()
    return waiting.id, failed.id


async def an_import(session: AsyncSession, settings: Settings, owner: User) -> UUID:
    """Make an import that has refused a row, and return its id."""
    name = f"imports/{uuid4()}.errors.csv"

    async def rows() -> AsyncIterator[bytes]:
        yield b"sku,reason,line\r\nH-1,price: is missing,2\r\n"

    await Files(settings).write(name, rows())
    asking = Principal(owner.id, Role(owner.role), owner.id)
    params = {"errors_file": name}
    new = NewJob(
        kind="import_items", params=params, expected_seconds=1, role=Role.EDITOR, files=[name]
    )
    job = await enqueue(session, asking, new)
    job.status, job.finished_at, job.result = "succeeded", now(), {"has_errors_csv": True}
    await session.commit()
    return job.id


async def an_export(session: AsyncSession, settings: Settings, owner: User) -> UUID:
    """Make a file that a job has written, and return the job's id."""

    async def content() -> AsyncIterator[bytes]:
        yield b"sku,price\r\n"

    asking = Principal(owner.id, Role(owner.role), owner.id)
    job = await enqueue(session, asking, NewJob(kind="export_file", params={}, expected_seconds=1))
    job.status, job.finished_at, job.files = "succeeded", now(), [f"exports/{job.id}-1"]
    job.result = {
        "rows": 0,
        "bytes": 11,
        "sha256": "0" * 64,
        "file": f"/v1/exports/{job.id}/file",
        "filename": "items.csv",
        "media_type": "text/csv",
        "expires_at": (now() + timedelta(days=1)).isoformat(),
        "role": "viewer",
    }
    await Files(settings).write(job.files[0], content())
    await session.commit()
    return job.id


async def a_delivery(session: AsyncSession, owner: User) -> tuple[UUID, UUID]:
    """Make a webhook that was told two things; return its id and a delivery's."""
    webhook = WebhookEndpoint(
        owner_id=owner.id, url="https://shop.example.com", sealed_secret=b"sealed"
    )
    messages = [WebhookMessage(id=uuid4(), type="item.created", body="{}") for _ in range(2)]
    session.add_all([webhook, *messages])
    await session.flush()
    deliveries = [
        WebhookDelivery(endpoint_id=webhook.id, message_id=one.id, status="delivered", attempts=1)
        for one in messages
    ]
    session.add_all(deliveries)
    await session.flush()
    delivery = deliveries[0]
    session.add(
        WebhookAttempt(delivery_id=delivery.id, started_at=now(), duration_ms=3, status_code=204)
    )
    return webhook.id, delivery.id


@dataclass(frozen=True)
class Served:
    """An API process of its own, with what it wrote to standard error."""

    url: str
    pid: int
    log: Path

    def peak_memory_kib(self) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def environment(settings: Settings, **more: str) -> dict[str, str]:
    assert settings.database_url is not None
    assert settings.redis_url is not None
    assert settings.secret_key is not None
    return {
        **os.environ,
        "PRICEBOOK_DATABASE_URL": settings.database_url.get_secret_value(),
        "PRICEBOOK_REDIS_URL": settings.redis_url.get_secret_value(),
        "PRICEBOOK_SECRET_KEY": settings.secret_key.get_secret_value(),
        "PRICEBOOK_FILES__URL": settings.files.url or "",
        "PRICEBOOK_LOG__FORMAT": "json",
        "PRICEBOOK_STREAM__MAX_AGE_SECONDS": "0.05",
        **more,
    }


@pytest.fixture(scope="session")
def served(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    log = tmp_path_factory.mktemp("served") / "log"
    env = environment(settings, PRICEBOOK_LOG__LEVEL="DEBUG")
    with listen("127.0.0.1", 0) as listening, log.open("wb") as errors:
        command = [sys.executable, "-m", "pricebook.api_process", str(listening.fileno())]
        process = subprocess.Popen(command, env=env, stderr=errors, pass_fds=[listening.fileno()])
        served = Served(url_of(listening), process.pid, log)
        try:
            # The socket queues the request until the process takes it.
            assert httpx2.get(served.url + "/ping", timeout=30).text == "pong"
            yield served
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)
