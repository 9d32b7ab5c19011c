"""Tokens that a mail carries: each works once, for a while, and for one purpose."""

import asyncio
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, update

from pricebook.auth.models import OneTimeToken
from pricebook.auth.one_time import LIFETIMES, issue_token, redeem_token
from pricebook.auth.service import prune_expired
from pricebook.core.clock import now
from pricebook.users.models import User

PURPOSES = list(LIFETIMES)


@pytest.fixture
def issue(database, viewer):
    """Make a token for the viewer."""

    async def make(purpose="password_reset", **fields) -> SecretStr:
        given = {"user_id": viewer.id, "email": viewer.email, **fields}
        async with database.sessions.begin() as session:
            return await issue_token(session, purpose=purpose, **given)

    return make


@pytest.fixture
def redeem(database):
    async def use(token: SecretStr, purpose="password_reset"):
        async with database.sessions.begin() as session:
            return await redeem_token(session, token, purpose)

    return use


@pytest.fixture
def change(database, viewer):
    """Change the viewer's row."""

    async def write(**values) -> None:
        async with database.sessions.begin() as session:
            await session.execute(update(User).where(User.id == viewer.id).values(**values))

    return write


@pytest.mark.parametrize("purpose", PURPOSES)
async def test_a_token_works_once(issue, redeem, viewer, purpose):
    token = await issue(purpose)
    assert await redeem(token, purpose) == viewer.id
    assert await redeem(token, purpose) is None


async def test_reset_tokens_live_one_hour_and_the_others_a_week(issue, session):
    for purpose, lifetime in (("password_reset", 3_600), ("verify_email", 7 * 86_400)):
        await issue(purpose)
        kept = OneTimeToken.expires_at - OneTimeToken.created_at
        rows = select(func.extract("epoch", kept)).where(OneTimeToken.purpose == purpose)
        assert await session.scalar(rows) == lifetime


@pytest.mark.parametrize("purpose", PURPOSES)
async def test_a_token_past_its_time_is_nothing_and_is_pruned(
    issue, redeem, database, session, purpose
):
    token = await issue(purpose)
    late = func.now() - timedelta(seconds=1)
    await session.execute(update(OneTimeToken).values(expires_at=late))
    await session.commit()
    assert await redeem(token, purpose) is None
    assert await prune_expired(session) >= 1
    assert await session.scalar(select(func.count()).select_from(OneTimeToken)) == 0


@pytest.mark.parametrize("purpose", PURPOSES)
async def test_of_fifty_racing_redemptions_one_wins(issue, redeem, viewer, purpose):
    token = await issue(purpose)
    won = await asyncio.gather(*(redeem(token, purpose) for _ in range(50)))
    assert sorted(map(str, won)) == [str(viewer.id), *["None"] * 49]


async def test_several_tokens_are_good_until_one_is_used(issue, redeem, viewer):
    first, second = await issue(), await issue()
    other = await issue("verify_email")
    assert await redeem(first) == viewer.id
    assert await redeem(second) is None
    assert await redeem(other, "verify_email") == viewer.id


async def test_a_token_is_for_its_purpose_alone(issue, redeem, viewer):
    token = await issue("verify_email")
    assert await redeem(token, "password_reset") is None
    assert await redeem(token, "verify_email") == viewer.id


@pytest.mark.parametrize("purpose", PURPOSES)
async def test_a_token_for_an_address_that_is_no_more_the_users_is_nothing(
    issue, redeem, change, purpose
):
    token = await issue(purpose)
    await change(email="moved@example.com")
    assert await redeem(token, purpose) is None


@pytest.mark.parametrize("purpose", PURPOSES)
async def test_a_token_of_somebody_who_is_shut_out_is_nothing(issue, redeem, change, purpose):
    token = await issue(purpose)
    await change(disabled_at=now())
    assert await redeem(token, purpose) is None


async def test_new_credentials_void_a_reset_token_and_leave_the_others(
    issue, redeem, change, viewer
):
    reset, verify = await issue(), await issue("verify_email")
    await change(credentials_epoch=User.credentials_epoch + 1)
    assert await redeem(reset) is None
    assert await redeem(verify, "verify_email") == viewer.id


async def test_other_tokens_are_nobodys(issue, redeem, viewer):
    await issue()
    for text in ("", "pbr_", "pbr_" + "A" * 43, "pbs_" + "A" * 43):
        assert await redeem(SecretStr(text)) is None


async def test_a_token_lies_nowhere(issue, session):
    tokens = [(await issue(purpose)).get_secret_value() for purpose in PURPOSES]
    assert [token[:4] for token in tokens] == ["pbr_", "pbv_"]
    rows = (await session.execute(select(OneTimeToken.__table__))).all()
    for token in tokens:
        assert token not in repr(rows)
