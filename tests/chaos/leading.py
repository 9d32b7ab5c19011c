"""The ways on which Pricebook finds the primary of a cluster."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

from tests.patroni import Cluster
from tests.poolers import SHIPPED, HAProxy, PgBouncer

PASSWORD = "of-the-role"
_ROLE = f"pricebook:{PASSWORD}"


@dataclass(frozen=True)
class Way:
    """What Pricebook is told."""

    name: str
    url: str
    direct_url: str
    """Past PgBouncer: for migrations, and for the test itself."""
    settings: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def through_haproxy(cluster: Cluster) -> Iterator[Way]:
    """Ask an HAProxy, which asks Patroni."""
    with _haproxy(cluster, pooled=False) as url:
        yield Way("through HAProxy", url, url)


@contextmanager
def by_hosts(cluster: Cluster) -> Iterator[Way]:
    """Know every host, and ask each whether it is the primary."""
    hosts = ",".join(f"127.0.0.1:{member.port}" for member in cluster.members)
    url = f"postgresql://{_ROLE}@{hosts}/pricebook"
    yield Way("by a URL of three hosts", url, url)


@contextmanager
def through_pgbouncer(cluster: Cluster) -> Iterator[Way]:
    """Ask an HAProxy, which leads to the PgBouncer of the host that Patroni says leads."""
    users = cluster.run_sql(SHIPPED / "userlist.sql")
    with ExitStack() as undo:
        for member in cluster.members:
            bouncer = PgBouncer.beside(member, users)
            undo.callback(bouncer.end)
            bouncer.launch()
        direct = undo.enter_context(_haproxy(cluster, pooled=False))
        url = undo.enter_context(_haproxy(cluster, pooled=True))
        settings = {"DATABASE__POOLER": "transaction", "DATABASE_DIRECT_URL": direct}
        yield Way("through PgBouncer", url, direct, settings)


@contextmanager
def _haproxy(cluster: Cluster, *, pooled: bool) -> Iterator[str]:
    haproxy = HAProxy(cluster.folder, cluster.members, pooled=pooled)
    haproxy.launch()
    try:
        yield f"postgresql://{_ROLE}@127.0.0.1:{haproxy.port}/pricebook"
    finally:
        haproxy.end()


WAYS: dict[str, Callable[[Cluster], AbstractContextManager[Way]]] = {
    "haproxy": through_haproxy,
    "hosts": by_hosts,
    "pgbouncer": through_pgbouncer,
}
