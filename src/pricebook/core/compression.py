"""Compression of what streams out: which encoding a client wants, and bytes in that encoding."""

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Literal, Protocol

import zstandard
from isal import isal_zlib

Encoding = Literal["zstd", "gzip", "identity"]

# What is compressed as it is made must not wait for it: the fastest level of the fastest libraries.
_LEVEL = 1
_GZIP_FORMAT = 31
_QUALITY = re.compile(r"\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*", re.IGNORECASE)


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self, mode: int = ..., /) -> bytes: ...


def negotiate(accept_encoding: str | None) -> Encoding:
    """Return the encoding that a client wants most (RFC 9110, section 12.5.3); never none."""
    asked = _qualities(accept_encoding or "")
    rest = asked.get("*", 0.0)
    # Whoever names another encoding wants it rather than none.
    unasked = rest if "*" in asked else 0.0
    qualities: list[tuple[float, Encoding]] = [
        (asked.get("zstd", rest), "zstd"),
        (max(asked.get("gzip", rest), asked.get("x-gzip", 0.0)), "gzip"),
        (asked.get("identity", unasked), "identity"),
    ]
    best, encoding = max(qualities, key=lambda one: one[0])
    return encoding if best else "identity"


def _qualities(accept_encoding: str) -> dict[str, float]:
    found = {}
    for part in accept_encoding.lower().split(","):
        name, _, parameter = part.partition(";")
        quality = _QUALITY.fullmatch(parameter) if parameter.strip() else None
        if quality is not None or not parameter.strip():
            found[name.strip()] = float(quality[1]) if quality else 1.0
    return found


async def compressed(
    chunks: AsyncGenerator[bytes, None], encoding: Encoding
) -> AsyncGenerator[bytes, None]:
    """Yield the chunks in an encoding, whose end tells that they are whole."""
    if encoding == "identity":
        async for chunk in chunks:
            yield chunk
        return
    compressor, flush_block = _compressor(encoding)
    is_first = True
    async for chunk in chunks:
        packed = await asyncio.to_thread(compressor.compress, chunk)
        if is_first:
            # So that the reader has something to read at once.
            packed += compressor.flush(flush_block)
            is_first = False
        if packed:
            yield packed
    yield await asyncio.to_thread(compressor.flush)


def _compressor(encoding: Encoding) -> tuple[_Compressor, int]:
    if encoding == "zstd":
        return zstandard.ZstdCompressor(_LEVEL).compressobj(), zstandard.COMPRESSOBJ_FLUSH_BLOCK
    return isal_zlib.compressobj(_LEVEL, wbits=_GZIP_FORMAT), isal_zlib.Z_SYNC_FLUSH
