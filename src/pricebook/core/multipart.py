"""Forms with one file (RFC 7578), read as they come."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from pricebook.core.errors import Invalid, Malformed

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MEDIA_TYPE = "multipart/form-data"
_NAME_LENGTH = 200


class FormUnreadable(Malformed):
    """The form could not be read."""


class FormNotOneFile(Invalid):
    """A form must have one file and nothing else; what is asked for stands in the query."""


class OneFileForm:
    """A form whose only part is a file."""

    def __init__(self, content_type: str) -> None:
        """Read the boundary off the Content-Type.

        Raises:
            FormUnreadable: It has none that can be used.

        """
        self.filename: str | None = None
        self._has_file = False
        self._is_at_end = False
        self._found: list[bytes] = []
        self._header = (bytearray(), bytearray())
        self._disposition = ""
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        try:
            self._parser = MultipartParser(boundary, self._callbacks())
        except FormParserError as error:
            raise FormUnreadable from error
        if not boundary:
            raise FormUnreadable

    async def content(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the file.

        Raises:
            FormNotOneFile: There is none, or something else besides.
            FormUnreadable: It is no form, or breaks off.

        """
        async for chunk in body:
            try:
                self._parser.write(chunk)
            except FormParserError as error:
                raise FormUnreadable from error
            found, self._found = b"".join(self._found), []
            if found:
                yield found
        if not self._is_at_end:
            raise FormUnreadable
        if not self._has_file:
            raise FormNotOneFile

    def _callbacks(self) -> "MultipartCallbacks":
        return {
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _on_header_end(self) -> None:
        name, value = (bytes(part) for part in self._header)
        if name.lower() == b"content-disposition":
            self._disposition = value.decode("latin-1")
        self._header = (bytearray(), bytearray())

    def _on_headers_finished(self) -> None:
        filename = parse_options_header(self._disposition)[1].get(b"filename")
        if filename is None or self._has_file:
            raise FormNotOneFile
        self._has_file = True
        self.filename = _name(filename.decode(errors="replace"))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._found.append(data[start:end])

    def _on_end(self) -> None:
        self._is_at_end = True


def _name(sent: str) -> str | None:
    """Return a file's own name, whatever folder it came from and whatever else stands in it."""
    name = sent.replace("\\", "/").rpartition("/")[2]
    return "".join(sign for sign in name if sign.isprintable())[-_NAME_LENGTH:] or None
