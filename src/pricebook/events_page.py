"""The README's page on events, written from the code: each kind, who reads it, an example."""

import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pricebook.core.outbox import Event
from pricebook.core.principal import Role
from pricebook.subscriptions import SUBSCRIPTIONS

BEGIN: Final = "<!-- events:begin -->"
END: Final = "<!-- events:end -->"

_READERS: Mapping[Role, str] = {
    Role.VIEWER: "everyone",
    Role.EDITOR: "editors, admins",
    Role.ADMIN: "admins",
}

# What a field holds in the examples, whatever the event.
_VALUES: Mapping[str, Any] = {
    "item_id": "019a9e5d-77aa-7c10-9b1e-2f3a4b5c6d7e",
    "user_id": "019a9e5c-10b3-7d44-8a21-6b7c8d9e0f1a",
    "api_key_id": "019a9e5e-4f02-7b95-b3c8-1a2b3c4d5e6f",
    "webhook_id": "019a9e5f-8c11-7e06-a4d9-7f8e9d0c1b2a",
    "delivery_id": "019a9e60-2b7d-7f17-85ea-0c1d2e3f4a5b",
    "owner_id": "019a9e5c-10b3-7d44-8a21-6b7c8d9e0f1a",
    "sku": "HAM-1",
    "tags": ["tools"],
    "name": "Hammer",
    "price": "12.5000",
    "old_price": "12.5000",
    "new_price": "13.0000",
    "currency": "EUR",
    "old_currency": "EUR",
    "changed": ["name"],
    "role": "editor",
    "scopes": ["items:read"],
    "reason": "gone",
    "job_id": "019a9e61-5a30-7c28-9f0b-3c4d5e6f7a8b",
    "kind": "import_items",
    "status": "succeeded",
}

_VALUES_OF: Mapping[str, Mapping[str, Any]] = {"webhook.updated": {"changed": ["url"]}}

_INTRODUCTION = """\
## Events

Every change is recorded as an event, in the transaction that makes it: there is no change without
its event, and no event without its change. There are three ways to hear of them.

**Webhooks**: Pricebook POSTs each event to your URL, signed as
[Standard Webhooks](https://www.standardwebhooks.com) has it, and tries again until you answer 2xx.
An admin makes one, and is shown its secret this once; `events` and `tags` choose among the events.

```sh
curl -s $URL/webhooks -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
     -d '{"url": "https://shop.example.com/hear", "events": ["item.price_changed"]}'
```

The body is `{"type": "item.price_changed", "timestamp": "2026-11-22T09:30:00.120331Z", "data": …}`.
An event may come twice, under the same `webhook-id`. Verify the body as it came, byte for byte:

```python
from standardwebhooks import Webhook  # pip install standardwebhooks

event = Webhook(secret).verify(body, headers)  # raises WebhookVerificationError
```

```js
import { Webhook } from "standardwebhooks";    // npm install standardwebhooks

const event = new Webhook(secret).verify(body, headers); // throws WebhookVerificationError
```

- Any 2xx within 15 s is success. A redirect is a failure. 410 disables the webhook at once; to fail
  for five days disables it and tells its owner.
- A failure is tried again after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h and 10 h, each up to a fifth
  more or less; `Retry-After` can put an attempt off to twice the wait. Then the delivery is dead:
  the owner is told once, and `POST /v1/webhooks/{id}/replay` with a `since` sends what was missed.
- `GET /v1/webhooks/{id}/deliveries` shows each attempt with its status, time and the head of the
  answer; `…/redeliver` sends the same bytes again; `…/test` sends a message of type `webhook.test`.
- `PATCH` with `{"paused": true}` holds deliveries back, `false` lets them go. After
  `…/rotate-secret` both secrets sign for a day.
- Events may come out of order: their ids grow with time. Only public addresses are reached, judged
  as the connection is made; `PRICEBOOK_WEBHOOKS__ALLOWED_NETWORKS` opens networks of your own.

**The live stream**: server-sent events, some milliseconds after the commit. `type`, `tag` and
`item` choose, and each may be repeated.

```sh
curl -N "$URL/events/stream?tag=tools" -H "Authorization: Bearer $TOKEN"
```

```
retry: 1574

id: 5f0c1a9e-762..761.01a204e2f27870e5b6fb1b79da31e296
event: item.price_changed
data: {"id":"01a204e2-…","type":"item.price_changed","occurred_at":"2026-11-22T…","data":{…}}
```

A stream ends after ten minutes or so, when its token is revoked, when the process stops, and when
its client does not read. Come back with the last `id` that you got, as browsers do by themselves,
and you miss nothing and hear nothing twice:

```sh
curl -N $URL/events/stream -H "Authorization: Bearer $TOKEN" \\
     -H 'Last-Event-ID: 5f0c1a9e-762..761.01a204e2f27870e5b6fb1b79da31e296'
```

A block without `data` has nothing to tell, but its `id` moves your place on. A client that cannot
send the header puts the id into `?last_event_id=`. `event: log.truncated` says that what you missed
is no longer kept (`PRICEBOOK_RETENTION__EVENTS_DAYS`), or that the database was restored: read the
list anew.

**The log**: `GET /v1/events`, in pages, the newest first or `sort=occurred_at`, with the same
filters and `since`. Nothing that commits while you page forwards is passed over.

Everyone who may read items reads of items; the rest is for admins, who also see whose doing it was
(`actor_id`). No event holds an internal field, a secret, or a person's name or address.
"""


def events_page() -> str:
    """Return the section, from marker to marker."""
    return "\n".join((BEGIN, _INTRODUCTION, *_table(), END)) + "\n"


def _table() -> Iterator[str]:
    yield "| event | who reads it | what it says | its `data` |"
    yield "| --- | --- | --- | --- |"
    for event in SUBSCRIPTIONS:
        sentence = inspect.cleandoc(event.__doc__ or "").replace("\n", " ")
        data = json.dumps(example(event))
        yield f"| `{event.type}` | {_READERS[event.audience]} | {sentence} | `{data}` |"


def example(event: type[Event]) -> dict[str, Any]:
    """Return a payload as an event of this kind may have it."""
    values = {**_VALUES, **_VALUES_OF.get(event.type, {})}
    return {name: values[name] for name in event.model_fields}
