"""Which versions of chansup understand each other.

After an upgrade on disk the processes that start run other code than those that are there. What one
process makes and another reads is a contract, and has a version. A version changes when the other
side would misunderstand what comes. An addition does not count: a field with a default, a cell in
the room that is left.
"""

from typing import NamedTuple

import chansup

REMEDY = (
    "restart chansup, whose supervisor still runs the code from before an upgrade; a pool with an "
    "interpreter of its own needs the version of chansup that the supervisor runs"
)


class Contract(NamedTuple):
    """Something that two processes have to agree on, and the versions that this code knows."""

    name: str
    newest: int
    oldest: int  # of the other side, that this code still understands


# Between processes that come and go one by one: each release knows the version before as well.
RELAY = Contract("the relay", 3, 2)
LAYER = Contract("the channel layer", 1, 1)
TAKEOVER = Contract("the takeover of the hub", 1, 1)

# Between the supervisor and its children. None that is older can be there, but a supervisor.
LAUNCH = Contract("the launch document", 1, 1)  # with the roster and all that the supervisor says
SCOREBOARD = Contract("the scoreboard", 1, 1)
RELAY_BOARD = Contract("the relay board", 1, 1)
SESSIONS = Contract("the session table", 1, 1)
BULLETIN = Contract("the bulletin", 1, 1)
CARRY = Contract("the memory of WebSockets", 1, 1)  # with what is said of them
LEDGER = Contract("the ledger of the hub", 1, 1)


class VersionError(ValueError):
    """Two processes have no version of a contract in common. The message says what to do."""


def common(contract: Contract, oldest: int, newest: int) -> int | None:
    """Return the newest version that both know, this code and one that says what it knows."""
    found = min(contract.newest, newest)
    return found if found >= max(contract.oldest, oldest) else None


def require(contract: Contract, version: int) -> None:
    """Raise VersionError if this code does not know the version that another process uses."""
    if common(contract, version, version) is None:
        raise VersionError(
            f"{contract.name} has version {version}, and this process (chansup "
            f"{chansup.__version__}) knows {in_words(contract.oldest, contract.newest)}: {REMEDY}"
        )


def in_words(oldest: int, newest: int) -> str:
    """Return the versions that somebody knows, for people."""
    if oldest == newest:
        return f"version {newest}"
    return f"versions {oldest} to {newest}"
