"""The real nginx with the configuration that is shipped; only names, addresses and files differ."""

import os
import re
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.conftest import ROOT
from tests.tools import free_port, listens, needed

NAME = "prices.example.com"
SHIPPED = ROOT / "deploy" / "nginx" / "pricebook.conf"

_NAMES = [x509.DNSName(NAME), x509.IPAddress(ip_address("127.0.0.1"))]

_MAIN = """\
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log notice;
worker_processes 1;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/proxied;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/pricebook.conf;
}}
"""


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for the name that stands in the configuration, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(_NAMES), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "prices.pem", folder / "prices.key"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


class Nginx:
    """nginx in a folder of its own, before API processes on these ports."""

    def __init__(self, folder: Path, upstreams: Sequence[int]) -> None:
        self.folder, self.port, self.plain_port = folder, free_port(), free_port()
        self.url = f"https://{NAME}:{self.port}"
        pem, key = certificate(folder)
        self.certificate = pem
        (folder / "pricebook.conf").write_text(self._adapted(upstreams, pem, key))
        # Workers that are somebody else could not enter the folder.
        user = "user root;" if os.geteuid() == 0 else ""
        self.main = folder / "nginx.conf"
        self.main.write_text(_MAIN.format(folder=folder, user=user))

    def _adapted(self, upstreams: Sequence[int], pem: Path, key: Path) -> str:
        text = SHIPPED.read_text()
        servers = "".join(
            f"    server 127.0.0.1:{port} max_fails=1 fail_timeout=1s;\n" for port in upstreams
        )
        text = re.sub(r"(    server 127\.0\.0\.1:\d+ .*;\n)+", servers, text)
        text = re.sub(r"    listen \[::\].*\n", "", text)
        text = text.replace("listen 80;", f"listen 127.0.0.1:{self.plain_port};")
        text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl")
        text = re.sub(r"(ssl_certificate +)\S+;", rf"\g<1>{pem};", text)
        return re.sub(r"(ssl_certificate_key +)\S+;", rf"\g<1>{key};", text)

    def check(self) -> subprocess.CompletedProcess[str]:
        """Have nginx itself read the configuration."""
        command = [needed("nginx"), "-t", "-p", str(self.folder), "-c", str(self.main)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def trusting(self) -> ssl.SSLContext:
        """What a client needs that is to believe the certificate."""
        return ssl.create_default_context(cafile=self.certificate)

    def client(self, **headers: str) -> httpx2.AsyncClient:
        """Make a client that asks for the name, wherever nginx listens."""
        return httpx2.AsyncClient(
            base_url=f"https://127.0.0.1:{self.port}",
            headers={"Host": NAME, **headers},
            verify=self.trusting(),
            timeout=30,
        )

    @contextmanager
    def running(self) -> Iterator["Nginx"]:
        command = [needed("nginx"), "-p", str(self.folder), "-c", str(self.main)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            self._wait_until_it_listens(process)
            yield self
        finally:
            process.terminate()
            process.wait()

    def _wait_until_it_listens(self, process: subprocess.Popen[bytes]) -> None:
        ends_at = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < ends_at:
            if listens(self.port):
                return
            time.sleep(0.02)
        message = (self.folder / "error.log").read_text()
        raise AssertionError(message)
