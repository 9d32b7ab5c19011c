"""The API document is kept beside its tests, so that a change of the contract shows in a diff."""

import json
from pathlib import Path

import pytest
from fastapi import FastAPI
from tests.conftest import Api

KEPT = Path(__file__).with_name("openapi.json")


async def test_the_document_is_the_kept_one(api: Api) -> None:
    served = (await api.get("/openapi.json")).json()
    assert served == json.loads(KEPT.read_text()), (
        "The contract has changed. If that is meant, keep the new document: "
        "make openapi > tests/contract/openapi.json"
    )


def test_every_operation_says_what_it_is_for(app: FastAPI) -> None:
    operations = [
        (f"{method} {path}", operation)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]
    names = [operation["operationId"] for _, operation in operations]
    assert len(set(names)) == len(names)
    mute = [name for name, operation in operations if not operation.get("description")]
    assert mute == []


@pytest.mark.parametrize("secret", ["hashed_password", "token_digest", "credentials_epoch"])
def test_no_stored_secret_is_in_the_document(app: FastAPI, secret: str) -> None:
    assert secret not in json.dumps(app.openapi())
