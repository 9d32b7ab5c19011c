"""The OpenAPI document: complete, stable, and changed only on purpose."""

import json
from pathlib import Path

import pytest
from tests.contract.operations import DOCUMENT, OPERATIONS

SNAPSHOT = Path(__file__).parent / "openapi.json"
RENEW = "the API changed; if that is meant, run: make openapi > tests/contract/openapi.json"


def test_the_document_changes_only_on_purpose():
    assert json.loads(SNAPSHOT.read_text(encoding="utf-8")) == DOCUMENT, RENEW


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_every_operation_explains_itself(operation):
    spec = operation.spec
    assert spec["summary"]
    assert spec["description"].endswith(".")
    assert spec["tags"]
    for parameter in spec.get("parameters", ()):
        assert parameter.get("schema"), parameter


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_every_refusal_is_a_problem(operation):
    shared = DOCUMENT["components"]["responses"]
    for status, declared in operation.spec["responses"].items():
        response = shared[declared["$ref"].rpartition("/")[2]] if "$ref" in declared else declared
        if int(status) >= 400 and operation.path.startswith("/v1"):
            assert list(response["content"]) == ["application/problem+json"]
            assert response["description"]


def test_operation_ids_are_the_names_of_functions():
    assert all(name.isidentifier() and name == name.lower() for name in OPERATIONS)
    paths = DOCUMENT["paths"].values()
    assert len(OPERATIONS) == sum(len(item) for item in paths), "two operations share an id"


def test_every_tag_is_described():
    described = {tag["name"] for tag in DOCUMENT["tags"] if tag["description"]}
    assert {tag for one in OPERATIONS.values() for tag in one.spec["tags"]} == described


def test_nothing_in_the_document_names_what_is_kept_inside():
    text = json.dumps(DOCUMENT)
    for name in ("hashed_password", "token_digest", "credentials_epoch", "HTTPValidationError"):
        assert name not in text


def test_public_models_leave_internal_fields_out():
    schemas = DOCUMENT["components"]["schemas"]
    assert set(schemas["ItemPublic"]["properties"]).isdisjoint({"cost", "notes", "tax_rate"})
    assert set(schemas["UserPublic"]["properties"]) == {"id", "name"}
