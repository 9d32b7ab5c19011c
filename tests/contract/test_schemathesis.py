"""Requests that Schemathesis makes from the document, each role's, and chains of them."""

from dataclasses import dataclass

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.schemas import BaseSchema as OpenApiSchema
from tests.conftest import ROOT
from tests.contract.conftest import Served
from tests.contract.operations import DOCUMENT


def load(*, coverage: bool) -> OpenApiSchema:
    config = schemathesis.Config.from_path(ROOT / "schemathesis.toml")
    config.projects.get_default().phases.coverage.enabled = coverage
    return schemathesis.openapi.from_dict(DOCUMENT, config=config)


def bounded(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=15,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


schema, few = load(coverage=True), load(coverage=False)


@dataclass(frozen=True)
class Caller:
    headers: dict[str, str]
    ids: dict[str, str]

    def point_at_what_is_there(self, case: schemathesis.Case) -> None:
        """Valid requests would otherwise all end at a 404."""
        if case.meta.generation.mode.is_positive:
            case.path_parameters = {name: self.ids[name] for name in case.path_parameters or {}}


@pytest.fixture
def caller_of(api, make_user, make_things):
    async def make(role: str) -> Caller:
        user = await make_user("viewer" if role == "anonymous" else role)
        things = await make_things(user)
        bearer = {"Authorization": f"Bearer {api.tokens[user.id]}"}
        return Caller({} if role == "anonymous" else bearer, things.path_values)

    return make


@pytest.fixture
async def admin_calling(caller_of) -> Caller:
    return await caller_of("admin")


@pytest.fixture(params=["anonymous", "viewer", "editor", "admin"])
async def caller(request, caller_of) -> Caller:
    return await caller_of(request.param)


@schema.parametrize()
@bounded(examples=5)
def test_an_admin_gets_no_answer_but_the_documented_ones(case, served: Served, admin_calling):
    admin_calling.point_at_what_is_there(case)
    case.call_and_validate(base_url=served.url, headers=admin_calling.headers)


def test_no_chain_of_requests_gets_another_answer(served: Served, caller):
    class Chain(few.as_state_machine()):
        def get_call_kwargs(self, case):
            return {"base_url": served.url, "headers": caller.headers}

    Chain.run(settings=bounded(examples=8))


@few.parametrize()
@bounded(examples=3)
def test_no_role_gets_another_answer(case, served: Served, caller):
    caller.point_at_what_is_there(case)
    case.call_and_validate(base_url=served.url, headers=caller.headers)
