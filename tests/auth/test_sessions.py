"""Sessions that people see and end."""

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select, update
from tests.conftest import PASSWORD, Api, is_shut_out

from pricebook.auth.models import ApiKey, Session
from pricebook.auth.service import make_authenticator, open_session, prune_expired
from pricebook.core.attempts import FailedAttempts
from pricebook.main import create_app
from pricebook.users.models import User

ABSENT = UUID(int=7)


@pytest.fixture
def log_in(api: Api):
    async def open_one(user: User, agent: str = "Firefox") -> Api:
        form = {"username": user.email, "password": PASSWORD}
        reply = await api.post("/v1/auth/token", data=form, headers={"User-Agent": agent})
        return api.with_token(reply.json()["access_token"])

    return open_one


async def sessions_of(client: Api) -> list[dict]:
    reply = await client.get("/v1/auth/sessions")
    assert reply.status_code == 200
    return reply.json()["items"]


async def test_people_see_their_own_sessions_newest_first(viewer, editor, log_in):
    old, new = await log_in(viewer, "Firefox"), await log_in(viewer, "A till")
    await log_in(editor)
    sessions = await sessions_of(new)
    assert [one["user_agent"] for one in sessions] == ["A till", "Firefox", "tests"]
    assert [one["is_current"] for one in sessions] == [True, False, False]
    assert sessions[0].keys() == {
        "id",
        "is_current",
        "address",
        "user_agent",
        "created_at",
        "last_used_at",
        "expires_at",
    }
    assert sessions[0]["address"] == "127.0.0.1"
    one = await old.get(f"/v1/auth/sessions/{sessions[0]['id']}")
    assert one.json() == {**sessions[0], "is_current": False}


async def test_sessions_come_in_pages(viewer, log_in):
    client = await log_in(viewer)
    await log_in(viewer)
    seen, path = [], "/v1/auth/sessions?limit=1"
    while path:
        reply = await client.get(path)
        seen += [one["id"] for one in reply.json()["items"]]
        path = reply.links.get("next", {}).get("url")
    assert seen == [one["id"] for one in await sessions_of(client)]
    assert len(seen) == 3
    for query in ("cursor=e30", "limit=0", "sort=name"):
        assert (await client.get(f"/v1/auth/sessions?{query}")).status_code == 422


async def test_people_end_one_session(api, viewer, log_in):
    lost, mine = await log_in(viewer, "Lost phone"), await log_in(viewer)
    assert (await lost.get("/v1/users/me")).status_code == 200
    (found,) = [one for one in await sessions_of(mine) if one["user_agent"] == "Lost phone"]
    assert (await mine.delete(f"/v1/auth/sessions/{found['id']}")).status_code == 204
    assert (await lost.get("/v1/users/me")).status_code == 401
    assert (await mine.get("/v1/users/me")).status_code == 200
    assert (await mine.delete(f"/v1/auth/sessions/{found['id']}")).status_code == 404


async def test_people_end_all_sessions_but_this_one(api, viewer, editor, log_in):
    others, mine = [await log_in(viewer) for _ in range(2)], await log_in(viewer)
    assert (await mine.delete("/v1/auth/sessions")).status_code == 204
    for one in (*others, api.as_(viewer)):
        assert (await one.get("/v1/users/me")).status_code == 401
    assert [one["is_current"] for one in await sessions_of(mine)] == [True]
    assert (await api.as_(editor).get("/v1/users/me")).status_code == 200


async def test_nobody_sees_or_ends_the_sessions_of_others(api, viewer, admin):
    (theirs,) = await sessions_of(api.as_(viewer))
    for session_id in (theirs["id"], ABSENT):
        path = f"/v1/auth/sessions/{session_id}"
        assert (await api.as_(admin).get(path)).status_code == 404
        reply = await api.as_(admin).delete(path)
        assert reply.json()["type"].endswith("/session-not-found")
    assert (await api.as_(viewer).get("/v1/users/me")).status_code == 200


