"""What the supervisor lives on can vanish: it looks each tick, makes it again, and says so.

A cleaner of /tmp, a logout or a careless `rm` takes the runtime directory, its locks and sockets,
or the file of a public Unix socket. What stands in its place and is not ours is left alone.

A listening socket whose file is gone cannot be bound again. Where that matters, a new one is made,
and the processes that listened on the old one are replaced, see `stale_slots`.
"""

import time
from collections.abc import Awaitable, Callable

from chansup.background import BackgroundTasks
from chansup.errors import ChansupError
from chansup.supervisor.api.admin import AdminAddress
from chansup.supervisor.runtime.runtime import CONTROL_SOCKET, RuntimeDirectory
from chansup.supervisor.site import Site
from chansup.supervisor.stale_slots import StaleSlots
from chansup.unix import Presence

_NAMED = 4  # files that one line names
_PAUSE = 10.0  # seconds after an attempt in the background that failed


class Upkeep:
    """Looks after directories, locks and sockets of one site."""

    def __init__(
        self,
        site: Site,
        runtime: RuntimeDirectory,
        admin: AdminAddress,
        serve_control: Callable[[], Awaitable[None]],
    ) -> None:
        """`serve_control` makes the control socket again and serves on it."""
        self._site = site
        self._runtime = runtime
        self._admin = admin
        self._serve_control = serve_control
        self._restored: list[str] = []
        self._restored_later: list[str] = []  # in the background since the last look
        self._obstacles: dict[str, str] = {}  # path: what is wrong there
        self._failed: dict[str, str] = {}  # the same, of what was tried in the background
        self._not_before = 0.0  # monotonic: the next attempt after one that failed
        self._stale_slots = StaleSlots(site)
        self._restoring = BackgroundTasks()

    def look(self) -> None:
        """Compare everything with what was made. Cheap: a few calls of stat(2)."""
        if self._site.stopping:
            return
        self._restored, self._restored_later = self._restored_later, []
        self._obstacles = dict(self._failed)
        if self._restore_directory():
            self._restore_control()
            self._restore_hub()
            self._restore_notify()
        self._restore_addresses()
        self._tell()
        if self._restored:
            self._stale_slots.retry_now()
        self._stale_slots.look()

    # What is made again

    def _restore_directory(self) -> bool:
        try:
            self._restored += self._runtime.restore()
        except ChansupError as error:
            self._obstacles[str(self._runtime.path)] = str(error)
            return False
        return True

    def _restore_control(self) -> None:
        path = self._runtime.path / CONTROL_SOCKET
        presence = self._runtime.control_presence()
        if presence is Presence.FOREIGN:
            self._is_in_the_way(path)
        elif presence is Presence.MISSING:
            self._begin(self._serve_control, str(path))

    def _restore_hub(self) -> None:
        hub = self._site.hub
        try:
            presence = hub.restore()
        except ChansupError as error:
            self._obstacles[str(hub.path)] = str(error)
            return
        if presence is Presence.MISSING:
            self._restored.append(str(hub.path))
        elif presence is Presence.FOREIGN:
            self._is_in_the_way(hub.path)
        if hub.former is not None and not any(
            process.specification.kind == "hub" and process.started_monotonic < hub.opened
            for process in self._site.processes.alive()
        ):
            hub.forget_former()

    def _restore_notify(self) -> None:
        for process in self._site.processes.alive():
            if process.notify is None:
                continue
            path = process.notify.path
            try:
                presence = process.notify.restore()
            except OSError as error:
                self._obstacles[str(path)] = f"cannot listen on {path}: {error.strerror}"
                continue
            if presence is Presence.MISSING:
                self._restored.append(str(path))
            elif presence is Presence.FOREIGN:
                self._is_in_the_way(path)

    def _restore_addresses(self) -> None:
        for one in self._site.addresses.listeners():
            presence = one.presence()
            if presence is Presence.FOREIGN:
                self._is_in_the_way(one.address)
            elif presence is Presence.MISSING:
                try:
                    one.restore()
                except ChansupError as error:
                    self._obstacles[str(one.address)] = str(error)
                    continue
                if one.presence() is Presence.OURS:
                    self._restored.append(str(one.address))
                else:
                    self._obstacles[str(one.address)] = (
                        f"{one.address} vanished: restart the .socket unit that made it"
                    )
        presence = self._admin.presence()
        if presence is Presence.FOREIGN:
            self._is_in_the_way(f"[admin] {self._admin.address}")
        elif presence is Presence.MISSING:
            self._begin(self._admin.restore, f"[admin] {self._admin.address}")

    def _is_in_the_way(self, path: object) -> None:
        self._obstacles[str(path)] = (
            f"{path}: something that chansup did not make stands there, and is left alone. "
            "Remove it, and chansup listens there again"
        )

    # Saying so

    def _tell(self) -> None:
        site = self._site
        site.files_restored += len(self._restored)
        if self._restored:
            named = ", ".join(self._restored[:_NAMED])
            more = len(self._restored) - _NAMED
            others = f" and {more} more" if more > 0 else ""
            site.say(f"{named}{others} vanished, made again", "warning")
        for path, said in self._obstacles.items():
            if site.obstacles.get(path) != said:
                site.say(said, "error")
        site.obstacles = self._obstacles

    def _begin(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        """Make `name` again in the background, not at once after an attempt that failed."""
        if self._restoring or time.monotonic() < self._not_before:
            return

        async def restore() -> None:
            try:
                await work()
            except (ChansupError, OSError) as error:
                self._failed[name] = f"cannot listen on {name} again: {error}"
                self._not_before = time.monotonic() + _PAUSE
            else:
                self._failed.pop(name, None)
                self._restored_later.append(name)

        self._restoring.start(restore())
