"""How old the newest backup is, for `pricebook doctor`."""

from datetime import timedelta

from pricebook.backups.shelf import Shelf, begun_at
from pricebook.core.clock import now
from pricebook.core.files import FilesAwayError
from pricebook.core.mendable import MendableError
from pricebook.core.settings import Settings


async def look_at_backups(settings: Settings) -> str:
    """Say when the newest whole one began.

    Raises:
        MendableError: There is none, it is old, or nobody can look.

    """
    if settings.backup.url is None:
        return "none by `pricebook backup`: PRICEBOOK_BACKUP__URL is not set"
    try:
        names = await Shelf(settings).names()
    except FilesAwayError as error:
        message = f"{settings.backup.url}: cannot be read: correct PRICEBOOK_BACKUP__URL, __OPTIONS"
        raise MendableError(message) from error
    newest = begun_at(names[-1]) if names else None
    if newest is None:
        message = f"no whole one at {settings.backup.url}: run `pricebook backup`"
        raise MendableError(message)
    age = now() - newest
    shown = f"{len(names)}, the newest {age.total_seconds() / 3600:,.1f} h old"
    if age > timedelta(hours=settings.backup.warn_after_hours):
        message = f"{shown}: see why `pricebook backup` makes no more"
        raise MendableError(message)
    return shown
