"""Whether the API of this process is in use: what can wait gives way to what cannot."""

import time

# Two requests of a caller who waits for each answer lie closer together than this.
_LULL_SECONDS = 0.1


class Traffic:
    """The requests of one process, as far as others give way to them."""

    def __init__(self) -> None:
        """Begin in quiet."""
        self._last_at = -_LULL_SECONDS
        self.under_way = 0
        """Requests that are being answered, streams apart."""

    def note(self) -> None:
        """Take note of a request."""
        self._last_at = time.monotonic()

    def is_busy(self) -> bool:
        """Whether a request came a moment ago."""
        return time.monotonic() - self._last_at < _LULL_SECONDS
