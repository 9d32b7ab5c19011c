"""What can be wrong with a request for an export."""

from pricebook.core.errors import Conflict, Forbidden, Invalid, NotFound


class FieldUnknown(Invalid):
    """Users have no such field."""


class UsersForAdmins(Forbidden):
    """Only admins may export users."""


class OfCsvAlone(Invalid):
    """Only CSV has a delimiter, a byte order mark and guarded cells."""


class ExportNotFound(NotFound):
    """There is no such file of an export, or it is not for you to see."""


class ExportExpired(NotFound):
    """The file is no longer kept; have it made again."""


class ExportUnready(Conflict):
    """There is no file yet; its job tells how far it is, or why there will be none."""


class LinkInvalid(Forbidden):
    """The link is not valid, or no longer; whoever the file belongs to can make another."""
