"""The list of users: pages, order, search."""

import pytest

NAMES = ["Cleo", "Anna", "Bert", "Anna", "Dora"]


@pytest.fixture
async def people(admin, make_user):
    """Five people beside the admin, made one after the other."""
    return [
        await make_user(name=name, email=f"{number}.{name.lower()}@shop.example.com")
        for number, name in enumerate(NAMES)
    ]


async def names_of(api, admin, query: str) -> list[str]:
    """Follow the links through all pages."""
    client, names = api.as_(admin), []
    path = f"/v1/users?q=shop.example.com&{query}"
    while path:
        reply = await client.get(path)
        assert reply.status_code == 200, reply.text
        names += [user["name"] for user in reply.json()["items"]]
        path = reply.links.get("next", {}).get("url")
    return names


@pytest.mark.parametrize("limit", [1, 2, 5, 200])
@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("created_at", NAMES),
        ("-created_at", NAMES[::-1]),
        ("name", sorted(NAMES)),
        ("-name", sorted(NAMES)[::-1]),
        ("email", NAMES),
        ("-email", NAMES[::-1]),
    ],
)
async def test_pages_hold_everyone_once_in_order(api, admin, people, sort, names, limit):
    assert await names_of(api, admin, f"sort={sort}&limit={limit}") == names


async def test_the_last_page_leads_no_further(api, admin, people):
    reply = await api.as_(admin).get("/v1/users?limit=6")
    assert len(reply.json()["items"]) == 6
    assert reply.json()["next_cursor"] is None
    assert "Link" not in reply.headers


async def test_the_total_is_counted_when_asked_for(api, admin, people):
    reply = await api.as_(admin).get("/v1/users?limit=2")
    assert "X-Total-Count" not in reply.headers
    reply = await api.as_(admin).get("/v1/users?limit=2&count=exact&q=anna")
    assert reply.headers["X-Total-Count"] == "2"


@pytest.mark.parametrize(
    ("q", "names"),
    [("ANNA", ["Anna", "Anna"]), ("2.bert@", ["Bert"]), ("%25", []), ("_nna", []), ("zoe", [])],
)
async def test_search_finds_parts_of_names_and_addresses(api, admin, people, q, names):
    reply = await api.as_(admin).get(f"/v1/users?q={q}")
    assert [user["name"] for user in reply.json()["items"]] == names


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "sort=role",
        "sort=hashed_password",
        "cursor=x",
        "cursor=e30",
        "count=all",
        "q=",
        "q=%00",
        "colour=red",
    ],
)
async def test_a_list_that_cannot_be_is_refused(api, admin, query):
    assert (await api.as_(admin).get(f"/v1/users?{query}")).status_code == 422


async def test_a_cursor_belongs_to_its_order(api, admin, people):
    page = (await api.as_(admin).get("/v1/users?limit=2&sort=name")).json()
    other = f"/v1/users?limit=2&sort=email&cursor={page['next_cursor']}"
    assert (await api.as_(admin).get(other)).status_code == 422


async def test_no_list_holds_a_hash(api, admin, people):
    text = (await api.as_(admin).get("/v1/users")).text
    assert "argon2" not in text
    assert "hash" not in text
