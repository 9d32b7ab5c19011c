"""Unpacking: gzip (RFC 1952) and zstd (RFC 8878) as their bytes come, told by how they begin."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import zstandard
from isal import isal_zlib

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_LONGEST_SIGN = 4
# A zstd file may begin with a frame that says nothing: sixteen signs, which differ in one digit.
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"

_PIECE_BYTES = 256 * 1024
# zstd has no way to stop within what it is given, of which four bytes can become 128 KiB.
_SLICE_BYTES = 128
# What every reader of zstd should manage (RFC 8878, section 3.1.1.1.2), and memory stays flat.
_WINDOW_BYTES = 8 * 1024 * 1024


class UnpackingError(Exception):
    """The file cannot be unpacked; the message tells people why."""


class _Unpacker(Protocol):
    def pieces(self, data: bytes) -> Iterator[bytes]: ...

    @property
    def is_at_end(self) -> bool:
        """Whether all that began has ended."""


async def unpacked(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    """Yield what gzip or zstd packed, or just what comes if it is not packed.

    Raises:
        UnpackingError: It is broken, breaks off, or is larger than `max_bytes` once unpacked.

    """
    size = 0
    async for piece in _pieces(chunks):
        size += len(piece)
        if size > max_bytes:
            message = f"Unpacked, the file is larger than {max_bytes:,} bytes."
            raise UnpackingError(message)
        yield piece


async def _pieces(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    beginning = await _beginning(chunks)
    unpacker = _unpacker_of(beginning)
    if unpacker is None:
        yield beginning
        async for chunk in chunks:
            yield chunk
        return
    async for piece in _unpack(unpacker, beginning):
        yield piece
    async for chunk in chunks:
        async for piece in _unpack(unpacker, chunk):
            yield piece
    if not unpacker.is_at_end:
        message = "The compressed file breaks off before its end."
        raise UnpackingError(message)


async def _beginning(chunks: AsyncIterator[bytes]) -> bytes:
    """Return enough to know the format by."""
    read = b""
    async for chunk in chunks:
        read += chunk
        if len(read) >= _LONGEST_SIGN:
            break
    return read


def _unpacker_of(beginning: bytes) -> _Unpacker | None:
    if beginning.startswith(_GZIP):
        return _Gzip()
    is_skippable = beginning[1:4] == _ZSTD_SKIPPABLE and beginning[0] >> 4 == 5  # noqa: PLR2004 -- as the RFC has it
    return _Zstd() if is_skippable or beginning.startswith(_ZSTD) else None


async def _unpack(unpacker: _Unpacker, data: bytes) -> AsyncIterator[bytes]:
    pieces = unpacker.pieces(data)
    try:
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece
    except (isal_zlib.IsalError, zstandard.ZstdError) as error:  # type: ignore[misc]  # isal calls its class an instance
        message = f"The compressed file is broken ({error})."
        raise UnpackingError(message) from error


class _Gzip:
    def __init__(self) -> None:
        self._member = isal_zlib.decompressobj(wbits=16 + isal_zlib.MAX_WBITS)

    @property
    def is_at_end(self) -> bool:
        return self._member.eof

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                # What fills the last block of a tape is no member.
                data = data.lstrip(b"\0")
                if not data:
                    return
                self.__init__()  # type: ignore[misc]  # the next member begins
            yield from self._pieces_of_member(data)
            data = self._member.unused_data

    def _pieces_of_member(self, data: bytes) -> Iterator[bytes]:
        while not self._member.eof:
            piece = self._member.decompress(data, _PIECE_BYTES)
            data = self._member.unconsumed_tail
            if piece:
                yield piece
            if not data and len(piece) < _PIECE_BYTES:
                return


class _Zstd:
    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
        self._frame = self._decompressor.decompressobj()
        self._has_begun = False

    @property
    def is_at_end(self) -> bool:
        return not self._has_begun

    def pieces(self, data: bytes) -> Iterator[bytes]:
        found: list[bytes] = []
        size = 0
        for start in range(0, len(data), _SLICE_BYTES):
            for part in self._parts(data[start : start + _SLICE_BYTES]):
                found.append(part)
                size += len(part)
            if size >= _PIECE_BYTES:
                yield b"".join(found)
                found, size = [], 0
        if size:
            yield b"".join(found)

    def _parts(self, data: bytes) -> Iterator[bytes]:
        """Yield what each frame that the slice has a part of becomes."""
        while data:
            yield self._frame.decompress(data)
            self._has_begun = not self._frame.eof
            if self._has_begun:
                return
            data = self._frame.unused_data
            self._frame = self._decompressor.decompressobj()
