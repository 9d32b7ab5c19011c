"""One trace from the request to whoever is told of it, however often that is tried."""

import pytest
from tests.conftest import until

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = CLIENT.removesuffix("01") + "00"
SAMPLED = 1


def place_in(traceparent):
    """Everything but the flags."""
    return traceparent.rpartition("-")[0]


@pytest.fixture
def change_price(editor):
    async def change(api, item, price="13.75", **headers):
        client = api.as_(editor)
        reply = await client.patch(f"/v1/items/{item.id}", json={"price": price}, headers=headers)
        assert reply.status_code == 200, reply.text

    return change


async def test_a_change_of_a_price_is_one_trace(
    trace, work, collector, change_price, make_item, make_endpoint, listener, viewer, watch,
    editor, sink, recorded,
):  # fmt: skip
    item = await make_item()
    await make_endpoint(events=["item.price_changed"])
    await watch(viewer, item)
    api = await trace()
    await change_price(api, item, **{"X-Request-ID": "till-7:0001"})
    await work()
    (attempt,) = await collector.until("POST webhook")
    (mail,) = await collector.until("send mail")
    (request,) = await collector.until("PATCH /v1/items/{item_id}")
    assert {one.trace_id for one in collector.spans} == {request.trace_id}
    assert (request.kind, request.parent_id, request.is_failed) == ("SERVER", "", False)
    assert request.said == {
        "http.request.method": "PATCH",
        "http.route": "/v1/items/{item_id}",
        "http.response.status_code": 200,
        "pricebook.request_id": "till-7:0001",
        "user.id": str(editor.id),
    }
    sql = [one.name for one in collector.under(request) if "db.system.name" in one.said]
    assert sql == ["SELECT sessions", "SELECT items", "UPDATE items", "INSERT events", "COMMIT"]
    (expansion,) = collector.named("expand events")
    assert (expansion.parent_id, expansion.kind) == (request.id, "CONSUMER")
    written = {one.name for one in collector.under(expansion)}
    assert {"INSERT webhook_messages", "UPDATE events", "COMMIT"} <= written
    for one in (attempt, mail):
        assert (one.parent_id, one.kind, one.is_failed) == (request.id, "CLIENT", False)
    (told,) = listener.told
    assert place_in(told.headers["traceparent"]) == attempt.place
    assert attempt.said["pricebook.event_id"] == told.headers["webhook-id"]
    assert attempt.said["http.response.status_code"] == 204
    assert len(sink.accepted) == 1
    assert {place_in(event.traceparent) for event in await recorded()} == {request.place}


async def test_a_retry_is_another_span_of_the_same_trace(
    trace, work, collector, change_price, make_item, make_endpoint, listener
):
    listener.answer("/hook", 500)
    endpoint = await make_endpoint(events=["item.price_changed"])
    await change_price(await trace(), await make_item())
    await work()
    await collector.until("POST webhook", 2)
    listener.answer("/hook", 204)
    *failed, delivered = await collector.until("POST webhook", 3)
    (request,) = collector.named("PATCH /v1/items/{item_id}")
    assert {one.parent_id for one in (*failed, delivered)} == {request.id}
    assert [one.is_failed for one in (*failed, delivered)] == [True, True, False]
    assert [one.said["pricebook.attempt"] for one in (*failed, delivered)] == [1, 2, 3]
    assert {one.said["error.type"] for one in failed} == {"500"}
    assert {one.said["pricebook.webhook_id"] for one in failed} == {str(endpoint.id)}
    assert [place_in(one.headers["traceparent"]) for one in listener.told] == [
        one.place for one in (*failed, delivered)
    ]


async def test_a_clients_trace_goes_on(trace, collector, change_price, make_item):
    await change_price(await trace(sample_ratio=0), await make_item(), traceparent=CLIENT)
    (request,) = await collector.until("PATCH /v1/items/{item_id}")
    assert f"00-{request.trace_id}-{request.parent_id}" == place_in(CLIENT)


@pytest.mark.parametrize("header", ["", "00-0-0-00", "x" * 300, CLIENT.replace("b7ad", "zzzz")])
async def test_a_header_that_says_nothing_begins_a_trace(
    header, trace, collector, change_price, make_item
):
    await change_price(await trace(), await make_item(), traceparent=header)
    (request,) = await collector.until("PATCH /v1/items/{item_id}")
    assert request.parent_id == ""


