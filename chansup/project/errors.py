"""Why no config was written."""

from pathlib import Path

from chansup.config.keys import listed
from chansup.errors import ChansupError


class NothingFoundError(ChansupError):
    """The directory holds nothing that chansup knows how to run."""

    def __init__(self, directory: Path) -> None:
        super().__init__(
            f"{directory}: no project found. Looked for manage.py, for an asgi.py or wsgi.py that "
            "assigns `application`, and for a module that assigns an app of FastAPI, Starlette, "
            "Quart, Litestar or Flask or defines `async def app(scope, receive, send)`. Go to the "
            "project's directory, or write chansup.toml by hand: its [app] names the app, "
            'asgi = "mysite.asgi:application"'
        )


class SeveralFoundError(ChansupError):
    """The directory holds several Django projects, and none of them is the one."""

    def __init__(self, directory: Path, files: list[str]) -> None:
        super().__init__(
            f"{directory}: several Django projects found: {listed(files, 'and')}. Run "
            "`chansup init` in the directory of the one that you mean; each has a site of its own"
        )


class FileExistsAlreadyError(ChansupError):
    """A config stands there already, and somebody may have put work into it."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists already: remove it, or use --force to replace it")
