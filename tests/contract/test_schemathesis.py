"""Requests that Schemathesis makes from the document, each role's, and chains of them."""

from dataclasses import dataclass

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from tests.conftest import ROOT
from tests.contract.conftest import Served
from tests.contract.operations import DOCUMENT

CONFIG = schemathesis.Config.from_path(ROOT / "schemathesis.toml")
schema = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)
schemathesis.serializer.alias(["application/gzip", "application/zstd"], "application/octet-stream")


def bounded(examples: int, *phases: Phase) -> settings:
    """Bound what is tried. Schemathesis' systematic cases, some 1,500, are Phase.explicit."""
    return settings(
        max_examples=examples,
        stateful_step_count=15,
        phases=[Phase.generate, *phases],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


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
@bounded(5, Phase.explicit)
def test_an_admin_gets_no_answer_but_the_documented_ones(case, served: Served, admin_calling):
    admin_calling.point_at_what_is_there(case)
    case.call_and_validate(base_url=served.url, headers=admin_calling.headers)


def test_no_chain_of_requests_gets_another_answer(served: Served, caller):
    class Chain(schema.as_state_machine()):
        def get_call_kwargs(self, case):
            return {"base_url": served.url, "headers": caller.headers}

    Chain.run(settings=bounded(8))


@schema.parametrize()
@bounded(3)
def test_no_role_gets_another_answer(case, served: Served, caller):
    caller.point_at_what_is_there(case)
    case.call_and_validate(base_url=served.url, headers=caller.headers)
