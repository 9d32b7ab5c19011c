"""PostgreSQL 18 and Valkey from their wheels, run as child processes in a data folder."""

from pricebook.core.embedded.postgres import Postgres
from pricebook.core.embedded.server import EmbeddedServer, EmbeddedServerError
from pricebook.core.embedded.valkey import Valkey

__all__ = ["EmbeddedServer", "EmbeddedServerError", "Postgres", "Valkey"]
