"""The live stream: each event to each reader who may see it, once, in order."""

from tests.events.conftest import price_change, skus, tell


async def test_a_change_is_told_as_it_is_committed(server, api, viewer, session):
    listener = await server.listen(viewer)
    tell(session, "A", "B")
    await session.commit()
    events = await listener.until_told(2)
    assert skus(events) == ["A", "B"]