@pytest.mark.parametrize("headers", [{}, {"traceparent": UNSAMPLED}], ids=["by share", "by client"])
async def test_what_is_not_sampled_stays_so_all_the_way(
    headers, trace, work, collector, change_price, make_item, make_endpoint, listener, recorded,
    viewer, watch, sink,
):  # fmt: skip
    """But it has a trace id all the way, too, for those who look for it in logs."""
    item = await make_item()
    await make_endpoint(events=["item.price_changed"])
    await watch(viewer, item)
    api = await trace(sample_ratio=0 if not headers else 1)
    await change_price(api, item, **headers)
    await work()
    await until(lambda: listener.told and sink.accepted)
    (sent,) = {one.headers["traceparent"] for one in listener.told}
    assert not int(sent[-2:], 16) & SAMPLED
    assert {event.traceparent[:35] for event in await recorded()} == {sent[:35]}
    # What follows is sampled: so had anything before it been exported, it would be there.
    await change_price(api, item, "14", traceparent=CLIENT)
    await collector.until("POST webhook")
    assert {one.trace_id for one in collector.spans} == {CLIENT.split("-")[1]}


async def test_a_batch_of_events_is_a_span_in_each_of_their_traces(
    trace, work, collector, change_price, make_item
):
    api = await trace()
    for _ in range(2):
        await change_price(api, await make_item())
    requests = await collector.until("PATCH /v1/items/{item_id}", 2)
    await work()
    first, second = sorted(
        await collector.until("expand events", 2), key=lambda one: len(one.links)
    )
    assert {first.parent_id, second.parent_id} == {one.id for one in requests}
    assert {one.said["messaging.batch.message_count"] for one in (first, second)} == {4}
    # The work is done once, and lies in one of the traces.
    assert second.links == [(first.trace_id, first.id)]
    assert collector.under(second) == []
    assert "COMMIT" in {one.name for one in collector.under(first)}


async def test_a_mail_of_several_changes_has_links_to_all_that_led_to_it(
    trace, work, collector, change_price, make_item, viewer, watch
):
    api, item = await trace(), await make_item()
    await watch(viewer, item)
    for price in ("14", "15", "16"):
        await change_price(api, item, price)
    requests = await collector.until("PATCH /v1/items/{item_id}", 3)
    await work()
    (mail,) = await collector.until("send mail")
    assert mail.parent_id == requests[0].id
    assert mail.links == [(one.trace_id, one.id) for one in requests[1:]]


async def test_a_job_goes_on_in_the_trace_of_who_asked_for_it(
    trace, work, collector, editor, recorded, make_endpoint, listener
):
    await make_endpoint(events=["item.created"])
    api = (await trace()).as_(editor)
    sent = b"sku,name,price,currency\nH-1,Hammer,12.5,EUR\n"
    headers = {"Content-Type": "text/csv", "X-Request-ID": "erp:nightly"}
    reply = await api.post("/v1/imports/items?mode=apply", content=sent, headers=headers)
    assert reply.status_code == 202, reply.text
    await work()
    (attempt,) = await collector.until("POST webhook")
    (job,) = collector.named("job import_items")
    (request,) = collector.named("POST /v1/imports/items")
    assert (job.parent_id, job.kind) == (request.id, "CONSUMER")
    assert job.said["pricebook.job_id"] == reply.json()["id"]
    assert {"INSERT items", "COMMIT"} <= {one.name for one in collector.under(job)}
    assert attempt.parent_id == job.id
    created = next(event for event in await recorded() if event.type == "item.created")
    assert (place_in(created.traceparent), created.request_id) == (job.place, "erp:nightly")


async def test_statements_that_fail_say_how_and_not_why(trace, collector, admin, make_user):
    taken = await make_user("viewer")
    api = (await trace()).as_(admin)
    new = {"email": taken.email, "name": "B", "role": "viewer", "password": "a hammer and 40 nails"}
    assert (await api.post("/v1/users", json=new)).status_code == 409
    (statement,) = await collector.until("INSERT users")
    assert statement.is_failed
    assert statement.said["error.type"] == statement.said["db.response.status_code"] == "23505"
    (request,) = await collector.until("POST /v1/users")
    assert not request.is_failed
    assert taken.email not in str(collector.bodies)


async def test_only_what_people_ask_is_traced(trace, collector, viewer):
    api = await trace()
    for path in ("/ping", "/health/live", "/health/ready", "/metrics"):
        await api.get(path)
    assert (await api.get("/nowhere/canary")).status_code == 404
    (request,) = await collector.until("GET")
    assert {one.trace_id for one in collector.spans} == {request.trace_id}
    assert "http.route" not in request.said
    assert "canary" not in str(collector.bodies)
