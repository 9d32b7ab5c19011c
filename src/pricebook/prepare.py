"""What makes a database ready for use: the schema, an admin, and a demo list if wanted."""

import asyncio
import secrets

from pydantic import SecretStr, ValidationError

from pricebook import demo
from pricebook.core.database import open_database
from pricebook.core.mendable import MendableError
from pricebook.core.migrating import migrate
from pricebook.core.settings import Settings
from pricebook.users.service import ensure_admin

__all__ = ["AdminRefusedError", "first_admin", "load_demo", "make_admin", "migrate"]


class AdminRefusedError(MendableError):
    """The e-mail address or the password will not do."""


def first_admin(settings: Settings) -> SecretStr | None:
    """Make the admin of the settings if it is new, and return its password if made up here."""
    password = settings.admin_password or SecretStr(secrets.token_urlsafe(18))
    is_new = asyncio.run(make_admin(settings, settings.admin_email, password))
    return password if is_new and settings.admin_password is None else None


def load_demo(settings: Settings) -> int:
    """Add what is missing of the demo list, and return how many items that were."""
    return asyncio.run(demo.load(settings))


async def make_admin(settings: Settings, email: str, password: SecretStr) -> bool:
    """Make an admin, and tell whether the address was new."""
    async with (
        open_database(settings, "pricebook-admin") as database,
        database.sessions.begin() as session,
    ):
        try:
            return await ensure_admin(session, email, password)
        except ValidationError as error:
            problem = error.errors()[0]
            message = f"the admin's {problem['loc'][0]} will not do: {problem['msg']}"
            raise AdminRefusedError(message) from None
