import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chansup.config import routes
from chansup.config.routes import Route, Table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http", Route("http")),
        ("websocket", Route("websocket")),
        ("http:/*", Route("http")),
        ("http:/api/*", Route("http", None, "/api/", True)),
        ("http:/api*", Route("http", None, "/api", True)),
        ("websocket:/ws/chat/", Route("websocket", None, "/ws/chat/", False)),
        ("http:/", Route("http", None, "/", False)),
        ("http:/é x", Route("http", None, "/é x", False)),
        ("http:example.org/*", Route("http", "example.org")),
        ("http:Example.ORG./a", Route("http", "example.org", "/a")),
        ("http:*.example.org/api/*", Route("http", "*.example.org", "/api/", True)),
        ("http:127.0.0.1/*", Route("http", "127.0.0.1")),
        ("http:[::1]/*", Route("http", "[::1]")),
        ("http:[0:0::0001]/a", Route("http", "[::1]", "/a")),
    ],
)
def test_parse(text, expected):
    assert routes.parse(text) == expected
    assert routes.parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("", 'expected "http" or "websocket"'),
        ("tcp", 'expected "http" or "websocket"'),
        ("HTTP", 'did you mean "http"?'),
        ("ws:/chat/*", 'did you mean "websocket:/chat/*"?'),
        ("https:/a", 'did you mean "http:/a"?'),
        ("/api/*", 'write "http:/api/*"'),
        ("http://example.org/*", 'write "http:example.org/*"'),
        ("http:", 'for every path write "http"'),
        ("http:*", 'for every path write "http"'),
        ("http:api", 'write "http:api/*" if that is a host, else "http:/api"'),
        ("http:/a*b", "only stand at the end"),
        ("http:/a**", "only stand at the end"),
        ("http:*/a", "leave it out"),
        ("http:example.org:80/*", "leave it out, all ports count"),
        ("http:[::1]:80/*", "without a port"),
        ("http:[::g]/*", "not an IPv6 address"),
        ("http:a.*.org/*", 'or "*.example.org"'),
        ("http:a..org/*", "is not a host"),
        ("http:-a.org/*", "is not a host"),
        ("http:münchen.de/*", 'in the DNS: "xn--mnchen-3ya.de"'),
        ("http:/a?b=c", "has a query"),
        ("http:/a#b", "has a fragment"),
        ("http:/%C3%A9", "decoded"),
        ("http:/a\n", "cannot be seen"),
    ],
)
def test_what_is_no_route(text, remedy):
    with pytest.raises(ValueError, match=re.escape(remedy)):
        routes.parse(text)


@given(st.text(max_size=30) | st.builds("{}:{}".format, st.just("http"), st.text(max_size=30)))
def test_any_text_is_a_route_or_a_reason(text):
    try:
        route = routes.parse(text)
    except ValueError as error:
        reason = str(error)
    else:
        assert routes.parse(str(route)) == route
        return
    assert reason
    assert reason.isprintable()


def table(*texts):
    return Table((routes.parse(text), text) for text in texts)


def test_the_most_specific_route_counts():
    wanted = [
        "http:example.org/a",
        "http:example.org/a*",
        "http:example.org/*",
        "http:*.example.org/a",
        "http:*.org/a/b*",
        "http:/a/b",
        "http:/a/b*",
        "http:/a*",
        "http",
        "websocket",
    ]
    found = table(*reversed(wanted))
    assert found.match("http", b"example.org", "/a") == "http:example.org/a"
    assert found.match("http", b"example.org", "/a/b") == "http:example.org/a*"
    assert found.match("http", b"example.org", "/b") == "http:example.org/*"
    assert found.match("http", b"www.example.org", "/a") == "http:*.example.org/a"
    assert found.match("http", b"www.example.org", "/a/b") == "http:*.org/a/b*"
    assert found.match("http", b"example.com", "/a/b") == "http:/a/b"
    assert found.match("http", b"example.com", "/a/bc") == "http:/a/b*"
    assert found.match("http", b"www.example.org", "/ab") == "http:/a*"
    assert found.match("http", None, "/") == "http"
    assert found.match("websocket", b"example.org", "/a") == "websocket"
    by_specificity = sorted(map(routes.parse, wanted[:9]), key=lambda route: route.specificity)
    assert [str(route) for route in reversed(by_specificity)] == wanted[:9]


