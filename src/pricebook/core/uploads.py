"""Uploads: bodies that go into `files` as they come, and are never held in memory."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

import structlog
from fastapi import Request
from starlette.requests import ClientDisconnect

from pricebook.core import multipart
from pricebook.core.errors import (
    Invalid,
    Malformed,
    RequestTimeout,
    Unavailable,
    UnsupportedMediaType,
)
from pricebook.core.files import Files, FilesAwayError
from pricebook.core.idempotency import IdempotencyKeyInUse
from pricebook.core.metrics import note_upload
from pricebook.core.setting_groups import ImportSettings

CONTENT_CODINGS: Final = ("identity", "gzip", "zstd")
"""What a body may be packed with; it is kept as it is sent."""
_UNNAMED = "application/octet-stream"
_RETRY_SECONDS = 5

log = structlog.get_logger(__name__)


class UploadEmpty(Invalid):
    """The file is empty."""


class UploadBrokenOff(Malformed):
    """The upload was left before its end."""


class UploadStalled(RequestTimeout):
    """Nothing more of the upload came for too long."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that has come whole."""

    name: str
    """In `core.files`."""
    size: int
    """In bytes, as sent."""
    filename: str | None
    """What a form calls it."""
    digest: bytes
    """SHA-256, if it was asked for."""


@dataclass(frozen=True, slots=True)
class UploadKey:
    """An Idempotency-Key, and whose it is."""

    credential_id: UUID
    key: str


class Uploads:
    """The uploads that one process receives."""

    def __init__(self, settings: ImportSettings, files: Files) -> None:
        """Receive into `files`."""
        self._settings = settings
        self._files = files
        self._open = 0
        self._keys: set[UploadKey] = set()

    @asynccontextmanager
    async def receive(
        self, request: Request, folder: str, media_types: Collection[str], key: UploadKey | None
    ) -> AsyncIterator[Upload]:
        """Receive a body, and yield what it is once it is there; any error deletes it again.

        With a `key` it is digested as it comes, and no other may be under way with that key.

        Raises:
            FormNotOneFile: It is a form of something else than one file.
            IdempotencyKeyInUse: Another upload is under way with the key.
            Malformed: It is a broken form, or was left before its end.
            TooLarge: It is larger than allowed.
            Unavailable: There are too many uploads, or no place for this one.
            UnsupportedMediaType: It is neither a form nor of one of the `media_types`.
            UploadEmpty: There is nothing in it.
            UploadStalled: Nothing came for too long.

        """
        form = _form_of(request, media_types)
        with self._place(key):
            # It waits far more than it works: it is not to count among the requests.
            request.scope["pricebook.exchange"].step_aside()
            receiving = _Receiving(f"{folder}/{uuid4()}", is_digested=key is not None)
            body = _body(request, self._settings.stall_seconds)
            await self._store(receiving, form.content(body) if form else body)
            try:
                yield receiving.upload(form.filename if form else None)
            except BaseException:
                await self._forget(receiving.name)
                raise

    @contextmanager
    def _place(self, key: UploadKey | None) -> Iterator[None]:
        if self._open >= self._settings.uploads_at_once:
            message = "Too many uploads at once; try again."
            raise Unavailable(message, retry_after_seconds=_RETRY_SECONDS)
        if key is not None and key in self._keys:
            raise IdempotencyKeyInUse
        keys = set() if key is None else {key}
        self._open += 1
        self._keys |= keys
        try:
            yield
        finally:
            self._open -= 1
            self._keys -= keys

    async def _store(self, receiving: "_Receiving", content: AsyncIterator[bytes]) -> None:
        try:
            await self._files.write(receiving.name, receiving.counted(content))
        except FilesAwayError as error:
            log.warning("upload cannot be stored", exc_info=error)
            message = "The file cannot be stored just now; try again."
            raise Unavailable(message, retry_after_seconds=_RETRY_SECONDS) from error

    async def _forget(self, name: str) -> None:
        # What cannot be deleted now is swept up later.
        with suppress(FilesAwayError):
            await self._files.delete([name])


class _Receiving:
    """An upload on its way."""

    def __init__(self, name: str, *, is_digested: bool) -> None:
        self.name = name
        self._size = 0
        self._digest = hashlib.sha256() if is_digested else None

    async def counted(self, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in content:
            if chunk:
                self._size += len(chunk)
                note_upload(len(chunk))
                if self._digest is not None:
                    self._digest.update(chunk)
                yield chunk
        if not self._size:
            raise UploadEmpty

    def upload(self, filename: str | None) -> Upload:
        digest = b"" if self._digest is None else self._digest.digest()
        return Upload(self.name, self._size, filename, digest)


def _form_of(request: Request, media_types: Collection[str]) -> multipart.OneFileForm | None:
    """Return the form that the body is, if it is one; refuse what is neither form nor file."""
    content_type = request.headers.get("content-type", _UNNAMED)
    sent = content_type.partition(";")[0].strip().lower()
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in CONTENT_CODINGS:
        message = f"A body may be packed with {' or '.join(CONTENT_CODINGS[1:])}, or not at all."
        raise UnsupportedMediaType(message)
    if sent != multipart.MEDIA_TYPE:
        if sent not in media_types:
            message = f"Send one of {', '.join(media_types)}, or a form with one file."
            raise UnsupportedMediaType(message)
        return None
    if coding != CONTENT_CODINGS[0]:
        message = "A form cannot be packed, but the file in it can."
        raise UnsupportedMediaType(message)
    return multipart.OneFileForm(content_type)


async def _body(request: Request, stall_seconds: float) -> AsyncIterator[bytes]:
    stream = request.stream()
    try:
        while True:
            async with asyncio.timeout(stall_seconds):
                chunk = await anext(stream, None)
            if chunk is None:
                return
            yield chunk
    except ClientDisconnect as error:
        raise UploadBrokenOff from error
    except TimeoutError as error:
        raise UploadStalled from error
