"""Processes that the tests start."""

from tests.faults.conftest import start

__all__ = ["start"]
