"""The systemd notify protocol, spoken by children to the supervisor and by it to systemd.

Source: sd_notify(3). A message is a datagram of ``KEY=value`` lines sent to the Unix socket that
``NOTIFY_SOCKET`` names (a leading ``@`` stands for the abstract namespace).

What chansup's supervisor understands:

- ``READY=1``: the process accepts work.
- ``STOPPING=1``: the process accepts no new work any more; what it holds, it finishes.
- ``STATUS=…``: one line for people.
- ``X_CHANSUP_LOST=…``, of a hub: why it did not get what the hub before it had.
- ``WATCHDOG=1``: the process is alive; from then on, silence means that it hangs.
"""

import os
import socket
from collections.abc import Mapping

SOCKET_VARIABLE = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE = "WATCHDOG_USEC"  # microseconds of silence that mean "hangs"
LOST = "X_CHANSUP_LOST"
MAX_DATAGRAM = 4096  # bytes; longer ones are cut


def send(fields: Mapping[str, str], address: str | None = None, patience: float = 0.0) -> bool:
    """Send one message, and say whether anybody was there to take it.

    `address` defaults to ``$NOTIFY_SOCKET``. Nobody listening, or a queue that stays full for
    `patience` seconds, is not an error: the protocol is advisory. (The queue of a datagram socket
    is short, net.unix.max_dgram_qlen in unix(7).)
    """
    address = address or os.environ.get(SOCKET_VARIABLE)
    if not address:
        return False
    target = "\0" + address[1:] if address.startswith("@") else address
    message = "\n".join(f"{key}={value}" for key, value in fields.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        notifier.settimeout(patience)
        try:
            notifier.sendto(message.encode()[:MAX_DATAGRAM], target)
        except OSError:
            return False
    return True


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float:
    """Return the seconds in which WATCHDOG=1 should come at least; 0 if nobody waits for it."""
    text = environ.get(WATCHDOG_VARIABLE, "")
    return int(text) / 3e6 if text.isascii() and text.isdigit() else 0.0


def parse(datagram: bytes) -> dict[str, str]:
    """Return the fields of one message; lines that are not ``KEY=value`` are passed over."""
    text = datagram[:MAX_DATAGRAM].decode(errors="replace")
    pairs = (line.partition("=") for line in text.splitlines())
    return {key: value for key, separator, value in pairs if separator and key}
