"""Without a collector nothing is made, carried or imported."""

import subprocess
import sys

import pytest
from tests.conftest import until
from tests.contract.conftest import environment

from pricebook.core import tracing
from pricebook.core.settings import TracingSettings

PROGRAM = """
import asyncio, sys
from pricebook import worker
from pricebook.api_process import make_server
from pricebook.core.settings import load_settings
from pricebook.main import create_app

async def be():
    app = create_app(load_settings())
    async with app.router.lifespan_context(app):
        make_server(app, load_settings())

asyncio.run(be())
for one in sorted(sys.modules):
    if one.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf")):
        print(one)
"""


def test_the_sdk_is_not_imported(settings):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment(settings),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""


async def test_no_row_and_no_request_carries_a_trace(
    api, editor, make_item, make_endpoint, listener, work, recorded
):
    await make_endpoint(events=["item.price_changed"])
    item = await make_item()
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    reply = await api.as_(editor).patch(
        f"/v1/items/{item.id}", json={"price": "1"}, headers=headers
    )
    assert reply.status_code == 200
    assert not tracing.is_on()
    await work()
    await until(lambda: listener.told)
    assert "traceparent" not in listener.told[0].headers
    assert {event.traceparent for event in await recorded()} == {None}


@pytest.mark.parametrize("url", ["otel:4318", "grpc://canary@otel"])
def test_what_is_no_url_of_a_collector_is_refused(url):
    with pytest.raises(ValueError, match="must begin with http") as refusal:
        TracingSettings(url=url)
    assert "canary" not in str(refusal.value.errors(include_input=False))