def test_no_route():
    found = table("http:/api/*", "http:example.org/*")
    assert found.match("http", b"example.com", "/api") is None
    assert found.match("http", None, "/") is None
    assert found.match("websocket", b"example.org", "/api/") is None
    assert found.match("lifespan", b"example.org", "/api/") is None
    assert table().match("http", b"example.org", "/") is None


@pytest.mark.parametrize(
    "host",
    [b"example.org", "example.org", b"EXAMPLE.org:8000", b"example.org.", b"example.org.:80"],
)
def test_host_headers(host):
    assert table("http:example.org/*").match("http", host, "/") is not None


@pytest.mark.parametrize("host", [b"[::1]", b"[::1]:8000", b"[0:0:0:0:0:0:0:1]:8000"])
def test_host_headers_with_ipv6(host):
    assert table("http:[::1]/*").match("http", host, "/") is not None


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"org",
        b"xexample.org",
        b"example.org.com",
        b"[::1",
        b"[]",
        b":80",
        b"\xff",
        b"." * 9000,
    ],
)
def test_other_hosts(host):
    assert table("http:example.org/*", "http:*.example.org/*").match("http", host, "/") is None


def test_a_name_under_a_host_is_not_the_host():
    found = table("http:*.example.org/*")
    assert found.match("http", b"a.b.example.org", "/") is not None
    assert found.match("http", b"example.org", "/") is None
    assert found.match("http", b".example.org", "/") is None


def test_of_equal_routes_the_first_counts():
    for text in ("http", "http:/a", "http:/*", "http:/a*"):
        route = routes.parse(text)
        assert Table([(route, 1), (route, 2)]).match("http", None, "/a") == 1


names = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(".".join)
hosts = st.none() | names | names.map("*.{}".format)
paths = st.text("a/", max_size=4).map("/{}".format)
kinds = st.sampled_from(["http", "websocket"])


@st.composite
def any_route(draw):
    path, is_prefix = draw(st.tuples(st.none() | paths, st.booleans()))
    is_prefix = is_prefix and path is not None and path != "/"
    return Route(draw(kinds), draw(hosts), path, is_prefix)


def fits(route, kind, host, path):
    """Say what the words of the plan say, one after the other."""
    if route.type != kind:
        return False
    if route.host is not None and route.host.startswith("*."):
        if not (host or "").endswith(route.host[1:]) or len(host) < len(route.host):
            return False
    elif route.host is not None and route.host != host:
        return False
    if route.path is None:
        return True
    return path.startswith(route.path) if route.is_prefix else path == route.path


@given(
    st.lists(any_route(), max_size=12),
    kinds,
    st.none() | names,
    paths,
    st.sampled_from(["", ":80"]),
)
@example([Route("http", "*.a"), Route("http", "*.b.a")], "http", "b.b.a", "/", "")
def test_matching_is_what_trying_each_route_finds(listed, kind, host, path, port):
    fitting = [route for route in listed if fits(route, kind, host, path)]
    best = max(fitting, key=lambda route: route.specificity, default=None)
    header = None if host is None else f"{host}{port}".upper().encode()
    assert Table((route, route) for route in listed).match(kind, header, path) == best


@given(st.lists(any_route(), max_size=12))
def test_only_equal_routes_compete(listed):
    kept = list(dict.fromkeys(listed))
    for route in kept:
        same = [other for other in kept if other.specificity == route.specificity]
        host = (route.host or "").replace("*", "a") or None
        path = route.path or "/"
        assert [other for other in same if fits(other, route.type, host, path)] in ([route], [])
