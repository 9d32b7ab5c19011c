"""What can be wrong with an import: with the request for it, or with its file as a whole."""

from pricebook.core.errors import NotFound
from pricebook.jobs.run import JobRefused


class ErrorsNotFound(NotFound):
    """There is no such import, it is not yours to see, or it has refused no rows."""


class FileUnreadable(JobRefused):
    """The file cannot be read as CSV."""


class HeaderUnreadable(JobRefused):
    """The file has no header that can be read."""


class SkuColumnMissing(JobRefused):
    """The header names no column for the SKU."""


class ColumnMissing(JobRefused):
    """The header has no column of a name that is to be mapped."""


class ColumnsAmbiguous(JobRefused):
    """Two columns are meant for one field."""


class NotUtf8Error(Exception):
    """What looked like UTF-8 is none: begin again, with Windows-1252."""
