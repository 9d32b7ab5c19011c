"""Reading: a file as people send it goes in, its rows in COPY's text format come out.

Bytes are fetched, unpacked, parsed and handed on, one piece ahead at each step and in threads, so
that PostgreSQL writes one piece while the next is parsed, and memory stays flat.
"""

import asyncio
import codecs
import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from pricebook.core.decompression import UnpackingError, unpacked
from pricebook.imports.dialects import (
    DELIMITERS,
    Delimiter,
    Dialect,
    Encoding,
    dialect_of,
    encoding_of,
)
from pricebook.imports.errors import FileUnreadable, HeaderUnreadable, NotUtf8Error
from pricebook.imports.records import Records, breaks_in

# A header must end within it.
_HEAD_BYTES = 64 * 1024
_PIECE_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvOptions:
    """What is known of a file."""

    encoding: Encoding = "auto"
    delimiter: Delimiter = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    """Which field a column of the header is, where its name does not say."""
    max_unpacked_bytes: int


class CsvFile:
    """A file whose header has been read."""

    def __init__(
        self, dialect: Dialect, source: "_Source", decoder: "_Decoder", beginning: str
    ) -> None:
        """Go on after the header: with `beginning`, then with what else the source has."""
        self.dialect = dialect
        self._source = source
        self._decoder = decoder
        self._beginning = beginning
        self._records = Records(
            DELIMITERS[dialect.delimiter], dialect.width, dialect.positions, dialect.first_line
        )

    @property
    def bytes_read(self) -> int:
        """How much has been fetched, as it was sent."""
        return self._source.bytes_read

    @property
    def rows_read(self) -> int:
        """How many rows have been parsed."""
        return self._records.rows

    async def copy(self) -> AsyncGenerator[bytes, None]:
        r"""Yield each row: its line, its problem or \N, and the text of each of `columns`.

        Raises:
            NotUtf8Error: It was taken for UTF-8, and is something else.
            JobRefused: It cannot be read to its end.

        """
        async with aclosing(_one_ahead(self._parsed())) as pieces:
            async for piece in pieces:
                yield piece

    async def _parsed(self) -> AsyncGenerator[bytes, None]:
        if copied := await asyncio.to_thread(self._records.feed, self._beginning):
            yield copied
        async with aclosing(_one_ahead(self._source.pieces)) as pieces:
            async for piece in pieces:
                if copied := await asyncio.to_thread(self._parse, piece):
                    yield copied
        if copied := await asyncio.to_thread(self._parse_last):
            yield copied

    def _parse(self, piece: bytes) -> bytes:
        return self._records.feed(self._decode(piece))

    def _parse_last(self) -> bytes:
        found = self._records.feed(self._decode(b"", is_last=True))
        return found + self._records.finish()

    def _decode(self, piece: bytes, *, is_last: bool = False) -> str:
        return self._decoder.decode(piece, self._records.line_reached, is_last=is_last)


async def open_csv(chunks: AsyncIterator[bytes], options: CsvOptions) -> CsvFile:
    """Read as much of a file as it takes to know how it is written.

    Raises:
        JobRefused: It is no CSV file of items; the sentence tells why.

    """
    source = _Source(chunks, options.max_unpacked_bytes)
    head = await source.head()
    encoding, skipped = encoding_of(head, options.encoding)
    decoder = _Decoder(encoding, is_guess=options.encoding == "auto")
    text = decoder.decode(head[skipped:], lambda: 1)
    dialect = dialect_of(text, encoding, options.delimiter, options.columns)
    lines = io.StringIO(text, newline="").readlines()
    if len(head) >= _HEAD_BYTES and dialect.first_line > len(lines):
        message = f"The header is longer than {_HEAD_BYTES:,} bytes."
        raise HeaderUnreadable(message)
    beginning = "".join(lines[dialect.first_line - 1 :])
    return CsvFile(dialect, source, decoder, beginning)


class _Source:
    """The bytes of a file: counted as they are sent, and unpacked."""

    def __init__(self, chunks: AsyncIterator[bytes], max_bytes: int) -> None:
        self.bytes_read = 0
        self.pieces = self._pieces(unpacked(self._counted(chunks), max_bytes))

    async def head(self) -> bytes:
        """Return enough of the beginning, or all there is; `pieces` go on after it."""
        head = b""
        async for piece in self.pieces:
            head += piece
            if len(head) >= _HEAD_BYTES:
                break
        return head

    async def _counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self.bytes_read += len(chunk)
            yield chunk

    async def _pieces(self, unpacked_bytes: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            async for found in unpacked_bytes:
                for start in range(0, len(found), _PIECE_BYTES):
                    yield found[start : start + _PIECE_BYTES]
        except UnpackingError as error:
            raise FileUnreadable(str(error)) from error


class _Decoder:
    """Text out of bytes, in pieces that may end anywhere."""

    def __init__(self, encoding: str, *, is_guess: bool) -> None:
        self._encoding = encoding
        self._is_guess = is_guess
        self._decoder = codecs.getincrementaldecoder(encoding)()

    def decode(self, piece: bytes, line: Callable[[], int], *, is_last: bool = False) -> str:
        """Return the text of a piece that begins in a `line`."""
        try:
            return self._decoder.decode(piece, is_last)
        except UnicodeDecodeError as error:
            if self._is_guess and self._encoding == "utf-8":
                raise NotUtf8Error from error
            read = error.object[: error.start].decode(self._encoding)
            message = (
                f"Line {line() + breaks_in(read)} is not {self._encoding}; "
                "say which encoding the file has."
            )
            raise FileUnreadable(message) from error


async def _one_ahead(source: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Fetch the next one while the last one is worked on."""
    coming = asyncio.ensure_future(anext(source, None))
    try:
        while (piece := await coming) is not None:
            coming = asyncio.ensure_future(anext(source, None))
            yield piece
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
