"""Counts the records of CSV and JSON Lines as they pass, however they are cut into chunks."""

_QUOTE = b'"'
_END = b"\n"
_REST = bytes(set(range(256)) - {_QUOTE[0], _END[0]})


class LineCounter:
    """Counts lines."""

    def __init__(self) -> None:
        """Begin at none."""
        self.count = 0

    def take(self, chunk: bytes) -> None:
        """Count what ends in this chunk."""
        self.count += chunk.count(_END)


class CsvCounter:
    """Counts records of CSV (RFC 4180), where a line may end within quotes without ending one."""

    def __init__(self) -> None:
        """Begin at none, outside quotes."""
        self.count = 0
        self._is_quoted = False

    def take(self, chunk: bytes) -> None:
        """Count what ends in this chunk."""
        # Two quotes with no end of a line between them change nothing. Most go that way, in C.
        marks = chunk.translate(None, _REST).replace(_QUOTE * 2, b"")
        for number, part in enumerate(marks.split(_QUOTE)):
            if number:
                self._is_quoted = not self._is_quoted
            if not self._is_quoted:
                self.count += part.count(_END)
