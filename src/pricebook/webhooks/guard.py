"""Where webhooks may go: to public addresses, and to the operator's own networks that are opened.

The address is judged as a connection to it is about to be made, after every name is resolved, so
that nothing can change in between. What a URL looks like decides nothing.
"""

import errno
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, TypeAlias

from pricebook.core.setting_types import Network

Address: TypeAlias = IPv4Address | IPv6Address

# The special-purpose registry of IPv4 (RFC 6890, as IANA keeps it), and multicast.
_CLOSED_IPV4 = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# All of IPv6 that is public lies here (RFC 4291, section 2.4) …
_OPEN_IPV6 = ip_network("2000::/3")
# … but for protocols' own addresses, Teredo among them, examples, and 6to4.
_CLOSED_IPV6 = tuple(
    ip_network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
# An IPv4 address stands in the last 32 bits (RFC 6052, section 2.1).
_NAT64 = ip_network("64:ff9b::/96")
_LAST_32_BITS = 0xFFFF_FFFF


class AddressRefusedError(OSError):
    """The address is not public, and not in a network that is opened."""

    def __init__(self) -> None:
        """Name no address: it is not the receiver's owner who reads this first."""
        super().__init__(errno.EACCES, "address not allowed")


class Guard:
    """Judges addresses, and makes sockets for those that may be reached."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        """Open the networks of `allowed`, whatever they are."""
        self._allowed = allowed

    def refuses(self, address: Address) -> bool:
        """Whether nothing may be sent there."""
        if isinstance(address, IPv6Address):
            if address.scope_id is not None:
                return True
            inner = _ipv4_in(address)
            address = address if inner is None else inner
        return not (self._is_allowed(address) or _is_public(address))

    def _is_allowed(self, address: Address) -> bool:
        return any(address in network for network in self._allowed)

    def refuses_host(self, host: str) -> bool:
        """Whether the host of a URL is an address, in any form, that is refused; a name is not."""
        address = _address_of(host)
        return address is not None and self.refuses(address)

    def socket(self, info: tuple[Any, ...]) -> socket.socket:
        """Make the socket for one answer of `getaddrinfo`.

        Raises:
            AddressRefusedError: Before anything is sent.

        """
        family, kind, protocol, _name, place = info
        zone = place[3] if family == socket.AF_INET6 else 0
        if zone or self.refuses(ip_address(place[0])):
            raise AddressRefusedError
        return socket.socket(family, kind, protocol)


def _ipv4_in(address: IPv6Address) -> IPv4Address | None:
    """Return the address that packets would end at in the IPv4 world."""
    if address in _NAT64:
        return IPv4Address(int(address) & _LAST_32_BITS)
    return address.ipv4_mapped


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_IPV4)
    return address in _OPEN_IPV6 and not any(address in network for network in _CLOSED_IPV6)


def _address_of(host: str) -> Address | None:
    """Read an address as the system's resolver would: 127.1, 0x7f000001 and 017700000001 too."""
    bare = host.strip("[]").rstrip(".")
    try:
        return ip_address(bare)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(bare))
    except (OSError, UnicodeError):
        return None
