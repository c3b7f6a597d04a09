"""Where this site's channel layer is.

Processes that chansup starts are told by the environment: CHANSUP_CHANNEL_LAYER is a JSON object
with `backend` ("local", or URLs), `address` (of a local hub) and `options`. Others, a shell or a
cron job, look into the config file: CHANSUP_CONFIG, else chansup.toml in the working directory or
above. The hub listens in the runtime directory of that file's supervisor.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import tomli

from chansup.config import runtime_places
from chansup.config.interpolation import interpolate
from chansup.config.text import UnreadableFileError, read
from chansup.layer.errors import LayerConfigError, NoHub
from chansup.protocol import channel_layer
from chansup.protocol.channel_layer import SOCKET, VARIABLE
from chansup.protocol.channel_layer import Place as Place

CONFIG_VARIABLE = "CHANSUP_CONFIG"
CONFIG_FILE = "chansup.toml"
TABLE = "channel_layer"


def find(environ: Mapping[str, str] = os.environ) -> Place:
    """Return what the environment or the config says. Raises LayerConfigError, NoHub."""
    text = environ.get(VARIABLE)
    if text:
        try:
            return channel_layer.decode(text)
        except msgspec.MsgspecError as error:
            raise LayerConfigError(
                f"{VARIABLE}: {error}. Expected something like "
                '{"backend": "local", "address": "/run/chansup/hub.sock"}'
            ) from None
    config = _config(environ)
    document = _document(config)
    table = _filled_in(document.get(TABLE, {}), environ, config)
    if not isinstance(table, dict):
        raise LayerConfigError(f"{config}: [{TABLE}] is no table")
    backend = table.get("backend", "local")
    if not isinstance(backend, str | list):
        raise LayerConfigError(f"{config}: [{TABLE}] backend is neither a string nor a list")
    options = table.get("options", {})
    if not isinstance(options, dict):
        raise LayerConfigError(f"{config}: [{TABLE}] options is no table")
    address = None
    if backend == "local":
        supervisor = _filled_in(document.get("supervisor", {}), environ, config)
        configured = supervisor.get("runtime_directory") if isinstance(supervisor, dict) else None
        address = _hub(config, configured if isinstance(configured, str) else None, environ)
    return Place(backend, address, options)


def find_hub(environ: Mapping[str, str] = os.environ) -> str:
    """Return the path of the hub's socket. Raises LayerConfigError, NoHub."""
    place = find(environ)
    if place.backend != "local" or place.address is None:
        raise LayerConfigError(
            f"this site's channel layer is {place.backend!r}, not chansup's own: use "
            "chansup.layer.ChannelLayer, or give LocalChannelLayer an address"
        )
    return place.address


def _config(environ: Mapping[str, str]) -> Path:
    if named := environ.get(CONFIG_VARIABLE):
        return Path(os.path.abspath(named))
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise NoHub("the working directory is gone: set CHANSUP_CONFIG") from None
    for directory in (here, *here.parents):
        if (directory / CONFIG_FILE).is_file():
            return directory / CONFIG_FILE
    raise NoHub(
        f"no channel layer is known: neither {VARIABLE} nor {CONFIG_VARIABLE} is set, and there is "
        f"no {CONFIG_FILE} in {here} or above. Run this under chansup, or name the config"
    )


def _document(config: Path) -> dict[str, Any]:
    try:
        return tomli.loads(read(config))
    except UnreadableFileError as error:
        raise LayerConfigError(f"{config}: {error}") from None
    except (tomli.TOMLDecodeError, RecursionError, ValueError) as error:
        raise LayerConfigError(f"{config}: this is not TOML: {error}") from None


def _filled_in(value: Any, environ: Mapping[str, str], config: Path) -> Any:
    if isinstance(value, str):
        text, problem = interpolate(value, environ)
        if problem:
            raise LayerConfigError(f"{config}: {problem}")
        return str(text)
    if isinstance(value, dict):
        return {key: _filled_in(one, environ, config) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled_in(one, environ, config) for one in value]
    return value


def _hub(config: Path, configured: str | None, environ: Mapping[str, str]) -> str:
    directories = runtime_places.directories(config, configured, environ)
    if not configured:  # whoever asks: a supervisor of root has let its users pass
        directories.append(runtime_places.of_root(config))
    paths = [directory / SOCKET for directory in directories]
    found = next((path for path in paths if _is_socket(path)), None)
    if found is None:
        raise NoHub(
            f"no channel layer hub runs for {config}. Start the site with `chansup -c {config} run`"
        )
    return str(found)


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return False
