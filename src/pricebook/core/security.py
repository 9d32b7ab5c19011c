"""Secrets: random tokens, password hashes, and which passwords are good enough."""

import asyncio
import hashlib
import os
import secrets
import string
import sys
import threading
import unicodedata
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Annotated, NamedTuple, TypeVar

from fastapi import Depends, Request
from pydantic import AfterValidator, Field, SecretStr
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from pricebook.core.errors import Unavailable
from pricebook.core.settings import AuthSettings

with warnings.catch_warnings():
    # passlib 1.7.4, its last release, imports the deprecated `crypt`, which is not used here, and
    # asks argon2-cffi for its version in a way that is deprecated. libpass, its maintained
    # drop-in, does neither.
    warnings.filterwarnings("ignore", "'crypt' is deprecated", DeprecationWarning)
    warnings.filterwarnings("ignore", "Accessing argon2.__version__", DeprecationWarning)
    from passlib.context import CryptContext
    from passlib.hash import argon2

    argon2.set_backend("argon2_cffi")

# More, and a thread put aside while it holds the interpreter lock would hold up everything.
_NICENESS = 10

T = TypeVar("T")

SESSION_PREFIX = "pbs_"
API_KEY_PREFIX = "pbk_"
_TOKEN_BYTES = 32

MIN_PASSWORD_LENGTH = 15
MAX_PASSWORD_LENGTH = 4_096


def new_token(prefix: str) -> SecretStr:
    """Return a fresh token of 256 random bits; the prefix lets secret scanners know it."""
    return SecretStr(prefix + secrets.token_urlsafe(_TOKEN_BYTES))


def token_digest(token: str) -> bytes:
    """Return what is stored in place of a token: it is random, so that a fast hash is enough."""
    return hashlib.sha256(token.encode()).digest()


# 19 MiB, two passes, one lane: the OWASP Password Storage Cheat Sheet's argon2id parameters. Every
# other argon2 hash that verifies is "deprecated" by them, and so is replaced at the next log-in.
_CONTEXT = CryptContext(
    schemes=["argon2"],
    argon2__type="ID",
    argon2__memory_cost=19 * 1024,
    argon2__time_cost=2,
    argon2__parallelism=1,
)


class Verdict(NamedTuple):
    """Whether a password was right, and the hash to keep from now on if the old one is outdated."""

    is_right: bool
    new_hash: str | None = None


class TooManyLogIns(Unavailable):
    """Too many passwords wait to be checked; try again."""


class Turn:
    """The right to use one of the hashing threads."""

    def __init__(self, threads: ThreadPoolExecutor, dummy: Future[str]) -> None:
        """Hash on `threads`; unknown accounts are checked against `dummy`."""
        self._threads = threads
        self._dummy = dummy

    async def hash(self, password: SecretStr) -> str:
        """Return a new hash of `password`."""
        return await self._run(lambda: _CONTEXT.hash(_normal(password)))

    async def verify(self, password: SecretStr, hashed: str | None) -> Verdict:
        """Check `password`; without a hash, or with a damaged one, it takes as long and fails."""
        return await self._run(lambda: self._verify(_normal(password), hashed))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _verify(self, password: str, hashed: str | None) -> Verdict:
        if hashed is not None:
            try:
                return Verdict(*_CONTEXT.verify_and_update(password, hashed))
            except (TypeError, ValueError):
                # Not a hash, or a damaged one. Whoever holds it cannot log in, like anyone unknown.
                pass
        _CONTEXT.verify(password, self._dummy.result())
        return Verdict(is_right=False)


def _step_back() -> None:
    """Let everything else on the machine go first: log-ins can wait, other requests need not."""
    # Linux has a niceness for each thread; elsewhere it is the process's, and stays as it is.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


