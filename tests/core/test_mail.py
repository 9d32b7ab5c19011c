"""Mail on its way out: what a server may answer, what a header may hold, and where TLS begins."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from ipaddress import ip_address
from uuid import uuid4

import pytest
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydantic import SecretStr
from tests.sink import Sink, serving

from pricebook.core.mail import Letter, Mailer
from pricebook.core.settings import MailSettings


@pytest.fixture
async def sink():
    async with serving(Sink()) as served:
        yield served


def mailer(url, **options):
    options.setdefault("timeout_seconds", 2)
    return Mailer(MailSettings(url=SecretStr(url), **options))


def letter(**fields):
    values = {
        "id": uuid4(),
        "recipient": "ann@example.com",
        "subject": "Prices",
        "text": "A price has changed.\n",
        "html": "<p>A price has changed.</p>",
        **fields,
    }
    return Letter(**values)


async def test_a_letter_arrives_in_text_and_html(sink):
    sent = letter(subject="Preise für Öl → 5 €", text="Öl\n", html="<p>Öl</p>")
    outcome = await mailer(sink.url, sender="Price list <prices@shop.example.com>").send(sent)
    assert outcome.is_delivered
    (message,) = sink.accepted
    assert message["From"] == "Price list <prices@shop.example.com>"
    assert message["To"] == "ann@example.com"
    assert message["Subject"] == "Preise für Öl → 5 €"
    assert message["Message-ID"] == f"<{sent.id}@shop.example.com>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert "List-Unsubscribe" not in message
    assert message["Date"].datetime.tzinfo is not None
    assert message.get_body(("plain",)).get_content().split() == ["Öl"]
    assert message.get_body(("html",)).get_content().strip() == "<p>Öl</p>"
    (envelope,) = sink.envelopes
    assert envelope.mail_from == "prices@shop.example.com"
    assert envelope.rcpt_tos == ["ann@example.com"]


@pytest.mark.parametrize(
    ("reply", "is_final"),
    [
        ("421 closing", False),
        ("450 mailbox busy", False),
        ("451 try later", False),
        ("452 full", False),
        ("550 no such user", True),
        ("552 too large", True),
        ("554 refused", True),
    ],
)
@pytest.mark.parametrize("stage", ["replies", "recipient_replies"])
async def test_the_server_says_whether_to_try_again(sink, reply, is_final, stage):
    getattr(sink, stage).append(reply)
    outcome = await mailer(sink.url).send(letter())
    assert not outcome.is_delivered
    assert outcome.is_final is is_final
    assert outcome.error == reply


async def test_a_server_that_is_away_is_tried_again(sink):
    async with serving(Sink()) as gone:
        url = gone.url
    outcome = await mailer(url).send(letter())
    assert (outcome.is_delivered, outcome.is_final) == (False, False)
    assert "SMTPConnectError" in outcome.error


async def test_a_hang_is_cut_wherever_it_happens(sink):
    async def say_nothing(_reader, writer):
        await asyncio.sleep(3)
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    silent = f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    sink.replies.append(3.0)
    async with server, asyncio.timeout(2.5):
        for url in (silent, sink.url):
            outcome = await mailer(url, timeout_seconds=0.3).send(letter())
            assert (outcome.is_delivered, outcome.is_final) == (False, False)
            assert "0.3 s" in outcome.error or "Timeout" in outcome.error


async def test_slowness_is_counted_over_the_whole_mail():
    async def dawdle(reader, writer):
        writer.write(b"220 hello\r\n")
        while await reader.readline():
            await asyncio.sleep(0.2)
            writer.write(b"250 OK\r\n")
        writer.close()

    server = await asyncio.start_server(dawdle, "127.0.0.1", 0)
    url = f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        outcome = await mailer(url, timeout_seconds=0.5).send(letter())
    assert outcome.error == "no answer within 0.5 s"


async def test_a_server_that_takes_the_mail_and_then_hangs_has_taken_it():
    async def take(reader, writer):
        writer.write(b"220 hello\r\n")
        answers = iter([b"250 OK\r\n"] * 3 + [b"354 go on\r\n"])
        for answer in answers:
            await reader.readline()
            writer.write(answer)
        await reader.readuntil(b"\r\n.\r\n")
        writer.write(b"250 taken\r\n")
        await asyncio.sleep(3)
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    url = f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        assert (await mailer(url).send(letter())).is_delivered


HOSTILE = "Prices\r\nBcc: eve@example.com\n\n<script>\x00\u2028"


async def test_no_subject_adds_a_header(sink):
    await mailer(sink.url).send(letter(subject=HOSTILE))
    (message,) = sink.accepted
    assert "Bcc" not in message
    assert message["Subject"] == "Prices Bcc: eve@example.com <script>"
    assert message["To"] == "ann@example.com"


@pytest.mark.parametrize(
    "recipient",
    ["ann@example.com\r\nBcc: eve@example.com", "ann", "", "ann@", "@example.com", "a b@c.de"],
)
async def test_what_is_no_address_is_refused_for_good(sink, recipient):
    outcome = await mailer(sink.url).send(letter(recipient=recipient))
    assert outcome.is_final
    assert sink.attempts == []


async def test_a_long_link_stays_whole(sink):
    url = "https://prices.example.com/v1/notifications/unsubscribe?token=" + 150 * "a"
    await mailer(sink.url).send(letter(unsubscribe_url=url))
    raw = sink.envelopes[0].content.decode()
    assert f"\r\nList-Unsubscribe: <{url}>\r\n" in raw
    assert "\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in raw


async def test_an_address_of_another_script_is_taken_where_the_server_can():
    async with serving(Sink(), enable_SMTPUTF8=True) as able, serving(Sink()) as unable:
        for sink in (able, unable):
            assert (await mailer(sink.url).send(letter(recipient="ann@bücher.de"))).is_delivered
            assert sink.envelopes[0].rcpt_tos == ["ann@xn--bcher-kva.de"]
        umlaut = letter(recipient="jürg@example.com")
        assert (await mailer(able.url).send(umlaut)).is_delivered
        assert able.envelopes[1].rcpt_tos == ["jürg@example.com"]
        assert "\r\nTo: jürg@example.com\r\n" in able.envelopes[1].content.decode()
        outcome = await mailer(unable.url).send(umlaut)
        assert outcome.is_final
        assert "SMTPUTF8" in outcome.error


async def test_credentials_are_percent_decoded():
    seen = []

    def check(_server, _session, _envelope, _mechanism, given: LoginPassword):
        seen.append((given.login, given.password))
        return AuthResult(success=given.password == b"p@ss/w:rd", handled=False)

    options = {"authenticator": check, "auth_required": True, "auth_require_tls": False}
    async with serving(Sink(), **options) as sink:
        host = sink.url.removeprefix("smtp://")
        assert (
            await mailer(f"smtp://ann%40shop:p%40ss%2Fw%3Ard@{host}").send(letter())
        ).is_delivered
        assert seen == [(b"ann@shop", b"p@ss/w:rd")]
        # The operator can mend that: no mail is lost over it.
        for way in (f"smtp://ann%40shop:wrong@{host}", f"smtp://{host}"):
            outcome = await mailer(way).send(letter())
            assert (outcome.is_delivered, outcome.is_final) == (False, False)
            assert outcome.error.startswith(("535", "530"))
            assert "wrong" not in outcome.error


@pytest.fixture(scope="session")
def certified(tmp_path_factory):
    """A certificate for localhost, its own authority; returns the server's context and the file."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    today = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "certificate.pem"
    pem.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_pem = folder / "key.pem"
    key_pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key_pem)
    return context, pem


