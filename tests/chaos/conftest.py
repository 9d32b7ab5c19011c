"""What the long runs share."""

from collections.abc import Iterator

import pytest
from tests.receiver import ForkedReceiver


@pytest.fixture
def receiver() -> Iterator[ForkedReceiver]:
    """A receiver of webhooks that answers 200 to all, in a process of its own."""
    process = ForkedReceiver()
    process.start()
    yield process
    process.close()
