"""Where `[admin]` listens: opened at the start, moved by a reload."""

from pathlib import Path

from chansup.config import address
from chansup.supervisor.api.admin import Admin
from chansup.supervisor.api.http import Server, admin_server
from chansup.supervisor.errors import AddressError
from chansup.supervisor.runtime.file_identity import Presence
from chansup.supervisor.sockets.listeners import Listeners
from chansup.supervisor.sockets.opening import open_listeners, overlap


class Endpoint:
    """The admin server on its present address."""

    def __init__(self, admin: Admin, directory: Path) -> None:
        self.address: str | None = None  # with the real port
        self._admin = admin
        self._directory = directory  # that paths of Unix sockets are relative to
        self._bind: str | None = None  # as in the config
        self._server: Server | None = None
        self._listeners: list[Listeners] = []

    async def open(self, bind: str | None) -> None:
        """Serve on `bind`, and nowhere else any more. Raises AddressError; nothing changes then."""
        if bind == self._bind:
            return
        server, listeners = None, []
        if bind:
            listeners = await self._listen(address.parse(bind))
            server = self._server_on(listeners)
            await server.start()
        former, self._server = self._server, server
        present, self._listeners = self._listeners, listeners
        self.address = str(listeners[0].address) if listeners else None
        self._bind = bind
        if former is not None:
            await former.stop()
        for one in present:
            one.close()

    def _server_on(self, listeners: list[Listeners]) -> Server:
        on = [one.socket_of(0) for one in listeners]
        return admin_server(self._admin, on, self._admin.malformed)

    def presence(self) -> Presence:
        """Return what stands where clients look for it."""
        found = [one.presence() for one in self._listeners]
        return next((one for one in found if one is not Presence.OURS), Presence.OURS)

    async def restore(self) -> None:
        """Make a socket file that vanished again. Raises AddressError."""
        renewed = [one.restore(close_former=False) for one in self._listeners]
        if any(renewed):
            former = self._server
            self._server = self._server_on(self._listeners)
            await self._server.start()
            if former is not None:
                await former.stop()  # which closes the former sockets

    async def _listen(self, asked: address.Address) -> list[Listeners]:
        try:
            return await open_listeners(asked, directory=self._directory, steer=False)
        except AddressError as error:
            said = overlap(asked, self._listeners) or error
            raise AddressError(f"[admin] bind: {said}") from None

    async def close(self) -> None:
        """Stop serving."""
        await self.open(None)
