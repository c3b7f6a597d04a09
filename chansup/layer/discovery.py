"""Where this site's channel layer is.

Processes that chansup starts are told by the environment: CHANSUP_CHANNEL_LAYER is a JSON object
with `backend` ("local", or URLs), `address` (of a local hub) and `options`. Others, a shell or a
cron job, look into the config file: CHANSUP_CONFIG, else chansup.toml in the working directory or
above. The hub listens in the runtime directory of that file's supervisor, if that runs: it is
looked for when it is needed, since a layer is made at import, by commands that never use it, too.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import tomli

from chansup.config import env_files, location, runtime_places, signposts
from chansup.config.interpolation import interpolate_tree
from chansup.config.keys import Finding, Key, dotted
from chansup.config.location import CONFIG_FILE as CONFIG_FILE
from chansup.config.location import CONFIG_VARIABLE as CONFIG_VARIABLE
from chansup.config.text import UnreadableFileError, read
from chansup.layer.errors import LayerConfigError, NoHub
from chansup.protocol import channel_layer
from chansup.protocol.channel_layer import SOCKET, VARIABLE
from chansup.protocol.channel_layer import Place as Place

TABLE = "channel_layer"


def find(environ: Mapping[str, str] = os.environ) -> Place:
    """Return what the environment or the config says. Raises LayerConfigError, NoHub.

    Where only the config says that there is a hub, `address` is None: see SiteHub.
    """
    text = environ.get(VARIABLE)
    if text:
        try:
            return channel_layer.decode(text)
        except msgspec.MsgspecError as error:
            raise LayerConfigError(
                f"{VARIABLE}: {error}. Expected something like "
                '{"backend": "local", "address": "/run/chansup/hub.sock"}'
            ) from None
    return _configured(_config(environ), environ)


def _configured(config: Path, environ: Mapping[str, str]) -> Place:
    document = _document(config)
    table = _filled_in(
        (TABLE,), document.get(TABLE, {}), _variables(document, environ, config), config
    )
    if not isinstance(table, dict):
        raise LayerConfigError(f"{config}: [{TABLE}] is not a table")
    backend = table.get("backend", "local")
    if not isinstance(backend, str | list):
        raise LayerConfigError(f"{config}: [{TABLE}] backend is neither a string nor a list")
    options = table.get("options", {})
    if not isinstance(options, dict):
        raise LayerConfigError(f"{config}: [{TABLE}] options is not a table")
    if backend == "local":
        from chansup.config.structure import local_options  # children of chansup need it not

        findings: list[Finding] = []
        options = local_options(options, findings)
        _raise_first(findings, config)
    return Place(backend, None, options)


class SiteHub:
    """The hub of this site: it need not run yet, and may be elsewhere when the site ran again."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Raises LayerConfigError where this site has another layer, or a broken config."""
        self._environ = environ
        self._config: Path | None = None
        try:
            if not environ.get(VARIABLE):
                self._config = _config(environ)
            self._place()
        except NoHub:  # whoever uses it will hear of it
            pass

    def find(self) -> str:
        """Return the path of its socket. Raises LayerConfigError, NoHub."""
        address = self._place().address
        if address is not None:
            return address
        config = self._config or _config(self._environ)
        document = _document(config)
        variables = _variables(document, self._environ, config)
        supervisor = _filled_in(("supervisor",), document.get("supervisor", {}), variables, config)
        configured = supervisor.get("runtime_directory") if isinstance(supervisor, dict) else None
        return _hub(config, configured if isinstance(configured, str) else None, self._environ)

    def _place(self) -> Place:
        if self._config is None:
            place = find(self._environ)
        else:
            place = _configured(self._config, self._environ)
        if place.backend != "local":
            raise LayerConfigError(
                f"this site's channel layer is {place.backend!r}, not chansup's own: use "
                "chansup.layer.ChannelLayer, or give LocalChannelLayer an address"
            )
        return place


def _config(environ: Mapping[str, str]) -> Path:
    if named := environ.get(CONFIG_VARIABLE):
        return Path(os.path.abspath(named))
    try:
        found = location.find(environ)
    except FileNotFoundError:
        raise NoHub("the working directory is gone: set CHANSUP_CONFIG") from None
    if found is not None:
        return found
    raise NoHub(
        f"no channel layer is known: neither {VARIABLE} nor {CONFIG_VARIABLE} is set, and there is "
        f"no {CONFIG_FILE} in {Path.cwd()} or above. Run this under chansup, or name the config"
    )


def _document(config: Path) -> dict[str, Any]:
    try:
        return tomli.loads(read(config))
    except UnreadableFileError as error:
        raise LayerConfigError(f"{config}: {error}") from None
    except (tomli.TOMLDecodeError, RecursionError, ValueError) as error:
        raise LayerConfigError(f"{config}: this is not TOML: {error}") from None


def _variables(
    document: dict[str, Any], environ: Mapping[str, str], config: Path
) -> Mapping[str, str]:
    """Return the environment, and what the app's env files add to it where they can be read."""
    app = document.get("app")
    if not isinstance(app, dict) or "env_file" not in app:
        return environ
    directory = _filled_in(("app", "directory"), app.get("directory", "."), environ, config)
    variables = dict(environ)
    if isinstance(directory, str):
        for name in env_files.paths(
            _filled_in(("app", "env_file"), app["env_file"], environ, config)
        ):
            variables.update(env_files.load(name, config.parent / directory)[0])
    return variables


def _filled_in(key: Key, value: Any, variables: Mapping[str, str], config: Path) -> Any:
    findings: list[Finding] = []
    found = interpolate_tree(value, variables, key, findings)
    _raise_first(findings, config)
    return found


def _raise_first(findings: list[Finding], config: Path) -> None:
    for key, message in findings:
        raise LayerConfigError(f"{config}: {dotted(key)}: {message}")


def _hub(config: Path, configured: str | None, environ: Mapping[str, str]) -> str:
    directories = runtime_places.directories(config, configured, environ)
    posts = signposts.read(config, [*runtime_places.bases(environ), runtime_places.OF_ROOT])
    directories += [Path(post.directory) for post in posts]
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
