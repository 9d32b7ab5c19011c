"""The API as the command line speaks to it: where it is, who asks, and refusals in one line."""

import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from getpass import getpass
from http import HTTPStatus
from typing import Any

import aiohttp
import typer
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from yarl import URL

from pricebook.core.mendable import MendableError
from pricebook.core.settings import Settings

Params = Mapping[str, str] | Sequence[tuple[str, str]]

# No limit on the whole, since a list may be long; one on silence.
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
_BUFFER_BYTES = 1024 * 1024


class ApiAwayError(MendableError):
    """Nothing answers, or the connection broke off."""


class ApiRefusedError(MendableError):
    """The API refused; the message is its own, with the id of the request."""

    def __init__(self, status: int, message: str) -> None:
        """Say what the API said."""
        super().__init__(message)
        self.status = status


class _Environment(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="PRICEBOOK_", env_ignore_empty=True, frozen=True, hide_input_in_errors=True
    )

    url: str | None = None
    api_key: SecretStr | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API is, and who asks: by a key, or by address and password."""

    url: URL
    secret: SecretStr
    email: str | None = None


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event of a stream."""

    type: str
    data: str


def find_access(settings: Settings, url: str | None = None) -> Access:
    """Find the API and the caller's key; without a key, ask for address and password.

    Call it outside a running loop, so that Ctrl-C ends the asking.

    Raises:
        MendableError: There is no key and nobody to ask, or the URL is none.

    """
    environment = _Environment()
    found = _base_url(url or environment.url or _url_of_running(settings) or settings.public_url)
    if environment.api_key is not None:
        return Access(found, environment.api_key)
    if not sys.stdin.isatty():
        message = (
            "no credentials: set PRICEBOOK_API_KEY to an API key (POST /v1/api-keys makes one), "
            "or run this at a terminal to log in"
        )
        raise MendableError(message)
    # Standard output may be where the list goes: not a word of this may stand there.
    typer.echo(f"Log in to {found}\nE-mail: ", err=True, nl=False)
    email = input()
    return Access(found, SecretStr(getpass("Password: ")), email)


def _url_of_running(settings: Settings) -> str | None:
    """Return the URL of the `pricebook up` that runs in the data folder."""
    try:
        running = json.loads((settings.data_dir / "run.json").read_text())
    except OSError:
        return None
    return str(running["api"]["url"])


def _base_url(text: str) -> URL:
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host or url.user or url.query_string:
        message = "the URL of the API must look like https://prices.example.com"
        raise MendableError(message)
    return URL(str(url).rstrip("/").removesuffix("/v1"))


def query_of(asked: Mapping[str, str | list[str] | None]) -> list[tuple[str, str]]:
    """Return the parameters that were given, each value of a list by itself."""
    return [
        (name, value)
        for name, values in asked.items()
        for value in ([values] if isinstance(values, str) else values or ())
    ]


@asynccontextmanager
async def open_client(access: Access) -> AsyncIterator["Client"]:
    """Open a client; whoever gave a password is logged in, and out again at the end."""
    async with aiohttp.ClientSession(
        timeout=_TIMEOUT,
        read_bufsize=_BUFFER_BYTES,
        auto_decompress=False,
        headers={"Accept-Encoding": "identity", "User-Agent": "pricebook"},
    ) as session:
        client = Client(session, access.url)
        if access.email is None:
            client.use(access.secret.get_secret_value())
            yield client
            return
        form = {"username": access.email, "password": access.secret.get_secret_value()}
        client.use((await client.post("/auth/token", data=form))["access_token"])
        try:
            yield client
        finally:
            with suppress(MendableError):
                await client.delete("/auth/token")


class Client:
    """Sends requests to paths under `/v1`. Every failure is a `MendableError`."""

    def __init__(self, session: aiohttp.ClientSession, url: URL) -> None:
        """Speak to the API at `url`."""
        self.url = url
        self._session = session

    def use(self, token: str) -> None:
        """Ask with this credential from now on."""
        if not token.isascii() or not token.isprintable():
            message = "PRICEBOOK_API_KEY holds characters that no key has"
            raise MendableError(message)
        self._session.headers["Authorization"] = f"Bearer {token}"

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        **options: Any,  # noqa: ANN401 -- what aiohttp takes
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request, and give the answer while it comes in.

        Raises:
            ApiAwayError: Nothing answers, or the answer broke off while it was read.
            ApiRefusedError: The answer is no success.

        """
        # A redirect is not followed: it could carry credentials and prices to another place.
        options.setdefault("allow_redirects", False)
        try:
            async with self._session.request(method, self._to(path), **options) as reply:
                if reply.status >= HTTPStatus.MULTIPLE_CHOICES:
                    raise await _refusal(reply)
                yield reply
        except aiohttp.ClientConnectorError as error:
            raise ApiAwayError(self._nobody(error)) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            message = f"the connection to {self.url} broke off: {str(error) or 'it fell silent'}"
            raise ApiAwayError(message) from error

    async def get(self, path: str, params: Params | None = None) -> Any:  # noqa: ANN401 -- JSON
        """Return the JSON of an answer."""
        async with self.request("GET", path, params=params) as reply:
            return await reply.json()

    async def post(self, path: str, **options: Any) -> Any:  # noqa: ANN401 -- JSON, aiohttp's own
        """Return the JSON of an answer; None where it has none."""
        async with self.request("POST", path, **options) as reply:
            return await reply.json() if await reply.read() else None

    async def delete(self, path: str) -> None:
        """Delete what is there."""
        async with self.request("DELETE", path):
            pass

    async def events(self, path: str, params: Params | None = None) -> AsyncIterator[ServerEvent]:
        """Read a stream of server-sent events until it ends (WHATWG HTML, section 9.2.6)."""
        kind, data = "message", []
        async with self.request("GET", path, params=params) as reply:
            async for raw in reply.content:
                name, _, value = raw.decode().rstrip("\r\n").partition(":")
                if name == "event":
                    kind = value.removeprefix(" ")
                elif name == "data":
                    data.append(value.removeprefix(" "))
                elif not name and not value and data:
                    yield ServerEvent(kind, "\n".join(data))
                    kind, data = "message", []

    def _to(self, path: str) -> URL:
        return URL(f"{self.url}/v1{path}")

    def _nobody(self, error: aiohttp.ClientConnectorError) -> str:
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return f"there is no host {self.url.host}: correct --url or PRICEBOOK_URL"
        if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
            return f"{self.url} cannot prove that it is {self.url.host}: {error}"
        return (
            f"nothing answers at {self.url}: start `pricebook up` or `pricebook serve`, "
            "or correct --url or PRICEBOOK_URL"
        )


async def _refusal(reply: aiohttp.ClientResponse) -> ApiRefusedError:
    """Put a problem (RFC 9457) into one line."""
    try:
        problem = json.loads(await reply.read())
        found = [f"{one['pointer']}: {one['detail']}" for one in problem.get("errors") or ()]
        message = f"{'; '.join(found) or problem['detail']} (request {problem['request_id']})"
    except (ValueError, KeyError, TypeError, AttributeError):
        message = f"{reply.url} answered {reply.status} {reply.reason}: is that a Pricebook?"
    return ApiRefusedError(reply.status, " ".join(message.split()))
