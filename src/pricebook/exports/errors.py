"""What can be wrong with a request for an export."""

from pricebook.core.errors import Forbidden, Invalid


class FieldUnknown(Invalid):
    """Users have no such field."""


class UsersForAdmins(Forbidden):
    """Only admins may export users."""
