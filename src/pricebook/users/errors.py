"""What can be refused about users."""

from pricebook.core.errors import Conflict, Invalid, NotFound


class UserNotFound(NotFound):
    """There is no such user."""


class EmailTaken(Conflict):
    """Another user has this e-mail address."""


class LastAdmin(Conflict):
    """This is the only admin left; make another one first."""


class PasswordIsAddress(Invalid):
    """The password must not be the e-mail address."""


class CurrentPasswordWrong(Invalid):
    """The current password is not right."""


class PasswordUnchanged(Invalid):
    """The new password is the current one."""
