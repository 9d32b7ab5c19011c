"""Where webhooks may not go: nothing leaves for an address that is not public."""

import asyncio
import socket
import sys
from ipaddress import ip_address, ip_network

import pytest
from aiohttp import web
from tests.webhooks.conftest import WEBHOOKS

from pricebook.core.settings import WebhookSettings
from pricebook.webhooks.guard import Guard
from pricebook.webhooks.sender import Sender

CLOSED = Guard(())


def words(text: str) -> list[str]:
    return text.split()


REFUSED = words("""
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.254 127.0.0.1 127.255.255.254
169.254.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.170 192.0.2.1 192.88.99.1
192.168.0.1 198.18.0.1 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1
64:ff9b::127.0.0.1 64:ff9b::10.1.2.3 64:ff9b::169.254.169.254 64:ff9b:1::1 64:ff9b:1::7f00:1
100::1 2001::1 2001:0:7f00:1:: 2001:db8::1 2001:10::1 2001:20::1 2002:7f00:1:: 2002:a00:1::1
2002:808:808::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fdff::1 fe80::1 fe80::1%1 fec0::1 ff02::1
""")

OPEN = words("""
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1
169.253.255.255 172.15.255.255 172.32.0.1 192.167.255.255 192.169.0.1 198.17.255.255 198.20.0.1
223.255.255.255 2606:4700::1111 2a00:1450:4001::1 2001:4860:4860::8888 ::ffff:8.8.8.8
64:ff9b::8.8.8.8
""")


@pytest.mark.parametrize("address", REFUSED)
def test_promise_15_what_is_not_public_is_refused(address):
    assert CLOSED.refuses(ip_address(address))


@pytest.mark.parametrize("address", OPEN)
def test_what_is_public_is_not(address):
    assert not CLOSED.refuses(ip_address(address))


def test_an_operator_opens_networks_of_their_own():
    guard = Guard([ip_network("10.1.0.0/16"), ip_network("fd00:1::/32"), ip_network("::1/128")])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5", "::1"):
        assert not guard.refuses(ip_address(address))
    for address in ("10.2.0.1", "127.0.0.1", "fd00:2::1", "fe80::1%1"):
        assert guard.refuses(ip_address(address))


LITERALS = words("""
127.0.0.1 127.1 0177.0.0.1 0x7f.0.0.1 0x7f000001 2130706433 017700000001 127.0.0.1. 0 [::1] [::]
[::ffff:127.0.0.1] [::ffff:7f00:1] [64:ff9b::7f00:1] [2002:7f00:1::] 169.254.169.254 0xa9fea9fe
2852039166 10.0.0.1 012.1 192.168.1.1 [fd00:ec2::254] [fe80::1] \uff11\uff12\uff17.0.0.1
127\u30020\u30020\u30021
""")


@pytest.mark.parametrize("host", LITERALS)
async def test_promise_15_no_webhook_is_made_for_an_address_that_is_refused(host, api, admin):
    reply = await api.as_(admin).post("/v1/webhooks", json={"url": f"http://{host}:8080/x"})
    assert reply.status_code == 422, reply.text
    assert [one["pointer"] for one in reply.json()["errors"]] == ["/url"]


class Wire:
    """Every connection that this process begins, while it is watched."""

    def __init__(self) -> None:
        self.places: list[object] | None = None

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.places is not None and event in {"socket.connect", "socket.sendto"}:
            self.places.append(arguments[1])


WIRE = Wire()


@pytest.fixture
def wire():
    # A hook can never be taken away again: there is one, and it is switched on and off.
    if not hasattr(sys, "_pricebook_wire"):
        sys.addaudithook(WIRE)
        sys._pricebook_wire = True
    WIRE.places = []
    yield WIRE
    WIRE.places = None


@pytest.fixture
async def post():
    """Send to a URL as the worker would, past all that is checked when a webhook is made."""
    senders = []

    async def send(url, allowed=()):
        sender = Sender(WEBHOOKS.model_copy(update={"allowed_networks": tuple(allowed)}))
        senders.append(sender)
        return await sender.post(url, {}, b"{}")

    yield send
    for sender in senders:
        await sender.close()


@pytest.fixture
def knocked():
    """A socket that listens on every address of the machine, and hears whoever knocks."""
    listening = socket.create_server(
        ("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=50
    )
    listening.setblocking(False)
    yield listening
    listening.close()


def is_untouched(listening: socket.socket) -> bool:
    try:
        listening.accept()[0].close()
    except BlockingIOError:
        return True
    return False


@pytest.mark.parametrize("host", [*LITERALS, "localhost", "localhost."])
async def test_promise_15_no_packet_leaves_for_an_address_that_is_refused(
    host, post, wire, knocked
):
    port = knocked.getsockname()[1]
    outcome = await post(f"http://{host}:{port}/")
    assert outcome.error in {"address not allowed", "name not found"}
    assert not outcome.is_delivered
    assert wire.places == []
    assert is_untouched(knocked)


async def test_the_wire_is_watched(post, wire, knocked):
    port = knocked.getsockname()[1]
    knocking = asyncio.create_task(post(f"http://127.0.0.1:{port}/", [ip_network("127.0.0.0/8")]))
    await asyncio.sleep(0.2)
    assert wire.places == [("127.0.0.1", port)]
    assert not is_untouched(knocked)
    knocking.cancel()


@pytest.fixture
async def opened():
    """A receiver at 127.0.0.2, which tests open; it answers as it is bid, and closes."""
    answers = {"/": (200, {})}

    async def answer(request):
        status, headers = answers[request.path]
        return web.Response(status=status, headers={"Connection": "close", **headers})

    application = web.Application()
    application.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.2", 0).start()
    yield runner.addresses[0][1], answers
    await runner.cleanup()


OPENED = (ip_network("127.0.0.2/32"),)


async def test_promise_15_a_redirect_leads_nowhere(post, wire, knocked, opened):
    port, answers = opened
    inside = f"http://127.0.0.1:{knocked.getsockname()[1]}/"
    answers["/away"] = (302, {"Location": inside})
    outcome = await post(f"http://127.0.0.2:{port}/away", OPENED)
    assert (outcome.status_code, outcome.error) == (302, "redirect refused")
    assert wire.places == [("127.0.0.2", port)]
    assert is_untouched(knocked)


async def test_promise_15_a_name_that_turns_to_a_private_address_is_refused(
    wire, opened, monkeypatch
):
    """What a name meant a moment ago counts for nothing; nor does a public address beside it."""
    port, _ = opened
    monkeypatch.setattr("pricebook.webhooks.sender._LOOKUP_SECONDS", 0)
    means = ["127.0.0.2"]
    lookups = []

    def look_up(host, port, *_options):
        lookups.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in means]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    sender = Sender(WebhookSettings(allowed_networks=OPENED))
    try:
        url = f"http://rebinding.example:{port}/"
        assert (await sender.post(url, {}, b"{}")).is_delivered
        means[:] = ["127.0.0.1", "169.254.169.254"]
        assert (await sender.post(url, {}, b"{}")).error == "address not allowed"
        means[:] = ["10.0.0.1", "127.0.0.2"]
        assert (await sender.post(url, {}, b"{}")).is_delivered
    finally:
        await sender.close()
    assert lookups == 3 * ["rebinding.example"]
    assert set(wire.places) == {("127.0.0.2", port)}


async def test_a_proxy_of_the_environment_is_not_asked(post, wire, opened, monkeypatch):
    port, _ = opened
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await post(f"http://127.0.0.2:{port}/", OPENED)).is_delivered
    assert wire.places == [("127.0.0.2", port)]
