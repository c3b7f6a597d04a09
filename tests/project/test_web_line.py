"""The web line of a Procfile: nothing of it is dropped silently."""

from pathlib import Path

import pytest

from chansup.config.load import load
from chansup.project import discover, notes, web_line, write


@pytest.mark.parametrize(
    ("line", "server", "options", "left_out"),
    [
        ("uvicorn mysite.asgi:application", "uvicorn", {}, []),
        (
            "daphne -b 0.0.0.0 -p $PORT --proxy-headers --root-path /x -v2 mysite.asgi:application",
            "daphne", {"proxy_headers": True, "root_path": "/x"}, ["-b 0.0.0.0", "-p $PORT", "-v2"],
        ),
        (
            "python -m uvicorn mysite.asgi:application --ws-max-size=1024 --no-access-log --host ::",
            "uvicorn", {"ws_max_size": 1024, "access_log": False}, ["--host ::"],
        ),
        (
            "PYTHONPATH=src exec venv/bin/gunicorn mysite.asgi -k uvicorn.workers.UvicornWorker -w 4",
            "uvicorn", {}, ["PYTHONPATH=src", "-k uvicorn.workers.UvicornWorker", "-w 4"],
        ),
        (
            "gunicorn --max-requests 9 --max-requests-jitter 3 --keep-alive 5 -k uvicorn.workers.UvicornWorker a:b",
            "uvicorn", {"limit_max_requests": 9, "timeout_keep_alive": 5},
            ["-k uvicorn.workers.UvicornWorker", "--max-requests-jitter 3"],
        ),
        (
            "gunicorn --keep-alive 5 -k daphne.gunicorn.Worker a:b",
            "daphne", {}, ["-k daphne.gunicorn.Worker", "--keep-alive 5"],
        ),
        ("MODE=web env DEBUG= granian --http 2 a:b", "granian", {"http": "2"}, ["MODE=web", "DEBUG="]),
        (
            "gunicorn mysite.wsgi --keep-alive 5 --timeout 30 --forwarded-allow-ips '*'",
            "gunicorn", {"keep_alive": 5, "forwarded_allow_ips": "*"}, ["--timeout 30"],
        ),
        ("hypercorn app:app --websocket-ping-interval 7.5", "hypercorn", {"websocket_ping_interval": 7.5}, []),
        ("granian app:app --ws --backpressure $PRESSURE", "granian", {"ws": True}, ["--backpressure $PRESSURE"]),
        ("node server.js --port 3", None, {}, []),
        ('uvicorn "', None, {}, []),
    ],
)  # fmt: skip
def test_what_a_line_says(line: str, server: str | None, options: dict, left_out: list) -> None:
    said = web_line.read(line)
    assert (said.server, said.options, list(said.left_out)) == (server, options, left_out)


def written(directory: Path, line: str) -> tuple[str, str]:
    (directory / "main.py").write_text("async def app(scope, receive, send): ...\n")
    (directory / "Procfile").write_text(f"web: {line}\n")
    project = discover(directory)
    write(project, directory / "chansup.toml")
    load(directory / "chansup.toml", {})  # it is valid
    return (directory / "chansup.toml").read_text(), "\n".join(notes(project))


def test_the_file_takes_it_over_and_the_note_names_the_rest(tmp_path: Path) -> None:
    text, said = written(tmp_path, "hypercorn main:app --bind :$PORT --root-path /x")
    assert 'server = "hypercorn"' in text
    assert 'options = { root_path = "/x" }' in text
    assert "--bind :$PORT ([interface] bind)" in said


def test_a_foreign_program_is_named(tmp_path: Path) -> None:
    _, said = written(tmp_path, "bin/serve --fast")
    assert "bin/serve --fast" in said
