"""What clients send and get about log-ins, sessions and API keys."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from pricebook.core.pagination import Cursor, Limit
from pricebook.core.principal import Scope
from pricebook.core.schemas import Id, Input, Line, Moment, MomentIn, Output, Text
from pricebook.core.security import NewPassword, Password
from pricebook.users.schemas import Email

_TOKEN_LENGTH = 200
_READ_SCOPES = [scope for scope in Scope if scope.endswith(":read")]


def _sayable(token: SecretStr) -> SecretStr:
    """Half of a surrogate pair is no character, and has no digest."""
    if not token.get_secret_value().isascii():
        message = "must be ASCII text"
        raise ValueError(message)
    return token


MailedToken = Annotated[
    SecretStr,
    Field(max_length=_TOKEN_LENGTH, description="What the link in the mail holds, after `token=`."),
    AfterValidator(_sayable),
]


class LogIn(BaseModel):
    """The form of RFC 6749, section 4.3.2, which says to pass over unknown fields."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    grant_type: Literal["password"] = "password"
    username: Annotated[Text, Field(max_length=320, description="The e-mail address.")]
    password: Password
    scope: Annotated[str, Field(max_length=1_000, description="Not used.")] = ""
    client_id: Annotated[str, Field(max_length=1_000, description="Not used.")] = ""
    client_secret: Annotated[Password | None, Field(description="Not used.")] = None


class TokenOut(Output):
    """A session's token (RFC 6749, section 5.1), shown this once."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 -- the name of a kind of token
    expires_in: Annotated[int, Field(description="Seconds until the session ends.")]


class PasswordResetRequest(Input):
    """Whose password is forgotten."""

    email: Email


class PasswordReset(Input):
    """A new password, and the proof that the user's mail is read."""

    token: MailedToken
    new_password: NewPassword


class EmailProof(Input):
    """The proof that mail to an address is read."""

    token: MailedToken


class Listing(Input):
    """From where on to list, newest first."""

    limit: Limit = 50
    cursor: Cursor = None


class SessionOut(Output):
    """One of your sessions."""

    id: Id
    is_current: Annotated[bool, Field(description="Whether it is the one that asks.")]
    address: Annotated[str, Field(description="The network that it was opened from.")]
    user_agent: str | None
    created_at: Moment
    last_used_at: Annotated[Moment, Field(description="To the minute, about.")]
    expires_at: Moment


class ApiKeyIn(Input):
    """An API key to make; it can do what its scopes and your role both allow."""

    name: Line
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(Scope))] = _READ_SCOPES
    expires_at: MomentIn | None = None
    expires_in_days: Annotated[int, Field(ge=1, le=3_650, strict=True)] | None = None

    @model_validator(mode="after")
    def _one_expiry(self) -> Self:
        if self.expires_at and self.expires_in_days:
            message = "give expires_at or expires_in_days, not both"
            raise ValueError(message)
        return self


class ApiKeyOut(Output):
    """One of your API keys; without the key itself, which only you have."""

    id: Id
    name: str
    scopes: list[Scope]
    created_at: Moment
    last_used_at: Annotated[Moment | None, Field(description="To the minute, about.")]
    expires_at: Moment | None


class NewApiKey(ApiKeyOut):
    """A new API key, with the key itself: it is shown this once."""

    key: str
