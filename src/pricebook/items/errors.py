"""What can be wrong with a request about items."""

from pricebook.core.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
)


class ItemNotFound(NotFound):
    """There is no such item."""


class SkuTaken(Conflict):
    """Another item has this SKU."""


class SkuContended(Conflict):
    """The item with this SKU comes and goes; try again."""


class SkuMismatch(Invalid):
    """The SKU in the body is not the one in the path; leave it out, or rename by PATCH."""


class FieldUnknown(Invalid):
    """Items have no such field."""


class FieldHidden(Forbidden):
    """This field is not for you to see."""


class VersionStale(PreconditionFailed):
    """The item is no longer at this version; read it again."""


class VersionMissing(PreconditionRequired):
    """Each update and delete must name the version of its item."""
