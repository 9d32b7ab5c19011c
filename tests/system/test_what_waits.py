"""What goes on behind the API: whether a worker lives, and how long anything has waited."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import func, text

from pricebook.core.outbox import EventRecord
from pricebook.core.settings import MailSettings
from pricebook.jobs.models import Job
from pricebook.notifications.models import Mail
from pricebook.system.service import HealthMonitor, in_words
from pricebook.webhooks.models import WebhookDelivery, WebhookEndpoint, WebhookMessage

SIGN_OF_LIFE = "arq:queue:health-check"
SIGN_OF_JOBS = "pricebook:jobs:health-check"
WITH_MAIL = MailSettings(url=SecretStr("smtp://mail.example.com"))


@pytest.fixture
async def valkey(settings):
    async with Redis.from_url(settings.redis_url.get_secret_value()) as client:
        yield client
        await client.delete(SIGN_OF_LIFE, SIGN_OF_JOBS)


@pytest.fixture
def parts(database, valkey):
    """Ask a process that knows nothing yet, and return its parts by name."""

    async def ask(mail=WITH_MAIL):
        health = await HealthMonitor(database, valkey, mail).check()
        assert health.status == "ok", "what goes on behind keeps no request from being answered"
        return {part.name: part for part in health.parts}

    return ask


@pytest.fixture
def wait_since(session, viewer):
    """Write down something that has waited for so many seconds."""

    async def event(seconds):
        since = func.now() - timedelta(seconds=seconds)
        session.add(
            EventRecord(type="item.created", subject_id=uuid4(), payload={}, occurred_at=since)
        )
        await session.commit()

    async def mail(seconds, **fields):
        since = func.now() - timedelta(seconds=seconds)
        session.add(Mail(user_id=viewer.id, kind="verify_email", due_at=since, **fields))
        await session.commit()

    async def webhook(seconds, *, endpoint=None, **fields):
        since = func.now() - timedelta(seconds=seconds)
        to = WebhookEndpoint(url="https://example.com", sealed_secret=b"x", **(endpoint or {}))
        message = WebhookMessage(id=uuid4(), type="item.created", body="{}")
        session.add_all([to, message])
        await session.flush()
        session.add(
            WebhookDelivery(endpoint_id=to.id, message_id=message.id, due_at=since, **fields)
        )
        await session.commit()

    return {"events": event, "mails": mail, "webhook deliveries": webhook}


async def test_a_worker_that_lives_is_seen(parts, valkey):
    missing = (await parts())["worker"]
    assert (missing.status, missing.is_critical) == ("failing", False)
    assert missing.detail == "none has been seen; start `pricebook worker`"
    await valkey.set(SIGN_OF_LIFE, "works")
    idle = (await parts())["worker"]
    assert idle.status == "failing"
    assert idle.detail.startswith("works, but none takes jobs; ")
    await valkey.set(SIGN_OF_JOBS, "works")
    assert ((await parts())["worker"].status, (await parts())["worker"].detail) == ("ok", "works")


@pytest.mark.parametrize("kind", ["events", "mails", "webhook deliveries"])
async def test_what_was_due_just_now_is_not_late(parts, wait_since, kind):
    assert (await parts())["deliveries"].detail == "none waits"
    await wait_since[kind](5)
    soon = (await parts())["deliveries"]
    assert (soon.status, soon.is_critical) == ("ok", False)
    assert soon.detail == f"the longest that any waits is 5 s ({kind})"


@pytest.mark.parametrize("kind", ["events", "mails", "webhook deliveries"])
async def test_what_waits_for_more_than_a_minute_is_late(parts, wait_since, kind):
    await wait_since[kind](3 * 60)
    await wait_since[kind](2)
    late = (await parts())["deliveries"]
    assert late.status == "failing"
    assert late.detail.startswith(f"the longest that any waits is 3 min ({kind})")
    assert "see that a worker runs" in late.detail


async def test_what_is_done_or_not_due_yet_or_under_way_does_not_wait(
    parts, wait_since, session, viewer
):
    await wait_since["events"](600)
    await session.execute(text("UPDATE events SET expanded_at = now()"))
    later = func.now() + timedelta(seconds=60)
    for kind in ("mails", "webhook deliveries"):
        for status in ("delivered", "dead"):
            await wait_since[kind](600, status=status, settled_at=func.now())
        await wait_since[kind](-600)
        await wait_since[kind](600, leased_until=later)
    assert (await parts())["deliveries"].detail == "none waits"


async def test_what_waits_on_purpose_is_not_late(parts, wait_since, viewer):
    paused = {"paused_at": func.now()}
    disabled = {"disabled_at": func.now(), "disabled_reason": "gone"}
    for endpoint in (paused, disabled):
        await wait_since["webhook deliveries"](600, endpoint=endpoint)
    await wait_since["mails"](600, is_gathering=True)
    assert (await parts())["deliveries"].detail == "none waits"


@pytest.fixture
def job_since(session):
    """Write down a job that has been due for so many seconds."""

    async def add(seconds, **fields):
        since = func.now() - timedelta(seconds=seconds)
        needs = {"role": "viewer", "scope": "items:read", "params": {}, "is_told": True}
        when = {"due_at": since, "rank_at": since, "expected_seconds": 1}
        session.add(Job(kind="count", **needs, **when, **fields))
        await session.commit()

    return add


async def test_jobs_that_nobody_takes_are_late_after_a_minute(parts, job_since):
    assert (await parts())["jobs"].detail == "none waits"
    await job_since(5)
    soon = (await parts())["jobs"]
    assert (soon.status, soon.is_critical) == ("ok", False)
    assert soon.detail == "the next has waited for 5 s"
    await job_since(3 * 60)
    late = (await parts())["jobs"]
    assert late.status == "failing"
    assert late.detail.startswith("the next has waited for 3 min, and no worker takes it")


async def test_a_job_whose_worker_died_waits_for_another(parts, job_since):
    died = func.now() - timedelta(seconds=130)
    await job_since(600, status="running", lease=1, leased_until=died)
    late = (await parts())["jobs"]
    assert late.status == "failing"
    assert late.detail.startswith("the next has waited for 2 min")


async def test_jobs_that_wait_while_workers_are_busy_are_not_late(parts, job_since):
    later = func.now() + timedelta(seconds=60)
    await job_since(900, status="running", lease=1, leased_until=later)
    assert (await parts())["jobs"].detail == "none waits"
    await job_since(600)
    busy = (await parts())["jobs"]
    assert busy.status == "ok"
    assert busy.detail == "the next has waited for 10 min, while others are done"


async def test_jobs_that_are_over_or_not_due_yet_do_not_wait(parts, job_since):
    await job_since(-600)
    for status in ("succeeded", "failed", "cancelled"):
        await job_since(600, status=status, finished_at=func.now())
    assert (await parts())["jobs"].detail == "none waits"


async def test_mail_that_has_nowhere_to_go_says_what_to_set(parts, wait_since):
    assert "mail" not in await parts(MailSettings())
    await wait_since["mails"](2 * 86_400)
    waiting = await parts(MailSettings())
    assert (waiting["mail"].status, waiting["mail"].is_critical) == ("failing", False)
    assert waiting["mail"].detail == "has waited for 2 days, since PRICEBOOK_MAIL__URL is not set"
    assert waiting["deliveries"].status == "ok"
    assert "mail" not in await parts(WITH_MAIL)


async def test_the_page_for_people_shows_it_too(api, wait_since):
    await wait_since["events"](3 * 60)
    api.app.state.health = HealthMonitor(
        api.app.state.database, api.app.state.valkey, MailSettings()
    )
    page = await api.get("/health", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert "3 min (events)" in page.text


async def test_looking_costs_the_same_however_much_waits(database, session, viewer):
    """A health check is asked all the time, and must not add to the trouble that it tells of."""
    to = WebhookEndpoint(url="https://example.com", sealed_secret=b"x")
    message = WebhookMessage(id=UUID(int=1), type="item.created", body="{}")
    session.add_all([to, message])
    await session.commit()
    rows = "FROM generate_series(1, 20000) n"
    values = {"endpoint": to.id, "user": viewer.id}
    for statement in (
        "INSERT INTO webhook_messages (id, type, body) SELECT uuidv7(), 't', '{}' " + rows,
        (
            "INSERT INTO webhook_deliveries (endpoint_id, message_id) "
            "SELECT :endpoint, id FROM webhook_messages"
        ),
        "INSERT INTO mails (user_id, kind) SELECT :user, 'k' " + rows,
        "INSERT INTO events (type, subject_id, payload) SELECT 't', uuidv7(), '{}' " + rows,
        (
            "INSERT INTO jobs (kind, params, role, scope, rank_at, expected_seconds, is_told) "
            "SELECT 'k', '{}', 'viewer', 'items:read', now(), 1, true " + rows
        ),
    ):
        bound = {name: value for name, value in values.items() if f":{name}" in statement}
        await session.execute(text(statement), bound)
    await session.commit()
    async with database.engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        await raw.execute("ANALYZE events, jobs, mails, webhook_deliveries")
        monitor = HealthMonitor(database, None, MailSettings())
        for asked, most_rows in ((monitor._waiting, 10), (monitor._jobs, 101)):
            plan = await raw.fetch(
                "EXPLAIN (ANALYZE, TIMING OFF, BUFFERS, FORMAT TEXT) " + asked.sql,
                *asked.arguments({}),
            )
            lines = [line["QUERY PLAN"] for line in plan]
            scans = [line for line in lines if "Seq Scan on" in line and "endpoints" not in line]
            assert not scans, lines
            counts = [line.split("actual rows=")[1] for line in lines if "actual rows=" in line]
            assert max(float(count.split()[0]) for count in counts) < most_rows, lines


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (119, "119 s"), (120, "2 min"), (7_300, "2 h"), (200_000, "2 days")],
)
def test_a_time_is_told_as_a_person_would(seconds, words):
    assert in_words(seconds) == words
