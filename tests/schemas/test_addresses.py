"""Which URLs of vendors may be called, in every spelling."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.addresses import forbidden_address, forbidden_host, split_url, url_problem, without_user


@pytest.mark.parametrize(
    "url",
    ["https://rest.iad-01.braze.com", "http://127.0.0.1:8490/w/kroger", "http://localhost/", "http://[::1]:80/x", "http://10.0.0.1",
     "http://192.168.1.1/hook?a=b", "http://receiver", "http://0x7f.1/", "http://[fd12:3456::1]/", "http://xn--hst-sna.example/"],
)  # fmt: skip
def test_vendors_and_in_house_receivers_may_be_called(url: str) -> None:
    assert url_problem(url) is None
    assert split_url(url).hostname


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://host/", "does not begin with https://"),
        ("host/path", "does not begin with https://"),
        ("", "does not begin with https://"),
        ("https://", "has no host"),
        ("https:///path", "has no host"),
        ("https://u:geheim@host/", "has user information"),
        ("https://@host/", "has user information"),
        ("https://u:geheim/x@host", "is no URL, or its port"),
        ("https://host:99999/", "is no URL, or its port"),
        ("https://host:port/", "is no URL, or its port"),
        ("https://host:/", "has no port behind the colon"),
        ("https://host:0/", "has no port behind the colon"),
        ("https://[zz]/", "is no URL"),
        ("https://[::1/", "is no URL"),
        ("https://ho st/", "has blanks"),
        ("https://host/a b", "has blanks"),
        ("https://host/\r\nX: y", "has blanks"),
        ("https://host/\x00", "has blanks"),
        (" https://host/", "has blanks"),
        ("https://höst/", "has characters that are not ASCII"),
        ("https://h\\host/", "has a host with characters"),
        ("https://ho%73t/", "has a host with characters"),
    ],
)
def test_a_url_that_cannot_be_called_is_reported_with_what_to_do_and_without_its_secrets(url: str, says: str) -> None:
    expected = url_problem(url)
    assert expected is not None
    assert expected.startswith(says)
    assert "write" in expected or "leave" in expected
    assert "geheim" not in expected
    assert "geheim" not in without_user(url)


METADATA = IPv4Address("169.254.169.254")
SPELLINGS = [
    "169.254.169.254", "169.254.169.254.", "2852039166", "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE", "0251.0376.0251.0376",
    "025177524776", "169.254.43518", "169.16689662", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[::a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "[2001:0:a9fe:a9fe:0:0:0:0]", "169.254.0.1", "[fe80::1]", "[FE80::1%25eth0]",
    "[febf::1]", "metadata.google.internal", "METADATA.Google.Internal.", "a.metadata.google.internal", "metadata",
    "metadata.goog", "100.100.100.200", "168.63.129.16", "192.0.0.192", "[fd00:ec2::254]", "0.0.0.0", "0", "0x0", "0.1.2.3",
    "[::]", "[::ffff:0.0.0.0]", "224.0.0.1", "255.255.255.255", "4294967295", "[ff02::1]", "240.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("host", SPELLINGS)
def test_metadata_and_link_local_addresses_are_refused_in_every_spelling(host: str) -> None:
    expected = url_problem(f"http://{host}:8080/latest/meta-data")
    assert expected is not None
    assert "is a" in expected


@given(st.integers(0, (1 << 32) - 1))
def test_an_ipv4_address_is_judged_the_same_however_it_is_written(number: int) -> None:
    address = IPv4Address(number)
    whole = forbidden_host(str(address))
    a, b, c, d = address.packed
    spellings = [
        str(number), hex(number), f"0{number:o}", f"{a}.{number & 0xFFFFFF}", f"{a}.{b}.{number & 0xFFFF}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"0x{a:x}.{b}.0{c:o}.{d}", f"::ffff:{address}", f"64:ff9b::{address}",
    ]  # fmt: skip
    assert {forbidden_host(one) for one in spellings} == {whole}
    link_local = (a, b) == (169, 254)
    assert (whole is not None and "link-local" in whole) >= link_local
    if a in (10, 127, 192) and str(address) != "192.0.0.192":
        assert whole is None


@given(st.integers(0, (1 << 128) - 1))
def test_any_ipv6_address_is_judged(number: int) -> None:
    address = IPv6Address(number)
    assert (forbidden_address(address) is None) == (forbidden_host(f"[{address}]") is None)
