"""What people want to be told of, and which way; and the way out of a mail."""

from uuid import uuid4

import pytest
from pydantic import SecretStr

from pricebook.notifications.kinds import Kind
from pricebook.notifications.models import Mail
from pricebook.notifications.unsubscribing import Unsubscriber

ALL_ON = {"inbox": True, "email": True}
AS_MADE = {
    "digest": "at_once",
    "kinds": {
        "price_changed": ALL_ON,
        "job_finished": ALL_ON,
        "webhook_trouble": ALL_ON,
        "security": ALL_ON,
    },
}


@pytest.fixture
def preferences(api):
    async def read(user):
        return (await api.as_(user).get("/v1/notifications/preferences")).json()

    return read


@pytest.fixture
def change(api):
    async def send(user, body):
        return await api.as_(user).patch("/v1/notifications/preferences", json=body)

    return send


async def test_who_has_said_nothing_is_told_everything_at_once(viewer, preferences):
    assert await preferences(viewer) == AS_MADE


async def test_what_is_left_out_stays(viewer, preferences, change):
    reply = await change(viewer, {"digest": "daily"})
    assert reply.json() == {**AS_MADE, "digest": "daily"}
    await change(viewer, {"kinds": {"price_changed": {"email": False}}})
    reply = await change(viewer, {"kinds": {"webhook_trouble": {"inbox": False}}})
    expected = {
        "digest": "daily",
        "kinds": {
            "price_changed": {"inbox": True, "email": False},
            "job_finished": ALL_ON,
            "webhook_trouble": {"inbox": False, "email": True},
            "security": ALL_ON,
        },
    }
    assert reply.json() == await preferences(viewer) == expected
    await change(viewer, {"kinds": {"price_changed": {"email": True}}})
    assert (await preferences(viewer))["kinds"]["price_changed"] == ALL_ON


async def test_nobody_changes_anybody_elses(viewer, make_user, preferences, change):
    await change(await make_user(), {"digest": "never"})
    assert await preferences(viewer) == AS_MADE


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"digest": "weekly"}, "/digest"),
        ({"digest": None}, "/digest"),
        ({"kinds": {"security": {"email": False}}}, "/kinds/security/email"),
        ({"kinds": {"price_changed": {"email": None}}}, "/kinds/price_changed/email"),
        ({"kinds": {"price_changed": {"sms": True}}}, "/kinds/price_changed/sms"),
        ({"kinds": {"weather": {"email": True}}}, "/kinds/weather"),
        ({"kinds": None}, "/kinds"),
    ],
)
async def test_what_cannot_be_preferred_is_refused(viewer, preferences, change, body, pointer):
    reply = await change(viewer, body)
    assert reply.status_code == 422
    assert [error["pointer"] for error in reply.json()["errors"]] == [pointer]
    assert await preferences(viewer) == AS_MADE


@pytest.fixture
def link(settings):
    """Return the path of the link that a mail to someone carries."""

    def of(user_id, kind=Kind.PRICE_CHANGED):
        url = Unsubscriber(settings).url(user_id, kind)
        assert url.startswith("http://127.0.0.1:8000/")
        return url.removeprefix("http://127.0.0.1:8000")

    return of


ONE_CLICK = {
    "content": b"List-Unsubscribe=One-Click",
    "headers": {"Content-Type": "application/x-www-form-urlencoded"},
}


@pytest.mark.parametrize(
    "request_with",
    [
        ONE_CLICK,
        {},
        {"files": {"List-Unsubscribe": (None, "One-Click")}},
        {"content": b"{", "headers": {"Content-Type": "application/json"}},
        {"content": b"\xff", "headers": {"Content-Type": "text/plain"}},
    ],
)
async def test_one_click_is_enough(api, viewer, preferences, link, request_with):
    for _ in range(2):
        reply = await api.post(link(viewer.id), **request_with)
        assert reply.status_code == 200
    expected = {**AS_MADE["kinds"], "price_changed": {"inbox": True, "email": False}}
    assert (await preferences(viewer))["kinds"] == expected


async def test_the_mail_that_is_waiting_is_not_sent(api, viewer, make_user, session, mails, link):
    other = await make_user()
    for user in (viewer, other):
        session.add(Mail(user_id=user.id, kind="price_changes", is_gathering=True))
    session.add(Mail(user_id=viewer.id, kind="password_reset"))
    await session.commit()
    await api.post(link(viewer.id), **ONE_CLICK)
    left = {(mail.user_id, mail.kind) for mail in await mails()}
    assert left == {(viewer.id, "password_reset"), (other.id, "price_changes")}


async def test_a_program_that_follows_links_unsubscribes_nobody(api, viewer, preferences, link):
    reply = await api.get(link(viewer.id))
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/html")
    assert reply.headers["cache-control"] == "no-store"
    policy = reply.headers["content-security-policy"]
    assert "unsafe-inline" not in policy
    assert "form-action 'self'" in policy
    assert '<form method="post">' in reply.text
    assert await preferences(viewer) == AS_MADE


async def test_webhook_trouble_has_a_way_out_and_security_has_none(
    api, admin, preferences, link, settings
):
    assert (await api.post(link(admin.id, Kind.WEBHOOK_TROUBLE))).status_code == 200
    assert (await preferences(admin))["kinds"]["webhook_trouble"]["email"] is False
    assert Unsubscriber(settings).url(admin.id, Kind.SECURITY) is None


async def test_a_link_that_was_tampered_with_does_nothing(api, viewer, preferences, link, settings):
    path = link(viewer.id)
    good = path.partition("?token=")[2]
    other = link(uuid4()).partition("?token=")[2]
    foreign = settings.model_copy(update={"secret_key": SecretStr(40 * "x")})
    url = Unsubscriber(foreign).url(viewer.id, Kind.PRICE_CHANGED)
    tokens = (
        "", "x", "%00", "é", "A" * 300, good[:-1], good[:43] + other[43:], other[:43] + good[43:],
        url.partition("?token=")[2],
    )  # fmt: skip
    for token in tokens:
        for method in ("GET", "POST"):
            reply = await api.request(method, f"/v1/notifications/unsubscribe?token={token}")
            assert reply.status_code == 422, token
            assert reply.json()["errors"][0]["pointer"] == "query/token"
    assert await preferences(viewer) == AS_MADE


async def test_a_link_outlives_the_rotation_of_the_key(make_api, viewer, link, settings):
    old = settings.secret_key.get_secret_value()
    api = await make_api(secret_key=SecretStr(f"{40 * 'new '},{old}"))
    assert (await api.post(link(viewer.id), **ONE_CLICK)).status_code == 200


async def test_the_link_of_someone_who_is_gone_does_no_harm(api, link):
    assert (await api.post(link(uuid4()), **ONE_CLICK)).status_code == 200


async def test_without_a_secret_key_no_link_is_ours(make_api, viewer, link):
    api = await make_api(secret_key=None)
    assert (await api.post(link(viewer.id))).status_code == 422
