"""Whether certificate and key that `[interface.options]` names can be used, whatever the server.

Servers tell it by a traceback, or only when the first client comes.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from chansup.config.keys import quoted


class _Names(NamedTuple):
    certificate: str
    key: str
    password: str  # of the key; empty: the server takes none
    authorities: str


_NAMES = {
    "uvicorn": _Names("ssl_certfile", "ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs"),
    "granian": _Names("ssl_cert", "ssl_key", "ssl_key_password", "ssl_ca"),
    "hypercorn": _Names("certfile", "keyfile", "keyfile_password", "ca_certs"),
    "daphne": _Names("certKey", "privateKey", "", "extraCertChain"),
    "gunicorn": _Names("certfile", "keyfile", "", "ca_certs"),
}
SERVERS = frozenset(_NAMES)


class _PasswordNeededError(Exception):
    """The key is encrypted, and there is no password."""


def faults(server: str, options: Mapping[str, object], base: Path) -> Iterator[tuple[str, str]]:
    """Yield the options whose files cannot be used, each with its fault and the remedy.

    Relative paths are taken from `base`. Files that are not there are left to others.
    """
    names = _NAMES.get(server)
    if names is None:  # what chansup runs itself
        return
    certificate, key, authorities = (
        _path(options.get(name), base) for name in (names.certificate, names.key, names.authorities)
    )
    if authorities is not None and (said := _certificate_fault(authorities)):
        yield names.authorities, said
    if certificate is None or key is None:
        return
    if said := _certificate_fault(certificate):
        yield names.certificate, said
    elif said := _key_fault(certificate, key, names, options.get(names.password)):
        yield names.key, said


def _path(value: object, base: Path) -> Path | None:
    if not isinstance(value, str) or not value or "\0" in value:
        return None
    path = base / value
    return path if os.path.isfile(path) else None  # not Path.is_file: it raises without rights


def _certificate_fault(path: Path) -> str:
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError as error:
        return (
            f"{quoted(str(path), limit=300)} is not a certificate in PEM format"
            f" ({_reason(error)}): name the file with the certificate and those of its issuers"
        )
    except OSError as error:
        return f"{quoted(str(path), limit=300)} cannot be read: {error.strerror or error}"
    return ""


def _key_fault(certificate: Path, key: Path, names: _Names, password: object) -> str:
    import ssl

    def ask() -> str:
        if not isinstance(password, str):
            raise _PasswordNeededError
        return password

    key_name = quoted(str(key), limit=300)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, ask)
    except _PasswordNeededError:
        remedy = f"set {names.password}, or " if names.password else ""
        return f"{key_name} is encrypted: {remedy}name a key without a password"
    except ssl.SSLError as error:
        # The second: the key is of another kind, so the certificate for its kind is missing.
        if error.reason in ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
            return (
                f"{key_name} does not belong to the certificate"
                f" {quoted(str(certificate), limit=300)}: name the key that it was made with"
            )
        if isinstance(password, str) and "ENCRYPTED" in _head(key):
            return f"{key_name} does not open with {names.password} ({_reason(error)})"
        return (
            f"{key_name} is not a private key in PEM format that fits the certificate"
            f" ({_reason(error)}): name the file with the key"
        )
    except OSError as error:
        return f"{key_name} cannot be read: {error.strerror or error}"
    return ""


def _reason(error: OSError) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else str(error.strerror or error)


def _head(path: Path) -> str:
    with open(path, "rb") as file:
        return file.read(200).decode("latin-1")
