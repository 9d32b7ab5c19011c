"""Imports every model, for Alembic and the tests."""

from pricebook.auth import models as auth
from pricebook.core import attempts, idempotency, outbox
from pricebook.core.database import Base
from pricebook.items import models as items
from pricebook.users import models as users

metadata = Base.metadata

__all__ = ["attempts", "auth", "idempotency", "items", "metadata", "outbox", "users"]
