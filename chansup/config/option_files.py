"""The files that `[interface.options]` names, which a server reads when it starts.

What they hold is part of what runs: a renewed certificate is served after a reload only if the
processes that read the old one are replaced.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from chansup.config import relay
from chansup.config.schema import Config
from chansup.config.text import UnreadableFileError, open_file

# By server: files without which it cannot start. hypercorn may have "json:" or "toml:" before one.
_REQUIRED = {
    "uvicorn": ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs", "log_config"),
    "granian": ("ssl_cert", "ssl_key", "ssl_ca", "ssl_crl"),
    "hypercorn": ("certfile", "keyfile", "ca_certs", "logconfig"),
    "daphne": ("privateKey", "certKey", "extraCertChain"),
    "gunicorn": ("certfile", "keyfile", "ca_certs", "logconfig", "logconfig_json"),
}
_WRITTEN = ("accesslog", "errorlog", "access_log")  # their content changes with each request
_FORMATS = ("json:", "toml:")
_MOST = 64 * 1024 * 1024  # bytes that are read; no certificate or log config comes near


class OptionFile(NamedTuple):
    """One file that an option names."""

    option: str
    path: Path
    required: bool  # the server cannot start without it


class OptionFileError(Exception):
    """Why such a file cannot be used, as the rest of a sentence that begins with its name."""


def find(config: Config, directory: Path, config_directory: Path) -> Iterator[OptionFile]:
    """Yield what the options of the server name, required or not, if it is there.

    `directory` is the app's, where a server runs that runs the app; one in relay mode runs in
    `config_directory`.
    """
    interface = config.interface
    if interface is None or interface.command is not None:
        return
    start = base(config, directory, config_directory)
    required = _REQUIRED[interface.server]
    for option, value in interface.options.items():
        if option in _WRITTEN:
            continue
        for name in value if isinstance(value, list) else [value]:
            if not isinstance(name, str) or not name or "\0" in name:
                continue
            if option in required:
                plain = name[5:] if name.startswith(_FORMATS) else name
                yield OptionFile(option, start / plain, required=True)
            elif os.path.isfile(start / name):
                yield OptionFile(option, start / name, required=False)


def base(config: Config, directory: Path, config_directory: Path) -> Path:
    """Return where relative paths begin: the directory in which the server runs."""
    return config_directory if relay.is_relay(config) else directory


def digest(path: Path) -> bytes:
    """Return what tells the content of a file, links followed. Raises OptionFileError."""
    try:
        with open_file(path) as file:
            return hashlib.blake2b(file.read(_MOST), digest_size=16).digest()
    except UnreadableFileError as error:
        where = f" (it leads to {os.path.realpath(path)})" if os.path.islink(path) else ""
        raise OptionFileError(f"{error}{where}") from None
    except OSError as error:
        raise OptionFileError(f"cannot be read: {error.strerror or error}") from None


def contents(
    config: Config, directory: Path, config_directory: Path
) -> tuple[tuple[str, str, bytes], ...]:
    """Return option, path and digest of each file that can be read."""
    found = []
    for one in find(config, directory, config_directory):
        try:
            found.append((one.option, str(one.path), digest(one.path)))
        except OptionFileError:  # the rules said so; or it vanished since
            found.append((one.option, str(one.path), b""))
    return tuple(found)
