"""Unpacking as it comes, and what is refused."""

import asyncio
import gzip
import tracemalloc
from collections.abc import AsyncIterator, Callable

import pytest
import zstandard

from pricebook.core.decompression import UnpackingError, unpacked

PLAIN = b"".join(b"SKU-%d,Hammer,12.50\n" % number for number in range(50_000))
PACKED = [pytest.param(gzip.compress, id="gzip"), pytest.param(zstandard.compress, id="zstd")]
Pack = Callable[[bytes], bytes]


async def _chunks(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def _unpacked(data: bytes, size: int = 65_536, most: int = 1 << 40) -> bytes:
    return b"".join([piece async for piece in unpacked(_chunks(data, size), most)])


@pytest.mark.parametrize("data", [b"", b"s", b"sku,name\n", PLAIN])
@pytest.mark.parametrize("size", [1, 100_000])
async def test_what_is_not_packed_comes_as_it_is(data, size):
    assert await _unpacked(data[:5_000], size) == data[:5_000]


@pytest.mark.parametrize("pack", PACKED)
@pytest.mark.parametrize("size", [1_000, 65_536, 1_000_000])
async def test_what_was_packed_comes_back(pack: Pack, size):
    assert await _unpacked(pack(PLAIN), size) == PLAIN


@pytest.mark.parametrize("pack", PACKED)
@pytest.mark.parametrize("size", [1, 3, 1_000])
async def test_several_packed_files_in_a_row_are_one(pack: Pack, size):
    assert await _unpacked(pack(b"sku\n") + pack(b"A1\n") + pack(b"A2\n"), size) == b"sku\nA1\nA2\n"


async def test_a_tape_fills_the_end_of_gzip_with_zeros():
    assert await _unpacked(gzip.compress(PLAIN) + b"\0" * 1_000) == PLAIN


async def test_zstd_may_begin_with_a_frame_that_says_nothing():
    skippable = b"\x5a\x2a\x4d\x18\x02\x00\x00\x00hi"
    assert await _unpacked(skippable + zstandard.compress(PLAIN)) == PLAIN


@pytest.mark.parametrize("pack", PACKED)
async def test_what_breaks_off_is_refused(pack: Pack):
    packed = pack(PLAIN)
    for end in (4, len(packed) // 2, len(packed) - 1):
        with pytest.raises(UnpackingError, match="breaks off"):
            await _unpacked(packed[:end])


@pytest.mark.parametrize("pack", PACKED)
async def test_what_is_broken_is_refused(pack: Pack):
    packed = bytearray(pack(PLAIN))
    packed[len(packed) // 2] ^= 0xFF
    packed[len(packed) // 2 + 1] ^= 0xFF
    with pytest.raises(UnpackingError, match=r"is broken|breaks off"):
        await _unpacked(bytes(packed) + b"\0" * 100)


async def test_zstd_that_takes_much_memory_to_read_is_refused():
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(UnpackingError, match="broken"):
        await _unpacked(packer.compress(PLAIN) + packer.flush())


def _bombs() -> dict[str, bytes]:
    zstd = zstandard.ZstdCompressor(level=19, write_content_size=False)
    return {"gzip": gzip.compress(bytes(300_000_000), 9), "zstd": zstd.compress(bytes(300_000_000))}


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
async def test_a_bomb_is_refused_and_memory_stays_flat(kind):
    bomb = (await asyncio.to_thread(_bombs))[kind]
    tracemalloc.start()
    try:
        with pytest.raises(UnpackingError, match="larger than 200,000,000 bytes"):
            async for _ in unpacked(_chunks(bomb, 262_144), 200_000_000):
                pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * 1024 * 1024
