"""What is made of whatever a receiver answers."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydantic import SecretStr
from tests.conftest import until
from tests.webhooks.conftest import DELIVERED, price_changed

from pricebook.core.sealing import Sealer


async def test_the_head_of_an_answer_is_kept_as_text(
    listener, make_endpoint, happen, run_worker, attempts
):
    await make_endpoint()
    body = b"\x00caf\xe9 " + 5_000 * b"x"
    listener.answer("/hook", 500, body=body, headers={"Content-Encoding": "gzip"})
    await happen()
    run_worker()
    await until(attempts)
    (attempt,) = await attempts()
    assert attempt.error == "answered 500"
    assert attempt.response_head == "caf\ufffd " + 1_018 * "x"


async def test_an_answer_that_never_ends_is_cut(
    listener, make_endpoint, happen, run_worker, attempts, statuses
):
    await make_endpoint("/drip")
    ended = asyncio.Event()

    async def drip(request):
        reply = web.StreamResponse()
        await reply.prepare(request)
        await reply.write(b"and so on")
        await ended.wait()
        return reply

    listener.answers["/drip"] = drip
    await happen()
    run_worker(timeout_seconds=0.5)
    await until(attempts)
    ended.set()
    (attempt,) = await attempts()
    # It was taken: what else the receiver has to say is no reason to tell it again.
    assert await statuses() == [DELIVERED]
    assert (attempt.status_code, attempt.response_head) == (200, "and so on")
    assert 400 <= attempt.duration_ms < 3_000


async def test_a_receiver_that_does_not_answer_in_time_has_failed(
    listener, make_endpoint, happen, run_worker, attempts
):
    await make_endpoint()
    release = listener.hang("/hook")
    await happen()
    run_worker(timeout_seconds=0.3)
    await until(attempts)
    release.set()
    (attempt,) = await attempts()
    assert (attempt.status_code, attempt.error) == (None, "timed out")


async def test_cookies_are_not_kept(listener, make_endpoint, happen, run_worker):
    await make_endpoint()
    listener.answer("/hook", 200, headers={"Set-Cookie": "a=b"})
    await happen(price_changed(), price_changed())
    run_worker(concurrency=1)
    await until(lambda: len(listener.told) == 2)
    assert all("Cookie" not in told.headers for told in listener.told)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://127.0.0.1:9/", "connection refused"),
        ("http://nowhere.invalid/", "name not found"),
        ("http://192.168.7.7/", "address not allowed"),
        ("https://{listener}/", "TLS failed: "),
        (f"http://{'a' * 64}.example/", "name not found"),
    ],
)
async def test_failures_are_told_in_a_few_words(
    listener, make_endpoint, happen, run_worker, attempts, url, error
):
    await make_endpoint(url=url.replace("{listener}", listener.url.removeprefix("http://")))
    await happen()
    run_worker()
    await until(attempts)
    (attempt,) = await attempts()
    assert attempt.error.startswith(error)
    assert attempt.status_code is None


@pytest.fixture
async def impostor(tmp_path):
    """A receiver that speaks TLS, under a certificate of its own making."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "certificate.pem"
    pem.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    heard = []

    async def hear(reader, writer):
        heard.append(await reader.read(1))
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/", heard


async def test_a_certificate_that_nobody_vouches_for_is_a_failure(
    impostor, make_endpoint, happen, run_worker, attempts
):
    url, heard = impostor
    await make_endpoint(url=url)
    await happen()
    run_worker()
    await until(attempts)
    (attempt,) = await attempts()
    assert attempt.error == "TLS failed: self-signed certificate"
    assert heard in ([], [b""])


async def test_no_valid_http_is_a_failure(make_endpoint, happen, run_worker, attempts):
    async def babble(_reader, writer):
        writer.write(b"HELLO\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await make_endpoint(url=f"http://127.0.0.1:{port}/")
        await happen()
        run_worker()
        await until(attempts)
    (attempt,) = await attempts()
    assert attempt.error == "no valid HTTP"


async def test_a_secret_that_no_key_opens_is_a_failure_with_a_name(
    listener, make_endpoint, happen, run_worker, attempts, webhook_settings
):
    await make_endpoint()
    await happen()
    other = SecretStr("quite another secret key, and long enough")
    run_worker(Sealer(webhook_settings.model_copy(update={"secret_key": other})))
    await until(attempts)
    assert {one.error for one in await attempts()} == {
        "not signed: no key of PRICEBOOK_SECRET_KEY opens it"
    }
    assert listener.told == []


async def test_without_a_key_to_sign_with_deliveries_wait(
    listener, make_endpoint, happen, run_worker, deliveries, webhook_settings
):
    await make_endpoint()
    await happen()
    run_worker(Sealer(webhook_settings.model_copy(update={"secret_key": None})))
    await until(deliveries)
    await asyncio.sleep(0.5)
    assert [(one.status, one.attempts) for one in await deliveries()] == [("pending", 0)]
    assert listener.told == []
