"""Who is asking: the guards that routes name in their signatures.

    async def list_items(reader: Viewer, ...)      # any role; an API key needs items:read
    async def update_item(editor: Editor, ...)     # editor or admin; items:write
    async def list_users(admin: AdminReader, ...)  # admin; users:read
    async def create_api_key(person: Person, ...)  # any role, but not an API key

Each guard is one dependency that reads the bearer token, asks `app.state.authenticate` (which
`main` wires to `auth.service`), counts the request against its caller's limit, and refuses.
"""

from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_network
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer

from pricebook.core.context import current_context
from pricebook.core.errors import Forbidden, Unauthenticated
from pricebook.core.principal import Principal, Role, Scope
from pricebook.core.rate_limits import RateLimiter

_PRINCIPAL = "pricebook.principal"

Authenticate = Callable[[str], Awaitable[Principal | None]]


class CredentialsMissing(Unauthenticated):
    """Send a token, as Authorization: Bearer and the token."""


class CredentialsInvalid(Unauthenticated):
    """The token is unknown, expired or revoked."""

    def headers(self) -> dict[str, str]:
        """The challenge of RFC 6750, section 3.1."""
        return {"WWW-Authenticate": 'Bearer error="invalid_token"'}


class RoleInsufficient(Forbidden):
    """Your role does not allow this."""


class ScopeInsufficient(Forbidden):
    """The API key's scopes do not allow this."""


class PersonRequired(Forbidden):
    """An API key cannot do this; log in as a person."""


def bearer_token(request: Request) -> str | None:
    """Return the token of the Authorization header (RFC 6750, section 2.1), if there is one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def client_address(request: Request) -> str:
    """Return the address that the request came from; a proxy's word counts only if trusted."""
    return request.client.host if request.client else "unknown"


def client_network(request: Request) -> str:
    """Return what counts as one caller: an IPv4 address, or the /64 that an IPv6 host owns."""
    try:
        address = ip_address(client_address(request))
    except ValueError:
        return "unknown"
    # A socket that serves both protocols writes an IPv4 address as ::ffff:192.0.2.1.
    address = getattr(address, "ipv4_mapped", None) or address
    return str(ip_network((address, 64), strict=False)) if address.version == 6 else str(address)  # noqa: PLR2004 -- the protocol's number


async def identify(request: Request) -> Principal | None:
    """Return the caller, or None without credentials; asks, and counts, once a request.

    Raises:
        CredentialsInvalid: There is a token, but it is not valid.
        TooManyRequests: The caller's limit is used up.

    """
    known: Principal | None = request.scope.get(_PRINCIPAL)
    token = bearer_token(request)
    if known is not None or token is None:
        return known
    authenticate = cast("Authenticate", request.app.state.authenticate)
    principal = await authenticate(token)
    if principal is None:
        limiter(request).count_network(client_network(request))
        raise CredentialsInvalid
    limiter(request).count_credential(principal.credential_id)
    request.scope[_PRINCIPAL] = principal
    if context := current_context():
        context.user_id = principal.user_id
    return principal


def limiter(request: Request) -> RateLimiter:
    """Return the process's rate limiter."""
    return cast("RateLimiter", request.app.state.limiter)


class Guard(OAuth2PasswordBearer):
    """A dependency that lets a caller pass, or refuses with 401, 403 or 429."""

    def __init__(
        self, role: Role = Role.VIEWER, scope: Scope | None = None, *, person: bool = False
    ) -> None:
        """Demand a role, and of an API key a scope; or a person, which an API key is not."""
        super().__init__(tokenUrl="/v1/auth/token", scheme_name="Bearer", auto_error=False)
        self._role = role
        self._scope = scope
        self._person = person

    async def __call__(self, request: Request) -> Principal:  # type: ignore[override]  # it returns the caller, not the token
        """Return the caller.

        Raises:
            Unauthenticated: There is no token, or not a valid one.
            Forbidden: The role or the scopes do not reach.
            TooManyRequests: The caller's limit is used up.

        """
        principal = await identify(request)
        if principal is None:
            limiter(request).count_network(client_network(request))
            raise CredentialsMissing
        if self._person and not principal.is_person:
            raise PersonRequired
        if not principal.role.includes(self._role):
            raise RoleInsufficient
        if not principal.allows(self._scope):
            raise ScopeInsufficient
        return principal


async def count_anonymous(request: Request) -> None:
    """Count a request to a public route against its address."""
    limiter(request).count_network(client_network(request))


Viewer = Annotated[Principal, Depends(Guard(Role.VIEWER, Scope.ITEMS_READ))]
Editor = Annotated[Principal, Depends(Guard(Role.EDITOR, Scope.ITEMS_WRITE))]
AdminReader = Annotated[Principal, Depends(Guard(Role.ADMIN, Scope.USERS_READ))]
Admin = Annotated[Principal, Depends(Guard(Role.ADMIN, Scope.USERS_WRITE))]
WebhookReader = Annotated[Principal, Depends(Guard(Role.ADMIN, Scope.WEBHOOKS_READ))]
WebhookAdmin = Annotated[Principal, Depends(Guard(Role.ADMIN, Scope.WEBHOOKS_WRITE))]
SignedIn = Annotated[Principal, Depends(Guard())]
Person = Annotated[Principal, Depends(Guard(person=True))]
Public = Depends(count_anonymous)
"""For the `dependencies` of a route that needs no credentials."""
