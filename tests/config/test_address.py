import ipaddress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chansup.config.address import Systemd, Tcp, Unix, parse


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:8000", Tcp("0.0.0.0", 8000)),
        (":8000", Tcp("0.0.0.0", 8000)),
        ("8000", Tcp("127.0.0.1", 8000)),
        ("[::]:8000", Tcp("::", 8000)),
        ("[fe80::1%eth0]:1", Tcp("fe80::1%eth0", 1)),
        ("localhost:0", Tcp("localhost", 0)),
        ("web-1.example.org:65535", Tcp("web-1.example.org", 65535)),
        ("unix:run/web.sock", Unix("run/web.sock")),
        ("unix:/run/web.sock", Unix("/run/web.sock")),
        ("unix:///run/web.sock", Unix("/run/web.sock")),
        ("systemd", Systemd()),
        ("systemd:web", Systemd("web")),
    ],
)
def test_what_each_form_means(text, address):
    assert parse(text) == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no port"),
        ("localhost", "has no port"),
        ("::1:8000", 'needs brackets, as in "[::1]:8000"'),
        ("[::1]", "has no port"),
        ("[x]:1", "is not an IPv6 address"),
        ("*:80", 'write "0.0.0.0"'),
        ("256.1.1.1:80", "is not an IPv4 address"),
        ("1.2.3:80", "is not an IPv4 address"),
        ("a b:80", "is not a host"),
        ("h:65536", "is not a port"),
        ("h:-1", "is not a port"),
        ("h:٣", "is not a port"),
        ("http://x:80", "is a URL"),
        ("/run/x.sock", 'write "unix:/run/x.sock"'),
        ("run/x.sock", 'write "unix:run/x.sock"'),
        ("unix:", "needs the path of a file"),
        ("unix:run/", "needs the path of a file"),
        ("unix:~/x", '"~" is not expanded'),
        ("systemd:", "is not a name of a systemd socket"),
        ("systemd:a:b", "is not a name of a systemd socket"),
    ],
)
def test_what_is_no_address(text, words):
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert words in str(caught.value)


def test_unix_paths_hang_on_the_config_file():
    def within_site(text: str) -> Path:
        address = parse(text)
        assert isinstance(address, Unix)
        return address.within(Path("/etc/site"))

    assert within_site("unix:run/x") == Path("/etc/site/run/x")
    assert within_site("unix:/run/x") == Path("/run/x")


def test_loopback():
    def is_loopback(text: str) -> bool:
        address = parse(text)
        assert isinstance(address, Tcp)
        return address.is_loopback

    assert all(is_loopback(text) for text in ("1", "127.9.9.9:1", "[::1]:1", "localhost:1"))
    assert not any(is_loopback(text) for text in (":1", "[::]:1", "10.0.0.1:1", "host:1"))


_hosts = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.from_regex(r"[a-z][a-z0-9]{0,9}(\.[a-z][a-z0-9]{0,9}){0,3}", fullmatch=True),
)
_addresses = st.one_of(
    st.builds(Tcp, _hosts, st.integers(0, 65535)),
    st.builds(Unix, st.from_regex(r"/?[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", fullmatch=True)),
    st.builds(Systemd, st.none() | st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True)),
)


@settings(deadline=None)
@given(_addresses)
def test_text_and_address_are_the_same(address):
    assert parse(str(address)) == address


def _clear(error):
    assert str(error)


@settings(deadline=None)
@given(st.text())
def test_anything_is_an_address_or_a_clear_error(text):
    try:
        address = parse(text)
    except ValueError as error:
        _clear(error)
    else:
        assert parse(str(address)) == address
        if isinstance(address, Tcp) and ":" in address.host:
            ipaddress.IPv6Address(address.host)
