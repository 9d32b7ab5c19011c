"""The admin that is made where there is none yet."""

import pytest
from pydantic import SecretStr, ValidationError
from tests.conftest import PASSWORD

from pricebook.users.service import ensure_admin

EMAIL = "Owner@Shop.example.com"


async def test_the_first_admin_can_log_in_and_manage_users(api, session, recorded):
    assert await ensure_admin(session, EMAIL, SecretStr(PASSWORD)) is True
    await session.commit()
    reply = await api.post("/v1/auth/token", data={"username": EMAIL, "password": PASSWORD})
    owner = api.with_token(reply.json()["access_token"])
    assert (await owner.get("/v1/users")).status_code == 200
    # Whoever runs the service vouches for the address.
    assert (await owner.get("/v1/users/me")).json()["email_verified_at"] is not None
    assert [event.type for event in await recorded()] == ["user.created"]


async def test_whoever_has_the_address_is_left_alone(api, make_user, session, recorded):
    viewer = await make_user("viewer", email=EMAIL.lower())
    assert await ensure_admin(session, EMAIL, SecretStr("another good password")) is False
    await session.commit()
    form = {"username": EMAIL, "password": PASSWORD}
    assert (await api.post("/v1/auth/token", data=form)).status_code == 200
    assert (await api.as_(viewer).get("/v1/users/me")).json()["role"] == "viewer"
    assert await recorded() == []


@pytest.mark.parametrize(
    ("email", "password"),
    [("no address", PASSWORD), (EMAIL, "canary"), (EMAIL, "owner@shop.example.com")],
)
async def test_an_admin_keeps_the_rules_too(session, email, password):
    with pytest.raises(ValidationError) as refusal:
        await ensure_admin(session, email, SecretStr(password))
    assert "canary" not in str(refusal.value)
