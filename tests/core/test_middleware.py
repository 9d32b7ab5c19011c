"""What surrounds every request: ids, headers, limits, moved paths, other origins."""

import asyncio

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs
from tests.conftest import until

from pricebook.core.browser_headers import SECURITY_HEADERS

EVERYWHERE = [
    ("GET", "/ping", 200),
    ("GET", "/docs", 200),
    ("GET", "/assets/docs.js", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/health", 200),
    ("GET", "/reset-password", 200),
    ("GET", "/verify-email", 200),
    ("GET", "/assets/mailed-link.js", 200),
    ("GET", "/", 307),
    ("GET", "/items", 308),
    ("GET", "/v1/items", 401),
    ("GET", "/nowhere", 404),
    ("POST", "/ping", 405),
    ("POST", "/v1/auth/token", 415),
]


@pytest.mark.parametrize(("method", "path", "status"), EVERYWHERE)
async def test_every_answer_carries_id_time_and_security_headers(method, path, status, api):
    reply = await api.request(method, path, headers={"X-Request-ID": "till-7:0001"})
    assert reply.status_code == status
    assert reply.headers["x-request-id"] == "till-7:0001"
    assert reply.headers["server-timing"].startswith("app;dur=")
    policy = reply.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    for name, value in SECURITY_HEADERS:
        if name != b"content-security-policy":
            assert reply.headers.get_list(name.decode()) == [value.decode()]


@pytest.mark.parametrize("given", ["short", "x" * 129, "a space here", "é" * 9])
async def test_a_request_id_that_is_not_sane_is_replaced(given, api):
    reply = await api.get("/nowhere", headers={"X-Request-ID": given.encode()})
    made = reply.headers["x-request-id"]
    assert made != given
    assert len(made) == 32
    assert reply.json()["request_id"] == made
    assert (await api.get("/nowhere")).headers["x-request-id"] != made


async def test_the_request_id_stands_in_the_events(api, editor, recorded):
    new = {"sku": "H-1", "name": "Hammer", "price": "1", "currency": "EUR"}
    reply = await api.as_(editor).post(
        "/v1/items", json=new, headers={"X-Request-ID": "till-7:0001"}
    )
    assert reply.status_code == 201
    (event,) = await recorded()
    assert (event.request_id, event.actor_id) == ("till-7:0001", editor.id)


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
async def test_a_path_without_its_version_has_moved(method, api):
    reply = await api.request(method, "/items?q=a%20b%2Bc&tag=x&tag=%E2%82%AC")
    assert reply.status_code == 308
    assert reply.headers["location"] == "/v1/items?q=a%20b%2Bc&tag=x&tag=%E2%82%AC"


async def test_a_moved_path_stays_quoted(api):
    reply = await api.get("/items/by-sku/a%20b/%E2%82%AC%3Fc%23")
    assert reply.status_code == 308
    assert reply.headers["location"] == "/v1/items/by-sku/a%20b/%E2%82%AC%3Fc%23"
    reply = await api.get("/items/by-sku/a%0D%0AX-Injected:%201")
    assert "x-injected" not in reply.headers


async def test_a_moved_write_goes_through_where_it_leads(api, editor):
    new = {"sku": "H-1", "name": "Hammer", "price": "1", "currency": "EUR"}
    reply = await api.as_(editor).post("/items", json=new, follow_redirects=True)
    assert reply.status_code == 201
    assert reply.json()["sku"] == "H-1"


@pytest.mark.parametrize("prefix", ["", "/prices"])
async def test_behind_a_proxy_every_link_has_the_prefix(prefix, make_api, editor, make_item):
    """Whether the proxy cuts its prefix off or leaves it."""
    await make_item()
    await make_item()
    proxied = (await make_api(http={"root_path": "/prices"})).as_(editor)
    moved = await proxied.get(f"{prefix}/items?limit=1")
    assert moved.headers["location"] == "/prices/v1/items?limit=1"
    page = await proxied.get(f"{prefix}/v1/items?limit=1")
    assert page.headers["link"].startswith("</prices/v1/items?limit=1&cursor=")
    new = {"sku": "H-1", "name": "Hammer", "price": "1", "currency": "EUR"}
    made = await proxied.post(f"{prefix}/v1/items", json=new)
    assert made.headers["location"] == f"/prices/v1/items/{made.json()['id']}"
    assert (await proxied.get(f"{prefix}/")).headers["location"] == "/prices/docs"
    document = (await proxied.get(f"{prefix}/openapi.json")).json()
    assert document["servers"] == [{"url": "/prices"}]
    flows = document["components"]["securitySchemes"]["Bearer"]["flows"]
    assert flows["password"]["tokenUrl"] == "/prices/v1/auth/token"
    reply = await proxied.put(f"{prefix}/v1/items")
    assert set(reply.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


async def test_head_answers_like_get(api, viewer, make_item):
    item = await make_item()
    for path in ("/ping", "/v1/items", f"/v1/items/{item.id}"):
        head, get = [await api.as_(viewer).request(verb, path) for verb in ("HEAD", "GET")]
        assert head.status_code == get.status_code == 200
        assert head.headers["content-length"] == get.headers["content-length"]
        assert head.headers.get("etag") == get.headers.get("etag")


async def test_past_the_concurrency_limit_callers_come_back_later(make_api, viewer, session):
    few = (await make_api(http={"max_concurrent_requests": 2})).as_(viewer)
    await session.execute(text("LOCK TABLE items IN ACCESS EXCLUSIVE MODE"))
    held = [asyncio.create_task(few.get("/v1/items")) for _ in range(2)]
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    while await session.scalar(waiting) < 2:  # noqa: ASYNC110 -- PostgreSQL sets no Event
        await asyncio.sleep(0.01)
    refused = await few.get("/v1/items")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["content-type"] == "application/problem+json"
    assert (await few.get("/health/live")).status_code == 200
    assert (await few.get("/ping")).status_code == 200
    await session.rollback()
    assert [(await task).status_code for task in held] == [200, 200]
    assert (await few.get("/v1/items")).status_code == 200


SHOP = "https://shop.example.com"
FOREIGN = "https://evil.example.net"


async def test_no_origin_is_let_in_unless_named(api):
    for origin in (SHOP, FOREIGN, "null"):
        reply = await api.get("/v1/items", headers={"Origin": origin})
        assert not [name for name in reply.headers if name.startswith("access-control")]


async def test_a_named_origin_is_let_in_and_no_other_reflected(make_api, viewer):
    api = (await make_api(http={"cors_origins": (SHOP,)})).as_(viewer)
    reply = await api.get("/v1/items", headers={"Origin": SHOP})
    assert reply.headers["access-control-allow-origin"] == SHOP
    assert "origin" in reply.headers["vary"].lower()
    assert "access-control-allow-credentials" not in reply.headers
    for origin in (FOREIGN, "null", f"{SHOP}.evil.net", f"http://{SHOP[8:]}", f"{SHOP}:8443"):
        reply = await api.get("/v1/items", headers={"Origin": origin})
        assert "access-control-allow-origin" not in reply.headers
        assert origin not in str(reply.headers)


async def test_a_page_may_read_why_it_was_refused(make_api):
    api = await make_api(http={"cors_origins": (SHOP,), "max_body_bytes": 10})
    large = {"Origin": SHOP, "Content-Type": "application/json"}
    for path, headers, status in (
        ("/v1/items", {"Origin": SHOP}, 401),
        ("/v1/items", large, 413),
    ):
        reply = await api.post(path, content=b"x" * 20 * (status == 413), headers=headers)
        assert reply.status_code in (status, 422)
        assert reply.headers["access-control-allow-origin"] == SHOP


async def test_a_preflight_is_answered_by_the_same_rules(make_api):
    api = await make_api(http={"cors_origins": (SHOP,)})
    asked = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "if-match"}
    reply = await api.options("/v1/items/x", headers={"Origin": SHOP, **asked})
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == SHOP
    reply = await api.options("/v1/items/x", headers={"Origin": FOREIGN, **asked})
    assert reply.status_code == 400
    assert reply.json()["type"] == "/problems/preflight-refused"
    assert "access-control-allow-origin" not in reply.headers
    assert FOREIGN not in reply.text + str(reply.headers)


async def test_browsers_are_told_to_stay_with_https_over_https_alone(api):
    api.base_url = "https://pricebook.test"
    secure = await api.get("/ping")
    api.base_url = "http://pricebook.test"
    plain = await api.get("/ping")
    assert "max-age=" in secure.headers["strict-transport-security"]
    assert "strict-transport-security" not in plain.headers


async def test_whoever_sends_slowly_takes_no_place(make_api):
    api = await make_api(http={"max_concurrent_requests": 1})
    is_sent = asyncio.Event()

    async def slowly():
        yield b"username=a&"
        await is_sent.wait()
        yield b"password=b"

    form = {"Content-Type": "application/x-www-form-urlencoded"}
    sending = asyncio.create_task(api.post("/v1/auth/token", content=slowly(), headers=form))
    await asyncio.sleep(0.1)
    assert (await api.get("/v1/items")).status_code == 401
    is_sent.set()
    assert (await sending).status_code == 401
    assert api.app.state.traffic.under_way == 0


async def test_a_refusal_in_a_rush_is_like_any_other(make_api):
    api = await make_api(http={"max_concurrent_requests": 1, "cors_origins": (SHOP,)})
    api.app.state.traffic.under_way = 1
    api.base_url = "https://pricebook.test"
    with capture_logs() as lines:
        sent = {"Origin": SHOP, "X-Request-ID": "the-shop-asks-1"}
        refused = [await api.get("/v1/items", headers=sent) for _ in range(3)][-1]
        assert not lines
        await until(lambda: lines, 3)
    assert refused.status_code == 503
    assert refused.json()["type"] == "/problems/unavailable"
    assert refused.json()["request_id"] == refused.headers["x-request-id"] == "the-shop-asks-1"
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["cache-control"] == "no-store"
    assert refused.headers["access-control-allow-origin"] == SHOP
    assert "max-age=" in refused.headers["strict-transport-security"]
    for name, value in SECURITY_HEADERS:
        assert refused.headers[name.decode()] == value.decode()
    assert [(line["event"], line["refused"]) for line in lines] == [
        ("too many requests at once", 3)
    ]
    assert api.app.state.traffic.under_way == 1
