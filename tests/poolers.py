"""What stands before PostgreSQL, by the files that are shipped; only addresses and paths differ."""

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tests import patroni
from tests.conftest import ROOT
from tests.patroni import Member, Program
from tests.tools import free_port, listens, needed

SHIPPED = ROOT / "deploy" / "pgbouncer"


class PgBouncer(Program):
    """A PgBouncer before one PostgreSQL."""

    url = ""
    """How to reach the database through it, if it stands `before` one."""

    def __init__(
        self, name: str, folder: Path, port: int, server: str, users: str, size: int | None = None
    ) -> None:
        """Listen on `port`, before `server` (as a line of `[databases]` has it), for `users`.

        It lends `size` connections, or as many as the sample says.
        """
        self.port = port
        userlist = folder / f"{name}.userlist"
        userlist.write_text(users)
        text = (SHIPPED / "pgbouncer.ini").read_text()
        text = re.sub(r"(?m)^pricebook = .*$", f"pricebook = {server}", text)
        text = re.sub(r"(?m)^listen_addr = .*$", "listen_addr = 127.0.0.1", text)
        text = re.sub(r"(?m)^listen_port = .*$", f"listen_port = {port}", text)
        text = re.sub(r"(?m)^auth_file = .*$", f"auth_file = {userlist}", text)
        if size is not None:
            text = re.sub(r"(?m)^default_pool_size = .*$", f"default_pool_size = {size}", text)
        configuration = folder / f"{name}.ini"
        configuration.write_text(text)
        super().__init__(name, folder, needed("pgbouncer"), configuration)

    @classmethod
    def before(cls, url: str, folder: Path, size: int | None = None) -> "PgBouncer":
        """Make one before the database of `url`."""
        parts = urlsplit(url)
        server = f"host={parts.hostname} port={parts.port} dbname={parts.path[1:]}"
        users = f'"{parts.username}" "{parts.password}"\n'
        made = cls("pgbouncer", folder, free_port(), server, users, size)
        user = f"{parts.username}:{parts.password}"
        made.url = f"postgresql://{user}@127.0.0.1:{made.port}/pricebook"
        patroni.give_away(folder)
        return made

    def start(self) -> None:
        """Launch it, and wait until it listens."""
        self.launch()
        patroni.until(lambda: listens(self.port), 10, f"it does not start: {self.log}")

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
