"""Where `[admin]` listens: opened at the start, moved by a reload."""

from pathlib import Path

from chansup.config import address
from chansup.supervisor import sockets
from chansup.supervisor.admin import Admin
from chansup.supervisor.http import Server, admin_server


class Endpoint:
    """The admin server on its present address."""

    def __init__(self, admin: Admin, directory: Path) -> None:
        self.address: str | None = None  # with the real port
        self._admin = admin
        self._directory = directory  # that paths of Unix sockets are relative to
        self._bind: str | None = None  # as in the config
        self._server: Server | None = None

    async def open(self, bind: str | None) -> None:
        """Serve on `bind`, and nowhere else any more. Raises AddressError; nothing changes then."""
        if bind == self._bind:
            return
        former = self._server
        if bind:
            listeners = await sockets.open_listeners(
                address.parse(bind), directory=self._directory, steer=False
            )
            self._server = admin_server(self._admin, [one.socket_of(0) for one in listeners])
            await self._server.start()
            self.address = str(listeners[0].address)
        else:
            self._server = self.address = None
        self._bind = bind
        if former is not None:
            await former.stop()

    async def close(self) -> None:
        """Stop serving."""
        await self.open(None)
