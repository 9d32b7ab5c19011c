"""HTTP for users."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query, Request, Response, status

from pricebook.core.attempts import Gate
from pricebook.core.current import (
    Admin,
    AdminReader,
    Person,
    Public,
    RoleInsufficient,
    ScopeInsufficient,
    SignedIn,
)
from pricebook.core.pagination import Page, link_next
from pricebook.core.principal import Scope
from pricebook.core.reading import Row
from pricebook.core.routing import resource
from pricebook.core.security import Hasher
from pricebook.core.session import DbSession, Reads
from pricebook.users import service
from pricebook.users.models import User
from pricebook.users.schemas import (
    MePatch,
    PasswordChange,
    UserIn,
    UserListing,
    UserOut,
    UserPatch,
    UserPublic,
)

router = resource("/users", "users")


async def refuse_strangers(user_id: UUID, reader: SignedIn) -> None:
    """Let people read themselves, and admins everybody."""
    if reader.user_id == user_id:
        return
    if not reader.is_admin:
        raise RoleInsufficient
    if not reader.allows(Scope.USERS_READ):
        raise ScopeInsufficient


@router.get("/me", response_model=UserOut)
async def read_me(me: SignedIn, reads: Reads) -> Row:
    """Return the user whose credentials these are."""
    return await service.get_user(reads, me.user_id)


@router.patch("/me", response_model=UserOut)
async def update_me(me: Person, patch: MePatch, session: DbSession) -> User:
    """Change the given fields of yourself; an admin changes e-mail address and role."""
    return await service.update_me(session, me, patch)


@router.put("/me/password", status_code=status.HTTP_204_NO_CONTENT)
async def change_password(
    me: Person, change: PasswordChange, session: DbSession, gate: Gate
) -> None:
    """Set a new password. All your other sessions end; API keys stay as they are."""
    await service.change_password(session, gate, me, change)


@router.get("", response_model=Page[UserOut])
async def list_users(
    _admin: AdminReader,
    users: Annotated[UserListing, Query()],
    reads: Reads,
    request: Request,
    response: Response,
) -> Page[Row]:
    """List the users."""
    page = await service.list_users(reads, users)
    link_next(request, response, page.next_cursor)
    if users.count:
        response.headers["X-Total-Count"] = str(await service.count_users(reads, users))
    return page


@router.post("", response_model=UserOut, status_code=status.HTTP_201_CREATED)
async def create_user(
    _admin: Admin,
    new: UserIn,
    session: DbSession,
    hasher: Hasher,
    request: Request,
    response: Response,
) -> User:
    """Make a user."""
    user = await service.create_user(session, hasher, new)
    response.headers["Location"] = f"{request.url.path}/{user.id}"
    return user


@router.get("/{user_id:uuid}", response_model=UserOut, dependencies=[Depends(refuse_strangers)])
async def read_user(user_id: UUID, reads: Reads) -> Row:
    """Return a user; everyone may ask for themselves, admins for everybody."""
    return await service.get_user(reads, user_id)


@router.patch("/{user_id:uuid}", response_model=UserOut)
async def update_user(_admin: Admin, user_id: UUID, patch: UserPatch, session: DbSession) -> User:
    """Change the given fields of a user; a new role and disabling end the user's sessions."""
    return await service.update_user(session, user_id, patch)


@router.delete("/{user_id:uuid}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_user(_admin: Admin, user_id: UUID, session: DbSession) -> None:
    """Delete a user, with all their sessions and API keys."""
    await service.delete_user(session, user_id)


@router.get("/{user_id:uuid}/public", response_model=UserPublic, dependencies=[Public])
async def read_public_user(user_id: UUID, reads: Reads) -> Row:
    """Return what anyone may know of a user: id and name."""
    return await service.get_public_user(reads, user_id)
