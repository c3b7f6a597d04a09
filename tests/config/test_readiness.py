import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chansup.config.readiness import (
    AcceptsTcp,
    AcceptsUnix,
    After,
    AnswersHttp,
    AnswersThroughApp,
    Notify,
    parse,
    parse_of_app,
)


@pytest.mark.parametrize(
    ("text", "readiness"),
    [
        ("notify", Notify()),
        ("tcp:6379", AcceptsTcp("127.0.0.1", 6379)),
        ("tcp://db:5432", AcceptsTcp("db", 5432)),
        ("tcp:[::1]:6379", AcceptsTcp("::1", 6379)),
        ("tcp:0.0.0.0:6379", AcceptsTcp("127.0.0.1", 6379)),
        ("http:8080", AnswersHttp("127.0.0.1", 8080, "/")),
        ("http:8080/ping?deep=1", AnswersHttp("127.0.0.1", 8080, "/ping?deep=1")),
        ("http://localhost:8080/ä b", AnswersHttp("localhost", 8080, "/%C3%A4%20b")),
        ("http://example.org/", AnswersHttp("example.org", 80, "/")),
        ("http://[::1]/x", AnswersHttp("::1", 80, "/x")),
        ("unix:run/app.sock", AcceptsUnix("run/app.sock")),
        ("unix:///run/app.sock", AcceptsUnix("/run/app.sock")),
        ("after:2s", After(2)),
        ("after:2", After(2)),
        ("after:0.5s", After(0.5)),
        ("after:250ms", After(0.25)),
    ],
)
def test_what_each_form_means(text, readiness):
    assert parse(text) == readiness


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("http:/health", AnswersThroughApp("", "/health")),
        ("http:///health?deep=1", AnswersThroughApp("", "/health?deep=1")),
        ("http://example.org/", AnswersThroughApp("example.org", "/")),
        ("http://example.org:8000/a b", AnswersThroughApp("example.org:8000", "/a%20b")),
        ("http://[::1]:80/x", AnswersThroughApp("[::1]:80", "/x")),
    ],
)
def test_what_an_app_is_asked(text, asked):
    assert parse_of_app(text) == asked


@pytest.mark.parametrize(
    "text", ["", "notify", "tcp:80", "http:", "http:8000/x", "http:health", "https:/x", "after:2s"]
)
def test_what_no_app_is_asked(text):
    with pytest.raises(ValueError, match="cannot be asked of a server"):
        parse_of_app(text)


@pytest.mark.parametrize(
    "text",
    ["", "Notify", "tcp:", "tcp:0", "tcp:x", "http:", "http:8080?x", "https:443/", "unix:",
     "after:", "after:-1s", "after:1m", "after:infs", "tpc:1", "notify:1"],
)  # fmt: skip
def test_what_is_none(text):
    with pytest.raises(ValueError, match=r"\w"):
        parse(text)


def _clear(error):
    assert str(error)


@settings(deadline=None)
@given(st.sampled_from(["tcp:", "http:", "http://", "unix:", "after:", ""]), st.text())
def test_anything_is_understood_or_a_clear_error(kind, rest):
    try:
        parse(kind + rest)
    except ValueError as error:
        _clear(error)
