"""Files that options of a server name: needed, there, readable, and told apart by their content."""

import os
import subprocess
from pathlib import Path

import pytest

from chansup.config import option_files
from chansup.config.errors import ConfigError
from chansup.config.load import Loaded, load
from tests.certificates import certify

APP = '[app]\nasgi = "a:b"\ndirectory = "{app}"\n[interface]\nserver = "{server}"\n'
RELAY = '[workers.web]\nserves = ["http", "websocket"]\n'
REQUIRED = [
    ("uvicorn", "ssl_certfile"),
    ("uvicorn", "ssl_keyfile"),
    ("uvicorn", "ssl_ca_certs"),
    ("uvicorn", "log_config"),
    ("granian", "ssl_cert"),
    ("granian", "ssl_key"),
    ("granian", "ssl_ca"),
    ("hypercorn", "certfile"),
    ("hypercorn", "keyfile"),
    ("hypercorn", "ca_certs"),
    ("hypercorn", "logconfig"),
    ("daphne", "privateKey"),
    ("daphne", "certKey"),
    ("daphne", "extraCertChain"),
    ("gunicorn", "certfile"),
    ("gunicorn", "keyfile"),
    ("gunicorn", "ca_certs"),
    ("gunicorn", "logconfig"),
]


def loaded(directory: Path, server: str, options: str, more: str = "") -> Loaded:
    (directory / "app").mkdir(exist_ok=True)
    text = APP.format(app="app", server=server) + f"[interface.options]\n{options}\n{more}"
    (directory / "chansup.toml").write_text(text)
    return load(directory / "chansup.toml", {"PATH": "/usr/bin"})


def contents(one: Loaded) -> tuple[tuple[str, str, bytes], ...]:
    return option_files.contents(one.config, one.directory, one.path.parent)


@pytest.mark.parametrize(("server", "option"), REQUIRED)
def test_a_file_that_is_needed_must_be_there_and_counts(
    server: str, option: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f'interface.options.{option}.*x.pem" does not exist'):
        loaded(tmp_path, server, f'{option} = "x.pem"')
    file = tmp_path / "app" / "x.pem"
    certify(tmp_path)
    certificate = (tmp_path / "cert.pem").read_text()
    file.write_text(certificate)
    one = loaded(tmp_path, server, f'{option} = "x.pem"')
    before = contents(one)
    assert [(name, path) for name, path, _ in before] == [(option, str(file))]
    file.write_text("two")
    assert contents(one) != before
    file.write_text(certificate)
    assert contents(one) == before  # the time does not matter, the content does


@pytest.mark.parametrize(
    ("server", "option"), [("uvicorn", "ssl_keyfile"), ("daphne", "privateKey")]
)
def test_a_key_of_another_certificate_is_refused(server: str, option: str, tmp_path: Path) -> None:
    other = {"ssl_keyfile": "ssl_certfile", "privateKey": "certKey"}[option]
    (tmp_path / "app").mkdir()
    certify(tmp_path / "app")
    (tmp_path / "app" / "key.pem").rename(tmp_path / "app" / "other.pem")
    certify(tmp_path / "app")
    options = f'{other} = "cert.pem"\n{option} = "%s.pem"'
    loaded(tmp_path, server, options % "key")
    with pytest.raises(ConfigError, match=f"{option}.*other.pem.*belong.*cert.pem.*name the key"):
        loaded(tmp_path, server, options % "other")


def test_an_encrypted_key_needs_its_password(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    certify(tmp_path / "app")
    command = f"openssl pkey -aes256 -passout pass:open -in {tmp_path}/app/key.pem -out"
    subprocess.run([*command.split(), str(tmp_path / "app" / "locked.pem")], check=True)
    options = 'ssl_certfile = "cert.pem"\nssl_keyfile = "locked.pem"\n'
    with pytest.raises(ConfigError, match=r"locked\.pem.*is encrypted: set ssl_keyfile_password"):
        loaded(tmp_path, "uvicorn", options)
    with pytest.raises(ConfigError, match="does not open with ssl_keyfile_password"):
        loaded(tmp_path, "uvicorn", options + 'ssl_keyfile_password = "shut"')
    loaded(tmp_path, "uvicorn", options + 'ssl_keyfile_password = "open"')


def test_in_relay_mode_they_lie_beside_the_config_file(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("one")
    one = loaded(tmp_path, "uvicorn", 'ssl_certfile = "x.pem"', RELAY)
    assert [path for _, path, _ in contents(one)] == [str(tmp_path / "x.pem")]


def test_a_renewal_by_a_symbolic_link_counts(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    for number in (1, 2):
        (tmp_path / f"archive{number}.pem").write_text(str(number))
    live = tmp_path / "app" / "live.pem"
    live.symlink_to("../archive1.pem")
    one = loaded(tmp_path, "uvicorn", 'ssl_certfile = "live.pem"')
    before = contents(one)
    live.unlink()
    live.symlink_to("../archive2.pem")
    assert contents(one) != before
    live.unlink()
    live.symlink_to("../archive3.pem")
    with pytest.raises(ConfigError, match=r"does not exist .it leads to .*archive3.pem"):
        loaded(tmp_path, "uvicorn", 'ssl_certfile = "live.pem"')


def test_other_options_that_name_a_file_count_and_logs_that_grow_do_not(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    for name in ("crl.pem", "access.log", "params"):
        (tmp_path / "app" / name).write_text("")
    options = 'accesslog = "access.log"\nssl_dhparams = "params"\nroot_path = "/x"'
    found = contents(loaded(tmp_path, "hypercorn", options))
    assert [name for name, _, _ in found] == ["ssl_dhparams"]
    listed = contents(loaded(tmp_path, "granian", 'ssl_crl = ["crl.pem", "params"]'))
    assert [name for name, _, _ in listed] == ["ssl_crl", "ssl_crl"]
    written = contents(loaded(tmp_path, "hypercorn", 'logconfig = "json:params"'))
    assert [path for _, path, _ in written] == [str(tmp_path / "app" / "params")]


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    os.mkfifo(tmp_path / "app" / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(ConfigError, match=r"interface\.options\.ssl_keyfile"):
            loaded(tmp_path, "uvicorn", f'ssl_keyfile = "{name}"')
