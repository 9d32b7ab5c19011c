"""Every operation of the OpenAPI document, with one valid request for each."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from tests.conftest import PASSWORD

from pricebook.core.settings import Settings
from pricebook.main import create_app

DOCUMENT: dict[str, Any] = create_app(Settings(database_url=None, redis_url=None)).openapi()


@dataclass(frozen=True)
class Operation:
    id: str
    method: str
    path: str
    spec: dict[str, Any] = field(repr=False)

    @property
    def is_write(self) -> bool:
        return self.method != "GET"


OPERATIONS: dict[str, Operation] = {
    spec["operationId"]: Operation(spec["operationId"], method.upper(), path, spec)
    for path, item in DOCUMENT["paths"].items()
    for method, spec in item.items()
}


@dataclass(frozen=True)
class Things:
    """What the requests speak of; but for the tokens of mails, all of it belongs to one user."""

    user_id: UUID
    item_id: UUID
    sku: str
    session_id: UUID
    api_key_id: UUID
    email: str
    # Of somebody else, who has just got both mails.
    reset_token: str
    proof_token: str
    webhook_id: UUID
    delivery_id: UUID
    notification_id: UUID
    tag: str
    unsubscribe_token: str
    # One that waits, and one that has failed.
    job_id: UUID
    failed_job_id: UUID
    # An import that has refused rows, and an export whose file is there.
    import_id: UUID
    export_id: UUID

    @property
    def path_values(self) -> dict[str, str]:
        return {name: str(value) for name, value in vars(self).items()}


Body = Callable[[Things], dict[str, Any]]


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid4().hex[:12]}"


def whole_item(_things: Things) -> dict[str, Any]:
    return {
        "sku": unique("NEW"),
        "name": "Claw hammer",
        "description": "With a handle of ash",
        "price": "12.5000",
        "currency": "EUR",
        "tax_rate": "10.500",
        "tags": ["tools"],
        "cost": "7.2500",
        "notes": "From the second supplier",
    }


def item_by_sku(things: Things) -> dict[str, Any]:
    return {**whole_item(things), "sku": things.sku}


def whole_webhook(_things: Things) -> dict[str, Any]:
    return {
        "url": "https://shop.example.com/prices",
        "description": "The shop",
        "events": ["item.price_changed"],
        "tags": ["tools"],
    }


def batch(things: Things) -> dict[str, Any]:
    item_id = str(things.item_id)
    return {
        "operations": [
            {"op": "create", "item": whole_item(things)},
            {"op": "update", "id": item_id, "changes": {"name": "Mallet"}, "version": 1},
            {"op": "update", "id": item_id, "changes": whole_item(things), "version": 2},
            {"op": "delete", "id": item_id, "version": 3},
        ]
    }


BODIES: dict[str, Body] = {
    "create_item": whole_item,
    "replace_item": whole_item,
    "update_item": whole_item,
    "put_item_by_sku": item_by_sku,
    "change_many_items": batch,
    "create_export": lambda _: {
        "resource": "items",
        "format": "csv",
        "fields": "id,price",
        "filters": {"q": "hammer", "tag": ["tools"], "currency": "EUR"},
        "delimiter": "semicolon",
        "bom": True,
        "guard": True,
        "compression": "zstd",
        "notify": True,
    },
    "create_api_key": lambda _: {
        "name": "The till in the shop",
        "scopes": ["items:read"],
        "expires_at": "2099-01-01T00:00:00Z",
    },
    "create_user": lambda _: {
        "email": f"{unique('new')}@shop.example.com",
        "name": "Ann",
        "password": "a hammer and forty nails",
        "role": "viewer",
    },
    "update_user": lambda _: {
        "email": f"{unique('moved')}@shop.example.com",
        "name": "Ann",
        "role": "viewer",
        "disabled": False,
    },
    "update_me": lambda _: {"name": "Ann"},
    "change_password": lambda _: {
        "current_password": PASSWORD,
        "new_password": "a hammer and forty nails",
    },
    "request_password_reset": lambda things: {"email": things.email},
    "reset_password": lambda things: {
        "token": things.reset_token,
        "new_password": "a hammer and forty nails",
    },
    "verify_email": lambda things: {"token": things.proof_token},
    "create_webhook": whole_webhook,
    "update_webhook": lambda things: {**whole_webhook(things), "paused": True},
    "replay_webhook": lambda _: {"since": "2020-01-31T09:00:00Z", "only_undelivered": True},
    "mark_notification": lambda _: {"read": True},
    "update_preferences": lambda _: {
        "digest": "daily",
        "kinds": {
            "price_changed": {"inbox": True, "email": False},
            "job_finished": {"inbox": True, "email": False},
            "webhook_trouble": {"inbox": False, "email": True},
            "security": {"inbox": True, "email": True},
        },
    },
}

FORMS: dict[str, Body] = {
    "log_in": lambda things: {"username": things.email, "password": PASSWORD},
}

FILES: dict[str, bytes] = {
    "import_items": b"sku,name,price,currency\r\nH-1,Hammer,12.50,EUR\r\n",
}

QUERIES: dict[str, dict[str, str]] = {
    "suggest_items": {"q": "ham"},
    "ask_to_unsubscribe": {"token": "{unsubscribe_token}"},
    "unsubscribe": {"token": "{unsubscribe_token}"},
}


def valid_request(operation: Operation, things: Things) -> dict[str, Any]:
    """Return the arguments of `Api.request` that this operation answers with a 2xx."""
    values = things.path_values
    if operation.id == "retry_job":
        values["job_id"] = values["failed_job_id"]
    if operation.id == "read_import_errors":
        values["job_id"] = values["import_id"]
    if operation.path.startswith("/v1/exports/"):
        values["job_id"] = values["export_id"]
    query = QUERIES.get(operation.id, {})
    request: dict[str, Any] = {
        "method": operation.method,
        "url": operation.path.format_map(values),
        "params": {name: value.format_map(values) for name, value in query.items()},
    }
    if body := BODIES.get(operation.id):
        request["json"] = body(things)
    if form := FORMS.get(operation.id):
        request["data"] = form(things)
    if file := FILES.get(operation.id):
        request |= {"content": file, "headers": {"Content-Type": "text/csv"}}
    return request
