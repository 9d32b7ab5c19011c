"""Imports every model, for Alembic and the tests."""

from pricebook.auth import models as auth
from pricebook.core import attempts, idempotency, outbox
from pricebook.core.database import Base
from pricebook.items import models as items
from pricebook.jobs import models as jobs
from pricebook.notifications import models as notifications
from pricebook.users import models as users
from pricebook.webhooks import models as webhooks

metadata = Base.metadata

__all__ = [
    "attempts",
    "auth",
    "idempotency",
    "items",
    "jobs",
    "metadata",
    "notifications",
    "outbox",
    "users",
    "webhooks",
]
