"""Tokens, password hashes, and which passwords are good enough."""

import asyncio

import argon2
import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from pricebook.core.security import (
    NewPassword,
    PasswordHasher,
    TooManyLogIns,
    is_guessable,
    new_token,
    token_digest,
)
from pricebook.core.settings import AuthSettings


class Form(BaseModel):
    password: NewPassword


def argon2_hash(password: str, *, memory_kib: int, passes: int) -> str:
    return argon2.PasswordHasher(passes, memory_kib, parallelism=1).hash(password)


def accepts(password: str) -> bool:
    try:
        Form(password=SecretStr(password))
    except ValidationError:
        return False
    return True


@pytest.fixture
def own_hasher():
    hasher = PasswordHasher(AuthSettings(hash_queue_limit=2))
    yield hasher
    hasher.close()


def test_a_token_holds_256_random_bits_behind_its_prefix():
    token = new_token("pbs_").get_secret_value()
    assert token.startswith("pbs_")
    assert len(token.removeprefix("pbs_")) == 43
    assert token != new_token("pbs_").get_secret_value()


def test_a_token_is_stored_as_a_digest_that_does_not_hold_it():
    token = new_token("pbk_").get_secret_value()
    assert len(token_digest(token)) == 32
    assert token_digest(token) == token_digest(token)
    assert token.encode() not in token_digest(token)


def test_a_token_does_not_show_in_a_repr():
    token = new_token("pbs_")
    assert token.get_secret_value() not in repr(token) + str(token)


@pytest.mark.parametrize(
    "password",
    [
        "fifteen letters",
        "x1" * 3 + "correct horse battery staple" * 2,
        "пароль из кириллицы",
        "暗号は長い方がいいので十五文字以上にする",
        "🐴🔋📎✅🧷🪛🔧🔨⛏🪚🔩🧱🪜🧰🪝",
        "no digits nor signs needed",
        "    spaces at the ends    ",
        "a" * 30 + " but then " + "b" * 4_056,
    ],
)
def test_length_is_all_that_a_password_needs(password: str):
    assert accepts(password)


@pytest.mark.parametrize(
    "password",
    [
        "fourteen chars",
        "word " * 900,
        "passwordpassword",
        "Password12345678",
        "P@ssw0rd!!!!!!!!!",
        "letmeinletmeinletmein",
        "123456789012345",
        "qwertyuiopasdfgh",
        "aaaaaaaaaaaaaaaaaaaa",
        "abcabcabcabcabcabc",
        "pricebookpricebook",
        "pricebook2026!!",
        "half a pair of \ud83d surrogates",
    ],
)
def test_a_short_an_endless_and_a_common_password_are_refused(password: str):
    assert not accepts(password)


def test_a_password_counts_as_the_characters_that_people_see():
    decomposed = "e\u0301" * 10
    assert len(decomposed) == 20
    assert not accepts(decomposed)


def test_a_refused_password_is_not_repeated_in_the_error():
    with pytest.raises(ValidationError) as refusal:
        Form(password=SecretStr("canary-canary-canary"))
    assert "canary" not in str(refusal.value)
    with pytest.raises(ValidationError) as refusal:
        Form.model_validate({"password": "canary"})
    assert "canary" not in repr(Form(password=SecretStr("a canary sings at dawn")))
    assert "canary" not in repr(refusal.value.errors(include_input=False))


def test_the_own_address_is_guessable():
    known = ("ann@shop.example.com", "ann")
    assert is_guessable(SecretStr("ann@shop.example.com"), *known)
    assert is_guessable(SecretStr("Ann@Shop.example.com2026"), *known)
    assert not is_guessable(SecretStr("Ann keeps 14 hammers"), *known)


async def test_a_hash_is_argon2id_and_says_nothing_of_the_password(own_hasher: PasswordHasher):
    hashed = await own_hasher.hash(SecretStr("correct horse battery staple"))
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert "horse" not in hashed
    assert await own_hasher.verify(SecretStr("correct horse battery staple"), hashed) == (
        True,
        None,
    )
    assert not (await own_hasher.verify(SecretStr("correct horse"), hashed)).is_right


async def test_two_ways_to_compose_an_accent_are_the_same_password(own_hasher: PasswordHasher):
    hashed = await own_hasher.hash(SecretStr("caf\u00e9 au lait, merci"))
    assert (await own_hasher.verify(SecretStr("cafe\u0301 au lait, merci"), hashed)).is_right


async def test_a_hash_with_weaker_parameters_verifies_and_is_replaced(own_hasher: PasswordHasher):
    weaker = argon2_hash("correct horse battery staple", memory_kib=8_192, passes=1)
    verdict = await own_hasher.verify(SecretStr("correct horse battery staple"), weaker)
    assert verdict.is_right
    assert verdict.new_hash is not None
    again = await own_hasher.verify(SecretStr("correct horse battery staple"), verdict.new_hash)
    assert again == (True, None)
    assert await own_hasher.verify(SecretStr("wrong"), weaker) == (False, None)


@pytest.mark.parametrize("hashed", [None, "", "garbage", "$argon2id$v=19$m=19456,t=2", "$1$x$y"])
async def test_without_a_sound_hash_nothing_is_right(own_hasher: PasswordHasher, hashed):
    assert await own_hasher.verify(SecretStr("anything at all"), hashed) == (False, None)


async def test_a_full_queue_refuses_at_once(own_hasher: PasswordHasher):
    async with own_hasher.turn():
        waiting = [asyncio.create_task(own_hasher.hash(SecretStr(name))) for name in "ab"]
        await asyncio.sleep(0)
        with pytest.raises(TooManyLogIns):
            await own_hasher.hash(SecretStr("c"))
    assert len(await asyncio.gather(*waiting)) == 2


async def test_whoever_leaves_the_queue_makes_room(own_hasher: PasswordHasher):
    async with own_hasher.turn():
        waiting = [asyncio.create_task(own_hasher.hash(SecretStr(name))) for name in "ab"]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        late = asyncio.create_task(own_hasher.hash(SecretStr("c")))
        await asyncio.sleep(0)
    assert await late
    assert await waiting[1]


async def test_the_event_loop_goes_on_while_a_password_is_hashed(own_hasher: PasswordHasher):
    hashing = asyncio.create_task(own_hasher.hash(SecretStr("x")))
    turns = 0
    while not hashing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100
