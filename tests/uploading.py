"""Ways to send a file of items."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

ROWS = b"sku,name,price,currency\r\nH-1,Hammer,12.50,EUR\r\n"
CSV = {"Content-Type": "text/csv"}
URL = "/v1/imports/items"


async def send(client: Any, content: Any = ROWS, headers: Any = None, **query: Any) -> Any:
    return await client.post(URL, content=content, headers=CSV | (headers or {}), params=query)


def form(*parts: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """A form of parts: what follows `form-data` in each one's head, and its content."""
    body = b"".join(
        f"--xx\r\nContent-Disposition: form-data{head}\r\n\r\n".encode() + content + b"\r\n"
        for head, content in parts
    )
    return body + b"--xx--\r\n", {"Content-Type": "multipart/form-data; boundary=xx"}


async def never_read() -> AsyncIterator[bytes]:
    pytest.fail("it was read")
    yield b""


class Dripping:
    """A body that stops after its first piece, until it is let go."""

    def __init__(self) -> None:
        self.has_begun, self.may_end = asyncio.Event(), asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield ROWS
        self.has_begun.set()
        await self.may_end.wait()
