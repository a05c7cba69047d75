"""Which addresses may be called: http(s) URLs of vendors, and no address of a cloud's metadata service."""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

_HOST = re.compile(r"[A-Za-z0-9._-]+")
_DOMAINS = ("metadata.google.internal", "metadata.goog")
_METADATA_NAMES = (*_DOMAINS, "metadata", "instance-data", "instance-data.ec2.internal")
_OTHERS = ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
_METADATA = frozenset(map(ip_address, _OTHERS))
"""The addresses of metadata services that are not link-local: Alibaba, Azure, Oracle, AWS and Google over IPv6."""
_NAT64 = IPv6Network("64:ff9b::/96")


def split_url(url: str) -> SplitResult:
    """The parts of a URL that may be called. Raises ValueError, whose text says what to do and never quotes the URL:
    user information in it is a secret."""
    if re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError("has blanks or control characters; write them as %20, or leave them out")
    if not url.isascii():
        raise ValueError("has characters that are not ASCII; write the host in punycode and the path with %")
    try:
        parts, port = urlsplit(url), urlsplit(url).port
    except ValueError:  # its text quotes parts of the URL
        raise ValueError("is no URL, or its port is not from 1 to 65535; write https://HOST/PATH") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("does not begin with https:// or http://; write https://HOST/PATH")
    if "@" in parts.netloc:
        raise ValueError("has user information (NAME:PASSWORD@); leave it out, the key comes from key_env")
    host = parts.hostname or ""
    if not host:
        raise ValueError("has no host; write https://HOST/PATH")
    if "[" not in parts.netloc and not _HOST.fullmatch(host):
        raise ValueError("has a host with characters that no host has; write https://HOST/PATH")
    if parts.netloc.endswith(":") or port == 0:
        raise ValueError("has no port behind the colon, or 0; write a number from 1 to 65535, or no colon")
    if why := forbidden_host(host):
        raise ValueError(why)
    return parts


def url_problem(url: str) -> str | None:
    """What is wrong with a vendor's URL, and what to do; None for one that may be called."""
    try:
        split_url(url)
    except ValueError as error:
        return str(error)
    return None


def without_user(url: str) -> str:
    """A URL as it may be shown: what stands before an @ of its host is a secret."""
    return re.sub(r"^([^/]*//)?.*@", r"\1…@", url)


def forbidden_host(host: str) -> str | None:
    """Why a host may not be called, whatever way its address is written (decimal, hex, octal, IPv6-mapped); None for
    another one. A name that only resolves to such an address is found when it is connected to."""
    name = host.rstrip(".").lower()
    if name.endswith(tuple(f".{domain}" for domain in _DOMAINS)) or name in _METADATA_NAMES:
        return "is a cloud's metadata service, which knows secrets; write the vendor's address"
    try:
        address: IPv4Address | IPv6Address = IPv4Address(socket.inet_aton(name))
    except OSError:
        try:
            address = ip_address(name.strip("[]"))
        except ValueError:
            return None
    return forbidden_address(address)


def forbidden_address(address: IPv4Address | IPv6Address) -> str | None:
    """Why an address may not be called; loopback and private ones may be, in-house receivers are there."""
    for candidate in (address, *_embedded(address)):
        if candidate in _METADATA or candidate.is_link_local:
            return "is a link-local or metadata address, which knows secrets; write the vendor's address"
        if (
            candidate.is_unspecified
            or candidate.is_multicast
            or (isinstance(candidate, IPv4Address) and (candidate.packed[0] in (0, 255) or candidate.is_reserved))
        ):
            return "is an address that nobody has (unspecified, multicast or reserved); write the vendor's address"
    return None


def _embedded(address: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses within an IPv6 address: mapped, compatible, 6to4, Teredo and NAT64."""
    if isinstance(address, IPv4Address):
        return []
    candidates = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or 1 < int(address) < 1 << 32:
        candidates.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [candidate for candidate in candidates if candidate is not None]
