"""What clients send and get about users."""

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    EmailStr,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from pricebook.core.pagination import Cursor, Limit
from pricebook.core.principal import Role
from pricebook.core.schemas import Id, Input, Line, Moment, Output, Patch, SearchText, unchanged
from pricebook.core.security import NewPassword, Password, is_guessable

Email = Annotated[EmailStr, AfterValidator(str.lower), Field(max_length=254)]
"""An e-mail address, in lower case: the name to log in with."""

Disabled = Annotated[bool, Field(strict=True)]

UserSort = Literal["created_at", "-created_at", "email", "-email", "name", "-name"]


class UserIn(Input):
    """A user to make."""

    email: Email
    name: Line
    password: NewPassword
    role: Role = Role.VIEWER

    @field_validator("password")
    @classmethod
    def _not_the_address(cls, password: SecretStr, others: ValidationInfo) -> SecretStr:
        email: str = others.data.get("email", "")
        if is_guessable(password, email, email.partition("@")[0]):
            message = "must not be the e-mail address"
            raise ValueError(message)
        return password


class UserPatch(Patch):
    """What an admin may change of a user."""

    email: Email = unchanged()
    name: Line = unchanged()
    role: Role = unchanged()
    disabled: Disabled = unchanged()


class MePatch(Patch):
    """What people may change of themselves."""

    name: Line = unchanged()


class PasswordChange(Input):
    """A new password, and the proof that the present one is known."""

    current_password: Password
    new_password: NewPassword


class UserFilters(Input):
    """Which users."""

    q: SearchText | None = Field(None, description="Part of a name or an e-mail address.")


class UserListing(UserFilters):
    """Which users to list, in what order, and from where on."""

    sort: UserSort = Field("created_at", description="With `-` in front: the other way round.")
    limit: Limit = 50
    cursor: Cursor = None
    count: Literal["exact"] | None = Field(
        None, description="`exact`: say in X-Total-Count how many there are in all."
    )


class UserOut(Output):
    """A user, as admins and the user see them."""

    id: Id
    email: str
    name: str
    role: Role
    email_verified_at: Annotated[
        Moment | None, Field(description="When the user proved that the address is theirs.")
    ]
    disabled_at: Moment | None
    created_at: Moment
    updated_at: Moment


class UserPublic(Output):
    """What anyone may know of a user."""

    id: Id
    name: str
