"""Who may do what: roles, scopes, and the caller they belong to."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Role(StrEnum):
    """What a person may do; each role may do all that the one before it may."""

    VIEWER = "viewer"
    EDITOR = "editor"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        """Whether this role may do what `other` may."""
        return _RANK[self] >= _RANK[other]


_RANK = {role: rank for rank, role in enumerate(Role)}


class Scope(StrEnum):
    """What an API key may be used for; its owner's role bounds it further."""

    ITEMS_READ = "items:read"
    ITEMS_WRITE = "items:write"
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"


_WRITING = frozenset({Scope.ITEMS_WRITE, Scope.USERS_WRITE, Scope.WEBHOOKS_WRITE})


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose credential has been checked."""

    user_id: UUID
    role: Role
    credential_id: UUID
    # None: a session, which may do all that its person may.
    scopes: frozenset[Scope] | None = None

    @property
    def is_staff(self) -> bool:
        """Whether the caller may see internal fields, such as an item's cost."""
        return self.role.includes(Role.EDITOR)

    @property
    def is_admin(self) -> bool:
        """Whether the caller may manage users."""
        return self.role is Role.ADMIN

    @property
    def is_person(self) -> bool:
        """Whether a person logged in, rather than a system with an API key."""
        return self.scopes is None

    @property
    def may_write(self) -> bool:
        """Whether the credential may ever have changed anything that others read.

        Only what cannot change is asked: a session ends with its role, a key keeps its scopes.
        """
        if self.scopes is None:
            return self.role is not Role.VIEWER
        return not self.scopes.isdisjoint(_WRITING)

    def allows(self, scope: Scope | None) -> bool:
        """Whether the credential may be used for `scope`."""
        return self.scopes is None or scope is None or scope in self.scopes