@pytest.mark.parametrize(
    ("starttls", "is_encrypted"), [("auto", True), ("always", True), ("never", False)]
)
async def test_starttls_is_used_as_set(certified, monkeypatch, starttls, is_encrypted):
    context, pem = certified
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    async with serving(Sink(), tls_context=context) as sink:
        assert (await mailer(sink.url, starttls=starttls).send(letter())).is_delivered
        assert (sink.sessions[0].ssl is not None) is is_encrypted


async def test_without_the_tls_that_is_demanded_nothing_is_sent(sink):
    outcome = await mailer(sink.url, starttls="always").send(letter())
    assert (outcome.is_delivered, outcome.is_final) == (False, False)
    assert sink.attempts == []


async def test_a_certificate_that_nobody_vouches_for_is_not_believed(certified):
    context, _pem = certified
    async with serving(Sink(), tls_context=context) as sink:
        outcome = await mailer(sink.url, starttls="always").send(letter())
    assert (outcome.is_delivered, outcome.is_final) == (False, False)
    assert "certificate" in outcome.error.lower()


async def test_smtps_is_encrypted_from_the_start(certified, monkeypatch):
    context, pem = certified
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    async with serving(Sink(), ssl=context) as sink:
        url = sink.url.replace("smtp:", "smtps:")
        assert (await mailer(url).send(letter())).is_delivered


async def test_mail_can_be_written_to_a_folder(tmp_path):
    folder = tmp_path / "not there yet" / "mail"
    sent = [letter(subject=f"Number {n} →") for n in range(3)]
    for one in sent:
        assert (await mailer(folder.as_uri()).send(one)).is_delivered
    files = sorted(folder.iterdir())
    assert [file.suffix for file in files] == [".eml"] * 3
    found = [message_from_bytes(file.read_bytes(), policy=policy.default) for file in files]
    assert [message["Subject"] for message in found] == [one.subject for one in sent]
    assert files[0].stat().st_mode & 0o077 == 0


async def test_a_folder_that_cannot_be_written_is_tried_again(tmp_path):
    (tmp_path / "mail").write_text("a file")
    outcome = await mailer((tmp_path / "mail").as_uri()).send(letter())
    assert (outcome.is_delivered, outcome.is_final) == (False, False)


async def test_without_a_url_nothing_is_sent():
    unset = Mailer(MailSettings())
    assert not unset.is_ready
    assert not (await unset.send(letter())).is_delivered


async def test_a_mail_server_is_asked_how_it_is_without_a_letter(sink, tmp_path):
    assert await mailer(sink.url).complaint() is None
    assert await mailer(tmp_path.as_uri()).complaint() is None
    assert await Mailer(MailSettings()).complaint() is None
    assert "STARTTLS" in await mailer(sink.url, starttls="always").complaint()
    async with serving(Sink()) as gone:
        url = gone.url
    assert "SMTPConnectError" in await mailer(url).complaint()
    assert sink.attempts == []
