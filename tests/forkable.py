"""Imported by the process that the tests' others are forked from, once: makes a fork ready soon."""

import gc

import pytest
import uvicorn
from tests import processes, receiver

from pricebook.core.settings import Settings
from pricebook.main import create_app

uvicorn.Config(
    create_app(Settings(database_url=None, redis_url=None)), loop="uvloop", http="httptools"
).load()
gc.collect()
# A fork would copy all of this memory only to look for garbage in it.
gc.freeze()

__all__ = ["processes", "pytest", "receiver"]
