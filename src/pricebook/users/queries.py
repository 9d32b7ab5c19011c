"""Selects over users."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select, bindparam, func, literal, or_, select, tuple_

from pricebook.core.csv_lines import CsvForm, line_of
from pricebook.core.principal import Role
from pricebook.core.reading import columns_of
from pricebook.core.schemas import Output
from pricebook.users.models import User
from pricebook.users.schemas import UserFilters, UserListing, UserOut


def user_with(shown: type[Output]) -> Select[*tuple[Any, ...]]:
    """Select what `shown` shows of the user `:user_id`."""
    return select(*columns_of(shown, User)).where(User.id == bindparam("user_id"))


def by_email(email: str) -> Select[User]:
    """Select the user who logs in with `email`."""
    return select(User).where(func.lower(User.email) == func.lower(email))


def acting_by_email(email: str) -> Select[UUID]:
    """Select the id of the user with this address, unless shut out."""
    return by_email(email).with_only_columns(User.id).where(User.disabled_at.is_(None))


def for_change(user_id: UUID) -> Select[User]:
    """Select one user, locked against other changes; sessions may still be opened."""
    return select(User).where(User.id == user_id).with_for_update(key_share=True)


def with_acting_admins(user_id: UUID) -> Select[User]:
    """Select one user and everyone who can manage users, all locked in one order.

    Of two admins who demote each other, the second sees what the first has done.
    """
    is_acting_admin = (User.role == Role.ADMIN) & User.disabled_at.is_(None)
    chosen = select(User).where(or_(User.id == user_id, is_acting_admin))
    return chosen.order_by(User.id).with_for_update(key_share=True)


def password_of() -> Select[str, str]:
    """Select the hash of the user `:user_id`, and the address that the password may not be."""
    return select(User.hashed_password, User.email).where(User.id == bindparam("user_id"))


def matching(users: UserFilters) -> Select[UUID]:
    """Select the ids of the users asked for."""
    found = select(User.id)
    if users.q is None:
        return found
    return found.where(
        or_(
            User.name.icontains(users.q, autoescape=True),
            User.email.icontains(users.q, autoescape=True),
        )
    )


def page_of(users: UserListing, after: tuple[Any, UUID] | None) -> Select[*tuple[Any, ...]]:
    """Select one page of users, and one more to tell whether another page follows."""
    column = getattr(User, users.sort.removeprefix("-"))
    falls = users.sort.startswith("-")
    page = matching(users).with_only_columns(*columns_of(UserOut, User))
    if after is not None:
        place = tuple_(column, User.id)
        last = tuple_(literal(after[0], column.type), literal(after[1], User.id.type))
        page = page.where(place < last if falls else place > last)
    order = (column.desc(), User.id.desc()) if falls else (column, User.id)
    return page.order_by(*order).limit(users.limit + 1)


def to_export(
    users: UserFilters, columns: Sequence[str], form: CsvForm | None
) -> Select[*tuple[Any, ...]]:
    """Select each user asked for as a line, of CSV in this form or else of JSON."""
    line = line_of(columns_of(UserOut, User, columns), form)
    return matching(users).with_only_columns(line, maintain_column_froms=True).order_by(User.id)


def count_of(users: UserFilters) -> Select[int]:
    """Count the users asked for."""
    return select(func.count()).select_from(matching(users).subquery())
