"""What visitors see where the relay answers by itself: a page of the site's, or a plain one."""

import html
import logging
import os
from collections.abc import Iterable, Mapping
from http import HTTPStatus

from chansup.protocol.roster import LARGEST_ERROR_PAGE

_log = logging.getLogger("chansup.relay")

HTML = b"text/html; charset=utf-8"
TEXT = b"text/plain; charset=utf-8"

_PLAIN = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{status} {title}</title>
<style>
body {{ font: 1.05rem/1.5 system-ui, sans-serif; max-width: 36rem; margin: 18vh auto 0;
  padding: 0 1.25rem; }}
h1 {{ font-size: 1.5rem; font-weight: 600; margin: 0 0 .5rem; }}
p {{ margin: 0; opacity: .75; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{advice} ({status}: {text})</p>
</body>
</html>
"""
_ADVICE = {
    404: "There is nothing at this address.",
    502: "Something went wrong on our side. Please try again.",
    503: "The site is busy or being restarted. Please try again in a moment.",
}


class ErrorPages:
    """The files that a site names for status codes. One that cannot be read is left out."""

    def __init__(self) -> None:
        self._paths: dict[int, str] = {}
        self._read: dict[int, tuple[tuple[int, int], bytes]] = {}  # the file's state, its content
        self._complained: set[str] = set()

    def use(self, paths: Mapping[str, str]) -> None:
        """Take the absolute paths of pages by status code, for every answer from now on."""
        self._paths = {int(status): path for status, path in paths.items()}

    def body(self, status: int, text: str, accept: Iterable[bytes]) -> tuple[bytes, bytes]:
        """Return the content type and the body for who sent these Accept headers."""
        if not any(b"text/html" in value.lower() for value in accept):
            return TEXT, f"{text}\n".encode()
        own = self._own(status)
        if own is not None:
            return HTML, own
        page = _PLAIN.format(
            status=status,
            title=html.escape(HTTPStatus(status).phrase),
            advice=_ADVICE.get(status, "The request cannot be answered."),
            text=html.escape(text),
        )
        return HTML, page.encode()

    def _own(self, status: int) -> bytes | None:
        """Return the site's page as the file is now, or as it was when it could be read last."""
        path = self._paths.get(status)
        if path is None:
            return None
        known = self._read.get(status)
        try:
            now = os.stat(path)
            state = (now.st_mtime_ns, now.st_size)
            if known is None or known[0] != state:
                with open(path, "rb") as file:
                    content = file.read(LARGEST_ERROR_PAGE + 1)
                if len(content) > LARGEST_ERROR_PAGE:
                    raise OSError(f"larger than {LARGEST_ERROR_PAGE // 1024} KiB")
                known = self._read[status] = (state, content)
        except OSError as error:
            if path not in self._complained:
                self._complained.add(path)
                _log.warning("error page %s cannot be read: %s", path, error.strerror or error)
        return known[1] if known is not None else None


pages = ErrorPages()  # of this interface process