@pytest.mark.parametrize("path", ["/v1/auth/sessions", f"/v1/auth/sessions/{ABSENT}"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_only_people_deal_with_sessions(api, viewer, make_key, path, method):
    key = api.with_token(await make_key(viewer, "users:write"))
    assert (await key.request(method, path)).status_code == 403
    assert (await api.request(method, path)).status_code == 401


async def test_a_session_ends_at_its_time(api, viewer, session):
    await session.execute(update(Session).values(expires_at=func.now()))
    await session.commit()
    assert (await api.as_(viewer).get("/v1/users/me")).status_code == 401


@pytest.mark.parametrize(
    "token", ["", "x", "pbs_", "pbk_", "pbs_" + "A" * 43, "pbs_é", "Bearer", "pbs_" + "x" * 5_000]
)
async def test_what_is_no_token_lets_nobody_in(api, token):
    header = f"Bearer {token}".encode("latin-1")
    reply = await api.get("/v1/users/me", headers={"Authorization": header})
    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_log_out_reaches_other_processes_within_a_second(api, viewer, log_in, settings):
    leaving = await log_in(viewer)
    other_process = create_app(settings)
    async with other_process.router.lifespan_context(other_process):
        token = leaving.headers["Authorization"].removeprefix("Bearer ")
        elsewhere = Api(other_process, {}, token)
        assert (await elsewhere.get("/v1/users/me")).status_code == 200
        assert (await leaving.delete("/v1/auth/token")).status_code == 204
        assert await is_shut_out(elsewhere)


async def test_a_hot_token_is_looked_up_once(viewer, api, database, settings, monkeypatch):
    lookups = []
    row = database.reads.row

    async def counted(*arguments, **values):
        lookups.append(arguments)
        return await row(*arguments, **values)

    monkeypatch.setattr(database.reads, "row", counted)
    authenticate = make_authenticator(database, settings)
    callers = [await authenticate(api.tokens[viewer.id]) for _ in range(10)]
    assert {caller.user_id for caller in callers} == {viewer.id}
    assert len(lookups) == 1
    assert await authenticate("pbs_unknown") is None
    assert await authenticate("pbs_unknown") is None
    assert len(lookups) == 3


async def test_use_is_stamped_at_most_once_a_minute(api, viewer, session, database, settings):
    long_ago = func.now() - timedelta(hours=1)
    await session.execute(update(Session).values(last_used_at=long_ago))
    await session.commit()
    stamps = []
    for _ in range(2):
        authenticate = make_authenticator(database, settings)
        await authenticate(api.tokens[viewer.id])
        await authenticate.close()
        async with database.sessions() as fresh:
            age = func.now() - Session.last_used_at
            stamps.append((await fresh.execute(select(Session.last_used_at, age))).one())
    assert stamps[0].last_used_at == stamps[1].last_used_at
    assert stamps[0][1] < timedelta(minutes=1)


async def test_a_stamp_that_fails_lets_the_caller_in(api, viewer, session, database, settings):
    await session.execute(update(Session).values(last_used_at=func.now() - timedelta(hours=1)))
    await session.flush()
    authenticate = make_authenticator(database, settings)
    assert await authenticate(api.tokens[viewer.id])
    await authenticate.close()


async def test_what_has_ended_is_pruned_and_nothing_else(api, viewer, editor, session, make_key):
    await make_key(viewer, "items:read")
    form = {"username": viewer.email, "password": "a wrong password"}
    await api.post("/v1/auth/token", data=form)
    assert await prune_expired(session) == 0
    await open_session(session, editor, address="x", user_agent=None, lifetime=timedelta(0))
    await session.execute(update(ApiKey).values(expires_at=ApiKey.created_at))
    await session.execute(update(FailedAttempts).values(expires_at=func.now()))
    viewer_now = await session.get_one(User, viewer.id)
    viewer_now.end_sessions()
    await session.flush()
    # The editor's second session, the viewer's one, the key, and three counts.
    assert await prune_expired(session) == 6
    await session.commit()
    assert (await api.as_(editor).get("/v1/users/me")).status_code == 200
