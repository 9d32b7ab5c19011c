"""How streams end: by age, by load, by revocation, with the process; and whoever does not read."""

import asyncio
import socket
from contextlib import asynccontextmanager, suppress

import pytest
from tests.conftest import PASSWORD
from tests.events.conftest import Server, eventually, skus, tell


async def forgotten(server: Server) -> None:
    """Wait until the process holds no stream."""
    await eventually(lambda: not len(server.app.state.streams))


async def test_a_stream_ends_in_good_order_after_its_age(make_server_with, session, viewer):
    server = await make_server_with(max_age_seconds=0.3)
    listener = await server.listen(viewer)
    tell(session, "A")
    await session.commit()
    await listener.until_ended(3)
    assert skus(listener.events) == ["A"]
    assert listener.body.count(b"retry: ") == 2
    await forgotten(server)


async def test_there_is_room_for_so_many_and_then_503(make_server_with, viewer):
    server = await make_server_with(max_readers=2)
    first, _second = await server.listen(viewer), await server.listen(viewer)
    refused = await server.listen(viewer)
    assert refused.status == 503
    assert b"retry-after: " in refused.received.lower()
    first.close()
    await eventually(lambda: len(server.app.state.streams) == 1)
    assert (await server.listen(viewer)).status == 200


async def test_streams_take_no_room_from_requests(make_server_with, settings, viewer):
    limit = settings.http.max_concurrent_requests
    server = await make_server_with()
    opened = [await server.listen(viewer) for _ in range(limit + 10)]
    assert {one.status for one in opened} == {200}


@pytest.mark.parametrize("how", ["log-out", "disabled", "role", "password", "key revoked"])
async def test_whoever_is_shut_out_loses_the_stream_within_a_second(
    server, api, session, admin, make_user, make_key, how
):
    user = await make_user("editor")
    key = await make_key(user, "items:read")
    listener = await server.listen(key if how == "key revoked" else user)
    other = await server.listen(admin)
    if how == "log-out":
        await api.as_(user).delete("/v1/auth/token")
    elif how == "key revoked":
        (made,) = (await api.as_(user).get("/v1/api-keys")).json()["items"]
        await api.as_(user).delete(f"/v1/api-keys/{made['id']}")
    elif how == "password":
        # From another session, which lives on.
        form = {"username": user.email, "password": PASSWORD}
        token = (await api.post("/v1/auth/token", data=form)).json()["access_token"]
        new = {"current_password": PASSWORD, "new_password": "a hammer and forty nails"}
        reply = await api.with_token(token).put("/v1/users/me/password", json=new)
        assert reply.status_code == 204
    else:
        change = {"disabled": True} if how == "disabled" else {"role": "viewer"}
        reply = await api.as_(admin).patch(f"/v1/users/{user.id}", json=change)
        assert reply.status_code == 200
    await listener.until_ended(1)
    told = len(listener.events)
    tell(session, "A")
    await session.commit()
    await other.until(lambda one: b'"A"' in one.received)
    assert len(listener.events) == told
    assert not other.is_closed


async def test_a_key_whose_owner_gets_another_role_begins_anew(
    server, api, admin, make_user, make_key
):
    """What may be seen depends on the role."""
    user = await make_user("admin")
    listener = await server.listen(await make_key(user, "items:read"))
    await api.as_(admin).patch(f"/v1/users/{user.id}", json={"role": "viewer"})
    await listener.until_ended(1)


@asynccontextmanager
async def lazy_client(server: Server, token: str, last_event_id: str | None = None):
    """A client that asks and does not read."""
    lines = ["GET /v1/events/stream HTTP/1.1", "Host: x", f"Authorization: Bearer {token}"]
    if last_event_id is not None:
        lines.append(f"Last-Event-ID: {last_event_id}")
    with socket.socket() as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        await asyncio.to_thread(opened.connect, ("127.0.0.1", server.port))
        already = len(server.app.state.streams)
        opened.sendall("\r\n".join((*lines, "", "")).encode())
        await eventually(lambda: len(server.app.state.streams) > already)
        yield opened


def rest_of(client: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionResetError):
        while piece := client.recv(65_536):
            received += piece
    return received


LONG = "x" * 5_000


async def test_whoever_does_not_read_is_cut_off_and_forgotten(
    make_server_with, session, viewer, api
):
    server = await make_server_with(buffer_events=100)
    patient = await server.listen(viewer)
    async with lazy_client(server, api.tokens[viewer.id]) as lazy:
        count = 0
        async with asyncio.timeout(30):
            while len(server.app.state.streams) > 1:
                tell(session, *(f"E-{number}-{LONG}" for number in range(50)))
                await session.commit()
                count += 50
                await patient.until_told(count)
        received = await asyncio.to_thread(rest_of, lazy)
    assert received.count(b"event: ") < count
    assert not received.endswith(b"\r\n0\r\n\r\n"), "it looks as if it had come to its end"
    assert not patient.is_closed


async def test_whoever_does_not_read_does_not_outlive_the_age(
    make_server_with, session, viewer, api
):
    """Stuck in what it had missed, when nothing waits in its buffer."""
    server = await make_server_with(max_age_seconds=1)
    place = (await server.listen(viewer)).last_id
    tell(session, *(f"E-{number}-{LONG}" for number in range(2_000)))
    await session.commit()
    await forgotten(server)
    async with lazy_client(server, api.tokens[viewer.id], place):
        await forgotten(server)


async def test_a_client_that_leaves_is_forgotten(server, viewer):
    for _ in range(3):
        (await server.listen(viewer)).close()
    await forgotten(server)


async def test_when_the_process_stops_all_streams_end_and_none_begins(server, viewer):
    listeners = [await server.listen(viewer) for _ in range(5)]
    server.app.state.streams.end_all()
    for listener in listeners:
        await listener.until_ended(1)
        assert listener.body.count(b"retry: ") == 2
    assert (await server.listen(viewer)).status == 503
