"""Which addresses this server may be sent to.

A user says where to post, so this server must not be talked into calling what only it can reach: itself, its neighbours, a
cloud's metadata. A host's name is resolved here, every address of it is checked, and the connection is made to one of those
very addresses, so that a name that means something else a moment later changes nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

import httpx2

from pruners.errors import InvalidInput, SecateurError

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a host and a port to its addresses, none if there is no such host; raises ``OSError`` where that cannot be told now."""

RESOLVE_SECONDS = 5.0  # name servers answer in milliseconds, or after a repetition of some seconds

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last 32 bits
_UNKNOWN = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


class AddressRefused(SecateurError):
    """A host that this server does not call. The text names no address: names of a network's inside are not to be found out."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """What the system's resolver says; it also reads addresses in all their notations."""
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _UNKNOWN:
            return []
        raise
    except UnicodeError:  # no name: an empty part, or one that is too long
        return []
    return [str(place[0]) for *_, place in found]


async def permitted(host: str, port: int, allowed: Sequence[Network], resolver: Resolve = resolve) -> list[str]:
    """The addresses of a host, in the order in which they are to be tried.

    Args:
        host: a name or an address.
        port: to connect to.
        allowed: networks of the operator's that may be called though they are not public.
        resolver: replaces the system's in tests.

    Raises:
        AddressRefused: one of its addresses is not public, or it has none.
        OSError: that cannot be told at the moment.
    """
    found = list(dict.fromkeys(await resolver(host, port)))
    if not found or not all(is_permitted(address, allowed) for address in found):
        raise AddressRefused(
            f"{host} has no public address; use one that has, or ask the operator to allow its network "
            "(SECATEUR_WEBHOOK_NETWORKS)."
        )
    return found


def port_of(url: httpx2.URL) -> int:
    """Which port a URL of http or https means."""
    return url.port or {"http": 80, "https": 443}[url.scheme]


async def check_webhook(url: str, enabled: bool, allowed: Sequence[Network]) -> None:
    """Raises ``InvalidInput`` where it can be told beforehand that nothing will ever be delivered."""
    if not enabled:
        raise InvalidInput("webhook", None, "is something that this server does not do; leave it out, or ask its operator")
    parsed = httpx2.URL(url)
    try:
        await permitted(parsed.raw_host.decode(), port_of(parsed), allowed)
    except AddressRefused as error:
        raise InvalidInput("webhook.url", url, f"cannot be called: {str(error).rstrip('.')}") from error
    except OSError:  # deliveries are tried again, and so is this
        return


def is_permitted(text: str, allowed: Sequence[Network]) -> bool:
    """Whether an address is a public one or in a network that is allowed."""
    try:
        address = _inner(ip_address(text))
    except ValueError:  # what is no address is nowhere
        return False
    if any(address in network for network in allowed if network.version == address.version):
        return True
    if address.is_multicast or not address.is_global:
        return False
    return isinstance(address, IPv4Address) or not (address.is_site_local or address.is_reserved)


def _inner(address: Address) -> Address:
    """The IPv4 address that is reached through an IPv6 one, if this is such: the latter alone looks public."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1]) or address