class PasswordHasher:
    """Hashes and checks passwords on a few threads, with a queue that cannot grow without end.

    Hashing is meant to be slow, so it runs off the event loop, and argon2 lets go of the GIL.
    """

    def __init__(self, settings: AuthSettings) -> None:
        """Start no thread before the first password, but the one that makes the dummy."""
        self._threads = ThreadPoolExecutor(settings.hash_threads, "hashing", _step_back)
        self._dummy = self._threads.submit(_CONTEXT.hash, secrets.token_urlsafe())
        self._free = asyncio.Semaphore(settings.hash_threads)
        self._queue_limit = settings.hash_queue_limit
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """Wait for a thread, first come first served, and hold it.

        Raises:
            TooManyLogIns: The queue is full.

        """
        await self._wait()
        try:
            yield Turn(self._threads, self._dummy)
        finally:
            self._free.release()

    async def hash(self, password: SecretStr) -> str:
        """Return a new hash of `password`; raises TooManyLogIns when the queue is full."""
        async with self.turn() as turn:
            return await turn.hash(password)

    async def verify(self, password: SecretStr, hashed: str | None) -> Verdict:
        """Check `password` against a hash, as `Turn.verify` does."""
        async with self.turn() as turn:
            return await turn.verify(password, hashed)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return self._waiting

    async def _wait(self) -> None:
        if self._free.locked() and self._waiting >= self._queue_limit:
            raise TooManyLogIns
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1


async def _hasher(request: Request) -> PasswordHasher:
    hasher: PasswordHasher = request.app.state.hasher
    return hasher


Hasher = Annotated[PasswordHasher, Depends(_hasher)]
"""For routes: the process's one hasher."""


def _normal(password: SecretStr) -> str:
    """One spelling for what looks the same: a keyboard may compose an é in two ways (RFC 8265)."""
    return unicodedata.normalize("NFC", password.get_secret_value())


# What runs along the keyboard, the alphabet or the digits.
_RUNS = tuple(
    run * 3
    for run in (
        "0123456789",
        "1234567890",
        "abcdefghijklmnopqrstuvwxyz",
        "qwertyuiopasdfghjklzxcvbnm",
        "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
    )
)
_PLAIN = str.maketrans("@4031!5$7", "aaoelisst")
_EDGES = string.digits + string.punctuation + string.whitespace
_SHORT = 8


def is_guessable(password: SecretStr, *known: str) -> bool:
    """Whether a password is a common one, or one of the `known` words, in a thin disguise.

    Seen through: upper case, digits and signs around it, leetspeak, repetition, keyboard runs.
    """
    text = _normal(password).casefold()
    words = {word.casefold() for word in known}
    return any(
        guess in words or guess in _common_passwords() or _is_monotonous(guess)
        for spelling in (text, text.translate(_PLAIN))
        for guess in _undisguised(spelling)
    )


def _undisguised(text: str) -> Iterator[str]:
    for bare in (text, text.strip(_EDGES)):
        unit = _repeated_unit(bare)
        yield from (bare, unit, unit.strip(_EDGES))


def _is_monotonous(text: str) -> bool:
    """Whether it is a short unit over and over, or a run along the keyboard."""
    if len(text) < _SHORT:
        return False
    is_run = any(text in run or text[::-1] in run for run in _RUNS)
    return is_run or len(_repeated_unit(text)) < _SHORT


def _repeated_unit(text: str) -> str:
    """Return the shortest text whose repetition, cut off anywhere, is all of `text`."""
    sizes = range(1, len(text) // 2 + 1)
    return next((text[:size] for size in sizes if text[size:] == text[:-size]), text)


@lru_cache(maxsize=1)
def _common_passwords() -> frozenset[str]:
    return frozenset(FREQUENCY_LISTS["passwords"])


def _encodable(password: SecretStr) -> SecretStr:
    """Return it in normal form; half of a surrogate pair is no character and cannot be hashed."""
    text = _normal(password)
    if len(text) > MAX_PASSWORD_LENGTH:
        message = f"must have {MAX_PASSWORD_LENGTH:,} characters at most"
        raise ValueError(message)
    if any("\ud800" <= character <= "\udfff" for character in text):
        message = "must be valid Unicode text"
        raise ValueError(message)
    return SecretStr(text)


def _good_enough(password: SecretStr) -> SecretStr:
    if len(password) < MIN_PASSWORD_LENGTH:
        message = f"must have {MIN_PASSWORD_LENGTH} characters or more"
        raise ValueError(message)
    if is_guessable(password, "pricebook"):
        message = "is too easy to guess; several unrelated words make a good password"
        raise ValueError(message)
    return password


Password = Annotated[
    SecretStr,
    AfterValidator(_encodable),
    Field(json_schema_extra={"maxLength": MAX_PASSWORD_LENGTH}),
]
"""A password that someone says is theirs; only its length is bounded."""

NewPassword = Annotated[
    Password,
    AfterValidator(_good_enough),
    Field(json_schema_extra={"minLength": MIN_PASSWORD_LENGTH}),
]
"""A password to be: long enough and not a common one, and no other rules (NIST SP 800-63B)."""
