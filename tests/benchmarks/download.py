"""`python -m tests.benchmarks.download PORT`: read one answer to its end, as cheaply as psql does.

The request comes on standard input, and what was seen goes to standard output as JSON.
"""

import asyncio
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

_BUFFER_BYTES = 1024 * 1024
# Room for trailers behind the last chunk (RFC 9112, section 7.1).
_TAIL_BYTES = 500
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Download:
    """One answer, and how it came."""

    seconds: float
    first_byte_seconds: float
    """From the request to the first byte of the body."""
    body_bytes: int
    """With what frames the chunks."""


async def download(port: int, request: bytes) -> Download:
    """Have a process of its own read an answer."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.benchmarks.download", str(port)),
        cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    found, _ = await process.communicate(request)
    if process.returncode:
        message = "an export was refused or broke off"
        raise RuntimeError(message)
    return Download(**orjson.loads(found))


def _read(port: int, request: bytes) -> Download:
    buffer = bytearray(_BUFFER_BYTES)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        began = time.perf_counter()
        connection.sendall(request)
        head = b""
        while not head.partition(b"\r\n\r\n")[2]:
            head += connection.recv(_BUFFER_BYTES)
        first_byte_at = time.perf_counter()
        assert head.startswith(b"HTTP/1.1 200 "), head
        tail = head.partition(b"\r\n\r\n")[2]
        size = len(tail)
        while count := connection.recv_into(buffer):
            size += count
            tail = (tail + buffer[max(0, count - _TAIL_BYTES) : count])[-_TAIL_BYTES:]
        ended_at = time.perf_counter()
    assert b"\r\n0\r\n" in tail, "broken off"
    return Download(ended_at - began, first_byte_at - began, size)


if __name__ == "__main__":
    _found = _read(int(sys.argv[1]), sys.stdin.buffer.read())
    sys.stdout.buffer.write(orjson.dumps(asdict(_found)))
