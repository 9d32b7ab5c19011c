"""What stands before PostgreSQL, by the files that are shipped; only addresses and paths differ."""

import re
from collections.abc import Sequence
from pathlib import Path

from tests import patroni
from tests.conftest import ROOT
from tests.patroni import Member, Program
from tests.tools import needed

from pricebook.core.embedded.server import _free_port as free_port

SHIPPED = ROOT / "deploy" / "pgbouncer"


class PgBouncer(Program):
    """A PgBouncer before one PostgreSQL."""

    def __init__(self, name: str, folder: Path, port: int, server: str, users: str) -> None:
        """Listen on `port`, before `server` (as a line of `[databases]` has it), for `users`."""
        self.port = port
        userlist = folder / f"{name}.userlist"
        userlist.write_text(users)
        text = (SHIPPED / "pgbouncer.ini").read_text()
        text = re.sub(r"(?m)^pricebook = .*$", f"pricebook = {server}", text)
        text = re.sub(r"(?m)^listen_addr = .*$", "listen_addr = 127.0.0.1", text)
        text = re.sub(r"(?m)^listen_port = .*$", f"listen_port = {port}", text)
        text = re.sub(r"(?m)^auth_file = .*$", f"auth_file = {userlist}", text)
        configuration = folder / f"{name}.ini"
        configuration.write_text(text)
        super().__init__(name, folder, needed("pgbouncer"), configuration)

    @classmethod
    def beside(cls, member: Member, users: str) -> "PgBouncer":
        """Make the one of a database host."""
        server = f"host={member.sockets} port={member.port}"
        return cls(f"pgbouncer-{member.name}", member.folder, member.pooler_port, server, users)


class HAProxy(Program):
    """The HAProxy before the members."""

    def __init__(self, folder: Path, members: Sequence[Member], *, pooled: bool) -> None:
        """Lead to PostgreSQL, or to the PgBouncer beside it."""
        self.port, replicas = free_port(), free_port()
        text = (patroni.SHIPPED / "haproxy.cfg").read_text()
        text = text.replace("bind 127.0.0.1:5432", f"bind 127.0.0.1:{self.port}")
        text = text.replace("bind 127.0.0.1:5433", f"bind 127.0.0.1:{replicas}")
        for member in members:
            port = member.pooler_port if pooled else member.port
            text = re.sub(
                rf"server {member.name} \S+",
                f"server {member.name} 127.0.0.1:{port} port {member.rest_port}",
                text,
            )
        name = "haproxy-pooled" if pooled else "haproxy"
        configuration = folder / f"{name}.cfg"
        configuration.write_text(text)
        super().__init__(name, folder, needed("haproxy"), "-db", "-f", configuration)
