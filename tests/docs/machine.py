"""What the tutorial takes for given of its machine: nginx runs for real, systemd is stood in for.

Its commands are run as they stand there. Small programs at the head of PATH are `sudo`, `nginx`
and `systemctl`: they lead to the scene's directory and ports, and need no rights. `systemctl`
starts nginx, or has it read its config anew; the service of the site is started by the scene, by
what its unit says.
"""

import configparser
import os
import pwd
import shlex
import shutil
import socket
import ssl
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from tests.running import PATIENCE, wait_for

NGINX = """
{user}
worker_processes 2;
pid {etc}/nginx/pid;
error_log {etc}/nginx/error.log;
events {{}}
http {{
    include {mime_types};
    access_log off;
{temporary}
    include {etc}/nginx/conf.d/*.conf;
}}
"""
SUDO = '#!/bin/sh\nexec "$@"\n'
# -e: else nginx opens the log of the machine's own first.
NGINX_PROGRAM = (
    '#!/bin/sh\nexec {program} -e {etc}/nginx/error.log -c {etc}/nginx/nginx.conf "$@"\n'
)
SYSTEMCTL = """#!/bin/sh
case "$*" in
daemon-reload) ;;
"reload nginx") if [ -s {etc}/nginx/pid ]; then exec nginx -s reload; else exec nginx; fi ;;
*) echo "not known here: systemctl $*" >&2; exit 1 ;;
esac
"""


class Machine:
    """Directories of the machine, below `root`, with nginx on free ports."""

    def __init__(self, root: Path, http: int, https: int) -> None:
        self.programs = root / ".programs"
        self.etc = root / "etc"
        self._http, self._https = http, https
        self._open = ExitStack()
        self._socket: ClientConnection | None = None

    @staticmethod
    def _require() -> str:
        """Return the path of nginx, or skip the test."""
        pytest.importorskip("channels")
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None or shutil.which("openssl") is None or shutil.which("curl") is None:
            pytest.skip("needs nginx, openssl and curl")
        return program

    def furnish(self) -> None:
        """Make directories, configs and programs. Skips the test where nginx is missing."""
        program = self._require()
        for directory in ("nginx/conf.d", "ssl", "systemd/system"):
            (self.etc / directory).mkdir(parents=True)
        places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "\n".join(f"    {name}_temp_path {self.etc}/nginx/{name};" for name in places)
        # Who reads the static files is the user of the test, who made them.
        user = "" if os.geteuid() else f"user {pwd.getpwuid(0).pw_name} root;"
        mime_types = next(
            path for path in ("/etc/nginx/mime.types", "/usr/share/nginx/mime.types", os.devnull)
            if Path(path).exists()
        )  # fmt: skip
        (self.etc / "nginx/nginx.conf").write_text(
            NGINX.format(user=user, etc=self.etc, mime_types=mime_types, temporary=temporary)
        )
        self.programs.mkdir()
        for name, text in (("sudo", SUDO), ("nginx", NGINX_PROGRAM), ("systemctl", SYSTEMCTL)):
            path = self.programs / name
            path.write_text(text.format(program=program, etc=self.etc))
            path.chmod(0o755)

    def here(self, text: str) -> str:
        """Translate ports and paths of the machine to this one's."""
        for directory in ("nginx", "ssl/mysite", "systemd/system"):
            text = text.replace(f"/etc/{directory}", f"{self.etc}/{directory}")
        text = text.replace("://localhost/", f"://localhost:{self._https}/")
        text = text.replace(f"http://localhost:{self._https}/", f"http://localhost:{self._http}/")
        lines = [line for line in text.split("\n") if "listen [::]" not in line]
        text = "\n".join(lines)
        text = text.replace("listen 80;", f"listen 127.0.0.1:{self._http};")
        return text.replace("listen 443 ssl;", f"listen 127.0.0.1:{self._https} ssl;")

    def back(self, text: str) -> str:
        """Translate what a command printed to what the page says."""
        return text.replace(f"{self.etc}/", "/etc/")

    def service(self) -> tuple[list[str], dict[str, str], int]:
        """Return command, variables and umask of the unit that the page installed."""
        parser = configparser.RawConfigParser(strict=False, delimiters=["="], comment_prefixes="#")
        parser.read(self.etc / "systemd/system/chansup.service")
        unit = parser["Service"]
        variables = dict(one.split("=", 1) for one in shlex.split(unit["Environment"]))
        return shlex.split(unit["ExecStart"]), variables, int(unit["UMask"], 8)

    def connect(self) -> None:
        """Open a WebSocket through nginx, which stays open."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        plain = socket.create_connection(("127.0.0.1", self._https), PATIENCE)
        url = f"wss://localhost:{self._https}/ws/"
        connection = connect(url, sock=plain, ssl=context, origin=Origin("https://localhost"))
        self._socket = self._open.enter_context(connection)
        self.speak("before")

    def speak(self, word: str) -> None:
        """Say something on the open WebSocket, and hear it."""
        assert self._socket is not None
        self._socket.send(f'{{"text": "{word}"}}')
        while word not in self._socket.recv(PATIENCE):
            pass

    def end(self) -> None:
        """Stop nginx."""
        self._open.close()
        pid = self.etc / "nginx/pid"
        if pid.exists() and pid.read_text():
            subprocess.run([self.programs / "nginx", "-s", "stop"], check=True, timeout=PATIENCE)
            wait_for(lambda: not pid.exists(), "the end of nginx")
