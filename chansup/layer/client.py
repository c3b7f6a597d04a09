"""What the event loops of one process share: links to one hub, memberships, who receives what."""

import asyncio
import contextlib
import functools
import logging
import os
import secrets
import weakref
from collections.abc import Callable, Iterator

import msgspec

from chansup.layer.delivery import Handed, Settle
from chansup.layer.errors import HubLost, HubUnavailable, LayerError
from chansup.layer.frames import Kind, pack, string
from chansup.layer.greetings import Hello, Welcome
from chansup.layer.link import Link
from chansup.layer.memberships import Memberships, added, discarded
from chansup.layer.policies import Policy
from chansup.layer.requests import RefusedError
from chansup.protocol.connection import connection as current_connection
from chansup.protocol.hub_report import Queue
from chansup.protocol.versions import LAYER

logger = logging.getLogger("chansup.layer")

_MAX_CONNECTION = 2**32 - 1
_MAX_LEFT = 10_000  # channels that this process has left, that are remembered

_queues = msgspec.msgpack.Decoder(dict[str, Queue])
Name = bytes
_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()


class Client:
    """A channel layer of this process, as the hub sees it."""

    def __init__(
        self,
        address: str,
        policy: Policy,
        patience: float,
        find: Callable[[], str] | None = None,
    ) -> None:
        self.address = address  # "" until it is found for the first time
        self._find = find
        self.process = secrets.token_hex(8)
        self._policy = policy
        self.patience = patience
        self._links: dict[asyncio.AbstractEventLoop, Link] = {}
        self._owners: dict[Name, Link] = {}  # of channels that somebody receives from
        self._memberships = Memberships()
        self._bound: dict[Name, bytes] = {}  # channels that were made for a client's connection
        self._left: dict[Name, None] = {}
        self._epoch = ""
        self._number = 0
        self._connections = 0
        _clients.add(self)

    # Links

    def link(self) -> Link:
        """Return the link of the running event loop. Raises NoHub, LayerConfigError."""
        if not self.address and self._find is not None:
            self.address = self._find()
        loop = asyncio.get_running_loop()
        link = self._links.get(loop)
        if link is None or link.outbox.closed:
            self._forget_closed_loops()
            link = self._links[loop] = Link(self, loop)
        return link

    def find_address(self) -> str:
        """Return where the hub listens: the site may have been started again elsewhere."""
        if self._find is not None:
            with contextlib.suppress(LayerError):
                self.address = self._find()
        return self.address

    def _forget_closed_loops(self) -> None:
        had_channels = False
        for loop, link in list(self._links.items()):
            if loop.is_closed():
                had_channels = had_channels or bool(link.inboxes)
                link.close()
                self._links.pop(loop, None)
        if had_channels:
            for name, link in list(self._owners.items()):
                if link.closed:
                    self._owners.pop(name, None)

    def number_connection(self) -> int:
        """Return a number for one more connection."""
        self._connections = self._connections % _MAX_CONNECTION + 1
        return self._connections

    def hello(self, link: int = 0, former: int = 0, received: int = 0) -> bytes:
        """Return what the hub is told at first: of which connection, and of the one before it."""
        hello = Hello(
            newest=LAYER.newest, process=self.process, policy=self._policy, link=link,
            former=former, received=received,
        )  # fmt: skip
        return msgspec.msgpack.encode(hello)

    @property
    def policy(self) -> Policy:
        """What goes for what this layer sends."""
        return self._policy

    def change_policy(self, policy: Policy) -> None:
        """Let something else go for messages sent from now on."""
        self._policy = policy
        for loop, link in list(self._links.items()):
            if _is_running(loop):
                link.tell_policy()
            elif not loop.is_closed():
                loop.call_soon_threadsafe(link.tell_policy)

    def policy_frame(self) -> bytes:
        """Return what tells a hub the policy of now."""
        return pack(Kind.POLICY, msgspec.msgpack.encode(self._policy))

    def needs_hub(self) -> bool:
        """Say whether a connection is needed though nobody waits for it."""
        return bool(self._memberships)

    def replay(self, welcome: Welcome) -> Iterator[bytes]:
        """Yield what a hub has to be told that knows nothing."""
        if welcome.epoch == self._epoch:
            return
        self._epoch = welcome.epoch
        kind = Kind.REJOIN if welcome.awaits else Kind.GROUP_ADD
        self._forget_expired()
        for name, key in self._bound.items():
            yield _bind(key, name)
        yield from self._memberships.frames(kind)
        if welcome.awaits:
            yield pack(Kind.REJOINED)

    async def request(self, frame: bytes) -> bytes:
        """Send a request, and return the answer, also if it is another hub that gives it.

        Raises HubUnavailable, HubLost, RefusedError.
        """
        link = self.link()
        if not link.outbox.ready:
            await link.until_ready(link.loop.time() + self.patience)
        return await link.conversation.request(frame)

    async def flush_all(self) -> None:
        """Let the hub and all its clients forget all messages and groups. Raises HubUnavailable."""
        link = self.link()
        deadline = link.loop.time() + self.patience
        while True:
            await link.until_ready(deadline)
            try:
                return await link.conversation.flush_all()
            except HubLost:
                if link.loop.time() >= deadline:
                    raise

    def close(self) -> None:
        """Close the links of this event loop and of those that are closed; tell the others."""
        running = asyncio.get_running_loop()
        for loop, link in list(self._links.items()):
            if loop is running or loop.is_closed():
                link.close()
            elif loop.is_running():
                loop.call_soon_threadsafe(link.close)
            else:
                link.abandon(b"")
            self._links.pop(loop, None)
        self._owners.clear()

    def forget_in_child(self) -> None:
        """Begin again in a child that was forked: the links belong to the parent."""
        for link in self._links.values():
            link.forget_in_child()
        self._links = {}
        self._owners = {}
        self._memberships = Memberships()
        self._bound = {}
        self._left = {}
        self._epoch = ""
        self.process = secrets.token_hex(8)

    # Channels

    async def new_channel(self, prefix: str) -> str:
        """Return the name of a channel that only this process receives from."""
        self._number += 1
        name = f"{prefix}.{self.process}!{secrets.token_hex(6)}{self._number:x}"
        connection = current_connection.get()
        if connection is not None and not connection.leaving:
            connection.channels += 1
            key = f"{connection.id}/{connection.channels}".encode()
            encoded = name.encode()
            try:
                await self.request(_bind(key, encoded))
            except (HubUnavailable, RefusedError) as error:  # group_add will say so, if it matters
                logger.warning("chansup: a channel cannot take over from another: %s", error)
            else:
                self._bound[encoded] = key
                connection.welcomes.append(functools.partial(self._app_is_set_up, encoded))
                connection.farewells.append(functools.partial(self._app_returned, encoded))
        return name

    def is_bound(self, name: Name) -> bool:
        """Say whether a channel was made for a client's connection."""
        return name in self._bound

    def is_own(self, name: str) -> bool:
        """Say whether this process made a channel with "!"."""
        return name.partition("!")[0].endswith("." + self.process)

    async def receive(self, name: Name) -> bytes:
        """Return the next message of a channel."""
        if b"!" not in name:
            return (await self.link().demands.take(name)).body
        if name in self._left:
            await asyncio.get_running_loop().create_future()  # until it is cancelled
        return await self.link().inboxes.receive(name)

    async def take(self, name: Name, hold: bool) -> tuple[Handed, Settle]:
        """Return the next message of an ordinary channel, and what says what became of it."""
        demands = self.link().demands
        return await demands.take(name, hold), demands.settle

    async def observe(self, names: list[Name]) -> dict[str, Queue]:
        """Return what waits in channels. Raises RefusedError."""
        listed = b"".join(string(name) for name in names)
        answer = await self.request(pack(Kind.OBSERVE, listed))
        return _queues.decode(answer)

    def claim(self, name: Name, link: Link) -> None:
        """Let a link receive from a channel, and no other."""
        owner = self._owners.get(name)
        self._owners[name] = link
        if owner is None or owner is link or owner.closed:
            return
        if owner.loop.is_closed():
            owner.close()
            self._links.pop(owner.loop, None)
        elif owner.loop.is_running():
            owner.loop.call_soon_threadsafe(owner.inboxes.release, name)
        else:
            owner.abandon(name)

    def abandon_channel(self, name: Name, link: Link) -> None:
        """Take notice that nobody receives from a channel any more."""
        if self._owners.get(name) is link:
            del self._owners[name]
        if not self.leave(name):
            link.inboxes.unlisten(name)
            link.outbox.flush()
            if name not in self._memberships:
                self._bound.pop(name, None)

    # Handover

    def _app_is_set_up(self, name: Name) -> None:
        """Tell the hub that the app has joined the groups that it joins again after a handover."""
        key = self._bound.get(name)
        if key is not None:
            self.link().conversation.notify(_bind(key, name))

    def _app_returned(self, name: Name) -> None:
        """Let go of a channel that the app has not let go of, if nobody waits for a message."""
        here, owner = self.link(), self._owners.get(name)
        is_free = owner is None or (owner is here and here.inboxes.is_idle(name))
        if self.leave(name) or not is_free:
            return
        for group in self._memberships.pop(name):
            here.conversation.notify(discarded(group, name))
        if owner is not None:
            self.abandon_channel(name, owner)
        self._bound.pop(name, None)

    def leave(self, name: Name) -> bool:
        """Leave a channel to the process that its client goes to, if it does go."""
        if name in self._left:
            return True
        connection = current_connection.get()
        if connection is None or not connection.leaving:
            return False
        key = self._bound.get(name)
        if key is None or key.rpartition(b"/")[0] != connection.id.encode():
            return False
        del self._bound[name]
        self._memberships.pop(name)
        if len(self._left) >= _MAX_LEFT:
            del self._left[next(iter(self._left))]
        self._left[name] = None
        here = self.link()
        owner = self._owners.pop(name, None) or here
        in_hand = not connection.unfinished
        if owner is here or owner.closed:
            here.inboxes.park(key, name, in_hand)
        elif owner.loop.is_running():
            owner.loop.call_soon_threadsafe(owner.inboxes.park, key, name, in_hand)
        else:
            owner.abandon(name)
            here.inboxes.park(key, name, in_hand)
        return True

    # Groups

    async def group_add(self, group: Name, channel: Name) -> None:
        """Add a channel to a group."""
        await self.request(added(group, channel))
        self._memberships.add(group, channel)
        if self._memberships.are_many:
            self._forget_expired()

    def _forget_expired(self) -> None:
        """Forget memberships that the hub has forgotten: not every consumer leaves its groups."""
        for channel in self._memberships.expire(self._policy.group_expiry):
            if channel not in self._owners:
                self._bound.pop(channel, None)

    async def group_discard(self, group: Name, channel: Name) -> None:
        """Remove a channel from a group."""
        if b"!" in channel and self.leave(channel):
            return
        if self._memberships.discard(group, channel) and channel not in self._owners:
            self._bound.pop(channel, None)
        await self.request(discarded(group, channel))

    def forget_memberships(self) -> None:
        """Take notice that all groups are gone."""
        self._memberships.clear()


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this is the event loop of this thread."""
    with contextlib.suppress(RuntimeError):
        return asyncio.get_running_loop() is loop
    return False


def _bind(key: bytes, name: Name) -> bytes:
    return pack(Kind.BIND, string(key) + string(name))


def _forget_all_in_child() -> None:
    for client in list(_clients):
        client.forget_in_child()


os.register_at_fork(after_in_child=_forget_all_in_child)
