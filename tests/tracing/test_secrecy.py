"""A collector belongs to others: what is secret, and what people entered, reaches it never."""

from tests.conftest import PASSWORD, until
from tests.contract.operations import OPERATIONS, valid_request

CANARY = "canary-4f9c2b7e1d-secret"


async def test_canaries_in_every_input_are_in_no_span(
    trace, collector, admin, make_things, make_item, make_endpoint, listener, work, viewer, watch,
    sink, make_user,
):  # fmt: skip
    things = await make_things(admin)
    traced = await trace()
    for operation in OPERATIONS.values():
        # Some of them log their caller out.
        client = traced.as_(await make_user("admin"))
        request = valid_request(operation, things)
        request["params"] = {**request["params"], "token": CANARY}
        request["headers"] = {
            **request.get("headers", {}),
            "User-Agent": CANARY,
            "tracestate": f"x={CANARY}",
            "Referer": f"https://{CANARY}",
        }
        await traced.request(**request)
        await client.request(**request)
        for part in ("json", "data"):
            for field in request.get(part, ()):
                await client.request(**{**request, part: {**request[part], field: CANARY}})

    item = await make_item(sku=f"{CANARY}-2", name=CANARY)
    hook = await make_endpoint(f"/{CANARY}?key={CANARY}")
    await watch(viewer, item)
    listener.answer(f"/{CANARY}", 500, text=CANARY)
    sink.recipient_replies.append(f"550 no such user: {viewer.email}")
    assert (await client.get(f"/v1/items/by-sku/{item.sku}")).status_code == 200
    await work()
    await collector.until("POST webhook")
    await until(lambda: collector.named("send mail"))

    sent = b"".join(collector.bodies)
    assert {one.name for one in collector.spans} >= {"INSERT users", "SELECT items", "COMMIT"}
    assert len(collector.spans) > len(OPERATIONS)
    secrets = (
        CANARY,
        PASSWORD,
        *traced.tokens.values(),
        admin.hashed_password,
        admin.email,
        viewer.email,
        hook.secret,
        things.reset_token,
        things.proof_token,
        things.unsubscribe_token,
    )
    assert [one for one in secrets if one.encode() in sent] == []
