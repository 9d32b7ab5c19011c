"""Who may have written: what tells it cannot change while the credential lives."""

from uuid import uuid4

import pytest

from pricebook.core.principal import Principal, Role, Scope


def principal(role, *scopes):
    names = frozenset(map(Scope, scopes)) if scopes else None
    return Principal(user_id=uuid4(), role=role, credential_id=uuid4(), scopes=names)


@pytest.mark.parametrize("role", Role)
def test_every_session_but_a_viewers_may_have_written(role):
    assert principal(role).may_write is (role is not Role.VIEWER)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("scope", Scope)
def test_a_key_may_have_written_by_its_scopes_whatever_its_owner_is_now(scope, role):
    assert principal(role, "items:read", scope).may_write is scope.endswith(":write")
